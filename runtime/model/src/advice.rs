//! Advice: what a program says of its future accesses, by block, and what follows from it for growth and eviction.
//!
//! Advice is never needed for correctness and never a reason to fail. It does *not* move anything by itself.

use std::collections::BTreeMap;

use crate::address::{Access, Side};
use crate::geometry::{BlockSet, ChunkIndex};
use crate::policy::EvictionPolicy;

/// What is said of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Advice {
    /// Nothing: what was said before no longer holds.
    #[default]
    None,
    /// Both sides read it, and hardly anybody writes: a prefetch makes a copy and leaves that of the other side, both
    /// open for reading. A write takes the block written back to one copy, and no other block.
    ReadMostly,
    /// It had best be on the device: it is evicted after everything else, and what a CPU thread touches comes alone.
    PreferDevice,
    /// It had best be on the host: it is evicted before everything else, and what a kernel touches comes alone.
    PreferHost,
}

/// The advice for the blocks of one chunk; each block is in one of the sets at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AdviceSets {
    read_mostly: BlockSet,
    prefer_device: BlockSet,
    prefer_host: BlockSet,
}

impl AdviceSets {
    /// Replaces what was said of `blocks`.
    pub(crate) fn set(&mut self, blocks: BlockSet, advice: Advice) {
        for (kind, set) in [
            (Advice::ReadMostly, &mut self.read_mostly),
            (Advice::PreferDevice, &mut self.prefer_device),
            (Advice::PreferHost, &mut self.prefer_host),
        ] {
            *set = if kind == advice { *set | blocks } else { *set - blocks };
        }
    }

    /// The blocks of which anything is said.
    #[must_use]
    pub fn given(&self) -> BlockSet {
        self.read_mostly | self.prefer_device | self.prefer_host
    }

    /// The blocks that are shared by prefetches.
    #[must_use]
    pub fn read_mostly(&self) -> BlockSet {
        self.read_mostly
    }

    /// The blocks that a fault brings alone, and that do not come along with others.
    #[must_use]
    pub fn alone(&self, side: Side, access: Access) -> BlockSet {
        let unwelcome = match side {
            Side::Host => self.prefer_device,
            Side::Device => self.prefer_host,
        };
        if access == Access::Write { unwelcome | self.read_mostly } else { unwelcome }
    }

    /// The blocks to be evicted in this turn.
    #[must_use]
    pub fn due(&self, turn: Turn) -> BlockSet {
        match turn {
            Turn::First => self.prefer_host,
            Turn::Usual => BlockSet::ALL - self.prefer_host - self.prefer_device,
            Turn::Last => self.prefer_device,
        }
    }
}

/// When a block's turn to be evicted comes, by what is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Turn {
    /// Before everything else.
    First,
    /// As the policy says.
    Usual,
    /// After everything else.
    Last,
}

impl Turn {
    /// All, in order.
    pub const ALL: [Self; 3] = [Self::First, Self::Usual, Self::Last];
}

/// A policy's order of victims, with what programs prefer before it: a chunk comes up once in each turn in which
/// blocks of it are due. Within a turn the order is the policy's own.
#[derive(Debug, Default)]
pub struct ByAdvice<P> {
    /// Decides within a turn.
    pub policy: P,
    /// The chunks with blocks that are due first or last.
    advised: BTreeMap<ChunkIndex, (bool, bool)>,
}

impl<P: EvictionPolicy> ByAdvice<P> {
    /// This is said of the chunk's blocks from now on.
    pub fn advise(&mut self, chunk: ChunkIndex, advice: &AdviceSets) {
        let due = |turn| !advice.due(turn).is_empty();
        match (due(Turn::First), due(Turn::Last)) {
            (false, false) => self.advised.remove(&chunk),
            turns => self.advised.insert(chunk, turns),
        };
    }

