//! Events: what became of a launch, or of what else a queue or the application was to do. Nothing depends on keeping one.

use std::future::IntoFuture;

use limosa_pager::{LaunchEvent, Profile};

use crate::future::EventFuture;
use crate::{Error, Result};

/// Something that was submitted, or that a [`UserEvent`](crate::UserEvent) is to end. Cheap to clone; dropping it neither
/// waits nor cancels. It keeps the context's heap open.
///
/// There are three ways to learn of its end: [`wait`](Self::wait) blocks, [`on_complete`](Self::on_complete) calls back,
/// and `.await` needs no particular runtime.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// let context = limosa::Context::new()?;
/// let (queue, mut ones) = (context.queue()?, context.heap().vec_zeroed::<f32>(1 << 20)?);
/// let filled = queue.fill(&mut ones, 1.0).submit()?;
/// filled.on_complete(|result| println!("filled: {}", result.is_ok()))?;
/// # async fn later(filled: limosa::Event) -> limosa::Result<()> {
/// filled.await
/// # }
/// # filled.wait()
/// # }
/// ```
#[derive(Clone)]
pub struct Event {
    pub(crate) inner: LaunchEvent,
}

impl Event {
    /// Waits until it is over.
    ///
    /// # Errors
    /// [`crate::LaunchFailure`] if an access of the kernel could not be served; [`crate::GpuError::DeviceLost`];
    /// [`crate::PagerError::AfterFailed`] if it was to run after something that failed, naming both; why else it could not
    /// be done. Of the last only the first who asks gets the error itself, others its text in
    /// [`crate::PagerError::NotLaunched`].
    pub fn wait(&self) -> Result<()> {
        Ok(self.inner.wait()?)
    }

    /// Whether it has completed or failed.
    ///
    /// # Errors
    /// [`crate::GpuError::DeviceLost`].
    pub fn is_complete(&self) -> Result<bool> {
        Ok(self.inner.is_complete()?)
    }

    /// Has `callback` called when it is over, with what [`Self::wait`] gives; at once if it is already. Several are called
    /// in any order, also at the same time.
    ///
    /// It is called by a thread of limosa's that nothing else waits for, so it may take long, submit, wait for other
    /// events (also for what only another callback brings about), and drop anything, the context included. If it panics,
    /// the panic ends there, and is counted in [`crate::Counters::callbacks_panicked`]. Until it returns, the context's
    /// heap stays open.
    ///
    /// # Errors
    /// [`crate::OsError`] if the system has no thread for it; it is not called then.
    pub fn on_complete(&self, callback: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        Ok(self.inner.on_complete(move |result| callback(result.map_err(Error::from)))?)
    }
}

impl Event {
    /// When the launch came how far; waits for it. Of launches on [profiled](crate::QueueBuilder::profiled) queues only,
    /// fills and copies included.
    ///
    /// ```
    /// # fn main() -> limosa::Result<()> {
    /// let context = limosa::Context::new()?;
    /// let (queue, mut ones) = (context.queue_builder().profiled().build()?, context.heap().vec_zeroed::<f32>(1 << 20)?);
    /// let profile = queue.fill(&mut ones, 1.0).submit()?.profile()?;
    /// println!("waited {} ns, ran {} ns", profile.admitted - profile.submitted, profile.device_time());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`crate::PagerError::NotProfiled`] for what is no such launch, or never ran; [`crate::GpuError`] if the device's
    /// clock could not be read.
    pub fn profile(&self) -> Result<Profile> {
        Ok(self.inner.profile()?)
    }
}

impl IntoFuture for Event {
    type Output = Result<()>;
    type IntoFuture = EventFuture;

    /// Gives what [`Self::wait`] gives.
    fn into_future(self) -> EventFuture {
        EventFuture::new(self.inner)
    }
}

impl IntoFuture for &Event {
    type Output = Result<()>;
    type IntoFuture = EventFuture;

    fn into_future(self) -> EventFuture {
        self.clone().into_future()
    }
}
