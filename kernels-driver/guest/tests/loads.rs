//! Loads: a file's data becomes memory of the process that stands on the device, as the disk wrote it, whatever comes
//! between; and what a call tells of its way is so.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use common::child::Child;
use common::files::{Mounted, Partitions, buffered, contents, direct, disk, put};
use common::memory::{HUGE, Memory, PAGE, pattern};
use common::peer::{Pool, errno, forget, host_has, load, load_once, read, traced, went_straight};
use common::{device, freed_to, until};
use limosa_guest::device::list;
use limosa_guest::host;
use limosa_guest::trace::{Command, tally};
use limosa_os::shim::{Place, Shim};

/// What is loaded of the disk: several pieces of 2 MiB and a part of one.
const PAGES: usize = 1600;

fn filled(pages: usize, seed: u64) -> File {
    put(&disk(), pages, seed);
    forget();
    direct(&disk())
}

/// Waits until the disk has requests that it does not answer: it is held.
fn under_way(tracing: &host::Tracing) -> Vec<Command> {
    let mut commands = Vec::new();
    until("requests are under way", || {
        commands = tracing.commands().unwrap();
        commands.len() > 1
    });
    commands
}

#[test]
fn loaded_memory_stands_on_the_device_and_comes_back_when_it_is_touched() {
    let (shim, file) = (device(), filled(PAGES, 1));
    let before = shim.info().unwrap();
    let memory = Memory::pages(PAGES);
    let (told, commands) = traced(|| load(&shim, memory.range(), &file, 0).unwrap());
    assert_eq!((told.loaded, told.copied, told.bytes), (PAGES as u64, 0, (PAGES * PAGE) as u64));
    assert_eq!(told.cursor, memory.range().start.0 + memory.range().len);
    went_straight(&commands, PAGES * PAGE);
    host_has(&commands, PAGES, 1);
    memory.is_in(&shim, Some(Place::Private));
    assert_eq!(shim.info().unwrap().private.free, before.private.free - (PAGES * PAGE) as u64);
    memory.check(1);
    memory.is_in(&shim, Some(Place::System));
    memory.fill(2);
    shim.migrate(memory.range(), Place::Private).unwrap();
    memory.check(2);
    drop(memory);
    freed_to(&shim, &before);
}

#[test]
fn two_mebibytes_are_loaded_as_one_where_they_may() {
    let (shim, file) = (device(), filled(4 * HUGE / PAGE, 1));
    let memory = Memory::huge(4);
    let (told, commands) = traced(|| load(&shim, memory.range(), &file, 0).unwrap());
    assert_eq!((told.loaded, told.loaded_huge), ((4 * HUGE / PAGE) as u64, 4));
    went_straight(&commands, 4 * HUGE);
    let states = shim.residency(memory.range()).unwrap().states;
    assert!(states.iter().all(|state| state.is_huge() && state.place() == Some(Place::Private)));
    memory.check(1);
}

#[test]
fn a_part_of_a_file_comes_to_a_part_of_a_range() {
    let (shim, file) = (device(), filled(PAGES, 1));
    let memory = Memory::pages(1000);
    load(&shim, memory.part(100, 700), &file, (300 * PAGE) as u64).unwrap();
    memory.part_is_in(&shim, 0, 100, None);
    memory.part_is_in(&shim, 100, 700, Some(Place::Private));
    memory.part_is_in(&shim, 800, 200, None);
    for page in 0..700 {
        for word in [0, 511] {
            assert_eq!(memory.word(100 + page, word).load(Ordering::Relaxed), pattern(1, 300 + page, word));
        }
    }
    // Not where the file's blocks begin.
    assert_eq!(errno(load(&shim, memory.part(0, 1), &file, 100)), libc::EINVAL);
}

