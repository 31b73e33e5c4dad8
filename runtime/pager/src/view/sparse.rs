//! `SparseView`: sparse buffers whose memory is bound as it is needed, for GPUs with memory of their own, which cannot fault.
//!
//! A block that is opened is bound before the next launch begins: all that changed since the last one in one
//! vkQueueBindSparse. Closing does nothing, so that a CPU's fault never needs the driver; what launches do not declare is
//! *not* caught: a kernel that touches it finds stale data, or nothing. Where the CPU cannot use device memory, a CPU's
//! fault waits for a copy by the device, which on a device with one queue comes after the kernels that run: a kernel must
//! not wait for a thread that may fault so.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrayvec::ArrayVec;
use limosa_gpu::{
    Bind, Device, DeviceKind, Frame, FrameKind, FramePool, GpuError, SparseRange, Stager, Ticket, Timeline, Translation,
};
use limosa_model::{Access, BLOCK, BLOCKS_PER_CHUNK, BlockSet, CHUNK, ChunkIndex, Extent, HostAddr, Side};
use limosa_os::copy::{self, Caching};
use limosa_os::inject::{Defect, seeded};
use limosa_os::machine::Machine;
use limosa_os::{Mapping, Reservation};

use super::bindings::{Bindings, Change};
use super::slots::{ChunkSlots, Slots};
use super::{DeviceView, ViewKind};
use crate::config::HeapConfig;
use crate::error::PagerError;
use crate::side::SideMemory;

/// The part of the kernel's limit on mappings that bindings may take on a software driver, which makes one for each.
const MAPPINGS_SHARE: u64 = 2;

pub(crate) struct SparseView {
    range: Mutex<SparseRange>,
    pool: Arc<FramePool>,
    device: Arc<Device>,
    /// For memory that the CPU cannot use, or not well.
    stager: Option<Stager>,
    memory: Mutex<DeviceMemory>,
    /// Comes before `memory`.
    bindings: Mutex<Bound>,
    mappings_max: u64,
}

struct DeviceMemory {
    frames: Vec<Arc<Frame>>,
    frames_max: usize,
    slots: Slots,
}

#[derive(Default)]
struct Bound {
    bindings: Bindings,
    /// The last batch of binds.
    last: Option<(Arc<Timeline>, Ticket)>,
}

