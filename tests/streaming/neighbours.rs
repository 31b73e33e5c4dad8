//! Transfers beside everything else that uses memory: launches before and behind them, the CPU's touches, other transfers
//! in the same block, a lost device, files that go.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use limosa::{DataFile, Error, Home, PagerError, Side, UnifiedVec, inject};

use crate::common::builder;
use crate::common::failure::{BLOCK_WORDS, Kit, turn};
use crate::common::gate::Gate;
use crate::common::mounts::with_own_mounts;
use crate::common::views::{ALL, BESIDE_KERNELS, FAULTING, STAGED};
use crate::common::words::wait_until;
use crate::files::{Scratch, byte, bytes, difference, folders, open};
use crate::served::Served;

const LEN: usize = 1 << 20;

fn pipe() -> (DataFile, std::io::PipeWriter) {
    let (from, to) = std::io::pipe().unwrap();
    (DataFile::from_file(from).unwrap(), to)
}

/// Three allocations of so many bytes in one block; the first, second and third contain bytes of seeds 3, 4 and 5.
fn in_one_block(kit: &Kit, len: usize) -> [UnifiedVec<u8>; 3] {
    loop {
        let some = [3, 4, 5].map(|seed| kit.heap().vec_from(&bytes(len, seed)).unwrap());
        let ends = some.iter().flat_map(|vec| [vec.ptr(0).address() >> 16, vec.ptr(len - 1).address() >> 16]);
        let blocks: Vec<u64> = ends.collect();
        if blocks.iter().all(|block| *block == blocks[0]) {
            return some;
        }
        // Of a block that has not room for all, the rest is not given again.
        std::mem::forget(some);
    }
}

#[test]
fn a_queue_may_go_while_its_transfer_waits_for_a_pipe() {
    let _turn = turn("queue gone");
    for way in ALL {
        let Some(kit) = way.kit("queue gone", builder()) else { continue };
        let (from, mut to) = pipe();
        let mut vec = kit.heap().vec_zeroed::<u8>(1000).unwrap();
        let queue = kit.context.queue().unwrap();
        let reading = queue.read_file(&from, 0, &mut vec).submit().unwrap();
        let behind = queue.marker([]).unwrap();
        drop(queue);
        to.write_all(&bytes(1000, 1)).unwrap();
        reading.wait().unwrap();
        behind.wait().unwrap();
        assert_eq!(difference(&vec.read().unwrap(), &bytes(1000, 1)), None);
    }
}

#[test]
fn a_file_that_is_dropped_is_closed() {
    let _turn = turn("closed");
    let Some(kit) = FAULTING.kit("closed", builder()) else { return };
    let name = |path: &std::path::Path| format!("{} (deleted)", path.display());
    let is_open = |name: &str| {
        let mut links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        links.any(|link| std::fs::read_link(link.path()).is_ok_and(|path| path.to_string_lossy() == name))
    };
    for folder in folders() {
        let scratch = Scratch::with(&folder, "closed", &bytes(LEN, 1));
        let file = open(&scratch.0);
        let mut vec = kit.heap().vec_zeroed::<u8>(LEN).unwrap();
        kit.queue.read_file(&file, 0, &mut vec).submit().unwrap().wait().unwrap();
        std::fs::remove_file(&scratch.0).unwrap();
        assert!(is_open(&name(&scratch.0)));
        drop(file);
        assert!(!is_open(&name(&scratch.0)), "by a descriptor");
    }
    // The ring has files of its own, in no table: whoever reads from a pipe sees them.
    let (mut from, to) = std::io::pipe().unwrap();
    let to = DataFile::from_file(to).unwrap();
    let vec = kit.heap().vec_from(&bytes(1000, 1)).unwrap();
    kit.queue.write_file(&vec, &to, 0).submit().unwrap().wait().unwrap();
    drop(to);
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut from, &mut read).unwrap();
    assert_eq!(read, bytes(1000, 1));
}

