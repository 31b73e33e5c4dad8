//! Everything that the command launches on a device, and all of its unsafe code: which memory a kernel touches is for
//! its author to promise. What is public here is safe: each type keeps what its launches rely on.

mod duplicates;
mod linked;
mod passes;
mod words;

pub(crate) use duplicates::{Finder, Record, Records, Run, Slot, Table, Window};
pub(crate) use linked::{LinkedGraph, Ranker};
pub(crate) use passes::{FileInMemory, Findings, Pass, SEEDS, Scanner, Turn};
pub(crate) use words::{PAGE_WORDS, WordKernels};

/// A number of bytes or elements in memory, as an index. On the machines that limosa runs on both have 64 bits.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
