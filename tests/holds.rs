//! What launches hold of what they declare: who waits for whom meanwhile, on both sides, and what may go before they end.
//!
//! Nothing here waits by the clock: a [`Gate`] keeps the device busy for as long as a test likes, and the counters
//! tell when a thread is parked.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, turn};
use common::gate::Gate;
use common::views::{ALL, BESIDE_KERNELS, SPARSE, Way, cases};
use common::words::{all_are, counted, peek, poke, since, sum_into, sum_of, wait_until};
use limosa::{Access, Event, Home, TouchCause, UnifiedVec, inject};
use limosa_shaders::fill;

/// The least that a budget can be: four chunks.
const BUDGET: u64 = 8 * MIB;

#[test]
fn a_touch_of_what_a_launch_writes_waits_for_it() {
    let _turn = turn("touch of a written block");
    for (way, mode) in cases(BESIDE_KERNELS) {
        let Some(kit) = way.kit("touch", builder().fault_mode(mode)) else { break };
        for access in [Access::Read, Access::Write] {
            let mut vec = counted(&kit, 40);
            let gate = Gate::close(&kit, &kit.queue);
            let event = kit.fill(&mut vec, 77).unwrap();
            let before = kit.heap().counters();
            let (vec, done) = (&vec, &AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    if access == Access::Write {
                        poke(vec, 39 * BLOCK_WORDS, 78);
                    }
                    assert_eq!(peek(vec, 5), 77, "{way:?}, {mode:?}");
                    done.store(true, Ordering::SeqCst);
                });
                wait_until(|| since(&kit, &before).faults_parked > 0);
                assert!(!done.load(Ordering::SeqCst) && gate.is_closed() && !event.is_complete().unwrap());
                gate.open();
            });
            event.wait().unwrap();
            let last = if access == Access::Write { 78 } else { 77 };
            assert_eq!((peek(vec, 39 * BLOCK_WORDS), peek(vec, 39 * BLOCK_WORDS + 1)), (last, 77));
        }
    }
}

#[test]
fn a_read_of_what_a_launch_reads_does_not_wait_and_a_write_does() {
    let _turn = turn("touch of a read block");
    for (way, mode) in cases(BESIDE_KERNELS) {
        let Some(kit) = way.kit("touch of a read block", builder().fault_mode(mode)) else { break };
        let vec = counted(&kit, 40);
        let mut total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let event = sum_into(&kit, &kit.queue, &vec, &mut total);
        // The guard does not wait either.
        assert!(vec.read().unwrap().iter().enumerate().all(|(i, word)| u32::try_from(i) == Ok(*word)));
        assert!(gate.is_closed() && !event.is_complete().unwrap());
        assert_eq!(vec.residency_summary().both, 40 * BLOCK, "read by both");
        let before = kit.heap().counters();
        std::thread::scope(|scope| {
            scope.spawn(|| poke(&vec, 3, 1_000_000));
            wait_until(|| since(&kit, &before).faults_parked > 0);
            assert!(gate.is_closed());
            gate.open();
        });
        event.wait().unwrap();
        assert_eq!(
            total.read().unwrap()[0],
            sum_of(0..vec.len()),
            "{way:?}, {mode:?}: the store came after the launch"
        );
        assert_eq!(peek(&vec, 3), 1_000_000);
    }
}

#[test]
fn a_launch_holds_the_ranges_that_it_declares_and_no_more() {
    let _turn = turn("ranges");
    for (way, mode) in cases(BESIDE_KERNELS) {
        let Some(kit) = way.kit("ranges", builder().fault_mode(mode)) else { break };
        let mut vec = counted(&kit, 40);
        let middle = 10 * BLOCK_WORDS..12 * BLOCK_WORDS;
        let gate = Gate::close(&kit, &kit.queue);
        let (target, words) = (vec.ptr(middle.start), middle.len() as u64);
        let launch = kit.queue.launch(&kit.fill, words.div_ceil(fill::ITEMS)).args((target, words));
        // SAFETY: fill writes the declared range.
        let event = unsafe { launch.args((5u32, 0u32)).with(vec.slice_mut(middle.clone()).unwrap().writes()).submit() }
            .unwrap();
        // Not the heap's counter: the gate's own fault may come at any time.
        assert_eq!(vec.residency_summary().device, 2 * limosa::BLOCK);
        // Beside the range nobody waits.
        for block in [0, 9, 12, 39] {
            poke(&vec, block * BLOCK_WORDS, 9);
            assert_eq!(peek(&vec, block * BLOCK_WORDS + 1), u32::try_from(block * BLOCK_WORDS + 1).unwrap());
        }
        assert!(gate.is_closed() && !event.is_complete().unwrap());
        gate.open();
        assert_eq!((peek(&vec, middle.start), peek(&vec, middle.end - 1)), (5, 5));
        assert_eq!(peek(&vec, middle.end + 1), u32::try_from(middle.end + 1).unwrap());
        event.wait().unwrap();
    }
}

