//! Launching kernels on a heap: the translation word, what the launch keeps, and whose accesses went wrong.
//!
//! A launch owns what it uses until it has completed, whatever becomes of its event. It does *not* hold blocks:
//! while a kernel runs, both sides' accesses are served as faults, block by block.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limosa_gpu::{GpuError, Kernel, Queue, Submission, Ticket, Timeline};
use limosa_model::{Access, Extent, HostAddr};

use crate::check::Declared;
use crate::counters::add;
use crate::error::{LaunchFailure, PagerError, TouchCause};
use crate::heap::Heap;

/// One launch to be.
pub struct Launch {
    /// What to run.
    pub kernel: Arc<Kernel>,
    /// Workgroups in each dimension.
    pub groups: [u32; 3],
    /// The kernel's own arguments: those behind the translation word.
    pub arguments: Vec<u8>,
    /// Heap ranges that it reads.
    pub reads: Vec<Extent>,
    /// Heap ranges that it writes, or reads and writes.
    pub writes: Vec<Extent>,
    /// Whether it may touch all of the heap.
    pub everything: bool,
    /// Kept until it has completed.
    pub keep: Box<dyn Any + Send>,
}

/// The first failed access of a launch, and how many there were.
#[derive(Clone, Copy)]
struct Blame {
    address: HostAddr,
    access: Access,
    cause: TouchCause,
    count: u64,
}

struct Record {
    timeline: Arc<Timeline>,
    ticket: Ticket,
    kernel: Arc<Kernel>,
    blame: Mutex<Option<Blame>>,
}

/// The launches in flight, oldest first: who is to blame for a stray access.
#[derive(Default)]
pub(crate) struct LaunchLog {
    /// Never held while something is dropped that the application gave us.
    records: Mutex<VecDeque<Arc<Record>>>,
}

impl LaunchLog {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Record>>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kernel's access could not be served: notes it for the launch that runs. Runs on the fault thread.
    pub(crate) fn blame(&self, address: HostAddr, access: Access, cause: TouchCause) {
        let records = self.lock();
        let running = records.iter().find(|record| !record.timeline.reached(record.ticket).unwrap_or(true));
        let Some(record) = running.or(records.back()) else { return };
        let mut blame = record.blame.lock().unwrap_or_else(PoisonError::into_inner);
        match blame.as_mut() {
            Some(first) => first.count += 1,
            None => *blame = Some(Blame { address, access, cause, count: 1 }),
        }
    }
}

/// An in-order queue of launches on a heap.
pub struct LaunchQueue {
    /// Before the heap: dropping it waits for kernels, whose faults the heap serves.
    queue: Arc<Queue>,
    heap: Arc<Heap>,
}

impl LaunchQueue {
    /// A queue with nothing in it.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`].
    pub fn new(heap: &Arc<Heap>) -> Result<Self, PagerError> {
        let queue = Arc::new(Queue::new(heap.device())?);
        Ok(Self { queue, heap: Arc::clone(heap) })
    }

    /// The heap it works on.
    #[must_use]
    pub fn heap(&self) -> &Arc<Heap> {
        &self.heap
    }

