//! A unified heap: allocation, free, prefetch, residency, and access to what may be lost.
//!
//! Addresses are handed out as offsets ([`Extent`]); whoever turns them into references answers for aliasing. The
//! heap does *not* know types.

use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};

use limosa_gpu::{Device, Kernel, Source, Timeline, Translation, repeat};
use limosa_model::{
    Arena, ArenaError, BLOCK, BlockSet, Cause, ChunkIndex, DeviceAddr, Extent, HostAddr, HostRange, Placement, Side,
    Verdict,
};
use limosa_os::Backing;
use limosa_os::inject::{Defect, seeded};

use crate::allocation::{AllocationOptions, Home};
use crate::config::{DeviceClass, HeapConfig};
use crate::core::Core;
use crate::counters::Counters;
use crate::error::PagerError;
use crate::handler::Handlers;
use crate::residency::{Residency, ResidencySummary};
use crate::view::{self, ViewKind};

/// A heap in use. It lives as long as anything allocated from it, or any launch on it, is kept.
pub struct Heap {
    translation: Translation,
    refused: Vec<(ViewKind, String)>,
    /// The kernel of fills and copies, once it is needed.
    repeat: OnceLock<Arc<Kernel>>,
    /// Stopped when the device has let go of the view, which they serve until then.
    _handlers: Handlers,
    core: Arc<Core>,
    device: Arc<Device>,
}

impl Heap {
    /// Opens a heap on `device` through the first view that passes the self-test.
    ///
    /// # Errors
    /// [`PagerError::NoView`], [`PagerError::SelfTest`], [`PagerError::BudgetTooSmall`], [`PagerError::Os`],
    /// [`PagerError::Gpu`].
    pub fn open(device: &Arc<Device>, config: HeapConfig) -> Result<Arc<Self>, PagerError> {
        config.check()?;
        let (mut refused, mut first) = (Vec::new(), None);
        for kind in [ViewKind::Import, ViewKind::Sparse] {
            let suits = view::suits(kind, device, &config);
            match suits.and_then(|()| Self::open_with(device, kind, config, &refused)) {
                Ok(heap) => return Ok(heap),
                // What the system refuses does not depend on the view.
                Err(error @ PagerError::Os(_)) => return Err(error),
                Err(error) => {
                    refused.push((kind, error.to_string()));
                    // What a view fails of tells more than that another does not suit, and that another was asked for
                    // tells nothing.
                    let plain = matches!(error, PagerError::NoView { .. });
                    if config.view.is_none_or(|asked| asked == kind) {
                        first =
                            first.filter(|other| plain || !matches!(other, PagerError::NoView { .. })).or(Some(error));
                    }
                }
            }
        }
        let none = || PagerError::NoView { device: device.adapter.name.clone(), reason: "there is no view".into() };
        Err(first.unwrap_or_else(none))
    }

    fn open_with(
        device: &Arc<Device>,
        kind: ViewKind,
        config: HeapConfig,
        refused: &[(ViewKind, String)],
    ) -> Result<Arc<Self>, PagerError> {
        let core = Arc::new(Core::new(device, view::open(kind, device, &config)?, config)?);
        let handlers = Handlers::start(&core)?;
        let heap = Arc::new(Self {
            translation: core.view.attach(core.host_range().start)?,
            refused: refused.to_vec(),
            repeat: OnceLock::new(),
            _handlers: handlers,
            core,
            device: Arc::clone(device),
        });
        heap.self_test()?;
        Ok(heap)
    }

    /// How the device reaches the heap.
    #[must_use]
    pub fn view(&self) -> ViewKind {
        self.core.view.kind()
    }

    /// The better views that were tried or ruled out before, with the reason.
    #[must_use]
    pub fn refused_views(&self) -> &[(ViewKind, String)] {
        &self.refused
    }

