//! Software VRAM under a budget: which blocks of the device's linear memory file have frames, and who must go when
//! they run out.
//!
//! On an imported view frame offset = heap offset. Frames are counted by the block; a chunk that is used densely gets
//! all of its frames at once, as one huge page. Frames whose block has left the device stay, warm, until another
//! needs the room: they go first, then what the policy names. Clean copies are dropped without a copy. It does *not*
//! touch blocks that are held or under a move.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam::queue::ArrayQueue;
use limosa_model::policy::EvictionPolicy;
use limosa_model::{BLOCK, BLOCKS_PER_CHUNK, BlockSet, ChunkIndex, Side, Verdict};
use limosa_os::copy::Caching;

use crate::cell::Cell;
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

/// Victims looked at before giving up: more are held or under a move than could be by launches of this size.
const VICTIMS_MAX: usize = 4096;

pub(crate) struct Vram {
    budget_blocks: u64,
    used_blocks: AtomicU64,
    /// Chunks from which a block has left the device. Lock-free, since signal mode adds to it.
    idle: ArrayQueue<ChunkIndex>,
    /// Held while frames are taken or given back. Comes before any cell's lock.
    policy: Mutex<Box<dyn EvictionPolicy>>,
}

impl Vram {
    pub(crate) fn new(budget: u64, policy: Box<dyn EvictionPolicy>) -> Self {
        Self {
            budget_blocks: budget / BLOCK,
            used_blocks: AtomicU64::new(0),
            idle: ArrayQueue::new(IDLE_NOTED),
            policy: Mutex::new(policy),
        }
    }

    /// Bytes that may be used: whole blocks.
    pub(crate) fn budget(&self) -> u64 {
        self.budget_blocks * BLOCK
    }

    /// Bytes whose frames exist.
    pub(crate) fn used(&self) -> u64 {
        self.used_blocks.load(Ordering::Relaxed) * BLOCK
    }

    /// Keeps frames from being taken or given back meanwhile.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Box<dyn EvictionPolicy>> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that blocks of the chunk are about to leave the device. Allowed in signal mode.
    pub(crate) fn note_idle(&self, chunk: ChunkIndex) {
        let _ = self.idle.push(chunk);
    }

    fn room(&self) -> u64 {
        self.budget_blocks.saturating_sub(self.used_blocks.load(Ordering::Relaxed))
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
        let mut policy = self.vram.lock();
        let missing = blocks - cell.frames();
        if !missing.is_empty() {
            let dense = cell.frames().is_empty() && missing.count() >= DENSE_MIN;
            if dense && self.make_room(policy.as_mut(), BLOCKS_PER_CHUNK, chunk, covers) == Room::Made {
                self.view.take(chunk, BlockSet::ALL)?;
                self.add_frames(cell, BlockSet::ALL);
                cell.lock().one_page = self.view.maps_huge();
                policy.used(chunk);
                return Ok(());
            }
            match self.make_room(policy.as_mut(), missing.count(), chunk, covers) {
                Room::Made => {}
                Room::Later => return Err(PagerError::DeviceMemoryBusy),
                Room::Never => return Err(PagerError::DeviceMemoryFull { budget: self.vram.budget() }),
            }
            // Known to the policy before, so that frames of a half-failed attempt can be taken again.
            policy.used(chunk);
            for (first, count) in missing.runs() {
                let run = BlockSet::run(first, count);
                self.view.take(chunk, run)?;
                self.add_frames(cell, run);
            }
        }
        policy.used(chunk);
        Ok(())
    }

    fn add_frames(&self, cell: &Cell, blocks: BlockSet) {
        let added = blocks - cell.frames();
        cell.frames.fetch_or(added.0, Ordering::AcqRel);
        self.vram.used_blocks.fetch_add(added.count().into(), Ordering::Relaxed);
    }

    /// Frees frames until there is room for `blocks` more, sparing the chunk that they are for as long as it can. The
    /// blocks of it in `covers` are the caller's.
    fn make_room(&self, policy: &mut dyn EvictionPolicy, blocks: u32, spare: ChunkIndex, covers: BlockSet) -> Room {
        let enough = || self.vram.room() >= blocks.into();
        while !enough() {
            let Some(chunk) = self.vram.idle.pop() else { break };
            self.free_idle_frames(policy, chunk);
        }
        if enough() {
            return Room::Made;
        }
        let mut moving = false;
        let evictable = |victim: &ChunkIndex| {
            let unheld = |cell: &Cell| !(cell.frames() - cell.lock().chunk.held()).is_empty();
            *victim != spare && self.cells.get(*victim).is_some_and(unheld)
        };
        // A launch's blocks beside a victim's in one huge page would be unmapped with it: such victims come last.
        let shaken = |victim: &ChunkIndex| {
            self.cells
                .get(*victim)
                .map(Cell::lock)
                .is_some_and(|state| state.one_page && !state.chunk.held().is_empty())
        };
        let (last, first): (Vec<_>, Vec<_>) = policy.victims().filter(evictable).take(VICTIMS_MAX).partition(shaken);
        for victim in first.into_iter().chain(last) {
            moving |= self.evict(victim, blocks, BlockSet::EMPTY);
            self.free_idle_frames(policy, victim);
            if enough() {
                return Room::Made;
            }
        }
        moving |= self.evict(spare, blocks, covers);
        self.free_idle_frames(policy, spare);
        match (enough(), moving) {
            (true, _) => Room::Made,
            (false, true) => Room::Later,
            (false, false) => Room::Never,
        }
    }

    /// Takes what can go of the chunk out of VRAM: all of it where much is needed, so that whole huge pages come free,
    /// else no more than `needed`. Gives whether something is left that could go later, the caller's
    /// `own` aside.
    fn evict(&self, chunk: ChunkIndex, needed: u32, own: BlockSet) -> bool {
        let Some(cell) = self.cells.get(chunk) else { return false };
        let mut state = cell.lock();
        let moving = !(state.chunk.busy() - own).is_empty();
        let held = state.chunk.held() | state.chunk.busy();
        let evictable = state.chunk.current(Side::Device) - held;
        let blocks = if needed < DENSE_MIN { evictable.last(needed) } else { evictable };
        let verdict = self.decide(chunk, &mut state, |chunk| chunk.evict(blocks));
        drop(state);
        if let Verdict::Go(plan) = verdict
            && self.carry_out(chunk, cell, &plan, Caching::Bypass).is_ok()
        {
            add(&self.counters.blocks_evicted, plan.covers.count().into());
        }
        moving
    }

    /// Gives the frames of a chunk back that hold nothing.
    fn free_idle_frames(&self, policy: &mut dyn EvictionPolicy, chunk: ChunkIndex) {
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
        if cell.frames().is_empty() {
            policy.gone(chunk);
        }
    }
}
