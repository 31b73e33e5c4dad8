//! Whose turn it is: which of a heap's queued launches are admitted now, and which wait.
//!
//! A launch is admitted when what it waits for is over, when no launch in flight holds its blocks against it, and when
//! its set fits into the budget, and into each allocation's device limit (`limit`), beside theirs; in the order of
//! submission, except that
//! - one that waits for others or for a pin lets those behind it pass that are on other queues, and on its own if that
//!   is out of order;
//! - one on an out-of-order queue that waits for holds or room lets launches behind it on that queue pass, but not more
//!   than [`PASSES_MAX`], or it might wait for ever.
//!
//! What waits for something that failed fails. That a launch before it on its queue failed is no reason.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use limosa_gpu::{Bound, GpuError, Queue};
use limosa_model::policy::{EvictionPolicy, LaunchOrder};
use limosa_model::{BLOCK, BlockSet, CHUNK, DeclaredSets, Side};

use crate::cell::Cell;
use crate::config::DeviceClass;
use crate::core::Core;
use crate::counters::add;
use crate::error::PagerError;
use crate::record::Record;
use crate::scheduler::{Pending, Queued, Running, State, Task, Work};
use crate::stream::Boarded;
use crate::succession::Succession;
use crate::tally::Tallied;

/// The part of the budget that launches leave to the faults of one that may touch what it does not declare, and the most
/// bytes of it: two chunks, so that it can copy from one to another.
pub(crate) const FAULT_SHARE: u64 = 8;
const FAULT_RESERVE_MAX: u64 = 2 * CHUNK;

/// How many launches may be given room before one that was submitted earlier on their queue.
const PASSES_MAX: u32 = 64;

/// Whether others' completion can help against it.
fn is_crowded(error: &PagerError) -> bool {
    matches!(
        error,
        PagerError::DeviceMemoryFull { .. }
            | PagerError::DeviceLimitFull { .. }
            | PagerError::TooManyBindings { .. }
            | PagerError::Gpu(GpuError::OutOfMemory { .. })
    )
}

/// What one look at the queue has found so far.
#[derive(Default)]
struct Look {
    /// Queues of which nothing more is to be admitted.
    waiting: Vec<Arc<Queue>>,
    /// The queue of those that wait for holds or room, by their places: only launches of that queue may pass them.
    passed: Option<(Arc<Queue>, Vec<usize>)>,
}

impl Look {
    fn is_behind(&self, queue: &Arc<Queue>) -> bool {
        let others = self.passed.as_ref().is_some_and(|(other, _)| !Arc::ptr_eq(other, queue));
        others || self.waiting.iter().any(|other| Arc::ptr_eq(other, queue))
    }
}

/// What to do with one that is queued.
enum Turn {
    /// It waits, and so does what is behind it on its queue, if its place there counts.
    Waits,
    /// It waits for what failed.
    Fails(PagerError),
    Comes,
}

impl Core {
    /// Gives whether the device turned out to be lost, which the caller must note without the lock.
    #[must_use]
    pub(crate) fn admit_ready(&self, state: &mut State) -> bool {
        self.end_cancelled(state);
        let (mut lost, mut look, mut at) = (false, Look::default(), 0);
        while at < state.queued.len() {
            match self.turn(state, at, &look) {
                Turn::Waits => {
                    let pending = &state.queued[at].pending;
                    if pending.stops() || pending.queue.is_ordered() {
                        look.waiting.push(Arc::clone(&pending.queue));
                    }
                    at += 1;
                }
                Turn::Fails(error) => {
                    let Some(Queued { order, pending, .. }) = state.queued.remove(at) else { break };
                    self.vram.lock().policy.settled(order);
                    self.fail(state, pending, error);
                }
                Turn::Comes if !state.queued[at].pending.work.holds() => self.begin(state, at),
                Turn::Comes => match self.admit(state, at) {
                    Some(is_lost) => {
                        lost |= is_lost;
                        let places = look.passed.iter().flat_map(|(_, places)| places);
                        places.for_each(|place| state.queued[*place].passed_by += 1);
                    }
                    // Whoever comes later must not overtake a large set, or it would never be admitted.
                    None if state.queued[at].pending.queue.is_ordered() || state.queued[at].passed_by >= PASSES_MAX => {
                        break;
                    }
                    None => {
                        let queue = Arc::clone(&state.queued[at].pending.queue);
                        look.passed.get_or_insert((queue, Vec::new())).1.push(at);
                        at += 1;
                    }
                },
            }
        }
        lost
    }

