//! Admission: when a submitted launch gets its blocks and goes to the device, and when it gives them up.
//!
//! A launch is admitted when what it waits for is done, when no launch in flight holds its blocks against it, and
//! when its set fits into the budget beside theirs; in the order of submission, except that a launch that waits for
//! others lets those behind it pass. It then takes all of its blocks at once and holds them until it completes. So a
//! launch that holds anything is running, and a running launch waits for nobody: there is no cycle. The scheduler has
//! no thread of its own; whoever submits, waits, or is rung as the reaper moves it on.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limosa_gpu::{GpuError, Queue, Refused, Submission, Ticket, Timeline};
use limosa_model::policy::{EvictionPolicy, LaunchOrder};
use limosa_model::{Access, BLOCK, BlockSet, CHUNK, ChunkIndex, ChunkSets, DeclaredSets, Extent, Verdict};
use limosa_os::inject::{Defect, seeded};

use crate::check::Declared;
use crate::config::DeviceClass;
use crate::core::Core;
use crate::counters::add;
use crate::error::PagerError;
use crate::record::{Phase, Record, has_reached};

/// The part of the budget that launches leave to the faults of one that may touch what it does not declare, and the most
/// bytes of it: two chunks, so that it can copy from one to another.
const FAULT_SHARE: u64 = 8;
const FAULT_RESERVE_MAX: u64 = 2 * CHUNK;

fn own_sets(blocks: BlockSet, access: Access, overwrite: bool) -> ChunkSets {
    let none = ChunkSets::default();
    match (access, overwrite) {
        (Access::Read, _) => ChunkSets { reads: blocks, ..none },
        (Access::Write, false) => ChunkSets { writes: blocks, ..none },
        (Access::Write, true) => ChunkSets { overwrites: blocks, ..none },
    }
}

/// A launch that has not been admitted.
pub(crate) struct Pending {
    pub(crate) record: Arc<Record>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) submission: Submission,
    /// Launches that must be done before.
    pub(crate) after: Vec<Arc<Record>>,
    pub(crate) everything: bool,
}

struct Queued {
    order: LaunchOrder,
    pending: Pending,
}

/// What a launch has taken, before it is on the device.
struct Holds {
    held: Vec<(ChunkIndex, ChunkSets)>,
    /// What it must wait for on the device.
    published: Option<(Arc<Timeline>, Ticket)>,
}

/// Whether others' completion can help against it.
fn is_crowded(error: &PagerError) -> bool {
    matches!(
        error,
        PagerError::DeviceMemoryFull { .. }
            | PagerError::TooManyBindings { .. }
            | PagerError::Gpu(GpuError::OutOfMemory { .. })
    )
}

#[derive(Default)]
struct State {
    submitted: u64,
    admitted: u64,
    queued: VecDeque<Queued>,
    running: Vec<(Arc<Record>, Arc<Timeline>, Ticket)>,
    held_blocks: u64,
    /// What launches kept that never ran, for an application's thread to drop: it may do anything then.
    discarded: Vec<Box<dyn Any + Send>>,
}

/// The launches of a heap, in order.
#[derive(Default)]
pub(crate) struct Scheduler {
    /// Comes before the VRAM pool's lock and every cell's.
    state: Mutex<State>,
}

impl Scheduler {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The launches on the device, to be waited for.
    pub(crate) fn running(&self) -> Vec<(Arc<Timeline>, Ticket)> {
        self.lock().running.iter().map(|(_, timeline, ticket)| (Arc::clone(timeline), *ticket)).collect()
    }

    /// The number of launches admitted so far, and whether any is on the device.
    pub(crate) fn admitted(&self) -> (u64, bool) {
        let state = self.lock();
        (state.admitted, !state.running.is_empty())
    }

    /// The launches of a queue that are not on the device yet.
    pub(crate) fn queued_on(&self, queue: &Arc<Queue>) -> Vec<Arc<Record>> {
        let state = self.lock();
        let own = state.queued.iter().filter(|queued| Arc::ptr_eq(&queued.pending.queue, queue));
        own.map(|queued| Arc::clone(&queued.pending.record)).collect()
    }
}

