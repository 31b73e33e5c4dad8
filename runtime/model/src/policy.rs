//! Which chunk to evict: policies behind one trait, deciding on chunks that hold device frames.
//!
//! A policy sees uses (faults, prefetches, admissions) and, if it cares, what launches in the queue will need. It
//! does *not* know which blocks are held or busy: it is asked for victims in order, and the caller passes over those
//! that cannot go now.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

use crate::geometry::ChunkIndex;

/// A launch's place in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaunchOrder(pub u64);

/// Chooses what leaves the device.
pub trait EvictionPolicy: Send {
    /// The chunk was used on the device, or has come there.
    fn used(&mut self, chunk: ChunkIndex);

    /// The chunk holds no frames any more.
    fn gone(&mut self, chunk: ChunkIndex);

    /// A launch was submitted that will use these chunks. Launches come in order.
    fn declared(&mut self, launch: LaunchOrder, chunks: &[ChunkIndex]);

    /// The launch has been admitted (its uses are told by [`Self::used`]) or given up.
    fn settled(&mut self, launch: LaunchOrder);

    /// Whether a launch in the queue will use the chunk.
    fn is_awaited(&self, chunk: ChunkIndex) -> bool;

    /// Whether the first launch in the queue that will use any chunk that holds frames will use this one.
    fn is_next(&self, chunk: ChunkIndex) -> bool;

    /// The chunks that hold frames, the best to evict first.
    fn victims(&self) -> Box<dyn Iterator<Item = ChunkIndex> + '_>;
}

/// Chunks, or other things, in the order of their last use.
#[derive(Debug)]
pub struct LeastRecentlyUsed<T = ChunkIndex> {
    clock: u64,
    last: HashMap<T, u64>,
    order: BTreeMap<u64, T>,
}

impl<T> Default for LeastRecentlyUsed<T> {
    fn default() -> Self {
        Self { clock: 0, last: HashMap::new(), order: BTreeMap::new() }
    }
}

impl<T: Copy + Eq + Hash> LeastRecentlyUsed<T> {
    /// It was used now, or has come.
    pub fn touch(&mut self, one: T) {
        self.remove(one);
        self.clock += 1;
        self.last.insert(one, self.clock);
        self.order.insert(self.clock, one);
    }

    /// It is gone.
    pub fn remove(&mut self, one: T) {
        if let Some(time) = self.last.remove(&one) {
            self.order.remove(&time);
        }
    }

    /// Those that are there, the one used longest ago first.
    pub fn oldest(&self) -> impl Iterator<Item = T> + '_ {
        self.order.values().copied()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.last.len() as u64
    }
}

impl EvictionPolicy for LeastRecentlyUsed {
    fn used(&mut self, chunk: ChunkIndex) {
        self.touch(chunk);
    }

    fn gone(&mut self, chunk: ChunkIndex) {
        self.remove(chunk);
    }

    fn declared(&mut self, _: LaunchOrder, _: &[ChunkIndex]) {}

    fn settled(&mut self, _: LaunchOrder) {}

    fn is_awaited(&self, _: ChunkIndex) -> bool {
        false
    }

    fn is_next(&self, _: ChunkIndex) -> bool {
        false
    }

    fn victims(&self) -> Box<dyn Iterator<Item = ChunkIndex> + '_> {
        Box::new(self.oldest())
    }
}

/// Belady's rule as far as the queue reaches: first what no launch in the queue needs, least recently used first;
/// then what is needed last.
///
/// Evicting what is used farthest in the future moves the least possible (Belady, "A study of replacement algorithms
/// for a virtual-storage computer", 1966); beyond the queue's end nothing is known, and recency decides.
#[derive(Debug, Default)]
pub struct DeclaredNext {
    recency: LeastRecentlyUsed<ChunkIndex>,
    /// The launches that will use a chunk, the next first.
    next: HashMap<ChunkIndex, VecDeque<LaunchOrder>>,
    sets: HashMap<LaunchOrder, Vec<ChunkIndex>>,
    /// Resident chunks with a known next use, by that.
    waited_for: BTreeSet<(LaunchOrder, ChunkIndex)>,
}

impl DeclaredNext {
    fn next_use(&self, chunk: ChunkIndex) -> Option<LaunchOrder> {
        self.next.get(&chunk).and_then(|uses| uses.front()).copied()
    }

    fn enter(&mut self, chunk: ChunkIndex) {
        if let (Some(launch), true) = (self.next_use(chunk), self.recency.last.contains_key(&chunk)) {
            self.waited_for.insert((launch, chunk));
        }
    }

    fn leave(&mut self, chunk: ChunkIndex) {
        if let Some(launch) = self.next_use(chunk) {
            self.waited_for.remove(&(launch, chunk));
        }
    }
}

impl EvictionPolicy for DeclaredNext {
    fn used(&mut self, chunk: ChunkIndex) {
        self.recency.used(chunk);
        self.enter(chunk);
    }

    fn gone(&mut self, chunk: ChunkIndex) {
        self.leave(chunk);
        self.recency.gone(chunk);
    }

