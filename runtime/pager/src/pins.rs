//! Pins: memory that stays with the CPU for direct or asynchronous I/O, and launches that wait for that. They do *not*
//! know who does the I/O.

use limosa_model::{BlockSet, ChunkIndex, DeclaredSets, Extent};

use crate::core::Core;
use crate::error::PagerError;

impl Core {
    /// Whether some of the blocks are pinned: the launch then waits as for another launch, and lets others pass.
    pub(crate) fn touches_pinned(&self, sets: &DeclaredSets) -> bool {
        sets.chunks().any(|(chunk, sets)| {
            let pinned = |cell: &crate::cell::Cell| !(cell.lock().chunk.pinned() & sets.all()).is_empty();
            self.cells.get(chunk).is_some_and(pinned)
        })
    }

    /// Makes the CPU the owner of `extent` and pins it. Under the scheduler's lock, so that no admission is half-way.
    pub(crate) fn pin(&self, extent: Extent) -> Result<(), PagerError> {
        loop {
            let mut state = self.scheduler.lock();
            self.release_completed(&mut state);
            if !state.queued.is_empty() {
                // What was given up may be what others wait for, and nobody else will tell them.
                self.call_reaper();
            }
            let held = extent.chunks().find_map(|(chunk, set)| {
                let cell = self.cells.get(chunk)?;
                let blocks = cell.lock();
                (!(blocks.chunk.held() & set).is_empty()).then(|| (cell, cell.epoch()))
            });
            let Some((cell, epoch)) = held else { return self.pin_unheld(extent) };
            drop(state);
            self.reaper_bell.ring();
            cell.wait(epoch);
        }
    }

    fn pin_unheld(&self, extent: Extent) -> Result<(), PagerError> {
        for (done, (chunk, set)) in extent.chunks().enumerate() {
            if let Err(error) = self.transition(chunk, |blocks| blocks.pin(set)) {
                extent.chunks().take(done).for_each(|(chunk, set)| self.unpin_blocks(chunk, set));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Ends one pin of `set`.
    pub(crate) fn unpin_blocks(&self, chunk: ChunkIndex, set: BlockSet) {
        if let Some(cell) = self.cells.get(chunk) {
            let mut state = cell.lock();
            state.chunk.unpin(set);
            self.release(chunk, cell, state, set);
        }
    }
}
