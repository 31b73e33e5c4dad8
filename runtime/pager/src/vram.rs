//! Device memory under a budget: which blocks have frames, and who must go when they run out.
//!
//! Frames are counted by the block; a chunk that is used densely gets all of its frames at once, in one piece. Frames
//! whose block has left the device stay, warm, until another needs the room: they go first, then what the policy
//! names. Clean copies are dropped without a copy. It does *not* touch blocks that are held or under a move, and where
//! frames are is the view's business.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::queue::ArrayQueue;
use limosa_gpu::{GpuError, Ticket, Timeline};
use limosa_model::advice::Turn;
use limosa_model::order::{self, Rank, Reach};
use limosa_model::policy::{DeclaredNext, EvictionPolicy};
use limosa_model::{BLOCK, BLOCKS_PER_CHUNK, BlockSet, ChunkIndex, Side, Verdict};
use limosa_os::copy::Caching;

use crate::cell::{Cell, CellState};
use crate::clock::Clock;
use crate::config::DEVICE_BUDGET_MIN;
use crate::core::Core;
use crate::counters::add;
use crate::error::PagerError;

/// From so many blocks at once on, a chunk gets frames for all of it, as one huge page.
const DENSE_MIN: u32 = BLOCKS_PER_CHUNK / 2;
/// Chunks noted as having idle frames, at most; others are found by the policy's order.
const IDLE_NOTED: usize = 1024;
/// What came of an attempt to free frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Made,
    /// What could go is under a move at this moment.
    Later,
    /// All of it is held.
    Never,
}

/// Whether blocks of a chunk that nobody holds could leave the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    Now,
    /// After a move that is under way.
    Soon,
    Never,
}

/// Victims looked at before giving up: more are held or under a move than could be by launches of this size.
const VICTIMS_MAX: usize = 4096;

/// Victims looked at first.
const FEW_VICTIMS: usize = 16;

/// After so long a shrunk budget is tried again.
const SHRUNK_MICROS: u64 = 1_000_000;

/// Which chunks are to be evicted first.
pub(crate) type EvictionOrder = order::EvictionOrder<DeclaredNext>;

pub(crate) struct Vram {
    /// The budget that was asked for.
    asked_blocks: u64,
    /// Shrinks for a while where the driver has less than that.
    budget_blocks: AtomicU64,
    /// When it shrank, by the clock in microseconds; 0: it has not.
    shrunk: AtomicU64,
    clock: Clock,
    used_blocks: AtomicU64,
    /// Chunks from which a block has left the device. Lock-free, since signal mode adds to it.
    idle: ArrayQueue<ChunkIndex>,
    /// Held while frames are taken or given back. Comes before any cell's lock.
    order: Mutex<EvictionOrder>,
}

impl Vram {
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            asked_blocks: budget / BLOCK,
            budget_blocks: AtomicU64::new(budget / BLOCK),
            shrunk: AtomicU64::new(0),
            clock: Clock::start(),
            used_blocks: AtomicU64::new(0),
            idle: ArrayQueue::new(IDLE_NOTED),
            order: Mutex::default(),
        }
    }

    /// Bytes that were asked for: whole blocks.
    pub(crate) fn asked(&self) -> u64 {
        self.asked_blocks * BLOCK
    }

    /// Bytes that may be used now: whole blocks.
    pub(crate) fn budget(&self) -> u64 {
        self.budget_blocks.load(Ordering::Relaxed) * BLOCK
    }

    /// Bytes whose frames exist.
    pub(crate) fn used(&self) -> u64 {
        self.used_blocks.load(Ordering::Relaxed) * BLOCK
    }

    /// Keeps frames from being taken or given back meanwhile.
    pub(crate) fn lock(&self) -> MutexGuard<'_, EvictionOrder> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that blocks of the chunk are about to leave the device. Allowed in signal mode.
    pub(crate) fn note_idle(&self, chunk: ChunkIndex) {
        let _ = self.idle.push(chunk);
    }

    /// The driver has no more than is in use now: that is the budget for a while. Gives whether that is less than
    /// before, so that it is worth making room and trying again.
    fn shrink(&self) -> bool {
        let used = self.used_blocks.load(Ordering::Relaxed).max(DEVICE_BUDGET_MIN / BLOCK);
        let less = self.budget_blocks.fetch_min(used, Ordering::SeqCst) > used;
        // Last, so that whoever asks for all of it again meanwhile does not make us forget that it is to be.
        self.shrunk.store(self.clock.micros().max(1), Ordering::SeqCst);
        less
    }

    /// Asks for the whole budget again: others may have given memory back.
    pub(crate) fn grow_again(&self) {
        if self.shrunk.swap(0, Ordering::SeqCst) != 0 {
            self.budget_blocks.store(self.asked_blocks, Ordering::SeqCst);
        }
    }

    fn grow_after_a_while(&self) {
        let shrunk = self.shrunk.load(Ordering::Relaxed);
        if shrunk != 0 && self.clock.micros().saturating_sub(shrunk) > SHRUNK_MICROS {
            self.grow_again();
        }
    }

    fn room(&self) -> u64 {
        self.budget_blocks.load(Ordering::Relaxed).saturating_sub(self.used_blocks.load(Ordering::Relaxed))
    }
}

