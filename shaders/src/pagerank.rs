//! PageRank over nodes and edges that the CPU linked by pointers: one iteration per launch, pulled along
//! each node's list of in-edges. It builds no lists, and the kernel does not decide when to stop.
//!
//! An iteration computes `rank = (1 − d)/n + d · (Σ share(in-edges) + dangling/n)`, where a node's share is
//! `rank · weight`, its weight the inverse of its out-degree, and `dangling` the sum of the ranks of nodes
//! without out-edges. Sums over all nodes are integers ([`fixed`]), so no order of addition matters; sums
//! over a list follow the list; nothing is divided or fused. A device that rounds to nearest, with no
//! denormal number in sight, gives the twin's bits; on any other expect [`TOLERANCE`].

use crate::Kernel;

/// The relative difference of ranks to be tolerated on a device that rounds or flushes as it likes.
pub const TOLERANCE: f32 = 1e-5;

/// What 1.0 is as an integer total. Totals are exact to 2⁻⁵⁶ for each node, and must stay below 256.
const SCALE: f32 = 72_057_594_037_927_936.0;

/// A node, as the kernel knows it. An application may keep it at the start of a larger struct.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Node {
    /// The address of the first in-[`Edge`], or 0.
    pub first_in: u64,
    /// The rank after the last iteration.
    pub rank: f32,
    /// `1.0 / out_degree`, or 0 without out-edges: see [`weight`].
    pub weight: f32,
    /// `rank * weight`, read at the iteration's parity and written at the other.
    pub share: [f32; 2],
    /// How far the last iteration moved the rank.
    pub change: f32,
    /// How many edges leave the node.
    pub out_degree: u32,
}
assert_layout!(Node, 32, { first_in: 0, rank: 8, weight: 12, share: 16, change: 24, out_degree: 28 });

impl Node {
    /// A node before iteration 0, with the rank 1/n.
    pub fn start(first_in: u64, out_degree: u32, count: usize) -> Node {
        let (rank, weight) = (inverse(count), weight(out_degree));
        Node { first_in, rank, weight, share: [rank * weight, 0.0], change: 0.0, out_degree }
    }

    /// Gives the node another rank before `iteration` runs, keeping what the kernel derives from it.
    pub fn set_rank(&mut self, rank: f32, iteration: u32, totals: &mut Totals) {
        if self.out_degree == 0 {
            let dangling = &mut totals.dangling[slot(iteration)];
            *dangling = dangling.wrapping_sub(fixed(self.rank)).wrapping_add(fixed(rank));
        }
        self.rank = rank;
        self.share[usize::from(iteration % 2 == 1)] = rank * self.weight;
    }
}

/// An edge, in the list of its target.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    /// The address of the [`Node`] that it leaves.
    pub source: u64,
    /// The address of the next edge with the same target, or 0.
    pub next: u64,
}
assert_layout!(Edge, 16, { source: 0, next: 8 });

/// Sums over all nodes, in three slots that take turns: iteration i reads slot i % 3, adds to the next and
/// clears the one after. So iterations may be queued without the CPU between them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The ranks of nodes without out-edges, as [`fixed`] gives them.
    pub dangling: [u64; 3],
    /// How far the ranks moved, in sum.
    pub residual: [u64; 3],
}
assert_layout!(Totals, 48, { dangling: 0, residual: 24 });

impl Totals {
    /// The totals before iteration 0, of nodes as [`Node::start`] makes them.
    pub fn start(count: usize, dangling_nodes: usize) -> Totals {
        let dangling = fixed(inverse(count)).wrapping_mul(dangling_nodes as u64);
        Totals { dangling: [dangling, 0, 0], residual: [0; 3] }
    }

    /// The L1 residual of an iteration, readable until the next but one starts.
    pub fn residual(&self, iteration: u32) -> f64 {
        from_fixed(self.residual[slot(iteration.wrapping_add(1))])
    }
}

/// The kernel's arguments. Launch `count` invocations or more, one launch after the other.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The address of the first [`Node`].
    pub nodes: u64,
    /// Bytes from one node to the next, a multiple of 8.
    pub node_stride: u64,
    /// How many nodes.
    pub count: u64,
    /// The address of the [`Totals`].
    pub totals: u64,
    /// `1.0 / count`: see [`inverse`].
    pub inverse_count: f32,
    /// The share of a rank that follows the edges: 0.85 by custom.
    pub damping: f32,
    /// The number of this iteration, from 0.
    pub iteration: u32,
    /// Not read: it fills the struct to a multiple of 8 bytes.
    pub reserved: u32,
}
assert_layout!(Args, 48, {
    nodes: 0, node_stride: 8, count: 16, totals: 24, inverse_count: 32, damping: 36, iteration: 40, reserved: 44,
});