impl Core {
    /// Takes a launch in, and admits what can be admitted.
    ///
    /// # Errors
    /// [`PagerError::SetTooLarge`]: it could never be admitted.
    pub(crate) fn submit(&self, pending: Pending) -> Result<(), PagerError> {
        let (asked, budget) = (pending.record.sets().blocks() * BLOCK, self.vram.asked());
        if asked > budget {
            return Err(PagerError::SetTooLarge { kernel: pending.record.name.clone(), asked, budget });
        }
        let mut state = self.scheduler.lock();
        if self.lost() {
            // Whoever lost it has failed what was queued before.
            return Err(GpuError::DeviceLost.into());
        }
        self.release_completed(&mut state);
        let order = LaunchOrder(state.submitted);
        state.submitted += 1;
        let record = Arc::clone(&pending.record);
        // The most common launch, for which nothing must make room: the policy need not know before.
        let at_once = state.queued.is_empty() && self.is_resident(&record.sets());
        if !at_once {
            self.declare_next(order, &record);
        }
        state.queued.push_back(Queued { order, pending });
        let lost = self.admit_ready(&mut state);
        if at_once && !state.queued.is_empty() {
            self.declare_next(order, &record);
        }
        if !state.queued.is_empty() {
            // Nobody may be waiting who would move it on.
            self.call_reaper();
        }
        drop(state);
        self.note_loss(lost);
        Ok(())
    }

    /// Tells the policy what the launch will need.
    fn declare_next(&self, order: LaunchOrder, record: &Record) {
        let chunks: Vec<ChunkIndex> = record.sets().chunks().map(|(chunk, _)| chunk).collect();
        self.vram.lock().policy.declared(order, &chunks);
    }

    /// Whether all of the blocks have frames.
    fn is_resident(&self, sets: &DeclaredSets) -> bool {
        sets.chunks().all(|(chunk, sets)| self.cells.get(chunk).is_some_and(|cell| cell.frames().covers(sets.all())))
    }

    fn note_loss(&self, lost: bool) {
        if lost && !self.lost() {
            self.lose_device();
        }
    }

    /// Gives up what completed launches hold, and admits what can be admitted now.
    pub(crate) fn settle(&self) {
        let mut state = self.scheduler.lock();
        self.release_completed(&mut state);
        let lost = self.admit_ready(&mut state);
        drop(state);
        self.note_loss(lost);
    }

    /// Gives up what completed launches hold, without waiting for anybody. Gives whether it is worth trying again to
    /// find room. For fault handlers: who admits a launch may be waiting for a move of theirs.
    pub(crate) fn release_without_waiting(&self) -> bool {
        let Ok(mut state) = self.scheduler.state.try_lock() else { return true };
        let before = state.held_blocks;
        self.release_completed(&mut state);
        if !state.queued.is_empty() {
            self.call_reaper();
        }
        state.held_blocks < before
    }

    fn release_completed(&self, state: &mut State) {
        let done = |(_, timeline, ticket): &(Arc<Record>, Arc<Timeline>, Ticket)| has_reached(timeline, *ticket);
        let (finished, running): (Vec<_>, _) = std::mem::take(&mut state.running).into_iter().partition(done);
        state.running = running;
        if !finished.is_empty() {
            self.ordering_point();
        }
        for (record, ..) in finished {
            let sets = record.sets();
            state.held_blocks -= sets.blocks();
            for (chunk, sets) in sets.chunks() {
                self.release_sets(chunk, sets);
            }
        }
    }

    fn release_sets(&self, chunk: ChunkIndex, sets: ChunkSets) {
        // A lost device has taken the holds with it.
        let nothing_held = self.lost() || seeded(Defect::SkipHold);
        let (Some(cell), false) = (self.cells.get(chunk), nothing_held) else { return };
        let mut state = cell.lock();
        state.chunk.release(sets.reads, Access::Read);
        state.chunk.release(sets.writes | sets.overwrites, Access::Write);
        self.release(chunk, cell, state, sets.all());
    }

    /// Gives whether the device turned out to be lost, which the caller must note without the lock.
    #[must_use]
    fn admit_ready(&self, state: &mut State) -> bool {
        let mut lost = false;
        let mut waiting: Vec<Arc<Queue>> = Vec::new();
        let mut at = 0;
        while at < state.queued.len() {
            let Pending { record, queue, after, everything, .. } = &state.queued[at].pending;
            if *everything && self.class == DeviceClass::Declared {
                record.declare(self.whole_heap());
            }
            let sets = record.sets();
            let behind = waiting.iter().any(|other| Arc::ptr_eq(other, queue));
            if behind || !after.iter().all(|other| other.is_over()) || self.touches_pinned(&sets) {
                waiting.push(Arc::clone(queue));
                at += 1;
                continue;
            }
            // Only what holds all of the heap grows after it was submitted.
            let asked = sets.blocks() * BLOCK;
            let hopeless = asked > self.vram.asked();
            let fits = self.fits(state, record);
            let alone = !self.config.check || state.running.is_empty();
            let admissible = alone && fits && self.can_hold(&sets);
            // Whoever comes later must not overtake a large set, or it would never be admitted.
            if !admissible && !hopeless && !self.lost() {
                break;
            }
            let (record, everything) = (Arc::clone(record), *everything);
            let holds = if hopeless {
                Err(PagerError::SetTooLarge { kernel: record.name.clone(), asked, budget: self.vram.asked() })
            } else {
                self.hold_all(&record, everything)
            };
            if holds.as_ref().is_err_and(is_crowded) && !state.running.is_empty() {
                // The driver has less than the budget, or maps less: what runs will leave room.
                break;
            }
            let Some(Queued { order, pending }) = state.queued.remove(at) else { break };
            let admitted = match holds {
                Ok(holds) => self.send(pending, holds, &mut state.discarded),
                Err(error) => {
                    state.discarded.push(pending.submission.keep);
                    Err(error)
                }
            };
            lost |= self.enter(state, order, &record, admitted);
        }
        lost
    }

