//! Serving one fault, of either side, on whatever thread it is served: growth, the decision, the move, the streams.
//!
//! It never waits: a fault on a block under a move is parked and served again when the block is released. It does
//! *not* read faults from the kernel.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use limosa_gpu::GpuError;

use crate::allocation::Account;
use crate::cell::{Cell, CellState};
use crate::core::Core;
use crate::counters::add;
use crate::error::{PagerError, TouchCause};
use crate::limit::Limit;
use crate::side::SideMemory;
use crate::throttle::Lease;
use limosa_model::{Access, Block, BlockSet, Cause, Refusal, Side, Verdict, growth};
use limosa_os::OsError;
use limosa_os::copy::Caching;

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// The access may be tried again.
    Done,
    /// Parked until the chunk's epoch is no longer this.
    Parked(u32),
    /// To be tried again when this ends: the other side is at work on the block.
    Deferred(Lease),
    /// It cannot be served.
    Refused(TouchCause),
}

impl Core {
    /// Serves a touch of heap offset `offset`.
    pub(crate) fn serve(&self, side: Side, offset: u64, access: Access) -> Served {
        self.count_fault(side, access);
        if side == Side::Device && self.lost() {
            return Served::Refused(TouchCause::Poisoned);
        }
        let block = Block::containing(offset);
        let chunk = block.chunk();
        let Some(cell) = self.cells.get(chunk) else { return Served::Refused(TouchCause::NotAllocated) };
        let mut state = cell.lock();
        if let Some(account) = state.accounts.of(block.slot()) {
            account.count_fault(side, access);
        }
        if self.reopen(side, block, access, &state) {
            return Served::Done;
        }
        if let Some(lease) = self.lease_against(side, block.slot(), &state) {
            return Served::Deferred(lease);
        }
        let depth = self.stream_entering(side, block, &state);
        let window = self.window(side, block.slot(), access, &state, depth > 0);
        let verdict = self.decide(chunk, &mut state, |blocks| blocks.fault(side, block.slot(), window, access));
        match verdict {
            Verdict::Go(mut plan) => {
                drop(state);
                if self.config.check && side == Side::Device && access == Access::Read {
                    plan.withhold_writing(Side::Device);
                }
                // A kernel reads what it faulted on from many cores, a CPU thread from its own.
                let caching = if side == Side::Host { Caching::Keep } else { Caching::Bypass };
                match self.carry_out(chunk, cell, &plan, caching) {
                    Ok(()) => {
                        self.continue_stream(side, block, cell, depth);
                        Served::Done
                    }
                    // The block is as it was: whoever waits for it faults again, when others are further on.
                    Err(PagerError::DeviceMemoryBusy) => {
                        self.wake(side, chunk, BlockSet::of(block.slot()));
                        Served::Done
                    }
                    Err(error) if error.is_device_full() => self.try_with_less(cell, block, access),
                    Err(PagerError::Gpu(GpuError::DeviceLost)) => self.await_loss(side, block, cell),
                    Err(PagerError::Os(OsError::OutOfMemory { .. })) if side == Side::Host => {
                        Served::Refused(TouchCause::HostMemoryFull)
                    }
                    Err(_) => Served::Refused(TouchCause::NotMapped),
                }
            }
            Verdict::Done => {
                drop(state);
                self.wake(side, chunk, BlockSet::of(block.slot()));
                Served::Done
            }
            Verdict::Wait(_) => {
                *state.parked.get_mut(side) |= BlockSet::of(block.slot());
                add(&self.counters.faults_parked, 1);
                if state.chunk.held().contains(block.slot()) {
                    // Nobody may be waiting for the launch that holds it.
                    self.reaper_bell.ring();
                }
                Served::Parked(cell.epoch())
            }
            Verdict::Refuse(Refusal::Unallocated, _) => Served::Refused(TouchCause::NotAllocated),
            Verdict::Refuse(Refusal::Poisoned, _) => Served::Refused(TouchCause::Poisoned),
        }
    }

    /// The driver said that the device is lost: parks the thread until that has been dealt with, which is not done here,
    /// since it waits for moves.
    fn await_loss(&self, side: Side, block: Block, cell: &Cell) -> Served {
        let mut state = cell.lock();
        if self.lost() {
            drop(state);
            self.wake(side, block.chunk(), BlockSet::of(block.slot()));
            return Served::Done;
        }
        *state.parked.get_mut(side) |= BlockSet::of(block.slot());
        self.losing.store(true, Ordering::SeqCst);
        // Only copies by the driver can tell of a loss, and those are never made in signal mode.
        self.call_reaper();
        Served::Parked(cell.epoch())
    }

