//! What advice changes: which copies there are, how much a fault brings, and what is evicted when.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, settle, turn};
use common::moves::{counted, filled, read_through, summary};
use limosa::{Advice, Cause, Error, FaultMode, PagerError, UnifiedVec, ViewKind, WatchEvent};

const MODES: [FaultMode; 2] = [FaultMode::HandlerThread, FaultMode::InThread];
const BUDGET: u64 = 8 * MIB;

#[test]
fn what_is_read_mostly_is_shared_by_a_prefetch() {
    let _turn = turn("read mostly");
    for mode in MODES {
        let Some(kit) = Kit::new("read mostly", builder().fault_mode(mode)) else { return };
        let mut vec = filled(&kit, 40, 1);
        let _small = kit.sum(&vec).unwrap();
        vec.write().unwrap().fill(1);
        vec.advise(Advice::ReadMostly).unwrap();
        vec.prefetch_to_device().unwrap();
        assert_eq!(summary(&vec), [0, 0, 40, 0], "{mode:?}: copies on both sides");
        let new = counted(&kit, || assert_eq!(read_through(&vec), 40));
        assert_eq!(new.cpu_read_faults, 0, "{mode:?}: open on the host: {new:?}");
        let new = counted(&kit, || assert_eq!(kit.sum_at(vec.ptr(0).address(), vec.len() as u64).unwrap(), 40 << 14));
        assert!(new.gpu_read_faults == 0, "{mode:?}: open on the device: {new:?}");

        let new = counted(&kit, || vec.write().unwrap()[5 * BLOCK_WORDS] = 2);
        assert_eq!(new.cpu_write_faults, 1);
        assert_eq!(summary(&vec), [1, 0, 39, 0], "{mode:?}: a write takes one block back");
        vec.write().unwrap()[6 * BLOCK_WORDS] = 2;
        vec.write().unwrap()[7 * BLOCK_WORDS] = 2;
        assert_eq!(summary(&vec), [3, 0, 37, 0], "{mode:?}: and no neighbours, dense as they are");
        vec.prefetch_to_device().unwrap();
        assert_eq!(summary(&vec), [0, 0, 40, 0]);
        // The same from the other side.
        kit.fill(&mut vec, 3).unwrap().wait().unwrap();
        assert_eq!(summary(&vec), [0, 40, 0, 0]);
        vec.prefetch_to_host().unwrap();
        assert_eq!(summary(&vec), [0, 0, 40, 0]);
        kit.fill_at(vec.ptr(9 * BLOCK_WORDS).address(), 1, 4).unwrap().wait().unwrap();
        assert_eq!(summary(&vec), [0, 1, 39, 0], "{mode:?}: a kernel's write takes one block");
        assert_eq!(read_through(&vec), 39 * 3 + 4);
        vec.advise(Advice::None).unwrap();
        vec.prefetch_to_device().unwrap();
        assert_eq!(summary(&vec), [0, 40, 0, 0], "{mode:?}: without advice a prefetch moves");
    }
}

#[test]
fn what_prefers_the_device_is_evicted_last_and_read_block_by_block() {
    let _turn = turn("prefer device");
    for mode in MODES {
        let Some(kit) = Kit::new("prefer device", builder().device_budget(BUDGET).fault_mode(mode)) else { return };
        let (mut kept, mut others) =
            (filled(&kit, 40, 1), [filled(&kit, 40, 2), filled(&kit, 40, 3), filled(&kit, 40, 4)]);
        kept.advise(Advice::PreferDevice).unwrap();
        kit.fill(&mut kept, 5).unwrap().wait().unwrap();
        for round in 0..6u32 {
            kit.fill(&mut others[round as usize % 3], round).unwrap().wait().unwrap();
        }
        assert_eq!(summary(&kept), [0, 40, 0, 0], "{mode:?}: the least recently used of all, and still there");

        let new = counted(&kit, || assert_eq!(read_through(&kept), 40 * 5));
        assert_eq!((new.cpu_read_faults, new.blocks_to_host, new.chunks_read_ahead), (40, 40, 0), "{mode:?}");
        // Never a reason to fail: all of it preferring what there is no room for.
        others.iter().for_each(|vec| vec.advise(Advice::PreferDevice).unwrap());
        for round in 0..6u32 {
            kit.fill(&mut others[round as usize % 3], round).unwrap().wait().unwrap();
        }
        assert!(others.iter().zip(3..).all(|(vec, value)| vec.read().unwrap().iter().all(|word| *word == value)));
        assert!(kit.heap().device_bytes() <= BUDGET);
    }
}

