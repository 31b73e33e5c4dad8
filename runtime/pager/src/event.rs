//! Events: what became of a launch, of what a queue had the host do, or of what the application decides; waiting for
//! it, and being told. It does *not* move anything on: the scheduler and the reaper do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use limosa_gpu::{Bound, GpuError, Queue};

use crate::counters::add;
use crate::error::PagerError;
use crate::heap::Heap;
use crate::notifier::Job;
use crate::record::{Reached, Record, has_reached};

/// What was submitted, or the application is to end. Dropping it changes nothing for that.
#[derive(Clone)]
pub struct LaunchEvent {
    pub(crate) record: Arc<Record>,
    /// That of a launch. Before the heap, as in [`crate::LaunchQueue`].
    pub(crate) queue: Option<Arc<Queue>>,
    pub(crate) heap: Arc<Heap>,
}

impl LaunchEvent {
    /// Waits until it is over.
    ///
    /// # Errors
    /// [`PagerError::Launch`] if an access of the kernel could not be served, each time it is asked;
    /// [`GpuError::DeviceLost`]; why it could not be admitted, or did not happen.
    pub fn wait(&self) -> Result<(), PagerError> {
        if let Reached::Device(timeline, ticket) = self.record.reach() {
            timeline.wait(ticket).map_err(|error| self.heap.noticed(error))?;
            self.heap.core().settle();
        }
        self.outcome()
    }

    /// What [`Self::wait`] gives, once it is over. For threads of the application: it drops what launches kept.
    fn outcome(&self) -> Result<(), PagerError> {
        let core = self.heap.core();
        match self.record.reach() {
            Reached::Done => Ok(()),
            Reached::Never => {
                core.drop_discarded();
                Err(self.heap.told(self.record.why_not()))
            }
            Reached::Device(..) => {
                let retired = self.queue.as_ref().map_or(Ok(()), |queue| queue.retire());
                retired.map_err(|error| self.heap.noticed(error))?;
                core.clear_device_stand_ins();
                self.record.failure().map_or(Ok(()), |failure| Err(failure.into()))
            }
        }
    }

    /// Has `callback` called, with what [`Self::wait`] would give, when it is over: by a thread of the heap's that may be
    /// used for anything, under no lock. If it panics, that is counted and goes no further.
    ///
    /// # Errors
    /// [`PagerError::Os`] if no thread can be had; it is not called then.
    pub fn on_complete(
        &self,
        callback: impl FnOnce(Result<(), PagerError>) + Send + 'static,
    ) -> Result<(), PagerError> {
        let event = self.clone();
        self.notify(Box::new(move || event.call(|| callback(event.outcome()))))
    }

    /// Calls the application, and keeps its panics.
    fn call(&self, application: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(application)) {
            add(&self.heap.core().counters.callbacks_panicked, 1);
            // It is the application's, and may panic when it is dropped.
            std::mem::forget(panic);
        }
    }

    /// Has `job` done when it is over.
    pub(crate) fn notify(&self, job: Job) -> Result<(), PagerError> {
        let core = self.heap.core();
        core.notifier.announce()?;
        match self.record.when_over(job) {
            Some(job) => core.notifier.hand_over([job]),
            // Nobody may be waiting who would find that it is.
            None => core.reaper_bell.ring(),
        }
        Ok(())
    }

    /// Waits until it is on the device, and tells what is reached there when it has completed.
    ///
    /// # Errors
    /// Why it could not be admitted; [`PagerError::NotOnDevice`] if it is nothing that the device does.
    pub fn on_device(&self) -> Result<Bound, PagerError> {
        match self.record.reach() {
            Reached::Device(timeline, ticket) => Ok((timeline, ticket)),
            Reached::Never => Err(self.heap.told(self.record.why_not())),
            Reached::Done => Err(PagerError::NotOnDevice { what: self.record.name.clone() }),
        }
    }

    /// What others need to wait for it; keeps nothing of the application's alive.
    #[must_use]
    pub fn mark(&self) -> LaunchMark {
        let queue = self.queue.as_ref().map_or_else(Weak::new, Arc::downgrade);
        LaunchMark { record: Arc::clone(&self.record), queue }
    }

    /// Whether it has completed or failed.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn is_complete(&self) -> Result<bool, PagerError> {
        self.record.is_done().map_err(|error| self.heap.noticed(error))
    }
}

/// As others see it: over or not. On a lost device all launches are.
#[derive(Clone)]
pub struct LaunchMark {
    record: Arc<Record>,
    queue: Weak<Queue>,
}

impl LaunchMark {
    /// What one on `queue` must be behind that conflicts with it; nothing if the queue keeps them in order.
    pub(crate) fn before(self, queue: &Arc<Queue>) -> Option<Arc<Record>> {
        let in_order = queue.is_ordered() && self.queue.ptr_eq(&Arc::downgrade(queue));
        (!in_order).then_some(self.record)
    }

    /// Whether it has completed or failed. While the driver cannot tell, it counts as running.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        has_reached(self.record.is_done())
    }

    /// Waits for it.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`]: there is nothing to wait for any more; [`Heap::noticed`] is to be told.
    pub fn wait(&self) -> Result<(), GpuError> {
        match self.record.reach() {
            Reached::Device(timeline, ticket) => timeline.wait(ticket),
            Reached::Done | Reached::Never => Ok(()),
        }
    }
}

/// Who polls for an event.
#[derive(Default)]
struct Poller {
    /// The last to poll.
    waker: Option<Waker>,
    over: bool,
}

fn lock(poller: &Mutex<Poller>) -> MutexGuard<'_, Poller> {
    poller.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Polling for an event: has one notice in flight at most, however often it is polled.
pub struct EventPoll {
    event: LaunchEvent,
    poller: Option<Arc<Mutex<Poller>>>,
}

impl EventPoll {
    /// Not polled yet.
    #[must_use]
    pub fn new(event: LaunchEvent) -> Self {
        Self { event, poller: None }
    }

    /// What [`LaunchEvent::wait`] gives, if it is over; else the task is woken when it is.
    pub fn poll(&mut self, context: &Context<'_>) -> Poll<Result<(), PagerError>> {
        // The application's: cloned and dropped under no lock.
        let waker = context.waker().clone();
        let Some(poller) = &self.poller else { return self.begin(waker) };
        let mut own = lock(poller);
        if own.over {
            drop(own);
            return Poll::Ready(self.event.outcome());
        }
        let before = own.waker.replace(waker);
        drop(own);
        drop(before);
        Poll::Pending
    }

    fn begin(&mut self, waker: Waker) -> Poll<Result<(), PagerError>> {
        if self.event.record.is_over() {
            return Poll::Ready(self.event.outcome());
        }
        let poller = Arc::new(Mutex::new(Poller { waker: Some(waker), over: false }));
        let (shared, event) = (Arc::clone(&poller), self.event.clone());
        let wake = move || {
            let mut own = lock(&shared);
            own.over = true;
            let waker = own.waker.take();
            drop(own);
            event.call(|| waker.into_iter().for_each(Waker::wake));
        };
        if let Err(error) = self.event.notify(Box::new(wake)) {
            return Poll::Ready(Err(error));
        }
        self.poller = Some(poller);
        Poll::Pending
    }
}

impl Drop for EventPoll {
    fn drop(&mut self) {
        // Nobody is to be woken any more.
        let waker = self.poller.as_ref().and_then(|poller| lock(poller).waker.take());
        drop(waker);
    }
}
