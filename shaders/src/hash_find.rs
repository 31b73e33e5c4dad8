//! Looks keys up in an open-addressing hash table with linear probing that the CPU filled. The kernel does not change
//! the table, and a table without an empty slot never ends it.

use crate::{Kernel, hash};
use std::collections::HashMap;

/// What the key of an empty slot is: no key of the table.
pub const EMPTY: u64 = u64::MAX;

/// Where a table is. At an address that is a multiple of 16.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The address of `mask + 1` [`Slot`]s, a multiple of 16.
    pub slots: u64,
    /// One less than the number of slots, which is a power of two.
    pub mask: u64,
}
assert_layout!(Table, 16, { slots: 0, mask: 8 });

/// A slot of a table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What is searched for, or [`EMPTY`].
    pub key: u64,
    /// What is found.
    pub value: u64,
}
assert_layout!(Slot, 16, { key: 0, value: 8 });

/// The kernel's arguments. Launch `count` invocations or more.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The address of the [`Table`].
    pub table: u64,
    /// The address of `count` `u64`, none of them [`EMPTY`].
    pub keys: u64,
    /// The results: the address of `count` `u64`.
    pub values: u64,
    /// How many keys.
    pub count: u64,
    /// What is written for a key that the table does not have.
    pub missing: u64,
}
assert_layout!(Args, 40, { table: 0, keys: 8, values: 16, count: 24, missing: 32 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("hash_find");

/// The slots at which a key may be, in the order in which they are tried: without end.
pub fn probes(key: u64, mask: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(hash::mix(key) & mask), move |at| Some((at + 1) & mask))
}

/// What the kernel finds, by another data structure with the same pairs.
pub fn twin(pairs: &HashMap<u64, u64>, keys: &[u64], missing: u64) -> Vec<u64> {
    keys.iter().map(|key| pairs.get(key).copied().unwrap_or(missing)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_try_every_slot_and_begin_at_different_ones() {
        let mut starts = std::collections::BTreeSet::new();
        for key in 0..100 {
            let tried: Vec<u64> = probes(key, 63).take(64).collect();
            assert!((0..64).all(|slot| tried.contains(&slot)));
            starts.insert(tried[0]);
        }
        assert!(starts.len() > 40, "{starts:?}");
    }

    /// Fills a table and searches it as the kernel does.
    #[test]
    fn all_and_only_the_keys_are_found() {
        let pairs: HashMap<u64, u64> = (0..50).map(|i| (i * 3, i + 1)).collect();
        let mut slots = [Slot { key: EMPTY, value: 0 }; 64];
        let index = |at: u64| usize::try_from(at).unwrap();
        for (&key, &value) in &pairs {
            let at = probes(key, 63).find(|at| slots[index(*at)].key == EMPTY).unwrap();
            slots[index(at)] = Slot { key, value };
        }
        let keys: Vec<u64> = (0..200).collect();
        for (key, value) in keys.iter().zip(twin(&pairs, &keys, 0)) {
            let at = probes(*key, 63).find(|at| [EMPTY, *key].contains(&slots[index(*at)].key)).unwrap();
            assert_eq!(slots[index(at)].value, value, "key {key}");
            assert_eq!(value != 0, *key < 150 && key % 3 == 0);
        }
    }
}