    /// Puts a launch behind what the queue holds already.
    ///
    /// # Safety
    /// What the kernel reaches by pointers that are not covered by `keep` stays allocated until it has completed, and
    /// no reference of Rust's to what it writes exists meanwhile (to what it reads, no exclusive one).
    ///
    /// # Errors
    /// Those of [`Queue::submit`]; the launch has not happened then.
    pub unsafe fn launch(&self, launch: Launch) -> Result<LaunchEvent, PagerError> {
        let core = self.heap.core();
        if core.lost() {
            return Err(GpuError::DeviceLost.into());
        }
        self.queue.retire().map_err(|error| self.heap.noticed(error))?;
        let mut arguments = Vec::with_capacity(8 + launch.arguments.len());
        if launch.kernel.interface().argument_bytes > 0 {
            arguments.extend_from_slice(&self.heap.translation().word().to_ne_bytes());
        }
        arguments.extend_from_slice(&launch.arguments);
        let kernel = Arc::clone(&launch.kernel);
        let keep = launch.keep;
        let submission = Submission { kernel: launch.kernel, groups: launch.groups, arguments, keep };
        let checking = core.config.check.then(|| {
            let turn = core.check_turn.lock().unwrap_or_else(PoisonError::into_inner);
            let everything = launch.everything;
            core.begin_check(Declared { reads: launch.reads, writes: launch.writes, everything });
            turn
        });

        let mut records = core.launches.lock();
        // SAFETY: the caller's promise.
        let ticket = match unsafe { self.queue.submit(submission) } {
            Ok(ticket) => ticket,
            Err(error) => {
                drop(records);
                return Err(self.heap.noticed(error));
            }
        };
        let timeline = Arc::clone(self.queue.timeline());
        let record = Arc::new(Record { timeline, ticket, kernel, blame: Mutex::new(None) });
        records.push_back(Arc::clone(&record));
        let mut finished = Vec::new();
        while records.front().is_some_and(|oldest| oldest.timeline.reached(oldest.ticket).unwrap_or(true)) {
            finished.extend(records.pop_front());
        }
        drop(records);
        // Without the lock: destroying a pipeline can wait for a kernel that waits for the fault thread, which blames.
        drop(finished);
        add(&core.counters.launches, 1);
        let event = LaunchEvent { record, queue: Arc::clone(&self.queue), heap: Arc::clone(&self.heap) };
        if checking.is_some() {
            // The failure, if any, is told by whoever waits for the event; here only the end matters.
            let _ = event.record.timeline.wait(ticket);
            *core.declared() = None;
        }
        Ok(event)
    }

    /// Waits for everything launched so far and gives back what it kept.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn wait_idle(&self) -> Result<(), PagerError> {
        self.queue.wait_idle().map_err(|error| self.heap.noticed(error))
    }

    /// Gives back what completed launches kept, without waiting.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn retire(&self) -> Result<(), PagerError> {
        self.queue.retire().map_err(|error| self.heap.noticed(error))
    }
}

/// A launch that was submitted. Dropping it changes nothing for the launch.
pub struct LaunchEvent {
    record: Arc<Record>,
    /// Before the heap, as in [`LaunchQueue`].
    queue: Arc<Queue>,
    heap: Arc<Heap>,
}

impl LaunchEvent {
    /// Waits until the launch has completed.
    ///
    /// # Errors
    /// [`PagerError::Launch`] if an access of the kernel could not be served, each time it is asked;
    /// [`GpuError::DeviceLost`].
    pub fn wait(&self) -> Result<(), PagerError> {
        let Record { ticket, kernel, blame, .. } = &*self.record;
        self.queue.wait(*ticket).map_err(|error| self.heap.noticed(error))?;
        self.heap.core().clear_device_stand_ins();
        let blame = *blame.lock().unwrap_or_else(PoisonError::into_inner);
        match blame {
            None => Ok(()),
            Some(Blame { address, access, cause, count }) => {
                let kernel = kernel.name().to_owned();
                Err(LaunchFailure { kernel, address, access, cause, count }.into())
            }
        }
    }

    /// What others need to wait for the launch; keeps nothing of the application's alive.
    #[must_use]
    pub fn mark(&self) -> LaunchMark {
        LaunchMark { timeline: Arc::clone(&self.record.timeline), ticket: self.record.ticket }
    }

    /// Whether the launch has completed.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn is_complete(&self) -> Result<bool, PagerError> {
        self.record.timeline.reached(self.record.ticket).map_err(|error| self.heap.noticed(error))
    }
}

/// A launch as others see it: done or not. On a lost device everything is done.
#[derive(Clone)]
pub struct LaunchMark {
    timeline: Arc<Timeline>,
    ticket: Ticket,
}

impl LaunchMark {
    /// Whether the launch has completed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.timeline.reached(self.ticket).unwrap_or(true)
    }

    /// Waits for it.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`]: there is nothing to wait for any more; [`Heap::noticed`] is to be told.
    pub fn wait(&self) -> Result<(), GpuError> {
        self.timeline.wait(self.ticket)
    }
}
