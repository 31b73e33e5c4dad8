//! Taking advice: entered in the blocks' own state and in the order of eviction. What follows from it is decided by the
//! model, at the next fault, prefetch or eviction; nothing moves here.

use limosa_model::{Advice, BlockSet, ChunkIndex, Extent};

use crate::core::Core;
use crate::error::PagerError;
use crate::heap::Heap;

impl Core {
    /// Enters what is said of `blocks`, which are allocated and are not freed meanwhile.
    pub(crate) fn advise(&self, chunk: ChunkIndex, blocks: BlockSet, advice: Advice) {
        let Some(cell) = self.cells.get(chunk) else { return };
        let mut order = self.vram.lock();
        let mut state = cell.lock();
        state.chunk.advise(blocks, advice);
        order.advise(chunk, state.chunk.advice());
    }

    /// Whether anything is said of `blocks`.
    pub(crate) fn is_advised(&self, chunk: ChunkIndex, blocks: BlockSet) -> bool {
        let advised = |cell: &crate::cell::Cell| !(cell.lock().chunk.advice().given() & blocks).is_empty();
        self.cells.get(chunk).is_some_and(advised)
    }
}

impl Heap {
    /// Says of `extent` how it will be used; replaces what was said before, and holds until it is freed. It applies to
    /// the blocks of which `extent` has every allocated byte: a block in which another part is in use, or which small
    /// allocations share, stays as it is.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`] if part of it is not allocated; nothing is changed then.
    pub fn advise(&self, extent: Extent, advice: Advice) -> Result<(), PagerError> {
        // The lock keeps allocations from being freed meanwhile.
        let arena = self.arena();
        self.check_allocated(&[extent])?;
        let blocks = arena.own_blocks(extent);
        blocks.chunks().for_each(|(chunk, set)| self.core().advise(chunk, set, advice));
        Ok(())
    }
}
