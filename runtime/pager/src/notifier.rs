//! Threads for application code that limosa calls: what is to be done when a launch has completed, and what queues have
//! the host do. It does *not* know what that is.
//!
//! Whoever finds that something is over hands its notices over and goes on: that takes one lock that nobody holds for
//! long, and starts nothing, so handlers and the reaper may do it under their locks. A job may do anything, also wait
//! for what only another job brings about; so there is no bound on the threads. As long as any job is to come, one
//! thread is idle: who takes a job while no other is idle starts one first. Idle threads end after a while.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use limosa_os::OsError;

use crate::error::PagerError;

/// How long a thread stays for want of a job.
const LINGER: Duration = Duration::from_secs(1);

/// Something to be done once, by a thread that may be used for anything.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    ready: VecDeque<Job>,
    /// Jobs that were announced and have not begun, those that are ready included.
    announced: usize,
    /// Threads that wait for a job, or are about to.
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The threads of one heap. They hold nothing of it but what jobs do, and are not waited for: a heap may be dropped by
/// one of them, or while one is busy in the application's code.
#[derive(Default)]
pub(crate) struct Notifier {
    shared: Arc<Shared>,
}

impl Notifier {
    /// Announces a job, so that there is a thread when it is handed over.
    ///
    /// # Errors
    /// [`PagerError::Os`] if there is no thread and none can be had; the job must not be handed over then.
    pub(crate) fn announce(&self) -> Result<(), PagerError> {
        let mut state = self.shared.lock();
        state.announced += 1;
        if state.idle > 0 {
            return Ok(());
        }
        state.idle += 1;
        drop(state);
        self.shared.start().inspect_err(|_| self.shared.lock().announced -= 1)
    }

    /// An announced job will not come.
    pub(crate) fn forgo(&self) {
        self.shared.lock().announced -= 1;
        self.shared.changed.notify_all();
    }

    /// Has jobs done that were announced. Neither waits nor starts anything.
    pub(crate) fn hand_over(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut jobs = jobs.into_iter().peekable();
        if jobs.peek().is_some() {
            self.shared.lock().ready.extend(jobs);
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread that was counted as idle already.
    fn start(self: &Arc<Self>) -> Result<(), PagerError> {
        let shared = Arc::clone(self);
        match Builder::new().name("limosa-notice".into()).spawn(move || shared.work()) {
            Ok(_) => Ok(()),
            Err(source) => {
                self.lock().idle -= 1;
                Err(OsError::Mapping { operation: "starting a thread for notices", bytes: 0, source }.into())
            }
        }
    }

    fn work(self: &Arc<Self>) {
        while let Some((job, last)) = self.next() {
            if last {
                // Without it the next job waits for this one, or for the next to be announced: late, not lost.
                let _ = self.start();
            }
            // Jobs catch the panics of the application's code themselves; whatever comes, the thread is counted again.
            let _ = catch_unwind(AssertUnwindSafe(job));
            self.lock().idle += 1;
        }
    }

    /// The next job, and whether this thread must find another to be idle in its place. `None` ends the thread.
    fn next(&self) -> Option<(Job, bool)> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.ready.pop_front() {
                state.announced -= 1;
                state.idle -= 1;
                let last = state.idle == 0 && state.announced > 0;
                if last {
                    state.idle += 1;
                }
                return Some((job, last));
            }
            let spare = state.closed || state.idle > 1 || state.announced == 0;
            if state.closed {
                state.idle -= 1;
                return None;
            }
            if !spare {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.changed.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            if waited.1.timed_out() && state.ready.is_empty() && (state.idle > 1 || state.announced == 0) {
                state.idle -= 1;
                return None;
            }
        }
    }
}
