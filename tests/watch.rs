//! Subscriptions to residency: what is told, by whom it was made, in which order, and what happens when nobody reads.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, settle, turn};
use limosa::{
    Cause, Copies, Error, FaultMode, HostRange, PagerError, ResidencyWatch, Side, UnifiedVec, WATCHES_MAX, WatchEvent,
    inject,
};

const HOST: Copies = Copies::Current { host: true, device: false, file: false };
const DEVICE: Copies = Copies::Current { host: false, device: true, file: false };
const BOTH: Copies = Copies::Current { host: true, device: true, file: false };

/// What has been told since, neighbouring runs that changed alike joined.
fn told(watch: &ResidencyWatch) -> Vec<(Cause, Copies, u64)> {
    let mut all: Vec<(Cause, Copies, u64)> = Vec::new();
    while let Some(WatchEvent::Changed { range, copies, cause }) = watch.try_next() {
        match all.last_mut() {
            Some(last) if (last.0, last.1) == (cause, copies) => last.2 += range.len / BLOCK,
            _ => all.push((cause, copies, range.len / BLOCK)),
        }
    }
    all
}

fn watch_of(kit: &Kit, vec: &UnifiedVec<u32>) -> ResidencyWatch {
    // What was done before is entered before.
    settle(vec);
    kit.heap().watch(vec.raw().range()).unwrap()
}

#[test]
fn every_change_is_told_with_its_cause() {
    const N: u64 = 40;
    let _turn = turn("causes");
    for mode in [FaultMode::HandlerThread, FaultMode::InThread] {
        let Some(kit) = Kit::new("causes", builder().fault_mode(mode)) else { return };
        let blocks = usize::try_from(N).unwrap();
        let mut vec = kit.heap().vec_zeroed::<u32>(blocks * BLOCK_WORDS).unwrap();
        let watch = watch_of(&kit, &vec);
        let step = |vec: &UnifiedVec<u32>, what: &str, expected: &[(Cause, Copies, u64)]| {
            settle(vec);
            assert_eq!(told(&watch), expected, "{mode:?}: {what}");
        };
        step(&vec, "nothing yet", &[]);
        vec.write().unwrap().chunks_mut(BLOCK_WORDS).for_each(|block| block[0] = 1);
        step(&vec, "written by the CPU", &[(Cause::CpuFault, HOST, N)]);
        vec.prefetch_to_device().unwrap();
        step(&vec, "prefetched", &[(Cause::Prefetch, DEVICE, N)]);
        kit.fill(&mut vec, 3).unwrap().wait().unwrap();
        step(&vec, "resident for a launch", &[]);
        assert_eq!(vec.read().unwrap()[0], 3);
        step(&vec, "one block read by the CPU", &[(Cause::CpuFault, BOTH, 1)]);
        kit.fill(&mut vec, 4).unwrap().wait().unwrap();
        step(&vec, "taken by a launch", &[(Cause::Launch, DEVICE, 1)]);
        vec.prefetch_to_host().unwrap();
        step(&vec, "prefetched to the host", &[(Cause::Prefetch, HOST, N)]);
        kit.fill_at(vec.ptr(0).address(), 1, 5).unwrap().wait().unwrap();
        step(&vec, "a word written by a kernel that declares nothing", &[(Cause::GpuFault, DEVICE, 1)]);
        drop(vec.host_pin().unwrap());
        step(&vec, "pinned", &[(Cause::Pin, HOST, 1)]);
        vec.discard().unwrap();
        step(&vec, "discarded", &[(Cause::Discard, Copies::Zero, N)]);
        drop(vec);
        assert_eq!(told(&watch), [(Cause::Free, Copies::Unallocated, N)], "{mode:?}: freed");
        let vec = kit.heap().vec_zeroed::<u32>(blocks * BLOCK_WORDS).unwrap();
        assert_eq!(told(&watch), [(Cause::Allocation, Copies::Zero, N)], "{mode:?}: allocated at the same place");
        assert_eq!(watch.missed(), 0);
        drop(vec);
    }
}

#[test]
fn evictions_are_told() {
    let _turn = turn("evictions");
    let Some(kit) = Kit::new("evictions", builder().device_budget(8 * MIB)) else { return };
    let mut first = kit.heap().vec_with(96 * BLOCK_WORDS, |_| 1u32).unwrap();
    let mut second = kit.heap().vec_with(96 * BLOCK_WORDS, |_| 2u32).unwrap();
    let watch = watch_of(&kit, &first);
    kit.fill(&mut first, 1).unwrap().wait().unwrap();
    kit.fill(&mut second, 2).unwrap().wait().unwrap();
    let events = told(&watch);
    let of = |cause: Cause| events.iter().filter(|event| event.0 == cause).map(|event| event.2).sum::<u64>();
    assert_eq!(of(Cause::Launch), 96);
    assert!(of(Cause::Eviction) >= 64, "{events:?}");
    // A range of which nothing changes hears nothing.
    assert_eq!(told(&watch_of(&kit, &second)), []);
}

