//! Thrashing: a block that both sides use at once goes back and forth, and neither gets on.
//!
//! Every fault that brings a block to the side which did not have it is a *turn*. Turns between which a launch was
//! submitted or has completed are how orderly programs work, however fast, and do not count: CPU and GPU then use the
//! block one after the other. Turns within a launch mean that they use it at the same time, which costs two moves for
//! a few accesses. A block with [`TURNS_MIN`] of those within [`WINDOW_US`] thrashes. From then on it comes alone
//! (growth for a neighbour may have been all the trouble), and who has it keeps it for a lease, so that moves take a
//! bounded share of the time. A lease always ends, and the other side is next. Nothing here waits or reads a clock.

use crate::address::Side;
use crate::geometry::{BLOCKS_PER_CHUNK, BlockSet};

/// So many turns within [`WINDOW_US`]: fewer may be the end of one phase and the beginning of the next.
pub const TURNS_MIN: u32 = 8;
/// The window in microseconds. Slower turns than these are no more than the longest lease would allow anyhow.
pub const WINDOW_US: u64 = TURNS_MIN as u64 * LEASE_MAX_US;
/// The first lease in microseconds: several times what a turn costs, which is some 50 to 100 µs on a software device.
pub const LEASE_MIN_US: u64 = 500;
/// The longest lease in microseconds: what a touch may have to wait. Moves then take a few per cent of the time.
pub const LEASE_MAX_US: u64 = 4_000;
/// The lease doubles each time that a block has made so many more turns.
const TURNS_PER_DOUBLING: u32 = 8;

/// When a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds of a clock that never goes back.
    pub micros: u64,
    /// How many launches have been submitted or have completed by now (it may wrap).
    pub order: u32,
}

/// What is known of a block that thrashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Episode {
    /// Turns since it began.
    pub turns: u32,
    /// The time of the first, in microseconds.
    pub since: u64,
    /// The time of the last so far.
    pub last: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// The turns that count, in the present window or episode.
    turns: u32,
    /// The order when the block was brought somewhere last.
    order: u32,
    since: u64,
    last: u64,
}

/// What a chunk's blocks did lately.
#[derive(Clone, Debug, Default)]
pub struct Thrash {
    /// Blocks that a fault has brought, and those that a fault of the device brought last.
    known: BlockSet,
    on_device: BlockSet,
    thrashing: BlockSet,
    /// Blocks whose last turn has begun a lease.
    leased: BlockSet,
    tracks: [Track; BLOCKS_PER_CHUNK as usize],
}

impl Thrash {
    /// A fault of `side` has brought `blocks`. Gives those that were not thrashing, but are now.
    pub fn brought(&mut self, side: Side, blocks: BlockSet, now: Moment) -> BlockSet {
        let there = if side == Side::Device { blocks } else { BlockSet::EMPTY };
        let before = self.on_device & blocks;
        let turned = self.known & ((before - there) | (there - before));
        self.known |= blocks;
        self.on_device = (self.on_device - blocks) | there;
        self.leased = self.leased - turned;
        let mut new = BlockSet::EMPTY;
        for slot in blocks.slots() {
            let orderly = std::mem::replace(&mut self.tracks[slot as usize].order, now.order) != now.order;
            if turned.contains(slot) && !orderly && self.turn(slot, now.micros) {
                new |= BlockSet::of(slot);
            }
        }
        new
    }

    /// Counts a turn. Gives whether the block thrashes because of it.
    fn turn(&mut self, slot: u32, now: u64) -> bool {
        if self.thrashing.contains(slot) && self.is_calm(slot, now) {
            self.thrashing = self.thrashing - BlockSet::of(slot);
            self.tracks[slot as usize].turns = 0;
        }
        let thrashing = self.thrashing.contains(slot);
        let track = &mut self.tracks[slot as usize];
        if !thrashing && (track.turns == 0 || now.saturating_sub(track.since) > WINDOW_US) {
            (track.since, track.turns) = (now, 0);
        }
        track.turns = track.turns.saturating_add(1);
        track.last = now;
        if thrashing || track.turns >= TURNS_MIN {
            self.thrashing |= BlockSet::of(slot);
            self.leased |= BlockSet::of(slot);
        }
        !thrashing && self.thrashing.contains(slot)
    }

    /// Whether no more turns came when they could have.
    fn is_calm(&self, slot: u32, now: u64) -> bool {
        let track = &self.tracks[slot as usize];
        now > track.last + lease(track.turns) + WINDOW_US
    }

    /// The blocks that thrash, or did when they were brought somewhere last.
    #[must_use]
    pub fn thrashing(&self) -> BlockSet {
        self.thrashing
    }

    /// Until when, in microseconds, a fault of `side` in `slot` must leave the block to the other side.
    #[must_use]
    pub fn lease_against(&self, side: Side, slot: u32, now: Moment) -> Option<u64> {
        let track = self.tracks.get(slot as usize)?;
        let theirs = self.on_device.contains(slot) != (side == Side::Device);
        let end = track.last + lease(track.turns);
        let in_force = self.leased.contains(slot) && theirs && track.order == now.order && now.micros < end;
        in_force.then_some(end)
    }

    /// What is known of the block in `slot`, if it thrashes.
    #[must_use]
    pub fn episode(&self, slot: u32) -> Option<Episode> {
        let Track { turns, since, last, .. } = *self.tracks.get(slot as usize)?;
        self.thrashing.contains(slot).then_some(Episode { turns, since, last })
    }

