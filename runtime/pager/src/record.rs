//! A launch as everybody shares it, from its submission on: how far it has come, what it holds, who waits for it.
//! When it moves on is the scheduler's business; it keeps nothing of the application's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use limosa_gpu::{GpuError, Ticket, Timeline};
use limosa_model::DeclaredSets;

use crate::error::{LaunchFailure, PagerError};
use crate::launch::Blame;

/// A heap, among all of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeapId(u64);

impl HeapId {
    pub(crate) fn next() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// How far a launch has come.
pub(crate) enum Phase {
    /// In the scheduler's queue.
    Pending,
    /// Submitted to the device.
    Submitted(Arc<Timeline>, Ticket),
    /// It will never run. The error is given to the first who asks; others get a copy of its text.
    Failed(Option<PagerError>, String),
}

/// A launch as everybody shares it. It keeps nothing of the application's.
pub(crate) struct Record {
    pub(crate) name: String,
    /// The heap that it runs on: only that one's scheduler learns of its end.
    pub(crate) heap: HeapId,
    /// Those of a launch that holds all of the heap are made anew until it is admitted.
    sets: Mutex<Arc<DeclaredSets>>,
    /// Whether it may touch what it does not declare.
    pub(crate) may_fault: bool,
    pub(crate) blame: Mutex<Option<Blame>>,
    phase: Mutex<Phase>,
    moved_on: Condvar,
    /// Threads that wait for that: waking nobody costs a system call. Changes under the phase's lock.
    waiting: AtomicU64,
}

impl Record {
    pub(crate) fn new(name: String, heap: HeapId, sets: DeclaredSets, may_fault: bool) -> Arc<Self> {
        let (phase, blame) = (Mutex::new(Phase::Pending), Mutex::new(None));
        let sets = Mutex::new(Arc::new(sets));
        Arc::new(Self {
            name,
            heap,
            sets,
            may_fault,
            blame,
            phase,
            moved_on: Condvar::new(),
            waiting: AtomicU64::new(0),
        })
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sets(&self) -> Arc<DeclaredSets> {
        Arc::clone(&self.sets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn declare(&self, sets: DeclaredSets) {
        *self.sets.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(sets);
    }

    pub(crate) fn enter(&self, phase: Phase) {
        let mut own = self.phase();
        *own = phase;
        let waiting = self.waiting.load(Ordering::Relaxed);
        drop(own);
        if waiting > 0 {
            self.moved_on.notify_all();
        }
    }

    /// Waits until the launch is on the device. `None` if it will never be.
    pub(crate) fn reach_device(&self) -> Option<(Arc<Timeline>, Ticket)> {
        let mut phase = self.phase();
        loop {
            match &*phase {
                Phase::Pending => {
                    self.waiting.fetch_add(1, Ordering::Relaxed);
                    phase = self.moved_on.wait(phase).unwrap_or_else(PoisonError::into_inner);
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                Phase::Submitted(timeline, ticket) => return Some((Arc::clone(timeline), *ticket)),
                Phase::Failed(..) => return None,
            }
        }
    }

    /// Why the launch never ran: the error itself for the first who asks, its text for others.
    pub(crate) fn why_not(&self) -> PagerError {
        let (error, reason) = match &mut *self.phase() {
            Phase::Failed(error, text) => (error.take(), text.clone()),
            Phase::Pending | Phase::Submitted(..) => (None, "it is still to run".into()),
        };
        error.unwrap_or_else(|| PagerError::NotLaunched { kernel: self.name.clone(), reason })
    }

    pub(crate) fn fail(&self, error: PagerError) {
        let text = error.to_string();
        self.enter(Phase::Failed(Some(error), text));
    }

    /// Whether it has completed or failed.
    pub(crate) fn is_done(&self) -> Result<bool, GpuError> {
        match &*self.phase() {
            Phase::Pending => Ok(false),
            Phase::Submitted(timeline, ticket) => timeline.reached(*ticket),
            Phase::Failed(..) => Ok(true),
        }
    }

    /// Whether it has completed, or will never run.
    pub(crate) fn is_over(&self) -> bool {
        match &*self.phase() {
            Phase::Pending => false,
            Phase::Submitted(timeline, ticket) => has_reached(timeline, *ticket),
            Phase::Failed(..) => true,
        }
    }

    /// Whether it is on the device now.
    pub(crate) fn is_running(&self) -> bool {
        match &*self.phase() {
            Phase::Submitted(timeline, ticket) => !has_reached(timeline, *ticket),
            Phase::Pending | Phase::Failed(..) => false,
        }
    }
}

/// Whether the place in the timeline was reached. On a lost device everything was; another error of the driver's says
/// nothing, so the launch counts as running.
pub(crate) fn has_reached(timeline: &Timeline, ticket: Ticket) -> bool {
    timeline.reached(ticket).unwrap_or_else(|error| matches!(error, GpuError::DeviceLost))
}

impl Record {
    /// What went wrong with the kernel's accesses, if anything did.
    pub(crate) fn failure(&self) -> Option<LaunchFailure> {
        let blame = *self.blame.lock().unwrap_or_else(PoisonError::into_inner);
        blame.map(|Blame { address, access, cause, count }| LaunchFailure {
            kernel: self.name.clone(),
            address,
            access,
            cause,
            count,
        })
    }
}