#[test]
fn one_batch_may_read_into_and_write_from_one_block() {
    let _turn = turn("one block");
    let scratch = |name, seed| Scratch::with(&folders()[0], name, &bytes(5000, seed));
    for way in ALL {
        let Some(kit) = way.kit("one block", builder()) else { continue };
        let befores = [None, Some(Side::Host), Some(Side::Device)];
        for (side, before) in
            [Side::Host, Side::Device].into_iter().flat_map(|side| befores.map(|before| (side, before)))
        {
            let what = format!("{way:?}, to {side:?}, before {before:?}");
            let (source, sink) = (scratch("source", 1), scratch("sink", 2));
            let (from, to) = (open(&source.0), open(&sink.0));
            let [written, mut read, neighbour] = in_one_block(&kit, 5000);
            if let Some(before) = before {
                neighbour.raw().prefetch(before).unwrap();
                // Current on both sides, if on the device.
                assert_eq!(neighbour.read().unwrap()[0], byte(0, 5));
            }
            let batch = kit.queue.transfers().write(&written, &to, 0).read(&from, 0, &mut read).to(side);
            assert_eq!(batch.submit().unwrap().wait().unwrap().arrived, 10_000, "{what}");
            for round in 0..2 {
                for (vec, seed) in [(&written, 3), (&read, 1), (&neighbour, 5)] {
                    assert_eq!(difference(&vec.read().unwrap(), &bytes(5000, seed)), None, "{what}, {seed}, {round}");
                }
                // The same when the CPU's copy is made anew.
                read.prefetch_to_device().unwrap();
                read.write().unwrap()[0] = byte(0, 1);
            }
            assert_eq!(difference(&std::fs::read(&sink.0).unwrap(), &bytes(5000, 3)), None, "{what}");
        }
    }
}

#[test]
fn small_allocations_of_one_block_do_not_disturb_each_other() {
    let _turn = turn("small");
    for way in ALL {
        let Some(kit) = way.kit("small", builder()) else { continue };
        let scratch = Scratch::with(&folders()[0], "small", &bytes(40 * 5000, 1));
        let file = open(&scratch.0);
        let reads = kit.context.queue_builder().out_of_order().build().unwrap();
        let mut small: Vec<_> = (0..40).map(|_| kit.heap().vec_from(&[9u8; 5000]).unwrap()).collect();
        for (index, side) in [None, Some(Side::Host), Some(Side::Device), None].into_iter().enumerate() {
            let transfers: Vec<_> = small
                .iter_mut()
                .zip(0..)
                .filter(|(_, i)| i % 4 == index)
                .map(|(vec, i)| {
                    let reading = reads.read_file(&file, i as u64 * 5000, vec);
                    side.into_iter().fold(reading, |reading, side| reading.to(side)).submit().unwrap()
                })
                .collect();
            // Some of the block's other bytes, meanwhile.
            for (i, vec) in small.iter_mut().enumerate().filter(|(i, _)| i % 4 > index) {
                let mut guard = vec.write().unwrap();
                guard[0] = 9;
                assert!(guard.iter().all(|byte| *byte == 9), "{way:?}, {i}");
            }
            transfers.iter().for_each(|transfer| assert_eq!(transfer.wait().unwrap().arrived, 5000));
        }
        for (i, vec) in small.iter().enumerate() {
            let expected: Vec<u8> = (i * 5000..(i + 1) * 5000).map(|at| byte(at, 1)).collect();
            assert_eq!(difference(&vec.read().unwrap(), &expected), None, "{way:?}, {i}");
        }
    }
}