    /// What a kernel's access to memory that is not on the device does.
    #[must_use]
    pub fn device_class(&self) -> DeviceClass {
        self.core.class
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// For a thread of the heap's own, which ends with it.
    pub(crate) fn shared_core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    /// The device it is on.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// How kernels for this heap translate pointers.
    #[must_use]
    pub fn translation(&self) -> Translation {
        self.translation
    }

    /// The word that every argument block on this heap begins with.
    pub(crate) fn translation_word(&self) -> u64 {
        match self.translation {
            Translation::Delta(delta) if seeded(Defect::StaleTranslation) => delta.wrapping_add(BLOCK),
            translation => translation.word(),
        }
    }

    /// Makes a kernel for this heap, with the defaults of its specialization constants.
    ///
    /// # Errors
    /// Those of [`Kernel::new`].
    pub fn kernel(&self, name: &str, words: &[u32], entry: &str) -> Result<Arc<Kernel>, PagerError> {
        self.kernel_of(&Source { name, words, entry, constants: &[] })
    }

    /// Makes a kernel for this heap.
    ///
    /// # Errors
    /// Those of [`Kernel::new`].
    pub fn kernel_of(&self, source: &Source<'_>) -> Result<Arc<Kernel>, PagerError> {
        Ok(Kernel::new(&self.device, source, self.translation)?)
    }

    /// The kernel of fills and copies ([`limosa_gpu::repeat`]).
    ///
    /// # Errors
    /// Those of [`Kernel::new`].
    pub fn repeat_kernel(&self) -> Result<Arc<Kernel>, PagerError> {
        if let Some(kernel) = self.repeat.get() {
            return Ok(Arc::clone(kernel));
        }
        // Made twice at worst.
        let kernel = self.kernel(repeat::KERNEL.name, &repeat::KERNEL.words(), "main")?;
        Ok(Arc::clone(self.repeat.get_or_init(|| kernel)))
    }

    /// That `kernel` was made for this heap, or for one that is like it.
    pub(crate) fn ensure_own(&self, kernel: &Kernel) -> Result<(), PagerError> {
        if Arc::ptr_eq(kernel.device(), &self.device) && kernel.translation() == self.translation {
            return Ok(());
        }
        Err(PagerError::ForeignKernel {
            kernel: kernel.name().to_owned(),
            made_for: kernel.device().adapter.to_string(),
            queue: self.device.adapter.to_string(),
        })
    }

    /// The CPU's addresses of the heap.
    #[must_use]
    pub fn range(&self) -> HostRange {
        self.core.host_range()
    }

    /// The range of this process's addresses that is the device's page table, where it is one.
    #[must_use]
    pub fn device_range(&self) -> Option<HostRange> {
        self.core.view.faulting().map(|memory| memory.window.range())
    }

    /// Where kernels find what the CPU has at `address`, if that is in the heap.
    #[must_use]
    pub fn device_address(&self, address: HostAddr) -> Option<DeviceAddr> {
        self.core.view.device_address(self.range().offset_of(address)?)
    }

    /// The CPU's address of an offset.
    #[must_use]
    pub fn address(&self, offset: u64) -> HostAddr {
        self.core.address(offset)
    }

    /// What it was opened with.
    #[must_use]
    pub fn config(&self) -> &HeapConfig {
        &self.core.config
    }

    /// The pages behind it.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        self.core.host.mapping.file().backing()
    }

    /// Whether system calls may be given any address in the heap.
    #[must_use]
    pub fn serves_system_calls(&self) -> bool {
        self.core.host.window.serves_system_calls()
    }