/// The kernel.
pub const KERNEL: Kernel = kernel!("pagerank");

/// The slot of [`Totals`] that an iteration reads.
fn slot(iteration: u32) -> usize {
    [0, 1, 2][iteration as usize % 3]
}

/// 1/n, or 0 for none.
#[allow(
    clippy::cast_precision_loss,
    reason = "a count beyond 2^24 is rounded: the share of a node is a float in any case"
)]
pub fn inverse(count: usize) -> f32 {
    if count == 0 { 0.0 } else { 1.0 / count as f32 }
}

/// The weight of a node with so many out-edges.
pub fn weight(out_degree: u32) -> f32 {
    usize::try_from(out_degree).map_or(0.0, inverse)
}

/// A rank, or a change of one, as the integer that totals are summed in.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "truncation is what the kernel does; ranks and changes are not negative"
)]
pub fn fixed(value: f32) -> u64 {
    (value * SCALE) as u64
}

/// A total as a number.
#[allow(clippy::cast_precision_loss, reason = "2^-53 of a total is far below a rank's own precision")]
pub fn from_fixed(total: u64) -> f64 {
    total as f64 / f64::from(SCALE)
}

/// The twin's graph: the sources of each node's in-edges, by index.
#[derive(Clone, Debug)]
pub struct Graph {
    starts: Vec<usize>,
    sources: Vec<u32>,
    out_degrees: Vec<u32>,
}

