//! PageRank over nodes and edges that the CPU linked by pointers, some iterations in a row.

use std::time::Duration;

use limosa::{BLOCK, Context, Kernel, Queue, Shareable, UnifiedBox, UnifiedVec};
use limosa_shaders::pagerank::{self, Graph};

use super::{Csr, context, processors, rows};
use crate::report::Row;
use crate::rounds::{rotated, time};
use crate::scale::Scale;

const DAMPING: f32 = 0.85;
/// Of one measurement.
const ITERATIONS: u32 = 3;

/// A node or an edge or the totals, as the kernel knows them.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Known<T>(T);

// SAFETY: numbers only, every bit pattern valid; `repr(C)` without padding, which limosa-shaders asserts.
unsafe impl Shareable for Known<pagerank::Node> {}
// SAFETY: as above.
unsafe impl Shareable for Known<pagerank::Edge> {}
// SAFETY: as above.
unsafe impl Shareable for Known<pagerank::Totals> {}

struct Unified<'a> {
    graph: &'a Csr,
    nodes: UnifiedVec<Known<pagerank::Node>>,
    edges: UnifiedVec<Known<pagerank::Edge>>,
    totals: UnifiedBox<Known<pagerank::Totals>>,
    iterations: u32,
    kernel: Kernel,
    queue: Queue,
    context: Context,
}

impl<'a> Unified<'a> {
    /// Each node's in-edges lie in a row, so that a part of the nodes needs a range of them.
    fn new(graph: &'a Csr, twin: &Graph, budget: Option<usize>) -> Self {
        let context = context(budget);
        let heap = context.heap();
        let count = graph.nodes();
        let mut nodes = heap.vec_zeroed::<Known<pagerank::Node>>(count).unwrap();
        let mut edges = heap.vec_zeroed::<Known<pagerank::Edge>>(graph.targets.len()).unwrap();
        let (first_node, first_edge) = (nodes.ptr(0), edges.ptr(0));
        let address_of = |edge: usize| first_edge.add(edge as u64).address();
        let mut linked = nodes.write().unwrap();
        for (node, degree) in twin.out_degrees().iter().enumerate() {
            let own = graph.edges(node..node + 1);
            let first_in = if own.is_empty() { 0 } else { address_of(own.start) };
            linked[node] = Known(pagerank::Node::start(first_in, *degree, count));
        }
        let mut list = edges.write().unwrap();
        for node in 0..count {
            let own = graph.edges(node..node + 1);
            for edge in own.clone() {
                let source = first_node.add(u64::from(graph.targets[edge])).address();
                let next = if edge + 1 == own.end { 0 } else { address_of(edge + 1) };
                list[edge] = Known(pagerank::Edge { source, next });
            }
        }
        let totals = heap.boxed(Known(pagerank::Totals::start(count, twin.dangling_nodes()))).unwrap();
        let kernel = context.kernel(pagerank::KERNEL.name, pagerank::KERNEL.spirv).unwrap();
        let queue = context.queue().unwrap();
        Self { graph, nodes, edges, totals, iterations: 0, kernel, queue, context }
    }

    fn bytes(graph: &Csr) -> usize {
        size_of::<pagerank::Node>() * graph.nodes() + size_of::<pagerank::Edge>() * graph.targets.len()
    }

    /// Some iterations, submitted at once; each part's launch adds to the same totals.
    fn iterate(&mut self) -> Duration {
        let count = self.nodes.len();
        time(|| {
            for _ in 0..ITERATIONS {
                for part in self.graph.parts() {
                    let launch = self.queue.launch(&self.kernel, part.len() as u64).arg(self.nodes.ptr(part.start));
                    let launch = launch.args((size_of::<pagerank::Node>() as u64, part.len() as u64));
                    let launch = launch.args((self.totals.as_mut_vec().writes(), pagerank::inverse(count), DAMPING));
                    let launch = launch.args((self.iterations, 0u32)).with(self.nodes.writes());
                    let launch = launch.with(self.edges.slice(self.graph.edges(part)).unwrap().reads());
                    // SAFETY: the kernel follows pointers from the part's nodes to their in-edges, which are declared,
                    // and from those to nodes; it writes nodes and totals.
                    unsafe { launch.submit() }.unwrap();
                }
                self.iterations += 1;
            }
            self.queue.wait_idle().unwrap();
        })
    }

