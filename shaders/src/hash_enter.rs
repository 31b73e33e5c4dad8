//! Enters records into an open-addressing hash table with linear probing, each at the head of the chain of those with
//! equal keys. Words of a key are claimed one after the other by 32-bit atomics and never change again: all invocations
//! that bring a key pass the same slots and end at the same one, and none waits for another.
//!
//! A table may be launched upon in *parts*, by the low bits of the keys' last words, each with slots of its own: a
//! launch touches the slots of its part and the records that it is given, and no others. The kernel does *not* grow a
//! table: it counts who finds no slot.

use crate::Kernel;
use crate::digest::Record;
use std::collections::HashMap;

/// A slot of the table: zeros before anything is entered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// The key of the records in the chain, with 1 for each word that is 0.
    pub key: [u32; 4],
    /// The number of the record entered last, counted from 1; 0: the slot is empty.
    pub head: u32,
    /// How many records are in the chain.
    pub count: u32,
}
assert_layout!(Slot, 24, { key: 0, head: 16, count: 20 });

/// The kernel's arguments. Launch `count` invocations or more.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The address of `count` [`Record`]s. Their `next` is stored, if their part is this one. Those whose key is all
    /// zeros, as before [`crate::digest`] has run, are left out.
    pub records: u64,
    /// How many.
    pub count: u64,
    /// The address of record number 1, at or before `records` by at most 2³² - 2 records.
    pub first: u64,
    /// The address of `mask + 1` [`Slot`]s.
    pub slots: u64,
    /// One less than the number of slots, which is a power of two.
    pub mask: u64,
    /// The address of a `u32` that is increased by the number of records for which there was no slot.
    pub homeless: u64,
    /// One less than the number of parts, which is a power of two up to 2³².
    pub parts: u32,
    /// Records of other parts are left alone.
    pub part: u32,
}
assert_layout!(Args, 56, { records: 0, count: 8, first: 16, slots: 24, mask: 32, homeless: 40, parts: 48, part: 52 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("hash_enter");

/// The key under which a record is entered.
pub fn key_of(record: &Record) -> [u32; 4] {
    record.key.map(|word| word.max(1))
}

/// What the chains hold after all parts, by another data structure: the indices of the records of each key.
pub fn twin(records: &[Record]) -> HashMap<[u32; 4], Vec<usize>> {
    let mut chains: HashMap<[u32; 4], Vec<usize>> = HashMap::new();
    for (index, record) in records.iter().enumerate().filter(|(_, record)| record.key != [0; 4]) {
        chains.entry(key_of(record)).or_default().push(index);
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_a_key_stand_for_ones() {
        let record = |key| Record { key, ..Record::default() };
        let chains = twin(&[record([0, 2, 0, 4]), record([1, 2, 1, 4]), record([0; 4]), record([1, 2, 3, 4])]);
        assert_eq!(chains[&[1, 2, 1, 4]], [0, 1]);
        assert_eq!(chains[&[1, 2, 3, 4]], [3]);
        assert_eq!(chains.len(), 2, "what has no key is left out");
    }
}
