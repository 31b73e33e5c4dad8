//! The heap's address space: which bytes belong to which allocation.
//!
//! Allocations of a block or more get whole blocks of their own; smaller ones share blocks with their size class. A
//! guarded arena gives blocks to each, with a block of nobody's between any two, and lets what is freed rest.
//! Pure bookkeeping: it touches no memory and does *not* know block states. Its cost grows with the number of
//! allocations, never with the size of the heap.

use std::collections::{BTreeMap, BTreeSet};

use crate::geometry::{BLOCK, CHUNK, Extent, round_up};
use crate::quarantine::{Quarantine, Resting};

/// Smallest size class in bytes; every allocation is aligned to at least this.
pub const GRAIN: u64 = 16;

/// Where an allocation was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The bytes asked for.
    pub extent: Extent,
    /// Blocks that came into use with this allocation, empty if it shares blocks in use already.
    pub fresh_blocks: Option<Extent>,
}

/// At which edge of its blocks an allocation of a guarded arena lies: where a block of nobody's follows at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edge {
    /// It ends where they end, as far as its alignment lets it: the first byte behind it is nobody's.
    #[default]
    End,
    /// It begins where they begin: the last byte before it is nobody's.
    Start,
}

/// The part of its address space that a guarded arena lets rest before it uses it again: 1 / this.
pub const QUARANTINE_SHARE: u64 = 2;

/// Why an allocation or a free cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArenaError {
    /// No free stretch of the heap's address space is long enough.
    Full {
        /// Bytes asked for, rounded to what would be taken.
        asked: u64,
        /// The longest free stretch in bytes.
        largest: u64,
    },
    /// An alignment that is no power of two or above 2 MiB.
    Alignment(u64),
    /// No allocation begins at this offset.
    NotAllocated(u64),
}

/// What makes an arena a guarded one.
#[derive(Debug)]
struct Guards {
    edge: Edge,
    quarantine: Quarantine,
}

#[derive(Debug)]
struct Slab {
    class: u64,
    free: Vec<u32>,
    used: u32,
}

/// The allocator of a heap's addresses.
#[derive(Debug)]
pub struct Arena {
    len: u64,
    /// Free stretches: start → length.
    free: BTreeMap<u64, u64>,
    /// The same by (length, start), for best fit.
    by_len: BTreeSet<(u64, u64)>,
    /// Allocations of whole blocks: start → length asked for.
    large: BTreeMap<u64, u64>,
    /// Blocks shared by small allocations: start → slab.
    slabs: BTreeMap<u64, Slab>,
    /// Slabs with room: (class, start).
    open_slabs: BTreeSet<(u64, u64)>,
    /// Small allocations: start → length asked for.
    small: BTreeMap<u64, u64>,
    guards: Option<Guards>,
}

impl Arena {
    /// An arena over `len` bytes, rounded down to whole chunks.
    #[must_use]
    pub fn new(len: u64) -> Self {
        let mut arena = Self::empty(len, None);
        arena.insert_free(0, arena.len);
        arena
    }

    /// A guarded arena: each allocation has blocks of its own, lies at their `edge`, and has a block of nobody's before
    /// and behind them. What is freed is used again only when more than 1 / [`QUARANTINE_SHARE`] of the address space
    /// rests so, or when there is no other room.
    #[must_use]
    pub fn guarded(len: u64, edge: Edge) -> Self {
        let quarantine = Quarantine::new(len / QUARANTINE_SHARE);
        let mut arena = Self::empty(len, Some(Guards { edge, quarantine }));
        // Each stretch ends in a guard. So one is before each, but for the first.
        arena.insert_free(BLOCK, arena.len - BLOCK);
        arena
    }

    fn empty(len: u64, guards: Option<Guards>) -> Self {
        let len = len / CHUNK * CHUNK;
        Self {
            len,
            free: BTreeMap::new(),
            by_len: BTreeSet::new(),
            large: BTreeMap::new(),
            slabs: BTreeMap::new(),
            open_slabs: BTreeSet::new(),
            small: BTreeMap::new(),
            guards,
        }
    }

