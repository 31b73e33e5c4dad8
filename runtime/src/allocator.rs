//! An allocator for ordinary collections in unified memory: `Vec` and `Box` of allocator-api2, `hashbrown`'s maps, bump
//! arenas, and whatever else takes an allocator-api2 (0.2) `Allocator`.
//!
//! Each [`UnifiedAllocator`] has blocks of its own, so that what a launch holds of it is nobody else's: allocations of
//! 64 KiB or more are whole blocks of the heap, smaller ones share blocks with others of the same allocator.
//!
//! # References and kernels
//! Collections are used by plain references, without guards; so no kernel may touch one while there are any. A launch is
//! therefore lent the collection: by value ([`crate::Launch::lend`]), given back when the launch has completed, or by
//! reference in a [`crate::scope()`] that waits for its launches before it ends. The launch declares, keeps and holds all
//! that the collection's allocator has given out. What a kernel does with it is promised at the launch: lent for reading,
//! anything may be in it; lent for writing, what the kernel leaves there must be values, and the collection's own
//! bookkeeping intact, as for unsafe Rust. Nothing demands that elements be [`crate::Shareable`]: a kernel makes sense of
//! those only of which it knows the layout.
//!
//! # Growth
//! From 1 MiB on, an allocation has addresses behind it that nobody else is given as long as there are others, and grows
//! where it is: nothing moves, wherever it is resident. Below, and where there is no room left, growing is a new
//! allocation and a copy by the CPU, as with any allocator: it brings what was on the device to the host. So does what
//! hash maps do when they grow: they hash every key anew (`reserve` beforehand avoids it).
//!
//! # What it does not do
//! It does not make launches see allocations made after they were lent the allocator; it does not free in a kernel, or
//! allocate there. Contents lost with the device stay lost ([`crate::Heap::repair`] leaves them out): touching them
//! raises SIGBUS. It does not pin: direct or asynchronous I/O into a collection loses data that is prefetched meanwhile
//! ([`crate::UnifiedVec::host_pin`] is for that).

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allocator_api2::alloc::{AllocError, Allocator};
use limosa_model::arena::GRAIN;
use limosa_model::{Access, BLOCK, Extent, HostRange, Side};
use limosa_pager::ResidencySummary;

use crate::allocation::RawAllocation;
use crate::heap::Heap;
use crate::slabs::Slabs;
use crate::{Error, Result};

/// Bytes from which an allocation has room to grow. Less would have few chunks filled: host frames come by 2 MiB.
const ROOM_FROM: u64 = 1 << 20;
/// Room is as much as makes an allocation so many times as long …
const ROOM_TIMES: u64 = 15;
/// … or this part of the heap's addresses, if that is more.
const ROOM_OF_HEAP: u64 = 64;

/// An allocator whose memory CPU and GPU see at one address; cheap to clone. Clones are the same allocator: what is
/// allocated by one may be freed by another, on any thread, and lives as long as any of them, or a launch that uses it,
/// also after the [`crate::Context`] is gone.
///
/// Let collections that kernels use together share one, and others not: a launch holds, and brings to the device, all of
/// it. The first small allocation takes 2 MiB of the host limit.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use allocator_api2::vec::Vec;
///
/// let context = limosa::Context::new()?;
/// let allocator = context.heap().allocator();
/// let mut words = Vec::new_in(allocator.clone());
/// words.extend(0..1000u32);
/// words.retain(|word| word % 2 == 0);
/// assert_eq!(words.len(), 500);
/// println!("{:?}", allocator.residency_summary());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct UnifiedAllocator {
    group: Arc<Group>,
}

/// What the clones share.
struct Group {
    heap: Heap,
    /// Taken before any lock of the heap's.
    memory: Mutex<Memory>,
    /// Why the latest allocation failed that did.
    failure: Mutex<Option<Error>>,
}

/// What is allocated.
struct Memory {
    /// Whole blocks, by address.
    large: BTreeMap<u64, Arc<RawAllocation>>,
    small: Slabs,
}

impl UnifiedAllocator {
    pub(crate) fn new(heap: &Heap) -> Self {
        let memory = Mutex::new(Memory { large: BTreeMap::new(), small: Slabs::new() });
        Self { group: Arc::new(Group { heap: heap.clone(), memory, failure: Mutex::default() }) }
    }

