//! The demonstration's main part: PageRank on the device, the CPU touching nodes between iterations, and the CPU twin
//! beside it doing the same, whose ranks are the oracle. How it is printed is not decided here.

use std::cmp::Reverse;
use std::iter::zip;
use std::time::{Duration, Instant};

use limosa::{Context, Counters, ResidencySummary};
use limosa_shaders::pagerank::{self as oracle, TOLERANCE};

use crate::error::CliError;
use crate::graph::Graph;
use crate::kernels::{LinkedGraph, Ranker};
use crate::progress::Steps;

/// After these many iterations the CPU changes nodes in place: early, so that convergence absorbs the change.
pub(crate) const TOUCHES_AFTER: [u32; 3] = [2, 4, 6];
/// So many nodes each time.
const TOUCHED_NODES: usize = 5;
/// A prime number of nodes from those of one time to those of the next, for each node that was touched.
const TOUCH_SHIFT: usize = 211;
/// What their ranks are multiplied by.
const TOUCH_FACTOR: f32 = 1.5;
const TOP: usize = 10;
/// Edges between two reports of progress.
const REPORT_EDGES: u64 = 1 << 14;

/// What the ranking is to do.
pub(crate) struct Settings {
    /// The share of a rank that follows the edges.
    pub(crate) damping: f32,
    /// It ends when the ranks move by this much in sum, or less.
    pub(crate) residual_limit: f64,
    /// It fails when they do not within so many iterations.
    pub(crate) iteration_limit: u32,
}

/// A node that the CPU changed in place between two iterations.
pub(crate) struct Touch {
    /// How many iterations had run.
    pub(crate) after: u32,
    /// The node's name.
    pub(crate) label: String,
    /// The rank that the CPU read.
    pub(crate) rank: f32,
}

/// What came of it.
pub(crate) struct Ranking {
    /// Time to build nodes and edges.
    pub(crate) build_time: Duration,
    /// Time of the launches, each until the CPU has read the residual.
    pub(crate) device_time: Duration,
    /// Time of the CPU twin's iterations.
    pub(crate) twin_time: Duration,
    /// Launches.
    pub(crate) iterations: u32,
    /// How far the last moved the ranks.
    pub(crate) residual: f64,
    /// What was counted from the first launch until the ranks were read.
    pub(crate) ran: Counters,
    /// What the CPU did between iterations.
    pub(crate) touches: Vec<Touch>,
    /// The largest difference from the twin, as a share of the rank.
    pub(crate) difference: f32,
    /// Where nodes and edges were before the ranks were read, and after.
    pub(crate) residency: [[ResidencySummary; 2]; 2],
    /// Bytes of nodes and edges.
    pub(crate) bytes: u64,
    /// The highest ranks, with the nodes' names.
    pub(crate) top: Vec<(f32, String)>,
}

/// Builds `graph` in the context's heap, ranks it there, and verifies the ranks.
pub(crate) fn rank(context: &Context, graph: &Graph, settings: &Settings) -> Result<Ranking, CliError> {
    let heap = context.heap();
    let twin = Twin::new(graph, settings.damping)?;
    let start = Instant::now();
    let progress = Steps::start("building nodes and edges", graph.edges.len() as u64);
    let report = |edges: u64| {
        if edges.is_multiple_of(REPORT_EDGES) {
            progress.at(edges);
        }
    };
    let linked = LinkedGraph::build(heap, &graph.edges, &twin.graph, report);
    let linked = linked.map_err(CliError::during("building the graph"))?;
    let (build_time, built) = (start.elapsed(), heap.counters());
    drop(progress);

    let ranker = Ranker::new(context, settings.damping).map_err(CliError::during("loading the kernel"))?;
    let mut run = Run { graph, linked, ranker, twin, device_time: Duration::ZERO, touches: Vec::new() };
    let residual = run.converge(settings)?;
    let residency_before = run.linked.residency();
    let (difference, top) = run.verify()?;
    Ok(Ranking {
        build_time,
        device_time: run.device_time,
        twin_time: run.twin.time,
        iterations: run.linked.iterations(),
        residual,
        ran: heap.counters().since(&built),
        touches: run.touches,
        difference,
        residency: [residency_before, run.linked.residency()],
        bytes: run.linked.bytes(),
        top,
    })
}

/// The CPU's own ranks.
struct Twin {
    graph: oracle::Graph,
    ranks: Vec<f32>,
    damping: f32,
    time: Duration,
}

impl Twin {
    fn new(graph: &Graph, damping: f32) -> Result<Self, CliError> {
        let graph = oracle::Graph::new(graph.node_count, &graph.edges).ok_or(CliError::BrokenGraph)?;
        Ok(Self { ranks: oracle::start(&graph), graph, damping, time: Duration::ZERO })
    }

    fn iterate(&mut self) {
        let start = Instant::now();
        oracle::twin(&self.graph, &mut self.ranks, self.damping);
        self.time += start.elapsed();
    }
}

