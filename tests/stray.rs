//! CPU threads that touch heap memory which is not allocated get SIGBUS, with a line that says why, on every view: nobody
//! hangs, and nobody is served. In check mode that goes for every way past an allocation, and for kernels.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, is_child, no_core, turn};
use common::sigbus::{end_by_sigbus, touch, touches};
use common::views::{ALL, DECLARED, FAULTING, Way, cases};
use limosa::{
    Access, ContextBuilder, Edge, Error, GpuPtr, Home, LaunchFailure, PagerError, Relation, Result, Side, TouchCause,
    UnifiedVec,
};

/// Where check mode works: accesses of kernels fault.
const CHECKED: &[Way] = &[FAULTING, DECLARED];

/// Touches, on each way, the word that `place` finds in a heap in use.
fn stray(test: &str, place: impl Fn(&Kit) -> *mut u32) {
    stray_on(test, ALL, builder(), "not allocated", place);
}

fn stray_on(test: &str, ways: &[Way], builder: ContextBuilder, cause: &str, place: impl Fn(&Kit) -> *mut u32) {
    let _turn = turn(test);
    if let Some((_, way, mode, write)) = touches(ways).find(|(case, ..)| is_child(case)) {
        no_core();
        let Some(kit) = way.kit(test, builder.fault_mode(mode)) else { return };
        let mut vec = kit.heap().vec_zeroed::<u32>(40 * BLOCK_WORDS).unwrap();
        kit.fill(&mut vec, 7).unwrap().wait().unwrap();
        assert_eq!(vec.read().unwrap()[0], 7);
        return touch(place(&kit), write);
    }
    end_by_sigbus(test, ways, cause);
}

#[test]
fn far_from_everything() {
    // Of its chunk nothing was ever allocated.
    stray("far_from_everything", |kit| (kit.heap().range().start.0 + kit.heap().range().len - 4096) as *mut u32);
}

#[test]
fn beside_what_is_allocated() {
    stray("beside_what_is_allocated", |kit| {
        let small = kit.heap().vec_zeroed::<u32>(BLOCK_WORDS).unwrap();
        // Two blocks: where the second was there is nothing, in the middle of a chunk that is in use.
        let both = kit.heap().vec_zeroed::<u32>(2 * BLOCK_WORDS).unwrap();
        let word = both.ptr(BLOCK_WORDS + 9).as_ptr();
        drop(both);
        std::mem::forget(small);
        word
    });
}

#[test]
fn what_was_freed_after_the_device_had_it() {
    stray("what_was_freed_after_the_device_had_it", |kit| {
        let mut freed = kit.heap().vec_zeroed::<u32>(35 * BLOCK_WORDS).unwrap();
        kit.fill(&mut freed, 3).unwrap().wait().unwrap();
        freed.ptr(34 * BLOCK_WORDS).as_ptr()
    });
}

/// Faults that were served and are over when they are looked at, of memory that is free again, accuse nobody.
#[test]
fn nobody_is_accused_of_touches_that_were_served() {
    for (way, mode) in cases(ALL) {
        let _turn = turn("accused");
        let Some(kit) = way.kit("accused", builder().fault_mode(mode)) else { break };
        for round in 0..300u32 {
            let mut vec = kit.heap().vec_zeroed::<u32>(32 * BLOCK_WORDS).unwrap();
            kit.fill(&mut vec, round).unwrap().wait().unwrap();
            let vec = &vec;
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    scope.spawn(move || {
                        for block in 0..32 {
                            let word = vec.ptr(((block * 7 + thread * 3) % 32) * BLOCK_WORDS).as_ptr();
                            // SAFETY: inside the vector, which nobody writes.
                            assert_eq!(unsafe { word.read_volatile() }, round);
                        }
                    });
                }
            });
        }
        // Until nothing is posted any more.
        kit.works();
        assert_eq!(kit.heap().counters().faults_refused, 0, "{way:?}, {mode:?}");
    }
}

/// A checked context on each way with each fault mode and edge.
fn checked(test: &str, run: impl Fn(&Kit, Edge)) {
    let _turn = turn(test);
    for (way, mode) in cases(CHECKED) {
        for edge in [Edge::End, Edge::Start] {
            let Some(kit) = way.kit(test, builder().fault_mode(mode).check(true).check_edge(edge)) else { return };
            run(&kit, edge);
            kit.works();
        }
    }
}