#[test]
fn what_prefers_the_host_is_evicted_first_and_comes_block_by_block() {
    let _turn = turn("prefer host");
    let Some(kit) = Kit::new("prefer host", builder().device_budget(BUDGET)) else { return };
    let (mut old, mut shy, mut new) = (filled(&kit, 60, 1), filled(&kit, 40, 2), filled(&kit, 60, 3));
    shy.advise(Advice::PreferHost).unwrap();
    kit.fill(&mut old, 4).unwrap().wait().unwrap();
    kit.fill(&mut shy, 5).unwrap().wait().unwrap();
    assert_eq!(summary(&shy), [0, 40, 0, 0], "a launch that declares it brings it");
    kit.fill(&mut new, 6).unwrap().wait().unwrap();
    assert_eq!(summary(&old), [0, 60, 0, 0], "the least recently used stays");
    assert!(summary(&shy)[1] <= 8, "the most recently used goes: {:?}", summary(&shy));

    shy.prefetch_to_host().unwrap();
    old.prefetch_to_host().unwrap();
    let longest = |vec: &UnifiedVec<u32>| {
        let watch = kit.heap().watch(vec.raw().range()).unwrap();
        kit.sum_at(vec.ptr(0).address(), vec.len() as u64).unwrap();
        settle(vec);
        let runs = std::iter::from_fn(|| watch.try_next()).filter_map(|event| match event {
            WatchEvent::Changed { range, cause: Cause::GpuFault, .. } => Some(range.len / BLOCK),
            _ => None,
        });
        runs.max().unwrap()
    };
    assert_eq!(longest(&shy), 1, "a fault brings one block");
    assert!(longest(&old) > 1, "or a neighbourhood, elsewhere");
}

#[test]
fn advice_is_followed_where_memory_is_bound() {
    let _turn = turn("bound");
    for mode in MODES {
        let builder = builder().view(ViewKind::Sparse).device_budget(BUDGET).fault_mode(mode);
        let Some(kit) = Kit::new("bound", builder) else { return };
        let watch = kit.heap().watch(kit.heap().range()).unwrap();
        let (mostly, mut kept, mut other) = (filled(&kit, 20, 1), filled(&kit, 40, 2), filled(&kit, 80, 3));
        mostly.advise(Advice::ReadMostly).unwrap();
        kept.advise(Advice::PreferDevice).unwrap();
        mostly.prefetch_to_device().unwrap();
        let new = counted(&kit, || assert_eq!(kit.sum(&mostly).unwrap() + read_through(&mostly), (20 << 14) + 20));
        assert_eq!((summary(&mostly)[2], new.cpu_read_faults), (20, 1), "{mode:?}: but for the sum's own: {new:?}");
        kit.fill(&mut kept, 4).unwrap().wait().unwrap();
        kit.fill(&mut other, 5).unwrap().wait().unwrap();
        assert_eq!(summary(&kept), [0, 40, 0, 0], "{mode:?}");
        assert!(summary(&mostly)[0] > 0, "{mode:?}: what is used later had to make room");
        assert_eq!(read_through(&kept) + read_through(&other) + read_through(&mostly), 40 * 4 + 80 * 5 + 20);
        let evicted = std::iter::from_fn(|| watch.try_next());
        let evicted = evicted.filter(|event| matches!(event, WatchEvent::Changed { cause: Cause::Eviction, .. }));
        assert!(evicted.count() > 0 && watch.missed() == 0);
    }
}

#[test]
fn advice_is_for_whole_blocks_and_ends_with_the_allocation() {
    let _turn = turn("whole blocks");
    let Some(kit) = Kit::new("whole blocks", builder()) else { return };
    let shared = |vec: &UnifiedVec<u32>| {
        vec.prefetch_to_host().unwrap();
        vec.prefetch_to_device().unwrap();
        summary(vec)[2]
    };
    let words = 3 * BLOCK_WORDS + 100;
    let vec = kit.heap().vec_with(words, |_| 1u32).unwrap();
    vec.advise(Advice::ReadMostly).unwrap();
    assert_eq!(shared(&vec), 4, "the rest of the last block is nobody's");
    vec.advise_range(BLOCK_WORDS - 1..words, Advice::None).unwrap();
    assert_eq!(shared(&vec), 1, "the first is covered in part only, and stays as it was");
    vec.advise_range(1..words, Advice::ReadMostly).unwrap();
    vec.advise_range(0..1, Advice::None).unwrap();
    assert_eq!(shared(&vec), 4);
    assert!(matches!(vec.advise_range(1..words + 1, Advice::None), Err(Error::OutOfRange { .. })));

    let at = vec.raw().range();
    drop(vec);
    assert!(matches!(kit.heap().advise(at, Advice::None), Err(Error::Pager(PagerError::NotAllocated { .. }))));
    let again = kit.heap().vec_with(words, |_| 1u32).unwrap();
    assert_eq!(again.raw().range(), at);
    assert_eq!(shared(&again), 0, "a new allocation at the same place");
    let small = kit.heap().vec_with(10, |_| 1u32).unwrap();
    small.advise(Advice::PreferHost).unwrap();
}