impl Graph {
    /// A graph of `nodes` nodes and edges `(source, target)`; none if an edge names a node that is not
    /// there. In-edges of a node are in the order of `edges`, as its linked list must be for equal bits.
    pub fn new(nodes: usize, edges: &[(u32, u32)]) -> Option<Graph> {
        let mut starts = vec![0; nodes + 1];
        let mut out_degrees = vec![0; nodes];
        for &(source, target) in edges {
            *out_degrees.get_mut(source as usize)? += 1;
            // A target that is not there must not count as the end of the last node's edges.
            out_degrees.get(target as usize)?;
            starts[target as usize + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        let mut free = starts.clone();
        let mut sources = vec![0; edges.len()];
        for &(source, target) in edges {
            let at = &mut free[target as usize];
            sources[*at] = source;
            *at += 1;
        }
        Some(Graph { starts, sources, out_degrees })
    }

    /// How many nodes.
    pub fn len(&self) -> usize {
        self.out_degrees.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.out_degrees.is_empty()
    }

    /// The sources of a node's in-edges, in the order in which they are summed.
    pub fn in_edges(&self, node: usize) -> &[u32] {
        &self.sources[self.starts[node]..self.starts[node + 1]]
    }

    /// How many edges leave each node.
    pub fn out_degrees(&self) -> &[u32] {
        &self.out_degrees
    }

    /// How many nodes no edge leaves.
    pub fn dangling_nodes(&self) -> usize {
        self.out_degrees.iter().filter(|degree| **degree == 0).count()
    }
}

/// The twin's ranks, 1/n each before the first iteration. Changing them between iterations is what
/// [`Node::set_rank`] does.
pub fn start(graph: &Graph) -> Vec<f32> {
    vec![inverse(graph.len()); graph.len()]
}

/// What one launch does: the new ranks in place, and the L1 residual.
#[allow(clippy::cast_precision_loss, reason = "rounded as the kernel rounds: a total to the nearest float")]
pub fn twin(graph: &Graph, ranks: &mut [f32], damping: f32) -> f64 {
    let inverse_count = inverse(graph.len());
    let mut dangling = 0u64;
    let mut shares = Vec::with_capacity(ranks.len());
    for (rank, degree) in ranks.iter().zip(graph.out_degrees()) {
        shares.push(rank * weight(*degree));
        if *degree == 0 {
            dangling = dangling.wrapping_add(fixed(*rank));
        }
    }
    let spread = dangling as f32 * (1.0 / SCALE) * inverse_count;
    let base = (1.0 - damping) * inverse_count;
    let mut residual = 0u64;
    for (node, rank) in ranks.iter_mut().enumerate() {
        let mut pulled = 0.0;
        for source in graph.in_edges(node) {
            pulled += shares[*source as usize];
        }
        let next = base + damping * (pulled + spread);
        residual = residual.wrapping_add(fixed((next - *rank).abs()));
        *rank = next;
    }
    from_fixed(residual)
}

/// What a run of launches comes to.
#[derive(Clone, Debug)]
pub struct Converged {
    /// The rank of each node.
    pub ranks: Vec<f32>,
    /// How many iterations ran.
    pub iterations: u32,
    /// The L1 residual of the last.
    pub residual: f64,
}

/// Runs the twin until the residual is at most `residual_limit`, or for `iteration_limit` iterations.
pub fn converge(graph: &Graph, damping: f32, residual_limit: f64, iteration_limit: u32) -> Converged {
    let mut result = Converged { ranks: start(graph), iterations: 0, residual: f64::INFINITY };
    while result.residual > residual_limit && result.iterations < iteration_limit {
        result.residual = twin(graph, &mut result.ranks, damping);
        result.iterations += 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash;

    fn random(nodes: u32, edges: u64) -> Vec<(u32, u32)> {
        let pick = |x| u32::try_from(hash::mix(x) % u64::from(nodes)).unwrap();
        // The last node has no out-edge.
        (0..edges).map(|i| (pick(2 * i) % (nodes - 1), pick(2 * i + 1))).collect()
    }

    /// The textbook's formula in double precision, by pushing along the edges as they were given.
    fn naive(nodes: u32, edges: &[(u32, u32)], iterations: u32) -> Vec<f64> {
        let (n, nodes) = (f64::from(nodes), nodes as usize);
        let mut ranks = vec![1.0 / n; nodes];
        let mut degrees = vec![0.0; nodes];
        edges.iter().for_each(|edge| degrees[edge.0 as usize] += 1.0);
        for _ in 0..iterations {
            let dangling: f64 = (0..nodes).filter(|i| degrees[*i] == 0.0).map(|i| ranks[i]).sum();
            let mut next = vec![0.15 / n + 0.85 * dangling / n; nodes];
            for &(source, target) in edges {
                next[target as usize] += 0.85 * ranks[source as usize] / degrees[source as usize];
            }
            ranks = next;
        }
        ranks
    }

    #[test]
    fn the_twin_is_the_textbooks_page_rank() {
        let edges = random(97, 300);
        let graph = Graph::new(97, &edges).unwrap();
        let mut ranks = start(&graph);
        for iteration in 1..=20 {
            twin(&graph, &mut ranks, 0.85);
            for (rank, exact) in ranks.iter().zip(naive(97, &edges, iteration)) {
                assert!((f64::from(*rank) - exact).abs() <= exact * f64::from(TOLERANCE));
            }
        }
    }

    #[test]
    fn ranks_sum_to_one_and_converge() {
        let graph = Graph::new(500, &random(500, 1500)).unwrap();
        let result = converge(&graph, 0.85, 1e-6, 200);
        assert!(result.residual <= 1e-6 && result.iterations < 200, "{result:?}");
        let sum: f64 = result.ranks.iter().copied().map(f64::from).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert_eq!(converge(&graph, 0.85, 0.0, 3).iterations, 3);
    }

    #[test]
    fn in_edges_keep_their_order() {
        let graph = Graph::new(3, &[(2, 0), (1, 0), (0, 2), (0, 0)]).unwrap();
        assert_eq!(graph.in_edges(0), [2, 1, 0]);
        assert!(graph.in_edges(1).is_empty());
        assert_eq!(graph.out_degrees(), [2, 1, 1]);
        assert_eq!(graph.dangling_nodes(), 0);
        assert!(Graph::new(3, &[(0, 3)]).is_none() && Graph::new(3, &[(3, 0)]).is_none());
        assert!(Graph::new(0, &[]).is_some_and(|g| g.is_empty()));
    }

    #[test]
    fn a_rank_that_is_set_moves_its_share_and_the_dangling_total() {
        let mut totals = Totals::start(4, 2);
        let (mut linked, mut dangling) = (Node::start(0, 2, 4), Node::start(0, 0, 4));
        linked.set_rank(0.5, 3, &mut totals);
        assert_eq!((linked.rank, linked.share), (0.5, [0.125, 0.25]));
        assert_eq!(from_fixed(totals.dangling[0]), 0.5);
        dangling.set_rank(0.125, 0, &mut totals);
        assert_eq!(from_fixed(totals.dangling[0]), 0.375);
        assert_eq!(dangling.share, [0.0; 2]);
    }

    #[test]
    fn fixed_numbers_are_exact_for_ranks() {
        for rank in [0.0f32, 1.0, 0.1, 3.0e-7] {
            assert_eq!(from_fixed(fixed(rank)), f64::from(rank));
        }
    }
}