/// Blocks of one chunk in a row, in slots in a row.
struct Run {
    extent: Extent,
    frame: Arc<Frame>,
    /// In the frame, in bytes.
    offset: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SparseView {
    pub(crate) fn new(device: &Arc<Device>, config: &HeapConfig) -> Result<Self, PagerError> {
        // Where there is no room for the CPU's two mappings and a software driver's, asking the driver for all of it
        // would leave the process without any for a while.
        drop(Reservation::new(config.len().saturating_mul(3))?);
        let pool = FramePool::new(device)?;
        let first = pool.allocate(FrameKind::Device)?;
        let staged = config.staged_copies || first.mapped().is_none();
        let mut slots = Slots::default();
        slots.add_frame(FrameKind::Device);
        let mappings_max = match device.adapter.kind {
            DeviceKind::Cpu => Machine::map_count_max() / MAPPINGS_SHARE,
            _ => u64::MAX,
        };
        let range = SparseRange::new(device, config.len(), config.segment_limit).map_err(|error| {
            let reason = format!(
                "its driver gives no {} bytes of sparse addresses ({error}): lower the heap size",
                config.len()
            );
            PagerError::NoView { device: device.adapter.name.clone(), reason }
        })?;
        Ok(Self {
            range: Mutex::new(range),
            pool,
            device: Arc::clone(device),
            stager: if staged { Some(Stager::new(device)?) } else { None },
            memory: Mutex::new(DeviceMemory {
                frames: vec![first],
                frames_max: usize::try_from(config.device_budget / CHUNK).unwrap_or(usize::MAX),
                slots,
            }),
            bindings: Mutex::new(Bound::default()),
            mappings_max: config.mappings_limit.unwrap_or(mappings_max),
        })
    }

    /// Gives slots of one kind to the blocks.
    fn take_of(&self, kind: FrameKind, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        let mut memory = locked(&self.memory);
        let lacking = |memory: &DeviceMemory| {
            let whole = blocks.is_all() && !memory.slots.has_free_frame(kind);
            let more = kind == FrameKind::HostVisible || memory.slots.frames(kind) < memory.frames_max;
            more && (whole || memory.slots.free_slots(kind) < blocks.count().into())
        };
        while lacking(&memory) {
            let frame = self.pool.allocate(kind)?;
            let used_in_place = self.stager.is_none() || kind == FrameKind::HostVisible;
            if used_in_place && frame.mapped().is_none() {
                return Err(out_of_memory());
            }
            memory.frames.push(frame);
            memory.slots.add_frame(kind);
        }
        if memory.slots.free_slots(kind) < blocks.count().into() {
            return Err(out_of_memory());
        }
        let recycled = memory.slots.take(kind, chunk, blocks);
        drop(memory);
        let mut bound = locked(&self.bindings);
        recycled.into_iter().for_each(|recycled| bound.bindings.recycle(recycled));
        Ok(())
    }

    /// Maps the blocks' frames where the CPU looks for them.
    fn alias(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        let refused = |reason: String| PagerError::NoSharedHome { device: self.device.adapter.name.clone(), reason };
        for Run { extent, frame, offset } in self.runs(chunk, blocks) {
            let mapped = frame.mapped().ok_or_else(|| refused("its driver does not map it for the CPU".into()))?;
            let start = mapped.as_ptr().wrapping_add(to_usize(offset));
            // SAFETY: the run lies in the frame, which is mapped as long as it lives, and it lives as long as the view;
            // nobody uses it yet.
            unsafe {
                std::ptr::write_bytes(start, 0, to_usize(extent.len));
                host.window.alias(extent, start).map_err(|error| {
                    refused(format!("{error}; VK_EXT_map_memory_placed, which could do it, is not used yet"))
                })?;
            }
        }
        Ok(())
    }

    /// Where the blocks are in device memory. Takes no memory itself, for signal mode.
    fn runs(&self, chunk: ChunkIndex, blocks: BlockSet) -> ArrayVec<Run, { BLOCKS_PER_CHUNK as usize }> {
        let memory = locked(&self.memory);
        let slots = memory.slots.of(chunk);
        let mut runs: ArrayVec<Run, { BLOCKS_PER_CHUNK as usize }> = ArrayVec::new();
        for at in blocks.slots() {
            let Some(slot) = slots[at as usize] else { continue };
            let extent = chunk.run(at, 1);
            let follows = at > 0 && slots[at as usize - 1].is_some_and(|before| slot.follows(before));
            match runs.last_mut() {
                Some(last) if follows && last.extent.end() == extent.start => last.extent.len += BLOCK,
                _ => runs.push(Run {
                    extent,
                    frame: Arc::clone(&memory.frames[slot.frame()]),
                    offset: u64::from(slot.part()) * BLOCK,
                }),
            }
        }
        runs
    }

    /// Unbinds all chunks of which nothing is used, neighbours as one, so that they take few of the driver's mappings.
    fn unbind_idle(&self, bound: &mut Bound) -> Result<(), PagerError> {
        let idle = {
            let memory = locked(&self.memory);
            bound.bindings.idle(|chunk| memory.slots.of(chunk).iter().any(Option::is_some))
        };
        idle.iter().for_each(|change| bound.bindings.unwant(change));
        self.make(bound, &idle)
    }

    /// Has the device make the changes, in the order of the calls.
    fn make(&self, bound: &mut Bound, changes: &[Change]) -> Result<(), PagerError> {
        if changes.is_empty() {
            return Ok(());
        }
        let frames: Vec<Option<(Arc<Frame>, u64)>> = {
            let memory = locked(&self.memory);
            let frame = |change: &Change| {
                let slot = change.slot?;
                Some((Arc::clone(&memory.frames[slot.frame()]), u64::from(slot.part()) * BLOCK))
            };
            changes.iter().map(frame).collect()
        };
        let binds: Vec<Bind<'_>> = changes
            .iter()
            .zip(&frames)
            .map(|(change, frame)| Bind {
                extent: change.chunk.run(change.first, change.count),
                frame: frame.as_ref().map(|(frame, offset)| (frame.deref(), *offset)),
            })
            .collect();
        // SAFETY: frames are kept as long as `self`.
        let done = unsafe { locked(&self.range).bind(&binds)? };
        bound.bindings.made(changes);
        bound.last = Some(done);
        Ok(())
    }
}

impl DeviceView for SparseView {
    fn kind(&self) -> ViewKind {
        ViewKind::Sparse
    }

    fn wish(&self) -> Option<HostAddr> {
        Some(HostAddr(locked(&self.range).base().0))
    }

    fn frames_for(&self, budget: u64) -> u64 {
        budget / CHUNK * CHUNK
    }

    fn attach(&self, host: HostAddr) -> Result<Translation, PagerError> {
        Ok(locked(&self.range).translate_from(host)?)
    }

    fn detach(&self) {}

    fn take(&self, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        self.take_of(FrameKind::Device, chunk, blocks)
    }

    fn give(&self, chunk: ChunkIndex, blocks: BlockSet) -> BlockSet {
        locked(&self.memory).slots.give(chunk, blocks);
        blocks
    }

    fn open(&self, chunk: ChunkIndex, blocks: BlockSet, _: Access) -> Result<(), PagerError> {
        let slots: ChunkSlots = locked(&self.memory).slots.of(chunk);
        if !seeded(Defect::SkipRebind) {
            locked(&self.bindings).bindings.want(chunk, blocks, &slots);
        }
        Ok(())
    }

