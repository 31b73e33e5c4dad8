//! The heap as applications see it: allocation by type, and what is known of the whole. No policy is set here.

use std::sync::Arc;

use limosa_model::{Advice, Extent, HostRange, Side};
use limosa_pager::{AllocationOptions, Backing, Counters, Home, Residency};

use crate::allocation::RawAllocation;
use crate::allocator::UnifiedAllocator;
use crate::boxed::UnifiedBox;
use crate::shareable::Shareable;
use crate::thrashing::Thrashing;
use crate::vec::UnifiedVec;
use crate::watch::ResidencyWatch;
use crate::{Error, Result};

/// A handle to a context's heap; cheap to clone.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// let heap = context.heap();
/// let squares = heap.vec_with(1000, |i| (i * i) as u64)?;
/// let copy = heap.vec_from(&squares.read()?)?;
/// let zeros = heap.vec_zeroed::<f64>(1000)?;
/// let one = heap.boxed(5u32)?;
/// assert_eq!((copy.read()?[9], zeros.read()?[9], one.get()?), (81, 0.0, 5));
/// println!("{} bytes of RAM, {} of {} of VRAM", heap.host_bytes(), heap.device_bytes(), heap.device_budget());
/// println!("{:?}", heap.counters());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Heap {
    pub(crate) inner: Arc<limosa_pager::Heap>,
    /// What it allocates with: `allocations`.
    pub(crate) options: AllocationOptions,
}

impl Heap {
    /// The engine underneath: for the benches that measure what this crate's calls cost above its own.
    #[doc(hidden)]
    #[must_use]
    pub fn engine(&self) -> &Arc<limosa_pager::Heap> {
        &self.inner
    }

    /// A vector whose element *i* is `element(i)`.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`crate::PagerError::HeapFull`], [`crate::OsError::OutOfMemory`].
    pub fn vec_with<T: Shareable>(&self, len: usize, mut element: impl FnMut(usize) -> T) -> Result<UnifiedVec<T>> {
        let vec = UnifiedVec::<T>::new(self, len)?;
        if len > 0 {
            let base = vec.ptr(0).as_ptr();
            for index in 0..len {
                // SAFETY: inside the allocation, of which nobody else knows yet.
                unsafe { base.add(index).write(element(index)) };
            }
        }
        Ok(vec)
    }

    /// A vector with the elements of `values`: of a slice, or of a vector of another context's, as in
    /// `heap.vec_from(&other.read()?)`.
    ///
    /// # Errors
    /// As [`Self::vec_with`].
    pub fn vec_from<T: Shareable>(&self, values: &[T]) -> Result<UnifiedVec<T>> {
        self.vec_with(values.len(), |index| values[index])
    }

    /// A vector of zeros. From 64 KiB on it takes up no bandwidth before it is used.
    ///
    /// # Errors
    /// As [`Self::vec_with`].
    pub fn vec_zeroed<T: Shareable>(&self, len: usize) -> Result<UnifiedVec<T>> {
        let vec = UnifiedVec::<T>::new(self, len)?;
        let bytes = len * size_of::<T>();
        // Whole blocks read as zeros by themselves; a smaller one shares its block with others' leavings.
        if bytes > 0 && self.options.home == Home::Migrating && vec.raw().len() < limosa_model::BLOCK {
            // SAFETY: all of the allocation, of which nobody else knows yet; zeros are valid for `T`.
            unsafe { std::ptr::write_bytes(vec.ptr(0).as_ptr().cast::<u8>(), 0, bytes) };
        }
        Ok(vec)
    }

    /// One value.
    ///
    /// # Errors
    /// As [`Self::vec_with`].
    pub fn boxed<T: Shareable>(&self, value: T) -> Result<UnifiedBox<T>> {
        Ok(UnifiedBox::new(self.vec_with(1, |_| value)?))
    }

    /// Bytes without a type; see [`RawAllocation`]. From 64 KiB on they read as zeros, below they are arbitrary.
    ///
    /// # Errors
    /// [`crate::PagerError::HeapFull`], [`crate::PagerError::Alignment`], [`crate::OsError::OutOfMemory`].
    pub fn allocate(&self, len: u64, align: u64) -> Result<Arc<RawAllocation>> {
        RawAllocation::new(self, len, align)
    }

