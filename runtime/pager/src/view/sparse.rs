//! `SparseView`: sparse buffers whose memory is bound as it is needed, for GPUs with memory of their own, which cannot fault.
//!
//! A block that is opened is bound before the next launch begins: all that changed since the last one in one
//! vkQueueBindSparse. Closing does nothing, so that a CPU's fault never needs the driver; what launches do not declare is
//! *not* caught: a kernel that touches it finds stale data, or nothing. Where the CPU cannot use device memory, a CPU's
//! fault waits for a copy by the device, which on a device with one queue comes after the kernels that run: a kernel must
//! not wait for a thread that may fault so.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrayvec::ArrayVec;
use limosa_gpu::{
    Bind, Device, DeviceKind, Frame, FrameKind, FramePool, GpuError, SparseRange, Stager, Ticket, Timeline, Translation,
};
use limosa_model::{
    Access, BLOCK, BLOCKS_PER_CHUNK, Block, BlockSet, CHUNK, ChunkIndex, DeviceAddr, Extent, HostAddr, HostRange, Side,
};
use limosa_os::copy::{self, Caching};
use limosa_os::inject::{Defect, seeded};
use limosa_os::machine::Machine;
use limosa_os::{Mapping, Reservation};

use super::bindings::{Bindings, Change};
use super::slots::{ChunkSlots, Recycled, Slot, SlotRun, Slots};
use super::{DeviceView, ViewKind, to_usize};
use crate::config::HeapConfig;
use crate::error::PagerError;
use crate::peers::Peer;
use crate::side::SideMemory;
use crate::stream::Seat;

/// The part of the kernel's limit on mappings that bindings may take on a software driver, which makes one for each.
const MAPPINGS_SHARE: u64 = 2;

/// How long unbinding may take where room is short; it takes some 0.1 ms where no kernel is in front of it, and on a busy
/// machine the driver's thread may have to wait for its turn: after 20 ms, memory that was free was refused.
const UNBIND_LIMIT: Duration = Duration::from_millis(500);

pub(crate) struct SparseView {
    range: Mutex<SparseRange>,
    pool: Arc<FramePool>,
    device: Arc<Device>,
    /// For memory that the CPU cannot use, or not well.
    stager: Option<Stager>,
    memory: Mutex<DeviceMemory>,
    /// Held while frames come from the driver, which takes long: a CPU's fault must not wait for it. Comes before `memory`.
    growing: Mutex<()>,
    /// Comes before `memory`.
    bindings: Mutex<Bound>,
    mappings_max: u64,
}

struct DeviceMemory {
    /// By the index that the slots have for them.
    frames: Vec<Option<Arc<Frame>>>,
    frames_max: usize,
    slots: Slots,
}

#[derive(Default)]
struct Bound {
    bindings: Bindings,
    /// The last batch of binds, unless it is known to be done.
    last: Option<(Arc<Timeline>, Ticket)>,
}

/// Blocks of one chunk in a row, in slots in a row.
struct Run {
    extent: Extent,
    frame: Arc<Frame>,
    /// In the frame, in bytes.
    offset: u64,
}

impl DeviceMemory {
    /// Whether a frame is to come before the blocks get slots, and may.
    fn wants_frame(&self, kind: FrameKind, blocks: BlockSet) -> bool {
        let may = kind == FrameKind::HostVisible || self.slots.frames(kind) < self.frames_max;
        let whole = blocks.is_all() && !self.slots.has_free_frame(kind);
        may && (whole || self.slots.free_slots(kind) < blocks.count().into())
    }

    fn add(&mut self, kind: FrameKind, frame: Arc<Frame>) {
        let index = self.slots.add_frame(kind);
        if self.frames.len() <= index {
            self.frames.resize(index + 1, None);
        }
        self.frames[index] = Some(frame);
    }

