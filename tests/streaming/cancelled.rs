//! Cancelling: wherever a transfer is, its event ends, and not before the kernel has given its memory back.

use std::io::Write;

use limosa::{DataFile, Error, FileErrorKind, PagerError, Side, Tier, Transfer};

use crate::common::builder;
use crate::common::failure::turn;
use crate::common::leaks::Held;
use crate::common::mounts::with_own_mounts;
use crate::common::views::{ALL, FAULTING, STAGED};
use crate::common::words::wait_until;
use crate::files::{Scratch, bytes, difference, folders, open};
use crate::served::Served;

const LEN: usize = 3 << 20;

/// What arrived of what was cancelled.
fn arrived(transfer: &Transfer) -> u64 {
    let error = transfer.wait().unwrap_err();
    let Error::Pager(PagerError::Cancelled { arrived, total, .. }) = error else { panic!("{error}") };
    assert!(arrived < total && transfer.report().arrived == arrived && transfer.progress().done >= arrived);
    arrived
}

#[test]
fn in_a_queue_it_ends_at_once_and_touches_nothing() {
    let _turn = turn("cancelled in a queue");
    let scratch = Scratch::with(&folders()[0], "queued", &bytes(LEN, 1));
    for way in ALL {
        let Some(kit) = way.kit("cancelled in a queue", builder()) else { continue };
        let file = open(&scratch.0);
        let gate = kit.context.user_event();
        let mut vec = kit.heap().vec_from(&vec![9u8; LEN]).unwrap();
        let mut other = kit.heap().vec_from(&vec![9u8; LEN]).unwrap();
        let reading = kit.queue.read_file(&file, 0, &mut vec).after(&gate.event()).submit().unwrap();
        // Not the first, and behind one that waits.
        let behind = kit.queue.read_file(&file, 0, &mut other).submit().unwrap();
        let then = kit.queue.marker([]).unwrap();
        behind.cancel();
        assert_eq!(arrived(&behind), 0);
        reading.cancel();
        assert_eq!(arrived(&reading), 0);
        then.wait().unwrap();
        assert!(vec.read().unwrap().iter().chain(other.read().unwrap().iter()).all(|byte| *byte == 9));
        // What waits for it fails, as of any other.
        let after = kit.queue.read_file(&file, 0, &mut vec).after(behind.event()).submit().unwrap();
        assert!(matches!(after.wait().unwrap_err(), Error::Pager(PagerError::AfterFailed { .. })));
        gate.complete();
        let done = kit.queue.read_file(&file, 0, &mut vec).submit().unwrap();
        done.wait().unwrap();
        done.cancel();
        done.wait().unwrap();
        assert_eq!(difference(&vec.read().unwrap(), &bytes(LEN, 1)), None);
        kit.works();
    }
}

#[test]
fn a_read_of_a_pipe_ends_at_once_and_later_data_stays_there() {
    let _turn = turn("cancelled pipe");
    for way in ALL {
        let Some(kit) = way.kit("cancelled pipe", builder()) else { continue };
        let (from, mut to) = std::io::pipe().unwrap();
        let from = DataFile::from_file(from).unwrap();
        for (side, sent) in [(Side::Host, 0), (Side::Device, 1000), (Side::Host, 70_000), (Side::Device, 5)] {
            let mut vec = kit.heap().vec_from(&vec![9u8; LEN]).unwrap();
            let reading = kit.queue.read_file(&from, 0, &mut vec).to(side).submit().unwrap();
            to.write_all(&bytes(sent, 1)).unwrap();
            wait_until(|| reading.progress().done == sent as u64);
            assert!(!reading.event().is_complete().unwrap());
            reading.cancel();
            assert_eq!(arrived(&reading), sent as u64);
            // Kept by nobody, and used for something else before more comes.
            drop(vec);
            let vec = kit.heap().vec_from(&vec![8u8; LEN]).unwrap();
            to.write_all(b"late").unwrap();
            let mut late = kit.heap().vec_zeroed::<u8>(4).unwrap();
            kit.queue.read_file(&from, 0, &mut late).submit().unwrap().wait().unwrap();
            assert_eq!(&late.read().unwrap()[..], b"late");
            assert!(vec.read().unwrap().iter().all(|byte| *byte == 8), "{way:?}");
        }
    }
}

