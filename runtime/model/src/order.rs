//! The order in which blocks leave the device: what programs say comes before what the policy finds.
//!
//! Advice parts the blocks into turns. Within a turn, Low goes before Normal before High, and among equals the policy
//! decides: what no launch in the queue has declared, least recently used first, then what is needed last.
//!
//! So a High block that nobody has declared outlives a Low one that a launch behind in the queue will use: otherwise a
//! long queue of passes over Low data, all declared, would drive out just what was to be kept from it. Such passes then
//! run as in a smaller device, and the moves that this costs are theirs. But what the *next* launch has declared goes
//! last in its turn, whatever its priority: it will be held in a moment, so to evict it would cost a move and win
//! nothing.
//!
//! It does *not* know what is held or busy: those blocks are passed over, however low they are.

use std::collections::BTreeMap;

use crate::advice::Turn;
use crate::chunk::Chunk;
use crate::geometry::ChunkIndex;
use crate::policy::EvictionPolicy;
use crate::priority::Priority;

/// When a block is evicted, by what is said of it: the lowest rank first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// By advice.
    pub turn: Turn,
    /// Whether the next launch has declared something of its chunk.
    pub next: bool,
    /// By priority.
    pub priority: Priority,
}

impl Rank {
    /// All, the lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        let each = |next: bool| Priority::ALL.map(|priority| (next, priority));
        Turn::ALL.into_iter().flat_map(move |turn| {
            let ranks = [each(false), each(true)].into_iter().flatten();
            ranks.map(move |(next, priority)| Self { turn, next, priority })
        })
    }
}

/// The blocks that may be evicted for something: those whose turn and priority are not above these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The last turn.
    pub turn: Turn,
    /// The highest priority.
    pub priority: Priority,
}

impl Reach {
    /// Whatever there is.
    pub const ALL: Self = Self { turn: Turn::Last, priority: Priority::High };

    /// Whether blocks of this rank may go.
    #[must_use]
    pub fn allows(self, rank: Rank) -> bool {
        rank.turn <= self.turn && rank.priority <= self.priority
    }
}

/// The turns and priorities of a chunk's blocks, a bit for each pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Said(u16);

impl Said {
    /// Of what nothing is said.
    const NOTHING: Self = Self::of(Turn::Usual, Priority::Normal);

    const fn of(turn: Turn, priority: Priority) -> Self {
        Self(1 << (turn as u16 * 3 + priority as u16))
    }

    fn has(self, rank: Rank) -> bool {
        self.0 & Self::of(rank.turn, rank.priority).0 != 0
    }
}

/// A policy's order of victims, with what programs say before it: a chunk comes up once for each rank that blocks of it
/// have. Within a rank the order is the policy's own.
#[derive(Debug, Default)]
pub struct EvictionOrder<P> {
    /// Decides within a rank.
    pub policy: P,
    /// The chunks with blocks of which something is said.
    said: BTreeMap<ChunkIndex, Said>,
}

impl<P: EvictionPolicy> EvictionOrder<P> {
    /// What is said of the chunk's blocks, from now on.
    pub fn note(&mut self, chunk: ChunkIndex, state: &Chunk) {
        let pairs = Turn::ALL.into_iter().flat_map(|turn| Priority::ALL.map(|priority| (turn, priority)));
        let due = pairs.filter(|(turn, priority)| !state.due(*turn, *priority).is_empty());
        let said = Said(due.fold(0, |all, (turn, priority)| all | Said::of(turn, priority).0));
        if said == Said::NOTHING {
            self.said.remove(&chunk)
        } else {
            self.said.insert(chunk, said)
        };
    }

