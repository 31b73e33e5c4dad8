//! Everything that the command launches on a device, and all of its unsafe code: which memory a kernel touches is for
//! its author to promise. What is public here is safe: each type keeps what its launches rely on.

mod linked;
mod scan;
mod words;

pub(crate) use linked::{LinkedGraph, Ranker};
pub(crate) use scan::{FileInMemory, Findings, Pass, SEEDS, Scanner, Turn};
pub(crate) use words::{PAGE_WORDS, WordKernels};
