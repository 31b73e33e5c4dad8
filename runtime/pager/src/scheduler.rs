//! The launches of a heap: those that wait, those on the device, and what becomes of them.
//!
//! Which of those that wait is next is `admission`'s to say. It then takes all of its blocks at once (`holds`) and keeps
//! them until it completes. So a launch that holds anything is running, and a running launch waits for nobody: there is no cycle.
//! The scheduler has no thread of its own; whoever submits, waits, or is rung as the reaper moves it on.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limosa_gpu::{Bound, GpuError, Queue, Refused, Submission, Ticket, Timeline};
use limosa_model::policy::{EvictionPolicy, LaunchOrder};
use limosa_model::{BLOCK, ChunkIndex, DeclaredSets};

use crate::core::Core;
use crate::error::PagerError;
use crate::holds::Holds;
use crate::host_work::Marker;
use crate::notifier::Job;
use crate::record::Record;
use crate::stream::Streaming;

/// What is to be done when its turn has come.
pub(crate) enum Work {
    /// A launch, on the device.
    Kernel(Submission),
    /// By a thread of the notifier's, which was announced to it; ends its record itself.
    Task(Job),
    /// By the pump; ends its record itself. Holds blocks like a launch.
    Stream(Box<Streaming>),
    /// To tell that the turn has come.
    Marker(Marker),
}

impl Work {
    /// Whether it holds blocks from its admission on.
    pub(crate) fn holds(&self) -> bool {
        matches!(self, Self::Kernel(_) | Self::Stream(_))
    }

    /// What the application may have put into it, for an application's thread to drop.
    fn kept(self) -> Box<dyn Any + Send> {
        match self {
            Self::Kernel(submission) => submission.keep,
            Self::Task(job) => Box::new(job),
            Self::Stream(streaming) => streaming.kept(),
            Self::Marker(_) => Box::new(()),
        }
    }
}

/// A launch, or what else a queue is to do, whose turn has not come.
pub(crate) struct Pending {
    pub(crate) record: Arc<Record>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) work: Work,
    /// What must be over before, and not have failed.
    pub(crate) after: Vec<Arc<Record>>,
    /// What must be over before, whatever became of it.
    pub(crate) behind: Vec<Arc<Record>>,
    pub(crate) everything: bool,
}

impl Pending {
    /// Whether all before it on its queue must be over: launches are kept in order by the device.
    pub(crate) fn drains(&self) -> bool {
        match self.work {
            Work::Kernel(_) => false,
            Work::Task(_) | Work::Stream(_) => self.queue.is_ordered(),
            Work::Marker(_) => self.queue.is_ordered() || self.after.is_empty(),
        }
    }

    /// Whether what is behind it on its queue waits as long as it does, on any queue.
    pub(crate) fn stops(&self) -> bool {
        matches!(self.work, Work::Marker(Marker::Stops))
    }
}

pub(crate) struct Queued {
    pub(crate) order: LaunchOrder,
    pub(crate) pending: Pending,
    /// Launches behind it that found room before it did.
    pub(crate) passed_by: u32,
}

/// A launch on the device.
pub(crate) struct Running {
    /// Its place in the order of submission.
    pub(crate) order: LaunchOrder,
    /// That in the order in which the device got them.
    pub(crate) place: u64,
    pub(crate) record: Arc<Record>,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) ticket: Ticket,
}

impl Running {
    fn bound(&self) -> Bound {
        (Arc::clone(&self.timeline), self.ticket)
    }
}

/// Something that the host does for a queue. What it holds is in its record.
pub(crate) struct Task {
    pub(crate) order: LaunchOrder,
    pub(crate) record: Arc<Record>,
    pub(crate) queue: Arc<Queue>,
}

#[derive(Default)]
pub(crate) struct State {
    submitted: u64,
    pub(crate) admitted: u64,
    pub(crate) queued: VecDeque<Queued>,
    /// In the order in which the device got them.
    pub(crate) running: Vec<Running>,
    /// What the application's own submissions are to reach.
    outside: Vec<(Arc<Record>, Bound)>,
    /// What the host does now for a queue.
    pub(crate) tasks: Vec<Task>,
    /// Of the launches known to have completed, that which the device got last, with its place.
    completed: Option<(u64, Bound)>,
    pub(crate) held_blocks: u64,
    /// What launches kept that never ran, for an application's thread to drop: it may do anything then.
    discarded: Vec<Box<dyn Any + Send>>,
}

