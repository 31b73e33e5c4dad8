//! Events that the application ends, and those that stand in for events of another context. They hold nothing, and
//! whoever must end one and does not, by dropping it, fails those that wait: nothing hangs.

use std::sync::Arc;

use crate::core::Core;
use crate::error::PagerError;
use crate::event::LaunchEvent;
use crate::heap::Heap;
use crate::notifier::Job;
use crate::record::Record;

impl Core {
    /// Something is over that was not on the device: tells those who are to be told, and has the reaper admit what waited
    /// for it. Does not wait.
    pub(crate) fn ended(&self, notices: Vec<Job>) {
        self.notifier.hand_over(notices);
        self.call_reaper();
    }
}

/// The end of an event that the application decides.
pub struct UserEvent {
    event: LaunchEvent,
}

impl UserEvent {
    /// One that is still to be ended.
    #[must_use]
    pub fn new(heap: &Arc<Heap>) -> Self {
        Self::named(heap, "the user event")
    }

    fn named(heap: &Arc<Heap>, name: &str) -> Self {
        let record = Record::of_outside(name, heap.core().id);
        Self { event: LaunchEvent { record, queue: None, heap: Arc::clone(heap) } }
    }

    /// What others wait for.
    #[must_use]
    pub fn event(&self) -> LaunchEvent {
        self.event.clone()
    }

    /// It has happened. Does not wait for those that it lets go on.
    pub fn complete(self) {
        let notices = self.event.record.done();
        self.event.heap.core().ended(notices);
    }

    /// It will not happen: what waits for it fails.
    pub fn fail(self, reason: String) {
        self.end(PagerError::UserEvent { reason });
    }

    fn end(&self, error: PagerError) {
        let notices = self.event.record.fail(error);
        self.event.heap.core().ended(notices);
    }
}

impl Drop for UserEvent {
    fn drop(&mut self) {
        if !self.event.record.is_over() {
            let reason = "it was dropped before it was completed".into();
            self.end(PagerError::UserEvent { reason });
        }
    }
}

impl Heap {
    /// A wait list as the heap's scheduler knows it: an event of another heap is stood in for by one of this heap's, which
    /// a notice of the other ends.
    pub(crate) fn wait_list(self: &Arc<Self>, after: &[LaunchEvent]) -> Result<Vec<Arc<Record>>, PagerError> {
        let own = |event: &LaunchEvent| {
            if event.record.heap == self.core().id { Ok(Arc::clone(&event.record)) } else { self.stand_in(event) }
        };
        after.iter().map(own).collect()
    }

    fn stand_in(self: &Arc<Self>, foreign: &LaunchEvent) -> Result<Arc<Record>, PagerError> {
        let own = UserEvent::named(self, &format!("{} of another context", foreign.record.told()));
        let record = Arc::clone(&own.event.record);
        let theirs = Arc::clone(&foreign.record);
        let pass_on = move || match theirs.failed() {
            None => own.complete(),
            Some(reason) => own.end(PagerError::NotDone { what: own.event.record.name.clone(), reason }),
        };
        foreign.notify(Box::new(pass_on))?;
        Ok(record)
    }
}
