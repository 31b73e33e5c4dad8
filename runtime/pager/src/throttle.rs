//! Keeping blocks that thrash from moving all the time: faults wait for the end of the other side's lease.
//!
//! The model finds the blocks and gives the leases; here is the clock, and those who wait: on handler threads a list
//! with a time limit for their sleep, in signal mode the faulting thread itself. All of them go on early when a launch
//! is submitted or completes, when the device is lost, and when the heap stops. Launches and prefetches never wait.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use limosa_model::thrash::{Episode, Moment};
use limosa_model::{Block, BlockSet, Cause, ChunkIndex, Extent, Side};
use limosa_os::futex;

use crate::cell::CellState;
use crate::clock::Clock;
use crate::core::Core;
use crate::counters::add;
use crate::heap::Heap;
use crate::whereabouts::Whereabouts;

/// A range of blocks that thrash or did when they were used last: the CPU and kernels use it at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thrashing {
    /// The run, by offset in the heap: of one allocation, or of blocks that small ones share.
    pub extent: Extent,
    /// Where its first allocated byte is.
    pub place: Option<Whereabouts>,
    /// Changes of sides, those of all its blocks added up.
    pub moves: u64,
    /// The first of them.
    pub since: Instant,
    /// The last of them so far.
    pub last: Instant,
}

/// When a fault that must wait is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The end, on the heap's clock in microseconds.
    end: u64,
    /// It ends earlier when the order is no longer this.
    order: u32,
}

/// The heap's clock, and its points of order.
pub(crate) struct Throttle {
    clock: Clock,
    /// Launches submitted and completed, by which CPU and GPU take turns.
    order: AtomicU32,
    /// Faults that wait for a lease to end.
    waiting: AtomicU32,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { clock: Clock::start(), order: AtomicU32::new(0), waiting: AtomicU32::new(0) }
    }
}

impl Throttle {
    /// Nanoseconds from the heap's opening to an instant.
    pub(crate) fn nanos(&self, at: Instant) -> u64 {
        self.clock.nanos(at)
    }

    fn order(&self) -> u32 {
        self.order.load(Ordering::SeqCst)
    }

    fn now(&self) -> Moment {
        Moment { micros: self.clock.micros(), order: self.order() }
    }

