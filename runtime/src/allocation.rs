//! A stretch of unified memory without a type: what vectors and boxes are made of, and the way out of them.
//! It does *not* order accesses by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use limosa_gpu::GpuError;
use limosa_model::{Access, Advice, Extent, HostRange, Side};
use limosa_pager::{AllocationOptions, Heap, Home, LaunchMark, PagerError, PeerProvider, Residency, ResidencySummary};

use crate::pointer::GpuPtr;
use crate::uses::Uses;
use crate::{Error, Result};

/// Owned bytes of a heap, freed when it and all launches that use it are gone.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// use limosa::Side;
///
/// let bytes = context.heap().allocate(1 << 20, 4096)?;
/// assert!(bytes.len() == 1 << 20 && bytes.ptr().address() % 4096 == 0);
/// // SAFETY: inside the allocation; no launch uses it.
/// unsafe { bytes.ptr().as_ptr().write(7) };
/// bytes.prefetch(Side::Device)?;
/// assert_eq!(bytes.residency_summary().device, 1 << 20);
/// # Ok(())
/// # }
/// ```
pub struct RawAllocation {
    start: u64,
    /// Changed by [`Self::resize`] only.
    len: AtomicU64,
    pub(crate) options: AllocationOptions,
    pub(crate) uses: Uses,
    heap: Arc<Heap>,
}

impl RawAllocation {
    pub(crate) fn new(heap: &crate::Heap, len: u64, align: u64) -> Result<Arc<Self>> {
        Self::with(&heap.inner, len, align, heap.options.clone())
    }

    pub(crate) fn with(heap: &Arc<Heap>, len: u64, align: u64, options: AllocationOptions) -> Result<Arc<Self>> {
        let extent = heap.allocate(len, align, &options)?;
        Ok(Self::of(heap, extent, options))
    }

    /// Whole blocks for [`Self::resize`], with about `room` bytes of addresses kept free behind them. In a shared home
    /// there is no room.
    pub(crate) fn resizable(heap: &crate::Heap, len: u64, align: u64, room: u64) -> Result<Arc<Self>> {
        let extent = heap.inner.allocate_resizable(len, align, room, &heap.options)?;
        Ok(Self::of(&heap.inner, extent, heap.options.clone()))
    }

    fn of(heap: &Arc<Heap>, extent: Extent, options: AllocationOptions) -> Arc<Self> {
        let (len, heap) = (AtomicU64::new(extent.len), Arc::clone(heap));
        Arc::new(Self { start: extent.start, len, options, uses: Uses::default(), heap })
    }

    /// Makes it `len` bytes long, where it is. One caller at a time; what is cut off nobody uses any more, launches
    /// included.
    pub(crate) fn resize(&self, len: u64) -> Result<()> {
        let done = self.heap.resize(self.start, len);
        // What could not be unmapped is out of use all the same.
        if done.is_ok() || len < self.len() {
            self.len.store(len.max(1), Ordering::Release);
        }
        Ok(done?)
    }

    /// Where it lives.
    #[must_use]
    pub fn home(&self) -> Home {
        self.options.home
    }

    /// Whose memory it is, in [`Home::SharedDevice`].
    #[must_use]
    pub fn peer_provider(&self) -> Option<PeerProvider> {
        self.heap.peer_memory_at(self.start).map(|memory| memory.provider().clone())
    }

    /// Where it is; the same on both sides. What is stored through it while a launch may touch the same bytes is the
    /// caller's to order.
    #[must_use]
    pub fn ptr(&self) -> GpuPtr<u8> {
        GpuPtr::from_address(self.heap.address(self.start).0)
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Never: an allocation has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// By offset in the heap.
    #[must_use]
    pub fn extent(&self) -> Extent {
        Extent { start: self.start, len: self.len() }
    }

    /// By CPU address.
    #[must_use]
    pub fn range(&self) -> HostRange {
        HostRange { start: self.heap.address(self.start), len: self.len() }
    }

    /// Brings all of it to `side`; see [`crate::UnifiedVec::prefetch_to_device`].
    ///
    /// # Errors
    /// A full device budget, a lost device, lost contents.
    pub fn prefetch(&self, side: Side) -> Result<()> {
        Ok(self.heap.prefetch(side, self.extent())?)
    }

    /// Brings part of it to `side`: `len` bytes from `offset` on, clipped to the allocation.
    ///
    /// # Errors
    /// As [`Self::prefetch`].
    pub fn prefetch_range(&self, side: Side, offset: u64, len: u64) -> Result<()> {
        let part = self.part(offset, len);
        if part.len == 0 { Ok(()) } else { Ok(self.heap.prefetch(side, part)?) }
    }

    /// Says how all of it will be used; see [`crate::Heap::advise`].
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        Ok(self.heap.advise(self.extent(), advice)?)
    }

    /// Says how part of it will be used: `len` bytes from `offset` on, clipped to the allocation.
    ///
    /// # Errors
    /// As [`Self::advise`].
    pub fn advise_range(&self, offset: u64, len: u64, advice: Advice) -> Result<()> {
        Ok(self.heap.advise(self.part(offset, len), advice)?)
    }

    fn part(&self, offset: u64, len: u64) -> Extent {
        let all = self.extent();
        let start = all.start + offset.min(all.len);
        Extent { start, len: len.min(all.end() - start) }
    }

    /// Where its blocks are now, by offset in the heap.
    #[must_use]
    pub fn residency(&self) -> Vec<Residency> {
        self.heap.residency(self.extent())
    }

    /// The same in bytes. Blocks are counted whole, also where smaller allocations share one.
    #[must_use]
    pub fn residency_summary(&self) -> ResidencySummary {
        self.heap.residency_summary(self.extent())
    }

    pub(crate) fn heap(&self) -> &Arc<Heap> {
        &self.heap
    }

    /// The error of a launch of `kernel` on `heap`, if this is memory of another.
    pub(crate) fn foreign_to(&self, heap: &Arc<Heap>, kernel: &str) -> Option<Error> {
        let foreign = || PagerError::ForeignMemory {
            kernel: kernel.to_owned(),
            start: self.range().start,
            len: self.extent().len,
            owner: self.heap.device().adapter.to_string(),
            queue: heap.device().adapter.to_string(),
        };
        (!Arc::ptr_eq(&self.heap, heap)).then(|| foreign().into())
    }

    /// What a launch that does `access` to `extent` must be behind because nothing is held of this memory; see
    /// [`Home::Shared`].
    pub(crate) fn unheld_conflicts(&self, extent: Extent, access: Access) -> Vec<LaunchMark> {
        match self.home() {
            Home::Migrating => Vec::new(),
            Home::Shared | Home::SharedDevice => self.uses.conflicts_with(extent, access),
        }
    }

    /// Waits until the CPU may do `access` to `extent`, a part of it, and makes sure that nothing of that was lost.
    pub(crate) fn settle(&self, extent: Extent, access: Access) -> Result<()> {
        match self.uses.wait_for(extent, access) {
            Ok(()) => {}
            // What was lost is told below; what was not may be used.
            Err(error @ GpuError::DeviceLost) => drop(self.heap.noticed(error)),
            // A kernel may still be at work.
            Err(error) => return Err(error.into()),
        }
        self.heap.settle_launches();
        if self.heap.device_lost() {
            self.heap.ensure_readable(extent)?;
        }
        Ok(())
    }
}

impl Drop for RawAllocation {
    fn drop(&mut self) {
        // It exists, so the only error is that of a part that could not be unmapped: it stays out of use, which harms
        // nobody, and there is nobody to tell.
        let _ = self.heap.free(self.start);
    }
}
