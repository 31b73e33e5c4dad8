//! One value in unified memory. It is a vector of one: the rules are those of [`UnifiedVec`].

use std::ops::{Deref, DerefMut};

use crate::Result;
use crate::argument::{Loan, Overwrites, Reads, Writes};
use crate::guard::{ReadGuard, WriteGuard};
use crate::pointer::GpuPtr;
use crate::shareable::Shareable;
use crate::vec::UnifiedVec;

/// A `T` at one address for CPU and GPU.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// # let kernel = context.kernel("fill", limosa_shaders::fill::KERNEL.spirv)?;
/// # let queue = context.queue()?;
/// let mut total = context.heap().boxed(1u32)?;
/// let launch = queue.launch(&kernel, 1).args((total.overwrites(), 1u64, 42u32));
/// // SAFETY: fill writes one word.
/// unsafe { launch.submit()? };
/// assert_eq!(total.get()?, 42);
/// *total.write()? += 1;
/// assert_eq!(*total.read()?, 43);
/// # Ok(())
/// # }
/// ```
pub struct UnifiedBox<T: Shareable> {
    one: UnifiedVec<T>,
}

impl<T: Shareable> UnifiedBox<T> {
    pub(crate) fn new(one: UnifiedVec<T>) -> Self {
        Self { one }
    }

    /// A pointer to it, for data structures and kernels.
    #[must_use]
    pub fn ptr(&self) -> GpuPtr<T> {
        self.one.ptr(0)
    }

    /// The value, for reading; see [`UnifiedVec::read`].
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`] if it was lost with the device.
    pub fn read(&self) -> Result<BoxReadGuard<'_, T>> {
        Ok(BoxReadGuard { one: self.one.read()? })
    }

    /// The value, for reading and writing; see [`UnifiedVec::write`].
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`] if it was lost with the device.
    pub fn write(&mut self) -> Result<BoxWriteGuard<'_, T>> {
        Ok(BoxWriteGuard { one: self.one.write()? })
    }

    /// The value.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn get(&self) -> Result<T> {
        Ok(*self.read()?)
    }

    /// For a launch: the kernel only reads the value.
    pub fn reads(&self) -> Loan<'_, Reads<T>> {
        self.one.reads()
    }

    /// For a launch: the kernel may read and write the value.
    pub fn writes(&mut self) -> Loan<'_, Writes<T>> {
        self.one.writes()
    }

    /// For a launch: the kernel replaces the value without reading it before.
    pub fn overwrites(&mut self) -> Loan<'_, Overwrites<T>> {
        self.one.overwrites()
    }

    /// As a vector of one element: for prefetch and residency.
    #[must_use]
    pub fn as_vec(&self) -> &UnifiedVec<T> {
        &self.one
    }

    /// As a vector of one element that a launch may write.
    #[must_use]
    pub fn as_mut_vec(&mut self) -> &mut UnifiedVec<T> {
        &mut self.one
    }
}

/// A value that the CPU may read.
pub struct BoxReadGuard<'a, T> {
    one: ReadGuard<'a, T>,
}

impl<T> Deref for BoxReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.one[0]
    }
}

/// A value that the CPU may read and write.
pub struct BoxWriteGuard<'a, T> {
    one: WriteGuard<'a, T>,
}

impl<T> Deref for BoxWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.one[0]
    }
}

impl<T> DerefMut for BoxWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.one[0]
    }
}
