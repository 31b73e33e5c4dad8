//! Unified memory in the device's: one memory for the CPU, for lavapipe as the GPU, and for the disk, which reads and writes
//! it without system RAM.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use common::child::{Child, signal_of};
use common::files::{buffered, contents, direct, disk, put};
use common::memory::PAGE;
use common::peer::{errno, forget, host_has, traced, transfer_at, way, went_straight};
use common::unified::{FAULT_MODES, Unified, data_file};
use common::{device, freed_to, open, until};
use limosa::{Error, OsError, PagerError, PeerChoice, PeerProvider, Tier};
use limosa_guest::device::{Device, list};
use limosa_guest::trace::Tally;

const PAGES: usize = 700;
const BYTES: usize = PAGES * PAGE;
const WORDS: usize = BYTES / 4;

fn lacks(result: limosa::Result<impl Sized>) -> String {
    match result.map(drop) {
        Err(Error::Pager(PagerError::Os(error @ OsError::NoPeerMemory { .. }))) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_disk_the_gpu_and_the_cpu_have_one_memory() {
    let shim = device();
    let before = shim.info().unwrap();
    let Some(kit) = Unified::new("homes::the_disk_the_gpu_and_the_cpu_have_one_memory", |builder| builder) else {
        return;
    };
    put(&disk(), PAGES, 1);
    let file = direct(&disk());
    let mut vec = kit.device_heap().vec_zeroed::<u32>(WORDS).unwrap();
    let address = list().unwrap()[0].address.clone();
    assert_eq!(vec.raw().peer_provider(), Some(PeerProvider::Shim { number: 0, address: Some(address) }));
    assert_eq!(shim.info().unwrap().private.free, before.private.free - (BYTES as u64).next_multiple_of(64 << 10));
    assert!(vec.read().unwrap().iter().all(|word| *word == 0), "new memory");

    // disk → device → GPU
    forget();
    let at = vec.raw().ptr().as_ptr();
    let (got, commands) = traced(|| transfer_at(&file, at, BYTES, 0, false));
    assert_eq!(got.unwrap(), BYTES);
    went_straight(&commands, BYTES);
    host_has(&commands, PAGES, 1);
    let words: Vec<u32> =
        contents(PAGES, 1).chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
    assert_eq!(kit.sum(&vec), words.iter().map(|word| u64::from(*word)).sum::<u64>());
    // … → CPU
    assert!(vec.read().unwrap()[..] == words[..]);

    // GPU → device → disk
    kit.fill(&mut vec, 0x5eed_f00d);
    forget();
    let (put, commands) = traced(|| transfer_at(&file, at, BYTES, 0, true));
    assert_eq!(put.unwrap(), BYTES);
    assert_eq!(way(&commands, true), Tally { inside: BYTES as u64, outside: 0 });
    let mut bytes = vec![0; BYTES];
    std::os::unix::fs::FileExt::read_exact_at(&buffered(&disk()), &mut bytes, 0).unwrap();
    assert!(bytes.chunks(4).all(|word| word == 0x5eed_f00du32.to_ne_bytes()));

    drop((vec, kit));
    freed_to(&shim, &before);
}

#[test]
fn what_migrates_goes_through_system_memory() {
    let Some(kit) = Unified::new("homes::what_migrates_goes_through_system_memory", |builder| builder) else { return };
    put(&disk(), PAGES, 2);
    let mut vec = kit.context.heap().vec_zeroed::<u32>(WORDS).unwrap();
    let at = vec.raw().ptr().as_ptr();
    let _pin = vec.host_pin().unwrap();
    let file = direct(&disk());
    let (got, commands) = traced(|| transfer_at(&file, at, BYTES, 0, false));
    assert_eq!(got.unwrap(), BYTES);
    assert_eq!(way(&commands, false), Tally { inside: 0, outside: BYTES as u64 });
}

#[test]
fn the_devices_memory_runs_out_and_comes_back() {
    let shim = open(1);
    let before = shim.info().unwrap();
    let choose = |builder: limosa::ContextBuilder| builder.peer_memory(PeerChoice::Shim(1));
    let Some(kit) = Unified::new("homes::the_devices_memory_runs_out_and_comes_back", choose) else { return };
    let heap = kit.device_heap();
    let half = usize::try_from(before.private.free / 2).unwrap();
    let mut kept = vec![heap.vec_zeroed::<u8>(half).unwrap()];
    kept.push(heap.vec_zeroed::<u8>(half / 2).unwrap());
    let error = lacks(heap.vec_zeroed::<u8>(half));
    assert!(error.contains("/dev/limosa1") && error.contains("full"), "{error}");
    kept.clear();
    freed_to(&shim, &before);
    let mut again = heap.vec_zeroed::<u32>(half / 64).unwrap();
    kit.fill(&mut again, 3);
    assert_eq!(kit.sum(&again), 3 * (half as u64 / 64));
}

#[test]
fn a_child_does_not_have_it() {
    let Some(kit) = Unified::new("homes::a_child_does_not_have_it", |builder| builder) else { return };
    let vec = kit.device_heap().vec_with(WORDS, |i| u32::try_from(i).unwrap()).unwrap();
    let first = vec.ptr(0).as_ptr();
    // SAFETY: mapped here; in the child it is not, which is what is asked.
    assert_eq!(signal_of(|| assert_eq!(unsafe { first.read_volatile() }, 0)), Some(libc::SIGSEGV));
    assert_eq!(vec.read().unwrap()[WORDS - 1], u32::try_from(WORDS - 1).unwrap());
}

/// The second device, bound again in the end.
struct Second(Device);

impl Second {
    fn unbound() -> Self {
        let second = list().unwrap().swap_remove(1);
        second.unbind().unwrap();
        Self(second)
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.0.bind("limosa").unwrap();
    }
}

#[test]
fn a_stream_whose_device_goes_ends_with_an_error() {
    let test = "homes::a_stream_whose_device_goes_ends_with_an_error";
    let Some(kit) = Unified::new(test, |builder| builder.peer_memory(PeerChoice::Shim(1))) else { return };
    put(&disk(), PAGES, 4);
    let file = data_file(&disk());
    let mut vec = kit.device_heap().vec_zeroed::<u32>(WORDS).unwrap();
    let mut other = kit.context.heap().vec_zeroed::<u32>(WORDS).unwrap();
    assert_eq!(kit.read(&file, &mut vec).tier(), Some(Tier::P2p));
    let begun = AtomicU32::new(0);
    let unbound = std::thread::scope(|scope| {
        let streaming = scope.spawn(|| {
            loop {
                let read = kit.queue.read_file(&file, 0, &mut vec).submit().unwrap();
                begun.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = read.wait() {
                    return error.to_string();
                }
            }
        });
        until("some were read", || begun.load(Ordering::Relaxed) > 3);
        let unbound = Second::unbound();
        // By the device's word, or by the kernel's that met it first.
        let error = streaming.join().unwrap();
        assert!(error.contains("the device is gone") || error.contains("do not reach that memory"), "{error}");
        unbound
    });
    let error = kit.queue.write_file(&vec, &file, 0).submit().unwrap().wait().unwrap_err().to_string();
    assert!(error.contains("the device is gone"), "{error}");
    // The queue goes on.
    assert_eq!(kit.read(&file, &mut other).bytes, BYTES as u64);
    drop((vec, unbound));
}

#[test]
fn when_the_driver_is_unbound_the_memory_is_gone_and_the_rest_goes_on() {
    let test = "homes::when_the_driver_is_unbound_the_memory_is_gone_and_the_rest_goes_on";
    for mode in FAULT_MODES {
        let kit = || Unified::new(test, |builder| builder.peer_memory(PeerChoice::Shim(1)).fault_mode(mode));
        // Nobody forks a process that has a context.
        let mut child = Child::start(|parent| {
            let kit = kit().unwrap();
            let mut vec = kit.device_heap().vec_zeroed::<u32>(WORDS).unwrap();
            kit.fill(&mut vec, 7);
            parent.tell();
            parent.wait();
            assert_eq!(kit.sum(&kit.context.heap().vec_with(WORDS, |_| 2u32).unwrap()), 2 * WORDS as u64);
            parent.tell();
            std::hint::black_box(vec.read().unwrap().iter().sum::<u32>());
        });
        child.wait();
        let unbound = Second::unbound();
        child.tell();
        child.wait();
        assert_eq!(child.ended(), Err(libc::SIGBUS), "{mode:?}");
        drop(unbound);
    }
    let Some(kit) = Unified::new(test, |builder| builder.peer_memory(PeerChoice::Shim(1))) else { return };
    let heap = kit.device_heap();
    let vec = heap.vec_with(WORDS, |i| u32::try_from(i).unwrap()).unwrap();
    let unbound = Second::unbound();
    put(&disk(), PAGES, 3);
    assert_eq!(errno(transfer_at(&direct(&disk()), vec.raw().ptr().as_ptr(), BYTES, 0, false)), libc::EFAULT);
    let error = lacks(heap.vec_zeroed::<u32>(1));
    assert!(error.contains("/dev/limosa1"), "{error}");
    drop(vec);
    drop(unbound);
    let mut new = heap.vec_zeroed::<u32>(WORDS).unwrap();
    kit.fill(&mut new, 9);
    assert_eq!(new.read().unwrap()[WORDS - 1], 9);
}
