//! Subscriptions to residency: every committed change of the blocks in a range, in order for each block.
//!
//! Changes are written under the cell's lock by whatever thread commits them, also in signal mode: into a ring of
//! fixed size, by atomics alone. A full ring drops what comes and counts it; nobody waits for a reader. While nobody
//! watches, a commit costs one relaxed load. A watch does *not* see accesses, moves that failed, or holds.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use limosa_model::{BLOCK, Block, BlockSet, Cause, Chunk, ChunkIndex, Copies, Extent};
use limosa_os::futex;

use crate::error::PagerError;
use crate::heap::Heap;

/// Watches of one heap at a time.
pub const WATCHES_MAX: usize = 16;
/// Changes that a watch keeps for its reader: 128 KiB, which stay with the heap for the next watch.
const RING_ENTRIES: usize = 4096;

/// A run of blocks of which the current copies are others now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidencyChange {
    /// The run, by offset in the heap.
    pub extent: Extent,
    /// The current copies of each of its blocks.
    pub copies: Copies,
    /// What made them so.
    pub cause: Cause,
}

/// What a watch tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResidencyEvent {
    /// Copies have come or gone.
    Changed(ResidencyChange),
    /// The device is lost; told once, after the changes that this has made.
    DeviceLost,
}

/// The watches of a heap.
#[derive(Default)]
pub(crate) struct Watches {
    /// Bits of the slots that have an owner.
    taken: AtomicU32,
    /// Bits of the slots that are to be told.
    active: AtomicU32,
    /// The device is lost, and all changes that this has made are told.
    lost: AtomicBool,
    slots: [Slot; WATCHES_MAX],
}

#[derive(Default)]
struct Slot {
    /// First block, and one past the last: one word, so that it changes at once.
    blocks: AtomicU64,
    /// Made by the first owner. A late entry for the owner before can do no harm: readers keep to their blocks.
    ring: OnceLock<ArrayQueue<ResidencyChange>>,
    missed: AtomicU64,
    /// Counts what was told; the reader sleeps until it changes.
    epoch: AtomicU32,
    sleepers: AtomicU32,
}

impl Watches {
    /// `blocks` of the chunk have other copies than before, which `state` has. To be called under the cell's lock.
    pub(crate) fn note(&self, chunk: ChunkIndex, state: &Chunk, blocks: BlockSet, cause: Cause) {
        let active = self.active.load(Ordering::Relaxed);
        if active != 0 && !blocks.is_empty() {
            self.tell(active, chunk, state, blocks, cause);
        }
    }

    #[cold]
    fn tell(&self, active: u32, chunk: ChunkIndex, state: &Chunk, blocks: BlockSet, cause: Cause) {
        let watching = self.slots.iter().enumerate().filter(|(index, _)| active >> index & 1 == 1);
        watching.for_each(|(_, slot)| slot.tell(chunk, state, blocks, cause));
    }

    /// The device is lost, and every change that this has made was noted.
    pub(crate) fn note_loss(&self) {
        self.lost.store(true, Ordering::SeqCst);
        self.slots.iter().for_each(Slot::wake);
    }

    fn take(&self, extent: Extent) -> Result<usize, PagerError> {
        let free = |taken: u32| (!taken).trailing_zeros() as usize;
        let with_one_more = |taken: u32| (free(taken) < WATCHES_MAX).then(|| taken | 1 << free(taken));
        let taken = self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with_one_more);
        let index = taken.map(free).map_err(|_| PagerError::TooManyWatches { limit: WATCHES_MAX })?;
        let slot = &self.slots[index];
        let ring = slot.ring.get_or_init(|| ArrayQueue::new(RING_ENTRIES));
        while ring.pop().is_some() {}
        slot.missed.store(0, Ordering::SeqCst);
        slot.blocks.store(packed(extent), Ordering::SeqCst);
        self.active.fetch_or(1 << index, Ordering::SeqCst);
        Ok(index)
    }

    fn give(&self, index: usize) {
        self.active.fetch_and(!(1 << index), Ordering::SeqCst);
        self.slots[index].blocks.store(0, Ordering::SeqCst);
        self.taken.fetch_and(!(1 << index), Ordering::SeqCst);
    }
}

impl Slot {
    fn range(&self) -> (u64, u64) {
        let packed = self.blocks.load(Ordering::Relaxed);
        (packed >> 32, packed & u64::from(u32::MAX))
    }

