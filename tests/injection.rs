//! Every call of the operating system on the path of a move, and every Vulkan call, fails, one kind at a time, under
//! every operation, on each view: a named error or success, no data lost, nothing leaked, nobody hangs, and everything
//! works afterwards.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::builder;
use common::failure::{BLOCK_WORDS, Kit, MIB, turn};
use common::leaks::Held;
use common::views::{ALL, STAGED, Way};
use common::words::{all_are, is_counted};
use limosa::inject::{self, Call, VulkanCall};
use limosa::{DeviceClass, Error, Result, Side, UnifiedVec};
use limosa_shaders::{fill, lookup};

const WORDS: usize = 40 * BLOCK_WORDS;
/// What kernels fill with.
const FILLED: u32 = 0xF111_ED00;

/// What is tried while a call fails. The CPU touches nothing meanwhile: a touch that cannot be served ends the process.
struct Operation {
    name: &'static str,
    run: fn(&Kit, Way, &mut UnifiedVec<u32>) -> Result<()>,
    /// What becomes of the data.
    then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Same,
    /// If it succeeds, all is filled; if not, nothing has changed.
    Filled,
    /// If it fails, what was to be overwritten may be zeros.
    Overwritten,
}

const CONTEXT: &str = "another context";
const OPERATIONS: &[Operation] = &[
    Operation { name: "prefetch to the device", run: |_, _, vec| vec.prefetch_to_device(), then: Then::Same },
    Operation { name: "prefetch to the host", run: |_, _, vec| vec.prefetch_to_host(), then: Then::Same },
    Operation {
        name: "launch that reads",
        run: |kit, _, vec| {
            let mut total = kit.heap().vec_zeroed::<u64>(BLOCK_WORDS)?;
            let launch = kit.queue.launch(&kit.reduce, 64).args((vec.reads(), total.writes(), WORDS as u64));
            // SAFETY: reduce reads the words of `vec` and adds to one of `total`.
            unsafe { launch.submit() }?.wait()
        },
        then: Then::Same,
    },
    Operation { name: "launch that writes", run: |kit, _, vec| kit.fill(vec, FILLED)?.wait(), then: Then::Filled },
    Operation {
        name: "launch that overwrites",
        run: |kit, _, vec| {
            let launch = kit.queue.launch(&kit.fill, WORDS as u64 / fill::ITEMS).args((vec.overwrites(), WORDS as u64));
            // SAFETY: fill replaces every word of `vec`.
            unsafe { launch.args((FILLED, 0u32)).submit() }?.wait()
        },
        then: Then::Overwritten,
    },
    Operation {
        name: "launch that faults",
        run: |kit, way, vec| {
            if way.class == DeviceClass::Declared {
                return Ok(());
            }
            let total = kit.heap().vec_zeroed::<u64>(BLOCK_WORDS)?;
            let launch = kit.queue.launch(&kit.reduce, 64).args((vec.ptr(0), total.ptr(0), WORDS as u64));
            // SAFETY: as above; both are kept, and nobody else uses them.
            unsafe { launch.keeps(vec.raw()).keeps(total.raw()).submit() }?.wait()
        },
        then: Then::Same,
    },
    Operation { name: "allocation", run: |kit, _, _| kit.heap().vec_zeroed::<u32>(WORDS).map(drop), then: Then::Same },
    Operation { name: "pin", run: |_, _, vec| vec.host_pin().map(drop), then: Then::Same },
    Operation {
        name: CONTEXT,
        run: |_, way, _| way.of(builder().heap_size(64 * MIB).device_budget(8 * MIB)).build().map(drop),
        then: Then::Same,
    },
    Operation {
        name: "queue",
        run: |kit, _, _| {
            let queue = kit.context.queue()?;
            // Waits for what it may have submitted.
            queue.wait_idle()
        },
        then: Then::Same,
    },
    Operation {
        name: "kernel",
        run: |kit, _, _| kit.context.kernel(lookup::KERNEL.name, lookup::KERNEL.spirv).map(drop),
        then: Then::Same,
    },
];

/// What fails, until it is dropped.
struct Injected;

impl Injected {
    fn call(call: Call) -> Self {
        inject::fail(call);
        Self
    }

    fn vulkan(call: VulkanCall) -> Self {
        inject::fail_vulkan(call);
        Self
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        inject::clear();
        inject::find_device();
    }
}

