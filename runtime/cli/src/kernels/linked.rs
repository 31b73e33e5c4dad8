//! A graph as structs in unified memory, linked by raw pointers, and PageRank over it by a kernel that follows them.
//! It does *not* decide when the ranks have settled.
//!
//! What launches rely on: every pointer in nodes and edges is null or leads to a node or an edge of the same graph. The
//! fields are private, pointers are stored in [`LinkedGraph::build`] only, and what is changed later are ranks.

use std::iter::zip;
use std::mem::offset_of;

use limosa::{Context, GpuPtr, Heap, Kernel, Queue, ReadGuard, ResidencySummary, Result, Shareable};
use limosa::{UnifiedBox, UnifiedVec};
use limosa_shaders::pagerank;

/// A node as the kernel knows it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Node(pagerank::Node);

// SAFETY: numbers only, every bit pattern valid; `repr(C)` without padding, which limosa-shaders asserts.
unsafe impl Shareable for Node {}

impl Node {
    /// The rank after the last iteration.
    pub(crate) fn rank(&self) -> f32 {
        self.0.rank
    }
}

/// An edge as the kernel knows it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Edge(pagerank::Edge);

// SAFETY: as for `Node`.
unsafe impl Shareable for Edge {}

/// The sums over all nodes.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Totals(pagerank::Totals);

// SAFETY: as for `Node`.
unsafe impl Shareable for Totals {}

/// A graph in unified memory.
pub(crate) struct LinkedGraph {
    nodes: UnifiedVec<Node>,
    edges: UnifiedVec<Edge>,
    totals: UnifiedBox<Totals>,
    /// Iterations that have run.
    iterations: u32,
}

impl LinkedGraph {
    /// Builds the graph of `edges` (source, target), whose index by target `index` is. `step` is told of each edge.
    pub(crate) fn build(
        heap: &Heap,
        edges: &[(u32, u32)],
        index: &pagerank::Graph,
        mut step: impl FnMut(u64),
    ) -> Result<Self> {
        let count = index.len();
        let mut nodes = heap.vec_zeroed::<Node>(count)?;
        let mut list = heap.vec_zeroed::<Edge>(edges.len())?;
        let (first_node, first_edge) = (nodes.ptr(0), list.ptr(0));
        let mut node_guard = nodes.write()?;
        for (node, degree) in zip(node_guard.iter_mut(), index.out_degrees()) {
            *node = Node(pagerank::Node::start(0, *degree, count));
        }
        // Each edge is put before those of its target that are linked already; so from the last to the first, for the
        // lists to have the order in which the twin adds.
        let mut edge_guard = list.write()?;
        for (at, (edge, (source, target))) in zip(edge_guard.iter_mut(), edges).enumerate().rev() {
            let first_in = &mut node_guard[*target as usize].0.first_in;
            *edge = Edge(pagerank::Edge { source: first_node.add(u64::from(*source)).address(), next: *first_in });
            *first_in = first_edge.add(at as u64).address();
            step((edges.len() - at) as u64);
        }
        let totals = heap.boxed(Totals(pagerank::Totals::start(count, index.dangling_nodes())))?;
        Ok(Self { nodes, edges: list, totals, iterations: 0 })
    }

    /// Iterations that have run.
    pub(crate) fn iterations(&self) -> u32 {
        self.iterations
    }

    /// How far the last iteration moved the ranks, in sum.
    pub(crate) fn residual(&self) -> Result<f64> {
        Ok(self.totals.read()?.0.residual(self.iterations.wrapping_sub(1)))
    }

    /// The nodes where they are, for reading.
    pub(crate) fn nodes(&self) -> Result<ReadGuard<'_, Node>> {
        self.nodes.read()
    }

    /// The node that the first in-edge of `node` leaves, found by following both pointers. `Some(None)` without
    /// in-edges; `None` where a pointer leads nowhere in the graph.
    pub(crate) fn first_source(&self, node: usize) -> Result<Option<Option<usize>>> {
        let (nodes, edges) = (self.nodes.read()?, self.edges.read()?);
        let first = GpuPtr::from_address(nodes[node].0.first_in);
        if first.is_null() {
            return Ok(Some(None));
        }
        let source = edges.follow(first).map(|edge| GpuPtr::<Node>::from_address(edge.0.source));
        let Some(source) = source.filter(|source| nodes.follow(*source).is_some()) else { return Ok(None) };
        let offset = source.address() - self.nodes.ptr(0).address();
        Ok(usize::try_from(offset).ok().map(|offset| Some(offset / size_of::<Node>())))
    }

    /// Reads the rank of `node` and multiplies it in place. Answers what was read.
    pub(crate) fn scale_rank(&mut self, node: usize, factor: f32) -> Result<f32> {
        let (mut nodes, mut totals) = (self.nodes.write()?, self.totals.write()?);
        let rank = nodes[node].rank();
        nodes[node].0.set_rank(rank * factor, self.iterations, &mut totals.0);
        Ok(rank)
    }

    /// Where nodes and edges are.
    pub(crate) fn residency(&self) -> [ResidencySummary; 2] {
        [self.nodes.residency_summary(), self.edges.residency_summary()]
    }

    /// Bytes of nodes and edges.
    pub(crate) fn bytes(&self) -> u64 {
        self.nodes.raw().len() + self.edges.raw().len()
    }
}

/// The kernel, ready to run.
pub(crate) struct Ranker {
    kernel: Kernel,
    queue: Queue,
    damping: f32,
    /// Whether pages are to come by the kernel's own faults, or are declared.
    by_faults: bool,
}

impl Ranker {
    pub(crate) fn new(context: &Context, damping: f32) -> Result<Self> {
        let kernel = context.kernel(pagerank::KERNEL.name, pagerank::KERNEL.spirv)?;
        Ok(Self { kernel, queue: context.queue()?, damping, by_faults: context.serves_undeclared() })
    }

    /// Runs an iteration and waits for it.
    pub(crate) fn iterate(&self, graph: &mut LinkedGraph) -> Result<()> {
        // The order of the launch's arguments below.
        const {
            assert!(offset_of!(pagerank::Args, node_stride) == 8 && offset_of!(pagerank::Args, count) == 16);
            assert!(offset_of!(pagerank::Args, totals) == 24 && offset_of!(pagerank::Args, inverse_count) == 32);
            assert!(offset_of!(pagerank::Args, damping) == 36 && offset_of!(pagerank::Args, iteration) == 40);
        }
        let count = graph.nodes.len();
        let first = graph.nodes.ptr(0);
        let launch = self.queue.launch(&self.kernel, count as u64).arg(first);
        let launch = if self.by_faults {
            launch.keeps(graph.nodes.raw()).keeps(graph.edges.raw())
        } else {
            launch.with(graph.edges.reads()).with(graph.nodes.writes())
        };
        let launch = launch.args((size_of::<Node>() as u64, count as u64));
        let launch = launch.arg(graph.totals.as_mut_vec().writes());
        let launch = launch.args((pagerank::inverse(count), self.damping, graph.iterations, 0u32));
        // SAFETY: the kernel follows the pointers of the nodes and edges, which stay among these (see the module), and
        // writes nodes and totals. What is not declared is kept, and `graph` is borrowed until the launch has completed.
        unsafe { launch.submit() }?.wait()?;
        graph.iterations += 1;
        Ok(())
    }
}