/// A ranking under way.
struct Run<'a> {
    graph: &'a Graph,
    linked: LinkedGraph,
    ranker: Ranker,
    twin: Twin,
    device_time: Duration,
    touches: Vec<Touch>,
}

impl Run<'_> {
    /// Iterates until the ranks have settled; answers the last residual.
    fn converge(&mut self, settings: &Settings) -> Result<f64, CliError> {
        let progress = Steps::start("ranking", u64::from(settings.iteration_limit));
        let last_touch = TOUCHES_AFTER.into_iter().max().unwrap_or(0);
        let mut residual = f64::INFINITY;
        while residual > settings.residual_limit || self.linked.iterations() <= last_touch {
            let iterations = self.linked.iterations();
            if iterations >= settings.iteration_limit {
                return Err(CliError::NotConverged { residual, iterations, limit: settings.residual_limit });
            }
            let start = Instant::now();
            self.ranker.iterate(&mut self.linked).map_err(CliError::during("running the kernel"))?;
            residual = self.linked.residual().map_err(CliError::during("reading the residual"))?;
            self.device_time += start.elapsed();
            self.twin.iterate();
            if TOUCHES_AFTER.contains(&self.linked.iterations()) {
                self.touch()?;
            }
            progress.say(format!("ranking, residual {residual:.1e}"));
            progress.next();
        }
        Ok(residual)
    }

    /// Follows pointers to a few nodes spread over the graph, reads their ranks and changes them in place; the twin
    /// does the same to its own.
    fn touch(&mut self) -> Result<(), CliError> {
        let after = self.linked.iterations();
        let (nodes, shift) = (self.graph.node_count, TOUCH_SHIFT * self.touches.len());
        for start in (0..TOUCHED_NODES).map(|part| (part * nodes / TOUCHED_NODES + shift) % nodes) {
            let followed = self.linked.first_source(start).map_err(CliError::during("following pointers"))?;
            let expected = self.twin.graph.in_edges(start).first().map(|source| *source as usize);
            if followed != Some(expected) {
                return Err(CliError::Pointer { label: self.graph.label(start) });
            }
            let node = expected.unwrap_or(start);
            let read = self.linked.scale_rank(node, TOUCH_FACTOR).map_err(CliError::during("changing a node"))?;
            let own = &mut self.twin.ranks[node];
            if !tolerable(difference(read, *own)) {
                return Err(self.mismatch(node, read, 1));
            }
            *own *= TOUCH_FACTOR;
            self.touches.push(Touch { after, label: self.graph.label(node), rank: read });
        }
        Ok(())
    }

    /// Reads all ranks in place and compares; answers the largest difference and the highest ranks.
    fn verify(&self) -> Result<(f32, Vec<(f32, String)>), CliError> {
        let nodes = self.linked.nodes().map_err(CliError::during("reading the ranks"))?;
        let (mut largest, mut wrong, mut first_wrong) = (0.0f32, 0, None);
        for (index, (node, expected)) in zip(nodes.iter(), &self.twin.ranks).enumerate() {
            let difference = difference(node.rank(), *expected);
            largest = largest.max(difference);
            if !tolerable(difference) {
                wrong += 1;
                first_wrong = first_wrong.or(Some((index, node.rank())));
            }
        }
        if let Some((index, found)) = first_wrong {
            return Err(self.mismatch(index, found, wrong));
        }
        let mut order: Vec<(u32, usize)> = nodes.iter().map(|node| node.rank().to_bits()).zip(0..).collect();
        // Ranks are not negative, so their bits are in their order.
        let top = TOP.min(order.len());
        order.select_nth_unstable_by_key(top - 1, |(rank, node)| (Reverse(*rank), *node));
        order.truncate(top);
        order.sort_unstable_by_key(|(rank, node)| (Reverse(*rank), *node));
        let top = order.into_iter().map(|(rank, node)| (f32::from_bits(rank), self.graph.label(node))).collect();
        Ok((largest, top))
    }

    fn mismatch(&self, node: usize, found: f32, wrong: usize) -> CliError {
        CliError::Mismatch {
            label: self.graph.label(node),
            found,
            expected: self.twin.ranks[node],
            wrong,
            nodes: self.graph.node_count,
            iterations: self.linked.iterations(),
        }
    }
}

/// How far apart two ranks are, as a share of the expected one.
fn difference(found: f32, expected: f32) -> f32 {
    if found.to_bits() == expected.to_bits() { 0.0 } else { (found - expected).abs() / expected.abs() }
}

/// Whether a difference may be the device's rounding. NaN may not.
fn tolerable(difference: f32) -> bool {
    difference <= TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_a_share_of_the_expected_rank() {
        assert!(difference(0.0, 0.0) <= 0.0);
        assert!((difference(1.5, 1.0) - 0.5).abs() < 1e-6);
        assert!(difference(1.0, 0.0).is_infinite());
        assert!(!tolerable(difference(f32::NAN, 1.0)) && !tolerable(2.0 * TOLERANCE) && tolerable(0.0));
    }
}