    fn tell(&self, chunk: ChunkIndex, state: &Chunk, blocks: BlockSet, cause: Cause) {
        let Some(ring) = self.ring.get() else { return };
        let (first, end) = self.range();
        let watched = |slot: &u32| (first..end).contains(&chunk.block(*slot).0.into());
        let mut slots = blocks.slots().filter(watched).peekable();
        let mut told = false;
        while let Some(first) = slots.next() {
            let (copies, mut count) = (state.state(first).copies, 1);
            while slots.next_if(|next| *next == first + count && state.state(*next).copies == copies).is_some() {
                count += 1;
            }
            if ring.push(ResidencyChange { extent: chunk.run(first, count), copies, cause }).is_err() {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
            told = true;
        }
        if told {
            self.wake();
        }
    }

    fn wake(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            futex::wake_all(&self.epoch);
        }
    }

    /// Sleeps until something is told after `seen`, at most for `limit`.
    fn sleep(&self, seen: u32, limit: Option<Duration>) {
        // Who tells counts first and looks for sleepers then: either they see this one, or it sees the count.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        match limit {
            Some(limit) => futex::wait_for(&self.epoch, seen, limit),
            None => futex::wait(&self.epoch, seen),
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The blocks of `extent`, as a slot keeps them.
fn packed(extent: Extent) -> u64 {
    if extent.len == 0 {
        return 0;
    }
    let last = Block::containing(extent.end() - 1).0;
    u64::from(Block::containing(extent.start).0) << 32 | (u64::from(last) + 1)
}

/// A subscription to the changes of residency in a range; ends when it is dropped. It keeps the heap open.
pub struct ResidencyWatch {
    heap: Arc<Heap>,
    index: usize,
    told_of_loss: AtomicBool,
}

impl Heap {
    /// Tells from now on what becomes of the blocks of `extent`, whatever is allocated there.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`] if it is not inside the heap; [`PagerError::TooManyWatches`].
    pub fn watch(self: &Arc<Self>, extent: Extent) -> Result<ResidencyWatch, PagerError> {
        self.check_range(extent)?;
        let index = self.core().watches.take(extent)?;
        Ok(ResidencyWatch { heap: Arc::clone(self), index, told_of_loss: AtomicBool::new(false) })
    }
}

impl ResidencyWatch {
    fn slot(&self) -> &Slot {
        &self.heap.core().watches.slots[self.index]
    }

    /// The heap that it watches.
    #[must_use]
    pub fn heap(&self) -> &Arc<Heap> {
        &self.heap
    }

    /// The next event, if there is one.
    pub fn try_next(&self) -> Option<ResidencyEvent> {
        let slot = self.slot();
        // Looked at first: the changes that a loss makes are in the ring by then.
        let lost = self.heap.core().watches.lost.load(Ordering::SeqCst);
        while let Some(change) = slot.ring.get().and_then(ArrayQueue::pop) {
            if let Some(extent) = clip(change.extent, slot.range()) {
                return Some(ResidencyEvent::Changed(ResidencyChange { extent, ..change }));
            }
        }
        let first = lost && !self.told_of_loss.swap(true, Ordering::SeqCst);
        first.then_some(ResidencyEvent::DeviceLost)
    }

    /// The next event; waits for it.
    pub fn next(&self) -> ResidencyEvent {
        loop {
            let seen = self.slot().epoch.load(Ordering::SeqCst);
            if let Some(event) = self.try_next() {
                return event;
            }
            self.slot().sleep(seen, None);
        }
    }

    /// The next event; waits for it, at most for `limit`.
    pub fn next_within(&self, limit: Duration) -> Option<ResidencyEvent> {
        let begun = Instant::now();
        loop {
            let seen = self.slot().epoch.load(Ordering::SeqCst);
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            let left = limit.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())?;
            self.slot().sleep(seen, Some(left));
        }
    }

    /// Changes that were dropped because the ring was full: what is known from others may be out of date since.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.slot().missed.load(Ordering::Relaxed)
    }
}

impl Drop for ResidencyWatch {
    fn drop(&mut self) {
        self.heap.core().watches.give(self.index);
    }
}

/// The part of `extent` in blocks `first..end`, if there is one.
fn clip(extent: Extent, (first, end): (u64, u64)) -> Option<Extent> {
    let (start, end) = (extent.start.max(first * BLOCK), extent.end().min(end * BLOCK));
    (start < end).then(|| Extent { start, len: end - start })
}
