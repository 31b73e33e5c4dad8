//! The device goes while its memory is in use: the data comes back to the system, and what asks afterwards is told.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::child::{Child, signal_of};
use common::files::{direct, disk, put};
use common::memory::{HUGE, Memory, PAGE, word_at};
use common::peer::{Pool, errno, forget, load, pool, probe, read, transfer};
use common::{open, until};
use limosa_guest::device::{Device, list};
use limosa_guest::host;
use limosa_os::shim::{Place, Policy, Scope, ShimError};

/// The second device, unbound until this is dropped.
struct Unbound(Device);

impl Unbound {
    fn new() -> Self {
        let device = list().unwrap().swap_remove(1);
        device.unbind().unwrap();
        Self(device)
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        self.0.bind("limosa").unwrap();
    }
}

fn gone(error: &ShimError) {
    assert!(matches!(error, ShimError::DeviceGone), "{error}");
}

#[test]
fn unbinding_with_pages_in_use_keeps_the_data_and_every_call_says_so() {
    let shim = open(1);
    let (small, huge) = (Memory::pages(1000), Memory::huge(4));
    small.fill(1);
    huge.fill(2);
    shim.migrate(small.range(), Place::Private).unwrap();
    shim.migrate(huge.range(), Place::Private).unwrap();
    let unbound = Unbound::new();
    gone(&shim.info().unwrap_err());
    gone(&shim.limit(0).unwrap_err());
    gone(&shim.counters(Scope::File).unwrap_err());
    gone(&shim.residency(small.range()).unwrap_err());
    gone(&shim.migrate(small.range(), Place::Private).unwrap_err().cause);
    gone(&shim.view(small.range(), Policy::Map).unwrap_err());
    small.check(1);
    huge.check(2);
    drop(unbound);
    // A file of the device that was is of that one for ever.
    gone(&shim.info().unwrap_err());
    let new = open(1);
    let info = new.info().unwrap();
    assert_eq!((info.private.free, info.used), (info.private.bytes, 0));
    new.migrate(small.range(), Place::Private).unwrap();
    small.is_in(&new, Some(Place::Private));
    small.check(1);
}

#[test]
fn a_device_that_is_gone_is_not_there_to_be_opened() {
    let before = limosa_os::shim::devices();
    let unbound = Unbound::new();
    assert_eq!(limosa_os::shim::devices().len(), before.len() - 1);
    drop(unbound);
    assert_eq!(limosa_os::shim::devices(), before);
}

#[test]
fn a_view_goes_on_in_system_memory_when_the_device_is_gone() {
    let shim = open(1);
    let memory = Memory::pages(64);
    memory.fill(1);
    shim.migrate(memory.range(), Place::Private).unwrap();
    let view = shim.view(memory.range(), Policy::Migrate).unwrap();
    let seen = |page: usize| word_at(view.address_of(memory.part(page, 1).start).unwrap());
    assert_eq!(seen(3).load(Ordering::Relaxed), memory.word(3, 0).load(Ordering::Relaxed));
    let unbound = Unbound::new();
    for page in 0..64 {
        seen(page).store(page as u64, Ordering::Relaxed);
        assert_eq!(memory.word(page, 0).load(Ordering::Relaxed), page as u64);
        memory.word(page, 1).store(7, Ordering::Relaxed);
    }
    drop(unbound);
    // The new binding is another device: the old view stays with the system's memory.
    let new = open(1);
    until("the view works", || seen(9).load(Ordering::Relaxed) == 9);
    memory.is_in(&new, Some(Place::System));
    drop(view);
}

#[test]
fn threads_and_children_that_use_the_device_while_it_goes_lose_nothing() {
    let memory = Memory::huge(2);
    let pages = 2 * HUGE / PAGE;
    memory.fill(1);
    let stop = AtomicBool::new(false);
    let mut child = Child::start(|parent| {
        let (shim, own) = (open(1), Memory::pages(500));
        own.fill(5);
        shim.migrate(own.range(), Place::Private).unwrap();
        parent.tell();
        parent.wait();
        own.check(5);
        memory.check(1);
    });
    child.wait();
    for _ in 0..3 {
        let shim = open(1);
        stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| {
                loop {
                    match shim.migrate(memory.range(), Place::Private) {
                        Ok(_) => {}
                        Err(error) => return gone(&error.cause),
                    }
                }
            });
            let reader = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    memory.check_part(0, pages, 1);
                }
            });
            let view = shim.view(memory.range(), Policy::Migrate).unwrap();
            let start = view.range().start;
            let (stop, memory) = (&stop, &memory);
            let viewer = scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for page in 0..pages as u64 {
                        let seen = word_at(start.offset(page * PAGE as u64)).load(Ordering::Relaxed);
                        assert_eq!(seen, common::memory::pattern(1, usize::try_from(page).unwrap(), 0));
                    }
                }
            });
            let unbound = Unbound::new();
            mover.join().unwrap();
            stop.store(true, Ordering::Relaxed);
            reader.join().unwrap();
            viewer.join().unwrap();
            drop(unbound);
            memory.check(1);
        });
    }
    child.tell();
    child.succeeds();
}

#[test]
fn a_pool_loses_its_pages_with_its_device() {
    let shim = open(1);
    let file = direct(&disk());
    let old = Pool::new(&shim, 64);
    old.memory.fill(1);
    let lost = || {
        assert_eq!(signal_of(|| _ = old.memory.word(63, 0).load(Ordering::Relaxed)), Some(libc::SIGBUS));
        assert_eq!(signal_of(|| old.memory.word(0, 0).store(1, Ordering::Relaxed)), Some(libc::SIGBUS));
        assert_eq!(errno(read(&file, &old.memory)), libc::EFAULT);
        assert_eq!(errno(pool(&shim, PAGE)), libc::ENODEV);
        assert_eq!(errno(probe(&shim, &file, 0)), libc::ENODEV);
        assert_eq!(errno(load(&shim, Memory::pages(1).range(), &file, 0)), libc::ENODEV);
    };
    let unbound = Unbound::new();
    lost();
    drop(unbound);
    lost();
    let new = Pool::new(&open(1), 64);
    new.memory.check_zero();
    assert_eq!(read(&file, &new.memory).unwrap(), 64 * PAGE);
}

#[test]
fn unbinding_waits_for_transfers_under_way_and_no_longer() {
    const PAGES: usize = 1100;
    put(&disk(), PAGES, 1);
    forget();
    let file = direct(&disk());
    for loads in [false, true] {
        let shim = open(1);
        let (pool, memory) = (Pool::new(&shim, PAGES), Memory::pages(PAGES));
        let tracing = host::Tracing::new().unwrap();
        let hold = host::Hold::new().unwrap();
        std::thread::scope(|scope| {
            let transfer = scope.spawn(|| {
                if loads {
                    load(&shim, memory.range(), &file, 0).map(|told| told.bytes)
                } else {
                    transfer(&file, &pool.memory, 0..PAGES * PAGE, 0, false).map(|got| got as u64)
                }
            });
            until("requests are under way", || tracing.commands().unwrap().len() > 1);
            let unbinding = scope.spawn(Unbound::new);
            until("the device is gone for others", || limosa_os::shim::devices().len() == 1);
            assert!(!transfer.is_finished() && !unbinding.is_finished());
            drop(hold);
            match transfer.join().unwrap() {
                Ok(bytes) => assert_eq!(bytes, (PAGES * PAGE) as u64),
                Err(error) => {
                    assert!([libc::ENODEV, libc::EFAULT].contains(&error.raw_os_error().unwrap()), "{error}");
                }
            }
            drop(unbinding.join().unwrap());
        });
    }
}
