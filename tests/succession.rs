//! Launches of one in-order queue on the same data go to the device one behind the other, without waiting for each
//! other's holds; nobody else gets in between, and nobody starves.
//!
//! A [`Gate`] keeps the device busy, and the counter of launches tells who was admitted meanwhile.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::builder;
use common::failure::{BLOCK_WORDS, Kit, turn};
use common::gate::Gate;
use common::views::BESIDE_KERNELS;
use common::words::{all_are, counted, peek, since, wait_until};
use limosa::{Event, Queue, UnifiedVec};
use limosa_shaders::copy;

/// Launches admitted since.
fn admitted(kit: &Kit, before: &limosa::Counters) -> u64 {
    since(kit, before).launches
}

fn copy_on(kit: &Kit, queue: &Queue, to: &mut UnifiedVec<u32>, from: &UnifiedVec<u32>) -> Event {
    let words = to.len() as u64;
    let launch = queue.launch(&kit.copy, words.div_ceil(copy::ITEMS)).args((to.writes(), from.reads(), words));
    // SAFETY: copy reads and writes the words of both, as declared.
    unsafe { launch.submit() }.unwrap()
}

#[test]
fn launches_on_the_same_resident_data_are_admitted_behind_each_other() {
    let _turn = turn("succession");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("succession", builder()) else { continue };
        let (mut a, mut b) = (counted(&kit, 3), counted(&kit, 3));
        a.prefetch_to_device().unwrap();
        b.prefetch_to_device().unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let before = kit.heap().counters();
        // Writers behind writers, readers behind writers, writers behind readers.
        for value in 0..5 {
            kit.fill(&mut a, value).unwrap();
            copy_on(&kit, &kit.queue, &mut b, &a);
            kit.fill(&mut a, value + 100).unwrap();
        }
        assert_eq!(admitted(&kit, &before), 15, "{way:?}");
        assert!(gate.is_closed());
        gate.open();
        assert!(all_are(&b, 4) && all_are(&a, 104), "{way:?}");
        kit.works();
    }
}

#[test]
fn a_parked_cpu_thread_has_its_chance_before_the_next_launch() {
    let _turn = turn("succession and the cpu");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("succession and the cpu", builder()) else { continue };
        let mut vec = counted(&kit, 3);
        vec.prefetch_to_device().unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        kit.fill(&mut vec, 1).unwrap();
        let before = kit.heap().counters();
        let shared = &vec;
        let second = std::thread::scope(|scope| {
            let touch = scope.spawn(move || peek(shared, BLOCK_WORDS + 7));
            wait_until(|| since(&kit, &before).faults_parked > 0);
            let launch = kit.queue.launch(&kit.fill, 1).arg(vec.ptr(0)).args((vec.len() as u64, 2u32, 0u32));
            let launch = launch.with_raw(vec.raw(), limosa::Access::Write);
            // SAFETY: fill writes the words of `vec`; the touch is one aligned word, and waits for what holds it.
            let second = unsafe { launch.submit() }.unwrap();
            assert_eq!(admitted(&kit, &before), 0, "{way:?}");
            assert!(gate.is_closed());
            gate.open();
            // It is woken with the launch: who comes first is open.
            assert!([1, 2].contains(&touch.join().unwrap()), "{way:?}");
            second
        });
        second.wait().unwrap();
        assert!(all_are(&vec, 2), "{way:?}");
    }
}

#[test]
fn other_queues_and_what_is_elsewhere_wait() {
    let _turn = turn("no succession");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("no succession", builder()) else { continue };
        let (mut vec, mut elsewhere) = (counted(&kit, 3), counted(&kit, 3));
        vec.prefetch_to_device().unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let before = kit.heap().counters();
        kit.fill(&mut vec, 1).unwrap();
        // Nobody is before it on its own queue.
        let other = kit.context.queue().unwrap();
        kit.fill_on(&other, &mut vec, 2).unwrap();
        assert_eq!(admitted(&kit, &before), 1, "{way:?}");
        gate.open();
        assert!(all_are(&vec, 2), "{way:?}");

        // What conflicts with what runs, and is not there, is brought when it is its turn.
        let gate = Gate::close(&kit, &kit.queue);
        let before = kit.heap().counters();
        vec.prefetch_to_device().unwrap();
        kit.fill(&mut vec, 3).unwrap();
        copy_on(&kit, &kit.queue, &mut elsewhere, &vec);
        assert_eq!(admitted(&kit, &before), 1, "{way:?}");
        gate.open();
        assert!(all_are(&elsewhere, 3), "{way:?}");

        // Out of order, a conflict is one also on the same queue.
        let loose = kit.context.queue_builder().out_of_order().build().unwrap();
        vec.prefetch_to_device().unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let before = kit.heap().counters();
        kit.fill_on(&loose, &mut vec, 4).unwrap();
        kit.fill_on(&loose, &mut vec, 5).unwrap();
        assert_eq!(admitted(&kit, &before), 1, "{way:?}");
        gate.open();
        assert!(all_are(&vec, 5), "{way:?}");
    }
}

#[test]
fn blocks_that_several_launches_hold_count_once_against_the_budget() {
    let _turn = turn("succession and the budget");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("succession and the budget", builder().device_budget(16 << 20)) else { continue };
        // More than half of it.
        let mut vec = counted(&kit, 12 * 16);
        vec.prefetch_to_device().unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let before = kit.heap().counters();
        for value in 0..4 {
            kit.fill(&mut vec, value).unwrap();
        }
        assert_eq!(admitted(&kit, &before), 4, "{way:?}");
        gate.open();
        assert!(all_are(&vec, 3), "{way:?}");
        // All of it was given up: as much again finds its room.
        let mut other = counted(&kit, 14 * 16);
        kit.fill(&mut other, 9).unwrap().wait().unwrap();
        assert!(all_are(&other, 9), "{way:?}");
    }
}
