//! Hashes of bytes, one for each block of 64 KiB: equal blocks have equal hashes, wherever they lie. Not for
//! cryptography. Another seed gives another hash; two of them make 128 bits.

use crate::{Kernel, hash};

/// Bytes that share a hash. The last block may be shorter.
pub const BLOCK: u64 = 1 << 16;

/// The kernel's arguments. Any number of workgroups shares the blocks; one each is fast.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The address of `bytes` bytes, a multiple of 16. What lies behind them, up to the next multiple of 16, is
    /// read, too, and does not count.
    pub src: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The results: the address of a `u64` for each block.
    pub hashes: u64,
    /// Chooses among hashes.
    pub seed: u64,
}
assert_layout!(Args, 32, { src: 0, bytes: 8, hashes: 16, seed: 24 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("fingerprint");

/// Each takes 16 bytes in turn.
const LANES: usize = 256;
/// What a lane's state is multiplied by: odd, so that no bit is lost.
const FACTOR: u64 = 0x9fb2_1c65_1e98_df25;

/// The hash of each block.
pub fn twin(bytes: &[u8], seed: u64) -> Vec<u64> {
    // At most 64 KiB.
    bytes.chunks(1 << 16).map(|block| hash_of(block, seed)).collect()
}

fn hash_of(block: &[u8], seed: u64) -> u64 {
    let length = block.len() as u64;
    let mut states: [u64; LANES] = std::array::from_fn(|lane| hash::three(seed, lane as u64, length));
    for row in block.chunks(16 * LANES) {
        let (units, rest) = row.as_chunks::<16>();
        for (state, unit) in states.iter_mut().zip(units) {
            *state = absorb(*state, unit);
        }
        if let (Some(state), false) = (states.get_mut(units.len()), rest.is_empty()) {
            let mut unit = [0; 16];
            unit[..rest.len()].copy_from_slice(rest);
            *state = absorb(*state, &unit);
        }
    }
    hash::mix(states.iter().fold(0, |sum: u64, state| sum.wrapping_add(hash::mix(*state))))
}

fn absorb(state: u64, unit: &[u8; 16]) -> u64 {
    let (words, _) = unit.as_chunks::<8>();
    words.iter().fold(state, |state, word| {
        let state = (state ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR);
        state ^ state >> 32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_hash_depends_on_each_byte_its_place_the_length_and_the_seed() {
        let mut bytes = vec![0u8; 9001];
        let mut seen = BTreeSet::new();
        for place in [0, 1, 7, 8, 15, 16, 4095, 4096, 8999, 9000] {
            for value in [1, 2, 128] {
                bytes[place] = value;
                assert!(seen.insert(twin(&bytes, 0)), "byte {place} of value {value}");
                bytes[place] = 0;
            }
        }
        for length in [0, 1, 15, 16, 17, 4096, 9000, 9001] {
            assert!(seen.insert(twin(&bytes[..length], 0)), "{length} zeros");
        }
        assert!(seen.insert(twin(&bytes, 1)));
    }

    #[test]
    fn equal_blocks_have_equal_hashes_wherever_they_lie() {
        let block: Vec<u8> = (0..1u32 << 16).map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()[3]).collect();
        let bytes = [&block[..], &vec![7; 1 << 16], &block, &block[..100]].concat();
        let hashes = twin(&bytes, 5);
        assert_eq!(hashes.len(), 4);
        assert_eq!(hashes[0], hashes[2]);
        assert_eq!(hashes[3], twin(&block[..100], 5)[0]);
        assert_eq!(hashes.iter().collect::<BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn no_bytes_have_no_hash() {
        assert!(twin(&[], 3).is_empty());
    }
}
