//! The threads that read faults, one for each side, and the signal handler that takes the CPU's place of one.
//! They serve and go on; they never wait for each other, for the queue, or for the application.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use limosa_model::{Access, Block, BlockSet, ChunkIndex, HostAddr, Side};
use limosa_os::{OsError, signal};

use crate::cell::Cell;
use crate::config::{DeviceClass, FaultMode};
use crate::core::Core;
use crate::error::{PagerError, TouchCause};
use crate::fault::Served;
use crate::host_frames::keep_to_budget;
use crate::reaper::reap;
use crate::side::SideMemory;
use crate::throttle::Deferred;

/// The running handlers of a heap; stops them when dropped.
pub(crate) struct Handlers {
    core: Arc<Core>,
    /// Left before the threads stop: a fault in this thread would have nobody else.
    signal: Option<signal::Registration>,
    threads: Vec<JoinHandle<()>>,
}

impl Handlers {
    pub(crate) fn start(core: &Arc<Core>) -> Result<Self, PagerError> {
        let mut handlers = Self { core: Arc::clone(core), signal: None, threads: Vec::new() };
        for (name, side) in [("limosa-cpu", Side::Host), ("limosa-gpu", Side::Device)] {
            if core.memory(side).is_some() {
                let core = Arc::clone(core);
                handlers.threads.push(spawn(name, move || serve_all(&core, side))?);
            }
        }
        let shared = Arc::clone(core);
        handlers.threads.push(spawn("limosa-launch", move || reap(&shared))?);
        if core.config.host_budget < core.config.host_limit {
            let shared = Arc::clone(core);
            handlers.threads.push(spawn("limosa-host", move || keep_to_budget(&shared))?);
        }
        if core.config.fault_mode == FaultMode::InThread {
            let server = Arc::new(InThread { core: Arc::clone(core) });
            handlers.signal = Some(signal::register(core.host_range(), server)?);
        }
        Ok(handlers)
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        self.signal = None;
        self.core.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.core.pumps.join();
    }
}

pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, PagerError> {
    let run = || {
        let _abort = AbortOnPanic;
        run();
    };
    let operation = "starting a thread of the heap";
    let thread = Builder::new().name(name.into()).spawn(run);
    Ok(thread.map_err(|source| OsError::Mapping { operation, bytes: 0, source })?)
}

/// Ends the process if a handler panics: without it, every thread that faults would wait for ever.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

fn serve_all(core: &Core, side: Side) {
    signal::block_in_this_thread();
    let Some(memory) = core.memory(side) else { return };
    let mut suspects = Suspects::default();
    let mut deferred = Deferred::new(side);
    while !core.stopping() {
        let next_due = deferred.wake_due(core);
        memory.window.wait(&memory.bell, next_due);
        memory.bell.silence();
        // Faults first; a chunk is read ahead only when none is pending.
        while serve_pending(core, memory, side, &mut suspects, &mut deferred)
            || side == Side::Host && (core.serve_posted(&mut suspects, &mut deferred) || core.read_ahead_one())
        {
            // Others that fault all the time must not keep them waiting.
            deferred.wake_due(core);
        }
    }
}

/// Blocks of which a touch was refused once.
///
/// A fault that was read may be over when it is served: others have opened the page since, the thread went on, and
/// the block was even freed. So a refused thread is woken and asked to fault again, and only what is read after that
/// counts: nobody comes back from a fault that was over. Nor does a suspicion outlive the memory: what was refused before
/// blocks of the chunk came into use again says nothing of a touch after they went.
#[derive(Default)]
struct Suspects {
    batch: u64,
    /// The oldest is overwritten first.
    refused: [Option<Suspect>; 16],
    next: usize,
}

/// A block, the batch in which a touch of it was refused, and the lives of its chunk then.
#[derive(Clone, Copy)]
struct Suspect {
    block: Block,
    batch: u64,
    lives: u32,
}

impl Suspects {
    /// Whether a touch of `block` was refused in an earlier batch; if not, notes it.
    fn confirm(&mut self, core: &Core, block: Block) -> bool {
        let lives = core.cells.get(block.chunk()).map_or(0, |cell| cell.lock().lives);
        let new = Suspect { block, batch: self.batch, lives };
        let known = self.refused.iter_mut().find(|entry| entry.is_some_and(|suspect| suspect.block == block));
        let Some(entry) = known else {
            self.refused[self.next] = Some(new);
            self.next = (self.next + 1) % self.refused.len();
            return false;
        };
        let confirmed = entry.is_some_and(|old| old.lives == lives && old.batch < self.batch);
        if confirmed {
            *entry = None;
        } else if entry.is_some_and(|old| old.lives != lives) {
            *entry = Some(new);
        }
        confirmed
    }
}