#[test]
fn a_watch_tells_of_its_range_alone() {
    let _turn = turn("range");
    let Some(kit) = Kit::new("range", builder()) else { return };
    let vec = kit.heap().vec_with(70 * BLOCK_WORDS, |_| 1u32).unwrap();
    let start = vec.raw().range().start.offset(30 * BLOCK + 5);
    let watch = kit.heap().watch(HostRange { start, len: 4 * BLOCK }).unwrap();
    vec.prefetch_to_device().unwrap();
    let mut ranges = Vec::new();
    while let Some(WatchEvent::Changed { range, .. }) = watch.try_next() {
        ranges.push(((range.start.0 - vec.raw().range().start.0) / BLOCK, range.len / BLOCK));
    }
    assert_eq!(ranges, [(30, 2), (32, 3)], "by chunk, and whole blocks");
}

#[test]
fn an_unread_watch_holds_nobody_up_and_counts_what_it_missed() {
    const ROUNDS: u64 = 3000;
    let _turn = turn("overflow");
    let Some(kit) = Kit::new("overflow", builder()) else { return };
    let vec = kit.heap().vec_with(BLOCK_WORDS, |_| 1u32).unwrap();
    let watch = watch_of(&kit, &vec);
    for _ in 0..ROUNDS {
        vec.prefetch_to_device().unwrap();
        vec.prefetch_to_host().unwrap();
    }
    let mut read = 0;
    while watch.try_next().is_some() {
        read += 1;
    }
    assert!(watch.missed() > 0 && read > 0);
    assert_eq!(read + watch.missed(), 2 * ROUNDS);
    vec.prefetch_to_device().unwrap();
    assert_eq!(told(&watch), [(Cause::Prefetch, DEVICE, 1)], "it goes on once there is room");
}

#[test]
fn there_are_so_many_watches_and_a_dropped_one_makes_room() {
    let _turn = turn("slots");
    let Some(kit) = Kit::new("slots", builder()) else { return };
    let vec = kit.heap().vec_with(BLOCK_WORDS, |_| 1u32).unwrap();
    let mut watches: Vec<_> = (0..WATCHES_MAX).map(|_| watch_of(&kit, &vec)).collect();
    let refused = kit.heap().watch(vec.raw().range()).err().unwrap();
    assert!(matches!(refused, Error::Pager(PagerError::TooManyWatches { limit: WATCHES_MAX })), "{refused}");
    vec.prefetch_to_device().unwrap();
    watches.swap_remove(3);
    let fresh = watch_of(&kit, &vec);
    assert_eq!(told(&fresh), [], "what was told to the one before is not told again");
    watches.iter().for_each(|watch| assert_eq!(told(watch), [(Cause::Prefetch, DEVICE, 1)]));
    let outside = HostRange { start: kit.heap().range().start, len: kit.heap().range().len + 1 };
    assert!(matches!(kit.heap().watch(outside).err(), Some(Error::Pager(PagerError::NotAllocated { .. }))));
}

#[test]
fn a_waiting_reader_is_woken_by_every_change() {
    const ROUNDS: u32 = 2000;
    let _turn = turn("waiting");
    for mode in [FaultMode::HandlerThread, FaultMode::InThread] {
        let Some(kit) = Kit::new("waiting", builder().fault_mode(mode)) else { return };
        let vec = kit.heap().vec_with(BLOCK_WORDS, |_| 1u32).unwrap();
        let watch = watch_of(&kit, &vec);
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..2 * ROUNDS {
                    told.send(watch.next()).unwrap();
                }
            });
            // The reader sleeps, mostly, when the next change is made.
            for _ in 0..ROUNDS {
                vec.prefetch_to_device().unwrap();
                assert!(matches!(heard.recv().unwrap(), WatchEvent::Changed { copies: DEVICE, .. }));
                // A fault of this thread: in signal mode it is told by its handler.
                assert_eq!(vec.read().unwrap()[0], 1);
                assert!(matches!(heard.recv().unwrap(), WatchEvent::Changed { copies: BOTH, .. }));
            }
        });
    }
}

