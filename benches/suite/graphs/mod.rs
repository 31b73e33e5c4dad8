//! Breadth-first search and PageRank on an R-MAT graph, with the hubs and the tails of a social network: the CPU's twin
//! on one thread and its like on all processors, and kernels on unified memory that holds all of the graph and that
//! holds half of it. Launches declare what they read, part by part. Unit: millions of edges a second. Every result is
//! compared with the twin's. Of PageRank, kernels follow pointers, 16 bytes an edge; the CPU's are indices, 4 bytes.

mod bfs;
mod pagerank;

use limosa::{Context, DEVICE_BUDGET_MIN, ViewKind};

use crate::report::Row;
use crate::resident::{DEVICE_BUDGET, HEAP_BYTES};
use crate::rounds::Series;
use crate::scale::Scale;

/// Of the edges, as drawn; each then goes in both directions.
const EDGES_OF_NODE: usize = 16;
/// A launch looks at one of so many equal ranges of nodes.
const PARTS: usize = 16;
/// What the arms are, in order.
const ARMS: [&str; 4] = ["CPU twin, 1 thread", "CPU, all processors", "unified resident", "unified at 200 %"];

/// A graph by its nodes' edges: as many nodes as a power of two.
struct Csr {
    offsets: Vec<u32>,
    targets: Vec<u32>,
}

impl Csr {
    /// R-MAT by Graph500's parameters, each edge in both directions.
    fn rmat(scale: u32) -> Self {
        let nodes = 1usize << scale;
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut percent = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) % 100
        };
        // Each bit of both ends by chance: quadrants of 57, 19, 19 and 5 %. An odd factor spreads the hubs.
        let mut edge = || {
            let (mut from, mut to) = (0u32, 0u32);
            for _ in 0..scale {
                let (high, low) = match percent() {
                    0..57 => (0, 0),
                    57..76 => (0, 1),
                    76..95 => (1, 0),
                    _ => (1, 1),
                };
                (from, to) = (from << 1 | high, to << 1 | low);
            }
            [from, to].map(|node| node.wrapping_mul(0x9e37_79b1) % (1 << scale))
        };
        let pairs: Vec<[u32; 2]> = (0..nodes * EDGES_OF_NODE).map(|_| edge()).collect();
        let both = || pairs.iter().flat_map(|[a, b]| [(*a as usize, *b), (*b as usize, *a)]);
        // Counting sort: of each node's edges, first the end, then, edge by edge, the start.
        let mut offsets = vec![0u32; nodes + 1];
        both().for_each(|(from, _)| offsets[from] += 1);
        for node in 0..nodes {
            offsets[node + 1] += offsets[node];
        }
        let mut targets = vec![0; 2 * pairs.len()];
        for (from, to) in both() {
            offsets[from] -= 1;
            targets[offsets[from] as usize] = to;
        }
        Self { offsets, targets }
    }

    fn nodes(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The edges of a range of nodes.
    fn edges(&self, nodes: std::ops::Range<usize>) -> std::ops::Range<usize> {
        self.offsets[nodes.start] as usize..self.offsets[nodes.end] as usize
    }

    fn parts(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let of_part = self.nodes() / PARTS;
        (0..PARTS).map(move |part| part * of_part..(part + 1) * of_part)
    }
}

/// A context whose device memory holds everything, or `bytes` and no less than it must be.
fn context(bytes: Option<usize>) -> Context {
    let budget = bytes.map_or(DEVICE_BUDGET, |bytes| DEVICE_BUDGET_MIN.max(bytes as u64));
    let builder = Context::builder().view(ViewKind::Import).heap_size(HEAP_BYTES as u64);
    builder.device_budget(budget).poison_stale(false).build().unwrap()
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A row for each arm, beside the twin; the last beside the one before, with `note` of what it moved.
fn rows(algorithm: &str, series: &[Series], note: &str) -> Vec<Row> {
    let row = |arm: usize| {
        let row = Row::new(format!("{algorithm}, {}", ARMS[arm]), &series[arm], "million edges/s");
        match arm {
            0 => row,
            3 => row.beside(ARMS[2], &series[2]).note(note),
            _ => row.beside(ARMS[0], &series[0]),
        }
    };
    (0..ARMS.len()).map(row).collect()
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let graph = Csr::rmat(scale.graph_scale);
    let mut rows = bfs::run(&graph, scale);
    rows.extend(pagerank::run(&graph, scale));
    rows
}