    /// Sleeps until the lease ends. For the faulting thread itself, in signal mode.
    pub(crate) fn sleep(&self, lease: Lease) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if let Some(left) = lease.end.checked_sub(self.clock.micros()).filter(|left| *left > 0) {
            futex::wait_for(&self.order, lease.order, Duration::from_micros(left));
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Core {
    /// A launch is about to be submitted or has completed, or nothing is to wait any more: leases end.
    pub(crate) fn ordering_point(&self) {
        self.throttle.order.fetch_add(1, Ordering::SeqCst);
        // Who waits is counted first and looks at the order then.
        if self.throttle.waiting.load(Ordering::SeqCst) > 0 {
            futex::wake_all(&self.throttle.order);
            self.ring_handlers();
        }
    }

    /// The fault that a plan serves, if it does. Asked before anything is opened: from then on the faulting thread may
    /// be anywhere.
    pub(crate) fn fault_of(&self, cause: Cause) -> Option<(Side, Moment)> {
        match cause {
            Cause::CpuFault => Some((Side::Host, self.throttle.now())),
            Cause::GpuFault => Some((Side::Device, self.throttle.now())),
            _ => None,
        }
    }

    /// A fault has brought `blocks`. Under the cell's lock.
    pub(crate) fn note_brought(&self, state: &mut CellState, (side, moment): (Side, Moment), blocks: BlockSet) {
        let new = state.thrash.brought(side, blocks, moment);
        if !new.is_empty() {
            add(&self.counters.blocks_thrashing, new.count().into());
        }
    }

    /// Has the threads that wait for the block try again: those in the kernel, and those that have posted their fault.
    fn resume(&self, side: Side, block: Block) {
        self.wake(side, block.chunk(), BlockSet::of(block.slot()));
        if let Some(cell) = self.cells.get(block.chunk()) {
            cell.released();
        }
    }

    /// The lease that a fault of `side` must respect, if the other side has the block under one.
    pub(crate) fn lease_against(&self, side: Side, slot: u32, state: &CellState) -> Option<Lease> {
        let other = if side == Side::Host { Side::Device } else { Side::Host };
        // What launches hold or what is under a move is waited for anyhow.
        let settled = state.chunk.current(other) - state.chunk.busy() - state.chunk.held();
        if !(state.thrash.thrashing() & settled).contains(slot) {
            return None;
        }
        let now = self.throttle.now();
        let end = state.thrash.lease_against(side, slot, now)?;
        add(&self.counters.faults_throttled, 1);
        if let Some(account) = state.accounts.of(slot) {
            add(&account.counters.faults_throttled, 1);
        }
        if side == Side::Host {
            // The launch may be over with nobody there to notice.
            self.reaper_bell.ring();
        }
        Some(Lease { end, order: now.order })
    }

    fn thrashing(&self) -> Vec<Thrashing> {
        let mut all: Vec<Thrashing> = Vec::new();
        for (chunk, cell) in self.cells.iter() {
            let thrash = cell.lock().thrash.clone();
            for (slot, episode) in thrash.thrashing().slots().filter_map(|slot| Some((slot, thrash.episode(slot)?))) {
                let one = self.describe(chunk, slot, episode);
                let allocation = |one: &Thrashing| self.allocations.extent_at(one.extent.start);
                let joins = |last: &&mut Thrashing| {
                    last.extent.end() == one.extent.start && allocation(last) == allocation(&one)
                };
                match all.last_mut().filter(joins) {
                    Some(last) => {
                        last.extent.len += one.extent.len;
                        last.moves += one.moves;
                        (last.since, last.last) = (last.since.min(one.since), last.last.max(one.last));
                    }
                    None => all.push(one),
                }
            }
        }
        all
    }

    fn describe(&self, chunk: ChunkIndex, slot: u32, episode: Episode) -> Thrashing {
        Thrashing {
            extent: chunk.run(slot, 1),
            place: self.first_whereabouts(chunk.run(slot, 1)),
            moves: episode.turns.into(),
            since: self.throttle.clock.at(episode.since),
            last: self.throttle.clock.at(episode.last),
        }
    }
}

impl Heap {
    /// The ranges that thrash, or did when they were used last: in ascending order, neighbouring blocks joined. What is
    /// used by one side at a time again, or freed, leaves the list.
    #[must_use]
    pub fn thrashing(&self) -> Vec<Thrashing> {
        self.core().thrashing()
    }
}

/// Blocks of which faults wait on a handler thread, at most. Further faults are not throttled but tried over and over
/// until a place is free: more threads would have to fault on different thrashing blocks at a time.
const DEFERRED_MAX: usize = 64;

/// The faults that a handler thread has put off: their threads sleep until they are woken, and fault again.
pub(crate) struct Deferred {
    side: Side,
    faults: ArrayVec<(Block, Lease), DEFERRED_MAX>,
}

impl Deferred {
    pub(crate) fn new(side: Side) -> Self {
        Self { side, faults: ArrayVec::new() }
    }

    /// Has the threads that fault on `block` sleep until the lease ends.
    pub(crate) fn add(&mut self, core: &Core, block: Block, lease: Lease) {
        if let Some(known) = self.faults.iter_mut().find(|(other, _)| *other == block) {
            known.1 = lease;
        } else if self.faults.try_push((block, lease)).is_ok() {
            core.throttle.waiting.fetch_add(1, Ordering::SeqCst);
        } else {
            core.resume(self.side, block);
        }
    }

    /// Wakes those whose lease has ended. Gives how long the next one takes.
    pub(crate) fn wake_due(&mut self, core: &Core) -> Option<Duration> {
        if self.faults.is_empty() {
            return None;
        }
        let (now, side) = (core.throttle.now(), self.side);
        let before = self.faults.len();
        self.faults.retain(|(block, lease)| {
            let waits = lease.end > now.micros && lease.order == now.order;
            if !waits {
                core.resume(side, *block);
            }
            waits
        });
        let woken = u32::try_from(before - self.faults.len()).unwrap_or(0);
        core.throttle.waiting.fetch_sub(woken, Ordering::SeqCst);
        let next = self.faults.iter().map(|(_, lease)| lease.end).min()?;
        Some(Duration::from_micros(next.saturating_sub(now.micros)))
    }
}
