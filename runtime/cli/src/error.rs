//! The command's error, and how errors are printed. It adds what was being done; what went wrong, and the remedy, is
//! the library's to say.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::compile::CompileError;
use crate::file::FileError;
use crate::graph::GraphError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// There is no graph to rank.
    #[error("demo: {0}")]
    Graph(#[from] GraphError),
    /// There is no file to look at.
    #[error("demo: {0}")]
    File(#[from] FileError),
    /// The graph breaks its own promises: a defect of whoever read it.
    #[error("demo: an edge of the graph names a node that it does not have; report this")]
    BrokenGraph,
    /// There is no module.
    #[error("compile: {0}")]
    Compile(#[from] CompileError),
    /// No context: no device, no userfaultfd, a limit that is too small.
    #[error("cannot open a context: {0}")]
    Open(#[source] limosa::Error),
    /// The library failed later.
    #[error("{doing}: {source}")]
    Library { doing: &'static str, source: limosa::Error },
    /// What the GPU computed is not what the CPU computes.
    #[error(
        "demo: verification failed: node {label} has rank {found:e} where the CPU twin has {expected:e} ({wrong} of \
         {nodes} nodes differ by more than {} of the rank, after {iterations} iterations)",
        limosa_shaders::pagerank::TOLERANCE
    )]
    Mismatch { label: String, found: f32, expected: f32, wrong: usize, nodes: usize, iterations: u32 },
    /// Following a pointer led to another node than it was made for.
    #[error("demo: verification failed: the first in-edge of node {label} does not lead where it was linked to")]
    Pointer { label: String },
    /// Words that moved came back changed.
    #[error("demo: verification failed: word {index} of the moved array is {found:#x} where {expected:#x} was written")]
    Moved { index: usize, found: u32, expected: u32 },
    /// The device hashed a block otherwise than the CPU does.
    #[error(
        "demo: verification failed: block {block} of the file has the fingerprint {:016x}{:016x} where the CPU twin has \
         {:016x}{:016x} ({wrong} of {blocks} blocks differ; did the file change meanwhile?)",
        found[0], found[1], expected[0], expected[1]
    )]
    Fingerprint { block: usize, found: [u64; 2], expected: [u64; 2], wrong: usize, blocks: usize },
    /// The device hashed another number of blocks.
    #[error("demo: verification failed: {found} blocks have fingerprints where the CPU twin has {expected}")]
    Blocks { found: usize, expected: usize },
    /// The device counted bytes otherwise than the CPU does.
    #[error(
        "demo: verification failed: byte {byte:#04x} occurs {found} times in the file where the CPU twin counts \
         {expected}"
    )]
    Count { byte: usize, found: u64, expected: u64 },
    /// The ranks did not settle.
    #[error(
        "demo: no convergence: the residual is {residual:.1e} after {iterations} iterations, above {limit:e}; allow more \
         with --iterations, or a larger --residual"
    )]
    NotConverged { residual: f64, iterations: u32, limit: f64 },
    /// Not one block of each window fits.
    #[error(
        "scan: {depth} windows of a block of {block} bytes do not fit half of the device budget of {budget} bytes: use \
         smaller blocks (--block), fewer windows (--depth), or a budget of {needed} bytes or more (--budget)"
    )]
    BlockTooLarge { block: u64, depth: usize, needed: u64, budget: u64 },
    /// Their numbers would not fit 32 bits, or their records not the memory.
    #[error(
        "scan: no room for the records of {blocks} blocks: {why}; use larger blocks (--block), or leave files out: {} alone \
         has {largest} bytes (--one-file-system leaves /proc out)", path.display()
    )]
    TooManyBlocks { blocks: u64, why: String, path: PathBuf, largest: u64 },
    /// Fingerprints are not spread: no files that nobody made for it do this.
    #[error(
        "scan: {homeless} of {blocks} fingerprints found no slot in their part of the hash table: use a larger --budget, \
         so that it has fewer parts"
    )]
    TableFull { homeless: u32, blocks: u64 },
    /// The device linked what it should not have.
    #[error("scan: a chain of the hash table does not lead from record to record; report this")]
    BrokenChain,
    /// The device found otherwise than the CPU does.
    #[error(
        "scan: verification failed: the block of {place} has the fingerprint {:x?} and is a duplicate of {}, where the \
         CPU's has {:x?} and is one of {}", found.0, found.1, expected.0, expected.1
    )]
    Block { place: String, found: ([u32; 4], String), expected: ([u32; 4], String) },
    /// The sums differ.
    #[error("scan: verification failed: {found:?} duplicate blocks and bytes, where the CPU counts {expected:?}")]
    Duplicates { found: [u64; 2], expected: [u64; 2] },
    /// Two blocks of one fingerprint.
    #[error(
        "scan: verification failed: the blocks of {place} and {original} have one fingerprint and differ: a collision, \
         if neither file changed; scan with another --block"
    )]
    Collision { place: String, original: String },
    /// Nothing can be said of it.
    #[error("scan: cannot verify: {} changed after it was scanned; scan it again", path.display())]
    ChangedSince { path: PathBuf },
    /// It could be read the first time.
    #[error("scan: cannot verify: {}: {source}", path.display())]
    Reread { path: PathBuf, source: io::Error },
    /// Standard output is closed or full.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// The report cannot be written as JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl CliError {
    /// For `map_err`: the library's error, with what was being done.
    pub(crate) fn during(doing: &'static str) -> impl Fn(limosa::Error) -> Self {
        move |source| Self::Library { doing, source }
    }
}

/// An error with its causes on one line. Many errors quote their cause already; those are not said twice.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_are_said_once() {
        assert_eq!(with_causes(&Outer(io::Error::other("the inner"))), "the outer: the inner");
        let error = CliError::Output(io::Error::other("closed"));
        assert_eq!(with_causes(&error), "cannot write to standard output: closed");
    }
}