    /// Why the latest allocation failed that did, on whichever thread; asking takes it. Collections say only
    /// [`AllocError`], or end the program where they are used by methods that cannot fail.
    #[must_use]
    pub fn take_failure(&self) -> Option<Error> {
        self.group.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The live allocation that contains the CPU address `address`: for kernels that know the layout of a collection of
    /// which the CPU has a reference into.
    #[must_use]
    pub fn allocation_of(&self, address: u64) -> Option<HostRange> {
        let memory = self.lock();
        let large = memory.large.range(..=address).next_back().map(|(_, one)| one.range());
        large.filter(|one| address - one.start.0 < one.len).or_else(|| memory.small.containing(address))
    }

    /// Moves all that is allocated to the device, so that kernels meet no faults on it; the CPU's next access brings it
    /// back.
    ///
    /// # Errors
    /// [`crate::PagerError::RangeTooLarge`], [`crate::PagerError::DeviceMemoryFull`], [`crate::GpuError::DeviceLost`].
    pub fn prefetch_to_device(&self) -> Result<()> {
        self.prefetch(Side::Device)
    }

    /// Moves all that is allocated to system RAM, so that the CPU meets no faults on it.
    ///
    /// # Errors
    /// [`crate::PagerError::Poisoned`].
    pub fn prefetch_to_host(&self) -> Result<()> {
        self.prefetch(Side::Host)
    }

    fn prefetch(&self, side: Side) -> Result<()> {
        let parts = self.in_use();
        let extents: Vec<_> = parts.iter().map(|(_, extent)| *extent).collect();
        Ok(self.group.heap.inner.prefetch_batch(side, &extents)?)
    }

    /// Where all that is allocated is now, in bytes of whole blocks.
    #[must_use]
    pub fn residency_summary(&self) -> ResidencySummary {
        let mut summary = ResidencySummary::default();
        for (_, extent) in self.in_use() {
            self.group.heap.inner.residency(extent).iter().for_each(|run| summary.count(run));
        }
        summary
    }

    /// All that is allocated, with what keeps it.
    pub(crate) fn in_use(&self) -> Vec<(Arc<RawAllocation>, Extent)> {
        let memory = self.lock();
        let large = memory.large.values().map(|one| (one, one.extent()));
        large.chain(memory.small.in_use()).map(|(one, extent)| (Arc::clone(one), extent)).collect()
    }

    /// Makes sure that the CPU may use what is allocated, after the launches that were lent it are done.
    pub(crate) fn settle(&self) -> Result<()> {
        let heap = &self.group.heap.inner;
        heap.settle_launches();
        if heap.device_lost() {
            self.in_use().iter().try_for_each(|(_, extent)| heap.ensure_readable(*extent))?;
        }
        Ok(())
    }

    /// As [`Self::settle`], where a launch tells that the device is lost.
    pub(crate) fn settle_lost(&self) -> Result<()> {
        let _ = self.group.heap.inner.noticed(limosa_gpu::GpuError::DeviceLost);
        self.settle()
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.group.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of why an allocation failed.
    fn noting<T>(&self, result: Result<T>) -> Result<T, AllocError> {
        result.map_err(|error| {
            *self.group.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            AllocError
        })
    }

    /// Memory for `layout`, and whether it is known to read as zeros.
    fn take(&self, layout: Layout) -> Result<(NonNull<[u8]>, bool), AllocError> {
        if layout.size() == 0 {
            return Ok((block(dangling(layout), 0), true));
        }
        let (len, align) = (layout.size() as u64, layout.align() as u64);
        let (heap, large) = (&self.group.heap, class_of(layout) >= BLOCK);
        let mut memory = self.lock();
        let address = if large {
            RawAllocation::resizable(heap, len, align, room_for(heap, len)).map(|one| {
                let address = one.ptr().address();
                memory.large.insert(address, one);
                address
            })
        } else {
            memory.small.allocate(heap, len, align)
        };
        drop(memory);
        let address = self.noting(address)?;
        let memory = NonNull::new(address as *mut u8).ok_or(AllocError)?;
        Ok((block(memory, layout.size()), large))
    }

    /// Makes the allocation at `address` fit `new` where it is. Gives whether it does.
    fn fit(&self, address: u64, old: Layout, new: Layout) -> bool {
        if !address.is_multiple_of(new.align() as u64) {
            return false;
        }
        let len = new.size() as u64;
        let mut memory = self.lock();
        let memory = &mut *memory;
        let Some(one) = memory.large.get(&address) else {
            return class_of(old) == class_of(new) && memory.small.resize(address, len);
        };
        if len > one.len() {
            return one.home() == crate::Home::Migrating && one.resize(len).is_ok();
        }
        // A launch that was given the end of it keeps it, and so does the allocator then.
        if Arc::strong_count(one) == 1 && one.home() == crate::Home::Migrating {
            // What could not be unmapped is out of use all the same.
            let _ = one.resize(len);
        }
        true
    }

    /// Moves an allocation to where there is room for `new`.
    ///
    /// # Safety
    /// As [`Allocator::grow`] and [`Allocator::shrink`], whose arguments these are.
    unsafe fn relocate(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let (to, _) = self.take(new)?;
        let len = old.size().min(new.size());
        // SAFETY: `ptr` has `old.size()` bytes, as the caller promises, `to` has `new.size()`, and is fresh.
        unsafe { std::ptr::copy_nonoverlapping(ptr.as_ptr(), to.cast::<u8>().as_ptr(), len) };
        // SAFETY: as the caller promises.
        unsafe { self.deallocate(ptr, old) };
        Ok(to)
    }
}

// SAFETY: memory is the heap's, given to nobody else until it is freed here, and stays where it is: the group, which the
// clones share and which moves with none of them, keeps it.
unsafe impl Allocator for UnifiedAllocator {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        Ok(self.take(layout)?.0)
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let (memory, zeros) = self.take(layout)?;
        if !zeros {
            // SAFETY: fresh memory of this size.
            unsafe { std::ptr::write_bytes(memory.cast::<u8>().as_ptr(), 0, layout.size()) };
        }
        Ok(memory)
    }

    unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        let address = address_of(ptr);
        let mut memory = self.lock();
        let gone = memory.large.remove(&address).or_else(|| memory.small.free(address));
        drop(memory);
        // Without the lock: it may wait for moves under way.
        drop(gone);
    }

