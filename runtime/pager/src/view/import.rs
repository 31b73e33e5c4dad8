//! `ImportView`: software VRAM. A memory file of ours is the frames, a window on it the page table, imported into Vulkan
//! once; what a kernel touches in vain is a fault like any other. It does *not* work on devices that pin what they import.

use std::sync::{Arc, Mutex, PoisonError};

use limosa_gpu::{Device, ImportedRange, Ticket, Timeline, Translation};
use limosa_model::{Access, BlockSet, ChunkIndex, DeviceAddr, Extent, HostAddr, HostRange, Side};
use limosa_os::copy::{self, Caching};
use limosa_os::{Delivery, HugePages, Mapping};

use super::{DeviceView, ViewKind, to_usize};
use crate::error::PagerError;
use crate::peers::Peer;
use crate::side::{SideMemory, SideOptions};
use crate::stream::Seat;

pub(crate) struct ImportView {
    device: Arc<Device>,
    memory: SideMemory,
    /// While attached.
    import: Mutex<Option<ImportedRange>>,
}

impl ImportView {
    /// A view of `len` bytes with at most `limit` bytes of frames.
    pub(crate) fn new(device: &Arc<Device>, len: u64, limit: u64) -> Result<Self, PagerError> {
        let memory = SideMemory::new(SideOptions {
            what: "software device memory",
            len,
            limit,
            delivery: Delivery::Thread,
            // Frames are made by the block where chunks are used sparsely.
            huge: HugePages::OnRequest,
            wish: None,
        })?;
        Ok(Self { device: Arc::clone(device), memory, import: Mutex::new(None) })
    }
}

impl DeviceView for ImportView {
    fn kind(&self) -> ViewKind {
        ViewKind::Import
    }

    fn wish(&self) -> Option<HostAddr> {
        // Both views are in this process: they cannot have the same address.
        None
    }

    fn frames_for(&self, budget: u64) -> u64 {
        budget
    }

    fn attach(&self, host: HostAddr) -> Result<Translation, PagerError> {
        // SAFETY: the window stays reserved as long as `self`, and is served until `detach`.
        let import = unsafe { ImportedRange::new(&self.device, self.memory.window.range())? };
        let delta = import.base().delta_from(host);
        *self.import.lock().unwrap_or_else(PoisonError::into_inner) = Some(import);
        Ok(if delta == 0 { Translation::Identity } else { Translation::Delta(delta) })
    }

    fn device_address(&self, offset: u64) -> Option<DeviceAddr> {
        let import = self.import.lock().unwrap_or_else(PoisonError::into_inner);
        import.as_ref().map(|import| DeviceAddr(import.base().0 + offset))
    }

    fn detach(&self) {
        *self.import.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn take(&self, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        let mapping = &self.memory.mapping;
        if blocks.is_all() {
            return Ok(mapping.populate_huge(chunk.extent())?);
        }
        Ok(blocks.runs().try_for_each(|(first, count)| mapping.populate(chunk.run(first, count)))?)
    }

    fn give(&self, chunk: ChunkIndex, blocks: BlockSet) -> BlockSet {
        let file = self.memory.mapping.file();
        let given = blocks.runs().filter(|(first, count)| file.discard(chunk.run(*first, *count)).is_ok());
        given.fold(BlockSet::EMPTY, |given, (first, count)| given | BlockSet::run(first, count))
    }

    fn open(&self, chunk: ChunkIndex, blocks: BlockSet, access: Access) -> Result<(), PagerError> {
        Ok(self.memory.open(chunk, blocks, access)?)
    }

    fn close(&self, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        Ok(self.memory.close(chunk, blocks)?)
    }

    fn maps_huge(&self) -> bool {
        true
    }

    unsafe fn copy(
        &self,
        host: &Mapping,
        to: Side,
        chunk: ChunkIndex,
        blocks: BlockSet,
        caching: Caching,
    ) -> Result<(), PagerError> {
        let own = &self.memory.mapping;
        let (target, source) = if to == Side::Host { (host, own) } else { (own, host) };
        for (first, count) in blocks.runs() {
            // SAFETY: as the caller promises.
            unsafe { target.copy_from(source, chunk.run(first, count), caching) };
        }
        Ok(())
    }

    fn reach(&self, _: ChunkIndex, extent: Extent, found: &mut dyn FnMut(Extent, Seat)) -> Result<(), PagerError> {
        found(extent, Seat::Memory(self.memory.mapping.pointer(extent)));
        Ok(())
    }

    unsafe fn adopt(&self, _: HostRange) {
        // The CPU's copies are all there are.
    }

    unsafe fn upload(&self, extent: Extent, source: *const u8) -> Result<(), PagerError> {
        let len = to_usize(extent.len);
        // SAFETY: as the caller promises; the mapping has the extent.
        unsafe { copy::copy(self.memory.mapping.pointer(extent), source, len, Caching::Bypass) };
        Ok(())
    }

    unsafe fn download(&self, extent: Extent, target: *mut u8) -> Result<(), PagerError> {
        let len = to_usize(extent.len);
        // SAFETY: as above.
        unsafe { copy::copy(target, self.memory.mapping.pointer(extent).cast_const(), len, Caching::Bypass) };
        Ok(())
    }

    fn copies_in_place(&self) -> bool {
        true
    }

    unsafe fn fill(&self, chunk: ChunkIndex, blocks: BlockSet, byte: u8) -> Result<(), PagerError> {
        // SAFETY: as the caller promises.
        unsafe { self.memory.fill(chunk, blocks, byte) };
        Ok(())
    }

    fn publish(&self) -> Result<Option<(Arc<Timeline>, Ticket)>, PagerError> {
        // What is mapped is seen at once.
        Ok(None)
    }

    fn share(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        for (first, count) in blocks.runs() {
            let extent = chunk.run(first, count);
            // SAFETY: the frames are there, and nobody knows of the allocation yet.
            unsafe { host.mapping.fill(extent, 0) };
            host.window.expose(extent)?;
            self.memory.window.show(extent, host.mapping.file())?;
        }
        Ok(())
    }

    fn shows_peers(&self) -> Result<(), PagerError> {
        Ok(())
    }

    fn show_peer(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet, peer: &Peer) -> Result<(), PagerError> {
        for (first, count) in blocks.runs() {
            let extent = chunk.run(first, count);
            let offset = extent.start - peer.blocks.start;
            host.window.show_peer(extent, &peer.memory, offset)?;
            self.memory.window.show_peer(extent, &peer.memory, offset)?;
        }
        Ok(())
    }

    fn unshare(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        for (first, count) in blocks.runs() {
            let extent = chunk.run(first, count);
            // What was never shown or exposed is mapped anew as it was, closed.
            self.memory.window.restore(extent)?;
            host.window.restore(extent)?;
        }
        Ok(())
    }

    fn shares_host_frames(&self) -> bool {
        true
    }

    fn shared_bytes(&self) -> u64 {
        0
    }

    fn shared_growth(&self, _: BlockSet) -> u64 {
        0
    }

    fn trim_shared(&self) -> bool {
        false
    }

    fn faulting(&self) -> Option<&SideMemory> {
        Some(&self.memory)
    }

    fn resident_bytes(&self) -> Result<u64, PagerError> {
        Ok(self.memory.mapping.file().resident_bytes()?)
    }
}
