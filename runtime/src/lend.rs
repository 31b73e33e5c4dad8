//! Collections lent to launches by value: a launch owns what it may touch until it has completed, and gives it back.
//!
//! A guard that waits when it is dropped would not do: safe code may forget it, and go on using what it borrowed while
//! the kernel runs. Here nothing is borrowed, so forgetting leaks, as ever. For what cannot be given away there is
//! [`crate::scope()`]. It does *not* know what is in a collection; see [`crate::UnifiedAllocator`].

use std::fmt;

use limosa_gpu::GpuError;
use limosa_model::Access;
use limosa_pager::LaunchMark;

use crate::allocator::UnifiedAllocator;
use crate::event::Event;
use crate::launch::Launch;
use crate::{Error, Result};

impl<'a> Launch<'a> {
    /// Lends `value`, whose memory is `allocator`'s, to the launch, which only reads it. No argument: the kernel has
    /// pointers from elsewhere. All that the allocator has given out until now is kept, and held for reading.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use allocator_api2::vec::Vec;
    /// use limosa::GpuPtr;
    ///
    /// let context = limosa::Context::new()?;
    /// let (heap, queue) = (context.heap(), context.queue()?);
    /// let copy = context.kernel("copy", limosa_shaders::copy::KERNEL.spirv)?;
    /// let allocator = heap.allocator();
    /// let mut words = Vec::new_in(allocator.clone());
    /// words.extend(0..1000u32);
    /// let mut copied = heap.vec_zeroed::<u32>(1000)?;
    ///
    /// let from = GpuPtr::<u32>::from_address(words.as_ptr() as u64);
    /// let launch = queue.launch(&copy, 1000).args((copied.writes(), from, 1000u64));
    /// // SAFETY: copy reads 1000 words, all of `words`, and writes as many of `copied`.
    /// let lent = unsafe { launch.lend(words, &allocator).submit()? };
    /// let mut words = lent.wait()?;
    /// words.push(1000);
    /// assert_eq!(copied.read()?[..], words[..1000]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn lend<C: Send + 'static>(self, value: C, allocator: &UnifiedAllocator) -> Lending<'a, C> {
        self.lend_for(value, allocator, Access::Read)
    }

    /// As [`Self::lend`], and the kernel may write it, too.
    pub fn lend_mut<C: Send + 'static>(self, value: C, allocator: &UnifiedAllocator) -> Lending<'a, C> {
        self.lend_for(value, allocator, Access::Write)
    }

    fn lend_for<C>(self, value: C, allocator: &UnifiedAllocator, access: Access) -> Lending<'a, C> {
        let kept = Kept { value: Some(value), mark: None, allocator: allocator.clone() };
        Lending { launch: self.with_allocator(allocator, access), kept }
    }
}

/// A launch to be that is lent a `C`. Dropping it gives up both.
#[must_use = "a launch happens when it is submitted"]
pub struct Lending<'a, C> {
    launch: Launch<'a>,
    kept: Kept<C>,
}

impl<C> Lending<'_, C> {
    /// Submits the launch.
    ///
    /// # Safety
    /// As [`Launch::submit`]; and of what is lent, the kernel reads only what a thread that was given the value could read
    /// without synchronisation, all of it in memory of its allocator. Lent by [`Launch::lend_mut`], it writes only what
    /// that thread could, and leaves behind what that thread could have left: values of the types, and a collection
    /// that is in order.
    ///
    /// # Errors
    /// As [`Launch::submit`]; the value is given back with the error then.
    pub unsafe fn submit(self) -> Result<Lent<C>, Unreturned<C>> {
        let Self { launch, mut kept } = self;
        // SAFETY: as the caller promises. No reference to what is lent exists until the launch has completed: the value
        // is owned here, and given out or dropped only after that.
        match unsafe { launch.submit() } {
            Ok(event) => {
                kept.mark = Some(event.inner.mark());
                Ok(Lent { event, kept })
            }
            Err(error) => Err(Unreturned { error: Box::new(error), kept }),
        }
    }
}

/// A launch that was submitted, and what it was lent. Dropping it waits for the launch, then drops the value, or leaks it
/// where its contents were lost with the device; forgetting it leaks the value.
#[must_use = "the launch's result and what it was lent are given by `wait`"]
pub struct Lent<C> {
    event: Event,
    kept: Kept<C>,
}

impl<C> Lent<C> {
    /// The launch's event: to order others behind it, or to ask whether it is done.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Waits for the launch, and gives back what it was lent.
    ///
    /// # Errors
    /// Those of [`Event::wait`]; [`crate::PagerError::Poisoned`] if contents were lost with the device. The error still
    /// has the value.
    pub fn wait(self) -> Result<C, Unreturned<C>> {
        self.kept.give(self.event.wait())
    }
}

/// Why a launch failed, with what it was lent. As an [`Error`], it drops the value.
pub struct Unreturned<C> {
    error: Box<Error>,
    kept: Kept<C>,
}

impl<C> Unreturned<C> {
    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The value in spite of that. After a failed launch that it was lent to for writing, its contents are what the
    /// kernel made of them.
    ///
    /// # Errors
    /// If contents were lost with the device, this error again: there is nothing to be had but to drop it, which leaks
    /// the value.
    pub fn into_value(self) -> Result<C, Self> {
        let Self { error, kept } = self;
        kept.give(Ok(())).map_err(|Self { kept, .. }| Self { error, kept })
    }
}

impl<C> fmt::Debug for Unreturned<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unreturned({:?})", self.error)
    }
}

impl<C> fmt::Display for Unreturned<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<C> std::error::Error for Unreturned<C> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl<C> From<Unreturned<C>> for Error {
    fn from(unreturned: Unreturned<C>) -> Self {
        *unreturned.error
    }
}

/// What a launch was lent, out of reach until it is done.
struct Kept<C> {
    value: Option<C>,
    /// The launch, once it is submitted.
    mark: Option<LaunchMark>,
    allocator: UnifiedAllocator,
}

impl<C> Kept<C> {
    /// Gives the value back, unless something has failed, or fails now.
    fn give(mut self, so_far: Result<()>) -> Result<C, Unreturned<C>> {
        match so_far.and_then(|()| self.settle()).map(|()| self.value.take()) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => unreachable!("the value is here until it is given"),
            Err(error) => Err(Unreturned { error: Box::new(error), kept: self }),
        }
    }

    /// Waits for the launch, whatever became of it, and makes sure that the value can be touched.
    fn settle(&self) -> Result<()> {
        match self.mark.as_ref().map_or(Ok(()), LaunchMark::wait) {
            Ok(()) => self.allocator.settle(),
            // Nothing runs any more, and what was not lost can be touched.
            Err(GpuError::DeviceLost) => self.allocator.settle_lost(),
            Err(not_waited) => Err(not_waited.into()),
        }
    }
}

impl<C> Drop for Kept<C> {
    fn drop(&mut self) {
        if self.value.is_some() && self.settle().is_err() {
            // Dropping it could touch what cannot be touched.
            std::mem::forget(self.value.take());
        }
    }
}
