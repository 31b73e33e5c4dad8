//! The disk, or the device, is taken off the machine while data goes between them: what is under way ends, what comes after
//! is told, nothing is lost that was there, and when it is back all works again.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::child::signal_of;
use common::files::{direct, disk, put};
use common::memory::{Memory, PAGE};
use common::peer::{Pool, errno, forget, load, read};
use common::{freed_to, open, until};
use limosa_guest::protocol::{DATA, DATA_SERIAL};
use limosa_guest::{device, host};
use limosa_os::shim::Shim;

const PAGES: usize = 1100;

/// Reads the file to pools and loads it, again and again, until that ends with an error. Each data that came is checked. To
/// the kernel a disk that has just gone may be one without bytes: that is an end, too.
fn until_it_fails(shim: &Shim, file: &File, rounds: &AtomicUsize) -> i32 {
    const BYTES: usize = PAGES * PAGE;
    loop {
        let memory = Memory::pages(PAGES);
        match load(shim, memory.range(), file, 0) {
            Ok(told) => {
                let bytes = usize::try_from(told.bytes).unwrap();
                memory.check_part(0, bytes / PAGE, 1);
                if bytes < BYTES {
                    return libc::EIO;
                }
            }
            Err(error) => return error.raw_os_error().unwrap(),
        }
        let Ok(pool) = Pool::of(shim, PAGES) else { return libc::ENODEV };
        match read(file, &pool.memory) {
            Ok(BYTES) => {}
            Ok(_) => return libc::EIO,
            Err(error) => return error.raw_os_error().unwrap(),
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

/// Has two threads do that, takes `what` off meanwhile, and gives how they ended.
fn under_transfers(shim: &Shim, what: &str) -> [i32; 2] {
    put(&disk(), PAGES, 1);
    forget();
    let (file, rounds) = (direct(&disk()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let work = || scope.spawn(|| until_it_fails(shim, &file, &rounds));
        let workers = [work(), work()];
        until("data goes", || rounds.load(Ordering::Relaxed) > 2);
        host::unplug(what).unwrap();
        workers.map(|worker| worker.join().unwrap())
    })
}

#[test]
fn a_disk_that_goes_under_transfers_ends_them_with_an_error() {
    let shim = open(1);
    let before = shim.info().unwrap();
    let kept = Memory::pages(100);
    kept.fill(7);
    shim.migrate(kept.range(), limosa_os::shim::Place::Private).unwrap();
    let ended = under_transfers(&shim, DATA);
    for errno in ended {
        assert!([libc::EIO, libc::ENODEV, libc::ENXIO, libc::EOPNOTSUPP].contains(&errno), "{ended:?}");
    }
    until("the disk is gone", || device::disk(DATA_SERIAL).unwrap().is_none());
    kept.check(7);
    drop(kept);
    freed_to(&shim, &before);
    until("the disk is back", || host::plug(DATA).is_ok());
    until("the disk works", || device::disk(DATA_SERIAL).unwrap().is_some_and(|path| File::open(path).is_ok()));
    put(&disk(), PAGES, 2);
    forget();
    let memory = Memory::pages(PAGES);
    load(&shim, memory.range(), &direct(&disk()), 0).unwrap();
    memory.check(2);
}

#[test]
fn a_device_that_goes_under_transfers_ends_them_and_the_data_stays_with_the_process() {
    let shim = open(1);
    let (kept, pool) = (Memory::pages(500), Pool::new(&shim, 16));
    kept.fill(7);
    shim.migrate(kept.range(), limosa_os::shim::Place::Private).unwrap();
    let ended = under_transfers(&shim, "gpu1");
    for errno in ended {
        // EIO: a read that came to a part, before the pool lost its pages.
        assert!([libc::ENODEV, libc::EFAULT, libc::EIO].contains(&errno), "{ended:?}");
    }
    until("the device is gone", || device::list().unwrap().len() == 1);
    kept.check(7);
    assert_eq!(signal_of(|| _ = pool.memory.word(0, 0).load(Ordering::Relaxed)), Some(libc::SIGBUS));
    assert_eq!(errno(read(&direct(&disk()), &pool.memory)), libc::EFAULT);
    until("the device is back", || host::plug("gpu1").is_ok());
    until("the module has it", || limosa_os::shim::devices().len() == 2);
    let new = open(1);
    let memory = Memory::pages(PAGES);
    load(&new, memory.range(), &direct(&disk()), 0).unwrap();
    memory.check(1);
    assert_eq!(signal_of(|| _ = pool.memory.word(0, 0).load(Ordering::Relaxed)), Some(libc::SIGBUS));
}