    unsafe fn grow(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if old.size() > 0 && self.fit(address_of(ptr), old, new) {
            return Ok(block(ptr, new.size()));
        }
        // SAFETY: as the caller promises.
        unsafe { self.relocate(ptr, old, new) }
    }

    unsafe fn grow_zeroed(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: as the caller promises.
        let memory = unsafe { self.grow(ptr, old, new)? };
        // SAFETY: inside the memory, behind what is in use.
        unsafe { memory.cast::<u8>().add(old.size()).write_bytes(0, new.size() - old.size()) };
        Ok(memory)
    }

    unsafe fn shrink(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if new.size() > 0 && self.fit(address_of(ptr), old, new) {
            return Ok(block(ptr, new.size()));
        }
        // SAFETY: as the caller promises.
        unsafe { self.relocate(ptr, old, new) }
    }
}

impl crate::Launch<'_> {
    /// No argument: the launch keeps all that `allocator` has given out until now, and holds it for `access` from its
    /// admission to its completion. Who else uses it meanwhile is the caller's to order; [`Self::lend`] and
    /// [`crate::scope()`] do.
    pub fn with_allocator(mut self, allocator: &UnifiedAllocator, access: Access) -> Self {
        for (memory, extent) in allocator.in_use() {
            self.draft.declare_access(&memory, extent, access);
        }
        self
    }
}

/// Bytes that a small allocation takes; from a block on, it is none.
fn class_of(layout: Layout) -> u64 {
    let least = (layout.size().max(layout.align()) as u64).max(GRAIN);
    least.checked_next_power_of_two().unwrap_or(u64::MAX)
}

fn room_for(heap: &Heap, len: u64) -> u64 {
    if len < ROOM_FROM { 0 } else { len.saturating_mul(ROOM_TIMES).max(heap.range().len / ROOM_OF_HEAP) }
}

fn address_of(ptr: NonNull<u8>) -> u64 {
    ptr.as_ptr() as u64
}

fn block(ptr: NonNull<u8>, len: usize) -> NonNull<[u8]> {
    NonNull::slice_from_raw_parts(ptr, len)
}

/// Where nothing is, aligned.
fn dangling(layout: Layout) -> NonNull<u8> {
    let align = std::num::NonZero::new(layout.align()).unwrap_or(std::num::NonZero::<usize>::MIN);
    NonNull::without_provenance(align)
}
