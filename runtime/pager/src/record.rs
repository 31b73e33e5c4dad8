//! Whatever has an event, as everybody shares it: launches, what queues have the host do, user events. How far it has
//! come, what it holds, who waits for it and who is to be told. When it moves on is the scheduler's business; it keeps
//! nothing of the application's but what is to be called when it is over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use limosa_gpu::{GpuError, Ticket, Timeline};
use limosa_model::DeclaredSets;

use crate::error::{LaunchFailure, PagerError};
use crate::launch::Blame;
use crate::notifier::Job;
use crate::profile::Timing;
use crate::tally::Tallied;

/// A heap, among all of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeapId(u64);

impl HeapId {
    pub(crate) fn next() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// How far it has come.
enum Phase {
    /// In the scheduler's queue, or with the host, or the application is to end it.
    Pending,
    /// Submitted to the device.
    Submitted(Arc<Timeline>, Ticket),
    /// The host has done it.
    Done,
    /// It did not happen. The error is given to the first who asks; others get a copy, or its text.
    Failed(Option<PagerError>, String),
}

/// Where one finds it who has waited for it to move on.
pub(crate) enum Reached {
    /// On the device.
    Device(Arc<Timeline>, Ticket),
    /// Done by the host.
    Done,
    /// It will never be: [`Record::why_not`].
    Never,
}

struct Progress {
    phase: Phase,
    /// Whether nothing more will happen with it, and nothing is held for it.
    over: bool,
    /// To be handed to the notifier when it is over.
    notices: Vec<Job>,
    /// Threads that wait for it to move on: waking nobody costs a system call.
    waiting: usize,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A kernel's launch.
    Kernel,
    /// What the host does for a queue.
    Host,
    /// What the application ends, or another context, or whoever has the other end of a pipe.
    Outside,
}

/// A launch, or what is waited for like one, as everybody shares it.
pub(crate) struct Record {
    pub(crate) name: String,
    kind: Kind,
    /// The heap that it is on: only that one's scheduler learns of its end.
    pub(crate) heap: HeapId,
    /// Those of a launch that holds all of the heap are made anew until it is admitted.
    sets: Mutex<Arc<DeclaredSets>>,
    /// Whether it may touch what it does not declare.
    pub(crate) may_fault: bool,
    pub(crate) blame: Mutex<Option<Blame>>,
    /// Of a launch on a profiled queue.
    pub(crate) timing: Option<Timing>,
    /// Of a launch.
    tallied: Option<Tallied>,
    progress: Mutex<Progress>,
    moved_on: Condvar,
}

impl Record {
    pub(crate) fn new(
        name: String,
        heap: HeapId,
        sets: DeclaredSets,
        may_fault: bool,
        timing: Option<Timing>,
        tallied: Tallied,
    ) -> Arc<Self> {
        let tallied = Some(tallied);
        Arc::new(Self { timing, tallied, ..Self::of(Kind::Kernel, name, heap, sets, may_fault) })
    }

    /// Of what the host does.
    pub(crate) fn of_host(name: &str, heap: HeapId) -> Arc<Self> {
        Arc::new(Self::of(Kind::Host, name.to_owned(), heap, DeclaredSets::default(), false))
    }

    /// Of a transfer between files and memory, which holds blocks from its admission on, and may be one that only the
    /// application brings to its end.
    pub(crate) fn of_transfer(name: &str, heap: HeapId, is_outside: bool) -> Arc<Self> {
        if is_outside { Self::of_outside(name, heap) } else { Self::of_host(name, heap) }
    }

    /// Of what no queue does.
    pub(crate) fn of_outside(name: &str, heap: HeapId) -> Arc<Self> {
        Arc::new(Self::of(Kind::Outside, name.to_owned(), heap, DeclaredSets::default(), false))
    }

    pub(crate) fn is_outside(&self) -> bool {
        self.kind == Kind::Outside
    }

    fn of(kind: Kind, name: String, heap: HeapId, sets: DeclaredSets, may_fault: bool) -> Self {
        let progress = Progress { phase: Phase::Pending, over: false, notices: Vec::new(), waiting: 0 };
        Self {
            name,
            kind,
            heap,
            sets: Mutex::new(Arc::new(sets)),
            may_fault,
            blame: Mutex::new(None),
            timing: None,
            tallied: None,
            progress: Mutex::new(progress),
            moved_on: Condvar::new(),
        }
    }

