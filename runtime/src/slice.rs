//! Parts of vectors: what launches and the CPU take where a whole vector is too much. They own nothing.
//!
//! Parts that do not overlap may be used at the same time, one by a kernel and one by the CPU. Where they share a block
//! of 64 KiB, a touch of the CPU's there waits for the kernel, as with any neighbour of what a launch holds.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use limosa_model::{Access, Extent};

use crate::allocation::RawAllocation;
use crate::argument::{Loan, Overwrites, Reads, Writes};
use crate::guard::{ReadGuard, WriteGuard};
use crate::pointer::GpuPtr;
use crate::shareable::Shareable;
use crate::vec::UnifiedVec;
use crate::{Error, Result};

/// Elements that others may read, too: [`crate::UnifiedVec::slice`].
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// # let kernel = context.kernel("fill", limosa_shaders::fill::KERNEL.spirv)?;
/// # let queue = context.queue()?;
/// let vec = context.heap().vec_with(100, |i| i as u32)?;
/// let part = vec.slice(10..20)?;
/// assert_eq!((part.len(), part.read()?[0]), (10, 10));
/// assert_eq!(part.ptr(), vec.ptr(10));
/// // `part.reads()` is what a launch takes.
/// assert_eq!(part.reads().len(), 10);
/// assert!(vec.slice(90..101).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct UnifiedSlice<'a, T: Shareable> {
    memory: &'a Arc<RawAllocation>,
    range: Range<usize>,
    elements: PhantomData<&'a [T]>,
}

impl<'a, T: Shareable> UnifiedSlice<'a, T> {
    /// Of elements that lie in `memory`.
    pub(crate) fn new(memory: &'a Arc<RawAllocation>, range: Range<usize>) -> Self {
        Self { memory, range, elements: PhantomData }
    }

    /// Elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// A pointer to the first element, or to where it would be.
    #[must_use]
    pub fn ptr(&self) -> GpuPtr<T> {
        GpuPtr::from_address(self.memory.ptr().address()).add(self.range.start as u64)
    }

    pub(crate) fn memory(&self) -> &'a Arc<RawAllocation> {
        self.memory
    }

    pub(crate) fn extent(&self) -> Extent {
        let (size, start) = (size_of::<T>() as u64, self.range.start as u64);
        Extent { start: self.memory.extent().start + start * size, len: self.len() as u64 * size }
    }

    /// For a launch: the kernel only reads the elements.
    pub fn reads(&self) -> Loan<'a, Reads<T>> {
        Loan::new(self.memory, self.extent())
    }

    /// The elements, for reading. Waits for launches that write some of them.
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`] if some were lost with the device.
    pub fn read(&self) -> Result<ReadGuard<'a, T>> {
        self.memory.settle(self.extent(), Access::Read)?;
        let base = self.ptr().as_ptr().cast_const();
        // SAFETY: the allocation holds these elements, initialised, and lives as long as the borrow. Launches that write
        // some of them are done; no new one can be submitted (that borrows them exclusively), and nobody else has a
        // mutable reference for the same reason.
        Ok(ReadGuard { elements: unsafe { std::slice::from_raw_parts(base, self.len()) } })
    }
}

/// Elements that nobody else uses: [`crate::UnifiedVec::slice_mut`].
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// # let kernel = context.kernel("fill", limosa_shaders::fill::KERNEL.spirv)?;
/// # let queue = context.queue()?;
/// let mut vec = context.heap().vec_zeroed::<u32>(100)?;
/// let (mut low, high) = vec.slice_mut(0..100)?.split_at(50)?;
/// let launch = queue.launch(&kernel, 50).args((high.writes(), 50u64, 7u32));
/// // SAFETY: fill writes the 50 words of `high`.
/// let event = unsafe { launch.submit()? };
/// // Meanwhile the CPU works on the other half.
/// low.write()?.fill(1);
/// event.wait()?;
/// assert_eq!((vec.read()?[49], vec.read()?[50]), (1, 7));
/// # Ok(())
/// # }
/// ```
pub struct UnifiedSliceMut<'a, T: Shareable> {
    part: UnifiedSlice<'a, T>,
    exclusive: PhantomData<&'a mut [T]>,
}

impl<'a, T: Shareable> UnifiedSliceMut<'a, T> {
    /// Of elements that lie in `memory` and are borrowed exclusively.
    pub(crate) fn new(memory: &'a Arc<RawAllocation>, range: Range<usize>) -> Self {
        Self { part: UnifiedSlice::new(memory, range), exclusive: PhantomData }
    }

    /// Elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.part.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.part.is_empty()
    }

    /// A pointer to the first element, or to where it would be.
    #[must_use]
    pub fn ptr(&self) -> GpuPtr<T> {
        self.part.ptr()
    }

    /// The first `middle` elements, and the others.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn split_at(self, middle: usize) -> Result<(Self, Self)> {
        let UnifiedSlice { memory, range, .. } = &self.part;
        let at = range.start.checked_add(middle).filter(|at| *at <= range.end);
        let at = at.ok_or(Error::OutOfRange { start: middle, end: self.len(), len: self.len() })?;
        Ok((Self::new(memory, range.start..at), Self::new(memory, at..range.end)))
    }

    /// The same elements for a shorter time.
    pub fn reborrow(&mut self) -> UnifiedSliceMut<'_, T> {
        UnifiedSliceMut { part: self.part.clone(), exclusive: PhantomData }
    }

    /// The same elements for reading, as long as this is borrowed.
    pub(crate) fn shared(&self) -> &UnifiedSlice<'_, T> {
        &self.part
    }

    /// For a launch: the kernel only reads the elements.
    pub fn reads(&self) -> Loan<'_, Reads<T>> {
        self.part.reads()
    }

    /// For a launch: the kernel may read and write the elements.
    pub fn writes(self) -> Loan<'a, Writes<T>> {
        Loan::new(self.part.memory, self.part.extent())
    }

    /// For a launch: the kernel replaces every byte of the elements without reading any before; see
    /// [`crate::UnifiedVec::overwrites`].
    pub fn overwrites(self) -> Loan<'a, Overwrites<T>> {
        Loan::new(self.part.memory, self.part.extent())
    }

    /// The elements, for reading. Waits for launches that write some of them.
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`] if some were lost with the device.
    pub fn read(&self) -> Result<ReadGuard<'_, T>> {
        self.part.read()
    }

    /// The elements, for reading and writing. Waits for all launches that use some of them.
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`] if some were lost with the device.
    pub fn write(&mut self) -> Result<WriteGuard<'_, T>> {
        self.reborrow().into_guard()
    }

    /// As [`Self::write`], for all of the borrow.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn into_guard(self) -> Result<WriteGuard<'a, T>> {
        self.part.memory.settle(self.part.extent(), Access::Write)?;
        let base = self.ptr().as_ptr();
        // SAFETY: as in `UnifiedSlice::read`, and the elements are borrowed exclusively, so no launch can be submitted and
        // no other reference exist; launches in flight on them are done.
        Ok(WriteGuard { elements: unsafe { std::slice::from_raw_parts_mut(base, self.len()) } })
    }
}

impl<'a, T: Shareable> From<&'a UnifiedVec<T>> for UnifiedSlice<'a, T> {
    fn from(vec: &'a UnifiedVec<T>) -> Self {
        vec.all()
    }
}

impl<'a, T: Shareable> From<&'a mut UnifiedVec<T>> for UnifiedSliceMut<'a, T> {
    fn from(vec: &'a mut UnifiedVec<T>) -> Self {
        vec.all_mut()
    }
}