#[test]
fn pages_that_were_there_are_written_to_and_stay_where_they_are() {
    let (shim, file) = (device(), filled(64, 1));
    let memory = Memory::pages(64);
    memory.fill_part(10, 20, 2);
    shim.migrate(memory.part(20, 5), Place::Private).unwrap();
    let told = load(&shim, memory.range(), &file, 0).unwrap();
    assert_eq!((told.loaded, told.copied), (44, 20));
    memory.part_is_in(&shim, 0, 10, Some(Place::Private));
    memory.part_is_in(&shim, 10, 10, Some(Place::System));
    memory.part_is_in(&shim, 30, 34, Some(Place::Private));
    memory.check(1);
}

#[test]
fn a_file_that_ends_within_a_page_is_zero_to_the_pages_end_and_touches_none_after_it() {
    let shim = common::open(1);
    let mounted = Mounted::new("mkfs.ext4 -q -F -E nodiscard -b 1024", "defaults", &disk());
    let all = contents(6, 1);
    for (name, len) in
        [("odd", 5 * PAGE + 123), ("blocks", 3 * PAGE + 1024), ("whole", 4 * PAGE), ("small", 7), ("none", 0)]
    {
        let path = mounted.file(name);
        std::fs::write(&path, &all[..len]).unwrap();
        forget();
        let memory = Memory::pages(8);
        let (told, commands) = traced(|| load(&shim, memory.range(), &direct(&path), 0).unwrap());
        assert_eq!((told.bytes, told.cursor), (len as u64, memory.range().start.0 + 8 * PAGE as u64), "{name}");
        let pages = len.div_ceil(PAGE);
        assert_eq!((told.loaded, told.copied), (pages as u64, 0), "{name}");
        let other = tally(commands.iter().filter(|command| !command.write), &list().unwrap()[1].memory()).outside;
        assert_eq!(other, 0, "{name}");
        memory.part_is_in(&shim, 0, pages, Some(Place::Private));
        memory.part_is_in(&shim, pages, 8 - pages, None);
        for (at, byte) in all.iter().enumerate().take(pages * PAGE) {
            // SAFETY: within the memory.
            let found = unsafe { memory.at(0).add(at).read_volatile() };
            assert_eq!(found, if at < len { *byte } else { 0 }, "{name}: byte {at}");
        }
        let told = load(&shim, memory.part(7, 1), &direct(&path), 64 * PAGE as u64).unwrap();
        assert_eq!((told.bytes, told.loaded), (0, 0), "{name}: beyond its end");
    }
}

/// All that is free of the device's memory has something in it that is not zero, everywhere.
fn soil(shim: &Shim) {
    let before = shim.info().unwrap();
    let pool = Pool::new(shim, usize::try_from(before.private.free).unwrap() / PAGE);
    for page in 0..pool.memory.page_count() {
        (0..PAGE / 8).step_by(16).for_each(|word| pool.memory.word(page, word).store(u64::MAX, Ordering::Relaxed));
    }
    drop(pool);
    freed_to(shim, &before);
}

#[test]
fn a_disk_that_ends_within_a_page_is_zero_to_the_pages_end_whatever_was_there_before() {
    const SECTORS: usize = 5 * 8 + 3;
    let shim = common::open(1);
    let partitions = Partitions::new(&[SECTORS]);
    let file = direct(&partitions.path(1));
    let all = contents(6, 1);
    buffered(&partitions.path(1)).write_all_at(&all[..SECTORS * 512], 0).unwrap();
    forget();
    soil(&shim);
    let memory = Memory::pages(8);
    let told = load(&shim, memory.range(), &file, 0).unwrap();
    assert_eq!((told.bytes, told.loaded, told.copied), (SECTORS as u64 * 512, 6, 0));
    for (at, byte) in all.iter().enumerate() {
        // SAFETY: within the memory.
        let found = unsafe { memory.at(0).add(at).read_volatile() };
        assert_eq!(found, if at < SECTORS * 512 { *byte } else { 0 }, "byte {at}");
    }
}