#[test]
fn launches_and_transfers_wait_for_each_other_where_they_must() {
    let _turn = turn("order");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("order", builder()) else { continue };
        let other = kit.context.queue().unwrap();
        let scratch = Scratch::with(&folders()[0], "order", &vec![1; 4 * BLOCK_WORDS]);
        let file = open(&scratch.0);
        let mut vec = kit.heap().vec_zeroed::<u32>(BLOCK_WORDS).unwrap();
        for side in [Side::Host, Side::Device] {
            // Behind a kernel that has not begun, as its queue is busy.
            let gate = Gate::close(&kit, &kit.queue);
            let filled = kit.fill(&mut vec, 7).unwrap();
            let writing = other.write_file(&vec, &file, 0).submit().unwrap();
            let reading = other.read_file(&file, 0, &mut vec).to(side).submit().unwrap();
            assert!(gate.is_closed() && !filled.is_complete().unwrap() && !writing.event().is_complete().unwrap());
            // Its own queue, in order: what is on it waits, too; one that is elsewhere does not.
            let mut apart = kit.heap().vec_zeroed::<u8>(1000).unwrap();
            let own = kit.queue.read_file(&file, 0, &mut apart).submit().unwrap();
            assert!(!own.event().is_complete().unwrap());
            gate.open();
            writing.wait().unwrap();
            assert!(filled.is_complete().unwrap());
            reading.wait().unwrap();
            own.wait().unwrap();
            assert!(vec.read().unwrap().iter().all(|word| *word == 7));
            assert_eq!(kit.sum(&vec).unwrap(), 7 * BLOCK_WORDS as u64);

            // Before a kernel: it waits for what comes through a pipe, and so does the CPU.
            let (from, mut to) = pipe();
            let reading = other.read_file(&from, 0, &mut vec).to(side).submit().unwrap();
            let filled = kit.fill(&mut vec, 3).unwrap();
            let after = kit.queue.marker([&filled]).unwrap();
            to.write_all(&vec![2; 2 * BLOCK_WORDS]).unwrap();
            wait_until(|| reading.progress().done == 2 * BLOCK_WORDS as u64);
            assert!(!reading.event().is_complete().unwrap() && !filled.is_complete().unwrap());
            assert!(!after.is_complete().unwrap());
            let called = Arc::new(AtomicU64::new(0));
            let (tell, told) = mpsc::channel();
            let counter = Arc::clone(&called);
            reading
                .event()
                .on_complete(move |result| {
                    counter.fetch_add(u64::from(result.is_ok()), Ordering::SeqCst);
                    let _ = tell.send(());
                })
                .unwrap();
            to.write_all(&vec![2; 2 * BLOCK_WORDS]).unwrap();
            told.recv().unwrap();
            assert_eq!(called.load(Ordering::SeqCst), 1);
            filled.wait().unwrap();
            assert!(reading.event().is_complete().unwrap());
            assert!(vec.read().unwrap().iter().all(|word| *word == 3), "{way:?}: the launch came last");
        }
    }
}

#[test]
fn what_is_for_the_device_waits_for_what_is_pinned_in_the_same_block() {
    let _turn = turn("pins");
    for way in ALL {
        let Some(kit) = way.kit("pins", builder()) else { continue };
        let scratch = Scratch::with(&folders()[0], "pins", &bytes(LEN, 1));
        let file = open(&scratch.0);
        let [mut piped, mut read, mut apart] = in_one_block(&kit, 1000);
        let (from, mut to) = pipe();
        let (one, two) = (kit.context.queue().unwrap(), kit.context.queue().unwrap());
        let pinning = kit.queue.read_file(&from, 0, &mut piped).to(Side::Host).submit().unwrap();
        let waiting = one.read_file(&file, 0, &mut read).to(Side::Device).submit().unwrap();
        // To the host it need not wait: pins do not keep each other out, nor the CPU.
        two.read_file(&file, 7, &mut apart).to(Side::Host).submit().unwrap().wait().unwrap();
        assert_eq!(difference(&apart.read().unwrap(), &bytes(2000, 1)[7..1007]), None);
        assert!(!pinning.event().is_complete().unwrap() && !waiting.event().is_complete().unwrap());
        to.write_all(&bytes(1000, 2)).unwrap();
        waiting.wait().unwrap();
        pinning.wait().unwrap();
        assert_eq!(difference(&read.read().unwrap(), &bytes(1000, 1)), None);
        assert_eq!(difference(&piped.read().unwrap(), &bytes(1000, 2)), None);
        kit.works();
    }
}