impl State {
    /// Whether launches run, or transfers hold something.
    pub(crate) fn is_at_work(&self) -> bool {
        !self.running.is_empty() || self.held_blocks > 0
    }
}

/// The launches of a heap, in order.
#[derive(Default)]
pub(crate) struct Scheduler {
    /// Comes before the VRAM pool's lock and every cell's.
    state: Mutex<State>,
}

impl Scheduler {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The launches on the device, to be waited for.
    pub(crate) fn running(&self) -> Vec<Bound> {
        self.lock().running.iter().map(Running::bound).collect()
    }

    /// All that the device is to reach that somebody here waits for.
    pub(crate) fn awaited(&self) -> Vec<Bound> {
        let state = self.lock();
        let outside = state.outside.iter().map(|(_, bound)| bound.clone());
        state.running.iter().map(Running::bound).chain(outside).collect()
    }

    /// Takes in what is over when the application's own submissions have reached a value.
    pub(crate) fn await_outside(&self, record: Arc<Record>, bound: Bound) {
        self.lock().outside.push((record, bound));
    }

    /// The number of launches admitted so far, and whether any is on the device.
    pub(crate) fn admitted(&self) -> (u64, bool) {
        let state = self.lock();
        (state.admitted, !state.running.is_empty())
    }

    /// What a queue has to do that is not on the device yet.
    pub(crate) fn queued_on(&self, queue: &Arc<Queue>) -> Vec<Arc<Record>> {
        let state = self.lock();
        let tasks = state.tasks.iter().filter(|task| Arc::ptr_eq(&task.queue, queue)).map(|task| &task.record);
        let queued = state.queued.iter().map(|queued| &queued.pending);
        let queued = queued.filter(|pending| Arc::ptr_eq(&pending.queue, queue)).map(|pending| &pending.record);
        tasks.chain(queued).map(Arc::clone).collect()
    }

    /// A task of the host's has ended.
    pub(crate) fn finished(&self, record: &Arc<Record>) {
        self.lock().tasks.retain(|task| !Arc::ptr_eq(&task.record, record));
    }
}