impl Cell {
    pub(crate) fn frames(&self) -> BlockSet {
        BlockSet(self.frames.load(Ordering::Acquire))
    }
}

impl Core {
    /// Makes sure that `blocks` have frames, evicting others if it must. The blocks are busy, so that nobody takes
    /// the frames away again; so are all that the plan covers.
    pub(crate) fn take_frames(
        &self,
        chunk: ChunkIndex,
        cell: &Cell,
        blocks: BlockSet,
        covers: BlockSet,
    ) -> Result<(), PagerError> {
        let mut order = self.vram.lock();
        let missing = blocks - cell.frames();
        if missing.is_empty() {
            order.policy.used(chunk);
            return Ok(());
        }
        let limited = self.keep_to_limits(&mut order, chunk, cell, missing, covers)?;
        let state = cell.lock();
        // Shared blocks are the view's own, and no part of a frame for all of the chunk. Nor are those with a limit, of
        // which only what is needed is to count.
        let whole = state.chunk.shared().is_empty() && !limited;
        // A huge page is not worth what had best stay.
        let reach = Reach { turn: Turn::Usual, priority: state.chunk.priorities().highest(missing) };
        drop(state);
        let dense = whole && cell.frames().is_empty() && missing.count() >= DENSE_MIN;
        if dense
            && self.make_room(&mut order, BLOCKS_PER_CHUNK, reach, chunk, covers)? == Room::Made
            && self.take_in_room(&mut order, chunk, cell, BlockSet::ALL).is_ok()
        {
            cell.lock().one_page = self.view.maps_huge();
            return Ok(());
        }
        loop {
            match self.make_room(&mut order, missing.count(), Reach::ALL, chunk, covers)? {
                Room::Made => {}
                Room::Later => return Err(PagerError::DeviceMemoryBusy),
                Room::Never => return Err(PagerError::DeviceMemoryFull { budget: self.vram.budget() }),
            }
            let taken = missing
                .runs()
                .try_for_each(|(first, count)| self.take_in_room(&mut order, chunk, cell, BlockSet::run(first, count)));
            match taken {
                Err(PagerError::Gpu(GpuError::OutOfMemory { .. })) if self.vram.shrink() => {
                    add(&self.counters.device_budget_cuts, 1);
                }
                done => return done,
            }
        }
    }

    /// Makes frames for which there is room.
    fn take_in_room(
        &self,
        order: &mut EvictionOrder,
        chunk: ChunkIndex,
        cell: &Cell,
        blocks: BlockSet,
    ) -> Result<(), PagerError> {
        let missing = blocks - cell.frames();
        if !missing.is_empty() {
            self.view.take(chunk, missing)?;
            self.add_frames(chunk, cell, missing);
        }
        // Known to the policy also where a later part fails, so that these frames can be taken again.
        order.policy.used(chunk);
        Ok(())
    }