#[test]
fn what_the_kernel_has_is_waited_for_and_comes_nowhere_else() {
    let _turn = turn("held by the kernel");
    let test = "cancelled::what_the_kernel_has_is_waited_for_and_comes_nowhere_else";
    with_own_mounts(test, |folder| {
        for way in [FAULTING, STAGED] {
            let Some(kit) = way.kit(test, builder()) else { continue };
            for (uncached, tier, side) in [
                (true, None, Side::Device),
                (true, Some(Tier::Buffered), Side::Host),
                (false, Some(Tier::Buffered), Side::Device),
                (true, Some(Tier::Staged), Side::Host),
            ] {
                let Some(served) = Served::with(test, folder, uncached, bytes(LEN, 1)) else { return };
                let file = DataFile::open(served.path()).unwrap();
                let mut small = kit.heap().vec_zeroed::<u8>(65536).unwrap();
                let first = kit.queue.read_file(&file, 0, &mut small).to(side);
                tier.into_iter().fold(first, |first, tier| first.tier(tier)).submit().unwrap().wait().unwrap();
                file.forget_cache().unwrap();
                let mut vec = kit.heap().vec_from(&vec![9u8; LEN]).unwrap();
                served.set(|rules| rules.late = true);
                let reading = kit.queue.read_file(&file, 0, &mut vec).to(side);
                let reading = tier.into_iter().fold(reading, |reading, tier| reading.tier(tier)).submit().unwrap();
                served.wait_for_held(1);
                reading.cancel();
                // The pump has seen it: it has done something else since.
                let elsewhere = Scratch::with(&folders()[1], "elsewhere", &bytes(4096, 2));
                let other = kit.context.queue().unwrap();
                let mut tiny = kit.heap().vec_zeroed::<u8>(4096).unwrap();
                other.read_file(&open(&elsewhere.0), 0, &mut tiny).submit().unwrap().wait().unwrap();
                // What is on its way into the page cache is none of the transfer's: who waits for that may go.
                let over = reading.event().is_complete().unwrap();
                assert!(!over || !uncached, "{way:?}, {tier:?}: the kernel still has it");
                drop(vec);
                served.release();
                let error = reading.wait();
                let was_cancelled = matches!(&error, Err(Error::Pager(PagerError::Cancelled { .. })));
                assert!(error.is_ok() || was_cancelled, "{way:?}, {tier:?}: {error:?}");
                let vec = kit.heap().vec_from(&vec![8u8; 2 * LEN]).unwrap();
                file.forget_cache().unwrap();
                drop(file);
                assert!(vec.read().unwrap().iter().all(|byte| *byte == 8), "{way:?}, {tier:?}");
            }
            kit.works();
        }
    });
}

#[test]
fn writes_that_are_cancelled_are_whole_as_far_as_they_say() {
    let _turn = turn("cancelled writes");
    let Some(kit) = FAULTING.kit("cancelled writes", builder()) else { return };
    for folder in folders() {
        for round in 0..12 {
            let scratch = Scratch::with(&folder, "cancelled", &bytes(8 << 20, 1));
            let file = open(&scratch.0);
            let source = kit.heap().vec_from(&bytes(8 << 20, 2)).unwrap();
            let writing = kit.queue.write_file(&source, &file, 0).request_bytes(65536).submit().unwrap();
            wait_until(|| writing.progress().done >= round << 18);
            writing.cancel();
            let written = match writing.wait() {
                Ok(report) => report.arrived,
                Err(_) => arrived(&writing),
            };
            let (found, old, new) = (std::fs::read(&scratch.0).unwrap(), bytes(8 << 20, 1), bytes(8 << 20, 2));
            let written = usize::try_from(written).unwrap();
            assert_eq!(difference(&found[..written], &new[..written]), None, "{folder:?}");
            let pieces = (written.next_multiple_of(4096)..8 << 20).step_by(4096).map(|at| at..at + 4096);
            let torn = pieces
                .clone()
                .find(|piece| found[piece.clone()] != old[piece.clone()] && found[piece.clone()] != new[piece.clone()]);
            assert_eq!(torn, None, "{folder:?}: {written} of {}", found.len());
        }
    }
}

#[test]
fn nothing_is_left_of_what_was_cancelled_or_forgotten() {
    let _turn = turn("nothing left");
    let scratch = Scratch::with(&folders()[0], "left", &bytes(LEN, 1));
    for way in [FAULTING, STAGED] {
        let round = || {
            let Some(kit) = way.kit("nothing left", builder()) else { return false };
            let (from, mut to) = std::io::pipe().unwrap();
            let from = DataFile::from_file(from).unwrap();
            let mut vec = kit.heap().vec_zeroed::<u8>(LEN).unwrap();
            let reads = kit.context.queue_builder().out_of_order().build().unwrap();
            let reading = reads.read_file(&from, 0, &mut vec).submit().unwrap();
            let mut other = kit.heap().vec_zeroed::<u8>(LEN).unwrap();
            let file = open(&scratch.0);
            reads.read_file(&file, 0, &mut other).submit().map(drop).unwrap();
            reads.write_file(&other, &file, 0).submit().map(drop).unwrap();
            // All of the application's, before any data is there. The last of it to go is the end of a pipe.
            drop((vec, other, file, kit));
            drop(reads);
            to.write_all(&bytes(1000, 1)).unwrap();
            wait_until(|| reading.progress().done == 1000);
            reading.cancel();
            arrived(&reading);
            drop((reading, from));
            // Nobody reads there any more.
            while to.write_all(b"x").is_ok() {
                std::thread::yield_now();
            }
            true
        };
        if !round() {
            continue;
        }
        let before = Held::now();
        for _ in 0..3 {
            round();
        }
        wait_until(|| Held::now().within(&before));
    }
    let gone = DataFile::open(scratch.0.with_extension("none")).unwrap_err();
    assert!(matches!(gone, Error::Pager(PagerError::File(error)) if error.kind() == FileErrorKind::NotFound));
}