    fn ranks(&self) -> Vec<f32> {
        self.nodes.read().unwrap().iter().map(|node| node.0.rank).collect()
    }
}

/// One iteration on all processors, in the order of the twin's additions: the same ranks.
fn on_all_processors(graph: &Graph, ranks: &mut [f32]) {
    let degrees = graph.out_degrees();
    let part = ranks.len().div_ceil(processors());
    let shares: Vec<f32> = ranks.iter().zip(degrees).map(|(rank, degree)| rank * pagerank::weight(*degree)).collect();
    let without_edges = ranks.iter().zip(degrees).filter(|(_, degree)| **degree == 0);
    let dangling = without_edges.fold(0u64, |sum, (rank, _)| sum.wrapping_add(pagerank::fixed(*rank)));
    let inverse = pagerank::inverse(ranks.len());
    // As the twin rounds: the total to a float, then twice multiplied.
    let spread = dangling as f32 * (1.0 / 72_057_594_037_927_936.0) * inverse;
    let base = (1.0 - DAMPING) * inverse;
    std::thread::scope(|scope| {
        for (first, ranks) in (0..).step_by(part).zip(ranks.chunks_mut(part)) {
            let shares = &shares;
            scope.spawn(move || {
                for (node, rank) in (first..).zip(ranks) {
                    let pulled = graph.in_edges(node).iter().fold(0.0, |sum, source| sum + shares[*source as usize]);
                    *rank = base + DAMPING * (pulled + spread);
                }
            });
        }
    });
}

pub(super) fn run(graph: &Csr, scale: &Scale) -> Vec<Row> {
    let nodes = graph.nodes();
    let to_nodes = |node: usize| (node, graph.edges(node..node + 1));
    let edges: Vec<(u32, u32)> = (0..nodes)
        .map(to_nodes)
        .flat_map(|(node, own)| graph.targets[own].iter().map(move |source| (*source, u32::try_from(node).unwrap())))
        .collect();
    let twin = Graph::new(nodes, &edges).unwrap();
    drop(edges);
    let bytes = Unified::bytes(graph);
    let mut unified = [Unified::new(graph, &twin, None), Unified::new(graph, &twin, Some(bytes / 2))];
    let mut ranks = [pagerank::start(&twin), pagerank::start(&twin)];
    let mut moved = 0;
    let series = rotated(4, scale.rounds, |arm| {
        let taken = match arm {
            0 => time(|| {
                for _ in 0..ITERATIONS {
                    pagerank::twin(&twin, &mut ranks[0], DAMPING);
                }
            }),
            1 => time(|| (0..ITERATIONS).for_each(|_| on_all_processors(&twin, &mut ranks[1]))),
            _ => {
                let before = unified[arm - 2].context.heap().counters();
                let taken = unified[arm - 2].iterate();
                if arm == 3 {
                    moved = unified[1].context.heap().counters().since(&before).blocks_to_device;
                }
                taken
            }
        };
        f64::from(ITERATIONS) * graph.targets.len() as f64 / taken.as_secs_f64() / 1e6
    });
    let [expected, threads] = &ranks;
    for ranks in [threads, &unified[0].ranks(), &unified[1].ranks()] {
        let far = |(rank, twin): (&f32, &f32)| (rank - twin).abs() > pagerank::TOLERANCE * twin;
        assert!(!ranks.iter().zip(expected).any(far), "PageRank: the ranks are not the twin's");
    }
    let budget = unified[1].context.heap().device_budget() >> 20;
    let moved = (moved * BLOCK) >> 20;
    let note = format!("{} MiB of graph, {budget} MiB of device memory", bytes >> 20);
    rows("PageRank", &series, &format!("{note}; the last {ITERATIONS} iterations moved {moved} MiB to it"))
}
