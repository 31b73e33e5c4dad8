//! How much to move for one fault: density growth from a block to a chunk.
//!
//! A fault moves its block and, where the neighbourhood is already populated by more than half, the rest of that
//! neighbourhood: the tree of aligned power-of-two regions of CUDA's managed memory (threshold 51 %), here of 64 KiB
//! leaves up to 2 MiB. Growth never leaves the blocks that the caller allows (those of one allocation), and it does
//! *not* look beyond one chunk: a stream's growth enters the next chunk through `streaming`.

use crate::geometry::{BLOCKS_PER_CHUNK, BlockSet};

/// The most chunks read ahead of a stream of CPU reads: 32 MiB, some 5 ms of copying.
pub const READ_AHEAD_CHUNKS_MAX: u32 = 16;

/// The blocks to bring for a fault in `slot`, given those `present` on the faulting side already.
///
/// The answer contains `slot`, lies within `allowed`, and may include blocks that are present. `streaming` says that
/// a stream ran through the whole chunk before this one and now enters here: then everything allowed is brought.
#[must_use]
pub fn window(slot: u32, present: BlockSet, allowed: BlockSet, streaming: bool) -> BlockSet {
    let mut grown = BlockSet::of(slot);
    if streaming {
        return grown | allowed;
    }
    let mut size = 2;
    while size <= BLOCKS_PER_CHUNK {
        let region = BlockSet::run(slot / size * size, size) & allowed;
        let populated = (present | grown) & region;
        if populated.count() * 2 > region.count() {
            grown |= region;
        }
        size *= 2;
    }
    grown
}

/// The blocks that may come along with `slot`: those of its `allocation`, less those that come `alone`. Nothing else
/// comes along with one of these.
#[must_use]
pub fn company(slot: u32, allocation: BlockSet, alone: BlockSet) -> BlockSet {
    if alone.contains(slot) { BlockSet::of(slot) } else { allocation - alone }
}

/// Chunks to read ahead once a stream has run through a chunk whose own depth was `previous`: doubles to a limit.
#[must_use]
pub fn read_ahead(previous: u32) -> u32 {
    (previous * 2).clamp(1, READ_AHEAD_CHUNKS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sequential_sweep_takes_six_faults_a_chunk() {
        let mut present = BlockSet::EMPTY;
        let mut faults = Vec::new();
        for slot in 0..BLOCKS_PER_CHUNK {
            if !present.contains(slot) {
                faults.push(slot);
                present |= window(slot, present, BlockSet::ALL, false);
            }
        }
        assert_eq!(faults, [0, 1, 2, 4, 8, 16]);
    }

    #[test]
    fn a_lone_touch_brings_one_block() {
        for slot in 0..BLOCKS_PER_CHUNK {
            assert_eq!(window(slot, BlockSet::EMPTY, BlockSet::ALL, false), BlockSet::of(slot));
        }
    }

    proptest! {
        #[test]
        fn growth_stays_within_the_allocation(slot in 0..BLOCKS_PER_CHUNK, present: u32, allowed: u32, streaming: bool) {
            let allowed = BlockSet(allowed) | BlockSet::of(slot);
            let window = window(slot, BlockSet(present), allowed, streaming);
            prop_assert!(allowed.covers(window));
            prop_assert!(window.contains(slot));
        }
    }
}
