//! The graphs that the demo ranks: the bundled one, and edge lists that the user names. This module reads them into
//! plain lists in ordinary memory; it knows nothing of the unified heap, into which the demo builds its own nodes.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

mod bundled;
mod codec;
mod snap;

pub(crate) use bundled::bundled;
pub(crate) use snap::read_snap;

/// A directed graph.
#[derive(Debug)]
pub(crate) struct Graph {
    /// What the graph is, for people: the bundled one's origin and date, or the file's name.
    pub(crate) source: String,
    /// Nodes are numbered from 0 to one less than this. At least two.
    pub(crate) node_count: usize,
    /// Edges as (source, target), sorted, no two equal, none from a node to itself. At least one.
    pub(crate) edges: Vec<(u32, u32)>,
    /// What the nodes are called.
    pub(crate) labels: Labels,
}

/// What the nodes of a graph are called, in the order of their numbers.
#[derive(Debug)]
pub(crate) enum Labels {
    /// By name: the bundled graph.
    Names(Vec<String>),
    /// By the id that the file gave them: an edge list.
    Ids(Vec<u64>),
}

impl Graph {
    /// The name of a node, or the id that it had in its file.
    ///
    /// # Panics
    /// When `node` is not below `node_count`.
    pub(crate) fn label(&self, node: usize) -> String {
        match &self.labels {
            Labels::Names(names) => names[node].clone(),
            Labels::Ids(ids) => ids[node].to_string(),
        }
    }
}

/// Why there is no graph.
#[derive(Debug, Error)]
pub(crate) enum GraphError {
    /// The bundled data is damaged: a broken build, not something the user did.
    #[error("the bundled graph: {0}; the build is broken, examples/data/README.md says how the data is made")]
    Bundled(codec::CodecError),
    /// The file cannot be opened or read.
    #[error("cannot read the edge list {}: {cause}", .path.display())]
    Read { path: PathBuf, cause: io::Error },
    /// A line is neither an edge nor a comment.
    #[error("{}, line {line_number}: \"{line}\" where {expected} was expected (an edge list in SNAP's format: one \
             edge a line, `from to`; comments begin with #)", .path.display())]
    Malformed { path: PathBuf, line_number: u64, line: String, expected: &'static str },
    /// No edge is left that leads from one node to another.
    #[error("{}: no edge between two different nodes: there is nothing to rank", .path.display())]
    Empty { path: PathBuf },
    /// The nodes cannot be numbered with 32 bits.
    #[error("{}: {count} nodes, more than the 4294967295 that limosa demo can number", .path.display())]
    TooManyNodes { path: PathBuf, count: usize },
}