    fn close(&self, _: ChunkIndex, _: BlockSet) -> Result<(), PagerError> {
        Ok(())
    }

    fn maps_huge(&self) -> bool {
        false
    }

    unsafe fn copy(
        &self,
        host: &Mapping,
        to: Side,
        chunk: ChunkIndex,
        blocks: BlockSet,
        caching: Caching,
    ) -> Result<(), PagerError> {
        for Run { extent, frame, offset } in self.runs(chunk, blocks) {
            let own = host.pointer(extent);
            match (&self.stager, frame.mapped()) {
                (None, Some(mapped)) => {
                    let (theirs, len) = (mapped.as_ptr().wrapping_add(to_usize(offset)), to_usize(extent.len));
                    let (target, source) = if to == Side::Host { (own, theirs) } else { (theirs, own) };
                    // SAFETY: the run lies in the frame, which is mapped as long as it lives; else as the caller
                    // promises.
                    unsafe { copy::copy(target, source, len, caching) };
                }
                (Some(stager), _) if to == Side::Host => {
                    // SAFETY: as above.
                    unsafe { stager.download(&frame, offset, own, extent.len)? };
                }
                (Some(stager), _) => {
                    // SAFETY: as above.
                    unsafe { stager.upload(&frame, offset, own, extent.len)? };
                }
                (None, None) => debug_assert!(false, "a frame that nobody can fill"),
            }
        }
        Ok(())
    }

    fn copies_in_place(&self) -> bool {
        self.stager.is_none()
    }

    unsafe fn fill(&self, chunk: ChunkIndex, blocks: BlockSet, byte: u8) -> Result<(), PagerError> {
        for Run { extent, frame, offset } in self.runs(chunk, blocks) {
            match (&self.stager, frame.mapped()) {
                (None, Some(mapped)) => {
                    let target = mapped.as_ptr().wrapping_add(to_usize(offset));
                    // SAFETY: the run lies in the frame, and nobody else uses it, as the caller promises.
                    unsafe { std::ptr::write_bytes(target, byte, to_usize(extent.len)) };
                }
                (Some(stager), _) => stager.fill(&frame, offset, extent.len, byte)?,
                (None, None) => debug_assert!(false, "a frame that nobody can fill"),
            }
        }
        Ok(())
    }

    fn publish(&self) -> Result<Option<(Arc<Timeline>, Ticket)>, PagerError> {
        let mut bound = locked(&self.bindings);
        let mut changes = bound.bindings.changes();
        if bound.bindings.mappings_after(&changes) > self.mappings_max {
            self.unbind_idle(&mut bound)?;
            changes = bound.bindings.changes();
            let needed = bound.bindings.mappings_after(&changes);
            if needed > self.mappings_max {
                return Err(PagerError::TooManyBindings { needed, limit: self.mappings_max });
            }
        }
        self.make(&mut bound, &changes)?;
        // A launch that needs nothing new may need what another's binds have yet to bring.
        let pending = |(timeline, ticket): &&(Arc<Timeline>, Ticket)| !timeline.reached(*ticket).unwrap_or(false);
        Ok(bound.last.as_ref().filter(pending).cloned())
    }

    fn share(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        self.take_of(FrameKind::HostVisible, chunk, blocks)?;
        if let Err(error) = self.alias(host, chunk, blocks) {
            self.unshare(host, chunk, blocks)?;
            return Err(error);
        }
        self.open(chunk, blocks, Access::Write)
    }

    fn unshare(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        for (first, count) in blocks.runs() {
            host.window.restore(chunk.run(first, count))?;
        }
        self.give(chunk, blocks);
        Ok(())
    }

    fn shares_host_frames(&self) -> bool {
        false
    }

    fn shared_bytes(&self) -> u64 {
        locked(&self.memory).slots.frames(FrameKind::HostVisible) as u64 * CHUNK
    }

    fn shared_growth(&self, blocks: BlockSet) -> u64 {
        let slots = &locked(&self.memory).slots;
        let kind = FrameKind::HostVisible;
        let whole = blocks.is_all() && !slots.has_free_frame(kind);
        if whole || slots.free_slots(kind) < blocks.count().into() { CHUNK } else { 0 }
    }

    fn faulting(&self) -> Option<&SideMemory> {
        None
    }

    fn resident_bytes(&self) -> Result<u64, PagerError> {
        Ok(locked(&self.memory).slots.frames(FrameKind::Device) as u64 * CHUNK)
    }
}

/// There are no more frames of the sort that the view was opened with.
fn out_of_memory() -> PagerError {
    GpuError::OutOfMemory { call: "taking a frame" }.into()
}

/// Offsets and lengths within a frame fit the address space.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
