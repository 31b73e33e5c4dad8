//! Launching kernels on a heap: queues, events, and whose accesses went wrong.
//!
//! A launch owns what it uses until it has completed, whatever becomes of its event, and holds what it declared from
//! its admission on. When it is admitted is the scheduler's business.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limosa_gpu::{GpuError, Kernel, Queue, Submission};
use limosa_model::{Access, DeclaredSets, Extent, HostAddr};

use crate::config::DeviceClass;
use crate::error::{PagerError, TouchCause};
use crate::heap::Heap;
use crate::record::Record;
use crate::scheduler::Pending;

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
    /// Heap ranges of which it replaces every byte, reading none before.
    pub overwrites: Vec<Extent>,
    /// Whether it may touch all of the heap: on a device that cannot fault, it then holds all that is allocated.
    pub everything: bool,
    /// Whether it may touch what is neither declared here nor all of the heap.
    pub undeclared: bool,
    /// Launches that must have completed before it begins.
    pub after: Vec<LaunchMark>,
    /// Kept until it has completed.
    pub keep: Box<dyn Any + Send>,
}

/// The first failed access of a launch, and how many there were.
#[derive(Clone, Copy)]
pub(crate) struct Blame {
    pub(crate) address: HostAddr,
    pub(crate) access: Access,
    pub(crate) cause: TouchCause,
    pub(crate) count: u64,
}

/// The launches on the device, oldest first: who is to blame for a stray access.
#[derive(Default)]
pub(crate) struct LaunchLog {
    records: Mutex<VecDeque<Arc<Record>>>,
}

impl LaunchLog {
    pub(crate) fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Record>>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kernel's access could not be served: notes it for the launch that runs. Runs on the fault thread.
    pub(crate) fn blame(&self, address: HostAddr, access: Access, cause: TouchCause) {
        let records = self.lock();
        let running = records.iter().find(|record| record.is_running());
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
    /// [`PagerError::SetTooLarge`], [`PagerError::ForeignEvent`], and those of [`Submission::check`]; the launch will not happen then. What goes wrong
    /// later is told by the event.
    pub unsafe fn launch(&self, launch: Launch) -> Result<LaunchEvent, PagerError> {
        let core = self.heap.core();
        if core.lost() {
            return Err(GpuError::DeviceLost.into());
        }
        self.queue.retire().map_err(|error| self.heap.noticed(error))?;
        let mut arguments = Vec::with_capacity(8 + launch.arguments.len());
        if launch.kernel.interface().argument_bytes > 0 {
            arguments.extend_from_slice(&self.heap.translation_word().to_ne_bytes());
        }
        arguments.extend_from_slice(&launch.arguments);
        let mut sets = if launch.everything && core.class == DeviceClass::Declared {
            core.whole_heap()
        } else {
            DeclaredSets::new(&launch.reads, &launch.writes, &launch.overwrites)
        };
        core.leave_out_shared(&mut sets);
        let record =
            Record::new(launch.kernel.name().to_owned(), core.id, sets, launch.undeclared || launch.everything);
        if launch.after.iter().any(|mark| mark.record.heap != core.id) {
            return Err(PagerError::ForeignEvent { kernel: record.name.clone() });
        }
        let submission = Submission { kernel: launch.kernel, groups: launch.groups, arguments, keep: launch.keep };
        submission.check()?;
        core.drop_discarded();
        core.submit(Pending {
            record: Arc::clone(&record),
            queue: Arc::clone(&self.queue),
            submission,
            after: launch.after.into_iter().map(|mark| mark.record).collect(),
            everything: launch.everything,
        })?;
        Ok(LaunchEvent { record, queue: Arc::clone(&self.queue), heap: Arc::clone(&self.heap) })
    }

    /// Waits for everything launched so far and gives back what it kept.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn wait_idle(&self) -> Result<(), PagerError> {
        for record in self.heap.core().scheduler.queued_on(&self.queue) {
            // What failed has failed; its event tells.
            let _ = record.reach_device();
        }
        let waited = self.queue.wait_idle().map_err(|error| self.heap.noticed(error));
        self.heap.core().settle();
        self.heap.core().drop_discarded();
        waited
    }
}

impl Drop for LaunchQueue {
    fn drop(&mut self) {
        // Fails on a lost device, where nothing runs any more.
        let _ = self.wait_idle();
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
    /// [`GpuError::DeviceLost`]; why it could not be admitted.
    pub fn wait(&self) -> Result<(), PagerError> {
        let core = self.heap.core();
        let Some((timeline, ticket)) = self.record.reach_device() else {
            core.drop_discarded();
            return Err(match self.record.why_not() {
                PagerError::Gpu(error) => self.heap.noticed(error),
                other => other,
            });
        };
        timeline.wait(ticket).map_err(|error| self.heap.noticed(error))?;
        core.settle();
        self.queue.retire().map_err(|error| self.heap.noticed(error))?;
        core.clear_device_stand_ins();
        self.record.failure().map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// What others need to wait for the launch; keeps nothing of the application's alive.
    #[must_use]
    pub fn mark(&self) -> LaunchMark {
        LaunchMark { record: Arc::clone(&self.record) }
    }

    /// Whether the launch has completed.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn is_complete(&self) -> Result<bool, PagerError> {
        self.record.is_done().map_err(|error| self.heap.noticed(error))
    }
}

/// A launch as others see it: done or not. On a lost device everything is done.
#[derive(Clone)]
pub struct LaunchMark {
    record: Arc<Record>,
}

impl LaunchMark {
    /// Whether the launch has completed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.record.is_done().unwrap_or(true)
    }

    /// Waits for it.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`]: there is nothing to wait for any more; [`Heap::noticed`] is to be told.
    pub fn wait(&self) -> Result<(), GpuError> {
        self.record.reach_device().map_or(Ok(()), |(timeline, ticket)| timeline.wait(ticket))
    }
}
