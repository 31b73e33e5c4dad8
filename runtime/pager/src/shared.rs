//! Shared homes: memory that both sides see at all times, without copies, faults or holds; in RAM, or on a device.
//!
//! It is allocated and freed, and nothing else happens to it; who touches it when is the program's business. How one
//! memory comes into both views is the view's, and whose device memory it is [`crate::peers`]'. It does *not* survive a lost device any better or worse than the driver
//! lets it: nothing of it is poisoned.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use limosa_model::{Arena, BLOCK, BlockSet, CHUNK, Cause, ChunkIndex, DeclaredSets, Extent, Placement, Side};
use limosa_os::{OsError, PeerMemory};

use crate::core::Core;
use crate::error::PagerError;
use crate::heap::Heap;
use crate::peers::Peer;

impl Heap {
    /// Places `len` bytes, rounded up to whole blocks, of a shared home: zeros, seen by both sides until they are freed.
    pub(crate) fn place_shared(&self, arena: &mut Arena, len: u64, align: u64) -> Result<Placement, PagerError> {
        let placed = arena.allocate(len.max(BLOCK), align.max(BLOCK)).map_err(|error| self.arena_error(error))?;
        let Some(blocks) = placed.fresh_blocks else { return Ok(placed) };
        self.share_all(arena, placed, blocks, None)
    }

    /// The same of a device's memory.
    pub(crate) fn place_shared_device(&self, arena: &mut Arena, len: u64, align: u64) -> Result<Placement, PagerError> {
        let core = self.core();
        core.view.shows_peers()?;
        // From a chunk on, so that one mapping of the CPU's has as much as one of the device's memory.
        let own = if len < CHUNK { BLOCK } else { CHUNK };
        let placed = arena.allocate(len.max(BLOCK), align.max(own)).map_err(|error| self.arena_error(error))?;
        let Some(blocks) = placed.fresh_blocks else { return Ok(placed) };
        let memory = PeerMemory::take(core.config.peer_memory, blocks.len).inspect_err(|_| {
            let _ = arena.free(placed.extent.start);
        })?;
        let peer = Peer { blocks, memory: Arc::new(memory) };
        let placed = self.share_all(arena, placed, blocks, Some(&peer))?;
        core.peers.enter(peer);
        Ok(placed)
    }

    /// Shares all of an allocation, or nothing.
    fn share_all(
        &self,
        arena: &mut Arena,
        placed: Placement,
        blocks: Extent,
        peer: Option<&Peer>,
    ) -> Result<Placement, PagerError> {
        for (chunk, set) in blocks.chunks() {
            // What is kept for others may be the room that is lacking.
            let room = || if peer.is_some() { Ok(()) } else { self.room_to_share(chunk, set) };
            let reserved = room().or_else(|error| if self.core().make_host_room() { room() } else { Err(error) });
            let starts = chunk == ChunkIndex::containing(blocks.start);
            if let Err(error) = reserved.and_then(|()| self.share(chunk, set, starts, peer)) {
                let begun = blocks.chunks().take_while(|(other, _)| *other <= chunk);
                let kept: Vec<_> = begun.filter(|(chunk, set)| self.end_share(*chunk, *set).is_err()).collect();
                let _ = arena.free(placed.extent.start);
                // What could not be taken out of sight stays out of use.
                for (chunk, set) in kept {
                    set.runs().for_each(|(first, count)| arena.withhold(chunk.run(first, count)));
                }
                blocks.chunks().for_each(|(chunk, _)| self.core().retire_host(chunk));
                return Err(error);
            }
        }
        Ok(placed)
    }

    /// Makes sure that the host limit leaves room for sharing the blocks.
    fn room_to_share(&self, chunk: ChunkIndex, set: BlockSet) -> Result<(), PagerError> {
        let core = self.core();
        if core.view.shares_host_frames() {
            return core.reserve_host(chunk, set);
        }
        let (bytes, limit) = (core.view.shared_growth(set), core.config.host_limit);
        if bytes > 0 && self.host_committed() + core.view.shared_bytes() + bytes > limit {
            return Err(OsError::OutOfMemory { what: "shared memory", bytes, limit }.into());
        }
        Ok(())
    }