    /// Notes what became of a launch that has left the queue. Gives whether the device turned out to be lost.
    fn enter(
        &self,
        state: &mut State,
        order: LaunchOrder,
        record: &Arc<Record>,
        admitted: Result<(Arc<Timeline>, Ticket), PagerError>,
    ) -> bool {
        // Only now: until all of its blocks are held, the policy must know that they are needed next.
        let mut vram = self.vram.lock();
        if admitted.is_ok() {
            record.sets().chunks().for_each(|(chunk, _)| vram.policy.used(chunk));
        }
        vram.policy.settled(order);
        drop(vram);
        match admitted {
            Ok((timeline, ticket)) => {
                state.held_blocks += record.sets().blocks();
                state.admitted += 1;
                state.running.push((Arc::clone(record), Arc::clone(&timeline), ticket));
                add(&self.counters.launches, 1);
                if self.reaper_watches.load(Ordering::SeqCst) {
                    self.doorbell.ring();
                }
                record.enter(Phase::Submitted(timeline, ticket));
                false
            }
            Err(error) => {
                let lost = matches!(error, PagerError::Gpu(GpuError::DeviceLost));
                record.fail(error);
                lost
            }
        }
    }

    /// Whether the launch's set fits into the budget beside what is held. A kernel that faults needs room that nobody holds:
    /// as long as one may run, some is kept free.
    fn fits(&self, state: &State, record: &Record) -> bool {
        let faults = record.may_fault || state.running.iter().any(|(other, ..)| other.may_fault);
        let set = record.sets().blocks() * BLOCK;
        if set > self.vram.budget() {
            // It must be tried, and fail by name if the driver still has no more.
            self.vram.grow_again();
        }
        let budget = self.vram.budget();
        // Alone on the device, a launch may take all of it.
        let reserve =
            if faults && !state.running.is_empty() { (budget / FAULT_SHARE).min(FAULT_RESERVE_MAX) } else { 0 };
        state.held_blocks * BLOCK + set + reserve <= budget
    }

    /// Whether some of the blocks are pinned: the launch then waits as for another launch, and lets others pass.
    fn touches_pinned(&self, sets: &DeclaredSets) -> bool {
        sets.chunks().any(|(chunk, sets)| {
            let pinned = |cell: &crate::cell::Cell| !(cell.lock().chunk.pinned() & sets.all()).is_empty();
            self.cells.get(chunk).is_some_and(pinned)
        })
    }

    /// Makes the CPU the owner of `extent` and pins it. Under the scheduler's lock, so that no admission is half-way.
    pub(crate) fn pin(&self, extent: Extent) -> Result<(), PagerError> {
        loop {
            let mut state = self.scheduler.lock();
            self.release_completed(&mut state);
            if !state.queued.is_empty() {
                // What was given up may be what others wait for, and nobody else will tell them.
                self.call_reaper();
            }
            let held = extent.chunks().find_map(|(chunk, set)| {
                let cell = self.cells.get(chunk)?;
                let blocks = cell.lock();
                (!(blocks.chunk.held() & set).is_empty()).then(|| (cell, cell.epoch()))
            });
            let Some((cell, epoch)) = held else { return self.pin_unheld(extent) };
            drop(state);
            self.reaper_bell.ring();
            cell.wait(epoch);
        }
    }