    /// The blocks are somebody else's from now on.
    pub fn forget(&mut self, blocks: BlockSet) {
        for set in [&mut self.known, &mut self.on_device, &mut self.thrashing, &mut self.leased] {
            *set = *set - blocks;
        }
        blocks.slots().for_each(|slot| self.tracks[slot as usize] = Track::default());
    }
}

/// How long who has a block keeps it after so many turns, in microseconds.
fn lease(turns: u32) -> u64 {
    let doublings = turns.saturating_sub(TURNS_MIN) / TURNS_PER_DOUBLING;
    // Beyond ten the bound is reached whatever the constants.
    (LEASE_MIN_US << doublings.min(10)).min(LEASE_MAX_US)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: BlockSet = BlockSet::of(5);

    fn at(micros: u64, order: u32) -> Moment {
        Moment { micros, order }
    }

    fn side(turn: u64) -> Side {
        if turn.is_multiple_of(2) { Side::Host } else { Side::Device }
    }

    /// Takes `turns` turns `every` so many microseconds, and gives the state with the time after.
    fn hammered(turns: u64, every: u64) -> (Thrash, u64) {
        let mut thrash = Thrash::default();
        for turn in 0..=turns {
            let _ = thrash.brought(side(turn), BLOCK, at(turn * every, 0));
        }
        (thrash, turns * every)
    }

    #[test]
    fn turns_in_a_short_window_are_thrashing() {
        let (before, _) = hammered(u64::from(TURNS_MIN) - 1, 50);
        assert_eq!(before.thrashing(), BlockSet::EMPTY);
        let (after, now) = hammered(TURNS_MIN.into(), 50);
        assert_eq!(after.thrashing(), BLOCK);
        assert_eq!(after.episode(5), Some(Episode { turns: TURNS_MIN, since: 50, last: now }));
        let (slow, _) = hammered(1000, WINDOW_US / u64::from(TURNS_MIN) * 2);
        assert_eq!(slow.thrashing(), BlockSet::EMPTY);
    }

    #[test]
    fn turns_across_launches_are_none() {
        let mut thrash = Thrash::default();
        for turn in 0..1000 {
            let order = u32::try_from(turn).unwrap();
            assert_eq!(thrash.brought(side(turn), BlockSet::ALL, at(turn, order)), BlockSet::EMPTY);
        }
    }

    #[test]
    fn one_side_alone_never_thrashes() {
        let mut thrash = Thrash::default();
        for time in 0..1000 {
            assert_eq!(thrash.brought(Side::Device, BlockSet::ALL, at(time, 0)), BlockSet::EMPTY);
        }
    }

    #[test]
    fn a_lease_is_the_holders_and_ends_with_its_time_or_with_a_launch() {
        let (thrash, now) = hammered(TURNS_MIN.into(), 50);
        let (holder, other) = (side(TURNS_MIN.into()), side(u64::from(TURNS_MIN) + 1));
        assert_eq!(thrash.lease_against(other, 5, at(now + 1, 0)), Some(now + LEASE_MIN_US));
        assert_eq!(thrash.lease_against(holder, 5, at(now + 1, 0)), None);
        assert_eq!(thrash.lease_against(other, 5, at(now + LEASE_MIN_US, 0)), None);
        assert_eq!(thrash.lease_against(other, 5, at(now + 1, 1)), None);
        assert_eq!(thrash.lease_against(other, 6, at(now + 1, 0)), None);
    }

    #[test]
    fn leases_double_up_to_the_bound_and_calm_ends_it() {
        let (mut thrash, mut now) = hammered(TURNS_MIN.into(), 50);
        let mut leases = Vec::new();
        for turn in u64::from(TURNS_MIN) + 1..60 {
            let end = thrash.lease_against(side(turn), 5, at(now, 0)).unwrap();
            leases.push(end - now);
            now = end;
            assert_eq!(thrash.brought(side(turn), BLOCK, at(now, 0)), BlockSet::EMPTY, "new only once");
        }
        leases.dedup();
        assert_eq!(leases, [LEASE_MIN_US, 1000, 2000, LEASE_MAX_US]);
        let _ = thrash.brought(Side::Host, BLOCK, at(now + LEASE_MAX_US + WINDOW_US + 1, 0));
        let _ = thrash.brought(Side::Device, BLOCK, at(now + LEASE_MAX_US + WINDOW_US + 2, 0));
        assert_eq!(thrash.thrashing(), BlockSet::EMPTY);
    }

    proptest! {
        /// Whoever asks again when it is told to gets the block: after a bounded number of microseconds.
        #[test]
        fn nobody_waits_longer_than_the_longest_lease(
            steps in proptest::collection::vec((any::<bool>(), 0u64..3000, any::<bool>()), 1..300)
        ) {
            let (mut thrash, mut now, mut order) = (Thrash::default(), 0, 0);
            for (device, pause, ordered) in steps {
                now += pause;
                order += u32::from(ordered);
                let side = if device { Side::Device } else { Side::Host };
                if let Some(end) = thrash.lease_against(side, 5, at(now, order)) {
                    prop_assert!(end > now && end - now <= LEASE_MAX_US);
                    now = end;
                    prop_assert_eq!(thrash.lease_against(side, 5, at(now, order)), None);
                }
                let _ = thrash.brought(side, BLOCK, at(now, order));
                prop_assert!(BLOCK.covers(thrash.thrashing()));
            }
            thrash.forget(BLOCK);
            prop_assert_eq!(thrash.episode(5), None);
        }
    }
}