fn failure<T>(result: Result<T>) -> LaunchFailure {
    let Err(error) = result else { panic!("it went through") };
    error.launch_failure().unwrap_or_else(|| panic!("{error}")).clone()
}

/// That a launch which fills `words` words from `address` on fails at `at` for this reason, with `relation` to `vec`.
fn fails_at(kit: &Kit, vec: (u64, u64), address: u64, at: u64, relation: Relation) {
    let error = failure(kit.fill_at(address, 1, 7).unwrap().wait());
    let place = error.place.clone().unwrap();
    assert_eq!((error.kernel.as_str(), error.address.0, error.access), ("fill", at, Access::Write), "{error}");
    assert_eq!((place.allocation.start.0, place.allocation.len), vec, "{error}");
    assert_eq!(place.relation, relation, "{error}");
    let inside = matches!(relation, Relation::Inside(_));
    assert_eq!(error.cause, if inside { TouchCause::Undeclared } else { TouchCause::NotAllocated }, "{error}");
    assert!(error.to_string().contains(&place.to_string()), "{error}");
}

fn range_of(vec: &UnifiedVec<u32>) -> (u64, u64) {
    (vec.raw().range().start.0, vec.raw().range().len)
}

#[test]
fn a_kernel_that_runs_over_an_edge_is_caught_with_what_it_ran_over() {
    checked("kernel over an edge", |kit, edge| {
        for words in [1, 100, BLOCK_WORDS, 3 * BLOCK_WORDS + 5, 40 * BLOCK_WORDS - 1] {
            let vec = kit.heap().vec_zeroed::<u32>(words).unwrap();
            let neighbour = kit.heap().vec_zeroed::<u32>(words).unwrap();
            let (start, len) = range_of(&vec);
            let end = start + len;
            match edge {
                Edge::End => fails_at(kit, (start, len), end, end, Relation::Past(1)),
                Edge::Start => fails_at(kit, (start, len), start - 4, start - 4, Relation::Before(4)),
            }
            // The other edge, beyond the rest of the block.
            let (far, relation) = match edge {
                Edge::End => (start / BLOCK * BLOCK - 8, Relation::Before(start % BLOCK + 8)),
                Edge::Start => (end.next_multiple_of(BLOCK) + 4, Relation::Past(end.next_multiple_of(BLOCK) - end + 5)),
            };
            if start % BLOCK < BLOCK / 4 && words >= BLOCK_WORDS {
                fails_at(kit, (start, len), far, far, relation);
            }
            assert!(vec.read().unwrap().iter().chain(&neighbour.read().unwrap()[..]).all(|word| *word == 0));
            let last = neighbour.ptr(words - 1).address();
            fails_at(kit, range_of(&neighbour), last, last, Relation::Inside(len - 4));
        }
        // By a loop that goes one too far, over what it declares.
        let mut vec = kit.heap().vec_zeroed::<u32>(1000).unwrap();
        let (start, len) = range_of(&vec);
        let launch = kit.queue.launch(&kit.fill, 1000).args((vec.writes(), BLOCK_WORDS as u64 + 1000));
        // SAFETY: beyond `vec` is nothing, or the rest of its block.
        let error = failure(unsafe { launch.args((1u32, 0u32)).submit() }.unwrap().wait());
        assert_eq!(error.cause, TouchCause::NotAllocated, "{error}");
        assert_eq!(error.place.as_ref().unwrap().allocation.start.0, start);
        assert!((start + len..start + len + 2 * BLOCK).contains(&error.address.0), "{error}");
    });
}

