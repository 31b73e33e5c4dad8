//! A kernel that runs until it is let through, on every view and class: the device is kept busy for as long as a test
//! likes, and nobody waits by the clock. It does *not* say when launches behind it are admitted.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::sync::Arc;

use limosa::{Access, DeviceClass, Event, GpuPtr, Queue, RawAllocation, Translation};
use limosa_shaders::lookup;

use super::failure::{BLOCK, Kit};
use super::words::wait_until;

/// It looks a key up in a tree that is a ring.
pub struct Gate {
    _memory: Arc<RawAllocation>,
    /// The same where the device sees it, so that opening asks nothing of the host's side, also after a loss.
    at_device: GpuPtr<u8>,
    event: Event,
}

/// In the gate's block: two nodes (key, value, left, right), then the key to look for, then what was found.
const NODES: [u64; 2] = [0, 32];
const KEY: u64 = 64;
const FOUND: u64 = 72;
const WANTED: u64 = 7;

impl Gate {
    pub fn close(kit: &Kit, queue: &Queue) -> Self {
        let kernel = kit.context.kernel(lookup::KERNEL.name, lookup::KERNEL.spirv).unwrap();
        let memory = kit.heap().allocate(BLOCK, BLOCK).unwrap();
        let base = memory.ptr();
        let put = |at: u64, value: u64| {
            // SAFETY: inside the block, of which nobody else knows yet.
            unsafe { base.add(at).as_ptr().cast::<u64>().write(value) };
        };
        for (node, other) in [(NODES[0], NODES[1]), (NODES[1], NODES[0])] {
            let next = base.add(other).address();
            [1, 0, next, next].into_iter().zip(0..).for_each(|(word, i)| put(node + 8 * i, word));
        }
        put(KEY, WANTED);
        // There before the kernel is, so that no fault of the gate's own is counted later.
        memory.prefetch(limosa::Side::Device).unwrap();
        let launch = queue.launch(&kernel, 1).args((base.add(NODES[0]), base.add(KEY)));
        let launch = launch.args((base.add(FOUND), 1u64, 0u64));
        let launch = match kit.context.device_class() {
            DeviceClass::Faulting => launch.keeps(&memory),
            DeviceClass::Declared => launch.with_raw(&memory, Access::Write),
        };
        // SAFETY: lookup touches the block only, which is kept; the CPU's store below is one aligned word.
        let event = unsafe { launch.submit() }.unwrap();
        let at_device = GpuPtr::from_address(at_device(kit.context.translation(), base.address()));
        // What is bound is there only when the device has got to it, and the block may have been at home elsewhere.
        wait_until(|| word(at_device.add(KEY).address()) == Some(WANTED));
        Self { _memory: memory, at_device, event }
    }

    /// Lets the kernel end.
    pub fn open(&self) {
        for node in NODES {
            // SAFETY: an aligned word inside the block, which is this gate's to order and kept by it.
            unsafe { self.at_device.add(node).as_ptr().cast::<u64>().write_volatile(WANTED) };
        }
    }

    pub fn is_closed(&self) -> bool {
        !self.event.is_complete().unwrap()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Also when a test fails, so that it ends.
        self.open();
    }
}

/// Where a software device sees what the CPU has at `address`: somewhere else in this process.
fn at_device(translation: Translation, address: u64) -> u64 {
    match translation {
        Translation::Identity => address,
        Translation::Delta(delta) => address.wrapping_add(delta),
        Translation::Table(table) => {
            let read = |index: u64| word(table.0 + 8 * index).unwrap();
            address.wrapping_add(read(2 + ((address - read(0)) >> read(1))))
        }
    }
}

/// The word at an address of this process's at which nothing need be mapped.
fn word(address: u64) -> Option<u64> {
    let mut word = 0u64;
    let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: 8 };
    // SAFETY: the kernel checks the remote range; the local one is a variable of ours.
    let done = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    (done == 8).then_some(word)
}