#[test]
fn holes_are_zeros_and_the_disk_is_not_asked_for_them() {
    let (shim, mounted) = (device(), Mounted::ext4(&disk()));
    let path = mounted.file("holes");
    let mut file = File::create(&path).unwrap();
    let all = contents(96, 1);
    for page in (0..96).filter(|page| page / 16 % 2 == 0) {
        file.seek(SeekFrom::Start((page * PAGE) as u64)).unwrap();
        file.write_all(&all[page * PAGE..][..PAGE]).unwrap();
    }
    file.set_len(128 * PAGE as u64).unwrap();
    file.sync_all().unwrap();
    forget();
    let memory = Memory::pages(128);
    let (told, commands) = traced(|| load(&shim, memory.range(), &direct(&path), 0).unwrap());
    assert_eq!((told.bytes, told.loaded, told.copied), (128 * PAGE as u64, 128, 0));
    went_straight(&commands, 48 * PAGE);
    for page in 0..128 {
        if page < 96 && page / 16 % 2 == 0 {
            memory.check_part(page, 1, 1);
        } else {
            assert!((0..PAGE / 8).all(|word| memory.word(page, word).load(Ordering::Relaxed) == 0), "page {page}");
        }
    }
}

#[test]
fn touches_of_a_range_meanwhile_are_as_beside_a_read() {
    const MARK: u64 = 0x7070_7070_7070_7070;
    let (shim, file) = (device(), filled(PAGES, 1));
    for round in 0..4 {
        let memory = Memory::pages(PAGES);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (memory, stop) = (&memory, &stop);
            // One writes a word of its own here and there, one looks: before the data comes there are zeros.
            let writer = scope.spawn(move || {
                let mut page = round * 31;
                while !stop.load(Ordering::Relaxed) {
                    page = (page + 97) % PAGES;
                    memory.word(page, 7).store(MARK, Ordering::Relaxed);
                }
            });
            let looker = scope.spawn(move || {
                let mut page = 0;
                while !stop.load(Ordering::Relaxed) {
                    page = (page + 61) % PAGES;
                    let found = memory.word(page, 3).load(Ordering::Relaxed);
                    assert!(found == 0 || found == pattern(1, page, 3), "{found:#x} in page {page}");
                }
            });
            let told = load(&shim, memory.range(), &file, 0).unwrap();
            stop.store(true, Ordering::Relaxed);
            writer.join().unwrap();
            looker.join().unwrap();
            assert_eq!((told.loaded + told.copied, told.bytes), (PAGES as u64, (PAGES * PAGE) as u64));
        });
        for page in 0..PAGES {
            for word in 0..PAGE / 8 {
                let found = memory.word(page, word).load(Ordering::Relaxed);
                assert!(found == pattern(1, page, word) || word == 7 && found == MARK, "word {word} of page {page}");
            }
        }
    }
}

#[test]
fn several_threads_load_at_once_each_its_own() {
    let (shim, file) = (device(), filled(4 * 400, 1));
    let before = shim.info().unwrap();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (shim, file) = (&shim, &file);
            scope.spawn(move || {
                for _ in 0..6 {
                    let memory = Memory::pages(400);
                    let told = load(shim, memory.range(), file, (part * 400 * PAGE) as u64).unwrap();
                    assert_eq!(told.loaded, 400);
                    for page in 0..400 {
                        for word in 0..PAGE / 8 {
                            let found = memory.word(page, word).load(Ordering::Relaxed);
                            assert_eq!(found, pattern(1, part * 400 + page, word), "word {word} of page {page}");
                        }
                    }
                }
            });
        }
    });
    freed_to(&shim, &before);
}

