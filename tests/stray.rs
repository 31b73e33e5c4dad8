//! CPU threads that touch heap memory which is not allocated get SIGBUS, with a line that says why, on every view: nobody
//! hangs, and nobody is served.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::builder;
use common::failure::{BLOCK_WORDS, Kit, is_child, no_core, turn};
use common::sigbus::{end_by_sigbus, touch, touches};
use common::views::{ALL, cases};

/// Touches, on each way, the word that `place` finds in a heap in use.
fn stray(test: &str, place: impl Fn(&Kit) -> *mut u32) {
    let _turn = turn(test);
    if let Some((_, way, mode, write)) = touches(ALL).find(|(case, ..)| is_child(case)) {
        no_core();
        let Some(kit) = way.kit(test, builder().fault_mode(mode)) else { return };
        let mut vec = kit.heap().vec_zeroed::<u32>(40 * BLOCK_WORDS).unwrap();
        kit.fill(&mut vec, 7).unwrap().wait().unwrap();
        assert_eq!(vec.read().unwrap()[0], 7);
        return touch(place(&kit), write);
    }
    end_by_sigbus(test, ALL, "not allocated");
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