    /// Counters since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.core.counters.snapshot()
    }

    /// Bytes of RAM whose host frames exist.
    #[must_use]
    pub fn host_bytes(&self) -> u64 {
        self.core.host_pool.bytes() + self.core.view.shared_bytes()
    }

    /// Bytes of RAM that host frames may come to take, for all that is allocated now, by whole chunks; never above the
    /// host limit.
    #[must_use]
    pub fn host_committed(&self) -> u64 {
        self.core.host_pool.committed()
    }

    /// Bytes that the host's frames take in the system, as the kernel counts them: for tests.
    ///
    /// # Errors
    /// [`PagerError::Os`].
    pub fn host_frames_resident(&self) -> Result<u64, PagerError> {
        Ok(self.core.host.mapping.file().resident_bytes()?)
    }

    /// Bytes of VRAM whose frames exist; never above the budget.
    #[must_use]
    pub fn device_bytes(&self) -> u64 {
        self.core.vram.used()
    }

    /// The budget of VRAM in bytes: whole blocks.
    #[must_use]
    pub fn device_budget(&self) -> u64 {
        self.core.vram.budget()
    }

    /// Bytes that the device's frames take in the system, as the kernel counts them: for tests of the budget.
    ///
    /// # Errors
    /// [`PagerError::Os`].
    pub fn device_frames_resident(&self) -> Result<u64, PagerError> {
        self.core.view.resident_bytes()
    }

    pub(crate) fn arena(&self) -> MutexGuard<'_, Arena> {
        self.core.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocates `len` bytes aligned to `align`. From 64 KiB on the memory reads as zeros; below, its contents are
    /// arbitrary. Its host frames are made here, so that no later touch can fail for lack of RAM, as far as they fit
    /// into the host budget; beyond it they are made when they are needed, within the host limit all the same.
    ///
    /// # Errors
    /// [`PagerError::HeapFull`], [`PagerError::Alignment`], [`limosa_os::OsError::OutOfMemory`]; in a shared home also
    /// [`PagerError::NoSharedHome`], on a device [`limosa_os::OsError::NoPeerMemory`].
    pub fn allocate(&self, len: u64, align: u64, options: &AllocationOptions) -> Result<Extent, PagerError> {
        let migrating = |arena: &mut Arena| arena.allocate(len, align);
        self.allocate_by(migrating, len, align, options)
    }

    /// As [`Self::allocate`], placed by `migrating` if the home is that.
    pub(crate) fn allocate_by(
        &self,
        migrating: impl FnOnce(&mut Arena) -> Result<Placement, ArenaError>,
        len: u64,
        align: u64,
        options: &AllocationOptions,
    ) -> Result<Extent, PagerError> {
        let mut arena = self.arena();
        let placed = match options.home {
            Home::Migrating => self.place_migrating(&mut arena, migrating)?,
            Home::Shared => self.place_shared(&mut arena, len, align)?,
            Home::SharedDevice => self.place_shared_device(&mut arena, len, align)?,
        };
        let own = arena.own_blocks(placed.extent).len > 0;
        self.core.open_account(placed.extent, placed.fresh_blocks, own, options);
        Ok(placed.extent)
    }

    fn place_migrating(
        &self,
        arena: &mut Arena,
        place: impl FnOnce(&mut Arena) -> Result<Placement, ArenaError>,
    ) -> Result<Placement, PagerError> {
        let placed = place(arena).map_err(|error| self.arena_error(error))?;
        let Some(blocks) = placed.fresh_blocks else { return Ok(placed) };
        if let Err(error) = self.bring_into_use(blocks, true) {
            let _ = arena.free(placed.extent.start);
            return Err(error);
        }
        Ok(placed)
    }

    /// Enters fresh blocks, which read as zeros. `starts` says whether they begin their allocation. The caller holds the
    /// arena's lock.
    pub(crate) fn bring_into_use(&self, blocks: Extent, starts: bool) -> Result<(), PagerError> {
        let reserve = || blocks.chunks().try_for_each(|(chunk, set)| self.core.reserve_host(chunk, set));
        // What was kept warm elsewhere may be the room that is lacking.
        let reserved = reserve().or_else(|error| if self.core.make_host_room() { reserve() } else { Err(error) });
        if let Err(error) = reserved {
            blocks.chunks().for_each(|(chunk, _)| self.core.retire_host(chunk));
            return Err(error);
        }
        for (chunk, set) in blocks.chunks() {
            let mut state = self.core.settled_host(self.core.cells.get_or_make(chunk));
            state.chunk.allocate(set, starts && chunk == ChunkIndex::containing(blocks.start));
            state.lives = state.lives.wrapping_add(1);
            self.core.note_spare(chunk, &mut state);
            self.core.watches.note(chunk, &state.chunk, set, Cause::Allocation);
        }
        Ok(())
    }

    /// Frees the allocation that starts at offset `start`, waiting for moves of it under way and for launches that hold
    /// it.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`]; [`PagerError::Os`] if a part could not be unmapped, which then stays out of use.
    pub fn free(&self, start: u64) -> Result<(), PagerError> {
        let mut arena = self.arena();
        let Placement { fresh_blocks, .. } = arena.free(start).map_err(|error| self.arena_error(error))?;
        self.core.close_account(start, fresh_blocks);
        let Some(blocks) = fresh_blocks else { return Ok(()) };
        let freed = self.take_out_of_use(&mut arena, blocks);
        // What could not be unmapped keeps it.
        drop(self.core.peers.leave(blocks.start));
        freed
    }

    /// Frees blocks that the arena has back already. Its lock keeps them from being given to somebody else before they
    /// are free; handlers never take it.
    pub(crate) fn take_out_of_use(&self, arena: &mut Arena, blocks: Extent) -> Result<(), PagerError> {
        let mut result = Ok(());
        for (chunk, set) in blocks.chunks() {
            match self.unshare(chunk, set).and_then(|()| self.free_blocks(chunk, set)) {
                Ok(()) => self.core.retire_host(chunk),
                Err(error) => {
                    set.runs().for_each(|(first, count)| arena.withhold(chunk.run(first, count)));
                    result = Err(error);
                }
            }
        }
        result
    }

    fn free_blocks(&self, chunk: ChunkIndex, set: BlockSet) -> Result<(), PagerError> {
        let cell = self.core.cells.get_or_make(chunk);
        self.core.unsay(chunk, set);
        loop {
            self.core.transition(chunk, |blocks| blocks.discard(set))?;
            let mut state = cell.lock();
            let current = state.chunk.current(Side::Host) | state.chunk.current(Side::Device);
            // A stray touch may have brought a block back in between.
            if ((current | state.chunk.busy()) & set).is_empty() {
                state.chunk.free(set);
                state.thrash.forget(set);
                self.core.watches.note(chunk, &state.chunk, set, Cause::Free);
                return Ok(());
            }
        }
    }

    /// Moves `extent` to `side` and opens it there, so that accesses there do not fault.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`], [`PagerError::Poisoned`], [`PagerError::DeviceMemoryFull`],
    /// [`PagerError::OverDeviceLimit`], [`limosa_gpu::GpuError::DeviceLost`]. What was brought before the error stays there.
    pub fn prefetch(&self, side: Side, extent: Extent) -> Result<(), PagerError> {
        self.check_range(extent)?;
        self.check_room(side, &[extent.to_blocks()])?;
        extent.chunks().try_for_each(|(chunk, set)| {
            // What is read on both sides is shared; the advice may change in between, which does no harm.
            self.prefetch_chunk(chunk, |blocks| blocks.prefetch(side, set - blocks.advice().read_mostly()))?;
            self.prefetch_chunk(chunk, |blocks| blocks.duplicate(side, set & blocks.advice().read_mostly()))
        })
    }

    /// Passes an error on; if it tells of the loss of the device, the heap takes note. Not under any lock.
    pub(crate) fn told(&self, error: PagerError) -> PagerError {
        match error {
            PagerError::Gpu(error) => self.noticed(error),
            other => other,
        }
    }

    /// That what can move of `extents`, which are whole blocks, could be brought to `side`.
    pub(crate) fn check_room(&self, side: Side, extents: &[Extent]) -> Result<(), PagerError> {
        let budget = self.core.vram.asked();
        let all: u64 = extents.iter().map(|extent| extent.len).sum();
        let asked = if all > budget { all - self.core.shared_bytes_in(extents) } else { all };
        match side {
            Side::Device if self.core.lost() => Err(limosa_gpu::GpuError::DeviceLost.into()),
            Side::Device if asked > budget => Err(PagerError::RangeTooLarge { asked, budget }),
            Side::Device => self.core.check_limits_of(extents),
            Side::Host => Ok(()),
        }
    }

    /// Prefetches blocks of one chunk. Where launches in flight hold what would have to make room, it waits for them.
    fn prefetch_chunk(
        &self,
        chunk: ChunkIndex,
        mut event: impl FnMut(&mut limosa_model::Chunk) -> Verdict,
    ) -> Result<(), PagerError> {
        loop {
            let (admitted, any_before) = self.core.scheduler.admitted();
            match self.core.transition(chunk, &mut event) {
                Err(full) if full.is_device_full() => {
                    let running = self.core.scheduler.running();
                    // None ran all the time, nor came and went meanwhile.
                    if !any_before && running.is_empty() && self.core.scheduler.admitted().0 == admitted {
                        return Err(full);
                    }
                    Timeline::wait_any(&running).map_err(|error| self.noticed(error))?;
                    self.core.settle();
                }
                done => return done.map_err(|error| self.told(error)),
            }
        }
    }

    /// Makes the CPU the only owner of `extent`, opens it, and keeps it so until [`Self::unpin`]: its frames may be given
    /// to direct or asynchronous I/O. Waits for launches that hold it; launches wait for it.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`], [`PagerError::Poisoned`]; nothing is pinned then.
    pub fn pin(&self, extent: Extent) -> Result<(), PagerError> {
        self.check_range(extent)?;
        self.core.pin(extent).map_err(|error| self.told(error))
    }

    /// Ends one [`Self::pin`] of `extent`.
    pub fn unpin(&self, extent: Extent) {
        extent.chunks().for_each(|(chunk, set)| self.core.unpin_blocks(chunk, set));
        // A launch may have been waiting for it, and others for that: nobody else need be there to move them on.
        self.core.settle();
        self.core.call_reaper();
    }

    /// Forgets the contents of `extent`, by whole blocks that lie in it: they read as zeros, and take up nothing. Waits
    /// for launches that hold it.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`].
    pub fn discard(&self, extent: Extent) -> Result<(), PagerError> {
        self.check_range(extent)?;
        let discarded = extent.inner_blocks().chunks().try_for_each(|(chunk, set)| {
            self.zero_shared(chunk, set);
            self.core.transition(chunk, |blocks| blocks.discard(set))
        });
        discarded.map_err(|error| self.told(error))
    }

    /// Where the blocks of `extent` are.
    #[must_use]
    pub fn residency(&self, extent: Extent) -> Vec<Residency> {
        self.core.residency(extent)
    }

    /// Where the blocks of `extent` are, in bytes.
    #[must_use]
    pub fn residency_summary(&self, extent: Extent) -> ResidencySummary {
        let mut summary = ResidencySummary::default();
        self.residency(extent).iter().for_each(|run| summary.count(run));
        summary
    }

    /// The ranges of which the only copy was lost with the device.
    #[must_use]
    pub fn poisoned(&self) -> Vec<Extent> {
        self.core.poisoned()
    }

    /// Lets go of what completed launches hold, so that accesses to it need not wait.
    pub fn settle_launches(&self) {
        self.core.settle();
    }

    /// Whether the device was lost.
    #[must_use]
    pub fn device_lost(&self) -> bool {
        self.core.lost()
    }

    /// Brings `extent` to the host and makes sure that all of it is there to be read.
    ///
    /// # Errors
    /// [`PagerError::Poisoned`] naming the lost range, [`PagerError::NotAllocated`].
    pub fn ensure_readable(&self, extent: Extent) -> Result<(), PagerError> {
        self.prefetch(Side::Host, extent)
    }

    /// Makes the CPU the only owner of `extent`, as its own stores would.
    ///
    /// # Errors
    /// [`PagerError::Poisoned`] naming the lost range, [`PagerError::NotAllocated`].
    pub fn ensure_writable(&self, extent: Extent) -> Result<(), PagerError> {
        self.check_range(extent)?;
        for (chunk, set) in extent.chunks() {
            for slot in set.slots() {
                let moved = self.core.transition(chunk, |blocks| {
                    if blocks.writable(Side::Host).contains(slot) {
                        return Verdict::Done;
                    }
                    blocks.fault(Side::Host, slot, set, limosa_model::Access::Write)
                });
                moved.map_err(|error| self.told(error))?;
            }
        }
        Ok(())
    }

    pub(crate) fn check_range(&self, extent: Extent) -> Result<(), PagerError> {
        let end = extent.start.checked_add(extent.len);
        if end.is_some_and(|end| end <= self.range().len) { Ok(()) } else { Err(self.core.not_allocated(extent)) }
    }

    pub(crate) fn arena_error(&self, error: ArenaError) -> PagerError {
        match error {
            ArenaError::Full { asked, largest } => PagerError::HeapFull { heap: self.range().len, asked, largest },
            ArenaError::Alignment(align) => PagerError::Alignment(align),
            ArenaError::NotAllocated(start) => self.core.not_allocated(Extent { start, len: 0 }),
        }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // Nobody has a launch in flight: each keeps the heap.
        self.core.view.detach();
    }
}
