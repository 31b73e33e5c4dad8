//! The host's frames, by the chunk: when they are made, given back, and made again.
//!
//! A chunk in which anything is allocated is *committed*: it counts against the host limit whether its frames exist or
//! not, so that making them never exceeds it. Those that exist are kept under the host budget, a soft target: above it
//! a thread of its own gives back the frames of whole chunks of which no host copy is current, oldest noted first;
//! what then needs them again has them made first. That fails only where the system itself has no memory left, though
//! all that could go has gone; then a call is told [`OsError::OutOfMemory`], an eviction takes another victim, a CPU
//! thread's touch is refused by name, and data stays where it is. Frames of current copies are never given back, so
//! that a program whose CPU uses more than the budget exceeds it. It does *not* decide which copies are current.
//!
//! A give-back keeps all of its chunk's blocks busy, so that no plan begins that would need a frame; it begins only
//! where no block is busy, so that no plan in flight needs one either.

use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use limosa_model::{BlockSet, CHUNK, ChunkIndex, Plan, Side};
use limosa_os::{OsError, Wakeup, signal};

use crate::cell::{Cell, CellState};
use crate::core::Core;
use crate::counters::add;
use crate::error::PagerError;

/// Chunks kept for the next allocation after everything in them was freed: 128 MiB.
const WARM_CHUNKS_MAX: u64 = 64;
/// Chunks noted at a time as having frames that may go; where there are more, all are looked at.
const SPARE_NOTED: usize = 1024;

/// The host frames of one chunk: always all of them, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HostFrames {
    /// They do not exist, and nothing is allocated in the chunk.
    #[default]
    None,
    /// They exist for what is allocated.
    Here,
    /// They do not exist though something is allocated: no host copy of it is current.
    Away,
    /// They exist though nothing is allocated: for the next allocation.
    Warm,
    /// They are being given back. Blocks that are allocated are busy meanwhile; others cannot be allocated.
    Leaving,
}

/// What is counted and noted of all host frames.
pub(crate) struct HostPool {
    budget: u64,
    limit: u64,
    bytes: AtomicU64,
    committed: AtomicU64,
    warm_chunks: AtomicU64,
    /// Chunks whose frames may go, each once. Lock-free, since signal mode adds to it.
    spare: ArrayQueue<ChunkIndex>,
    /// Whether some found no place in it.
    unnoted: AtomicBool,
    /// Wakes who gives frames back. Allowed in signal mode.
    pub(crate) bell: Wakeup,
}

impl HostPool {
    pub(crate) fn new(budget: u64, limit: u64) -> Result<Self, OsError> {
        Ok(Self {
            budget: budget.min(limit),
            limit,
            bytes: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            warm_chunks: AtomicU64::new(0),
            spare: ArrayQueue::new(SPARE_NOTED),
            unnoted: AtomicBool::new(false),
            bell: Wakeup::new()?,
        })
    }

    /// Bytes whose frames exist.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Bytes of the chunks that frames are promised to; never above the limit.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.bytes() > self.budget
    }

    /// Enters a chunk's frames that were made.
    fn made(&self) {
        self.bytes.fetch_add(CHUNK, Ordering::SeqCst);
        self.ring_if_over();
    }

    fn ring_if_over(&self) {
        if self.is_over() {
            self.bell.ring();
        }
    }
}

/// The thread that gives frames back. Not the reaper, which has parked threads to help, and may be waiting for a kernel.
pub(crate) fn keep_to_budget(core: &Core) {
    signal::block_in_this_thread();
    while !core.stopping() {
        core.host_pool.bell.wait();
        core.host_pool.bell.silence();
        core.trim_host();
    }
}

