//! What the tests of hints share: where blocks are, and what an operation moved. It does *not* move anything itself.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use limosa::{Counters, ResidencySummary, UnifiedVec};

use super::failure::{BLOCK, BLOCK_WORDS, Kit, settle};

/// Blocks of `vec` by where they are: only on the host, only on the device, both, zero.
pub fn summary(vec: &UnifiedVec<u32>) -> [u64; 4] {
    settle(vec);
    let ResidencySummary { host, device, both, zero, .. } = vec.residency_summary();
    [host, device, both, zero].map(|bytes| bytes / BLOCK)
}

pub fn filled(kit: &Kit, blocks: usize, value: u32) -> UnifiedVec<u32> {
    kit.heap().vec_with(blocks * BLOCK_WORDS, |_| value).unwrap()
}

/// One word of each block, read in order.
pub fn read_through(vec: &UnifiedVec<u32>) -> u64 {
    vec.read().unwrap().iter().step_by(BLOCK_WORDS).map(|word| u64::from(*word)).sum()
}

/// What `work` adds to the counters.
pub fn counted(kit: &Kit, work: impl FnOnce()) -> Counters {
    let before = kit.heap().counters();
    work();
    kit.heap().counters().since(&before)
}