#[test]
fn a_limit_and_the_devices_end_leave_what_fits() {
    let (shim, file) = (device(), filled(PAGES, 1));
    shim.limit(700 * PAGE as u64).unwrap();
    let memory = Memory::pages(PAGES);
    let (told, result) = load_once(&shim, memory.range(), &file, 0);
    assert_eq!(errno(result), libc::EDQUOT);
    assert_eq!((told.loaded, told.cursor), (700, memory.range().start.0 + 700 * PAGE as u64));
    memory.part_is_in(&shim, 0, 700, Some(Place::Private));
    memory.part_is_in(&shim, 700, PAGES - 700, None);
    memory.check_part(0, 700, 1);
    drop(memory);
    let shim = common::open(1);
    let free = usize::try_from(shim.info().unwrap().private.free).unwrap() / PAGE;
    let pool = Pool::new(&shim, free - 600);
    let memory = Memory::pages(PAGES);
    let (told, result) = load_once(&shim, memory.range(), &file, 0);
    assert_eq!(errno(result), libc::ENOSPC);
    assert_eq!((told.loaded, told.cursor), (600, memory.range().start.0 + 600 * PAGE as u64));
    drop(pool);
    until("there is room", || {
        let (told, result) = load_once(&shim, memory.part(600, PAGES - 600), &file, (600 * PAGE) as u64);
        let done = result.is_ok();
        assert!(done || told.loaded == 0, "{told:?}");
        done
    });
    memory.is_in(&shim, Some(Place::Private));
    memory.check(1);
}

/// What makes a call end: a signal that has a handler.
fn interruptible() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: a handler that does nothing; without SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
}

#[test]
fn a_signal_ends_a_call_which_tells_how_far_it_came_and_goes_on_from_there() {
    let (shim, file) = (device(), filled(8 * HUGE / PAGE, 1));
    interruptible();
    let memory = Memory::huge(8);
    let tracing = host::Tracing::new().unwrap();
    let hold = host::Hold::new().unwrap();
    std::thread::scope(|scope| {
        let (sender, thread) = std::sync::mpsc::channel();
        let (shim, file, memory) = (&shim, &file, &memory);
        let loader = scope.spawn(move || {
            // SAFETY: takes nothing.
            sender.send(unsafe { libc::pthread_self() }).unwrap();
            load_once(shim, memory.range(), file, 0)
        });
        under_way(&tracing);
        // SAFETY: the thread is there until it is joined.
        unsafe { libc::pthread_kill(thread.recv().unwrap(), libc::SIGUSR1) };
        drop(hold);
        let (told, result) = loader.join().unwrap();
        assert_eq!(errno(result), libc::EINTR);
        let done = told.cursor - memory.range().start.0;
        assert!(done > 0 && done < memory.range().len && done == told.bytes, "{told:?}");
        let done = usize::try_from(done).unwrap();
        memory.part_is_in(shim, 0, done / PAGE, Some(Place::Private));
        memory.part_is_in(shim, done / PAGE, memory.page_count() - done / PAGE, None);
        let rest = memory.part(done / PAGE, memory.page_count() - done / PAGE);
        load(shim, rest, file, done as u64).unwrap();
    });
    memory.check(1);
}

#[test]
fn a_range_that_is_unmapped_under_a_load_is_told_and_nothing_is_lost() {
    let (shim, file) = (device(), filled(PAGES, 1));
    let before = shim.info().unwrap();
    let memory = Memory::pages(PAGES);
    let tracing = host::Tracing::new().unwrap();
    let hold = host::Hold::new().unwrap();
    let (told, result) = std::thread::scope(|scope| {
        let loader = scope.spawn(|| load_once(&shim, memory.range(), &file, 0));
        under_way(&tracing);
        memory.punch(600, PAGES - 600);
        drop(hold);
        loader.join().unwrap()
    });
    assert_eq!(errno(result), libc::EFAULT);
    assert!(told.cursor <= memory.range().start.0 + 600 * PAGE as u64, "{told:?}");
    let done = usize::try_from(told.cursor - memory.range().start.0).unwrap() / PAGE;
    memory.part_is_in(&shim, 0, done, Some(Place::Private));
    memory.part_is_in(&shim, done, 600 - done, None);
    memory.check_part(0, done, 1);
    memory.punch(0, 600);
    freed_to(&shim, &before);
}

