//! Events that the application ends itself. They do *not* end by themselves, except by being dropped.

use crate::event::Event;

/// The end of an event that the application decides; made by [`Context::user_event`](crate::Context::user_event).
/// Dropped without a decision, it fails what waits for it: nothing hangs.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// let context = limosa::Context::new()?;
/// let (queue, mut words) = (context.queue()?, context.heap().vec_zeroed::<u32>(1000)?);
/// let go = context.user_event();
/// let filled = queue.fill(&mut words, 7).after(&go.event()).submit()?;
/// assert!(!filled.is_complete()?);
/// go.complete();
/// filled.wait()
/// # }
/// ```
#[must_use = "dropped, it fails what waits for it"]
pub struct UserEvent {
    inner: limosa_pager::UserEvent,
}

impl UserEvent {
    pub(crate) fn new(heap: &std::sync::Arc<limosa_pager::Heap>) -> Self {
        Self { inner: limosa_pager::UserEvent::new(heap) }
    }

    /// What others wait for: launches by [`Launch::after`](crate::Launch::after), also on other contexts; threads, tasks
    /// and callbacks as for any event.
    #[must_use]
    pub fn event(&self) -> Event {
        Event { inner: self.inner.event() }
    }

    /// It has happened: what waits goes on. Does not wait for that.
    pub fn complete(self) {
        self.inner.complete();
    }

    /// It will not happen: what waits fails with [`crate::PagerError::UserEvent`], and what was to run after it with
    /// [`crate::PagerError::AfterFailed`], both with this reason.
    pub fn fail(self, reason: impl Into<String>) {
        self.inner.fail(reason.into());
    }
}