impl Core {
    /// The state of a cell whose frames are not being given back. Not for fault handlers: it waits.
    pub(crate) fn settled_host<'a>(&self, cell: &'a Cell) -> MutexGuard<'a, CellState> {
        loop {
            let state = cell.lock();
            if state.host != HostFrames::Leaving {
                return state;
            }
            let epoch = cell.epoch();
            drop(state);
            cell.wait(epoch);
        }
    }

    /// Commits the chunk for an allocation of the blocks in `set`, and makes its frames if they fit into the budget;
    /// else they are made when they are needed. The caller keeps others from allocating.
    ///
    /// # Errors
    /// [`OsError::OutOfMemory`]; [`OsError::Mapping`] for what hides the blocks and cannot be taken away.
    pub(crate) fn reserve_host(&self, chunk: ChunkIndex, set: BlockSet) -> Result<(), PagerError> {
        let (cell, pool) = (self.cells.get_or_make(chunk), &self.host_pool);
        for side in [Side::Host, Side::Device] {
            self.clear_stand_ins(chunk, &mut cell.lock(), side, set)?;
        }
        let mut state = self.settled_host(cell);
        match state.host {
            HostFrames::Here | HostFrames::Away | HostFrames::Leaving => return Ok(()),
            HostFrames::Warm => {
                state.host = HostFrames::Here;
                pool.warm_chunks.fetch_sub(1, Ordering::Relaxed);
                return Ok(());
            }
            HostFrames::None => drop(state),
        }
        // The tmpfs has this limit, too; a memfd has none.
        if pool.committed() + self.view.shared_bytes() + CHUNK > pool.limit {
            return Err(OsError::OutOfMemory { what: "host memory", bytes: CHUNK, limit: pool.limit }.into());
        }
        let fits = pool.bytes() + CHUNK <= pool.budget;
        if fits {
            // Without the cell's lock, since this can take long.
            self.host.mapping.populate(chunk.extent())?;
            pool.made();
        }
        pool.committed.fetch_add(CHUNK, Ordering::SeqCst);
        let mut state = cell.lock();
        state.host = if fits { HostFrames::Here } else { HostFrames::Away };
        state.chunk.host_blanked(BlockSet::ALL);
        Ok(())
    }

    /// Ends a chunk's commitment if nothing is allocated in it any more; its frames are kept warm or given back. The
    /// caller keeps others from allocating.
    pub(crate) fn retire_host(&self, chunk: ChunkIndex) {
        let (cell, pool) = (self.cells.get_or_make(chunk), &self.host_pool);
        let mut state = self.settled_host(cell);
        if !state.chunk.allocated().is_empty() {
            return;
        }
        match state.host {
            HostFrames::Away => {
                state.host = HostFrames::None;
                pool.committed.fetch_sub(CHUNK, Ordering::SeqCst);
            }
            HostFrames::Here => {
                state.host = HostFrames::Warm;
                let warm = pool.warm_chunks.fetch_add(1, Ordering::Relaxed);
                if warm < WARM_CHUNKS_MAX && !pool.is_over() {
                    return self.note_spare(chunk, &mut state);
                }
                drop(state);
                // What cannot be given back stays warm, and counted.
                let _ = self.give_host_back(chunk, cell);
            }
            HostFrames::None | HostFrames::Warm | HostFrames::Leaving => {}
        }
    }

    /// Gives back what is kept for allocations to come. Gives whether there is more room now.
    pub(crate) fn make_host_room(&self) -> bool {
        let cooled = self.cool_down();
        self.view.trim_shared() || cooled
    }

    /// Gives the frames of all chunks back that were kept warm. Gives whether there is more room now.
    fn cool_down(&self) -> bool {
        let before = self.host_pool.committed();
        for (chunk, cell) in self.cells.iter() {
            let state = self.settled_host(cell);
            if state.host == HostFrames::Warm {
                drop(state);
                let _ = self.give_host_back(chunk, cell);
            }
        }
        self.host_pool.committed() < before
    }

    /// Notes the chunk if its frames may go, and wakes who gives them back if there are too many. Allowed in signal mode.
    pub(crate) fn note_spare(&self, chunk: ChunkIndex, state: &mut CellState) {
        let pool = &self.host_pool;
        let spare = match state.host {
            HostFrames::Warm => true,
            HostFrames::Here => state.chunk.host_frames_unneeded(),
            HostFrames::None | HostFrames::Away | HostFrames::Leaving => false,
        };
        // Frames within the limit are never too many where that is the budget.
        if !spare || pool.budget == pool.limit {
            return;
        }
        if !state.noted_spare {
            state.noted_spare = pool.spare.push(chunk).is_ok();
            pool.unnoted.fetch_or(!state.noted_spare, Ordering::SeqCst);
        }
        pool.ring_if_over();
    }

    /// Makes the host frames that the plan needs, if they do not exist. The plan's blocks are busy, so that nobody gives
    /// them back; another plan of the chunk may be making them at the same time. Allowed in signal mode.
    pub(crate) fn bring_host(&self, chunk: ChunkIndex, cell: &Cell, plan: &Plan) -> Result<(), PagerError> {
        if plan.uses_on_host().is_empty() { Ok(()) } else { self.make_host_frames(chunk, cell) }
    }

    /// Makes the chunk's host frames, if they do not exist, for a chunk whose frames nobody can give back.
    pub(crate) fn make_host_frames(&self, chunk: ChunkIndex, cell: &Cell) -> Result<(), PagerError> {
        if cell.lock().host != HostFrames::Away {
            return Ok(());
        }
        while let Err(error) = self.host.mapping.populate(chunk.extent()) {
            // Frames that nobody needs may be what is lacking.
            if !self.give_any_back() {
                return Err(error.into());
            }
        }
        let mut state = cell.lock();
        if state.host == HostFrames::Away {
            state.host = HostFrames::Here;
            self.host_pool.made();
            add(&self.counters.chunks_host_brought_back, 1);
        }
        Ok(())
    }

    /// Gives one chunk's frames back, if there are any to spare. Gives whether that worked.
    fn give_any_back(&self) -> bool {
        while let Some(chunk) = self.host_pool.spare.pop() {
            let Some(cell) = self.cells.get(chunk) else { continue };
            match self.give_host_back(chunk, cell) {
                Ok(false) => {}
                Ok(true) => return true,
                // It has been noted again, to be tried when more is to go.
                Err(_) => return false,
            }
        }
        false
    }

    /// Gives frames back until those that exist are within the budget, or no more can go.
    fn trim_host(&self) {
        let over = || self.host_pool.is_over() && !self.stopping();
        while over() && self.give_any_back() {}
        if over() && self.host_pool.unnoted.swap(false, Ordering::SeqCst) {
            self.cells.iter().take_while(|_| over()).for_each(|(chunk, cell)| {
                let _ = self.give_host_back(chunk, cell);
            });
        }
    }

    /// Gives the chunk's frames back if no block needs one. Gives whether they are gone. Allowed in signal mode.
    fn give_host_back(&self, chunk: ChunkIndex, cell: &Cell) -> Result<bool, PagerError> {
        let pool = &self.host_pool;
        let mut state = cell.lock();
        state.noted_spare = false;
        let (before, after) = match state.host {
            HostFrames::Here => (HostFrames::Here, HostFrames::Away),
            HostFrames::Warm => (HostFrames::Warm, HostFrames::None),
            HostFrames::None | HostFrames::Away | HostFrames::Leaving => return Ok(false),
        };
        let Some(blocks) = state.chunk.begin_host_give_back() else { return Ok(false) };
        state.host = HostFrames::Leaving;
        // Nothing of it is open, so no huge mapping is left.
        state.huge.host = false;
        drop(state);
        let given = self.host.mapping.file().discard(chunk.extent());
        let mut state = cell.lock();
        state.chunk.end_host_give_back(blocks, given.is_ok());
        state.host = if given.is_ok() { after } else { before };
        if given.is_ok() {
            pool.bytes.fetch_sub(CHUNK, Ordering::SeqCst);
            add(&self.counters.chunks_host_given_back, 1);
            if after == HostFrames::None {
                pool.committed.fetch_sub(CHUNK, Ordering::SeqCst);
                pool.warm_chunks.fetch_sub(1, Ordering::Relaxed);
            }
        } else {
            add(&self.counters.host_give_backs_failed, 1);
            // Without ringing: it would fail again at once.
            state.noted_spare = pool.spare.push(chunk).is_ok();
            pool.unnoted.fetch_or(!state.noted_spare, Ordering::SeqCst);
        }
        self.release(chunk, cell, state, blocks);
        given?;
        Ok(true)
    }
}