    /// There was no room for what growth would have brought along: tries without it, and with the room that completed
    /// launches have left.
    fn try_with_less(&self, cell: &Cell, block: Block, access: Access) -> Served {
        let (chunk, demand) = (block.chunk(), BlockSet::of(block.slot()));
        let mut state = cell.lock();
        let verdict = self.decide(chunk, &mut state, |blocks| blocks.fault(Side::Device, block.slot(), demand, access));
        drop(state);
        if let Verdict::Go(mut plan) = verdict {
            if self.config.check && access == Access::Read {
                plan.withhold_writing(Side::Device);
            }
            match self.carry_out(chunk, cell, &plan, Caching::Bypass) {
                Err(error) if error.is_device_full() => {
                    if !self.release_without_waiting() {
                        return Served::Refused(TouchCause::of_full(&error));
                    }
                }
                Ok(()) | Err(PagerError::DeviceMemoryBusy) => {}
                Err(_) => return Served::Refused(TouchCause::NotMapped),
            }
        }
        // Served, or to be tried again: another fault tells.
        self.wake(Side::Device, chunk, demand);
        Served::Done
    }

    /// A fault on what is open already: two threads faulted at once, or the kernel took pages away. Gives whether it
    /// was one and is served.
    fn reopen(&self, side: Side, block: Block, access: Access, state: &CellState) -> bool {
        let slot = block.slot();
        let writable = state.chunk.writable(side).contains(slot);
        let satisfied = match access {
            Access::Read => state.chunk.open(side).contains(slot),
            Access::Write => writable,
        };
        // In check mode what counts as writable may be mapped for reading only.
        if !satisfied || state.chunk.busy().contains(slot) || self.config.check && side == Side::Device {
            return false;
        }
        let rights = if writable { Access::Write } else { Access::Read };
        // Under the lock, so that no plan closes the block meanwhile.
        let reopen = |memory: &SideMemory| memory.window.reopen(block.chunk().run(slot, 1), rights).is_ok();
        self.memory(side).is_some_and(reopen)
    }

    fn window(&self, side: Side, slot: u32, access: Access, state: &CellState, streaming: bool) -> BlockSet {
        let narrow = |account: &Arc<Account>| account.limit.as_ref().is_some_and(Limit::is_narrow);
        if side == Side::Device && (self.config.check || state.accounts.of(slot).is_some_and(narrow)) {
            return BlockSet::of(slot);
        }
        let alone = state.chunk.advice().alone(side, access) | state.thrash.thrashing();
        let company = growth::company(slot, state.chunk.allocation_of(slot), alone);
        growth::window(slot, state.chunk.ready(side, access), company, streaming)
    }

    /// The depth of the stream that enters the chunk with this block; 0 if none does.
    fn stream_entering(&self, side: Side, block: Block, state: &CellState) -> u32 {
        if block.slot() != 0 || !state.chunk.continues_previous() {
            return 0;
        }
        let previous = block.chunk().previous().and_then(|chunk| self.cells.get(chunk));
        previous.map_or(0, |cell| cell.stream.get(side).load(Ordering::Relaxed))
    }

    /// Notes that a stream has come through the chunk, and has what lies ahead of it read.
    fn continue_stream(&self, side: Side, block: Block, cell: &Cell, depth: u32) {
        if !cell.lock().chunk.streamed_to_end(side) {
            return;
        }
        let deeper = growth::read_ahead(depth);
        cell.stream.get(side).store(deeper, Ordering::Relaxed);
        if side == Side::Device || depth == 0 {
            return;
        }
        let mut chunk = block.chunk();
        for _ in 0..deeper {
            chunk = chunk.next();
            if self.read_ahead.push(chunk).is_err() {
                break;
            }
        }
        self.host.bell.ring();
    }

    /// Brings one chunk to the host ahead of a stream, if it continues the allocation of the chunk before and
    /// nothing is in the way.
    pub(crate) fn read_ahead_one(&self) -> bool {
        let Some(chunk) = self.read_ahead.pop() else { return false };
        let (Some(cell), Some(before)) =
            (self.cells.get(chunk), chunk.previous().and_then(|previous| self.cells.get(previous)))
        else {
            return true;
        };
        let depth = before.stream.host.load(Ordering::Relaxed);
        let mut state = cell.lock();
        if depth == 0 || !state.chunk.continues_previous() {
            return true;
        }
        let wanted = state.chunk.ready(Side::Device, Access::Read) - state.chunk.ready(Side::Host, Access::Read);
        let wanted = wanted - state.chunk.advice().alone(Side::Host, Access::Read) - state.thrash.thrashing();
        if !wanted.contains(0) || state.chunk.busy().contains(0) {
            return true;
        }
        let verdict = self.decide(chunk, &mut state, |blocks| blocks.fault(Side::Host, 0, wanted, Access::Read));
        drop(state);
        if let Verdict::Go(mut plan) = verdict {
            plan.cause = Cause::ReadAhead;
            if self.carry_out(chunk, cell, &plan, Caching::Bypass).is_ok() {
                add(&self.counters.chunks_read_ahead, 1);
                cell.stream.host.store(depth, Ordering::Relaxed);
            }
        }
        true
    }

    fn count_fault(&self, side: Side, access: Access) {
        if side == Side::Device {
            self.launches.note_fault();
        }
        let counter = match (side, access) {
            (Side::Host, Access::Read) => &self.counters.cpu_read_faults,
            (Side::Host, Access::Write) => &self.counters.cpu_write_faults,
            (Side::Device, Access::Read) => &self.counters.gpu_read_faults,
            (Side::Device, Access::Write) => &self.counters.gpu_write_faults,
        };
        add(counter, 1);
    }
}