    /// The chunks that hold frames with the turns in which blocks of them are due, the best to evict first.
    pub fn victims(&self) -> impl Iterator<Item = (Turn, ChunkIndex)> + '_ {
        // Nobody pays for advice that nobody gives.
        let turns = Turn::ALL.into_iter().filter(|turn| *turn == Turn::Usual || !self.advised.is_empty());
        turns.flat_map(move |turn| {
            let due = move |chunk: &ChunkIndex| match (turn, self.advised.get(chunk)) {
                (Turn::Usual, _) => true,
                (Turn::First, advised) => advised.is_some_and(|(first, _)| *first),
                (Turn::Last, advised) => advised.is_some_and(|(_, last)| *last),
            };
            self.policy.victims().filter(due).map(move |chunk| (turn, chunk))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{DeclaredNext, LaunchOrder};
    use proptest::prelude::*;

    fn advice() -> impl Strategy<Value = Advice> {
        use Advice::{None, PreferDevice, PreferHost, ReadMostly};
        prop_oneof![Just(None), Just(ReadMostly), Just(PreferDevice), Just(PreferHost)]
    }

    #[test]
    fn the_last_word_on_a_block_counts() {
        let mut sets = AdviceSets::default();
        sets.set(BlockSet::run(0, 8), Advice::ReadMostly);
        sets.set(BlockSet::run(4, 8), Advice::PreferHost);
        sets.set(BlockSet::run(10, 8), Advice::PreferDevice);
        sets.set(BlockSet::of(0), Advice::None);
        assert_eq!(sets.read_mostly(), BlockSet::run(1, 3));
        assert_eq!(sets.due(Turn::First), BlockSet::run(4, 6));
        assert_eq!(sets.due(Turn::Last), BlockSet::run(10, 8));
        assert_eq!(sets.given(), BlockSet::run(1, 17));
    }

    #[test]
    fn what_comes_alone_depends_on_who_touches_it_and_how() {
        let mut sets = AdviceSets::default();
        let (mostly, device, host) = (BlockSet::of(1), BlockSet::of(2), BlockSet::of(3));
        sets.set(mostly, Advice::ReadMostly);
        sets.set(device, Advice::PreferDevice);
        sets.set(host, Advice::PreferHost);
        assert_eq!(sets.alone(Side::Host, Access::Read), device);
        assert_eq!(sets.alone(Side::Host, Access::Write), device | mostly);
        assert_eq!(sets.alone(Side::Device, Access::Read), host);
        assert_eq!(sets.alone(Side::Device, Access::Write), host | mostly);
    }

    proptest! {
        #[test]
        fn turns_part_the_blocks(steps in proptest::collection::vec((any::<u32>(), advice()), 0..20)) {
            let mut sets = AdviceSets::default();
            steps.into_iter().for_each(|(blocks, advice)| sets.set(BlockSet(blocks), advice));
            let turns = Turn::ALL.map(|turn| sets.due(turn));
            prop_assert_eq!(turns[0] | turns[1] | turns[2], BlockSet::ALL);
            prop_assert_eq!(turns.iter().map(|set| set.count()).sum::<u32>(), 32);
        }

        /// Belady's order, and recency beyond the queue, stay what they are among the chunks of one turn.
        #[test]
        fn within_a_turn_the_order_is_the_policys(
            uses in proptest::collection::vec(0u32..12, 1..60),
            declared in proptest::collection::vec(0u32..12, 0..20),
            said in proptest::collection::vec((0u32..12, any::<u32>(), advice()), 0..12),
        ) {
            let mut plain = DeclaredNext::default();
            let mut advised = ByAdvice::<DeclaredNext>::default();
            for policy in [&mut plain, &mut advised.policy] {
                uses.iter().for_each(|chunk| policy.used(ChunkIndex(*chunk)));
                for (launch, chunk) in (0..).map(LaunchOrder).zip(&declared) {
                    policy.declared(launch, &[ChunkIndex(*chunk)]);
                }
            }
            let mut sets: BTreeMap<ChunkIndex, AdviceSets> = BTreeMap::new();
            for (chunk, blocks, advice) in said {
                let chunk = ChunkIndex(chunk);
                sets.entry(chunk).or_default().set(BlockSet(blocks), advice);
                advised.advise(chunk, &sets[&chunk]);
            }
            let all: Vec<_> = advised.victims().collect();
            prop_assert!(all.is_sorted_by_key(|(turn, _)| *turn));
            for turn in Turn::ALL {
                let due = |chunk: &ChunkIndex| {
                    let sets = sets.get(chunk).copied().unwrap_or_default();
                    turn == Turn::Usual || !sets.due(turn).is_empty()
                };
                let own: Vec<_> = all.iter().filter(|(other, _)| *other == turn).map(|(_, chunk)| *chunk).collect();
                prop_assert_eq!(own, plain.victims().filter(due).collect::<Vec<_>>());
            }
        }
    }
}
