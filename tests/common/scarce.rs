//! The smallest budget of device memory, and data of half of it up to four times as much.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use limosa::{FaultMode, GpuPtr, UnifiedVec};

use super::builder;
use super::failure::{BLOCK_WORDS, Kit, MIB, turn};
use super::views::{Way, cases};
use super::words::Random;

/// The least that a budget can be: four chunks.
pub const BUDGET: u64 = 8 * MIB;
pub const BUDGET_BLOCKS: usize = 128;
/// Of the budget.
pub const PERCENT: [usize; 5] = [50, 100, 150, 200, 400];

pub fn kit(test: &str, way: Way, mode: FaultMode) -> Option<Kit> {
    way.kit(test, builder().device_budget(BUDGET).fault_mode(mode))
}

/// Blocks of `percent` of the budget.
pub fn blocks(percent: usize) -> usize {
    BUDGET_BLOCKS * percent / 100
}

/// That VRAM is, and that no access was refused: nothing stood in for data.
pub fn within_budget(kit: &Kit, what: &str) {
    let (counted, resident) = (kit.heap().device_bytes(), kit.heap().device_frames_resident().unwrap());
    assert!(counted <= BUDGET && resident <= BUDGET, "{what}: {counted} and {resident} bytes of {BUDGET}");
    assert_eq!(kit.heap().counters().faults_refused, 0, "{what}: so nothing stood in");
}

/// Each way and mode, in a turn of its own, with each size of the data.
pub fn each(test: &str, ways: &[Way], check: impl Fn(&Kit, usize, &str)) {
    for (way, mode) in cases(ways) {
        let _turn = turn(&format!("{test}, {way:?}, {mode:?}"));
        for percent in PERCENT {
            let Some(kit) = kit(test, way, mode) else { break };
            let what = format!("{test}, {percent} %, {way:?}, {mode:?}");
            check(&kit, percent, &what);
            within_budget(&kit, &what);
        }
    }
}

/// Nodes linked by pointers as the kernel `lookup` follows them, in parts: node after node in a random order within a
/// part, with keys that count up. The last node of a part has the next part's first as its value.
pub struct Chain {
    pub words: UnifiedVec<u64>,
    roots: Vec<GpuPtr<u64>>,
    per_part: usize,
}

impl Chain {
    pub fn new(kit: &Kit, parts: usize, blocks: usize, per_block: usize, random: &mut Random) -> Self {
        let (step, per_part) = (BLOCK_WORDS / 2 / per_block, blocks * per_block);
        let mut words = kit.heap().vec_zeroed::<u64>(parts * blocks * BLOCK_WORDS / 2).unwrap();
        let orders: Vec<_> = (0..parts).map(|_| random.shuffled(per_part)).collect();
        let place = |part: usize, node: usize| {
            let at = part * per_part + orders[part][node];
            at / per_block * (BLOCK_WORDS / 2) + at % per_block * step
        };
        let roots: Vec<_> = (0..parts).map(|part| words.ptr(place(part, 0))).collect();
        let mut chain = Self { words: kit.heap().vec_zeroed(0).unwrap(), roots, per_part };
        let base = words.ptr(0);
        let mut there = words.write().unwrap();
        for (part, node) in (0..parts).flat_map(|part| (0..per_part).map(move |node| (part, node))) {
            let key = (part * per_part + node) as u64;
            let next = if node + 1 < per_part { base.add(place(part, node + 1) as u64).address() } else { 0 };
            // Ever larger keys to the right.
            there[place(part, node)..][..4].copy_from_slice(&[key, chain.value(key), 0, next]);
        }
        chain.words = words;
        chain
    }

    /// Nodes there are.
    pub fn count(&self) -> usize {
        self.per_part * self.roots.len()
    }

    /// The first node of a part.
    pub fn root(&self, part: usize) -> GpuPtr<u64> {
        self.roots[part]
    }

    /// The keys in a part.
    pub fn keys(&self, part: usize) -> std::ops::Range<u64> {
        let first = (part * self.per_part) as u64;
        first..first + self.per_part as u64
    }

    /// What belongs to a key.
    pub fn value(&self, key: u64) -> u64 {
        let (part, next) = (key / self.per_part as u64, key + 1);
        let next_root = self.roots.get(usize::try_from(part + 1).unwrap());
        if next.is_multiple_of(self.per_part as u64) { next_root.map_or(0, |root| root.address()) } else { key * 3 + 1 }
    }

    /// The words in a part.
    pub fn part(&self, part: usize) -> std::ops::Range<usize> {
        let words = self.words.len() / self.roots.len();
        part * words..(part + 1) * words
    }
}