    /// Bytes of address space.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is allocated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.large.is_empty() && self.small.is_empty()
    }

    /// Places `len` bytes (at least one is taken) aligned to `align`.
    ///
    /// # Errors
    /// [`ArenaError::Full`], [`ArenaError::Alignment`].
    pub fn allocate(&mut self, len: u64, align: u64) -> Result<Placement, ArenaError> {
        if !align.is_power_of_two() || align > CHUNK {
            return Err(ArenaError::Alignment(align));
        }
        if let Some(Guards { edge, .. }) = self.guards {
            return self.allocate_guarded(len, align, edge);
        }
        let class = len.max(align).max(GRAIN).checked_next_power_of_two().unwrap_or(u64::MAX);
        if class < BLOCK { self.allocate_small(len, class) } else { self.allocate_large(len, align) }
    }

    /// Ends the allocation that starts at `start`. Gives its bytes and, if its blocks fell out of use, those.
    ///
    /// # Errors
    /// [`ArenaError::NotAllocated`].
    pub fn free(&mut self, start: u64) -> Result<Placement, ArenaError> {
        if let Some(len) = self.large.remove(&start) {
            let extent = Extent { start, len };
            let blocks = extent.to_blocks();
            self.rest_or_free(extent, blocks);
            return Ok(Placement { extent, fresh_blocks: Some(blocks) });
        }
        let len = self.small.remove(&start).ok_or(ArenaError::NotAllocated(start))?;
        let extent = Extent { start, len };
        let base = start / BLOCK * BLOCK;
        let slab = self.slabs.get_mut(&base).ok_or(ArenaError::NotAllocated(start))?;
        slab.free.push(slot_of(start - base, slab.class));
        slab.used -= 1;
        let (class, used) = (slab.class, slab.used);
        self.open_slabs.insert((class, base));
        if used > 0 {
            return Ok(Placement { extent, fresh_blocks: None });
        }
        self.slabs.remove(&base);
        self.open_slabs.remove(&(class, base));
        self.insert_free(base, BLOCK);
        Ok(Placement { extent, fresh_blocks: Some(Extent { start: base, len: BLOCK }) })
    }

    /// Takes a free stretch out of use for good: its memory could not be given up.
    pub fn withhold(&mut self, stretch: Extent) {
        if let Some(guards) = &mut self.guards {
            guards.quarantine.withhold(stretch.start);
        }
        let around = self.free.range(..=stretch.start).next_back().map(|(start, len)| (*start, *len));
        if let Some((start, len)) = around.filter(|(start, len)| start + len >= stretch.end()) {
            self.free.remove(&start);
            self.by_len.remove(&(len, start));
            self.insert_free(start, stretch.start - start);
            self.insert_free(stretch.end(), start + len - stretch.end());
        }
    }

    /// The allocation that contains `offset`.
    #[must_use]
    pub fn containing(&self, offset: u64) -> Option<Extent> {
        let at = |map: &BTreeMap<u64, u64>| {
            let (start, len) = map.range(..=offset).next_back()?;
            (offset - start < *len).then_some(Extent { start: *start, len: *len })
        };
        at(&self.large).or_else(|| at(&self.small))
    }

    /// The blocks that `extent` covers as far as they are allocated, and that no small allocations share; empty (of
    /// length 0) if there is none.
    #[must_use]
    pub fn own_blocks(&self, extent: Extent) -> Extent {
        let last = extent.end().checked_sub(1).and_then(|last| self.containing(last));
        // The last block of an allocation of its own is all the allocation's, however little of it was asked for.
        let to_its_end = last.is_some_and(|one| self.large.contains_key(&one.start) && one.end() == extent.end());
        let end = if to_its_end { round_up(extent.end(), BLOCK) } else { extent.end() };
        // And the first, in a guarded arena.
        let from_its_start = self.large.contains_key(&extent.start);
        let start = if from_its_start { extent.start / BLOCK * BLOCK } else { extent.start };
        Extent { start, len: end - start }.inner_blocks()
    }

    /// The allocation that was freed where `offset` is, as long as that rests.
    pub(crate) fn freed(&self, offset: u64) -> Option<Extent> {
        let resting = self.guards.as_ref()?.quarantine.containing(offset)?;
        Some(resting.was)
    }

    /// The last allocation that begins at `offset` or before it.
    pub(crate) fn last_before(&self, offset: u64) -> Option<Extent> {
        let last = |map: &BTreeMap<u64, u64>| map.range(..=offset).next_back().map(|(start, len)| (*start, *len));
        let (start, len) = last(&self.large).max(last(&self.small))?;
        Some(Extent { start, len })
    }

    /// The first allocation that begins behind `offset`.
    pub(crate) fn first_after(&self, offset: u64) -> Option<Extent> {
        let first = |map: &BTreeMap<u64, u64>| map.range(offset + 1..).next().map(|(start, len)| (*start, *len));
        let (start, len) = [first(&self.large), first(&self.small)].into_iter().flatten().min()?;
        Some(Extent { start, len })
    }

    fn allocate_guarded(&mut self, len: u64, align: u64, edge: Edge) -> Result<Placement, ArenaError> {
        let len = len.max(1);
        let blocks = round_up(len, BLOCK);
        let base = loop {
            match self.take(blocks.saturating_add(BLOCK), align.max(BLOCK)) {
                Ok(base) => break base,
                Err(full) => {
                    let rested = self.guards.as_mut().and_then(|guards| guards.quarantine.release()).ok_or(full)?;
                    self.insert_free(rested.start, rested.len);
                }
            }
        };
        let room = match edge {
            Edge::End => (blocks - len) / align * align,
            Edge::Start => 0,
        };
        let extent = Extent { start: base + room, len };
        self.large.insert(extent.start, extent.len);
        Ok(Placement { extent, fresh_blocks: Some(Extent { start: base, len: blocks }) })
    }

    /// Ends the use of `blocks`, which were those of `extent` alone.
    fn rest_or_free(&mut self, extent: Extent, blocks: Extent) {
        let Some(guards) = &mut self.guards else { return self.insert_free(blocks.start, blocks.len) };
        let stretch = Extent { start: blocks.start, len: blocks.len + BLOCK };
        guards.quarantine.enter(Resting { stretch, was: extent });
        while let Some(rested) = self.guards.as_mut().and_then(|guards| guards.quarantine.surplus()) {
            self.insert_free(rested.start, rested.len);
        }
    }

    fn allocate_small(&mut self, len: u64, class: u64) -> Result<Placement, ArenaError> {
        let open = self.open_slabs.range((class, 0)..=(class, u64::MAX)).next().map(|(_, base)| *base);
        let (base, fresh_blocks) = match open {
            Some(base) => (base, None),
            None => {
                let base = self.take(BLOCK, BLOCK)?;
                let slots = slot_of(BLOCK, class);
                self.slabs.insert(base, Slab { class, free: (0..slots).rev().collect(), used: 0 });
                self.open_slabs.insert((class, base));
                (base, Some(Extent { start: base, len: BLOCK }))
            }
        };
        let Some(slab) = self.slabs.get_mut(&base) else { return Err(ArenaError::NotAllocated(base)) };
        let Some(slot) = slab.free.pop() else { return Err(ArenaError::NotAllocated(base)) };
        slab.used += 1;
        if slab.free.is_empty() {
            self.open_slabs.remove(&(class, base));
        }
        let extent = Extent { start: base + u64::from(slot) * class, len: len.max(1) };
        self.small.insert(extent.start, extent.len);
        Ok(Placement { extent, fresh_blocks })
    }

    fn allocate_large(&mut self, len: u64, align: u64) -> Result<Placement, ArenaError> {
        let blocks = round_up(len.max(1), BLOCK);
        // From a chunk on, starting at a chunk lets every chunk but the last be opened as one huge page.
        let align = if blocks >= CHUNK { CHUNK } else { align.max(BLOCK) };
        let start = self.take(blocks, align)?;
        self.large.insert(start, len.max(1));
        let extent = Extent { start, len: len.max(1) };
        Ok(Placement { extent, fresh_blocks: Some(Extent { start, len: blocks }) })
    }

    /// Takes `len` bytes aligned to `align` out of the shortest free stretch that has room.
    fn take(&mut self, len: u64, align: u64) -> Result<u64, ArenaError> {
        let fits = |&&(size, start): &&(u64, u64)| round_up(start, align) - start <= size - len;
        let found = self.by_len.range((len, 0)..).find(fits).copied();
        let Some((size, start)) = found else {
            let largest = self.by_len.last().map_or(0, |(size, _)| *size);
            return Err(ArenaError::Full { asked: len, largest });
        };
        self.free.remove(&start);
        self.by_len.remove(&(size, start));
        let at = round_up(start, align);
        self.insert_free(start, at - start);
        self.insert_free(at + len, start + size - (at + len));
        Ok(at)
    }

    /// Enters a free stretch, joined with its neighbours.
    fn insert_free(&mut self, start: u64, len: u64) {
        if len == 0 {
            return;
        }
        let (mut start, mut len) = (start, len);
        if let Some((&before, &size)) = self.free.range(..start).next_back()
            && before + size == start
        {
            self.free.remove(&before);
            self.by_len.remove(&(size, before));
            (start, len) = (before, len + size);
        }
        if let Some(size) = self.free.remove(&(start + len)) {
            self.by_len.remove(&(size, start + len));
            len += size;
        }
        self.free.insert(start, len);
        self.by_len.insert((len, start));
    }
}

