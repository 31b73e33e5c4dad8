//! Allocations that change their length where they are: what is in them stays on the side that it is on.
//!
//! They are those of collections, whose contents the heap knows nothing of: zeros need not be values of theirs, so lost
//! ones are not repaired. It does *not* move an allocation to where there is more room.

use limosa_model::{Extent, Resized};

use crate::allocation::AllocationOptions;
use crate::error::PagerError;
use crate::heap::Heap;

impl Heap {
    /// As [`Self::allocate`], of whole blocks, for [`Self::resize`]. About `room` bytes of addresses behind it are kept
    /// free for it as long as there are others.
    ///
    /// # Errors
    /// As there.
    pub fn allocate_resizable(
        &self,
        len: u64,
        align: u64,
        room: u64,
        options: &AllocationOptions,
    ) -> Result<Extent, PagerError> {
        self.allocate_by(|arena| arena.allocate_resizable(len, align, room), len, align, options)
    }

    /// Makes the resizable allocation at offset `start` `len` bytes long. Nothing moves: new blocks read as zeros, those
    /// no longer needed are freed, for which it waits as [`Self::free`] does.
    ///
    /// # Errors
    /// [`PagerError::HeapFull`] if the addresses behind it are others', [`PagerError::NotAllocated`],
    /// [`limosa_os::OsError::OutOfMemory`]: nothing has changed then. [`PagerError::Os`] if a part could not be unmapped,
    /// which then stays out of use.
    pub fn resize(&self, start: u64, len: u64) -> Result<(), PagerError> {
        let mut arena = self.arena();
        let old = arena.containing(start).map_or(0, |old| old.len);
        match arena.resize(start, len).map_err(|error| self.arena_error(error))? {
            Resized::Within => {}
            Resized::Grown(blocks) => {
                if let Err(error) = self.bring_into_use(blocks, false) {
                    let _ = arena.resize(start, old);
                    return Err(error);
                }
                self.core().extend_account(start, blocks);
            }
            Resized::Shrunk(blocks) => {
                self.core().cut_account(start, blocks);
                self.core().resize_entry(start, len.max(1));
                return self.take_out_of_use(&mut arena, blocks);
            }
        }
        self.core().resize_entry(start, len.max(1));
        Ok(())
    }

    /// Makes lost blocks of `extent` usable again: they read as zeros. Those of resizable allocations stay lost.
    pub fn repair(&self, extent: Extent) {
        let extent = extent.to_blocks();
        // Held, so that none comes about in what is repaired.
        let arena = self.arena();
        let mut from = extent.start;
        for kept in arena.resizable_in(extent) {
            self.core().repair(Extent { start: from, len: kept.start.saturating_sub(from) });
            from = kept.end();
        }
        self.core().repair(Extent { start: from, len: extent.end().saturating_sub(from) });
    }
}
