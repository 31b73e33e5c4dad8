//! Where data is now: a query, not a hint. The answer is true of each chunk at the instant it was looked at.

use std::fmt;
use std::sync::MutexGuard;

use limosa_model::{BLOCK, BlockSet, BlockState, Copies, Extent};

use crate::cell::{Cell, CellState};
use crate::core::Core;

/// The state of a run of equal blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residency {
    /// The run, by offset in the heap.
    pub extent: Extent,
    /// The state of each of its blocks.
    pub state: BlockState,
}

/// Bytes by where they are; each byte is counted once. Its `Display` names those that there are: `12 MiB on the device,
/// 192 KiB on both`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidencySummary {
    /// Only in system RAM.
    pub host: u64,
    /// Only in VRAM.
    pub device: u64,
    /// In both, equal.
    pub both: u64,
    /// Of shared homes: in one memory that both sides see.
    pub shared: u64,
    /// Nowhere: reads as zeros.
    pub zero: u64,
    /// Lost.
    pub poisoned: u64,
}

impl fmt::Display for ResidencySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.host, "on the host"),
            (self.device, "on the device"),
            (self.both, "on both"),
            (self.shared, "shared"),
            (self.zero, "zero"),
            (self.poisoned, "lost"),
        ];
        let mut separator = "";
        for (bytes, place) in parts.into_iter().filter(|(bytes, _)| *bytes > 0) {
            write!(f, "{separator}{} {place}", Size(bytes))?;
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

/// Whole blocks, in the largest unit that keeps them exact.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let exact = units.into_iter().find(|(unit, _)| self.0.is_multiple_of(*unit));
        let (unit, name) = exact.unwrap_or((1, "bytes"));
        write!(f, "{} {name}", self.0 / unit)
    }
}

impl ResidencySummary {
    /// Adds a run up.
    pub fn count(&mut self, run: &Residency) {
        let bytes = match run.state.copies {
            Copies::Unallocated => return,
            Copies::Shared => &mut self.shared,
            Copies::Zero => &mut self.zero,
            Copies::Poisoned => &mut self.poisoned,
            Copies::Current { host: true, device: true, .. } => &mut self.both,
            Copies::Current { device: true, .. } => &mut self.device,
            Copies::Current { .. } => &mut self.host,
        };
        *bytes += run.extent.len;
    }
}

/// Moves waited for before a query answers with what is under way.
const MOVES_WAITED_FOR_MAX: u32 = 16;

impl Core {
    /// The state of a cell with no move of `blocks` under way, if that can be had: a thread whose fault was served is
    /// woken before the move is noted as done.
    fn settled<'a>(cell: &'a Cell, blocks: BlockSet) -> MutexGuard<'a, CellState> {
        let mut state = cell.lock();
        for _ in 0..MOVES_WAITED_FOR_MAX {
            if (state.chunk.busy() & blocks).is_empty() {
                break;
            }
            let epoch = cell.epoch();
            drop(state);
            cell.wait(epoch);
            state = cell.lock();
        }
        state
    }

    /// The blocks of `extent`, equal neighbours joined.
    pub(crate) fn residency(&self, extent: Extent) -> Vec<Residency> {
        let mut runs: Vec<Residency> = Vec::new();
        for (chunk, blocks) in extent.chunks() {
            let Some(cell) = self.cells.get(chunk) else { continue };
            let state = Self::settled(cell, blocks);
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