#[test]
fn what_pending_launches_use_may_be_dropped() {
    let _turn = turn("dropped");
    for (way, mode) in cases(BESIDE_KERNELS) {
        let Some(kit) = way.kit("dropped", builder().device_budget(BUDGET).fault_mode(mode)) else { break };
        let mut last = kit.heap().vec_zeroed::<u32>(100 * BLOCK_WORDS).unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let queues: Vec<_> = (0..3).map(|_| kit.context.queue().unwrap()).collect();
        let before = kit.heap().counters();
        for step in 0..6 {
            let mut vec = counted(&kit, 70 + step);
            let event = kit.fill_on(&queues[step % 3], &mut vec, 1).unwrap();
            assert!(!event.is_complete().unwrap());
        }
        let event = kit.fill_on(&queues[1], &mut last, 4).unwrap();
        assert_eq!(since(&kit, &before).launches, 1);
        gate.open();
        drop(queues);
        assert!(event.is_complete().unwrap(), "a queue waits for its launches");
        assert_eq!(since(&kit, &before).launches, 7);
        assert!(all_are(&last, 4));
        drop(gate);
        kit.works();
    }
}

#[test]
fn a_context_may_go_while_launches_are_pending() {
    let _turn = turn("context dropped");
    for way in BESIDE_KERNELS {
        context_dropped(*way);
    }
}

fn context_dropped(way: Way) {
    let Some(kit) = way.kit("context dropped", builder().device_budget(BUDGET)) else { return };
    let mut vecs: Vec<_> = (0..4).map(|_| counted(&kit, 90)).collect();
    let gate = Gate::close(&kit, &kit.queue);
    let events: Vec<_> = (0u32..).zip(&mut vecs).map(|(step, vec)| kit.fill(vec, step).unwrap()).collect();
    gate.open();
    drop(kit);
    assert!(events.iter().all(|event| event.is_complete().unwrap()));
    assert!((0u32..).zip(&vecs).all(|(step, vec)| all_are(vec, step)));
}

#[test]
fn overwrites_move_nothing_up_and_spare_what_is_beside_them() {
    let _turn = turn("overwrites");
    for (way, mode) in cases(BESIDE_KERNELS) {
        let Some(kit) = way.kit("overwrites", builder().fault_mode(mode)) else { break };
        let words = 70 * BLOCK_WORDS + 100;
        let mut vec = kit.heap().vec_with(words, |_| 1u32).unwrap();
        let before = kit.heap().counters();
        overwrite(&kit, &mut vec, 5).wait().unwrap();
        let moved = since(&kit, &before);
        assert!(moved.blocks_to_device <= 1, "the last block is overwritten in part: {moved:?}");
        assert_eq!(moved.gpu_read_faults + moved.gpu_write_faults, 0, "{moved:?}");
        assert!(all_are(&vec, 5));

        // Small ones share their block.
        let mut small: Vec<_> = (0..8u32).map(|i| kit.heap().vec_with(100, |_| i).unwrap()).collect();
        let starts: Vec<u64> = small.iter().map(|vec| vec.ptr(0).address() / BLOCK).collect();
        assert!(starts.windows(2).all(|pair| pair[0] == pair[1]), "{starts:x?}");
        overwrite(&kit, &mut small[3], 50).wait().unwrap();
        for (vec, i) in small.iter().zip(0u32..) {
            assert!(all_are(vec, if i == 3 { 50 } else { i }), "{way:?}, {mode:?}: {i}");
        }

        // What is read as well must be there.
        let mut both = counted(&kit, 8);
        let address = both.ptr(0);
        let raw = Arc::clone(both.raw());
        let count = both.len() as u64;
        let launch = kit.queue.launch(&kit.fill, count / fill::ITEMS).args((both.overwrites(), count / 2));
        // SAFETY: fill writes the vector's first half; the declared read keeps the other.
        let event = unsafe { launch.args((3u32, 0u32)).with_raw(&raw, Access::Read).submit() }.unwrap();
        event.wait().unwrap();
        assert_eq!(address.address(), both.ptr(0).address());
        let words = both.read().unwrap();
        let (first, second) = words.split_at(words.len() / 2);
        assert!(first.iter().all(|word| *word == 3));
        assert!(second.iter().zip(first.len()..).all(|(word, i)| u32::try_from(i) == Ok(*word)));
    }
}