    /// The chunks that hold frames with the ranks that blocks of them have, the best to evict first.
    pub fn victims(&self) -> impl Iterator<Item = (Rank, ChunkIndex)> + '_ {
        // Nobody pays for what nobody says: then the policy's own order has the next launch last already.
        let plain = self.said.is_empty();
        let present = self.said.values().fold(Said::NOTHING, |all, said| Said(all.0 | said.0));
        Rank::all().filter(move |rank| present.has(*rank) && !(plain && rank.next)).flat_map(move |rank| {
            let has = move |chunk: &ChunkIndex| {
                let said = self.said.get(chunk).copied().unwrap_or(Said::NOTHING);
                plain || said.has(rank) && self.policy.is_next(*chunk) == rank.next
            };
            self.policy.victims().filter(has).map(move |chunk| (rank, chunk))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::Advice;
    use crate::geometry::BlockSet;
    use crate::policy::{DeclaredNext, LaunchOrder};
    use proptest::prelude::*;

    fn said(of: &[(u32, Priority)]) -> EvictionOrder<DeclaredNext> {
        let mut order = EvictionOrder::<DeclaredNext>::default();
        for (chunk, priority) in of {
            order.policy.used(ChunkIndex(*chunk));
            let mut state = Chunk::new();
            state.allocate(BlockSet::ALL, true);
            state.prioritize(BlockSet::ALL, *priority);
            order.note(ChunkIndex(*chunk), &state);
        }
        order
    }

    fn chunks(order: &EvictionOrder<DeclaredNext>) -> Vec<u32> {
        order.victims().map(|(_, chunk)| chunk.0).collect()
    }

    #[test]
    fn low_goes_before_normal_before_high_and_what_is_needed_next_last() {
        use Priority::{High, Low, Normal};
        let mut order = said(&[(0, High), (1, Normal), (2, Low), (3, High), (4, Low), (5, Normal)]);
        assert_eq!(chunks(&order), [2, 4, 1, 5, 0, 3], "within a priority, least recently used first");
        // The next launch needs 2 and 5, the one behind it 4.
        order.policy.declared(LaunchOrder(0), &[ChunkIndex(2), ChunkIndex(5)]);
        order.policy.declared(LaunchOrder(1), &[ChunkIndex(4)]);
        assert_eq!(chunks(&order), [4, 1, 0, 3, 2, 5]);
        order.policy.settled(LaunchOrder(0));
        assert_eq!(chunks(&order), [2, 1, 5, 0, 3, 4], "now 4 is needed next");
    }

    #[test]
    fn a_reach_has_both_bounds() {
        let reach = Reach { turn: Turn::Usual, priority: Priority::Normal };
        let rank = |turn, priority| Rank { turn, next: false, priority };
        assert!(reach.allows(rank(Turn::First, Priority::Low)) && reach.allows(rank(Turn::Usual, Priority::Normal)));
        assert!(!reach.allows(rank(Turn::First, Priority::High)) && !reach.allows(rank(Turn::Last, Priority::Low)));
    }

    proptest! {
        /// Belady's order, and recency beyond the queue, stay what they are among the chunks of one rank; each chunk comes
        /// up for the ranks that it has and no other, the lowest rank first.
        #[test]
        fn within_a_rank_the_order_is_the_policys(
            uses in proptest::collection::vec(0u32..12, 1..60),
            declared in proptest::collection::vec(0u32..12, 0..20),
            advised in proptest::collection::vec((0u32..12, any::<u32>(), 0usize..4), 0..12),
            prioritized in proptest::collection::vec((0u32..12, any::<u32>(), 0usize..3), 0..12),
        ) {
            let mut plain = DeclaredNext::default();
            let mut order = EvictionOrder::<DeclaredNext>::default();
            for policy in [&mut plain, &mut order.policy] {
                uses.iter().for_each(|chunk| policy.used(ChunkIndex(*chunk)));
                for (launch, chunk) in (0..).map(LaunchOrder).zip(&declared) {
                    policy.declared(launch, &[ChunkIndex(*chunk)]);
                }
            }
            let mut states = vec![Chunk::new(); 12];
            states.iter_mut().for_each(|state| state.allocate(BlockSet::ALL, true));
            let kinds = [Advice::None, Advice::ReadMostly, Advice::PreferDevice, Advice::PreferHost];
            for (chunk, blocks, kind) in advised {
                states[chunk as usize].advise(BlockSet(blocks), kinds[kind]);
            }
            for (chunk, blocks, priority) in prioritized {
                states[chunk as usize].prioritize(BlockSet(blocks), Priority::ALL[priority]);
            }
            for (chunk, state) in (0..).map(ChunkIndex).zip(&states) {
                order.note(chunk, state);
            }
            let next = declared.iter().find(|chunk| uses.contains(chunk)).map(|chunk| ChunkIndex(*chunk));
            let all: Vec<_> = order.victims().collect();
            prop_assert!(all.is_sorted_by_key(|(rank, _)| *rank));
            let quiet = states.iter().all(|state| {
                state.due(Turn::Usual, Priority::Normal).is_all()
            });
            for turn in Turn::ALL {
                for priority in Priority::ALL {
                    let of = |one: bool| all.iter().filter(move |(rank, _)| {
                        rank.turn == turn && rank.priority == priority && rank.next == one
                    }).map(|(_, chunk)| *chunk).collect::<Vec<_>>();
                    let due = |chunk: &ChunkIndex| !states[chunk.0 as usize].due(turn, priority).is_empty();
                    let expected = |one: bool| plain.victims().filter(due).filter(|chunk| {
                        one == (Some(*chunk) == next)
                    }).collect::<Vec<_>>();
                    if quiet {
                        prop_assert_eq!(of(false), plain.victims().filter(due).collect::<Vec<_>>());
                    } else {
                        prop_assert_eq!(of(false), expected(false));
                        prop_assert_eq!(of(true), expected(true));
                    }
                }
            }
        }
    }
}
