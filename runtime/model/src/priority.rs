//! Priorities: which blocks a program would rather keep on the device than others, by block.
//!
//! A priority changes no result, and nothing fails for want of one. What it means for the order of eviction is said in
//! `order`.

use crate::geometry::BlockSet;

/// How much a program wants an allocation to stay on the device, beside others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// It makes room for others.
    Low,
    /// As everything of which nothing is said.
    #[default]
    Normal,
    /// Others make room for it.
    High,
}

impl Priority {
    /// All, the first to be evicted first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];
}

/// The priorities of the blocks of one chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PrioritySets {
    low: BlockSet,
    high: BlockSet,
}

impl PrioritySets {
    /// Replaces the priority of `blocks`.
    pub(crate) fn set(&mut self, blocks: BlockSet, priority: Priority) {
        for (kind, set) in [(Priority::Low, &mut self.low), (Priority::High, &mut self.high)] {
            *set = if kind == priority { *set | blocks } else { *set - blocks };
        }
    }

    /// The blocks of this priority.
    #[must_use]
    pub fn of(&self, priority: Priority) -> BlockSet {
        match priority {
            Priority::Low => self.low,
            Priority::Normal => BlockSet::ALL - self.low - self.high,
            Priority::High => self.high,
        }
    }

    /// The priority of the block in `slot`.
    #[must_use]
    pub fn at(&self, slot: u32) -> Priority {
        Priority::ALL.into_iter().find(|priority| self.of(*priority).contains(slot)).unwrap_or_default()
    }

    /// The highest among `blocks`.
    #[must_use]
    pub fn highest(&self, blocks: BlockSet) -> Priority {
        let found = Priority::ALL.into_iter().rev().find(|priority| !(self.of(*priority) & blocks).is_empty());
        found.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_block_has_the_priority_said_last(steps in proptest::collection::vec((any::<u32>(), 0usize..3), 0..20)) {
            let mut sets = PrioritySets::default();
            let mut known = [Priority::Normal; 32];
            for (blocks, priority) in steps {
                let (blocks, priority) = (BlockSet(blocks), Priority::ALL[priority]);
                sets.set(blocks, priority);
                blocks.slots().for_each(|slot| known[slot as usize] = priority);
            }
            for (slot, priority) in (0..).zip(known) {
                prop_assert_eq!(sets.at(slot), priority);
                prop_assert_eq!(Priority::ALL.map(|one| sets.of(one).contains(slot)), Priority::ALL.map(|one| one == priority));
            }
            prop_assert_eq!(Some(sets.highest(BlockSet::ALL)), known.into_iter().max());
        }
    }
}