fn overwrite(kit: &Kit, vec: &mut UnifiedVec<u32>, value: u32) -> Event {
    let count = vec.len() as u64;
    let launch = kit.queue.launch(&kit.fill, count.div_ceil(fill::ITEMS)).args((vec.overwrites(), count));
    // SAFETY: fill replaces every word of the vector.
    unsafe { launch.args((value, 0u32)).submit() }.unwrap()
}

#[test]
fn check_mode_goes_by_the_declared_ranges() {
    let _turn = turn("check mode, ranges");
    let Some(kit) = Kit::new("check mode, ranges", builder().check(true).device_budget(BUDGET)) else { return };
    let mut vec = counted(&kit, 12);
    let (from, to) = (3 * BLOCK_WORDS, 5 * BLOCK_WORDS);
    for (start, beyond) in [(from, false), (from - 1, true), (from + 1, true)] {
        let count = (to - from) as u64;
        let launch = kit.queue.launch(&kit.fill, count / fill::ITEMS).args((vec.ptr(start), count));
        // SAFETY: fill writes the vector, to which no reference exists; that it leaves its range is the test.
        let event =
            unsafe { launch.args((1u32, 0u32)).with(vec.slice_mut(from..to).unwrap().writes()).submit() }.unwrap();
        match event.wait() {
            Ok(()) => assert!(!beyond),
            Err(error) => {
                let failure = error.launch_failure().unwrap();
                assert!(beyond, "{failure}");
                let block = if start < from { 2 } else { 5 };
                let block = vec.ptr(block * BLOCK_WORDS).address();
                assert_eq!((failure.access, failure.cause), (Access::Write, TouchCause::Undeclared));
                assert!((block..block + BLOCK).contains(&failure.address.0), "{failure}");
            }
        }
    }
    // An empty range declares nothing.
    let mut total = kit.heap().vec_zeroed::<u64>(1).unwrap();
    let words = vec.len();
    let launch = kit.queue.launch(&kit.reduce, 1).args((vec.ptr(words - 1), total.writes(), 1u64));
    // SAFETY: reduce reads one word of the vector, and adds to `total`.
    unsafe { launch.with(vec.slice(words - 1..words).unwrap().reads()).submit() }.unwrap().wait().unwrap();
    assert_eq!(total.read().unwrap()[0], words as u64 - 1);
    let launch = kit.queue.launch(&kit.reduce, 1).args((vec.ptr(words - 1), total.writes(), 1u64));
    // SAFETY: as above.
    let event = unsafe { launch.with(vec.slice(words..words).unwrap().reads()).submit() }.unwrap();
    assert_eq!(event.wait().unwrap_err().launch_failure().unwrap().cause, TouchCause::Undeclared);
    kit.works();
}

#[test]
fn all_launches_of_a_lost_device_fail_and_nobody_hangs() {
    let _turn = turn("lost with launches pending");
    for (way, mode) in cases(ALL) {
        let Some(kit) = way.kit("lost with launches", builder().device_budget(BUDGET).fault_mode(mode)) else { break };
        let queues: Vec<_> = (0..3).map(|_| kit.context.queue().unwrap()).collect();
        let source = counted(&kit, 50);
        let mut vecs: Vec<_> = (0..6).map(|_| counted(&kit, 90)).collect();
        let mut total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        // The first launch needs no copy any more, which a device that copies could not make beside the gate.
        kit.sum(&source).unwrap();
        total.prefetch_to_device().unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let mut events = vec![sum_into(&kit, &queues[0], &source, &mut total)];
        for (step, vec) in (0u32..).zip(&mut vecs) {
            events.push(kit.fill_on(&queues[step as usize % 3], vec, step).unwrap());
        }
        let before = kit.heap().counters();
        std::thread::scope(|scope| {
            scope.spawn(|| poke(&source, 7, 1_000_000));
            let last = events.last().unwrap();
            scope.spawn(|| assert!(last.wait().is_err()));
            scope.spawn(|| assert!(queues[1].wait_idle().is_err()));
            wait_until(|| since(&kit, &before).faults_parked > 0);
            inject::lose_device();
            gate.open();
        });
        for event in &events[1..] {
            let text = event.wait().unwrap_err().to_string();
            assert!(text.contains("lost"), "{text}");
        }
        assert_eq!(peek(&source, 7), 1_000_000);
        assert!(kit.fill(&mut vecs[0], 1).is_err());
        drop(queues);
        inject::find_device();
        assert!(kit.fill(&mut vecs[0], 1).is_err_and(|error| error.is_device_lost()));
        // The last was never begun; but it may have been brought to the device when that turned out to be lost.
        match vecs.last().unwrap().read() {
            Ok(words) => assert!(words.iter().zip(0u32..).all(|(word, i)| *word == i)),
            Err(error) => assert!(error.to_string().contains("lost"), "{error}"),
        }
    }
}