    /// Transfers that were cancelled need not wait for their turn.
    fn end_cancelled(&self, state: &mut State) {
        if !self.pumps.take_cancelled() {
            return;
        }
        let cancelled =
            |queued: &Queued| matches!(&queued.pending.work, Work::Stream(streaming) if streaming.is_cancelled());
        while let Some(at) = state.queued.iter().position(cancelled) {
            let Some(Queued { order, pending, .. }) = state.queued.remove(at) else { break };
            let Work::Stream(streaming) = &pending.work else { break };
            let error = streaming.cancelled_before(&pending.record);
            self.vram.lock().policy.settled(order);
            self.fail(state, pending, error);
        }
    }

    fn turn(&self, state: &State, at: usize, look: &Look) -> Turn {
        let pending = &state.queued[at].pending;
        let Pending { record, queue, after, behind, everything, work } = pending;
        let on_queue = |task: &Task| Arc::ptr_eq(&task.queue, queue);
        let not_next = look.is_behind(queue) || queue.is_ordered() && state.tasks.iter().any(on_queue);
        let awaits = after.iter().chain(behind).any(|other| !other.is_over());
        if not_next || awaits || pending.drains() && !is_first(state, at) {
            return Turn::Waits;
        }
        let failed = after.iter().find_map(|other| Some((other.told(), other.failed()?)));
        if let Some((dependency, reason)) = failed {
            return Turn::Fails(PagerError::AfterFailed { what: record.told(), dependency, reason });
        }
        if *everything && self.class == DeviceClass::Declared {
            record.declare(self.whole_heap());
        }
        if let Work::Stream(streaming) = work {
            if streaming.is_cancelled() {
                return Turn::Fails(streaming.cancelled_before(record));
            }
            record.declare(self.wants_of(streaming).0);
        }
        let pinned = work.holds() && self.touches_pinned(&record.sets());
        if pinned { Turn::Waits } else { Turn::Comes }
    }

    /// Begins what the host is to do.
    fn begin(&self, state: &mut State, at: usize) {
        let Some(Queued { order, pending: Pending { record, queue, work, .. }, .. }) = state.queued.remove(at) else {
            return;
        };
        self.vram.lock().policy.settled(order);
        match work {
            Work::Task(job) => {
                state.tasks.push(Task { order, record, queue });
                self.notifier.hand_over([job]);
            }
            Work::Marker(_) | Work::Kernel(_) | Work::Stream(_) => self.notifier.hand_over(record.done()),
        }
    }

    /// Admits a launch if it finds its room: then it has left the queue, and this gives whether the device turned out to
    /// be lost.
    fn admit(&self, state: &mut State, at: usize) -> Option<bool> {
        if let Work::Stream(_) = &state.queued[at].pending.work {
            return self.admit_transfer(state, at);
        }
        let Pending { record, queue, everything, .. } = &state.queued[at].pending;
        let (record, everything, sets) = (Arc::clone(record), *everything, record.sets());
        // Only what holds all of the heap grows after it was submitted.
        let possible = self.check_set(&record);
        let fits = self.fits(state, &record);
        let alone = !self.config.check || state.running.is_empty();
        let apart = self.can_hold(&sets, &Succession::Nothing);
        // What must move comes when it is next: until then the policy learns more, and others keep their room.
        let succeeds = !apart && self.is_current(&sets);
        let before = if succeeds { Succession::on(queue, state) } else { Succession::Nothing };
        let admissible = alone && fits && (apart || succeeds && self.can_hold(&sets, &before));
        if !admissible && possible.is_ok() && !self.lost() {
            return None;
        }
        let holds = possible.and_then(|()| self.hold_all(&record, everything, &before));
        if holds.as_ref().is_err_and(is_crowded) && state.is_at_work() {
            // The driver has less than the budget, or maps less: what runs will leave room.
            return None;
        }
        let Queued { order, pending, .. } = state.queued.remove(at)?;
        let fresh = holds.as_ref().map_or(0, |holds| holds.fresh);
        let admitted = match (holds, pending) {
            (Ok(holds), Pending { queue, work: Work::Kernel(submission), .. }) => {
                self.send(state, &record, &queue, submission, holds)
            }
            (holds, pending) => {
                let error = holds.err().unwrap_or_else(|| GpuError::DeviceLost.into());
                let lost = matches!(error, PagerError::Gpu(GpuError::DeviceLost));
                self.vram.lock().policy.settled(order);
                self.fail(state, pending, error);
                return Some(lost);
            }
        };
        Some(self.enter(state, order, &record, admitted.map(|bound| (bound, fresh))))
    }