    fn declared(&mut self, launch: LaunchOrder, chunks: &[ChunkIndex]) {
        for chunk in chunks {
            self.next.entry(*chunk).or_default().push_back(launch);
            self.enter(*chunk);
        }
        self.sets.insert(launch, chunks.to_vec());
    }

    fn settled(&mut self, launch: LaunchOrder) {
        for chunk in self.sets.remove(&launch).unwrap_or_default() {
            self.leave(chunk);
            if let Some(uses) = self.next.get_mut(&chunk) {
                uses.retain(|other| *other != launch);
                if uses.is_empty() {
                    self.next.remove(&chunk);
                }
            }
            self.enter(chunk);
        }
    }

    fn is_awaited(&self, chunk: ChunkIndex) -> bool {
        self.next_use(chunk).is_some()
    }

    fn is_next(&self, chunk: ChunkIndex) -> bool {
        let next = self.waited_for.first().map(|(launch, _)| *launch);
        next.is_some() && self.next_use(chunk) == next
    }

    fn victims(&self) -> Box<dyn Iterator<Item = ChunkIndex> + '_> {
        let unknown = self.recency.victims().filter(|chunk| self.next_use(*chunk).is_none());
        Box::new(unknown.chain(self.waited_for.iter().rev().map(|(_, chunk)| *chunk)))
    }
}

/// The fewest units (blocks, chunks) that must be brought in for a sequence of uses of one each, with room for `room`
/// of them: Belady's optimum, computed offline.
#[must_use]
pub fn fewest_loads<T: Copy + Ord + Hash>(uses: &[T], room: usize) -> u64 {
    let mut next_use = vec![usize::MAX; uses.len()];
    let mut seen: HashMap<T, usize> = HashMap::new();
    for (at, chunk) in uses.iter().enumerate().rev() {
        next_use[at] = seen.insert(*chunk, at).unwrap_or(usize::MAX);
    }
    let mut resident: HashMap<T, usize> = HashMap::new();
    let mut by_next: BTreeSet<(usize, T)> = BTreeSet::new();
    let mut loads = 0;
    for (at, chunk) in uses.iter().enumerate() {
        match resident.insert(*chunk, next_use[at]) {
            Some(due) => {
                by_next.remove(&(due, *chunk));
            }
            None => {
                loads += 1;
                if resident.len() > room.max(1)
                    && let Some((_, farthest)) = by_next.pop_last()
                {
                    resident.remove(&farthest);
                }
            }
        }
        by_next.insert((next_use[at], *chunk));
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs single-chunk launches through a policy and counts loads; `lookahead` launches are declared in advance.
    fn loads(policy: &mut dyn EvictionPolicy, uses: &[u32], room: usize, lookahead: usize) -> u64 {
        let mut resident = BTreeSet::new();
        let (mut loads, mut told) = (0, 0);
        for (at, chunk) in uses.iter().enumerate() {
            while told < uses.len() && told <= at + lookahead {
                policy.declared(LaunchOrder(told as u64), &[ChunkIndex(uses[told])]);
                told += 1;
            }
            policy.settled(LaunchOrder(at as u64));
            if resident.insert(*chunk) {
                loads += 1;
                if resident.len() > room {
                    let victim = policy.victims().find(|victim| victim.0 != *chunk).unwrap();
                    assert!(resident.remove(&victim.0), "a victim that is not there");
                    policy.gone(victim);
                }
            }
            policy.used(ChunkIndex(*chunk));
        }
        loads
    }

    #[test]
    fn cyclic_passes_at_twice_the_room() {
        let uses: Vec<u32> = (0..8).flat_map(|_| 0..64).collect();
        let chunks: Vec<_> = uses.iter().copied().map(ChunkIndex).collect();
        let least = fewest_loads(&chunks, 32);
        let recent = loads(&mut LeastRecentlyUsed::default(), &uses, 32, 0);
        let declared = loads(&mut DeclaredNext::default(), &uses, 32, 64);
        assert_eq!(recent, 512, "every use misses");
        assert!(declared * 100 <= recent * 65, "{declared} of {recent}");
        assert!(declared * 10 <= least * 12, "{declared}, at least {least}");
    }

    #[test]
    fn a_published_sequence_has_its_known_optimum() {
        // The textbooks' reference string, with three frames: nine faults.
        let uses = [7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1];
        assert_eq!(fewest_loads(&uses, 3), 9);
        assert_eq!(fewest_loads::<u32>(&[], 5), 0);
    }

    proptest! {
        #[test]
        fn with_the_whole_queue_known_it_is_optimal(uses in proptest::collection::vec(0u32..12, 1..120), room in 2usize..8) {
            let chunks: Vec<_> = uses.iter().copied().map(ChunkIndex).collect();
            let least = fewest_loads(&chunks, room);
            prop_assert_eq!(loads(&mut DeclaredNext::default(), &uses, room, uses.len()), least);
            prop_assert!(loads(&mut LeastRecentlyUsed::default(), &uses, room, 0) >= least);
        }
    }
}