#[test]
fn a_launch_on_all_of_the_heap_holds_what_there_is_when_it_is_admitted() {
    let _turn = turn("whole heap, queued");
    let Some(kit) = SPARSE.kit("whole heap, queued", builder().device_budget(BUDGET)) else { return };
    let launch_on = |vec: &UnifiedVec<u32>, value: u32| {
        let count = vec.len() as u64;
        let launch = kit.queue.launch(&kit.fill, count.div_ceil(fill::ITEMS)).args((vec.ptr(0), count));
        // SAFETY: fill writes `vec`'s words, which the caller does not use before the launch has ended.
        unsafe { launch.args((value, 0u32)).with_whole_heap().submit() }.unwrap()
    };
    let mut pinned = counted(&kit, 2);
    let (target, gone) = (counted(&kit, 3), counted(&kit, 2));
    let pin = pinned.host_pin().unwrap();
    let event = launch_on(&target, 5);
    assert!(!event.is_complete().unwrap(), "it waits for the pin");
    // What is freed meanwhile is not missed; its place may become memory of another home; what is new is held, too.
    drop(gone);
    let shared = kit.heap().in_home(Home::Shared).vec_with(2 * BLOCK_WORDS, |_| 4u32).unwrap();
    let late = counted(&kit, 4);
    drop(pin);
    event.wait().unwrap();
    assert!(all_are(&target, 5) && all_are(&shared, 4));
    // Grown beyond the budget before it is admitted, it fails by name, and what is behind it goes on.
    let pin = pinned.host_pin().unwrap();
    let (event, behind) = (launch_on(&target, 6), kit.fill(&mut { late }, 8));
    let large = counted(&kit, 128);
    drop(pin);
    let text = event.wait().unwrap_err().to_string();
    assert!(text.contains("declares") && text.contains(&BUDGET.to_string()), "{text}");
    behind.unwrap().wait().unwrap();
    assert!(all_are(&target, 5));
    drop((large, pinned));
    kit.works();
}

#[test]
fn a_budget_that_the_driver_cuts_short_comes_back() {
    let _turn = turn("budget cut");
    let Some(kit) = SPARSE.kit("budget cut", builder().device_budget(2 * BUDGET)) else { return };
    let (small, mut large) = (counted(&kit, 32), counted(&kit, 200));
    inject::fail_vulkan(inject::VulkanCall::AllocateMemory);
    // What was allocated for the self-test suffices for the one, and not for the other: that fails by name, or else
    // does its work in what there is, and nobody waits for ever.
    small.prefetch_to_device().unwrap();
    let filled = kit.fill(&mut large, 6).and_then(|event| event.wait());
    let (budget, cuts) = (kit.heap().device_budget(), kit.heap().counters().device_budget_cuts);
    inject::find_device();
    if let Err(error) = filled {
        assert!(error.is_out_of_memory(), "{error}");
    }
    assert!(cuts > 0 && budget < 2 * BUDGET, "{cuts} cuts, to {budget}");
    // The driver has memory again: the launch that needs it gets it.
    kit.fill(&mut large, 7).unwrap().wait().unwrap();
    assert!(all_are(&large, 7));
    assert_eq!(kit.heap().device_budget(), 2 * BUDGET);
    kit.works();
}

#[test]
fn a_launch_for_which_the_driver_has_no_memory_waits_for_what_runs() {
    let _turn = turn("driver out of memory");
    let Some(kit) = SPARSE.kit("driver out of memory", builder().device_budget(4 * BUDGET)) else { return };
    let mut vecs: [_; 2] = std::array::from_fn(|_| counted(&kit, 128));
    let [first, second] = &mut vecs;
    // The frames that the one has are all there are: the other gets them when it is done.
    kit.fill(first, 1).unwrap().wait().unwrap();
    inject::fail_vulkan(inject::VulkanCall::AllocateMemory);
    for value in 2..5 {
        let gate = Gate::close(&kit, &kit.queue);
        let running = kit.fill(first, value).unwrap();
        let waiting = kit.fill(second, value).unwrap();
        assert!(!waiting.is_complete().unwrap() && gate.is_closed());
        gate.open();
        running.wait().unwrap();
        waiting.wait().unwrap();
        assert!(all_are(first, value) && all_are(second, value));
    }
    assert!(kit.heap().counters().device_budget_cuts > 0);
    inject::find_device();
    kit.works();
}