#[test]
fn a_child_that_is_forked_under_a_load_has_the_memory_as_it_was_then() {
    let (shim, file) = (device(), filled(PAGES, 1));
    let memory = Memory::pages(PAGES);
    memory.fill_part(0, 10, 2);
    let tracing = host::Tracing::new().unwrap();
    let hold = host::Hold::new().unwrap();
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| load(&shim, memory.range(), &file, 0));
        under_way(&tracing);
        let mut child = Child::start(|parent| {
            parent.wait();
            memory.check_part(0, 10, 2);
            for page in 10..PAGES {
                assert_eq!(memory.word(page, 0).load(Ordering::Relaxed), 0, "page {page}");
            }
            memory.fill(3);
        });
        drop(hold);
        assert_eq!(loader.join().unwrap().unwrap().bytes, (PAGES * PAGE) as u64);
        child.tell();
        child.succeeds();
    });
    memory.check(1);
}

#[test]
fn a_child_that_is_forked_after_a_load_shares_it_until_one_writes() {
    let (shim, file) = (device(), filled(PAGES, 1));
    let memory = Memory::pages(PAGES);
    load(&shim, memory.range(), &file, 0).unwrap();
    let mut child = Child::start(|parent| {
        memory.check_part(0, 100, 1);
        memory.fill_part(0, 50, 2);
        parent.tell();
        parent.wait();
        memory.check_part(0, 50, 2);
        memory.check_part(50, PAGES - 50, 1);
    });
    child.wait();
    memory.check(1);
    memory.fill(3);
    child.tell();
    child.succeeds();
}

#[test]
fn a_process_that_is_killed_under_a_load_leaves_nothing_behind() {
    let (shim, file) = (device(), filled(PAGES, 1));
    let before = shim.info().unwrap();
    let tracing = host::Tracing::new().unwrap();
    let hold = host::Hold::new().unwrap();
    let mut child = Child::start(|parent| {
        let memory = Memory::pages(PAGES);
        parent.tell();
        let _ = load(&device(), memory.range(), &file, 0);
    });
    child.wait();
    under_way(&tracing);
    child.kill();
    assert!(shim.info().unwrap().private.free < before.private.free);
    drop(hold);
    assert_eq!(child.ended(), Err(libc::SIGKILL));
    freed_to(&shim, &before);
    Pool::new(&shim, usize::try_from(before.private.free).unwrap() / PAGE).memory.check_zero();
}

#[test]
fn an_error_of_the_disk_ends_a_load_before_the_block_that_it_is_of() {
    const BAD: usize = 1024;
    let (shim, file) = (device(), filled(PAGES, 1));
    let before = shim.info().unwrap();
    let cut = host::Cut::behind((BAD * PAGE) as u64).unwrap();
    let memory = Memory::pages(PAGES);
    let (told, result) = load_once(&shim, memory.range(), &file, 0);
    assert_eq!(errno(result), libc::EIO);
    let done = usize::try_from(told.cursor - memory.range().start.0).unwrap() / PAGE;
    assert!(done > 0 && done <= BAD, "{told:?}");
    assert_eq!((told.loaded, told.bytes), (done as u64, (done * PAGE) as u64));
    memory.part_is_in(&shim, 0, done, Some(Place::Private));
    memory.part_is_in(&shim, done, PAGES - done, None);
    memory.check_part(0, done, 1);
    drop(memory);
    freed_to(&shim, &before);
    let (pool, memory) = (Pool::new(&shim, PAGES), Memory::pages(PAGES));
    assert_eq!(errno(read(&file, &pool.memory)), errno(read(&file, &memory)), "pools and RAM are told the same");
    drop(cut);
    let memory = Memory::pages(BAD);
    load(&shim, memory.range(), &file, 0).unwrap();
    memory.check(1);
}
