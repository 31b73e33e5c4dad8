//! Every call of the operating system and of Vulkan fails, one kind at a time, under every transfer, from its first on: it
//! ends, with a named error or all of its data, nothing is lost or left behind, and afterwards everything works.

use limosa::inject::{self, Call, VulkanCall};
use limosa::{DataFile, Result, Side, UnifiedVec};

use crate::common::builder;
use crate::common::failure::{Kit, turn};
use crate::common::leaks::Held;
use crate::common::views::{ALL, FAULTING, STAGED, Way};
use crate::common::words::wait_until;
use crate::files::{Scratch, byte, bytes, folders, open};

const LEN: usize = (1 << 20) + 5000;

/// A transfer of all of some memory, or of parts of it.
type Operation = fn(&Kit, &DataFile, &mut UnifiedVec<u8>) -> Result<()>;

const OPERATIONS: [(&str, bool, Operation); 5] = [
    ("read to the device", false, |kit, file, vec| {
        kit.queue.read_file(file, 0, vec).to(Side::Device).submit()?.wait().map(drop)
    }),
    ("read to the host", false, |kit, file, vec| {
        kit.queue.read_file(file, 0, vec).to(Side::Host).submit()?.wait().map(drop)
    }),
    ("read at once", false, |_, file, vec| file.read_into(0, vec).map(drop)),
    ("read in parts", false, |kit, file, vec| {
        let (one, two) = vec.slice_mut(0..LEN)?.split_at(65536)?;
        kit.queue.transfers().read(file, 0, one).read(file, 65536, two).submit()?.wait().map(drop)
    }),
    ("write", true, |kit, file, vec| kit.queue.write_file(&*vec, file, 0).submit()?.wait().map(drop)),
];

/// Has `fail` happen under each transfer, the first of which is the first of its context. Gives how many told of it.
fn under_each(way: Way, what: &str, fail: impl Fn()) -> usize {
    let Some(kit) = way.kit("injected", builder().heap_size(256 << 20).device_budget(16 << 20)) else { return 0 };
    let mut told = 0;
    let scratch = Scratch::with(&folders()[0], "injected", &bytes(LEN, 1));
    for (name, to_file, operation) in OPERATIONS {
        for from in [None, Some(Side::Device)] {
            let what = format!("{what}, {name}, {from:?}, {way:?}");
            if to_file {
                std::fs::write(&scratch.0, bytes(LEN, 1)).unwrap();
            }
            let file = open(&scratch.0);
            let mut vec = kit.heap().vec_zeroed::<u8>(LEN).unwrap();
            if let Some(side) = from {
                vec.write().unwrap().fill(9);
                vec.raw().prefetch(side).unwrap();
            }
            fail();
            let result = operation(&kit, &file, &mut vec);
            inject::clear();
            inject::find_device();
            // Dropped queues may have left something that nobody could wait for.
            kit.queue.wait_idle().unwrap();
            let old = if from.is_some() { 9 } else { 0 };
            let whole = result.is_ok();
            let found = if to_file { std::fs::read(&scratch.0).unwrap() } else { vec.read().unwrap().to_vec() };
            let wrong = (0..LEN).find(|&i| {
                let (before, after) = if to_file { (byte(i, 1), old) } else { (old, byte(i, 1)) };
                found[i] != after && (whole || found[i] != before)
            });
            assert_eq!(wrong, None, "{what}: {result:?}");
            if let Err(error) = result {
                assert!(!error.to_string().is_empty() && !error.is_device_lost(), "{what}: {error}");
                told += 1;
            }
            assert!(kit.heap().poisoned().is_empty(), "{what}");
            operation(&kit, &file, &mut vec).unwrap_or_else(|error| panic!("{what}, afterwards: {error}"));
        }
    }
    kit.works();
    told
}

#[test]
fn failing_calls_of_the_operating_system_are_told_and_survived() {
    for way in ALL {
        let mut told = 0;
        for call in Call::ALL {
            let _turn = turn(&format!("{call:?}, {way:?}"));
            let own = under_each(*way, &format!("{call:?}"), || inject::fail(call));
            // Without io_uring transfers go by threads; without room for requests they cannot.
            match call {
                Call::Ring => assert_eq!(own, 0, "{way:?}"),
                Call::Push => assert!(own > 0, "{call:?} is not on the path, {way:?}"),
                _ => {}
            }
            told += own;
        }
        assert!(told > 8, "{told} told, {way:?}");
    }
}

#[test]
fn failing_calls_of_vulkan_are_told_and_survived() {
    for way in [FAULTING, STAGED] {
        for call in VulkanCall::ALL {
            let _turn = turn(&format!("{call:?}, {way:?}"));
            under_each(way, &format!("{call:?}"), || inject::fail_vulkan(*call));
        }
    }
}

#[test]
fn failures_leave_nothing_behind() {
    for way in [FAULTING, STAGED] {
        let _turn = turn("nothing behind");
        let each = || {
            for call in [Call::Ring, Call::Push, Call::Populate] {
                under_each(way, &format!("{call:?}"), || inject::fail(call));
            }
        };
        each();
        let before = Held::now();
        each();
        // Threads that nobody needs end after a while.
        wait_until(|| Held::now().within(&before));
    }
}