fn serve_pending(
    core: &Core,
    memory: &SideMemory,
    side: Side,
    suspects: &mut Suspects,
    deferred: &mut Deferred,
) -> bool {
    suspects.batch += 1;
    let served = memory.window.faults(|fault| {
        let range = memory.window.range();
        // The kernel reports addresses of the registered range only.
        let Some(offset) = range.offset_of(fault.address) else { return };
        let block = Block::containing(offset);
        let mut confirmed = || {
            let confirmed = suspects.confirm(core, block);
            if !confirmed {
                core.wake(side, block.chunk(), BlockSet::of(block.slot()));
            }
            confirmed
        };
        let undeclared = side == Side::Device && !core.declares(offset, fault.access);
        if undeclared {
            if !confirmed() {
                return;
            }
            let cause = core.why_undeclared(offset);
            core.blame(offset, fault.access, cause);
            if core.class == DeviceClass::Declared || cause == TouchCause::NotAllocated {
                core.stand_in_device(offset);
                return;
            }
        }
        match (core.serve(side, offset, fault.access), side) {
            (Served::Done | Served::Parked(_), _) => {}
            (Served::Deferred(lease), _) => deferred.add(core, block, lease),
            // Confirmed and told already.
            (Served::Refused(_), _) if undeclared => core.stand_in_device(offset),
            (Served::Refused(_), _) if !confirmed() => {}
            (Served::Refused(cause), Side::Host) => {
                core.complain(fault.address, fault.access, cause);
                core.stand_in_host(offset);
            }
            (Served::Refused(cause), Side::Device) => {
                core.blame(offset, fault.access, cause);
                core.stand_in_device(offset);
            }
        }
    });
    served > 0
}

struct InThread {
    core: Arc<Core>,
}

// SAFETY: `serve` allocates nothing (cells exist for all that is allocated), and the only locks it takes are held by
// code that never touches the heap, so never by the interrupted thread.
unsafe impl signal::ServeInThread for InThread {
    fn serve(&self, address: HostAddr, access: Option<Access>) -> bool {
        let Some(offset) = self.core.host_range().offset_of(address) else { return false };
        let access = access.unwrap_or_else(|| self.likely_access(offset));
        // Nothing of it faults but when it is gone, and then always.
        if self.core.peers.contain(offset) {
            self.core.complain(address, access, TouchCause::DeviceGone);
            return false;
        }
        if let (false, Some(cell)) =
            (self.core.view.copies_in_place(), self.core.cells.get(ChunkIndex::containing(offset)))
        {
            return self.core.post(cell, offset, access);
        }
        loop {
            match self.core.serve(Side::Host, offset, access) {
                Served::Done => return true,
                Served::Parked(epoch) => self.core.wait_for_release(offset, epoch),
                Served::Deferred(lease) => self.core.throttle.sleep(lease),
                Served::Refused(cause) => {
                    self.core.complain(address, access, cause);
                    return false;
                }
            }
        }
    }
}

impl InThread {
    /// Where the machine does not tell reads from writes: a fault on what is open for reading must be a write.
    fn likely_access(&self, offset: u64) -> Access {
        let block = limosa_model::Block::containing(offset);
        let open = self
            .core
            .cells
            .get(block.chunk())
            .is_some_and(|cell| cell.lock().chunk.open(Side::Host).contains(block.slot()));
        if open { Access::Write } else { Access::Read }
    }
}

impl Core {
    /// Leaves a fault to the handler thread, and waits for it: for signal mode, where a copy may take the driver. Gives
    /// whether the access may be tried again.
    fn post(&self, cell: &Cell, offset: u64, access: Access) -> bool {
        let slot = Block::containing(offset).slot();
        let state = cell.lock();
        if state.stand_in.host.contains(slot) {
            return false;
        }
        // Only this thread knows that it is touching the block now: what was posted may be over when it is served.
        let refused = if !state.chunk.allocated().contains(slot) {
            Some(TouchCause::NotAllocated)
        } else if state.chunk.poisoned().contains(slot) {
            Some(TouchCause::Poisoned)
        } else {
            None
        };
        let epoch = cell.epoch();
        drop(state);
        if let Some(cause) = refused {
            self.complain(self.address(offset), access, cause);
            return false;
        }
        while self.posted.push((offset, access)).is_err() {
            std::thread::yield_now();
        }
        self.host.bell.ring();
        cell.wait(epoch);
        true
    }

    /// Serves one of the faults left to the handler thread.
    fn serve_posted(&self, suspects: &mut Suspects, deferred: &mut Deferred) -> bool {
        let Some((offset, access)) = self.posted.pop() else { return false };
        let Some(cell) = self.cells.get(ChunkIndex::containing(offset)) else { return true };
        match self.serve(Side::Host, offset, access) {
            // Whoever releases the block wakes the thread.
            Served::Parked(_) => {}
            Served::Deferred(lease) => deferred.add(self, Block::containing(offset), lease),
            Served::Done => cell.released(),
            Served::Refused(cause) => {
                // What a look at the block tells, the thread sees for itself if it is still there.
                if matches!(cause, TouchCause::NotMapped | TouchCause::HostMemoryFull)
                    && suspects.confirm(self, Block::containing(offset))
                {
                    self.complain(self.address(offset), access, cause);
                    self.stand_in_host(offset);
                }
                cell.released();
            }
        }
        true
    }

    fn wait_for_release(&self, offset: u64, epoch: u32) {
        if let Some(cell) = self.cells.get(ChunkIndex::containing(offset)) {
            cell.wait(epoch);
        }
    }
}