/// Which slot of `class` bytes begins at `offset` of its block.
#[allow(clippy::cast_possible_truncation)] // at most BLOCK / GRAIN = 4096
fn slot_of(offset: u64, class: u64) -> u32 {
    (offset / class) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearby::{Nearby, Relation};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn allocations_are_disjoint_and_come_back(
            steps in proptest::collection::vec((any::<bool>(), 0u64..300_000, 0u32..22), 1..200)
        ) {
            let mut arena = Arena::new(64 << 20);
            let mut live: Vec<Extent> = Vec::new();
            for (allocate, size, align) in steps {
                if allocate || live.is_empty() {
                    let align = 1u64 << align;
                    if let Ok(placed) = arena.allocate(size, align) {
                        let new = placed.extent;
                        prop_assert_eq!(new.start % align, 0);
                        prop_assert!(new.end() <= arena.len());
                        for old in &live {
                            prop_assert!(new.end() <= old.start || old.end() <= new.start, "{new:?} {old:?}");
                            if new.len >= BLOCK || old.len >= BLOCK {
                                let (a, b) = (new.to_blocks(), old.to_blocks());
                                prop_assert!(a.end() <= b.start || b.end() <= a.start, "blocks shared");
                            }
                        }
                        prop_assert_eq!(arena.containing(new.start + new.len / 2), Some(new));
                        live.push(new);
                    }
                } else {
                    let gone = live.swap_remove(usize::try_from(size).unwrap() % live.len());
                    prop_assert_eq!(arena.free(gone.start).unwrap().extent, gone);
                    prop_assert_eq!(arena.containing(gone.start), None);
                    prop_assert!(arena.free(gone.start).is_err());
                }
            }
            for extent in live {
                arena.free(extent.start).unwrap();
            }
            prop_assert!(arena.is_empty());
            prop_assert_eq!(arena.allocate(64 << 20, 1).unwrap().extent, Extent { start: 0, len: 64 << 20 });
        }
    }

    #[test]
    fn what_is_withheld_is_never_given_again() {
        let mut arena = Arena::new(4 << 20);
        arena.withhold(Extent { start: 1 << 20, len: 1 << 20 });
        let placed: Vec<_> = std::iter::from_fn(|| arena.allocate(BLOCK, 1).ok()).map(|one| one.extent.start).collect();
        assert_eq!(placed.len(), 48);
        assert!(placed.iter().all(|start| !(1 << 20..2 << 20).contains(start)));
    }

    #[test]
    fn own_blocks_are_whole_but_for_what_nobody_uses() {
        let mut arena = Arena::new(64 << 20);
        let large = arena.allocate(3 * BLOCK + 5, 1).unwrap().extent;
        let small = arena.allocate(100, 1).unwrap().extent;
        let own = |start, len| arena.own_blocks(Extent { start: large.start + start, len });
        let blocks = |first, count| Extent { start: large.start + first * BLOCK, len: count * BLOCK };
        assert_eq!(own(0, large.len), blocks(0, 4), "the rest of the last block is nobody's");
        assert_eq!(own(1, large.len - 1), blocks(1, 3));
        assert_eq!(own(0, large.len - 1), blocks(0, 3));
        assert_eq!(own(BLOCK, BLOCK + 7), blocks(1, 1));
        assert_eq!(own(1, 10).len, 0);
        assert_eq!(arena.own_blocks(small).len, 0, "shared");
    }

    proptest! {
        #[test]
        fn guarded_allocations_have_blocks_of_nobody_around_them_and_rest_when_freed(
            steps in proptest::collection::vec((any::<bool>(), 0u64..300_000, 0u32..22), 1..200), at_start: bool
        ) {
            let edge = if at_start { Edge::Start } else { Edge::End };
            let mut arena = Arena::guarded(64 << 20, edge);
            let (mut live, mut freed): (Vec<Extent>, Vec<Extent>) = (Vec::new(), Vec::new());
            for (allocate, size, align) in steps {
                if allocate || live.is_empty() {
                    let align = 1u64 << align;
                    let Ok(placed) = arena.allocate(size, align) else { continue };
                    let (new, blocks) = (placed.extent, placed.fresh_blocks.unwrap());
                    prop_assert_eq!(new.start % align, 0);
                    prop_assert_eq!(new.to_blocks(), blocks);
                    match edge {
                        Edge::Start => prop_assert_eq!(new.start, blocks.start),
                        Edge::End => prop_assert!(blocks.end() - new.end() < align.min(BLOCK)),
                    }
                    prop_assert!(blocks.start >= BLOCK && blocks.end() + BLOCK <= arena.len());
                    let apart = |other: &Extent| {
                        let other = other.to_blocks();
                        blocks.end() + BLOCK <= other.start || other.end() + BLOCK <= blocks.start
                    };
                    prop_assert!(live.iter().all(apart), "no guard between");
                    // Far less than half is ever used here.
                    prop_assert!(freed.iter().all(apart), "used again at once");
                    prop_assert_eq!(arena.nearby(new.start).unwrap().relation, Relation::Inside(0));
                    let (past, before) = (arena.nearby(blocks.end()), arena.nearby(blocks.start - 1));
                    prop_assert_eq!(past.unwrap().allocation, new);
                    prop_assert_eq!(past.unwrap().relation, Relation::Past(blocks.end() - new.end() + 1));
                    prop_assert!(matches!(before.unwrap().relation, Relation::Before(_) | Relation::Past(_)));
                    live.push(new);
                } else {
                    let gone = live.swap_remove(usize::try_from(size).unwrap() % live.len());
                    prop_assert_eq!(arena.free(gone.start).unwrap().extent, gone);
                    let nearby = arena.nearby(gone.end() - 1).unwrap();
                    prop_assert_eq!(nearby, Nearby { allocation: gone, relation: Relation::Freed(gone.len - 1) });
                    if freed.iter().map(|one| one.to_blocks().len + BLOCK).sum::<u64>() < 24 << 20 {
                        freed.push(gone);
                    }
                }
            }
        }
    }

    #[test]
    fn what_rests_is_used_again_when_there_is_no_other_room() {
        let mut arena = Arena::guarded(4 << 20, Edge::End);
        let first = arena.allocate(3 << 20, 1).unwrap().extent;
        arena.free(first.start).unwrap();
        assert!(arena.freed(first.start).is_none(), "more than half does not rest");
        let small: Vec<_> = (0..10).map(|_| arena.allocate(1, 1).unwrap().extent).collect();
        small.iter().for_each(|one| assert_eq!(arena.free(one.start).unwrap().extent, *one));
        assert!(small.iter().all(|one| arena.freed(one.start) == Some(*one)));
        arena.allocate(3 << 20, 1).unwrap();
        assert!(small.iter().any(|one| arena.freed(one.start).is_none()));
        assert!(arena.allocate(2 << 20, 1).is_err());
        assert!(small.iter().all(|one| arena.freed(one.start).is_none()), "all that rested was tried");
    }

    #[test]
    fn what_is_withheld_does_not_rest() {
        let mut arena = Arena::guarded(4 << 20, Edge::End);
        let one = arena.allocate(5, 1).unwrap();
        arena.free(one.extent.start).unwrap();
        arena.withhold(one.fresh_blocks.unwrap());
        let others: Vec<_> = std::iter::from_fn(|| arena.allocate(1, 1).ok()).map(|one| one.extent).collect();
        assert_eq!(others.len(), 30);
        assert!(others.iter().all(|other| other.to_blocks() != one.extent.to_blocks()));
    }

    #[test]
    fn a_full_arena_names_both_sizes() {
        let mut arena = Arena::new(4 << 20);
        arena.allocate(3 << 20, 1).unwrap();
        let error = arena.allocate(2 << 20, 1).unwrap_err();
        assert_eq!(error, ArenaError::Full { asked: 2 << 20, largest: 1 << 20 });
    }
}