    /// Bytes of device memory that is in [`Home::SharedDevice`] now.
    #[must_use]
    pub fn shared_device_bytes(&self) -> u64 {
        self.inner.shared_device_bytes()
    }

    /// An allocator for ordinary collections, with blocks of its own; see [`UnifiedAllocator`].
    #[must_use]
    pub fn allocator(&self) -> UnifiedAllocator {
        UnifiedAllocator::new(self)
    }

    /// The CPU's addresses of the heap.
    #[must_use]
    pub fn range(&self) -> HostRange {
        self.inner.range()
    }

    /// The addresses under which a software GPU's page table lies: for tests that look into page tables.
    #[must_use]
    pub fn device_range(&self) -> Option<HostRange> {
        self.inner.device_range()
    }

    /// Counters since the context was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.counters()
    }

    /// The pages behind the heap.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        self.inner.backing()
    }

    /// Whether `read(2)`, `write(2)` and other system calls may be given any address of the heap. If not, prefetch to
    /// the host first; else they fail with EFAULT on memory that is on the device.
    #[must_use]
    pub fn serves_system_calls(&self) -> bool {
        self.inner.serves_system_calls()
    }

    /// Bytes of RAM that host frames take now.
    #[must_use]
    pub fn host_bytes(&self) -> u64 {
        self.inner.host_bytes()
    }

    /// Bytes of RAM that host frames may come to take, for all that is allocated now, by whole chunks; never above the
    /// host limit.
    #[must_use]
    pub fn host_committed(&self) -> u64 {
        self.inner.host_committed()
    }

    /// Bytes of RAM that host frames take as the kernel counts the memory behind them: for tests of the budget.
    ///
    /// # Errors
    /// [`crate::OsError`].
    pub fn host_frames_resident(&self) -> Result<u64> {
        Ok(self.inner.host_frames_resident()?)
    }

    /// Bytes of VRAM in use; never above [`Self::device_budget`].
    #[must_use]
    pub fn device_bytes(&self) -> u64 {
        self.inner.device_bytes()
    }

    /// Bytes of VRAM that may be used.
    #[must_use]
    pub fn device_budget(&self) -> u64 {
        self.inner.device_budget()
    }

    /// Bytes of VRAM as the kernel counts the memory behind it: for tests of the budget on software devices.
    ///
    /// # Errors
    /// [`crate::OsError`].
    pub fn device_frames_resident(&self) -> Result<u64> {
        Ok(self.inner.device_frames_resident()?)
    }

    /// Where everything is that `start..start + len` (CPU addresses) covers.
    ///
    /// # Errors
    /// [`crate::PagerError::NotAllocated`] if it is not inside the heap.
    pub fn residency(&self, start: u64, len: u64) -> Result<Vec<Residency>> {
        Ok(self.inner.residency(self.extent(start, len)?))
    }

    /// Says of a range how it will be used, until it is freed or something else is said. Advice changes no result and
    /// never makes anything fail. It applies to blocks of 64 KiB of which the range has every allocated byte; blocks
    /// of which it has a part only, or which small allocations share, stay as they are.
    ///
    /// # Errors
    /// [`crate::PagerError::NotAllocated`] if part of it is not allocated; nothing is changed then.
    pub fn advise(&self, range: HostRange, advice: Advice) -> Result<()> {
        Ok(self.inner.advise(self.extent(range.start.0, range.len)?, advice)?)
    }

    /// Brings many ranges to `side`, as [`UnifiedVec::prefetch_to_device`] and [`UnifiedVec::prefetch_to_host`] do one:
    /// in ascending order, and what several of them name only once.
    ///
    /// # Errors
    /// Before anything moves: [`crate::PagerError::NotAllocated`], [`crate::PagerError::Poisoned`],
    /// [`crate::PagerError::RangeTooLarge`] if together they exceed the device budget,
    /// [`crate::GpuError::DeviceLost`]. Later: [`crate::PagerError::DeviceMemoryFull`]; what was brought stays there.
    pub fn prefetch_batch(&self, side: Side, ranges: &[HostRange]) -> Result<()> {
        Ok(self.inner.prefetch_batch(side, &self.extents(ranges)?)?)
    }

    /// Forgets the contents of many ranges, by the whole blocks of 64 KiB that they cover together: those read as zeros,
    /// and take up nothing. Waits for launches that hold them.
    ///
    /// # Safety
    /// No reference to what is in the ranges exists, and zeros are valid there.
    ///
    /// # Errors
    /// [`crate::PagerError::NotAllocated`]; nothing is discarded then.
    pub unsafe fn discard_batch(&self, ranges: &[HostRange]) -> Result<()> {
        let extents = self.extents(ranges)?;
        self.inner.settle_launches();
        Ok(self.inner.discard_batch(&extents)?)
    }

    fn extents(&self, ranges: &[HostRange]) -> Result<Vec<Extent>> {
        ranges.iter().map(|range| self.extent(range.start.0, range.len)).collect()
    }

    /// Tells from now on when the residency of the blocks that `range` touches changes, whatever is allocated there, and
    /// when the device is lost. At most [`crate::WATCHES_MAX`] at a time.
    ///
    /// # Errors
    /// [`crate::PagerError::NotAllocated`] if it is not inside the heap; [`crate::PagerError::TooManyWatches`].
    pub fn watch(&self, range: HostRange) -> Result<ResidencyWatch> {
        let extent = self.extent(range.start.0, range.len)?;
        Ok(ResidencyWatch::new(self.inner.watch(extent)?))
    }

    /// The memory that thrashes, or did when it was used last: in ascending order, neighbouring blocks joined. What only
    /// one side uses at a time again, or is freed, leaves the list.
    #[must_use]
    pub fn thrashing(&self) -> Vec<Thrashing> {
        let by_address = |one: limosa_pager::Thrashing| Thrashing {
            range: HostRange { start: self.inner.address(one.extent.start), len: one.extent.len },
            place: one.place,
            moves: one.moves,
            since: one.since,
            last: one.last,
        };
        self.inner.thrashing().into_iter().map(by_address).collect()
    }

    /// The ranges that were lost with the device, as CPU address and length.
    #[must_use]
    pub fn poisoned(&self) -> Vec<HostRange> {
        let address = |extent: Extent| HostRange { start: self.inner.address(extent.start), len: extent.len };
        self.inner.poisoned().into_iter().map(address).collect()
    }

    /// Makes lost memory in `start..start + len` usable again: it reads as zeros. What a [`UnifiedAllocator`] gave out
    /// stays lost, since zeros need not be what a collection can live with.
    ///
    /// # Errors
    /// [`crate::PagerError::NotAllocated`] if it is not inside the heap.
    pub fn repair(&self, start: u64, len: u64) -> Result<()> {
        self.inner.repair(self.extent(start, len)?);
        Ok(())
    }

    /// Copies out of the heap, with an error where a plain access would raise SIGBUS.
    ///
    /// # Safety
    /// No launch and no other thread writes these bytes meanwhile.
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`], [`crate::PagerError::NotAllocated`]; `target` is unchanged then.
    pub unsafe fn try_read(&self, start: u64, target: &mut [u8]) -> Result<()> {
        self.inner.ensure_readable(self.extent(start, target.len() as u64)?)?;
        // SAFETY: allocated and readable, as was just made sure; not written by anyone, as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(start as *const u8, target.as_mut_ptr(), target.len()) };
        Ok(())
    }

    /// Copies into the heap, with an error where a plain access would raise SIGBUS.
    ///
    /// # Safety
    /// No launch and no other thread uses these bytes meanwhile, and no reference to them exists.
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`], [`crate::PagerError::NotAllocated`]; nothing is changed then.
    pub unsafe fn try_write(&self, start: u64, source: &[u8]) -> Result<()> {
        self.inner.ensure_writable(self.extent(start, source.len() as u64)?)?;
        // SAFETY: allocated and writable, as was just made sure; not used by anyone, as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), start as *mut u8, source.len()) };
        Ok(())
    }

    fn extent(&self, start: u64, len: u64) -> Result<Extent> {
        let range = self.range();
        let offset = start.checked_sub(range.start.0).filter(|offset| offset.saturating_add(len) <= range.len);
        let outside = crate::PagerError::NotAllocated { start, len };
        offset.map(|start| Extent { start, len }).ok_or(Error::Pager(outside))
    }
}