#[test]
fn a_device_that_is_lost_meanwhile_ends_what_was_for_it() {
    let _turn = turn("lost meanwhile");
    for way in ALL {
        for side in [Side::Host, Side::Device] {
            let Some(kit) = way.kit("lost meanwhile", builder()) else { continue };
            let other = kit.context.queue().unwrap();
            let (from, mut to) = pipe();
            let mut vec = kit.heap().vec_from(&vec![9u8; LEN]).unwrap();
            let mut queued = kit.heap().vec_from(&vec![9u8; LEN]).unwrap();
            let reading = kit.queue.read_file(&from, 0, &mut vec).to(side).submit().unwrap();
            let behind = kit.queue.read_file(&from, 0, &mut queued).submit().unwrap();
            // What is left fits into the pipe: where copies fail, nobody may come for it.
            to.write_all(&bytes(LEN - 50_000, 1)).unwrap();
            wait_until(|| reading.progress().done == LEN as u64 - 50_000);
            let mut words = kit.heap().vec_zeroed::<u32>(10).unwrap();
            inject::lose_device();
            let lost = |result: limosa::Result<()>| {
                let error = result.err().unwrap_or_else(|| panic!("{way:?}: the device is lost"));
                assert!(error.is_device_lost(), "{error:?}");
            };
            lost(kit.fill_on(&other, &mut words, 1).and_then(|event| event.wait()));
            // What was queued does not happen; what the kernel has is waited for.
            lost(behind.wait().map(drop));
            assert!(!reading.event().is_complete().unwrap());
            to.write_all(&bytes(LEN, 1)[LEN - 50_000..]).unwrap();
            let result = reading.wait().map(drop);
            inject::find_device();
            match side {
                Side::Host => {
                    result.unwrap();
                    assert_eq!(difference(&vec.read().unwrap(), &bytes(LEN, 1)), None, "{way:?}");
                }
                Side::Device => {
                    lost(result);
                    assert!(matches!(vec.read().map(drop).unwrap_err(), Error::Pager(PagerError::Poisoned { .. })));
                    let range = kit.heap().poisoned()[0];
                    kit.heap().repair(range.start.0, range.len).unwrap();
                    assert!(vec.read().unwrap().iter().all(|byte| *byte == 0), "{way:?}");
                    vec.write().unwrap().fill(5);
                }
            }
            assert!(queued.read().unwrap().iter().all(|byte| *byte == 9));
            lost(kit.queue.read_file(&from, 0, &mut queued).submit().map(drop));
            drop(words);
        }
    }
}

#[test]
fn shared_memory_is_read_into_at_once_where_it_is() {
    let _turn = turn("shared at once");
    let scratch = Scratch::with(&folders()[0], "shared", &bytes(LEN, 1));
    for way in ALL {
        let Some(kit) = way.kit("shared at once", builder()) else { continue };
        let file = open(&scratch.0);
        let mut vec = kit.heap().in_home(Home::Shared).vec_zeroed::<u8>(LEN).unwrap();
        // The first goes through a queue, which finds out that direct I/O serves.
        for _ in 0..2 {
            vec.write().unwrap().fill(0);
            file.read_into(0, vec.slice_mut(0..LEN / 2).unwrap()).unwrap();
            assert_eq!(difference(&vec.read().unwrap()[..LEN / 2], &bytes(LEN / 2, 1)), None, "{way:?}");
            file.read_into(0, vec.slice_mut(0..LEN).unwrap()).unwrap();
            assert_eq!(difference(&vec.read().unwrap(), &bytes(LEN, 1)), None, "{way:?}");
            file.forget_cache().unwrap();
        }
    }
}

#[test]
fn one_file_that_does_not_answer_does_not_hold_up_others() {
    let _turn = turn("held up");
    let test = "neighbours::one_file_that_does_not_answer_does_not_hold_up_others";
    with_own_mounts(test, |folder| {
        for way in [FAULTING, STAGED] {
            let Some(kit) = way.kit(test, builder()) else { continue };
            let Some(served) = Served::with(test, folder, true, bytes(64 << 20, 1)) else { return };
            let file = DataFile::open(served.path()).unwrap();
            let mut vec = kit.heap().vec_zeroed::<u8>(64 << 20).unwrap();
            for known in [false, true] {
                // As many requests as it may have, or the one with which direct I/O is tried.
                if known {
                    kit.queue.read_file(&file, 0, vec.slice_mut(0..65536).unwrap()).submit().unwrap().wait().unwrap();
                }
                served.set(|rules| rules.late = true);
                let late = kit.queue.read_file(&file, 0, &mut vec).submit().unwrap();
                served.wait_for_held(if known { 8 } else { 1 });
                let other = kit.context.queue().unwrap();
                for place in folders() {
                    let scratch = Scratch::with(&place, "prompt", &bytes(4 << 20, 2));
                    let mut vec = kit.heap().vec_zeroed::<u8>(4 << 20).unwrap();
                    other
                        .read_file(&open(&scratch.0), 1, vec.slice_mut(0..3 << 20).unwrap())
                        .submit()
                        .unwrap()
                        .wait()
                        .unwrap();
                    assert_eq!(vec.read().unwrap()[7], byte(8, 2));
                }
                assert!(!late.event().is_complete().unwrap());
                served.release();
                late.wait().unwrap();
                assert_eq!(difference(&vec.read().unwrap(), &bytes(64 << 20, 1)), None);
            }
        }
    });
}
