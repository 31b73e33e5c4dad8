//! When the device is lost: what only VRAM held is poisoned and named, the rest stays, and nobody hangs.
//! It does *not* bring a device back: a new context does.

use limosa_gpu::GpuError;
use limosa_model::{BlockSet, Cause, ChunkIndex, Extent, Refusal, Side};

use crate::core::Core;
use crate::error::PagerError;

impl Core {
    /// Takes the device's copies away. Gives the ranges that were only there.
    pub(crate) fn lose_device(&self) -> Vec<Extent> {
        self.abandon_launches();
        let mut lost = Vec::new();
        for (chunk, cell) in self.cells.iter() {
            loop {
                let mut state = cell.lock();
                let before = state.chunk.current(Side::Device);
                match state.chunk.device_lost() {
                    Ok(blocks) => {
                        self.watches.note(chunk, &state.chunk, before, Cause::DeviceLost);
                        // A simulated loss leaves kernels running: they get stand-ins from here on.
                        let _ = self.view.close(chunk, BlockSet::ALL);
                        state.huge.device = false;
                        lost.extend(blocks.runs().map(|(first, count)| chunk.run(first, count)));
                        self.release(chunk, cell, state, BlockSet::ALL);
                        break;
                    }
                    Err(_) => {
                        let epoch = cell.epoch();
                        drop(state);
                        cell.wait(epoch);
                    }
                }
            }
        }
        self.watches.note_loss();
        merge(lost)
    }

    /// The poisoned ranges of the heap.
    pub(crate) fn poisoned(&self) -> Vec<Extent> {
        let runs = self.cells.iter().flat_map(|(chunk, cell)| {
            let poisoned = cell.lock().chunk.poisoned();
            poisoned.runs().map(|(first, count)| chunk.run(first, count)).collect::<Vec<_>>()
        });
        merge(runs.collect())
    }

    /// Makes poisoned blocks of `extent` usable again, as zeros.
    pub(crate) fn repair(&self, extent: Extent) {
        for (chunk, blocks) in extent.chunks() {
            let Some(cell) = self.cells.get(chunk) else { continue };
            let mut state = cell.lock();
            let repaired = state.chunk.repair(blocks);
            self.watches.note(chunk, &state.chunk, repaired, Cause::Repair);
            if !(repaired & state.stand_in.host).is_empty() && self.host.window.close(chunk.extent()).is_ok() {
                state.chunk.unmapped(Side::Host, BlockSet::ALL);
                state.huge.host = false;
                state.stand_in.host = BlockSet::EMPTY;
            }
        }
    }

    pub(crate) fn not_allocated(&self, extent: Extent) -> PagerError {
        PagerError::NotAllocated { start: self.address(extent.start).0, len: extent.len }
    }

    pub(crate) fn refusal(&self, chunk: ChunkIndex, refusal: Refusal, blocks: BlockSet) -> PagerError {
        let (first, count) = blocks.runs().next().unwrap_or((0, 0));
        let extent = chunk.run(first, count);
        match refusal {
            Refusal::Unallocated => self.not_allocated(extent),
            Refusal::Poisoned => {
                let (start, len, place) = (self.address(extent.start).0, extent.len, self.first_whereabouts(extent));
                PagerError::Poisoned { start, len, place }
            }
        }
    }
}

impl crate::heap::Heap {
    /// Passes an error of the device on; if it is the first to tell of a loss, the heap takes note.
    pub fn noticed(&self, error: GpuError) -> PagerError {
        self.core().noticed(error)
    }
}

impl Core {
    /// As [`crate::heap::Heap::noticed`].
    pub(crate) fn noticed(&self, error: GpuError) -> PagerError {
        if matches!(error, GpuError::DeviceLost) && !self.lost() {
            self.lose_device();
        }
        error.into()
    }
}

/// Joins neighbouring extents.
fn merge(extents: Vec<Extent>) -> Vec<Extent> {
    let mut merged: Vec<Extent> = Vec::new();
    for extent in extents {
        match merged.last_mut() {
            Some(last) if last.end() == extent.start => last.len += extent.len,
            _ => merged.push(extent),
        }
    }
    merged
}
