//! The device's end of migration: its frames, and its page table for a heap.
//!
//! What differs between devices is here and nowhere else in the pager. A view does what plans say, and does *not* know
//! block states: who calls has made the blocks busy, so that nobody else uses their frames.

mod bindings;
mod import;
mod slots;
mod sparse;

use std::fmt;
use std::sync::Arc;

use limosa_gpu::{Device, DeviceKind, Ticket, Timeline, Translation};
use limosa_model::{Access, BlockSet, ChunkIndex, DeviceAddr, Extent, HostAddr, HostRange, Side};
use limosa_os::Mapping;
use limosa_os::copy::Caching;

use crate::config::{DeviceClass, HeapConfig};
use crate::error::PagerError;
use crate::peers::Peer;
use crate::side::SideMemory;
use crate::stand_in::STAND_IN_BYTES;
use crate::stream::Seat;

use import::ImportView;
use sparse::SparseView;

/// How a device reaches a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewKind {
    /// An address range of ours, imported once, whose pages we map: software devices.
    Import,
    /// Sparse buffers, whose memory is bound as it is needed: GPUs with memory of their own.
    Sparse,
}

impl fmt::Display for ViewKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Import => "ImportView",
            Self::Sparse => "SparseView",
        })
    }
}

/// The frames and the page table of a device for one heap.
pub(crate) trait DeviceView: Send + Sync {
    fn kind(&self) -> ViewKind;

    /// The address at which the CPU's view had best be, so that both sides' addresses are equal.
    fn wish(&self) -> Option<HostAddr>;

    /// Bytes of the budget that it can use.
    fn frames_for(&self, budget: u64) -> u64;

    /// Begins: from here on kernels may use the view, and what faults is served. Gives how they translate pointers.
    fn attach(&self, host: HostAddr) -> Result<Translation, PagerError>;

    /// Where kernels find the byte at a heap offset, while attached. That it is there is not said.
    fn device_address(&self, offset: u64) -> Option<DeviceAddr>;

    /// Ends it: no kernel runs any more. What faults meanwhile is still served.
    fn detach(&self);

