//! Every call of the operating system on the path of a move fails, one kind at a time, under every operation: a named
//! error or success, no data lost, nothing leaked, nobody hangs, and everything works afterwards.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::builder;
use common::failure::{BLOCK_WORDS, Kit, turn};
use limosa::inject::{self, Call};
use limosa::{DeviceClass, Result, Side, UnifiedVec};

const WORDS: usize = 40 * BLOCK_WORDS;

/// What is tried while a call fails. The CPU touches nothing meanwhile: a touch that cannot be served ends the process.
type Operation = fn(&Kit, &mut UnifiedVec<u32>) -> Result<()>;
const OPERATIONS: [(&str, Operation); 6] = [
    ("prefetch to the device", |_, vec| vec.prefetch_to_device()),
    ("prefetch to the host", |_, vec| vec.prefetch_to_host()),
    ("launch that reads", |kit, vec| {
        let mut total = kit.heap().vec_zeroed::<u64>(BLOCK_WORDS)?;
        let launch = kit.queue.launch(&kit.reduce, 64).reads(vec).writes(&mut total).value(WORDS as u64);
        // SAFETY: reduce reads the words of `vec` and adds to one of `total`.
        unsafe { launch.submit() }?.wait()
    }),
    ("launch that faults", |kit, vec| {
        let total = kit.heap().vec_zeroed::<u64>(BLOCK_WORDS)?;
        let launch = kit.queue.launch(&kit.reduce, 64).value(vec.ptr(0)).value(total.ptr(0)).value(WORDS as u64);
        // SAFETY: as above; both are kept, and nobody else uses them.
        unsafe { launch.keeps(vec.raw()).keeps(total.raw()).submit() }?.wait()
    }),
    ("allocation", |kit, _| kit.heap().vec_zeroed::<u32>(WORDS).map(drop)),
    ("pin", |_, vec| vec.host_pin().map(drop)),
];

struct Injected;

impl Injected {
    fn new(call: Call) -> Self {
        inject::fail(call);
        Self
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        inject::clear();
    }
}

#[test]
fn every_failing_call_is_told_and_survived() {
    let _turn = turn("injection");
    for class in [DeviceClass::Faulting, DeviceClass::Declared] {
        let Some(kit) = Kit::new("injection", builder().device_class(class).device_budget(16 << 20)) else { return };
        let mut vec = kit.heap().vec_with(WORDS, |i| u32::try_from(i).unwrap()).unwrap();
        let (mut told, device) = (0, kit.heap().device_budget());
        for call in Call::ALL {
            for (name, operation) in OPERATIONS {
                if class == DeviceClass::Declared && name == "launch that faults" {
                    continue;
                }
                for from in [Side::Host, Side::Device] {
                    vec.raw().prefetch(from).unwrap();
                    let injected = Injected::new(call);
                    let result = operation(&kit, &mut vec);
                    drop(injected);
                    if let Err(error) = result {
                        told += 1;
                        assert!(!error.to_string().is_empty(), "{call:?}, {name}");
                    }
                    let wrong = vec.read().unwrap().iter().copied().zip(0u32..).find(|(word, i)| word != i);
                    assert_eq!(wrong, None, "{class:?}, {call:?}, {name}, from {from:?}");
                    assert!(kit.heap().device_bytes() <= device);
                }
            }
        }
        assert!(told >= 10, "{told} errors told: the calls are not on the path");
        drop(vec);
        kit.works();
    }
}
