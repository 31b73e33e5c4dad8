//! More than fits: kernels walk through data of half the budget up to four times the budget, in order and at random,
//! declared and not. The results are right, and VRAM never exceeds its budget.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::sync::Arc;

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, turn};
use limosa::{Access, Counters, FaultMode, GpuPtr, Kernel, RawAllocation, UnifiedVec};
use limosa_shaders::{copy, fill, lookup, reduce};

const MODES: [FaultMode; 2] = [FaultMode::HandlerThread, FaultMode::InThread];
const BUDGET: u64 = 8 * MIB;
const BUDGET_BLOCKS: usize = 128;
/// Of the budget.
const PERCENT: [usize; 5] = [50, 100, 150, 200, 400];

/// A xorshift generator: the same sequence in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn shuffled(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for index in (1..len).rev() {
            order.swap(index, self.below(index + 1));
        }
        order
    }
}

fn kit(test: &str, mode: FaultMode) -> Option<Kit> {
    Kit::new(test, builder().device_budget(BUDGET).fault_mode(mode))
}

/// Blocks of `percent` of the budget, less what else a test keeps there.
fn blocks(percent: usize) -> usize {
    BUDGET_BLOCKS * percent / 100
}

fn within_budget(kit: &Kit, what: &str) {
    let (counted, resident) = (kit.heap().device_bytes(), kit.heap().device_frames_resident().unwrap());
    assert!(counted <= BUDGET && resident <= BUDGET, "{what}: {counted} and {resident} bytes of {BUDGET}");
    assert_eq!(kit.heap().counters().faults_refused, 0, "{what}: so nothing stood in");
}

/// Each of `words` words is its index.
fn counted(kit: &Kit, blocks: usize) -> UnifiedVec<u32> {
    kit.heap().vec_with(blocks * BLOCK_WORDS, |i| u32::try_from(i).unwrap()).unwrap()
}

fn sum_of(words: std::ops::Range<usize>) -> u64 {
    words.map(|word| word as u64).sum()
}

fn each(test: &str, check: impl Fn(&Kit, usize, &str)) {
    for mode in MODES {
        for percent in PERCENT {
            let Some(kit) = kit(test, mode) else { return };
            let what = format!("{test}, {percent} %, {mode:?}");
            check(&kit, percent, &what);
            within_budget(&kit, &what);
        }
    }
}

/// Adds up `words` words at `source` by faults alone.
fn sum_undeclared(kit: &Kit, source: GpuPtr<u32>, words: usize, keep: &Arc<RawAllocation>, total: &UnifiedVec<u64>) {
    // One invocation a word: each workgroup reads its own stretch, once.
    let launch = kit.queue.launch(&kit.reduce, words as u64).pointer(source);
    let launch = launch.pointer(total.ptr(0)).value(words as u64).keeps(keep).keeps(total.raw());
    // SAFETY: reduce reads inside of what is kept, and adds to `total`, which nobody uses meanwhile.
    unsafe { launch.submit() }.unwrap().wait().unwrap();
}

#[test]
fn sequential_undeclared() {
    let _turn = turn("sequential, undeclared");
    each("sequential", |kit, percent, what| {
        let vec = counted(kit, blocks(percent));
        let total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        let mut expected = 0;
        for (value, there) in [(5u32, sum_of(0..vec.len())), (6, 5 * vec.len() as u64)] {
            sum_undeclared(kit, vec.ptr(0), vec.len(), vec.raw(), &total);
            kit.fill_at(vec.ptr(0).address(), vec.len() as u64, value).unwrap().wait().unwrap();
            expected += there;
            within_budget(kit, what);
        }
        assert_eq!(total.read().unwrap()[0], expected, "{what}");
        assert!(vec.read().unwrap().iter().all(|word| *word == 6), "{what}");
        let evicted = kit.heap().counters().blocks_evicted;
        assert!(percent <= 100 || evicted > 0, "{what}: {evicted} blocks evicted");
    });
}

