//! Looks keys up in a binary search tree that the CPU linked by pointers. The kernel does not change the
//! tree, and a tree with a cycle never ends it.

use crate::Kernel;
use std::collections::BTreeMap;

/// A node of the tree. Keys on the left are smaller, on the right larger.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeNode {
    /// What is searched for.
    pub key: u64,
    /// What is found.
    pub value: u64,
    /// The address of a `TreeNode`, or 0.
    pub left: u64,
    /// The address of a `TreeNode`, or 0.
    pub right: u64,
}
assert_layout!(TreeNode, 32, { key: 0, value: 8, left: 16, right: 24 });

/// The kernel's arguments. Launch `count` invocations or more.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The address of the root `TreeNode`, or 0 for an empty tree.
    pub root: u64,
    /// The address of `count` `u64`.
    pub keys: u64,
    /// The results: the address of `count` `u64`.
    pub values: u64,
    /// How many keys.
    pub count: u64,
    /// What is written for a key that the tree does not have.
    pub missing: u64,
}
assert_layout!(Args, 40, { root: 0, keys: 8, values: 16, count: 24, missing: 32 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("lookup");

/// What the kernel finds, by another data structure with the same pairs.
pub fn twin(pairs: &BTreeMap<u64, u64>, keys: &[u64], missing: u64) -> Vec<u64> {
    keys.iter().map(|key| pairs.get(key).copied().unwrap_or(missing)).collect()
}

/// A balanced tree of the pairs: node `i` has the i-th smallest key and is to be stored at `address(i)`.
/// Returns the nodes and the root's address.
pub fn balanced(pairs: &BTreeMap<u64, u64>, address: impl Fn(usize) -> u64) -> (Vec<TreeNode>, u64) {
    let mut nodes: Vec<TreeNode> =
        pairs.iter().map(|(&key, &value)| TreeNode { key, value, left: 0, right: 0 }).collect();
    // The middle of a range is the root of its part of the tree.
    let middle = |start: usize, end: usize| start + (end - start) / 2;
    let root_of = |start, end| if start < end { address(middle(start, end)) } else { 0 };
    let mut ranges = vec![(0, nodes.len())];
    while let Some((start, end)) = ranges.pop() {
        if start < end {
            let at = middle(start, end);
            nodes[at].left = root_of(start, at);
            nodes[at].right = root_of(at + 1, end);
            ranges.extend([(start, at), (at + 1, end)]);
        }
    }
    let root = root_of(0, nodes.len());
    (nodes, root)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches as the kernel does; a node's address is its index plus one.
    fn search(nodes: &[TreeNode], root: u64, key: u64) -> (Option<u64>, u32) {
        let (mut pointer, mut depth) = (root, 0);
        while pointer != 0 {
            let node = &nodes[usize::try_from(pointer).unwrap() - 1];
            depth += 1;
            match key.cmp(&node.key) {
                std::cmp::Ordering::Equal => return (Some(node.value), depth),
                std::cmp::Ordering::Less => pointer = node.left,
                std::cmp::Ordering::Greater => pointer = node.right,
            }
        }
        (None, depth)
    }

    #[test]
    fn a_balanced_tree_is_shallow_and_finds_all_and_only_its_keys() {
        for count in [0u64, 1, 2, 3, 100, 1023] {
            let pairs: BTreeMap<u64, u64> = (0..count).map(|i| (2 * i, i * i)).collect();
            let (nodes, root) = balanced(&pairs, |i| i as u64 + 1);
            let keys: Vec<u64> = (0..2 * count + 2).collect();
            let found = twin(&pairs, &keys, u64::MAX);
            for (&key, &value) in keys.iter().zip(&found) {
                let (searched, depth) = search(&nodes, root, key);
                assert_eq!(searched.unwrap_or(u64::MAX), value);
                assert_eq!(value != u64::MAX, key % 2 == 0 && key < 2 * count);
                assert!(depth <= 10);
            }
        }
    }
}