    /// Makes frames for blocks that have none; all of the chunk at once in one piece. Their contents are arbitrary.
    fn take(&self, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError>;

    /// Gives the blocks' frames back. Gives those of which that worked.
    fn give(&self, chunk: ChunkIndex, blocks: BlockSet) -> BlockSet;

    /// Makes the blocks' frames the ones that kernels find, after the next [`Self::publish`] at the latest.
    fn open(&self, chunk: ChunkIndex, blocks: BlockSet, access: Access) -> Result<(), PagerError>;

    /// Lets accesses fault, where the device can.
    fn close(&self, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError>;

    /// Whether all of a chunk is mapped as one where it is opened as one, so that closing a part takes all away.
    fn maps_huge(&self) -> bool;

    /// Copies the blocks between their frames here and `host`'s, *to* this side. A copy to the host is allowed in
    /// signal mode where [`Self::copies_in_place`].
    ///
    /// # Safety
    /// The frames of both sides are there; nobody writes the source or uses the target meanwhile.
    ///
    /// # Errors
    /// [`PagerError::NoFrame`], [`PagerError::Gpu`].
    unsafe fn copy(
        &self,
        host: &Mapping,
        to: Side,
        chunk: ChunkIndex,
        blocks: BlockSet,
        caching: Caching,
    ) -> Result<(), PagerError>;

    /// Tells where the frames of a stretch of one chunk are, in their order: where ordinary I/O and the CPU reach them, or
    /// that they do not.
    ///
    /// # Errors
    /// [`PagerError::NoFrame`].
    fn reach(&self, chunk: ChunkIndex, extent: Extent, found: &mut dyn FnMut(Extent, Seat)) -> Result<(), PagerError>;

    /// Has [`Self::upload`] and [`Self::download`] take `staging` without a copy of the CPU's in between, where that can be.
    /// Once.
    ///
    /// # Safety
    /// It is private memory of the process's own, mapped for reading and writing as long as the view lives.
    unsafe fn adopt(&self, staging: HostRange);

    /// Copies a stretch of one chunk into its frames.
    ///
    /// # Safety
    /// `source` is good for reading as many bytes; the frames are there, and nobody else uses them meanwhile.
    ///
    /// # Errors
    /// [`PagerError::NoFrame`], [`PagerError::Gpu`].
    unsafe fn upload(&self, extent: Extent, source: *const u8) -> Result<(), PagerError>;

    /// Copies a stretch of one chunk out of its frames.
    ///
    /// # Safety
    /// `target` is good for writing as many bytes; the frames are there, and nobody writes them meanwhile.
    ///
    /// # Errors
    /// [`PagerError::NoFrame`], [`PagerError::Gpu`].
    unsafe fn download(&self, extent: Extent, target: *mut u8) -> Result<(), PagerError>;

    /// Whether copies are the CPU's own, without the driver.
    fn copies_in_place(&self) -> bool;

    /// Sets every byte of the blocks.
    ///
    /// # Safety
    /// Their frames are there, and nobody else uses them meanwhile.
    ///
    /// # Errors
    /// [`PagerError::NoFrame`], [`PagerError::Gpu`].
    unsafe fn fill(&self, chunk: ChunkIndex, blocks: BlockSet, byte: u8) -> Result<(), PagerError>;

    /// Has the device see everything opened so far. Gives what a launch must wait for to see it, too.
    ///
    /// # Errors
    /// [`PagerError::TooManyBindings`]: blocks must leave the device first.
    fn publish(&self) -> Result<Option<(Arc<Timeline>, Ticket)>, PagerError>;

    /// Makes blocks of `host` one memory that both sides see, zeroed. They have no frames here.
    ///
    /// # Errors
    /// [`PagerError::NoSharedHome`] where that cannot be had; [`PagerError::Os`], [`PagerError::Gpu`]. Part of it may be
    /// shared then: [`Self::unshare`] ends that.
    fn share(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError>;

    /// Whether it can show memory of other devices' reach.
    ///
    /// # Errors
    /// [`PagerError::NoSharedHome`].
    fn shows_peers(&self) -> Result<(), PagerError>;

    /// As [`Self::share`], where both sides are to see a part of a device's memory.
    ///
    /// # Errors
    /// As there.
    fn show_peer(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet, peer: &Peer) -> Result<(), PagerError>;

    /// Ends [`Self::share`] or [`Self::show_peer`], also where only some of the blocks are shared, or none.
    ///
    /// # Errors
    /// [`PagerError::Os`]: the blocks must stay out of use. It may be tried again.
    fn unshare(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError>;

    /// Whether shared memory is made of host frames; else it is the view's.
    fn shares_host_frames(&self) -> bool;

    /// Bytes of RAM that shared homes take beside host frames, also those that are kept for the next.
    fn shared_bytes(&self) -> u64;

    /// Bytes of RAM that it takes to share `blocks` of a chunk, beside host frames and what is kept.
    fn shared_growth(&self, blocks: BlockSet) -> u64;

    /// Gives back the RAM that is kept for the next shared homes, and says whether there was any. Does not wait for
    /// kernels that run.
    fn trim_shared(&self) -> bool;

    /// The memory behind the view where kernels' accesses that miss are faults.
    fn faulting(&self) -> Option<&SideMemory>;

    /// Bytes of device memory that the frames take, as the system counts them.
    fn resident_bytes(&self) -> Result<u64, PagerError>;
}

/// Whether a view can be tried.
pub(crate) fn suits(kind: ViewKind, device: &Device, config: &HeapConfig) -> Result<(), PagerError> {
    let adapter = &device.adapter;
    let reason = match kind {
        _ if config.view.is_some_and(|wanted| wanted != kind) => "another view was asked for",
        ViewKind::Import if adapter.kind != DeviceKind::Cpu => {
            "its driver pins what it imports, so pages cannot migrate below it (this view is for software devices)"
        }
        ViewKind::Sparse if config.device_class == Some(DeviceClass::Faulting) => {
            "the class Faulting was asked for, and accesses to sparse memory do not fault"
        }
        ViewKind::Sparse if config.check => "check mode needs a device whose accesses fault",
        ViewKind::Sparse if !adapter.sparse_missing.is_empty() => &adapter.sparse_missing.join(", "),
        _ => return Ok(()),
    };
    Err(PagerError::NoView { device: adapter.name.clone(), reason: format!("{kind}: {reason}") })
}

/// Opens a view.
pub(crate) fn open(
    kind: ViewKind,
    device: &Arc<Device>,
    config: &HeapConfig,
) -> Result<Box<dyn DeviceView>, PagerError> {
    let limit = config.device_budget.saturating_add(STAND_IN_BYTES);
    match kind {
        ViewKind::Import => Ok(Box::new(ImportView::new(device, config.len(), limit)?)),
        ViewKind::Sparse => Ok(Box::new(SparseView::new(device, config)?)),
    }
}

/// Offsets and lengths in a heap fit the address space.
pub(crate) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