    /// The same of a transfer between files and memory, which goes to the pump.
    fn admit_transfer(&self, state: &mut State, at: usize) -> Option<bool> {
        let Pending { record, work, .. } = &mut state.queued[at].pending;
        let Work::Stream(streaming) = work else { return None };
        let record = Arc::clone(record);
        let (mut sets, mut pins) = self.wants_of(streaming);
        let mut possible = self.check_sets_for_transfer(&sets);
        // What it writes may be on the device by now, and leave no room for what it reads.
        if let Some(refused) = possible.as_ref().err().filter(|_| streaming.may_be_displaced()) {
            streaming.displace(refused.to_string());
            (sets, pins) = self.wants_of(streaming);
            possible = self.check_sets_for_transfer(&sets);
        }
        record.declare(sets);
        let Work::Stream(streaming) = &state.queued[at].pending.work else { return None };
        let apart = self.can_hold(&record.sets(), &Succession::Nothing) && self.are_unheld(&pins);
        if !(self.fits(state, &record) && apart) && possible.is_ok() && !self.lost() {
            return None;
        }
        let seats = possible.and_then(|()| self.take_seats(&record, streaming, pins));
        if seats.as_ref().is_err_and(is_crowded) && state.is_at_work() {
            return None;
        }
        let Queued { order, pending, .. } = state.queued.remove(at)?;
        self.vram.lock().policy.settled(order);
        match (seats, pending) {
            (Ok(seats), Pending { queue, work: Work::Stream(streaming), .. }) => {
                state.held_blocks += seats.fresh();
                state.tasks.push(Task { order, record: Arc::clone(&record), queue });
                self.pumps.board(Boarded::new(record, *streaming, seats));
                Some(false)
            }
            (seats, pending) => {
                let error = seats.err().unwrap_or_else(|| GpuError::DeviceLost.into());
                let lost = matches!(error, PagerError::Gpu(GpuError::DeviceLost));
                self.fail(state, pending, error);
                Some(lost)
            }
        }
    }

    /// Notes what became of a launch that was to be sent. Gives whether the device turned out to be lost.
    fn enter(
        &self,
        state: &mut State,
        order: LaunchOrder,
        record: &Arc<Record>,
        admitted: Result<(Bound, u64), PagerError>,
    ) -> bool {
        // Only now: until all of its blocks are held, the policy must know that they are needed next.
        let mut vram = self.vram.lock();
        if admitted.is_ok() {
            record.sets().chunks().for_each(|(chunk, _)| vram.policy.used(chunk));
        }
        vram.policy.settled(order);
        drop(vram);
        match admitted {
            Ok(((timeline, ticket), fresh)) => {
                state.held_blocks += fresh;
                state.admitted += 1;
                let place = state.admitted;
                state.running.push(Running {
                    order,
                    place,
                    record: Arc::clone(record),
                    timeline: Arc::clone(&timeline),
                    ticket,
                });
                add(&self.counters.launches, 1);
                record.tallied(Tallied::admitted);
                let told = record.submitted(timeline, ticket);
                if self.reaper_watches.load(Ordering::SeqCst) {
                    self.doorbell.ring();
                }
                if told {
                    // Nobody may be waiting who would find that it is over.
                    self.reaper_bell.ring();
                }
                false
            }
            Err(error) => {
                let lost = matches!(error, PagerError::Gpu(GpuError::DeviceLost));
                self.notifier.hand_over(record.fail(error));
                lost
            }
        }
    }