fn counted(kit: &Kit) -> UnifiedVec<u32> {
    kit.heap().vec_with(WORDS, |i| u32::try_from(i).unwrap()).unwrap()
}

/// Tries the operation with the data on `from` while `fail` lasts. Gives the error, if there was one.
fn attempt(
    kit: &Kit,
    way: Way,
    operation: &Operation,
    from: Side,
    fail: &dyn Fn() -> Injected,
    what: &str,
) -> Option<Error> {
    let mut vec = counted(kit);
    vec.raw().prefetch(from).unwrap();
    let injected = fail();
    let result = (operation.run)(kit, way, &mut vec);
    drop(injected);
    // What was submitted although nobody could wait for it.
    kit.queue.wait_idle().unwrap();
    if let Err(error) = &result {
        assert!(!error.to_string().is_empty() && !error.is_device_lost(), "{what}: {error}");
    }
    let kept = match operation.then {
        Then::Same => is_counted(&vec),
        Then::Filled | Then::Overwritten if result.is_ok() => all_are(&vec, FILLED),
        // What was submitted may have run, though nobody could wait for it.
        Then::Filled => is_counted(&vec) || all_are(&vec, FILLED),
        // Not to be relied on; but it can be read, and used again.
        Then::Overwritten => {
            vec.write().unwrap().fill(1);
            kit.sum(&vec).unwrap() == WORDS as u64
        }
    };
    assert!(kept, "{what}: {result:?}: data lost");
    assert!(kit.heap().device_bytes() <= kit.heap().device_budget(), "{what}");
    assert!(kit.heap().poisoned().is_empty(), "{what}");
    result.err()
}

/// Tries every operation from both sides.
fn every_operation(kit: &Kit, way: Way, skipped: &str, fail: &dyn Fn() -> Injected, what: &str) -> usize {
    let mut told = 0;
    for operation in OPERATIONS.iter().filter(|operation| operation.name != skipped) {
        for from in [Side::Host, Side::Device] {
            let what = format!("{what}, {}, from {from:?}, {way:?}", operation.name);
            told += usize::from(attempt(kit, way, operation, from, fail, &what).is_some());
        }
    }
    told
}

fn kit(way: Way) -> Option<Kit> {
    way.kit("injection", builder().heap_size(256 * MIB).device_budget(16 * MIB))
}

#[test]
fn every_failing_call_is_told_and_survived() {
    for way in ALL {
        let _turn = turn("injection");
        let Some(kit) = kit(*way) else { return };
        let mut told = 0;
        for call in Call::ALL {
            // The self-test of a new context touches its memory, for which pages must be made and opened.
            let touched = matches!(
                call,
                Call::Open | Call::OpenChunk | Call::Close | Call::Populate | Call::Register | Call::Unregister
            );
            let skipped = if touched { CONTEXT } else { "" };
            told += every_operation(&kit, *way, skipped, &|| Injected::call(call), &format!("{call:?}"));
        }
        assert!(told >= 10, "{told} errors told: the calls are not on the path");
        kit.works();
    }
}

/// Vulkan calls that are on the path of none of the operations with a view.
fn is_unused(call: VulkanCall, way: Way) -> bool {
    match call {
        VulkanCall::HostPointerProperties => way.class == DeviceClass::Declared && way.view == limosa::ViewKind::Sparse,
        VulkanCall::BindSparse => way.view == limosa::ViewKind::Import,
        VulkanCall::MapMemory => way != STAGED,
        // Of profiled queues.
        VulkanCall::CreateQueryPool | VulkanCall::QueryResults | VulkanCall::CalibrateTimestamps => true,
        _ => false,
    }
}

#[test]
fn every_failing_vulkan_call_is_told_and_survived() {
    for way in ALL {
        let _turn = turn(&format!("Vulkan calls, {way:?}"));
        let Some(kit) = kit(*way) else { return };
        let each_call = || {
            for call in VulkanCall::ALL {
                let told = every_operation(&kit, *way, "", &|| Injected::vulkan(*call), &format!("{call:?}"));
                assert_eq!(told > 0, !is_unused(*call, *way), "{call:?}, {way:?}: whether it is on the path");
                kit.works();
            }
        };
        // Once before: what a driver and a heap keep for later use is kept then.
        each_call();
        let before = Held::now();
        each_call();
        let after = Held::now();
        assert!(after.within(&before), "{way:?}: {before:?} and then {after:?}");
    }
}