    /// Has both sides see the blocks. The caller holds the arena's lock, and ends what this has begun if it fails.
    fn share(&self, chunk: ChunkIndex, set: BlockSet, starts: bool, peer: Option<&Peer>) -> Result<(), PagerError> {
        let core = self.core();
        let cell = core.cells.get_or_make(chunk);
        if peer.is_some() {
            for side in [Side::Host, Side::Device] {
                core.clear_stand_ins(chunk, &mut cell.lock(), side, set)?;
            }
        }
        // First, so that nobody gives the host's frames back or takes the device's for all of the chunk.
        let mut state = core.settled_host(cell);
        state.chunk.share(set, starts);
        state.lives = state.lives.wrapping_add(1);
        drop(state);
        core.shared_blocks.fetch_add(set.count().into(), Ordering::Relaxed);
        // Those that the blocks had in an earlier life.
        core.drop_idle_frames(chunk);
        match peer {
            Some(peer) => core.view.show_peer(&core.host, chunk, set, peer)?,
            None => {
                if core.view.shares_host_frames() {
                    core.make_host_frames(chunk, cell)?;
                }
                core.view.share(&core.host, chunk, set)?;
            }
        }
        core.watches.note(chunk, &cell.lock().chunk, set, Cause::Allocation);
        Ok(())
    }

    /// Takes blocks out of sight again, and ends their allocation.
    fn end_share(&self, chunk: ChunkIndex, set: BlockSet) -> Result<(), PagerError> {
        let cell = self.core().cells.get_or_make(chunk);
        if (cell.lock().chunk.shared() & set).is_empty() {
            return Ok(());
        }
        self.unshare(chunk, set)?;
        cell.lock().chunk.free(set);
        Ok(())
    }

    /// Ends the sharing of those of the blocks that are shared; their allocation is over.
    pub(crate) fn unshare(&self, chunk: ChunkIndex, set: BlockSet) -> Result<(), PagerError> {
        let core = self.core();
        let shared = core.cells.get_or_make(chunk).lock().chunk.shared() & set;
        if shared.is_empty() {
            return Ok(());
        }
        core.view.unshare(&core.host, chunk, shared)?;
        core.shared_blocks.fetch_sub(shared.count().into(), Ordering::Relaxed);
        Ok(())
    }

    /// Zeroes those of the blocks that are shared: for what discards them.
    pub(crate) fn zero_shared(&self, chunk: ChunkIndex, set: BlockSet) {
        let core = self.core();
        let Some(cell) = core.cells.get(chunk) else { return };
        let shared = cell.lock().chunk.shared() & set;
        for (first, count) in shared.runs() {
            let extent = chunk.run(first, count);
            let bytes = usize::try_from(extent.len).unwrap_or(0);
            // SAFETY: mapped for reading and writing as long as it is allocated, which whoever discards it answers for,
            // as for nobody else using it.
            unsafe { std::ptr::write_bytes(self.address(extent.start).0 as *mut u8, 0, bytes) };
        }
    }
}

impl Core {
    /// Bytes of `extents` that are of shared homes.
    pub(crate) fn shared_bytes_in(&self, extents: &[Extent]) -> u64 {
        let shared = |(chunk, set): (ChunkIndex, BlockSet)| {
            let blocks = self.cells.get(chunk).map(|cell| cell.lock().chunk.shared() & set);
            blocks.map_or(0, |blocks| u64::from(blocks.count()) * BLOCK)
        };
        extents.iter().flat_map(|extent| extent.chunks()).map(shared).sum()
    }

    /// Takes shared blocks out of what a launch declares: there is nothing to bring or to hold.
    pub(crate) fn leave_out_shared(&self, sets: &mut DeclaredSets) {
        if self.shared_blocks.load(Ordering::Relaxed) > 0 {
            let shared = |chunk| self.cells.get(chunk).map_or(BlockSet::EMPTY, |cell| cell.lock().chunk.shared());
            sets.leave_out(shared);
        }
    }
}
