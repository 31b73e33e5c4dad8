//! Launching kernels on a heap: queues, and whose accesses went wrong.
//!
//! A launch owns what it uses until it has completed, whatever becomes of its event, and holds what it declared from
//! its admission on. When it is admitted is the scheduler's business.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limosa_gpu::{Bound, GpuError, Kernel, Queue, QueueOptions, Submission};
use limosa_model::{Access, DeclaredSets, Extent, HostAddr};

use crate::config::DeviceClass;
use crate::core::Core;
use crate::error::{PagerError, TouchCause};
use crate::event::{LaunchEvent, LaunchMark};
use crate::heap::Heap;
use crate::notifier::Job;
use crate::profile::Timing;
use crate::record::Record;
use crate::scheduler::{Pending, Work};
use crate::tally::{KernelTally, Tallied};
use crate::whereabouts::Whereabouts;

/// One launch to be.
pub struct Launch {
    /// What to run.
    pub kernel: Arc<Kernel>,
    /// Where its kernel's launches are added up.
    pub tally: Arc<KernelTally>,
    /// Workgroups in each dimension.
    pub groups: [u32; 3],
    /// The kernel's own arguments: those behind the translation word.
    pub arguments: Vec<u8>,
    /// Where among them pointers are, by offset in bytes: for check mode.
    pub pointers: Vec<usize>,
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
    /// What must be over before it begins; if any of it failed, it does not run.
    pub after: Vec<LaunchEvent>,
    /// What must be over before it begins, whatever becomes of it: conflicts over memory that launches do not hold.
    pub behind: Vec<LaunchMark>,
    /// Kept until it has completed.
    pub keep: Box<dyn Any + Send>,
}

/// The first failed access of a launch, and how many there were.
#[derive(Clone)]
pub(crate) struct Blame {
    pub(crate) address: HostAddr,
    pub(crate) access: Access,
    pub(crate) cause: TouchCause,
    pub(crate) place: Option<Whereabouts>,
    pub(crate) count: u64,
}

/// The launches on the device, oldest first, among some that were: who is to blame for a stray access.
#[derive(Default)]
pub(crate) struct LaunchLog {
    records: Mutex<VecDeque<Arc<Record>>>,
}

impl LaunchLog {
    pub(crate) fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Record>>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The launch that runs, or the last that did.
    fn current(records: &VecDeque<Arc<Record>>) -> Option<&Arc<Record>> {
        // Asking the device costs a call, and need not be where there is no choice.
        let running = records.iter().find(|record| records.len() == 1 || record.is_running());
        running.or(records.back())
    }

    /// A kernel's access faults.
    pub(crate) fn note_fault(&self) {
        if let Some(record) = Self::current(&self.lock()) {
            record.tallied(Tallied::met_a_fault);
        }
    }
}

impl Core {
    /// A kernel's access could not be served: notes it for the launch that runs. Runs on the fault thread.
    pub(crate) fn blame(&self, offset: u64, access: Access, cause: TouchCause) {
        let (address, place) = (self.address(offset), self.whereabouts_at_once(offset));
        let records = self.launches.lock();
        let Some(record) = LaunchLog::current(&records) else { return };
        let mut blame = record.blame.lock().unwrap_or_else(PoisonError::into_inner);
        match blame.as_mut() {
            Some(first) => first.count += 1,
            None => {
                *blame = Some(Blame { address, access, cause, place, count: 1 });
                record.tallied(Tallied::failed);
            }
        }
    }
}

/// A queue of launches on a heap.
pub struct LaunchQueue {
    /// Before the heap: dropping it waits for kernels, whose faults the heap serves.
    queue: Arc<Queue>,
    heap: Arc<Heap>,
}

impl LaunchQueue {
    /// An in-order queue with nothing in it.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`].
    pub fn new(heap: &Arc<Heap>) -> Result<Self, PagerError> {
        Self::with(heap, QueueOptions::default())
    }

