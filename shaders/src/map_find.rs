//! Looks keys up in an ordinary `hashbrown::HashMap<u64, u64, Mixed>`, by its control bytes and pairs where they lie.
//!
//! Their layout is hashbrown's own affair and no promise of its: for each bucket a control byte, which is 0xff where it is
//! empty and seven bits of the hash where it is full; pairs downwards from the first of those; groups of control bytes,
//! as wide as the CPU's registers, looked at at triangular distances. It has been so for years, but it may change, so it
//! is to be *verified* on a map whose pairs are known, with the code that is linked in: [`Layout::verified`]. The kernel
//! probes as hashbrown does instead of looking at all control bytes, which would be as much guesswork, and slow. It does
//! not change the map.

use crate::{Kernel, hash};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Bytes of a pair.
const PAIR: u64 = 16;
/// The control byte of an empty bucket.
const EMPTY: u8 = 0xff;
/// Control bytes that hashbrown looks at together, on whichever CPU.
const WIDTHS: [u64; 2] = [16, 8];

/// The kernel's arguments. Launch `count` invocations or more.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Where the map's table is.
    pub table: Table,
    /// The address of `count` `u64`.
    pub keys: u64,
    /// The results: the address of `count` `u64`.
    pub values: u64,
    /// How many keys.
    pub count: u64,
    /// What is written for a key that the map does not have.
    pub missing: u64,
}
assert_layout!(Args, 56, { table: 0, keys: 24, values: 32, count: 40, missing: 48 });

/// Where the table of a map is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The address of the first control byte; 0 for a map without a table.
    pub control: u64,
    /// One less than the number of buckets, which is a power of two.
    pub mask: u64,
    /// Control bytes in a group.
    pub width: u64,
}
assert_layout!(Table, 24, { control: 0, mask: 8, width: 16 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("map_find");

/// A hash that kernels can compute (`hash_mix` in hash.glsl), for keys of type `u64`. Not for maps that an adversary fills.
#[derive(Clone, Copy, Debug, Default)]
pub struct MixHasher(u64);

/// What a map is to be made with.
pub type Mixed = BuildHasherDefault<MixHasher>;

impl Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = hash::mix(self.0 ^ word);
    }
}

/// How the hashbrown that is linked in lays its tables out: verified to be as the kernel takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    width: u64,
}

/// A hashbrown whose tables the kernel cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownLayout {
    /// Bytes of the table that was looked at.
    pub bytes: u64,
}

impl std::fmt::Display for UnknownLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "map_find: this version of hashbrown lays tables out as the kernel does not know (looked at one of {} bytes): \
             use hashbrown 0.14 to 0.17, or adapt the kernel",
            self.bytes
        )
    }
}

impl std::error::Error for UnknownLayout {}

impl Layout {
    /// The layout, from the bytes of the allocation of a map and all its pairs: each must be found, and nothing else. Some
    /// dozens of pairs make an accident impossible.
    ///
    /// # Errors
    /// If they are not where they are looked for.
    pub fn verified(memory: &[u8], pairs: &HashMap<u64, u64>) -> Result<Self, UnknownLayout> {
        let bytes = memory.len() as u64;
        let fits = |layout: &Self| {
            let Some(table) = layout.table(0, bytes) else { return false };
            let others = (0..64).map(|i| hash::mix(i ^ bytes)).filter(|key| !pairs.contains_key(key));
            pairs.iter().all(|(key, value)| find(memory, table, *key) == Some(*value))
                && others.into_iter().all(|key| find(memory, table, key).is_none())
        };
        WIDTHS.map(|width| Self { width }).into_iter().find(fits).ok_or(UnknownLayout { bytes })
    }

    /// The table in an allocation of `bytes` bytes at `address`, if it can be one.
    pub fn table(&self, address: u64, bytes: u64) -> Option<Table> {
        // Pairs of 16 bytes need no padding before the control bytes, of which the first group is there once more.
        let buckets = bytes.checked_sub(self.width)? / (PAIR + 1);
        let whole = buckets.is_power_of_two() && buckets * (PAIR + 1) + self.width == bytes;
        whole.then(|| Table { control: address + buckets * PAIR, mask: buckets - 1, width: self.width })
    }
}