#[test]
fn a_kernel_that_follows_a_dangling_pointer_is_caught() {
    checked("kernel on freed memory", |kit, _| {
        for words in [10, 5 * BLOCK_WORDS] {
            let mut vec = kit.heap().vec_with(words, |_| 1u32).unwrap();
            kit.fill(&mut vec, 2).unwrap().wait().unwrap();
            let (range, at) = (range_of(&vec), vec.ptr(words - 2).address());
            drop(vec);
            // It would be used again at once otherwise.
            let others: Vec<_> = (0..20).map(|_| kit.heap().vec_with(words, |_| 1u32).unwrap()).collect();
            fails_at(kit, range, at, at, Relation::Freed(range.1 - 8));
            // Also where the launch may touch all that there is.
            let launch = kit.queue.launch(&kit.fill, 1).with_whole_heap().args((at, 1u64, 4u32));
            // SAFETY: fill writes one word, of nobody's.
            let error = failure(unsafe { launch.arg(0u32).submit() }.unwrap().wait());
            assert_eq!((error.address.0, error.cause), (at, TouchCause::NotAllocated), "{error}");
            assert!(others.iter().all(|other| other.read().unwrap().iter().all(|word| *word == 1)));
        }
    });
}

#[test]
fn a_thread_that_runs_over_the_end_is_caught() {
    let test = "a_thread_that_runs_over_the_end_is_caught";
    let place = "1 bytes past the end of the allocation of 400 bytes";
    stray_on(test, CHECKED, builder().check(true), place, |kit| {
        let small = kit.heap().vec_zeroed::<u32>(100).unwrap();
        let behind = small.ptr(99).add(1).as_ptr();
        std::mem::forget(small);
        behind
    });
}

#[test]
fn a_thread_that_runs_over_the_start_is_caught() {
    let test = "a_thread_that_runs_over_the_start_is_caught";
    let place = "4 bytes before the allocation of 400 bytes";
    stray_on(test, CHECKED, builder().check(true).check_edge(Edge::Start), place, |kit| {
        let small = kit.heap().vec_zeroed::<u32>(100).unwrap();
        let before = small.ptr(0).add(u64::MAX).as_ptr();
        std::mem::forget(small);
        before
    });
}

#[test]
fn a_thread_that_follows_a_dangling_pointer_is_caught() {
    let test = "a_thread_that_follows_a_dangling_pointer_is_caught";
    stray_on(test, CHECKED, builder().check(true), "byte 8 of the 400 bytes", |kit| {
        let small = kit.heap().vec_zeroed::<u32>(100).unwrap();
        let word = small.ptr(2).as_ptr();
        drop(small);
        std::mem::forget(kit.heap().vec_zeroed::<u32>(100).unwrap());
        word
    });
}

#[test]
fn a_pointer_that_leads_nowhere_is_refused_before_the_launch() {
    checked("stray pointer arguments", |kit, _| {
        let heap = kit.heap();
        let mut vec = heap.vec_zeroed::<u32>(100).unwrap();
        let other = heap.vec_zeroed::<u32>(100).unwrap();
        let freed = heap.vec_zeroed::<u32>(100).unwrap();
        let dangling = freed.ptr(0);
        drop(freed);
        let local = 0u32;
        let refused = [
            (dangling, TouchCause::NotAllocated),
            (other.ptr(3), TouchCause::Undeclared),
            (vec.ptr(99).add(2), TouchCause::NotAllocated),
            (GpuPtr::from_address((&raw const local).addr() as u64), TouchCause::NotAllocated),
        ];
        let launched = heap.counters().launches;
        for (pointer, cause) in refused {
            let launch = kit.queue.launch(&kit.fill, 1).with(vec.writes()).args((pointer, 0u64));
            // SAFETY: fill writes no word.
            let error = unsafe { launch.args((1u32, 0u32)).submit() }.map(|_| ()).unwrap_err();
            let text = error.to_string();
            let Error::Pager(PagerError::StrayPointer { kernel, argument, address, cause: why, .. }) = error else {
                panic!("{text}")
            };
            assert_eq!((kernel.as_str(), address.0, why), ("fill", pointer.address(), cause), "{text}");
            assert!(argument.starts_with('1') && text.contains("nothing was launched"), "{text}");
        }
        assert_eq!(heap.counters().launches, launched);
        // Null, right behind the end, into what is kept, or anywhere with the whole heap.
        for (pointer, whole) in [
            (GpuPtr::null(), false),
            (vec.ptr(99).add(1), false),
            (vec.ptr(50), false),
            (other.ptr(3), true),
            (vec.ptr(0), true),
        ] {
            let launch = kit.queue.launch(&kit.fill, 1).with(vec.writes()).args((pointer, 0u64));
            let launch = if whole { launch.with_whole_heap() } else { launch };
            // SAFETY: as above.
            unsafe { launch.args((1u32, 0u32)).submit() }.unwrap().wait().unwrap();
        }
        let empty = other.slice(0..0).unwrap();
        let launch = kit.queue.launch(&kit.fill, 1).with(empty.reads()).args((other.ptr(0), 0u64));
        // SAFETY: as above.
        unsafe { launch.args((1u32, 0u32)).submit() }.unwrap().wait().unwrap();
        let launch = kit.queue.launch(&kit.fill, 1).keeps(other.raw()).args((other.ptr(0), 0u64));
        // SAFETY: as above.
        unsafe { launch.args((1u32, 0u32)).submit() }.unwrap().wait().unwrap();
    });
}

