//! Advice: what a program says of its future accesses, by block, and what follows from it for growth and eviction.
//!
//! Advice is never needed for correctness and never a reason to fail. It does *not* move anything by itself.

use crate::address::{Access, Side};
use crate::geometry::BlockSet;

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

#[cfg(test)]
mod tests {
    use super::*;
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
    }
}
