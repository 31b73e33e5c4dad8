//! The heap's address space: which bytes belong to which allocation.
//!
//! Allocations of a block or more get whole blocks of their own; smaller ones share blocks with their size class. A
//! guarded arena gives blocks to each, with a block of nobody's between any two, and lets what is freed rest.
//! Allocations that are to grow get *room*: addresses behind them that others are given only when there are no others.
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

/// What a change of an allocation's length came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resized {
    /// The blocks are the same.
    Within,
    /// Blocks that came into use, behind those that were.
    Grown(Extent),
    /// Blocks that fell out of use, at the end.
    Shrunk(Extent),
}

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
    /// Those of them that are resizable: start → bytes kept free behind their blocks.
    rooms: BTreeMap<u64, u64>,
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
            rooms: BTreeMap::new(),
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
        check_alignment(align)?;
        if let Some(Guards { edge, .. }) = self.guards {
            return self.allocate_guarded(len, align, edge);
        }
        let class = len.max(align).max(GRAIN).checked_next_power_of_two().unwrap_or(u64::MAX);
        if class < BLOCK { self.allocate_small(len, class) } else { self.allocate_large(len, align) }
    }

    /// Places `len` bytes (whole blocks are taken) aligned to `align`, to be resized by [`Self::resize`]. About `room`
    /// bytes behind them are kept free, as far as half of the longest free stretch goes; none in a guarded arena.
    ///
    /// # Errors
    /// [`ArenaError::Full`], [`ArenaError::Alignment`].
    pub fn allocate_resizable(&mut self, len: u64, align: u64, room: u64) -> Result<Placement, ArenaError> {
        check_alignment(align)?;
        if let Some(Guards { edge, .. }) = self.guards {
            let placed = self.allocate_guarded(len, align, edge)?;
            self.rooms.insert(placed.extent.start, 0);
            return Ok(placed);
        }
        let blocks = round_up(len.max(1), BLOCK);
        let room = round_up(room, BLOCK).min(self.longest_free().saturating_sub(blocks) / 2 / BLOCK * BLOCK);
        let align = align_of_blocks(blocks.saturating_add(room), align);
        let (start, room) = match self.take_free(blocks.saturating_add(room), align) {
            Ok(start) => (start, room),
            Err(_) => (self.take(blocks, align)?, 0),
        };
        self.rooms.insert(start, room);
        Ok(self.place_large(start, len))
    }

    /// Makes the resizable allocation that starts at `start` `len` bytes long, where it is. Small ones are resizable
    /// within their size class. In a guarded arena none is, so that each ends at its edge.
    ///
    /// # Errors
    /// [`ArenaError::Full`] if the addresses behind it are others', or guards; [`ArenaError::NotAllocated`].
    pub fn resize(&mut self, start: u64, len: u64) -> Result<Resized, ArenaError> {
        let (Some(&old), Some(&room)) = (self.large.get(&start), self.rooms.get(&start)) else {
            return self.resize_small(start, len).ok_or(ArenaError::NotAllocated(start));
        };
        let len = len.max(1);
        if self.guards.is_some() {
            return Err(ArenaError::Full { asked: len, largest: old });
        }
        let (before, after) = (round_up(old, BLOCK), round_up(len, BLOCK));
        let resized = if after > before {
            self.grow(start + before, room, after - before).map(|room| self.rooms.insert(start, room))?;
            Resized::Grown(Extent { start: start + before, len: after - before })
        } else if after < before {
            // What would be kept free has a gap before it: all of it is given up.
            self.insert_free(start + after, before - after + room);
            self.rooms.insert(start, 0);
            Resized::Shrunk(Extent { start: start + after, len: before - after })
        } else {
            Resized::Within
        };
        self.large.insert(start, len);
        Ok(resized)
    }

    fn resize_small(&mut self, start: u64, len: u64) -> Option<Resized> {
        let class = self.slabs.get(&(start / BLOCK * BLOCK))?.class;
        *self.small.get_mut(&start).filter(|_| len <= class)? = len.max(1);
        Some(Resized::Within)
    }

    /// The blocks of resizable allocations that `extent` touches, in ascending order.
    pub fn resizable_in(&self, extent: Extent) -> impl Iterator<Item = Extent> + '_ {
        let blocks =
            self.rooms.range(..extent.end()).rev().map(|(start, _)| {
                Extent { start: *start, len: self.large.get(start).copied().unwrap_or(0) }.to_blocks()
            });
        let touched: Vec<_> = blocks.take_while(|one| one.end() > extent.start).collect();
        touched.into_iter().rev()
    }

    /// Ends the allocation that starts at `start`. Gives its bytes and, if its blocks fell out of use, those.
    ///
    /// # Errors
    /// [`ArenaError::NotAllocated`].
    pub fn free(&mut self, start: u64) -> Result<Placement, ArenaError> {
        if let Some(len) = self.large.remove(&start) {
            let extent = Extent { start, len };
            let blocks = extent.to_blocks();
            let room = self.rooms.remove(&start).unwrap_or(0);
            self.rest_or_free(extent, Extent { len: blocks.len + room, ..blocks });
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
        let start = self.take(blocks, align_of_blocks(blocks, align))?;
        Ok(self.place_large(start, len))
    }

    fn place_large(&mut self, start: u64, len: u64) -> Placement {
        let extent = Extent { start, len: len.max(1) };
        self.large.insert(start, extent.len);
        Placement { extent, fresh_blocks: Some(extent.to_blocks()) }
    }

    fn longest_free(&self) -> u64 {
        self.by_len.last().map_or(0, |(size, _)| *size)
    }

    /// Takes `len` bytes aligned to `align`; where there are none left, of those kept free behind allocations.
    fn take(&mut self, len: u64, align: u64) -> Result<u64, ArenaError> {
        self.take_free(len, align).or_else(|_| {
            self.give_rooms_up();
            self.take_free(len, align)
        })
    }

    /// Takes `len` bytes aligned to `align` out of the shortest free stretch that has room.
    fn take_free(&mut self, len: u64, align: u64) -> Result<u64, ArenaError> {
        let fits = |&&(size, start): &&(u64, u64)| round_up(start, align) - start <= size - len;
        let found = self.by_len.range((len, 0)..).find(fits).copied();
        let Some((size, start)) = found else {
            return Err(ArenaError::Full { asked: len, largest: self.longest_free() });
        };
        self.free.remove(&start);
        self.by_len.remove(&(size, start));
        let at = round_up(start, align);
        self.insert_free(start, at - start);
        self.insert_free(at + len, start + size - (at + len));
        Ok(at)
    }

    fn give_rooms_up(&mut self) {
        let end = |start: &u64| start + self.large.get(start).map_or(0, |len| round_up(*len, BLOCK));
        let rooms: Vec<_> = self.rooms.iter().map(|(start, room)| (end(start), *room)).collect();
        self.rooms.values_mut().for_each(|room| *room = 0);
        rooms.into_iter().for_each(|(start, room)| self.insert_free(start, room));
    }

    /// Takes `len` bytes from `end` on, of which `room` are kept there. Gives what is still kept behind them.
    fn grow(&mut self, end: u64, room: u64, len: u64) -> Result<u64, ArenaError> {
        let Some(beyond) = len.checked_sub(room) else { return Ok(room - len) };
        let free = self.free.get(&(end + room)).copied().unwrap_or(0);
        if free < beyond {
            return Err(ArenaError::Full { asked: len, largest: self.longest_free().max(room + free) });
        }
        if beyond > 0 {
            self.free.remove(&(end + room));
            self.by_len.remove(&(free, end + room));
            self.insert_free(end + len, free - beyond);
        }
        Ok(0)
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

fn check_alignment(align: u64) -> Result<(), ArenaError> {
    if align.is_power_of_two() && align <= CHUNK { Ok(()) } else { Err(ArenaError::Alignment(align)) }
}

/// From a chunk on, starting at a chunk lets every chunk but the last be opened as one huge page.
fn align_of_blocks(bytes: u64, align: u64) -> u64 {
    if bytes >= CHUNK { CHUNK } else { align.max(BLOCK) }
}

/// Which slot of `class` bytes begins at `offset` of its block.
#[allow(clippy::cast_possible_truncation)] // at most BLOCK / GRAIN = 4096
fn slot_of(offset: u64, class: u64) -> u32 {
    (offset / class) as u32
}

#[cfg(test)]
mod tests;
