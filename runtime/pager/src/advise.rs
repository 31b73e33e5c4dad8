//! Taking advice: entered in the blocks' own state and in the order of eviction. What follows from it is decided by the
//! model, at the next fault, prefetch or eviction; nothing moves here.

use limosa_model::{Advice, BlockSet, Chunk, ChunkIndex, Extent, Priority};

use crate::core::Core;
use crate::error::PagerError;
use crate::heap::Heap;

impl Core {
    /// Enters what is said of blocks of the chunk, which are allocated and are not freed meanwhile.
    pub(crate) fn say(&self, chunk: ChunkIndex, say: impl FnOnce(&mut Chunk)) {
        let Some(cell) = self.cells.get(chunk) else { return };
        let mut order = self.vram.lock();
        let mut state = cell.lock();
        say(&mut state.chunk);
        order.note(chunk, &state.chunk);
    }

    /// Takes back whatever is said of `blocks`.
    pub(crate) fn unsay(&self, chunk: ChunkIndex, blocks: BlockSet) {
        let is_said = |cell: &crate::cell::Cell| {
            let state = cell.lock();
            let normal = state.chunk.priorities().of(Priority::Normal);
            !(state.chunk.advice().given() & blocks).is_empty() || !normal.covers(blocks)
        };
        if self.cells.get(chunk).is_some_and(is_said) {
            self.say(chunk, |state| {
                state.advise(blocks, Advice::None);
                state.prioritize(blocks, Priority::Normal);
            });
        }
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
        blocks.chunks().for_each(|(chunk, set)| self.core().say(chunk, |blocks| blocks.advise(set, advice)));
        Ok(())
    }
}
