//! Queues: where launches are submitted to. They do *not* know what a launch touches.

use std::sync::Arc;

use limosa_pager::{Heap, LaunchQueue};

use crate::Result;
use crate::launch::{Grid, Launch, Launchable};

/// Launches that run in the order of their submission.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// # let kernel = context.kernel("fill", limosa_shaders::fill::KERNEL.spirv)?;
/// # let queue = context.queue()?;
/// let mut vec = context.heap().vec_zeroed::<u32>(1000)?;
/// for value in 1..=3u32 {
///     let launch = queue.launch(&kernel, 1000).args((vec.writes(), 1000u64, value));
///     // SAFETY: fill writes the 1000 words of `vec`.
///     unsafe { launch.submit()? };
/// }
/// // They ran in this order.
/// queue.wait_idle()?;
/// assert_eq!(vec.read()?[7], 3);
/// # Ok(())
/// # }
/// ```
pub struct Queue {
    pub(crate) inner: LaunchQueue,
}

impl Queue {
    pub(crate) fn new(heap: &Arc<Heap>) -> Result<Self> {
        Ok(Self { inner: LaunchQueue::new(heap)? })
    }

    /// Begins a launch of `kernel` with at least `invocations` invocations, in whole workgroups: the kernel compares
    /// its index with a count.
    pub fn launch<'a, K: Launchable>(&'a self, kernel: &'a K, invocations: u64) -> Launch<'a, K> {
        Launch::new(self, kernel, Grid::Invocations(invocations))
    }

    /// Begins a launch of `kernel` with at least so many invocations in each dimension, in whole workgroups: the kernel
    /// compares `gl_GlobalInvocationID` with counts (`limosa_index` is for launches of one dimension).
    pub fn launch_nd<'a, K: Launchable>(&'a self, kernel: &'a K, invocations: [u64; 3]) -> Launch<'a, K> {
        Launch::new(self, kernel, Grid::Each(invocations))
    }

    /// Begins a launch of `kernel` with so many workgroups in each dimension.
    pub fn launch_groups<'a, K: Launchable>(&'a self, kernel: &'a K, groups: [u32; 3]) -> Launch<'a, K> {
        Launch::new(self, kernel, Grid::Groups(groups))
    }

    /// Waits for everything launched so far.
    ///
    /// # Errors
    /// [`crate::GpuError::DeviceLost`]. What single launches met is told by their events.
    pub fn wait_idle(&self) -> Result<()> {
        Ok(self.inner.wait_idle()?)
    }
}