/// What programs may do, and check mode must not accuse.
#[test]
fn correct_programs_are_not_accused() {
    checked("correct programs", |kit, _| {
        let heap = kit.heap();
        for round in 1..4u32 {
            for words in [1, 3, 100, BLOCK_WORDS - 1, BLOCK_WORDS, 2 * BLOCK_WORDS + 7, 33 * BLOCK_WORDS] {
                let mut vec = heap.vec_zeroed::<u32>(words).unwrap();
                assert!(vec.read().unwrap().iter().all(|word| *word == 0), "{words}: zeros");
                kit.fill(&mut vec, round).unwrap().wait().unwrap();
                assert_eq!(kit.sum(&vec).unwrap(), u64::from(round) * words as u64);
                vec.write().unwrap()[words - 1] = 9;
                vec.prefetch_to_device().unwrap();
                assert_eq!(kit.sum(&vec).unwrap(), u64::from(round) * (words as u64 - 1) + 9);
                let mut copied = heap.vec_with(words, |_| 5u32).unwrap();
                let launch = kit.queue.launch(&kit.copy, words as u64).args((copied.overwrites(), vec.reads()));
                // SAFETY: copy reads and writes `words` words.
                unsafe { launch.arg(words as u64).submit() }.unwrap().wait().unwrap();
                assert!(copied.read().unwrap()[..] == vec.read().unwrap()[..]);
                if words >= BLOCK_WORDS {
                    vec.host_pin().unwrap()[0] = 3;
                    vec.prefetch_range(Side::Device, 0..words / 2).unwrap();
                    vec.advise(limosa::Advice::ReadMostly).unwrap();
                    vec.discard().unwrap();
                    kit.fill(&mut vec, 1).unwrap().wait().unwrap();
                    assert_eq!(kit.sum(&vec).unwrap(), words as u64);
                }
            }
            // Shared memory, and small things by the dozen.
            let mut both = heap.in_home(Home::Shared).vec_zeroed::<u32>(10).unwrap();
            kit.fill(&mut both, round).unwrap().wait().unwrap();
            assert!(both.read().unwrap().iter().all(|word| *word == round));
            let mut boxes: Vec<_> = (0..40u32).map(|i| heap.boxed(i).unwrap()).collect();
            for (one, i) in boxes.iter_mut().zip(0u32..) {
                assert_eq!(one.get().unwrap(), i);
                kit.fill(one.as_mut_vec(), i + round).unwrap().wait().unwrap();
                assert_eq!(one.get().unwrap(), i + round);
            }
        }
        assert_eq!(heap.counters().faults_refused, 0);
    });
}

/// More is allocated and freed than the address space has.
#[test]
fn what_rests_is_used_again_in_time() {
    let _turn = turn("quarantine");
    let small = builder().heap_size(16 << 20).check(true);
    let Some(kit) = Kit::new("quarantine", small) else { return };
    for round in 0..400u32 {
        let mut vec = kit.heap().vec_zeroed::<u32>(BLOCK_WORDS + 1).unwrap();
        assert!(vec.read().unwrap().iter().all(|word| *word == 0), "what was there before shows");
        kit.fill(&mut vec, round + 1).unwrap().wait().unwrap();
        assert_eq!(vec.read().unwrap()[BLOCK_WORDS], round + 1);
    }
}