#[test]
fn random_blocks_undeclared() {
    let _turn = turn("random blocks, undeclared");
    each("random blocks", |kit, percent, what| {
        let vec = counted(kit, blocks(percent));
        let total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        let order = Random(0x9e37_79b9_7f4a_7c15).shuffled(blocks(percent));
        let mut expected = 0;
        for (turn, block) in order.iter().enumerate() {
            let words = block * BLOCK_WORDS..(block + 1) * BLOCK_WORDS;
            if turn % 3 == 0 {
                let at = vec.ptr(words.start).address();
                kit.fill_at(at, BLOCK_WORDS as u64, 1).unwrap().wait().unwrap();
                expected += BLOCK_WORDS as u64;
            } else {
                expected += sum_of(words.clone());
            }
            sum_undeclared(kit, vec.ptr(words.start), BLOCK_WORDS, vec.raw(), &total);
        }
        assert_eq!(total.read().unwrap()[0], expected, "{what}");
        let words = vec.read().unwrap();
        for (turn, block) in order.iter().enumerate() {
            let mut block = (block * BLOCK_WORDS..).zip(&words[block * BLOCK_WORDS..][..BLOCK_WORDS]);
            assert!(
                block.all(|(i, word)| *word == if turn % 3 == 0 { 1 } else { u32::try_from(i).unwrap() }),
                "{what}"
            );
        }
    });
}

/// Nodes in a list that is linked by pointers, as lookup follows them.
fn list(kit: &Kit, blocks: usize, per_block: usize, random: &mut Random) -> UnifiedVec<u64> {
    let (step, count) = (BLOCK_WORDS / 2 / per_block, blocks * per_block);
    let order = random.shuffled(count);
    let mut words = kit.heap().vec_zeroed::<u64>(blocks * BLOCK_WORDS / 2).unwrap();
    let base = words.ptr(0);
    let at = |node: usize| base.add((order[node] * step) as u64).address();
    let links: Vec<u64> = (1..=count).map(|next| if next < count { at(next) } else { 0 }).collect();
    let mut there = words.write().unwrap();
    for (node, next) in links.into_iter().enumerate() {
        // Ever larger keys to the right.
        there[order[node] * step..][..4].copy_from_slice(&[node as u64, node as u64 * 3 + 1, 0, next]);
    }
    words
}

fn chase(kit: &Kit, kernel: &Kernel, blocks: usize, per_block: usize, what: &str) {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let list = list(kit, blocks, per_block, &mut random);
    let count = blocks * per_block;
    let first = Random(0x2545_f491_4f6c_dd1d).shuffled(count)[0];
    let root = list.ptr(first * (BLOCK_WORDS / 2 / per_block));
    let wanted: Vec<u64> = [count - 1, count / 2, 0, count].iter().map(|key| *key as u64).collect();
    let keys = kit.heap().vec_from(&wanted).unwrap();
    let mut values = kit.heap().vec_zeroed::<u64>(wanted.len()).unwrap();
    for _ in 0..2 {
        let launch = kit.queue.launch(kernel, wanted.len() as u64).pointer(root).reads(&keys).writes(&mut values);
        let launch = launch.value(wanted.len() as u64).value(u64::MAX).keeps(list.raw());
        // SAFETY: lookup follows pointers inside of `list`, which is kept.
        unsafe { launch.submit() }.unwrap().wait().unwrap();
        let expected: Vec<u64> =
            wanted.iter().map(|key| if *key < count as u64 { key * 3 + 1 } else { u64::MAX }).collect();
        assert_eq!(values.to_vec().unwrap(), expected, "{what}");
    }
}

#[test]
fn pointer_chase_undeclared() {
    let _turn = turn("pointer chase, undeclared");
    each("pointer chase", |kit, percent, what| {
        let kernel = kit.context.kernel(lookup::KERNEL.name, lookup::KERNEL.spirv).unwrap();
        chase(kit, &kernel, blocks(percent), 3, what);
    });
}

