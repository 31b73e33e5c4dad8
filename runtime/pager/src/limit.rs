//! The device limits of allocations: how much of each may have device memory at a time.
//!
//! A limit is a budget of an allocation's own, and works as the heap's does. What comes beyond it makes the allocation's
//! own blocks leave, those that came first first, and never others'. Only what is not held and not under a move can
//! leave; so a launch is admitted only when its set fits into each limit beside what launches in flight hold
//! ([`Core::fits_limits`]), and waits in the queue until then, holding nothing. A launch that holds something runs, and a
//! running one waits for nobody; so there is no cycle, as in `scheduler`. A set that could never fit is an error before
//! anything is queued. A fault waits for no launch, which may be behind the kernel that faults: as with the budget, as
//! long as a kernel runs that may touch what it does not declare, others leave it a part of each limit.
//!
//! Frames are counted, not copies: a frame whose block has left the device counts until it is given back, and is the
//! first to be. It does *not* make room in the budget.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limosa_model::policy::{EvictionPolicy, LeastRecentlyUsed};
use limosa_model::{BLOCK, Block, BlockSet, CHUNK, ChunkIndex, Extent, Side};

use crate::admission::FAULT_SHARE;
use crate::allocation::Account;
use crate::cell::Cell;
use crate::config::{DEVICE_BUDGET_MIN, DeviceClass};
use crate::core::Core;
use crate::error::PagerError;
use crate::record::Record;
use crate::vram::EvictionOrder;

/// The limit of one allocation, and what has frames of it.
#[derive(Debug)]
pub(crate) struct Limit {
    blocks: u64,
    /// Blocks with frames, in the order in which they got them. Comes after the VRAM pool's lock, and before any cell's.
    resident: Mutex<LeastRecentlyUsed<Block>>,
}

impl Limit {
    /// Of so many bytes, rounded up to whole blocks.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { blocks: bytes.div_ceil(BLOCK).max(1), resident: Mutex::default() }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(BLOCK)
    }

    /// Whether a neighbourhood that a kernel's fault brings could drive out what other faults have just brought.
    pub(crate) fn is_narrow(&self) -> bool {
        self.bytes() < DEVICE_BUDGET_MIN
    }

    fn lock(&self) -> MutexGuard<'_, LeastRecentlyUsed<Block>> {
        self.resident.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks are the allocation's no more.
    pub(crate) fn forget(&self, chunk: ChunkIndex, blocks: BlockSet) {
        let mut resident = self.lock();
        blocks.slots().for_each(|slot| resident.remove(chunk.block(slot)));
    }

    fn room(&self) -> u64 {
        self.blocks.saturating_sub(self.lock().count())
    }
}

/// Whether a block with a frame could leave the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// At once; if it is not `current`, only its frame is left.
    Now { current: bool },
    /// After the move that is under way.
    Soon,
    /// It is held, or the caller's own.
    Never,
}

/// Blocks by chunk, neighbours in the order joined.
fn by_chunk(blocks: &[Block]) -> Vec<(ChunkIndex, BlockSet)> {
    let mut groups: Vec<(ChunkIndex, BlockSet)> = Vec::new();
    for block in blocks {
        match groups.last_mut().filter(|(chunk, _)| *chunk == block.chunk()) {
            Some((_, set)) => *set |= BlockSet::of(block.slot()),
            None => groups.push((block.chunk(), BlockSet::of(block.slot()))),
        }
    }
    groups
}

impl Core {
    /// The least that a limit can be. Where kernels fault, one that brings a block must not drive out what another
    /// thread's fault has just brought before that thread comes to use it: a chunk is more than run at a time.
    pub(crate) fn least_device_limit(&self) -> u64 {
        if self.class == DeviceClass::Faulting { CHUNK } else { BLOCK }
    }

    /// Blocks with a limit have got frames, or have lost them. By who has the VRAM pool.
    pub(crate) fn note_frames(&self, chunk: ChunkIndex, cell: &Cell, got: BlockSet, lost: BlockSet) {
        if !self.allocations.any_limited() {
            return;
        }
        let limited: Vec<_> = cell.lock().accounts.limited().map(|(own, account)| (own, Arc::clone(account))).collect();
        for (own, account) in limited {
            let Some(limit) = &account.limit else { continue };
            let mut resident = limit.lock();
            (got & own).slots().for_each(|slot| resident.touch(chunk.block(slot)));
            (lost & own).slots().for_each(|slot| resident.remove(chunk.block(slot)));
        }
    }

    /// Gives back the frames that an allocation's blocks had in an earlier life; those that cannot be are its own.
    pub(crate) fn adopt_frames(&self, chunk: ChunkIndex, cell: &Cell, blocks: BlockSet, account: &Account) {
        let mut order = self.vram.lock();
        self.free_idle_frames(&mut order, chunk);
        let Some(limit) = &account.limit else { return };
        let mut resident = limit.lock();
        (cell.frames() & blocks).slots().for_each(|slot| resident.touch(chunk.block(slot)));
    }

    /// Sees to it that frames for `missing` keep to the limits of the allocations that they are of. The blocks of the
    /// chunk in `covers` are the caller's. Gives whether there is any limit in the chunk.
    ///
    /// # Errors
    /// [`PagerError::DeviceMemoryBusy`], [`PagerError::DeviceLimitFull`], [`limosa_gpu::GpuError::DeviceLost`].
    pub(crate) fn keep_to_limits(
        &self,
        order: &mut EvictionOrder,
        chunk: ChunkIndex,
        cell: &Cell,
        missing: BlockSet,
        covers: BlockSet,
    ) -> Result<bool, PagerError> {
        if !self.allocations.any_limited() {
            return Ok(false);
        }
        let limited: Vec<_> = cell.lock().accounts.limited().map(|(own, account)| (own, Arc::clone(account))).collect();
        for (own, account) in &limited {
            let needed = u64::from((missing & *own).count());
            if needed > 0 {
                self.make_room_within(order, account, needed, (chunk, covers))?;
            }
        }
        Ok(!limited.is_empty())
    }