    /// A queue with nothing in it.
    ///
    /// # Errors
    /// Those of [`Queue::new`].
    pub fn with(heap: &Arc<Heap>, options: QueueOptions) -> Result<Self, PagerError> {
        let queue = Arc::new(Queue::new(heap.device(), options)?);
        Ok(Self { queue, heap: Arc::clone(heap) })
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The heap it works on.
    #[must_use]
    pub fn heap(&self) -> &Arc<Heap> {
        &self.heap
    }

    /// Takes a launch in: on an in-order queue, behind what it holds already.
    ///
    /// # Safety
    /// What the kernel reaches by pointers that are not covered by `keep` stays allocated until it has completed, and
    /// no reference of Rust's to what it writes exists meanwhile (to what it reads, no exclusive one).
    ///
    /// # Errors
    /// [`PagerError::SetTooLarge`], [`PagerError::OverDeviceLimit`], [`PagerError::ForeignKernel`],
    /// [`PagerError::StrayPointer`], and those of [`Submission::check`]; [`PagerError::Os`] if an event of another heap is to
    /// be waited for and no thread for that can be had; the launch will not happen then. What goes wrong later is told by
    /// the event.
    pub unsafe fn launch(&self, launch: Launch) -> Result<LaunchEvent, PagerError> {
        let core = self.heap.core();
        if core.lost() {
            return Err(GpuError::DeviceLost.into());
        }
        self.heap.ensure_own(&launch.kernel)?;
        if core.config.check {
            core.check_pointers(&launch)?;
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
        let timing = self.queue.is_profiled().then(Timing::start);
        let span = timing.as_ref().map(|timing| Arc::clone(&timing.span));
        let tallied = Tallied::new(launch.tally, launch.groups);
        let (name, may_fault) = (launch.kernel.name().to_owned(), launch.undeclared || launch.everything);
        let record = Record::new(name, core.id, sets, may_fault, timing, tallied);
        let Launch { kernel, groups, behind, keep, .. } = launch;
        let submission = Submission { kernel, groups, arguments, keep, span };
        submission.check()?;
        let after = self.heap.wait_list(&launch.after)?;
        core.drop_discarded();
        core.submit(Pending {
            record: Arc::clone(&record),
            queue: Arc::clone(&self.queue),
            work: Work::Kernel(submission),
            after,
            behind: behind.into_iter().filter_map(|mark| mark.before(&self.queue)).collect(),
            everything: launch.everything,
        })?;
        Ok(LaunchEvent { record, queue: Some(Arc::clone(&self.queue)), heap: Arc::clone(&self.heap) })
    }

    /// What is over when `bound` is reached, by whomever: for launches to come after. It holds nothing.
    #[must_use]
    pub fn reached_elsewhere(&self, name: &str, bound: Bound) -> LaunchEvent {
        let core = self.heap.core();
        let record = Record::of_outside(name, core.id);
        record.submitted(Arc::clone(&bound.0), bound.1);
        core.scheduler.await_outside(Arc::clone(&record), bound);
        core.call_reaper();
        LaunchEvent { record, queue: None, heap: Arc::clone(&self.heap) }
    }

    /// Waits for everything submitted so far and gives back what it kept.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn wait_idle(&self) -> Result<(), PagerError> {
        wait_idle(&self.queue, &self.heap)
    }
}

fn wait_idle(queue: &Arc<Queue>, heap: &Heap) -> Result<(), PagerError> {
    for record in heap.core().scheduler.queued_on(queue) {
        // What failed has failed; its event tells.
        let _ = record.reach();
    }
    let waited = queue.wait_idle().map_err(|error| heap.noticed(error));
    heap.core().settle();
    heap.core().drop_discarded();
    waited
}

impl Drop for LaunchQueue {
    /// Waits for what it has to do, unless that may take what this very thread is to do: then a thread of the notifier's
    /// waits in its place.
    fn drop(&mut self) {
        let core = self.heap.core();
        if core.awaits_application() && core.notifier.announce().is_ok() {
            let (queue, heap) = (Arc::clone(&self.queue), Arc::clone(&self.heap));
            let wait = move || {
                let _ = wait_idle(&queue, &heap);
                // Before the heap, which serves its kernels' faults.
                drop(queue);
                drop(heap);
            };
            core.notifier.hand_over([Box::new(wait) as Job]);
        } else {
            // Fails on a lost device, where nothing runs any more.
            let _ = self.wait_idle();
        }
    }
}
