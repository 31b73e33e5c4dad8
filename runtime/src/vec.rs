//! A vector of fixed length in unified memory, with guards for the CPU and arguments for launches.
//!
//! The borrow checker orders CPU accesses and launches to be; a guard waits for launches in flight. It does *not*
//! grow.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use limosa_model::{Access, Advice, Side};
use limosa_pager::{Residency, ResidencySummary};

use crate::allocation::RawAllocation;
use crate::argument::{Loan, Overwrites, Reads, Writes};
use crate::guard::{ReadGuard, WriteGuard};
use crate::heap::Heap;
use crate::pin::{HostPin, Pinned};
use crate::pointer::GpuPtr;
use crate::shareable::Shareable;
use crate::slice::{UnifiedSlice, UnifiedSliceMut};
use crate::{Error, Result};

/// Elements of `T` at one address for CPU and GPU.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// use limosa::Side;
///
/// let mut vec = context.heap().vec_with(1 << 20, |i| i as u32)?;
/// vec.prefetch_to_device()?;
/// assert_eq!(vec.residency_summary().device, 4 << 20);
/// // The CPU's accesses bring it back, in pieces that grow.
/// assert_eq!(vec.read()?[77], 77);
/// vec.prefetch_range(Side::Host, 0..1 << 18)?;
/// vec.write()?[77] = 0;
/// for run in vec.residency() {
///     println!("{run:?}");
/// }
/// vec.discard()?;
/// assert_eq!(vec.read()?[99_999], 0);
/// # Ok(())
/// # }
/// ```
pub struct UnifiedVec<T: Shareable> {
    raw: Arc<RawAllocation>,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Shareable> UnifiedVec<T> {
    pub(crate) fn new(heap: &Heap, len: usize) -> Result<Self> {
        let () = T::CHECKED;
        let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
        let bytes = bytes.ok_or(Error::TooLarge { elements: len, size: size_of::<T>() })?;
        let raw = RawAllocation::new(heap, bytes as u64, align_of::<T>() as u64)?;
        Ok(Self { raw, len, elements: PhantomData })
    }

    /// Elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory behind it.
    #[must_use]
    pub fn raw(&self) -> &Arc<RawAllocation> {
        &self.raw
    }

    fn base(&self) -> GpuPtr<T> {
        GpuPtr::from_address(self.raw.ptr().address())
    }

    /// A pointer to element `index`, for data structures and kernels.
    ///
    /// # Panics
    /// If `index` is beyond the end.
    #[must_use]
    pub fn ptr(&self, index: usize) -> GpuPtr<T> {
        assert!(index < self.len, "element {index} of a vector of {}", self.len);
        self.base().add(index as u64)
    }

    /// The elements, for reading. Waits for launches that write them.
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`] if some were lost with the device.
    pub fn read(&self) -> Result<ReadGuard<'_, T>> {
        self.all().read()
    }

    /// The elements, for reading and writing. Waits for all launches that use them.
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`] if some were lost with the device.
    pub fn write(&mut self) -> Result<WriteGuard<'_, T>> {
        self.all_mut().into_guard()
    }

    /// The elements for direct or asynchronous I/O (O_DIRECT, io_uring): on the host, writable, and staying there until
    /// the pin is dropped. Waits for launches that use them; launches wait for it.
    ///
    /// # Errors
    /// [`crate::PagerError::PinTooSmall`] below 64 KiB; [`crate::PagerError::Poisoned`] if some were lost with the
    /// device.
    pub fn host_pin(&mut self) -> Result<HostPin<'_, T>> {
        self.raw.settle(self.raw.extent(), Access::Write)?;
        let pin = Pinned::new(&self.raw, self.raw.extent())?;
        // SAFETY: as in `write`.
        let elements = unsafe { std::slice::from_raw_parts_mut(self.base().as_ptr(), self.len) };
        Ok(HostPin::new(elements, pin))
    }

    /// Forgets the elements: those in whole blocks of 64 KiB read as zeros, others may keep their values. Waits for
    /// launches that use them. What is discarded needs not be moved or evicted.
    ///
    /// # Errors
    /// [`crate::GpuError::DeviceLost`].
    pub fn discard(&mut self) -> Result<()> {
        self.raw.uses.wait_for(self.raw.extent(), Access::Write).map_err(|error| self.raw.heap().noticed(error))?;
        self.raw.heap().settle_launches();
        Ok(self.raw.heap().discard(self.raw.extent())?)
    }

    /// A copy of the elements in ordinary memory.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn to_vec(&self) -> Result<Vec<T>> {
        Ok(self.read()?.to_vec())
    }

    /// Moves the elements to the device, so that kernels meet no faults on them, neither reading nor writing; the
    /// CPU's next access brings them back. Waits for moves under way. (To have copies on both sides, let launches
    /// declare what they read.)
    ///
    /// # Errors
    /// [`crate::PagerError::DeviceMemoryFull`], [`crate::GpuError::DeviceLost`].
    pub fn prefetch_to_device(&self) -> Result<()> {
        self.raw.prefetch(Side::Device)
    }

    /// Moves the elements to system RAM, so that the CPU meets no faults on them, neither reading nor writing; a
    /// kernel's next access brings them back.
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`].
    pub fn prefetch_to_host(&self) -> Result<()> {
        self.raw.prefetch(Side::Host)
    }

    /// Prefetches some of the elements, by whole blocks of 64 KiB.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; those of the prefetches above.
    pub fn prefetch_range(&self, side: Side, range: Range<usize>) -> Result<()> {
        self.check(&range)?;
        let size = size_of::<T>() as u64;
        self.raw.prefetch_range(side, range.start as u64 * size, range.len() as u64 * size)
    }

    /// Says how the elements will be used; see [`crate::Heap::advise`]. On vectors below 64 KiB it has no effect.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        self.raw.advise(advice)
    }

    /// Says how some of the elements will be used: those in whole blocks of 64 KiB.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn advise_range(&self, range: Range<usize>, advice: Advice) -> Result<()> {
        self.check(&range)?;
        let size = size_of::<T>() as u64;
        self.raw.advise_range(range.start as u64 * size, range.len() as u64 * size, advice)
    }

    fn check(&self, range: &Range<usize>) -> Result<()> {
        let inside = range.start <= range.end && range.end <= self.len;
        let outside = Error::OutOfRange { start: range.start, end: range.end, len: self.len };
        if inside { Ok(()) } else { Err(outside) }
    }

    /// For a launch: the kernel only reads the elements.
    pub fn reads(&self) -> Loan<'_, Reads<T>> {
        self.all().reads()
    }

    /// For a launch: the kernel may read and write the elements.
    pub fn writes(&mut self) -> Loan<'_, Writes<T>> {
        self.all_mut().writes()
    }

    /// For a launch: the kernel replaces every byte of the elements without reading any before. What they held need not
    /// be moved, and is not to be relied on if the launch cannot be admitted.
    pub fn overwrites(&mut self) -> Loan<'_, Overwrites<T>> {
        self.all_mut().overwrites()
    }

    /// Some of the elements.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn slice(&self, range: Range<usize>) -> Result<UnifiedSlice<'_, T>> {
        self.check(&range)?;
        Ok(UnifiedSlice::new(&self.raw, range))
    }

    /// Some of the elements, to be written.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn slice_mut(&mut self, range: Range<usize>) -> Result<UnifiedSliceMut<'_, T>> {
        self.check(&range)?;
        Ok(UnifiedSliceMut::new(&self.raw, range))
    }

    pub(crate) fn all(&self) -> UnifiedSlice<'_, T> {
        UnifiedSlice::new(&self.raw, 0..self.len)
    }

    pub(crate) fn all_mut(&mut self) -> UnifiedSliceMut<'_, T> {
        UnifiedSliceMut::new(&self.raw, 0..self.len)
    }

    /// Where the elements are now: runs of blocks.
    #[must_use]
    pub fn residency(&self) -> Vec<Residency> {
        self.raw.residency()
    }

    /// Where the elements are now, in bytes of whole blocks.
    #[must_use]
    pub fn residency_summary(&self) -> ResidencySummary {
        self.raw.residency_summary()
    }
}