    /// Has the device see everything opened so far, evicting where its memory lies in too many pieces for that. Gives
    /// what a launch must wait for.
    pub(crate) fn publish(&self) -> Result<Option<(Arc<Timeline>, Ticket)>, PagerError> {
        loop {
            match self.view.publish() {
                Err(PagerError::TooManyBindings { .. }) if self.evict_any() => {}
                done => return done,
            }
        }
    }

    /// Takes one chunk out of device memory as far as it is not held. Gives whether that freed anything.
    fn evict_any(&self) -> bool {
        let mut order = self.vram.lock();
        let before = self.vram.used();
        let victims: Vec<_> = order.victims().take(VICTIMS_MAX).collect();
        victims.into_iter().any(|(rank, victim)| {
            // What cannot go stays; others may.
            let _ = self.evict(victim, rank, BLOCKS_PER_CHUNK);
            self.free_idle_frames(&mut order, victim);
            self.vram.used() < before
        })
    }

    fn add_frames(&self, chunk: ChunkIndex, cell: &Cell, blocks: BlockSet) {
        let added = blocks - cell.frames();
        cell.frames.fetch_or(added.0, Ordering::AcqRel);
        self.vram.used_blocks.fetch_add(added.count().into(), Ordering::Relaxed);
        self.note_frames(chunk, cell, added, BlockSet::EMPTY);
    }

    /// Frees frames until there is room for `blocks` more, of blocks within `reach`, sparing the chunk that they are for
    /// as long as it can. The blocks of it in `covers` are the caller's.
    fn make_room(
        &self,
        order: &mut EvictionOrder,
        blocks: u32,
        reach: Reach,
        spare: ChunkIndex,
        covers: BlockSet,
    ) -> Result<Room, PagerError> {
        self.vram.grow_after_a_while();
        let enough = || self.vram.room() >= blocks.into();
        while !enough() {
            let Some(chunk) = self.vram.idle.pop() else { break };
            self.free_idle_frames(order, chunk);
        }
        if enough() {
            return Ok(Room::Made);
        }
        let evictable = |(rank, victim): &(Rank, ChunkIndex)| {
            let unheld = |cell: &Cell| !(cell.frames() - cell.lock().chunk.held()).is_empty();
            reach.allows(*rank) && *victim != spare && self.cells.get(*victim).is_some_and(unheld)
        };
        // A launch's blocks beside a victim's in one huge page would be unmapped with it: such victims come last.
        let shaken = |victim: &ChunkIndex| {
            let state = self.cells.get(*victim).map(Cell::lock);
            state.is_some_and(|state| state.one_page && !state.chunk.held().is_empty())
        };
        let easy = |victim: &(Rank, ChunkIndex)| evictable(victim) && !shaken(&victim.1);
        // Nearly always a few suffice; so not all of a large device is looked at.
        let few: Vec<_> = order.victims().filter(easy).take(FEW_VICTIMS).collect();
        let mut failed = false;
        if self.evict_until(order, few, blocks, &mut failed)? {
            return Ok(Room::Made);
        }
        let mut victims: Vec<_> = order.victims().filter(evictable).take(VICTIMS_MAX).collect();
        victims.sort_by_cached_key(|(rank, victim)| (rank.turn == Turn::Last, shaken(victim)));
        let ranks = Rank::all().filter(|rank| !rank.next && reach.allows(*rank));
        victims.extend(ranks.map(|rank| (rank, spare)));
        if self.evict_until(order, victims, blocks, &mut failed)? {
            return Ok(Room::Made);
        }
        let own = |chunk: ChunkIndex| if chunk == spare { covers } else { BlockSet::EMPTY };
        let mut left = order.policy.victims().chain([spare]).map(|chunk| self.can_leave(chunk, own(chunk)));
        // A block that came back while it was evicted could still go; one of which that failed would fail again.
        if left.any(|leaves| leaves == Leaves::Soon || leaves == Leaves::Now && !failed) {
            Ok(Room::Later)
        } else {
            Ok(Room::Never)
        }
    }

