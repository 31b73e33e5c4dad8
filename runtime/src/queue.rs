//! Queues: where launches are submitted to. They do *not* know what a launch touches.

use limosa_pager::{LaunchEvent, LaunchQueue, Marker};

use crate::Result;
use crate::event::Event;
use crate::launch::{Grid, Launch, Launchable};

/// What a device is to do: in the order of submission, unless [built](crate::QueueBuilder) otherwise. Dropping it waits,
/// unless anything of the context waits for a [`UserEvent`](crate::UserEvent), another context or a pin, which may be this
/// thread's to end: what is submitted then goes on by itself.
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

    /// An event for when all of `events` are over; it fails if any of them did. Without any, it is for everything
    /// submitted to the queue before, whether that failed or not. On an in-order queue it comes in its turn, so always
    /// after what was submitted before.
    ///
    /// ```
    /// # fn main() -> limosa::Result<()> {
    /// let context = limosa::Context::new()?;
    /// let queue = context.queue_builder().out_of_order().build()?;
    /// let (mut a, mut b) = (context.heap().vec_zeroed::<u32>(100)?, context.heap().vec_zeroed::<u32>(100)?);
    /// let (one, two) = (queue.fill(&mut a, 1).submit()?, queue.fill(&mut b, 2).submit()?);
    /// let both = queue.marker([&one, &two])?;
    /// both.wait()
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`crate::GpuError::DeviceLost`]; [`crate::OsError`] if an event is of another context and the system has no thread
    /// to wait for it.
    pub fn marker<'e>(&self, events: impl IntoIterator<Item = &'e Event>) -> Result<Event> {
        self.mark(Marker::Passes, events)
    }

    /// As [`Self::marker`], and what is submitted to this queue later begins only when that is over, also on an
    /// out-of-order queue, and whether it failed or not.
    ///
    /// # Errors
    /// As [`Self::marker`].
    pub fn barrier<'e>(&self, events: impl IntoIterator<Item = &'e Event>) -> Result<Event> {
        self.mark(Marker::Stops, events)
    }

    fn mark<'e>(&self, marker: Marker, events: impl IntoIterator<Item = &'e Event>) -> Result<Event> {
        let after: Vec<LaunchEvent> = events.into_iter().map(|event| event.inner.clone()).collect();
        Ok(Event { inner: self.inner.marker(marker, &after)? })
    }

    /// Waits for everything submitted so far.
    ///
    /// # Errors
    /// [`crate::GpuError::DeviceLost`]. What became of each is told by its event.
    pub fn wait_idle(&self) -> Result<()> {
        Ok(self.inner.wait_idle()?)
    }
}
