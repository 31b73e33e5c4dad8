//! Events: what became of a launch. Nothing depends on keeping one.

use limosa_pager::LaunchEvent;

use crate::Result;

/// A launch that was submitted. Dropping it neither waits nor cancels.
pub struct Event {
    pub(crate) inner: LaunchEvent,
}

impl Event {
    /// Waits for the launch.
    ///
    /// # Errors
    /// [`crate::LaunchFailure`] if an access of the kernel could not be served; [`crate::GpuError::DeviceLost`].
    pub fn wait(&self) -> Result<()> {
        Ok(self.inner.wait()?)
    }

    /// Whether the launch has completed.
    ///
    /// # Errors
    /// [`crate::GpuError::DeviceLost`].
    pub fn is_complete(&self) -> Result<bool> {
        Ok(self.inner.is_complete()?)
    }
}