/// What the kernel finds, in the same bytes: the table is at address 0.
fn find(memory: &[u8], table: Table, key: u64) -> Option<u64> {
    let at = |address: u64| usize::try_from(address).ok();
    let byte = |address: u64| memory.get(at(address)?).copied();
    let word = |address: u64| {
        let bytes = memory.get(at(address)?..)?.first_chunk::<8>()?;
        Some(u64::from_ne_bytes(*bytes))
    };
    let hash = hash::mix(key);
    let (mut group, mut stride) = (hash & table.mask, table.width);
    loop {
        let mut has_empty = false;
        for offset in 0..table.width {
            let here = byte(table.control + group + offset)?;
            has_empty |= here == EMPTY;
            let pair = table.control - PAIR * (((group + offset) & table.mask) + 1);
            if u64::from(here) == hash >> 57 && word(pair)? == key {
                return word(pair + 8);
            }
        }
        if has_empty || stride > table.mask + table.width {
            return None;
        }
        (group, stride) = ((group + stride) & table.mask, stride + table.width);
    }
}

/// What the kernel finds, by another data structure with the same pairs.
pub fn twin(pairs: &HashMap<u64, u64>, keys: &[u64], missing: u64) -> Vec<u64> {
    keys.iter().map(|key| pairs.get(key).copied().unwrap_or(missing)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    /// A table as hashbrown would make it.
    fn table(buckets: u64, width: u64, pairs: &HashMap<u64, u64>) -> Vec<u8> {
        let index = |at: u64| usize::try_from(at).unwrap();
        let mut memory = vec![EMPTY; index(buckets * (PAIR + 1) + width)];
        let control = buckets * PAIR;
        for (&key, &value) in pairs {
            let hash = hash::mix(key);
            let mut at = hash & (buckets - 1);
            while memory[index(control + at)] != EMPTY {
                at = (at + 1) & (buckets - 1);
            }
            let tag = u8::try_from(hash >> 57).unwrap();
            memory[index(control + at)] = tag;
            if at < width {
                memory[index(control + at.max(at + buckets))] = tag;
            }
            let pair = index(control - PAIR * (at + 1));
            memory[pair..pair + 8].copy_from_slice(&key.to_ne_bytes());
            memory[pair + 8..pair + 16].copy_from_slice(&value.to_ne_bytes());
        }
        memory
    }

    fn pairs(count: u64) -> HashMap<u64, u64> {
        (0..count).map(|i| (i * 3, i + 1)).collect()
    }

    #[test]
    fn the_hash_of_a_key_is_the_kernels() {
        assert_eq!(Mixed::default().hash_one(1_234_567u64), hash::mix(1_234_567));
    }

    #[test]
    fn either_width_is_told_from_a_sample() {
        for width in WIDTHS {
            let memory = table(64, width, &pairs(40));
            let layout = Layout::verified(&memory, &pairs(40)).unwrap();
            assert_eq!(layout, Layout { width });
            let found = layout.table(1 << 20, memory.len() as u64).unwrap();
            assert_eq!(found, Table { control: (1 << 20) + 64 * 16, mask: 63, width });
            assert_eq!(layout.table(0, memory.len() as u64 + 1), None);
        }
    }

    #[test]
    fn another_layout_is_refused() {
        let sample = pairs(40);
        let memory = table(64, 16, &sample);
        let mut upwards = memory.clone();
        upwards[..64 * 16].reverse();
        assert!(Layout::verified(&upwards, &sample).is_err());
        let mut other_tags = memory.clone();
        other_tags[64 * 16..].iter_mut().filter(|tag| **tag != EMPTY).for_each(|tag| *tag ^= 1);
        assert!(Layout::verified(&other_tags, &sample).is_err());
        let one_more = pairs(41);
        assert!(Layout::verified(&memory, &one_more).unwrap_err().to_string().contains("hashbrown"));
    }
}