    /// The frame of a slot that a block has, and the slot's offset in it in bytes.
    fn place(&self, slot: Slot) -> Option<(Arc<Frame>, u64)> {
        let frame = self.frames.get(slot.frame())?.as_ref()?;
        Some((Arc::clone(frame), u64::from(slot.part()) * BLOCK))
    }
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
        let mut memory = DeviceMemory {
            frames: Vec::new(),
            frames_max: usize::try_from(config.device_budget / CHUNK).unwrap_or(usize::MAX),
            slots: Slots::default(),
        };
        memory.add(FrameKind::Device, first);
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
            memory: Mutex::new(memory),
            growing: Mutex::default(),
            bindings: Mutex::new(Bound::default()),
            mappings_max: config.mappings_limit.unwrap_or(mappings_max),
        })
    }

    /// Gives slots of one kind to the blocks.
    fn take_of(&self, kind: FrameKind, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        let recycled = loop {
            let mut memory = locked(&self.memory);
            if !memory.wants_frame(kind, blocks) {
                if memory.slots.free_slots(kind) < blocks.count().into() {
                    return Err(out_of_memory());
                }
                break memory.slots.take(kind, chunk, blocks);
            }
            let enough = memory.slots.free_slots(kind) >= blocks.count().into();
            drop(memory);
            match self.grow(kind, blocks) {
                // Not in one piece, then.
                Err(PagerError::Gpu(GpuError::OutOfMemory { .. })) if enough => {
                    let mut memory = locked(&self.memory);
                    if memory.slots.free_slots(kind) >= blocks.count().into() {
                        break memory.slots.take(kind, chunk, blocks);
                    }
                }
                grown => grown?,
            }
        };
        let mut bound = locked(&self.bindings);
        recycled.into_iter().for_each(|recycled| bound.bindings.recycle(recycled));
        Ok(())
    }

    /// Gets one more frame from the driver, unless another thread's came meanwhile and will do.
    fn grow(&self, kind: FrameKind, blocks: BlockSet) -> Result<(), PagerError> {
        let _growing = locked(&self.growing);
        if !locked(&self.memory).wants_frame(kind, blocks) {
            return Ok(());
        }
        let frame = match self.pool.allocate(kind) {
            Err(GpuError::Driver { call, code }) if kind == FrameKind::HostVisible => {
                return Err(self.no_shared_home(format!("{call} answered {code}")));
            }
            other => other?,
        };
        if kind == FrameKind::HostVisible && frame.mapped().is_none() {
            let reason = "its driver offers none that is both coherent and cached for the CPU";
            return Err(self.no_shared_home(reason.into()));
        }
        if self.stager.is_none() && frame.mapped().is_none() {
            return Err(out_of_memory());
        }
        locked(&self.memory).add(kind, frame);
        Ok(())
    }

    fn no_shared_home(&self, reason: String) -> PagerError {
        PagerError::NoSharedHome { device: self.device.adapter.name.clone(), reason }
    }

    /// Maps the blocks' frames where the CPU looks for them.
    fn alias(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        for Run { extent, frame, offset } in self.runs(chunk, blocks)? {
            let unmapped = || self.no_shared_home("its driver does not map it for the CPU".into());
            let mapped = frame.mapped().ok_or_else(unmapped)?;
            let start = mapped.as_ptr().wrapping_add(to_usize(offset));
            // SAFETY: the run lies in the frame, which is mapped as long as it lives, and it lives as long as the view;
            // nobody uses it yet.
            unsafe {
                std::ptr::write_bytes(start, 0, to_usize(extent.len));
                host.window.alias(extent, start).map_err(|error| {
                    let unused = "VK_EXT_map_memory_placed, which could do it, is not used yet";
                    self.no_shared_home(format!("{error}; {unused}"))
                })?;
            }
        }
        Ok(())
    }

    /// Where the blocks are in device memory. Takes no memory itself, for signal mode.
    ///
    /// # Errors
    /// [`PagerError::NoFrame`] where one of them is nowhere: whoever left it out would take other data for it.
    fn runs(
        &self,
        chunk: ChunkIndex,
        blocks: BlockSet,
    ) -> Result<ArrayVec<Run, { BLOCKS_PER_CHUNK as usize }>, PagerError> {
        let memory = locked(&self.memory);
        let nowhere = |block: Block| {
            debug_assert!(false, "{block:?} has no frame");
            PagerError::NoFrame { offset: u64::from(block.0) * BLOCK }
        };
        let mut runs = ArrayVec::new();
        for SlotRun { first, count, slot } in memory.slots.runs(chunk, blocks).map_err(nowhere)? {
            let (frame, offset) = memory.place(slot).ok_or_else(|| nowhere(chunk.block(first)))?;
            runs.push(Run { extent: chunk.run(first, count), frame, offset });
        }
        Ok(runs)
    }

    /// The same for a stretch that need not be of whole blocks.
    fn parts(
        &self,
        chunk: ChunkIndex,
        extent: Extent,
    ) -> Result<ArrayVec<Run, { BLOCKS_PER_CHUNK as usize }>, PagerError> {
        let mut runs = self.runs(chunk, extent.blocks_in(chunk))?;
        for run in &mut runs {
            let (start, end) = (run.extent.start.max(extent.start), run.extent.end().min(extent.end()));
            run.offset += start - run.extent.start;
            run.extent = Extent { start, len: end - start };
        }
        Ok(runs)
    }

    /// Unbinds all chunks of which nothing is used, neighbours as one, so that they take few of the driver's mappings.
    fn unbind_idle(&self, bound: &mut Bound) -> Result<(), PagerError> {
        let idle = {
            let memory = locked(&self.memory);
            bound.bindings.idle(|chunk| memory.slots.of(chunk).iter().any(Option::is_some))
        };
        idle.iter().for_each(|change| bound.bindings.unwant(change.chunk));
        self.make(bound, &idle)
    }

    /// Has the device find everything where it is wanted, if that takes no more mappings than there may be.
    fn make_all(&self, bound: &mut Bound) -> Result<(), PagerError> {
        let mut changes = bound.bindings.changes();
        if bound.bindings.mappings_after(&changes) > self.mappings_max {
            self.unbind_idle(bound)?;
            changes = bound.bindings.changes();
            let needed = bound.bindings.mappings_after(&changes);
            if needed > self.mappings_max {
                return Err(PagerError::TooManyBindings { needed, limit: self.mappings_max });
            }
        }
        self.make(bound, &changes)
    }

    /// Has nothing find the places any more, and waits until that is so, though not behind kernels that run: one of them
    /// may be waiting for a thread that waits for us. Gives whether it is so.
    fn unbind(&self, places: Vec<Recycled>) -> Result<bool, PagerError> {
        let mut bound = locked(&self.bindings);
        places.into_iter().for_each(|place| bound.bindings.recycle(place));
        self.make_all(&mut bound)?;
        // An earlier batch may have unbound some of them. Others must not wait with us: a CPU's fault may be among them.
        let last = bound.last.clone();
        drop(bound);
        last.map_or(Ok(true), |(timeline, done)| Ok(timeline.wait_for(done, UNBIND_LIMIT)?))
    }

    /// Has the device make the changes, in the order of the calls.
    fn make(&self, bound: &mut Bound, changes: &[Change]) -> Result<(), PagerError> {
        if changes.is_empty() {
            return Ok(());
        }
        let frames: Vec<Option<(Arc<Frame>, u64)>> = {
            let memory = locked(&self.memory);
            let place = |slot: Slot| {
                debug_assert!(memory.frames[slot.frame()].is_some(), "a frame that is gone is wanted");
                memory.place(slot)
            };
            changes.iter().map(|change| change.slot.and_then(place)).collect()
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

    fn device_address(&self, offset: u64) -> Option<DeviceAddr> {
        locked(&self.range).address(offset)
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
        for Run { extent, frame, offset } in self.runs(chunk, blocks)? {
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

    fn reach(&self, chunk: ChunkIndex, extent: Extent, found: &mut dyn FnMut(Extent, Seat)) -> Result<(), PagerError> {
        for Run { extent, frame, offset } in self.parts(chunk, extent)? {
            let seat = match (&self.stager, frame.mapped()) {
                (None, Some(mapped)) => Seat::Memory(mapped.as_ptr().wrapping_add(to_usize(offset))),
                _ => Seat::Device,
            };
            found(extent, seat);
        }
        Ok(())
    }

    unsafe fn adopt(&self, staging: HostRange) {
        if let Some(stager) = &self.stager {
            // A driver that takes no memory of ours has it copied once more.
            // SAFETY: as the caller promises.
            let _ = unsafe { stager.adopt(staging) };
        }
    }

    unsafe fn upload(&self, extent: Extent, source: *const u8) -> Result<(), PagerError> {
        for Run { extent: own, frame, offset } in self.parts(ChunkIndex::containing(extent.start), extent)? {
            let source = source.wrapping_add(to_usize(own.start - extent.start));
            match (&self.stager, frame.mapped()) {
                // SAFETY: the run lies in the frame; else as the caller promises.
                (Some(stager), _) => unsafe { stager.upload(&frame, offset, source, own.len)? },
                (None, Some(mapped)) => {
                    let target = mapped.as_ptr().wrapping_add(to_usize(offset));
                    // SAFETY: as above.
                    unsafe { copy::copy(target, source, to_usize(own.len), Caching::Bypass) };
                }
                (None, None) => debug_assert!(false, "a frame that nobody can fill"),
            }
        }
        Ok(())
    }

    unsafe fn download(&self, extent: Extent, target: *mut u8) -> Result<(), PagerError> {
        for Run { extent: own, frame, offset } in self.parts(ChunkIndex::containing(extent.start), extent)? {
            let target = target.wrapping_add(to_usize(own.start - extent.start));
            match (&self.stager, frame.mapped()) {
                // SAFETY: the run lies in the frame; else as the caller promises.
                (Some(stager), _) => unsafe { stager.download(&frame, offset, target, own.len)? },
                (None, Some(mapped)) => {
                    let source = mapped.as_ptr().wrapping_add(to_usize(offset)).cast_const();
                    // SAFETY: as above.
                    unsafe { copy::copy(target, source, to_usize(own.len), Caching::Bypass) };
                }
                (None, None) => debug_assert!(false, "a frame that nobody can empty"),
            }
        }
        Ok(())
    }

    fn copies_in_place(&self) -> bool {
        self.stager.is_none()
    }

    unsafe fn fill(&self, chunk: ChunkIndex, blocks: BlockSet, byte: u8) -> Result<(), PagerError> {
        for Run { extent, frame, offset } in self.runs(chunk, blocks)? {
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
        self.make_all(&mut bound)?;
        // A launch that needs nothing new may need what another's binds have yet to bring.
        let done = |(timeline, ticket): &(Arc<Timeline>, Ticket)| timeline.reached(*ticket).unwrap_or(false);
        if bound.last.as_ref().is_some_and(done) {
            bound.last = None;
        }
        Ok(bound.last.clone())
    }

    fn share(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        self.take_of(FrameKind::HostVisible, chunk, blocks)?;
        self.alias(host, chunk, blocks)?;
        self.open(chunk, blocks, Access::Write)
    }

    fn shows_peers(&self) -> Result<(), PagerError> {
        let reason = "a sparse buffer can be bound to memory of the driver's own only: none imports what other devices reach, \
                      and of the memory that it does import lavapipe binds nothing and says nothing";
        Err(self.no_shared_home(reason.into()))
    }

    fn show_peer(&self, _: &SideMemory, _: ChunkIndex, _: BlockSet, _: &Peer) -> Result<(), PagerError> {
        self.shows_peers()
    }

    fn unshare(&self, host: &SideMemory, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        for (first, count) in blocks.runs() {
            // What was not aliased is mapped anew as it was, closed.
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

    fn trim_shared(&self) -> bool {
        let kind = FrameKind::HostVisible;
        let (idle, places) = locked(&self.memory).slots.retire(kind);
        if idle.is_empty() {
            return false;
        }
        let unbound = self.unbind(places);
        let mut memory = locked(&self.memory);
        if !unbound.unwrap_or(false) {
            // They may still be bound, and are kept as if nothing had been; another time they will be unbound already.
            idle.into_iter().for_each(|frame| memory.slots.restore(kind, frame));
            return false;
        }
        let mut gone = Vec::new();
        for frame in idle {
            memory.slots.forget(kind, frame);
            gone.extend(memory.frames[frame].take());
        }
        drop(memory);
        // The driver takes long to free them.
        drop(gone);
        true
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
