//! Fingerprints of blocks of any length that the CPU lists, added to a record for each: 128 bits, in which equal blocks
//! are equal wherever they lie, and others differ but for a chance of about 2⁻¹²⁸ a pair. That chance is of data that
//! nobody made for it: this is no cryptography, and who wants two blocks of one fingerprint can make them.

use crate::{Kernel, hash};

/// Bytes of a block that are one workgroup's business. Launch as many workgroups in x as the longest block has pieces,
/// and in y as there are blocks.
pub const PIECE: u64 = 1 << 16;

/// A block to look at: an element of an array at an address that is a multiple of 32.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The address of its bytes, a multiple of 16. What lies behind them, up to the next multiple of 16, is read, too,
    /// and does not count.
    pub source: u64,
    /// The address of its [`Record`].
    pub record: u64,
    /// How many bytes.
    pub bytes: u32,
    /// What is stored in the record.
    pub file: u32,
    /// What is stored in the record.
    pub number: u32,
    /// Not read.
    pub reserved: u32,
}
assert_layout!(Block, 32, { source: 0, record: 8, bytes: 16, file: 20, number: 24, reserved: 28 });

/// What is known of a block: at an address that is a multiple of 32, and zeros before the kernel has run.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The fingerprint.
    pub key: [u32; 4],
    /// The address of another record of this key, or null. It is [`crate::hash_enter`]'s to store.
    pub next: u64,
    /// Which file the block is of.
    pub file: u32,
    /// Which of the file's blocks it is.
    pub number: u32,
}
assert_layout!(Record, 32, { key: 0, next: 16, file: 24, number: 28 });

/// The kernel's arguments.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The address of a [`Block`] for each row of workgroups.
    pub blocks: u64,
}
assert_layout!(Args, 8, { blocks: 0 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("digest");

/// Each takes 16 bytes of a piece in turn.
const LANES: usize = 256;

/// The fingerprint of a block. Blocks of 4 GiB and more have none.
pub fn twin(block: &[u8]) -> [u32; 4] {
    let bytes = block.len() as u64;
    let mut sum = [0u32; 4];
    // Pieces of 64 KiB.
    for (piece, first) in block.chunks(1 << 16).zip((0..).step_by(LANES)) {
        let mut states: [[u32; 4]; LANES] = std::array::from_fn(|lane| start(first + lane as u64, bytes));
        for row in piece.chunks(16 * LANES) {
            for (state, unit) in states.iter_mut().zip(row.chunks(16)) {
                let mut whole = [0; 16];
                whole[..unit.len()].copy_from_slice(unit);
                absorb(state, &whole);
            }
        }
        for state in states {
            sum.iter_mut().zip(finish(state)).for_each(|(sum, term)| *sum = sum.wrapping_add(term));
        }
    }
    sum
}

fn start(lane: u64, bytes: u64) -> [u32; 4] {
    let low = hash::mix(lane ^ hash::mix(bytes));
    words(low, hash::mix(low))
}

/// `ChaCha`'s quarter round, of the state and the unit together.
fn absorb(state: &mut [u32; 4], unit: &[u8; 16]) {
    let (words, _) = unit.as_chunks::<4>();
    state.iter_mut().zip(words).for_each(|(state, word)| *state ^= u32::from_le_bytes(*word));
    let [x, y, z, w] = state;
    for [first, second] in [[16, 12], [8, 7]] {
        *x = x.wrapping_add(*y);
        *w = (*w ^ *x).rotate_left(first);
        *z = z.wrapping_add(*w);
        *y = (*y ^ *z).rotate_left(second);
    }
}

fn finish([x, y, z, w]: [u32; 4]) -> [u32; 4] {
    let long = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    let high = long(z, w);
    let low = hash::mix(long(x, y) ^ hash::mix(high));
    words(low, hash::mix(high ^ low))
}

/// The words of two numbers, the low one first.
#[allow(clippy::cast_possible_truncation, reason = "each word is what is wanted")]
fn words(low: u64, high: u64) -> [u32; 4] {
    [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_fingerprint_depends_on_each_byte_its_place_and_the_length() {
        // More than two pieces.
        let mut bytes = vec![0u8; 140_001];
        let mut seen = BTreeSet::new();
        for place in [0, 1, 3, 4, 15, 16, 4095, 4096, 65_535, 65_536, 131_072, 139_999, 140_000] {
            for value in [1, 2, 128] {
                bytes[place] = value;
                assert!(seen.insert(twin(&bytes)), "byte {place} of value {value}");
                bytes[place] = 0;
            }
        }
        for length in [0, 1, 15, 16, 17, 4096, 65_535, 65_536, 65_537, 140_000, 140_001] {
            assert!(seen.insert(twin(&bytes[..length])), "{length} zeros");
        }
    }

    #[test]
    fn units_and_lanes_that_change_places_are_told_apart() {
        let mut seen = BTreeSet::new();
        let bytes: Vec<u8> = (0..20_000u32).map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()[3]).collect();
        assert!(seen.insert(twin(&bytes)));
        // Of one lane, of neighbours, and across pieces' worth of lanes.
        for (one, other) in [(0, 16), (0, 4096), (4096, 8192), (32, 4112), (48, 12_352)] {
            let mut changed = bytes.clone();
            for byte in 0..16 {
                changed.swap(one + byte, other + byte);
            }
            assert!(seen.insert(twin(&changed)), "{one} and {other}");
        }
    }

    #[test]
    fn words_of_fingerprints_are_spread() {
        let mut counts = [[0u32; 16]; 4];
        for number in 0..1600u32 {
            for (counts, word) in counts.iter_mut().zip(twin(&number.to_le_bytes())) {
                counts[(word & 15) as usize] += 1;
            }
        }
        assert!(counts.iter().flatten().all(|count| (50..160).contains(count)), "{counts:?}");
    }
}