    fn pin_unheld(&self, extent: Extent) -> Result<(), PagerError> {
        for (done, (chunk, set)) in extent.chunks().enumerate() {
            if let Err(error) = self.transition(chunk, |blocks| blocks.pin(set)) {
                extent.chunks().take(done).for_each(|(chunk, set)| self.unpin_blocks(chunk, set));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Ends one pin of `set`.
    pub(crate) fn unpin_blocks(&self, chunk: ChunkIndex, set: BlockSet) {
        if let Some(cell) = self.cells.get(chunk) {
            let mut state = cell.lock();
            state.chunk.unpin(set);
            self.release(chunk, cell, state, set);
        }
    }

    fn can_hold(&self, sets: &DeclaredSets) -> bool {
        sets.chunks().all(|(chunk, sets)| {
            let holdable =
                |cell: &crate::cell::Cell| cell.lock().chunk.can_hold(sets.reads, sets.writes | sets.overwrites);
            self.cells.get(chunk).is_none_or(holdable)
        })
    }

    /// Takes the launch's blocks, all or none, and has the device see them.
    fn hold_all(&self, record: &Record, everything: bool) -> Result<Holds, PagerError> {
        let mut held = Vec::new();
        while let Err(error) = self.acquire_all(&record.sets(), &mut held) {
            self.give_up(std::mem::take(&mut held));
            // Of all of the heap, something may have been freed in this moment.
            let freed = matches!(error, PagerError::NotAllocated { .. });
            if !(everything && self.class == DeviceClass::Declared && freed) {
                return Err(error);
            }
            record.declare(self.whole_heap());
        }
        if self.config.check {
            self.begin_check(Declared::new((*record.sets()).clone(), everything));
        }
        match self.publish() {
            Ok(published) => Ok(Holds { held, published }),
            Err(error) => {
                self.give_up(held);
                Err(error)
            }
        }
    }

    /// Submits a launch that holds what it needs.
    fn send(
        &self,
        pending: Pending,
        Holds { held, published }: Holds,
        discarded: &mut Vec<Box<dyn Any + Send>>,
    ) -> Result<(Arc<Timeline>, Ticket), PagerError> {
        let Pending { record, queue, submission, .. } = pending;
        self.ordering_point();
        let mut log = self.launches.lock();
        // SAFETY: whoever gave the launch to us has promised what this asks for.
        match unsafe { queue.submit(submission, published.as_ref()) } {
            Ok(ticket) => {
                log.retain(|other| other.is_running());
                log.push_back(record);
                Ok((Arc::clone(queue.timeline()), ticket))
            }
            Err(refused) => {
                let Refused { error, submission } = *refused;
                drop(log);
                discarded.push(submission.keep);
                self.give_up(held);
                Err(error.into())
            }
        }
    }

    fn acquire_all(&self, sets: &DeclaredSets, held: &mut Vec<(ChunkIndex, ChunkSets)>) -> Result<(), PagerError> {
        if self.lost() {
            return Err(GpuError::DeviceLost.into());
        }
        // What is overwritten last: a launch that fails before leaves it as it was.
        for overwriting in [false, true] {
            for (chunk, sets) in sets.chunks() {
                let wanted = if overwriting {
                    [(sets.overwrites, Access::Write, true), (BlockSet::EMPTY, Access::Read, false)]
                } else {
                    [(sets.reads, Access::Read, false), (sets.writes, Access::Write, false)]
                };
                for (blocks, access, overwrite) in wanted.into_iter().filter(|(blocks, ..)| !blocks.is_empty()) {
                    self.transition(chunk, |chunk| match chunk.acquire(blocks, access, overwrite) {
                        Verdict::Go(mut plan) if seeded(Defect::SkipHold) => {
                            plan.forgo_hold();
                            Verdict::Go(plan)
                        }
                        verdict => verdict,
                    })?;
                    held.push((chunk, own_sets(blocks, access, overwrite)));
                }
            }
        }
        Ok(())
    }

    /// Gives up what a launch held that will not run. What it was given to overwrite holds nothing of anybody's now: it
    /// reads as zeros.
    fn give_up(&self, held: Vec<(ChunkIndex, ChunkSets)>) {
        for (chunk, own) in held {
            self.release_sets(chunk, own);
            if !own.overwrites.is_empty() && !self.lost() {
                let _ = self.transition(chunk, |blocks| blocks.discard(own.overwrites));
            }
        }
    }

    /// The device is lost: nothing is held any more, and nothing queued will run.
    pub(crate) fn abandon_launches(&self) {
        let mut state = self.scheduler.lock();
        self.mark_lost();
        self.ordering_point();
        state.running.clear();
        state.held_blocks = 0;
        for Queued { order, pending } in std::mem::take(&mut state.queued) {
            self.vram.lock().policy.settled(order);
            let Pending { record, queue, submission, .. } = pending;
            state.discarded.push(submission.keep);
            // Whoever drops the queue itself waits for the launch to move on.
            drop(queue);
            record.fail(GpuError::DeviceLost.into());
        }
    }

    /// Drops what launches kept that never ran. For threads of the application.
    pub(crate) fn drop_discarded(&self) {
        let discarded = std::mem::take(&mut self.scheduler.lock().discarded);
        drop(discarded);
    }
}
