//! One level of a breadth-first search over a part of a graph's nodes. Parts make searches possible of graphs that a
//! device cannot hold at once: the caller launches the kernel level by level, for each part that has nodes on it.

use crate::Kernel;
use std::ops::Range;

/// The level of a node that was not reached.
pub const UNREACHED: u32 = u32::MAX;

/// The kernel's arguments. Launch `count` invocations or more.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The address of a `u32` for each node and one more: where its edges begin, and those of the one before end.
    pub offsets: u64,
    /// The address of the edges: of the node that each points to, a `u32`.
    pub targets: u64,
    /// The address of a `u32` for each node: its level, or [`UNREACHED`].
    pub levels: u64,
    /// The address of a `u32` for each part: the last level on which it has nodes.
    pub parts: u64,
    /// The first node looked at.
    pub first: u64,
    /// How many nodes are looked at.
    pub count: u64,
    /// The level whose nodes' edges are followed.
    pub level: u32,
    /// A part has this power of two of nodes.
    pub part_shift: u32,
}
assert_layout!(Args, 56, {
    offsets: 0, targets: 8, levels: 16, parts: 24, first: 32, count: 40, level: 48, part_shift: 52,
});

/// The kernel.
pub const KERNEL: Kernel = kernel!("bfs");

/// A graph by its nodes' edges.
#[derive(Clone, Copy, Debug)]
pub struct Graph<'a> {
    /// Where each node's edges begin, and those of the last end.
    pub offsets: &'a [u32],
    /// The node that each edge points to.
    pub targets: &'a [u32],
}

impl<'a> Graph<'a> {
    fn edges(&self, node: usize) -> &'a [u32] {
        &self.targets[self.offsets[node] as usize..self.offsets[node + 1] as usize]
    }
}

/// What a launch does.
pub fn twin(graph: Graph, levels: &mut [u32], parts: &mut [u32], nodes: Range<usize>, level: u32, part_shift: u32) {
    for node in nodes {
        if levels[node] != level {
            continue;
        }
        for &target in graph.edges(node) {
            if levels[target as usize] == UNREACHED {
                levels[target as usize] = level + 1;
                parts[(target >> part_shift) as usize] = level + 1;
            }
        }
    }
}

/// What the launches of all levels come to, by a queue: each node's level, from `source` on, which has level 0.
pub fn levels(graph: Graph, source: u32) -> Vec<u32> {
    let mut levels = vec![UNREACHED; graph.offsets.len().saturating_sub(1)];
    levels[source as usize] = 0;
    let mut queue = std::collections::VecDeque::from([source]);
    while let Some(node) = queue.pop_front() {
        let next = levels[node as usize] + 1;
        for &target in graph.edges(node as usize) {
            if levels[target as usize] == UNREACHED {
                levels[target as usize] = next;
                queue.push_back(target);
            }
        }
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash;

    /// Of 64 nodes, some with no edges.
    fn random(edges: usize, seed: u64) -> (Vec<u32>, Vec<u32>) {
        let mut pairs: Vec<(u32, u32)> = (0..edges as u64)
            .map(|i| {
                let bits = hash::three(seed, i, 0);
                (u32::try_from(bits % 64).unwrap(), u32::try_from((bits >> 32) % 64).unwrap())
            })
            .collect();
        pairs.sort_unstable();
        let offsets = (0..=64).map(|node| u32::try_from(pairs.partition_point(|edge| edge.0 < node)).unwrap());
        (offsets.collect(), pairs.iter().map(|edge| edge.1).collect())
    }

    #[test]
    fn levels_by_parts_are_those_by_a_queue() {
        for edges in [0, 40, 80, 300] {
            let (offsets, targets) = random(edges, 7);
            let graph = Graph { offsets: &offsets, targets: &targets };
            let expected = super::levels(graph, 5);
            let (mut levels, mut parts) = (vec![UNREACHED; 64], vec![UNREACHED; 8]);
            (levels[5], parts[0]) = (0, 0);
            for level in 0.. {
                let due: Vec<usize> = (0..8).filter(|part| parts[*part] == level).collect();
                if due.is_empty() {
                    break;
                }
                for part in due {
                    twin(graph, &mut levels, &mut parts, 8 * part..8 * part + 8, level, 3);
                }
            }
            assert_eq!(levels, expected, "{edges} edges");
        }
    }

    #[test]
    fn a_chain_has_a_level_for_each_node() {
        let graph = Graph { offsets: &[0, 1, 2, 2, 2], targets: &[1, 2] };
        assert_eq!(levels(graph, 0), [0, 1, 2, UNREACHED]);
        assert_eq!(levels(graph, 2), [UNREACHED, UNREACHED, 0, UNREACHED]);
    }
}