    /// Evicts one victim after the other until there is room for `blocks` more. Gives whether that came to be, and notes
    /// where one could not be evicted.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    fn evict_until(
        &self,
        order: &mut EvictionOrder,
        victims: Vec<(Rank, ChunkIndex)>,
        blocks: u32,
        failed: &mut bool,
    ) -> Result<bool, PagerError> {
        for (rank, victim) in victims {
            match self.evict(victim, rank, blocks) {
                Err(error @ PagerError::Gpu(GpuError::DeviceLost)) => return Err(error),
                evicted => *failed |= evicted.is_err(),
            }
            self.free_idle_frames(order, victim);
            if self.vram.room() >= blocks.into() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes what can go of the chunk at this rank out of VRAM: all of it where much is needed, so that whole huge pages
    /// come free, else no more than `needed`.
    fn evict(&self, chunk: ChunkIndex, rank: Rank, needed: u32) -> Result<(), PagerError> {
        let few = |blocks: BlockSet| if needed < DENSE_MIN { blocks.last(needed) } else { blocks };
        self.evict_blocks(chunk, |state, evictable| few(evictable & state.chunk.due(rank.turn, rank.priority)))
    }

    /// Takes those blocks of the chunk out of VRAM that `choose` picks from what can go.
    pub(crate) fn evict_blocks(
        &self,
        chunk: ChunkIndex,
        choose: impl FnOnce(&CellState, BlockSet) -> BlockSet,
    ) -> Result<(), PagerError> {
        let Some(cell) = self.cells.get(chunk) else { return Ok(()) };
        let mut state = cell.lock();
        let evictable = state.chunk.current(Side::Device) - state.chunk.held() - state.chunk.busy();
        let blocks = choose(&state, evictable);
        let verdict = self.decide(chunk, &mut state, |chunk| chunk.evict(blocks));
        drop(state);
        if let Verdict::Go(plan) = verdict {
            self.carry_out(chunk, cell, &plan, Caching::Bypass)?;
            add(&self.counters.blocks_evicted, plan.covers.count().into());
        }
        Ok(())
    }

    /// Whether something of the chunk could leave, the caller's `own` aside.
    fn can_leave(&self, chunk: ChunkIndex, own: BlockSet) -> Leaves {
        let Some(cell) = self.cells.get(chunk) else { return Leaves::Never };
        let state = cell.lock();
        let unheld = cell.frames() - state.chunk.held() - own;
        if !(unheld & state.chunk.busy()).is_empty() {
            Leaves::Soon
        } else if !(unheld & state.chunk.current(Side::Device)).is_empty() {
            Leaves::Now
        } else {
            Leaves::Never
        }
    }

    /// Gives the frames of a chunk back that hold nothing.
    pub(crate) fn drop_idle_frames(&self, chunk: ChunkIndex) {
        self.free_idle_frames(&mut self.vram.lock(), chunk);
    }

    /// The same, by who has the pool.
    pub(crate) fn free_idle_frames(&self, order: &mut EvictionOrder, chunk: ChunkIndex) {
        let Some(cell) = self.cells.get(chunk) else { return };
        // Under the cell's lock, so that no plan begins that needs them.
        let mut state = cell.lock();
        let used = state.chunk.current(Side::Device) | state.chunk.busy() | state.stand_in.device;
        let idle = cell.frames() - used;
        // What cannot be given back stays counted.
        let freed = self.view.give(chunk, idle);
        if freed.is_empty() {
            return;
        }
        // Neither a huge mapping nor the mappings of a huge page survive the loss of a part of it.
        if (state.huge.device || state.one_page) && self.view.close(chunk, BlockSet::ALL).is_ok() {
            state.chunk.unmapped(Side::Device, BlockSet::ALL);
            state.huge.device = false;
            state.one_page = false;
        }
        cell.frames.fetch_and(!freed.0, Ordering::AcqRel);
        self.vram.used_blocks.fetch_sub(freed.count().into(), Ordering::Relaxed);
        drop(state);
        self.note_frames(chunk, cell, BlockSet::EMPTY, freed);
        if cell.frames().is_empty() {
            order.policy.gone(chunk);
        }
    }
}