    /// Has the allocation's own blocks leave until it may have `needed` more.
    fn make_room_within(
        &self,
        order: &mut EvictionOrder,
        account: &Account,
        needed: u64,
        own: (ChunkIndex, BlockSet),
    ) -> Result<(), PagerError> {
        let Some(limit) = &account.limit else { return Ok(()) };
        let mut failed = false;
        loop {
            let room = limit.room();
            if room >= needed {
                return Ok(());
            }
            let lacking = usize::try_from(needed - room).unwrap_or(usize::MAX);
            for (chunk, blocks) in by_chunk(&self.oldest_that_can_go(order, limit, lacking, own)) {
                match self.evict_blocks(chunk, |_, evictable| evictable & blocks) {
                    Err(error @ PagerError::Gpu(limosa_gpu::GpuError::DeviceLost)) => return Err(error),
                    evicted => failed |= evicted.is_err(),
                }
                self.free_idle_frames(order, chunk);
            }
            if limit.room() > room {
                continue;
            }
            let rest: Vec<Block> = limit.lock().oldest().collect();
            // One that came back while it was evicted could still go; one of which that failed would fail again.
            let soon = |block| match self.leaves(block, own) {
                Leaves::Soon => true,
                Leaves::Now { current } => current && !failed,
                Leaves::Never => false,
            };
            if rest.into_iter().any(soon) {
                return Err(PagerError::DeviceMemoryBusy);
            }
            return Err(PagerError::DeviceLimitFull { allocation: account.called(), limit: limit.bytes() });
        }
    }

    /// The blocks to leave, at most `count`: those that came first, but what a launch in the queue has declared after
    /// everything else.
    fn oldest_that_can_go(
        &self,
        order: &EvictionOrder,
        limit: &Limit,
        count: usize,
        own: (ChunkIndex, BlockSet),
    ) -> Vec<Block> {
        let resident = limit.lock();
        let idle = |block: &Block| matches!(self.leaves(*block, own), Leaves::Now { .. });
        let awaited = |block: &Block| order.policy.is_awaited(block.chunk());
        let mut going: Vec<Block> =
            resident.oldest().filter(|block| !awaited(block) && idle(block)).take(count).collect();
        if going.len() < count {
            let rest = resident.oldest().filter(|block| awaited(block) && idle(block));
            going.extend(rest.take(count - going.len()));
        }
        going
    }

    /// Whether a block with a frame could leave, those in `covers` of the chunk being the caller's own.
    fn leaves(&self, block: Block, (chunk, covers): (ChunkIndex, BlockSet)) -> Leaves {
        let slot = block.slot();
        let own = block.chunk() == chunk && covers.contains(slot);
        let (Some(cell), false) = (self.cells.get(block.chunk()), own) else { return Leaves::Never };
        let state = cell.lock();
        if (state.chunk.held() | state.stand_in.device).contains(slot) {
            Leaves::Never
        } else if state.chunk.busy().contains(slot) {
            Leaves::Soon
        } else {
            Leaves::Now { current: state.chunk.current(Side::Device).contains(slot) }
        }
    }

    /// That no limit is below what `asked` has of its allocation.
    ///
    /// # Errors
    /// [`PagerError::OverDeviceLimit`].
    pub(crate) fn check_limits(
        &self,
        what: fmt::Arguments<'_>,
        asked: impl Fn(ChunkIndex) -> BlockSet,
    ) -> Result<(), PagerError> {
        for account in self.allocations.limited() {
            let Some(limit) = &account.limit else { continue };
            let own = account.blocks().chunks().map(|(chunk, own)| u64::from((asked(chunk) & own).count()));
            let asked = own.sum::<u64>() * BLOCK;
            if asked > limit.bytes() {
                let (what, allocation) = (what.to_string(), account.called());
                return Err(PagerError::OverDeviceLimit { what, allocation, asked, limit: limit.bytes() });
            }
        }
        Ok(())
    }

    /// The same of what is to be brought by a prefetch.
    ///
    /// # Errors
    /// [`PagerError::OverDeviceLimit`].
    pub(crate) fn check_limits_of(&self, extents: &[Extent]) -> Result<(), PagerError> {
        let asked = |chunk| extents.iter().fold(BlockSet::EMPTY, |all, extent| all | extent.blocks_in(chunk));
        self.check_limits(format_args!("prefetch"), asked)
    }

    /// Whether the launch's set fits into each limit beside what is held; with `reserve`, so that a part is left to faults.
    pub(crate) fn fits_limits(&self, record: &Record, reserve: bool) -> bool {
        self.allocations.limited().iter().all(|account| {
            let Some(limit) = &account.limit else { return true };
            let sets = record.sets();
            let held = account.blocks().chunks().map(|(chunk, own)| {
                let held = self.cells.get(chunk).map_or(BlockSet::EMPTY, |cell| cell.lock().chunk.held());
                u64::from(((held | sets.of(chunk).all()) & own).count())
            });
            let held: u64 = held.sum();
            let reserve = if reserve { (limit.blocks / FAULT_SHARE).max(1) } else { 0 };
            held == 0 || held + reserve <= limit.blocks
        })
    }
}