/// A gather of single words: the walk goes to another block with every step, and so to another chunk.
#[test]
fn random_words_undeclared() {
    let _turn = turn("random words, undeclared");
    each("random words", |kit, percent, what| {
        let vec = counted(kit, blocks(percent));
        let total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        let mut random = Random(0x1234_5678_9abc_def1);
        let mut expected = 0;
        let mut touched = std::collections::BTreeMap::new();
        for turn in 0..400u32 {
            let word = random.below(vec.len());
            if turn % 2 == 0 {
                kit.fill_at(vec.ptr(word).address(), 1, turn).unwrap().wait().unwrap();
                touched.insert(word, turn);
            }
            expected += touched.get(&word).map_or(word as u64, |turn| u64::from(*turn));
            sum_undeclared(kit, vec.ptr(word), 1, vec.raw(), &total);
        }
        assert_eq!(total.read().unwrap()[0], expected, "{what}");
        let words = vec.read().unwrap();
        let right = |(i, word): (usize, &u32)| *word == touched.get(&i).copied().unwrap_or(u32::try_from(i).unwrap());
        assert!(words.iter().enumerate().all(right), "{what}");
    });
}

/// Passes over `vec` in parts, in the order of each pass, each part declared to be read. Gives what was counted.
fn declared_passes(kit: &Kit, vec: &UnifiedVec<u32>, part: usize, passes: &[Vec<usize>]) -> (u64, Counters) {
    let mut total = kit.heap().vec_zeroed::<u64>(1).unwrap();
    let before = kit.heap().counters();
    let words = part * BLOCK_WORDS;
    for at in passes.iter().flatten() {
        let range = at * words..(at + 1) * words;
        let launch = kit.queue.launch(&kit.reduce, words as u64 / reduce::ITEMS).pointer(vec.ptr(range.start));
        let launch = launch.writes(&mut total).value(words as u64).with_reads_of(vec, range);
        // SAFETY: reduce reads the declared part and adds to `total`.
        unsafe { launch.submit() }.unwrap();
    }
    kit.queue.wait_idle().unwrap();
    let counted = kit.heap().counters().since(&before);
    (total.read().unwrap()[0], counted)
}

#[test]
fn declared_reads_in_parts_leave_without_a_copy() {
    let _turn = turn("declared reads");
    each("declared reads", |kit, percent, what| {
        let part = 8;
        let vec = counted(kit, blocks(percent));
        let parts = blocks(percent) / part;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let passes = [(0..parts).collect(), (0..parts).collect(), random.shuffled(parts), (0..parts).rev().collect()];
        let (total, moved) = declared_passes(kit, &vec, part, &passes);
        assert_eq!(total, 4 * sum_of(0..vec.len()), "{what}");
        assert_eq!(moved.blocks_to_host, 0, "{what}: {moved:?}");
        assert_eq!(moved.gpu_read_faults + moved.gpu_write_faults, 0, "{what}: {moved:?}");
        assert!(moved.blocks_to_device >= blocks(percent) as u64, "{what}: {moved:?}");
        if percent == 50 {
            assert_eq!(moved.blocks_evicted, 0, "{what}: {moved:?}");
        }
        if percent >= 200 {
            assert!(moved.blocks_evicted > 0, "{what}: {moved:?}");
        }
    });
}

#[test]
fn declared_writes_in_parts_come_back() {
    let _turn = turn("declared writes");
    each("declared writes", |kit, percent, what| {
        let part = 16;
        let words = part * BLOCK_WORDS;
        let mut vec = counted(kit, blocks(percent));
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        for value in 0..3u32 {
            for at in random.shuffled(blocks(percent) / part) {
                let range = at * words..(at + 1) * words;
                // The last word of each part stays.
                let count = words as u64 - 1;
                let launch = kit.queue.launch(&kit.fill, count.div_ceil(fill::ITEMS)).pointer(vec.ptr(range.start));
                let launch = launch.value(count).value(value).value(0u32).with_writes_of(&mut vec, range);
                // SAFETY: fill writes inside of the declared part.
                unsafe { launch.submit() }.unwrap();
            }
        }
        kit.queue.wait_idle().unwrap();
        within_budget(kit, what);
        let last = |i: usize| i % words == words - 1;
        let words = vec.read().unwrap();
        let right = |(i, word): (usize, &u32)| *word == if last(i) { u32::try_from(i).unwrap() } else { 2 };
        assert!(words.iter().enumerate().all(right), "{what}");
    });
}