impl Core {
    /// Takes a launch in, and admits what can be admitted.
    ///
    /// # Errors
    /// [`PagerError::SetTooLarge`]: it could never be admitted.
    pub(crate) fn submit(&self, pending: Pending) -> Result<(), PagerError> {
        self.check_set(&pending.record)?;
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
        state.queued.push_back(Queued { order, pending, passed_by: 0 });
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

    /// That the launch could be admitted at all.
    pub(crate) fn check_set(&self, record: &Record) -> Result<(), PagerError> {
        let (kernel, sets) = (&record.name, record.sets());
        let (asked, budget) = (sets.blocks() * BLOCK, self.vram.asked());
        if asked > budget {
            let largest = self.largest_shares(&sets);
            return Err(PagerError::SetTooLarge { kernel: kernel.clone(), asked, budget, largest });
        }
        self.check_limits(format_args!("kernel {kernel}"), |chunk| sets.of(chunk).all())
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
        // Whoever asks for what completed launches leave must learn that it is lost before it is touched.
        self.note_loss(lost || self.losing.swap(false, Ordering::SeqCst));
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

    pub(crate) fn release_completed(&self, state: &mut State) {
        let reached = |timeline: &Timeline, ticket: Ticket| {
            let reached = timeline.reached(ticket);
            if matches!(reached, Err(GpuError::DeviceLost)) && !self.losing.swap(true, Ordering::SeqCst) {
                // To be noted without the lock; nobody else may ever ask the driver again.
                self.call_reaper();
            }
            // What a lost device had is failed by who notes the loss.
            reached.unwrap_or(false)
        };
        state.outside.retain(|(record, (timeline, ticket))| {
            let over = reached(timeline, *ticket);
            if over {
                self.notifier.hand_over(record.released());
            }
            !over
        });
        // What is on a timeline behind what has not completed has not either: no need to ask the driver again.
        let mut busy: Vec<*const Timeline> = Vec::new();
        let done = |one: &mut Running| {
            let timeline = Arc::as_ptr(&one.timeline);
            if busy.contains(&timeline) {
                return false;
            }
            let done = reached(&one.timeline, one.ticket);
            if !done {
                busy.push(timeline);
            }
            done
        };
        let finished: Vec<_> = state.running.extract_if(.., done).collect();
        if let Some(last) = finished.last() {
            // An earlier one may have completed just after it was looked at.
            if state.completed.as_ref().is_none_or(|(place, _)| *place < last.place) {
                state.completed = Some((last.place, last.bound()));
            }
            self.ordering_point();
        }
        for Running { record, .. } in finished {
            let sets = record.sets();
            for (chunk, sets) in sets.chunks() {
                state.held_blocks -= self.release_sets(chunk, sets);
            }
            self.notifier.hand_over(record.released());
        }
    }

    /// Submits a launch that holds what it needs.
    pub(crate) fn send(
        &self,
        state: &mut State,
        record: &Arc<Record>,
        queue: &Arc<Queue>,
        submission: Submission,
        Holds { held, published, .. }: Holds,
    ) -> Result<Bound, PagerError> {
        self.ordering_point();
        let mut waits: Vec<Bound> = published.into_iter().collect();
        if !queue.is_ordered() {
            // Reached already: so the device sees what launches wrote that are over, without waiting for others.
            waits.extend(state.completed.iter().map(|(_, bound)| bound.clone()));
        }
        if let Some(timing) = &record.timing {
            timing.admitted();
        }
        let mut log = self.launches.lock();
        // SAFETY: whoever gave the launch to us has promised what this asks for.
        match unsafe { queue.submit(submission, waits) } {
            Ok(ticket) => {
                // Only before it would grow: to look at all of them at each launch is too much.
                if log.len() == log.capacity() {
                    log.retain(|other| other.is_running());
                }
                log.push_back(Arc::clone(record));
                Ok((Arc::clone(queue.timeline()), ticket))
            }
            Err(refused) => {
                let Refused { error, submission } = *refused;
                drop(log);
                state.discarded.push(submission.keep);
                self.give_up(held);
                Err(error.into())
            }
        }
    }

    /// The device is lost: nothing is held any more, and nothing queued will run.
    pub(crate) fn abandon_launches(&self) {
        let mut state = self.scheduler.lock();
        self.mark_lost();
        self.ordering_point();
        state.held_blocks = 0;
        for Running { record, timeline, ticket, .. } in std::mem::take(&mut state.running) {
            let completed = timeline.reached(ticket).unwrap_or(false);
            let notices = if completed { record.released() } else { record.fail(GpuError::DeviceLost.into()) };
            self.notifier.hand_over(notices);
        }
        for (record, _) in std::mem::take(&mut state.outside) {
            self.notifier.hand_over(record.fail(GpuError::DeviceLost.into()));
        }
        for Queued { order, pending, .. } in std::mem::take(&mut state.queued) {
            self.vram.lock().policy.settled(order);
            self.fail(&mut state, pending, GpuError::DeviceLost.into());
        }
    }

    /// What is in no queue any more will not run.
    pub(crate) fn fail(&self, state: &mut State, pending: Pending, error: PagerError) {
        let Pending { record, queue, work, .. } = pending;
        if matches!(work, Work::Task(_) | Work::Stream(_)) {
            self.notifier.forgo();
        }
        state.discarded.push(work.kept());
        // Whoever drops the queue itself waits for the launch to move on.
        drop(queue);
        self.notifier.hand_over(record.fail(error));
    }

    /// Drops what launches kept that never ran. For threads of the application.
    pub(crate) fn drop_discarded(&self) {
        let discarded = std::mem::take(&mut self.scheduler.lock().discarded);
        drop(discarded);
    }
}
