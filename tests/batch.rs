//! Prefetches and discards of many ranges at once.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, turn};
use common::moves::{counted, filled, read_through, summary};
use limosa::{Counters, Error, HostRange, PagerError, Side, UnifiedVec};

const BUDGET: u64 = 8 * MIB;

/// Bytes of the range of blocks of `vec`.
fn range(vec: &UnifiedVec<u32>, first: u64, count: u64) -> HostRange {
    HostRange { start: vec.raw().range().start.offset(first * BLOCK), len: count * BLOCK }
}

#[test]
fn a_batch_moves_what_it_names_once_or_nothing() {
    let _turn = turn("batch");
    let Some(kit) = Kit::new("batch", builder().device_budget(BUDGET)) else { return };
    let (first, second) = (filled(&kit, 70, 1), filled(&kit, 100, 2));
    let batch = [range(&second, 10, 20), range(&first, 0, 5), range(&second, 25, 10), range(&first, 4, 3)];
    let new = counted(&kit, || kit.heap().prefetch_batch(Side::Device, &batch).unwrap());
    assert_eq!((summary(&first)[1], summary(&second)[1]), (7, 25));
    assert_eq!(new.blocks_to_device, 32, "what overlaps is moved once");
    kit.heap().prefetch_batch(Side::Host, &batch).unwrap();
    assert_eq!((summary(&first)[1], summary(&second)[1]), (0, 0));
    kit.heap().prefetch_batch(Side::Device, &[]).unwrap();

    let moved = |new: &Counters| new.blocks_to_device + new.blocks_to_host;
    let new = counted(&kit, || {
        let error = kit.heap().prefetch_batch(Side::Device, &[range(&first, 0, 70), range(&second, 0, 100)]);
        let Err(Error::Pager(PagerError::RangeTooLarge { asked, budget })) = error else { panic!("{error:?}") };
        assert_eq!((asked, budget), (170 * BLOCK, BUDGET));
        let beyond = HostRange { start: second.raw().range().start, len: 300 * BLOCK };
        for side in [Side::Device, Side::Host] {
            let error = kit.heap().prefetch_batch(side, &[range(&first, 0, 5), beyond]);
            assert!(matches!(error, Err(Error::Pager(PagerError::NotAllocated { .. }))), "{error:?}");
        }
        // SAFETY: nothing is discarded, and no reference exists.
        let error = unsafe { kit.heap().discard_batch(&[range(&first, 0, 5), beyond]) };
        assert!(matches!(error, Err(Error::Pager(PagerError::NotAllocated { .. }))), "{error:?}");
    });
    assert_eq!(moved(&new), 0);
    assert_eq!((summary(&first)[3], read_through(&first)), (0, 70), "and nothing is gone");
}

#[test]
fn a_batch_is_discarded_by_the_blocks_that_it_covers_together() {
    let _turn = turn("discard");
    let Some(kit) = Kit::new("discard", builder()) else { return };
    let mut vec = filled(&kit, 8, 0);
    kit.fill(&mut vec, 7).unwrap();
    let half = |index: u64| HostRange { start: vec.raw().range().start.offset(index * BLOCK / 2), len: BLOCK / 2 };
    // Blocks 1 and 4, and half of block 6. The launch that writes them may still run.
    let halves = [half(3), half(2), half(8), half(9), half(8), half(12)];
    // SAFETY: no reference exists, and zero is a number.
    unsafe { kit.heap().discard_batch(&halves).unwrap() };
    assert_eq!(summary(&vec)[3], 2);
    let firsts: Vec<u32> = vec.read().unwrap().iter().step_by(BLOCK_WORDS).copied().collect();
    assert_eq!(firsts, [7, 0, 7, 7, 0, 7, 7, 7]);
}