    /// Counts for the kernel, if it is one's launch.
    pub(crate) fn tallied(&self, count: impl FnOnce(&Tallied)) {
        if let Some(tallied) = &self.tallied {
            count(tallied);
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sets(&self) -> Arc<DeclaredSets> {
        Arc::clone(&self.sets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn declare(&self, sets: DeclaredSets) {
        *self.sets.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(sets);
    }

    /// Enters a phase, and wakes those who waited for one.
    fn enter(&self, mut own: MutexGuard<'_, Progress>, phase: Phase) {
        own.phase = phase;
        let waiting = own.waiting;
        drop(own);
        if waiting > 0 {
            self.moved_on.notify_all();
        }
    }

    /// It is on the device. Gives whether somebody is to be told of its end.
    pub(crate) fn submitted(&self, timeline: Arc<Timeline>, ticket: Ticket) -> bool {
        let own = self.progress();
        let told = !own.notices.is_empty();
        self.enter(own, Phase::Submitted(timeline, ticket));
        told
    }

    /// The host has done it. Gives who is to be told.
    #[must_use]
    pub(crate) fn done(&self) -> Vec<Job> {
        self.end(Phase::Done)
    }

    /// It did not happen. Gives who is to be told.
    #[must_use]
    pub(crate) fn fail(&self, error: PagerError) -> Vec<Job> {
        self.tallied(Tallied::failed);
        let text = error.to_string();
        self.end(Phase::Failed(Some(error), text))
    }

    /// What ends first counts.
    fn end(&self, phase: Phase) -> Vec<Job> {
        let mut own = self.progress();
        if std::mem::replace(&mut own.over, true) {
            return Vec::new();
        }
        let notices = std::mem::take(&mut own.notices);
        self.enter(own, phase);
        notices
    }

    /// The device has completed it, and what it held is given up. Gives who is to be told.
    #[must_use]
    pub(crate) fn released(&self) -> Vec<Job> {
        let mut own = self.progress();
        own.over = true;
        std::mem::take(&mut own.notices)
    }

    /// Has `notice` handed to the notifier when it is over; gives it back if it is already.
    pub(crate) fn when_over(&self, notice: Job) -> Option<Job> {
        let mut own = self.progress();
        if own.over {
            return Some(notice);
        }
        own.notices.push(notice);
        None
    }

    /// Waits until it is on the device, or over.
    pub(crate) fn reach(&self) -> Reached {
        let mut own = self.progress();
        loop {
            match &own.phase {
                Phase::Pending => {
                    own.waiting += 1;
                    own = self.moved_on.wait(own).unwrap_or_else(PoisonError::into_inner);
                    own.waiting -= 1;
                }
                Phase::Submitted(timeline, ticket) => return Reached::Device(Arc::clone(timeline), *ticket),
                Phase::Done => return Reached::Done,
                Phase::Failed(..) => return Reached::Never,
            }
        }
    }

    /// As errors call it.
    pub(crate) fn told(&self) -> String {
        match self.kind {
            Kind::Kernel => format!("kernel {}", self.name),
            Kind::Host | Kind::Outside => self.name.clone(),
        }
    }

    /// Why it never happened: the error itself for the first who asks; for others the same where it can be had twice,
    /// else its text.
    pub(crate) fn why_not(&self) -> PagerError {
        let (error, reason) = match &mut self.progress().phase {
            Phase::Failed(error, text) => {
                (error.as_ref().and_then(PagerError::copied).or_else(|| error.take()), text.clone())
            }
            Phase::Pending | Phase::Submitted(..) | Phase::Done => (None, "it is still to run".into()),
        };
        error.unwrap_or_else(|| match self.kind {
            Kind::Kernel => PagerError::NotLaunched { kernel: self.name.clone(), reason },
            Kind::Host | Kind::Outside => PagerError::NotDone { what: self.name.clone(), reason },
        })
    }

    /// Why it failed, if it is over and did: what the first failed of that one waited for another that failed.
    pub(crate) fn failed(&self) -> Option<String> {
        match &self.progress().phase {
            Phase::Failed(
                Some(
                    PagerError::AfterFailed { reason, .. }
                    | PagerError::NotDone { reason, .. }
                    | PagerError::UserEvent { reason },
                ),
                _,
            ) => Some(reason.clone()),
            Phase::Failed(_, text) => Some(text.clone()),
            Phase::Submitted(..) => self.failure().map(|failure| failure.to_string()),
            Phase::Pending | Phase::Done => None,
        }
    }

    /// Whether it has completed or failed.
    pub(crate) fn is_done(&self) -> Result<bool, GpuError> {
        match &self.progress().phase {
            Phase::Pending => Ok(false),
            Phase::Submitted(timeline, ticket) => timeline.reached(*ticket),
            Phase::Done | Phase::Failed(..) => Ok(true),
        }
    }

    /// Whether nothing more will happen with it, and nothing is held for it: as the scheduler knows.
    pub(crate) fn is_over(&self) -> bool {
        self.progress().over
    }

    /// Whether it is on the device now.
    pub(crate) fn is_running(&self) -> bool {
        match &self.progress().phase {
            Phase::Submitted(timeline, ticket) => !has_reached(timeline.reached(*ticket)),
            Phase::Pending | Phase::Done | Phase::Failed(..) => false,
        }
    }

    /// What went wrong with the kernel's accesses, if anything did.
    pub(crate) fn failure(&self) -> Option<LaunchFailure> {
        let blame = self.blame.lock().unwrap_or_else(PoisonError::into_inner).clone();
        blame.map(|Blame { address, access, cause, place, count }| LaunchFailure {
            kernel: self.name.clone(),
            address,
            access,
            cause,
            place,
            count,
        })
    }
}

/// Whether the place in the timeline was reached. On a lost device everything was; another error of the driver's says
/// nothing, so the launch counts as running.
pub(crate) fn has_reached(answer: Result<bool, GpuError>) -> bool {
    answer.unwrap_or_else(|error| matches!(error, GpuError::DeviceLost))
}
