//! Where data is now: a query, not a hint. The answer is true of each chunk at the instant it was looked at.

use limosa_model::{BLOCK, BlockState, Copies, Extent};

use crate::core::Core;

/// The state of a run of equal blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residency {
    /// The run, by offset in the heap.
    pub extent: Extent,
    /// The state of each of its blocks.
    pub state: BlockState,
}

/// Bytes by where they are; each byte is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidencySummary {
    /// Only in system RAM.
    pub host: u64,
    /// Only in VRAM.
    pub device: u64,
    /// In both, equal.
    pub both: u64,
    /// Nowhere: reads as zeros.
    pub zero: u64,
    /// Lost.
    pub poisoned: u64,
}

impl ResidencySummary {
    /// Adds a run up.
    pub(crate) fn count(&mut self, run: &Residency) {
        let bytes = match run.state.copies {
            Copies::Unallocated => return,
            Copies::Zero => &mut self.zero,
            Copies::Poisoned => &mut self.poisoned,
            Copies::Current { host: true, device: true, .. } => &mut self.both,
            Copies::Current { device: true, .. } => &mut self.device,
            Copies::Current { .. } => &mut self.host,
        };
        *bytes += run.extent.len;
    }
}

impl Core {
    /// The blocks of `extent`, equal neighbours joined.
    pub(crate) fn residency(&self, extent: Extent) -> Vec<Residency> {
        let mut runs: Vec<Residency> = Vec::new();
        for (chunk, blocks) in extent.chunks() {
            let Some(cell) = self.cells.get(chunk) else { continue };
            let state = cell.lock();
            for slot in blocks.slots() {
                let (extent, state) = (chunk.run(slot, 1), state.chunk.state(slot));
                match runs.last_mut() {
                    Some(last) if last.state == state && last.extent.end() == extent.start => last.extent.len += BLOCK,
                    _ => runs.push(Residency { extent, state }),
                }
            }
        }
        runs
    }
}