#[test]
fn a_declared_chase_in_a_heap_of_random_blocks() {
    let _turn = turn("declared random blocks");
    each("declared random blocks", |kit, percent, what| {
        let (source, mut target) = (counted(kit, blocks(percent)), counted(kit, blocks(percent)));
        let mut random = Random(0x1234_5678_9abc_def1);
        let order = random.shuffled(blocks(percent));
        // Block i goes to block order[i], each launch declaring two blocks of two vectors.
        for (from, to) in order.iter().enumerate() {
            let (from, to) = (from * BLOCK_WORDS, to * BLOCK_WORDS);
            let words = BLOCK_WORDS as u64;
            let launch = kit.queue.launch(&kit.copy, words / copy::ITEMS).pointer(target.ptr(to));
            let launch = launch.pointer(source.ptr(from)).value(words).with_reads_of(&source, from..from + BLOCK_WORDS);
            // SAFETY: copy touches the two declared blocks.
            unsafe { launch.with_writes_of(&mut target, to..to + BLOCK_WORDS).submit() }.unwrap();
        }
        let words = target.read().unwrap();
        for (from, to) in order.iter().enumerate() {
            let block = &words[to * BLOCK_WORDS..][..BLOCK_WORDS];
            let right = |(i, word): (usize, &u32)| usize::try_from(*word) == Ok(from * BLOCK_WORDS + i);
            assert!(block.iter().enumerate().all(right), "{what}: block {from}");
        }
    });
}

/// What is declared to be read in a cycle of twice the budget moves little more than it must.
#[test]
fn cyclic_passes_keep_what_the_queue_needs() {
    let _turn = turn("cyclic passes");
    let Some(kit) = Kit::new("cyclic passes", builder().device_budget(4 * BUDGET)) else { return };
    let (all, part) = (8 * BUDGET_BLOCKS, 32);
    let vec = counted(&kit, all);
    let passes: Vec<Vec<usize>> = (0..8).map(|_| (0..all / part).collect()).collect();
    let (total, moved) = declared_passes(&kit, &vec, part, &passes);
    assert_eq!(total, 8 * sum_of(0..vec.len()));
    let all = 8 * all as u64;
    assert!(moved.blocks_to_device * 100 <= all * 65, "{} blocks of {all}", moved.blocks_to_device);
    assert_eq!(moved.blocks_to_host, 0);
}

/// Both sides at once: the CPU reads what the GPU streams through, in raw memory that is larger than the budget.
#[test]
fn the_cpu_reads_along_while_kernels_stream() {
    let _turn = turn("reads along");
    for mode in MODES {
        let Some(kit) = kit("reads along", mode) else { return };
        let vec = counted(&kit, blocks(200));
        let total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random(0x9e37_79b9_7f4a_7c15);
                let words = vec.read().unwrap();
                (0..2000).map(|_| random.below(words.len())).for_each(|i| assert_eq!(usize::try_from(words[i]), Ok(i)));
            });
            for part in 0..8 {
                let words = vec.len() / 8;
                sum_undeclared(&kit, vec.ptr(part * words), words, vec.raw(), &total);
            }
        });
        assert_eq!(total.read().unwrap()[0], sum_of(0..vec.len()));
        within_budget(&kit, "reads along");
        let launch = kit.queue.launch(&kit.fill, 1).value(0u64).value(0u64).value(0u32).value(0u32);
        // SAFETY: fill of no words touches nothing; what is declared fits.
        unsafe { launch.with_raw(total.raw(), Access::Read).submit() }.unwrap().wait().unwrap();
        assert!(kit.heap().device_bytes() % BLOCK == 0);
    }
}
