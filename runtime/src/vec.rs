//! A vector of fixed length in unified memory, with guards for the CPU and arguments for launches.
//!
//! The borrow checker orders CPU accesses and launches to be; a guard waits for launches in flight. It does *not*
//! grow.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use limosa_model::{Access, Advice, Extent, Side};
use limosa_pager::{Residency, ResidencySummary};

use crate::heap::Heap;
use crate::pin::{HostPin, Pinned};
use crate::pointer::GpuPtr;
use crate::raw::RawAllocation;
use crate::shareable::Shareable;
use crate::{Error, Result};

/// Elements of `T` at one address for CPU and GPU.
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
        self.raw.settle(Access::Read)?;
        // SAFETY: the allocation holds `len` initialised elements and lives as long as the guard's borrow. Launches
        // that write it are done; no new one can be submitted (that borrows `self` exclusively), and nobody else has
        // a mutable reference for the same reason.
        let elements = unsafe { std::slice::from_raw_parts(self.base().as_ptr().cast_const(), self.len) };
        Ok(ReadGuard { elements })
    }

    /// The elements, for reading and writing. Waits for all launches that use them.
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`] if some were lost with the device.
    pub fn write(&mut self) -> Result<WriteGuard<'_, T>> {
        self.raw.settle(Access::Write)?;
        // SAFETY: as in `read`, and `self` is borrowed exclusively, so no launch can be submitted and no other
        // reference exist; launches in flight are done.
        let elements = unsafe { std::slice::from_raw_parts_mut(self.base().as_ptr(), self.len) };
        Ok(WriteGuard { elements })
    }

    /// The elements for direct or asynchronous I/O (O_DIRECT, io_uring): on the host, writable, and staying there until
    /// the pin is dropped. Waits for launches that use them; launches wait for it.
    ///
    /// # Errors
    /// [`crate::PagerError::PinTooSmall`] below 64 KiB; [`crate::PagerError::Poisoned`] if some were lost with the
    /// device.
    pub fn host_pin(&mut self) -> Result<HostPin<'_, T>> {
        self.raw.settle(Access::Write)?;
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
        self.raw.uses.wait_for(Access::Write).map_err(|error| self.raw.heap().noticed(error))?;
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

    /// Where `range` of the elements is in the heap, clipped to those there are.
    pub(crate) fn bytes_of(&self, range: Range<usize>) -> Extent {
        let size = size_of::<T>() as u64;
        let (start, end) = (range.start.min(self.len) as u64, range.end.min(self.len) as u64);
        Extent { start: self.raw.extent().start + start * size, len: end.saturating_sub(start) * size }
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

/// Elements that the CPU may read.
pub struct ReadGuard<'a, T> {
    elements: &'a [T],
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.elements
    }
}

impl<T> ReadGuard<'_, T> {
    /// The element that `pointer` points to, if it is one of these.
    #[must_use]
    pub fn follow(&self, pointer: GpuPtr<T>) -> Option<&T> {
        self.elements.get(index_in(self.elements, pointer)?)
    }
}

/// Elements that the CPU may read and write.
pub struct WriteGuard<'a, T> {
    elements: &'a mut [T],
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.elements
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.elements
    }
}

impl<T> WriteGuard<'_, T> {
    /// The element that `pointer` points to, if it is one of these.
    #[must_use]
    pub fn follow(&self, pointer: GpuPtr<T>) -> Option<&T> {
        self.elements.get(index_in(self.elements, pointer)?)
    }

    /// The element that `pointer` points to, if it is one of these.
    #[must_use]
    pub fn follow_mut(&mut self, pointer: GpuPtr<T>) -> Option<&mut T> {
        let index = index_in(self.elements, pointer)?;
        self.elements.get_mut(index)
    }
}

fn index_in<T>(elements: &[T], pointer: GpuPtr<T>) -> Option<usize> {
    let offset = pointer.address().checked_sub(elements.as_ptr() as u64)?;
    let size = (size_of::<T>() as u64).max(1);
    if offset % size == 0 { usize::try_from(offset / size).ok() } else { None }
}