    /// Whether the launch's set fits into the budget beside what is held. A kernel that faults needs room that nobody holds:
    /// as long as one may run, some is kept free.
    fn fits(&self, state: &State, record: &Record) -> bool {
        let set = record.sets().blocks() * BLOCK;
        if set > self.vram.budget() {
            // It must be tried, and fail by name if the driver still has no more.
            self.vram.grow_again();
        }
        let budget = self.vram.budget();
        let taken = state.held_blocks * BLOCK + set;
        let reserve = (budget / FAULT_SHARE).min(FAULT_RESERVE_MAX);
        let limited = self.allocations.any_limited();
        // In most cases it does not matter who runs.
        if taken + reserve <= budget && !limited {
            return true;
        }
        let taken = taken - self.held_of(&record.sets()) * BLOCK;
        // Alone on the device, a launch may take all of it.
        let faults = record.may_fault || state.running.iter().any(|other| other.record.may_fault);
        let shared = faults && state.is_at_work();
        taken + if shared { reserve } else { 0 } <= budget && (!limited || self.fits_limits(record, shared))
    }

    /// How many of the blocks are held already.
    fn held_of(&self, sets: &DeclaredSets) -> u64 {
        let held = |cell: &Cell, own: BlockSet| u64::from((cell.lock().chunk.held() & own).count());
        sets.chunks().map(|(chunk, sets)| self.cells.get(chunk).map_or(0, |cell| held(cell, sets.all()))).sum()
    }

    /// Whether anything queued waits, as far as can be told, for what only the application does: an event of its own, or
    /// of another context, the other end of a pipe, or the end of a pin.
    pub(crate) fn awaits_application(&self) -> bool {
        let state = self.scheduler.lock();
        let outside = |pending: &Pending| {
            let mut all = pending.after.iter().chain(&pending.behind).chain([&pending.record]);
            all.any(|other| other.is_outside() && !other.is_over())
        };
        let mut queued = state.queued.iter().map(|queued| &queued.pending);
        state.tasks.iter().any(|task| task.record.is_outside())
            || queued.any(|pending| outside(pending) || self.touches_pinned(&pending.record.sets()))
    }

    /// Whether all of the blocks' data is on the device.
    fn is_current(&self, sets: &DeclaredSets) -> bool {
        let there = |cell: &Cell, blocks: BlockSet| cell.lock().chunk.current(Side::Device).covers(blocks);
        sets.chunks().all(|(chunk, sets)| self.cells.get(chunk).is_some_and(|cell| there(cell, sets.all())))
    }

    fn can_hold(&self, sets: &DeclaredSets, before: &Succession) -> bool {
        sets.chunks().all(|(chunk, sets)| {
            let holdable = |cell: &Cell| {
                let blocks = cell.lock();
                // Where somebody waits, holds must end some time.
                let own = if cell.has_sleepers() { BlockSet::EMPTY } else { before.own(chunk) - blocks.parked.host };
                blocks.chunk.can_hold(sets.reads, sets.writes | sets.overwrites, own)
            };
            self.cells.get(chunk).is_none_or(holdable)
        })
    }
}

/// Whether all before it on its queue is over.
fn is_first(state: &State, at: usize) -> bool {
    let Queued { order, pending: Pending { queue, .. }, .. } = &state.queued[at];
    // On an out-of-order queue later ones may have passed.
    let waits = state.queued.iter().take(at).any(|other| Arc::ptr_eq(&other.pending.queue, queue));
    let earlier = |other: &Running| other.order < *order && Arc::ptr_eq(&other.timeline, queue.timeline());
    let task = |other: &Task| other.order < *order && Arc::ptr_eq(&other.queue, queue);
    !waits && !state.running.iter().any(earlier) && !state.tasks.iter().any(task)
}