#[test]
fn loss_of_the_device_is_told_once_after_what_it_changed() {
    let _turn = turn("loss");
    let Some(kit) = Kit::new("loss", builder()) else { return };
    let mut vec = kit.heap().vec_with(8 * BLOCK_WORDS, |_| 1u32).unwrap();
    let untouched = kit.heap().vec_with(8 * BLOCK_WORDS, |_| 1u32).unwrap();
    let (watch, other) = (watch_of(&kit, &vec), watch_of(&kit, &untouched));
    vec.prefetch_range(Side::Device, 0..4 * BLOCK_WORDS).unwrap();
    assert_eq!(told(&watch), [(Cause::Prefetch, DEVICE, 4)]);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| other.next());
        inject::lose_device();
        assert!(kit.fill(&mut vec, 1).and_then(|event| event.wait()).is_err());
        assert_eq!(reader.join().unwrap(), WatchEvent::DeviceLost, "a sleeping reader of another range is woken");
    });
    assert!(matches!(watch.next(), WatchEvent::Changed { copies: Copies::Poisoned | DEVICE, .. }));
    while let Some(WatchEvent::Changed { cause, .. }) = watch.try_next() {
        assert!(matches!(cause, Cause::DeviceLost | Cause::Launch));
    }
    assert_eq!(watch.try_next(), None, "once only");
    let range = vec.raw().range();
    kit.heap().repair(range.start.0, range.len).unwrap();
    assert!(told(&watch).iter().all(|event| (event.0, event.1) == (Cause::Repair, Copies::Zero)));
}

#[test]
fn the_last_that_is_told_of_a_block_is_where_it_is() {
    const BLOCKS: usize = 64;
    let _turn = turn("order");
    for mode in [FaultMode::HandlerThread, FaultMode::InThread] {
        let Some(kit) = Kit::new("order", builder().fault_mode(mode)) else { return };
        let vec = kit.heap().vec_with(BLOCKS * BLOCK_WORDS, |_| 1u32).unwrap();
        let watch = watch_of(&kit, &vec);
        let mut last: HashMap<u64, Copies> = HashMap::new();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let movers: Vec<_> = (0..3usize)
                .map(|thread| {
                    let vec = &vec;
                    scope.spawn(move || {
                        for round in 0..400 {
                            let first = (round * 7 + thread * 11) % (BLOCKS - 9);
                            let range = first * BLOCK_WORDS..(first + 9) * BLOCK_WORDS;
                            let side = if (round + thread) % 2 == 0 { Side::Device } else { Side::Host };
                            vec.prefetch_range(side, range.clone()).unwrap();
                            assert_eq!(vec.read().unwrap()[range.end - 1], 1);
                        }
                    })
                })
                .collect();
            let reader = scope.spawn(|| {
                let mut told = Vec::new();
                loop {
                    let over = done.load(Ordering::SeqCst);
                    while let Some(WatchEvent::Changed { range, copies, .. }) = watch.try_next() {
                        told.push((range, copies));
                    }
                    if over {
                        break told;
                    }
                    std::thread::yield_now();
                }
            });
            movers.into_iter().for_each(|mover| mover.join().unwrap());
            settle(&vec);
            done.store(true, Ordering::SeqCst);
            for (range, copies) in reader.join().unwrap() {
                (range.start.0..range.start.0 + range.len).step_by(4 * BLOCK_WORDS).for_each(|at| {
                    last.insert(at, copies);
                });
            }
        });
        assert_eq!(watch.missed(), 0);
        let range = vec.raw().range();
        for run in kit.heap().residency(range.start.0, range.len).unwrap() {
            for at in (run.extent.start..run.extent.end()).step_by(4 * BLOCK_WORDS) {
                let address = kit.heap().range().start.offset(at).0;
                assert_eq!(last.get(&address).copied().unwrap_or(HOST), run.state.copies, "{mode:?} at {at:#x}");
            }
        }
    }
}

#[test]
fn shared_memory_is_told_of_when_it_comes_and_goes() {
    let _turn = turn("shared, watched");
    let Some(kit) = Kit::new("shared, watched", builder()) else { return };
    let watch = kit.heap().watch(kit.heap().range()).unwrap();
    let vec = kit.heap().in_home(limosa::Home::Shared).vec_zeroed::<u32>(3 * BLOCK_WORDS).unwrap();
    assert_eq!(told(&watch), [(Cause::Allocation, Copies::Shared, 3)]);
    drop(vec);
    assert_eq!(told(&watch), [(Cause::Free, Copies::Unallocated, 3)]);
}
