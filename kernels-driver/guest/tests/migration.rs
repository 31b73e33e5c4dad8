//! Device pages: what a move and a CPU's access do, in places, counts and contents. The mirror is not in it.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use common::memory::{HUGE, Memory, PAGE, memory_file};
use common::{Since, device, open, parameter, stopped};
use limosa_guest::host;
use limosa_os::shim::{Migrated, Place, Scope, Shim, ShimError};

const HUGE_PAGES: usize = HUGE / PAGE;

fn moved(moved: usize, huge: u64, left: usize) -> Migrated {
    Migrated { moved: moved as u64, moved_huge: huge, left: left as u64 }
}

#[test]
fn a_range_moves_to_the_device_and_back_and_keeps_its_contents() {
    let shim = device();
    let before = shim.info().unwrap();
    let memory = Memory::pages(64);
    memory.fill(1);
    let since = Since::now(&shim);
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap(), moved(64, 0, 0));
    memory.is_in(&shim, Some(Place::Private));
    let there = shim.info().unwrap();
    assert_eq!(there.used, 64 * PAGE as u64);
    assert_eq!(before.private.free - there.private.free, 64 * PAGE as u64);

    assert_eq!(shim.migrate(memory.range(), Place::System).unwrap(), moved(64, 0, 0));
    memory.is_in(&shim, Some(Place::System));
    memory.check(1);
    let counted = since.counted();
    assert_eq!((counted.pages_to_device, counted.huge_to_device), (64, 0));
    assert_eq!((counted.pages_to_system, counted.huge_to_system), (64, 0));
    assert_eq!((counted.cpu_faults, counted.cpu_fault_pages), (0, 0));
    let after = shim.info().unwrap();
    assert_eq!((after.used, after.private.free), (0, before.private.free));
}

#[test]
fn what_is_moved_is_in_the_hosts_file_behind_the_device() {
    const SAMPLES: u64 = 6;
    // All of the smaller device, so that every page of it is known.
    let shim = open(1);
    let bytes = shim.info().unwrap().private.bytes;
    let memory = Memory::pages(usize::try_from(bytes).unwrap() / PAGE);
    for page in 0..memory.page_count() {
        memory.word(page, 0).store(marker(page), Ordering::Relaxed);
        memory.word(page, 511).store(!marker(page), Ordering::Relaxed);
    }
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap(), moved(memory.page_count(), 0, 0));
    let mut seen = std::collections::BTreeSet::new();
    for sample in 0..SAMPLES {
        let offset = bytes / SAMPLES * sample / PAGE as u64 * PAGE as u64;
        for page in host::vram(1, offset, 1 << 15).unwrap().chunks_exact(PAGE) {
            let word = |at: usize| u64::from_ne_bytes(page[at * 8..at * 8 + 8].try_into().unwrap());
            let number = usize::try_from(word(0) ^ marker(0)).unwrap();
            assert!(number < memory.page_count() && word(511) == !marker(number), "at {offset:#x}: {:#x}", word(0));
            assert!(page[8..PAGE - 8].iter().all(|byte| *byte == 0) && seen.insert(number), "page {number}");
        }
    }
}

/// What marks a page.
fn marker(page: usize) -> u64 {
    0x7e57_7e57_0000_0000 ^ page as u64
}

#[test]
fn untouched_memory_becomes_zeroed_memory_of_the_device() {
    let shim = device();
    // So that what is handed out was used before.
    let used = Memory::pages(256);
    used.fill(3);
    shim.migrate(used.range(), Place::Private).unwrap();
    drop(used);
    let memory = Memory::pages(256);
    memory.is_in(&shim, None);
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap(), moved(256, 0, 0));
    memory.is_in(&shim, Some(Place::Private));
    memory.check_zero();
}

#[test]
fn untouched_huge_memory_becomes_one_zeroed_piece() {
    let shim = device();
    let used = Memory::huge(2);
    used.fill(3);
    shim.migrate(used.range(), Place::Private).unwrap();
    drop(used);
    let memory = Memory::huge(2);
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap(), moved(2 * HUGE_PAGES, 2, 0));
    memory.check_zero();
}

#[test]
fn pages_that_are_there_already_are_left() {
    let shim = device();
    let memory = Memory::pages(16);
    memory.fill(1);
    assert_eq!(shim.migrate(memory.range(), Place::System).unwrap(), moved(0, 0, 16));
    shim.migrate(memory.part(4, 8), Place::Private).unwrap();
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap(), moved(8, 0, 8));
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap(), moved(0, 0, 16));
    memory.check(1);
}

#[test]
fn a_cpu_access_brings_its_page_back_in_one_fault() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.fill(1);
    shim.migrate(memory.range(), Place::Private).unwrap();
    let since = Since::now(&shim);
    memory.check_part(30, 1, 1);
    let counted = since.counted();
    assert_eq!((counted.cpu_faults, counted.cpu_fault_pages, counted.pages_to_system), (1, 1, 1));
    memory.part_is_in(&shim, 30, 1, Some(Place::System));
    memory.part_is_in(&shim, 0, 30, Some(Place::Private));
    memory.part_is_in(&shim, 31, 33, Some(Place::Private));
}

#[test]
fn fault_around_grows_along_a_streak_in_either_direction() {
    const PAGES: usize = 2048;
    let shim = device();
    let memory = Memory::pages(PAGES);
    for backwards in [false, true] {
        memory.fill(1);
        shim.migrate(memory.range(), Place::Private).unwrap();
        let since = Since::now(&shim);
        for page in 0..PAGES {
            memory.check_part(if backwards { PAGES - 1 - page } else { page }, 1, 1);
        }
        let counted = since.counted();
        assert_eq!(counted.cpu_fault_pages, PAGES as u64);
        // 1, 2, 4 … 512, and from then on 2 MiB at a time.
        assert!(counted.cpu_faults <= 20, "{} faults, backwards: {backwards}", counted.cpu_faults);
    }
}

#[test]
fn scattered_touches_bring_a_page_each() {
    const PAGES: usize = 2048;
    let shim = device();
    let memory = Memory::pages(PAGES);
    memory.fill(1);
    shim.migrate(memory.range(), Place::Private).unwrap();
    let since = Since::now(&shim);
    // Far from each other, and never beside one before.
    (0..64).for_each(|i| memory.check_part(i * 1021 % PAGES, 1, 1));
    assert_eq!((since.counted().cpu_faults, since.counted().cpu_fault_pages), (64, 64));
}

#[test]
fn two_mebibytes_move_as_one_both_ways() {
    let shim = device();
    let memory = Memory::huge(3);
    memory.fill(1);
    assert!(shim.residency(memory.range()).unwrap().states.iter().all(|state| state.is_huge()));
    let since = Since::now(&shim);
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap(), moved(3 * HUGE_PAGES, 3, 0));
    memory.is_in(&shim, Some(Place::Private));
    assert!(shim.residency(memory.range()).unwrap().states.iter().all(|state| state.is_huge()));
    assert_eq!(shim.migrate(memory.range(), Place::System).unwrap(), moved(3 * HUGE_PAGES, 3, 0));
    assert!(shim.residency(memory.range()).unwrap().states.iter().all(|state| state.is_huge()));
    memory.check(1);
    let counted = since.counted();
    assert_eq!((counted.huge_to_device, counted.huge_to_system), (3, 3));
    assert_eq!((counted.pages_to_device, counted.pages_to_system), (3 * 512, 3 * 512));
}

#[test]
fn a_touch_brings_two_mebibytes_back_as_one() {
    let shim = device();
    let memory = Memory::huge(2);
    memory.fill(1);
    shim.migrate(memory.range(), Place::Private).unwrap();
    let since = Since::now(&shim);
    memory.check_part(700, 1, 1);
    let counted = since.counted();
    assert_eq!((counted.cpu_faults, counted.cpu_fault_pages, counted.huge_to_system), (1, 512, 1));
    memory.part_is_in(&shim, 0, 512, Some(Place::Private));
    memory.part_is_in(&shim, 512, 512, Some(Place::System));
    memory.check(1);
}

#[test]
fn two_mebibytes_are_split_when_the_cpu_touches_a_part_and_fault_around_is_less() {
    let _sixteen = parameter("fault_around_max", "16");
    let shim = device();
    let memory = Memory::huge(2);
    memory.fill(1);
    shim.migrate(memory.range(), Place::Private).unwrap();
    let since = Since::now(&shim);
    memory.check_part(700, 1, 1);
    let counted = since.counted();
    assert_eq!(counted.huge_to_system, 0);
    assert!((1..=16).contains(&counted.cpu_fault_pages), "{counted:?}");
    memory.part_is_in(&shim, 0, 512, Some(Place::Private));
    memory.part_is_in(&shim, 700, 1, Some(Place::System));
    let pages = shim.residency(memory.part(512, 512)).unwrap().pages;
    assert_eq!((pages.system, pages.private), (counted.cpu_fault_pages, 512 - counted.cpu_fault_pages));
    memory.check(1);
}

#[test]
fn a_part_of_two_mebibytes_moves_alone() {
    let shim = device();
    let memory = Memory::huge(1);
    memory.fill(1);
    assert_eq!(shim.migrate(memory.part(100, 50), Place::Private).unwrap(), moved(50, 0, 0));
    memory.part_is_in(&shim, 0, 100, Some(Place::System));
    memory.part_is_in(&shim, 100, 50, Some(Place::Private));
    memory.part_is_in(&shim, 150, 362, Some(Place::System));
    memory.check(1);
    // And the other way.
    memory.fill(2);
    shim.migrate(memory.range(), Place::Private).unwrap();
    assert_eq!(shim.migrate(memory.part(7, 9), Place::System).unwrap(), moved(9, 0, 0));
    memory.part_is_in(&shim, 7, 9, Some(Place::System));
    memory.part_is_in(&shim, 16, 496, Some(Place::Private));
    memory.check(2);
}

#[test]
fn a_range_over_several_mappings_moves_as_a_whole() {
    let shim = device();
    let memory = Memory::pages(96);
    memory.fill(1);
    memory.protect(32, 32, libc::PROT_READ);
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap(), moved(96, 0, 0));
    let states = shim.residency(memory.range()).unwrap().states;
    assert!(states[..32].iter().chain(&states[64..]).all(|state| state.is_writable()));
    assert!(states[32..64].iter().all(|state| !state.is_writable()));
    memory.check(1);
}

#[test]
fn a_hole_stops_the_move_where_it_begins() {
    let shim = device();
    let memory = Memory::pages(1200);
    memory.fill(1);
    memory.punch(600, 10);
    let hole = memory.part(600, 1).start;
    for to in [Place::Private, Place::System] {
        let error = stopped(
            shim.migrate(memory.range(), to),
            |cause| matches!(cause, ShimError::NotMapped { address } if *address == hole),
        );
        assert_eq!((error.cursor, error.done), (hole, moved(600, 0, 0)));
    }
    memory.check_part(0, 600, 1);
    assert_eq!(shim.migrate(memory.part(610, 590), Place::Private).unwrap(), moved(590, 0, 0));
    memory.check_part(610, 590, 1);
}

#[test]
fn memory_that_the_kernel_cannot_move_is_left_and_counted() {
    let shim = device();
    let file = memory_file(32 * PAGE);
    let shared = Memory::of_file(file.as_raw_fd(), 32 * PAGE, libc::MAP_SHARED);
    shared.fill(1);
    assert_eq!(shim.migrate(shared.range(), Place::Private).unwrap(), moved(0, 0, 32));
    // Of a private mapping of a file, what was written is the process's own.
    let private = Memory::of_file(file.as_raw_fd(), 32 * PAGE, libc::MAP_PRIVATE);
    private.check(1);
    private.fill_part(8, 8, 2);
    assert_eq!(shim.migrate(private.range(), Place::Private).unwrap(), moved(8, 0, 24));
    private.part_is_in(&shim, 8, 8, Some(Place::Private));
    private.check_part(0, 8, 1);
    private.check_part(16, 16, 1);
    assert_eq!(private.word(9, 0).load(Ordering::Relaxed), common::memory::pattern(2, 9, 0));
    shared.check(1);
}

#[test]
fn memory_pinned_for_io_is_left() {
    let shim = device();
    let memory = Memory::pages(48);
    memory.fill(1);
    let ring = Ring::pinning(memory.at(16), 16 * PAGE);
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap(), moved(32, 0, 16));
    memory.part_is_in(&shim, 16, 16, Some(Place::System));
    memory.check(1);
    drop(ring);
}

/// An io_uring that has a buffer registered: its pages are pinned for long.
struct Ring(std::os::fd::OwnedFd);

impl Ring {
    fn pinning(start: *mut u8, len: usize) -> Self {
        use std::os::fd::FromRawFd;
        let mut parameters = [0u32; 30];
        // SAFETY: the kernel writes its 120 bytes of parameters.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: just made, and nobody else's.
        let ring = Self(unsafe { std::os::fd::OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) });
        let buffer = libc::iovec { iov_base: start.cast(), iov_len: len };
        // SAFETY: registers one buffer, of memory that outlives the ring. 0 is IORING_REGISTER_BUFFERS.
        let registered =
            unsafe { libc::syscall(libc::SYS_io_uring_register, ring.0.as_raw_fd(), 0, &raw const buffer, 1) };
        assert_eq!(registered, 0, "{}", std::io::Error::last_os_error());
        ring
    }
}

#[test]
fn system_calls_on_memory_on_the_device_see_and_leave_the_right_bytes() {
    use std::io::{Read, Write};
    let shim = device();
    let (source, target) = (Memory::pages(8), Memory::pages(8));
    source.fill(1);
    [&source, &target].iter().for_each(|memory| {
        shim.migrate(memory.range(), Place::Private).unwrap();
    });
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // SAFETY: memory of the test's own, which nobody else uses meanwhile.
    let (from, to) = unsafe {
        let from = std::slice::from_raw_parts(source.at(0), 8 * PAGE);
        (from, std::slice::from_raw_parts_mut(target.at(0), 8 * PAGE))
    };
    writer.write_all(from).unwrap();
    reader.read_exact(to).unwrap();
    target.check(1);
    source.check(1);
}

#[test]
fn direct_io_from_and_to_memory_on_the_device_is_right() {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let shim = device();
    let mut options = std::fs::OpenOptions::new();
    let disk = options.read(true).write(true).custom_flags(libc::O_DIRECT).open("/run/limosa-data").unwrap();
    let (source, target) = (Memory::pages(64), Memory::pages(64));
    source.fill(1);
    [&source, &target].iter().for_each(|memory| {
        shim.migrate(memory.range(), Place::Private).unwrap();
    });
    // SAFETY: memory of the test's own, which nobody else uses meanwhile.
    let (from, to) = unsafe {
        let from = std::slice::from_raw_parts(source.at(0), 64 * PAGE);
        (from, std::slice::from_raw_parts_mut(target.at(0), 64 * PAGE))
    };
    disk.write_all_at(from, 4 << 20).unwrap();
    disk.read_exact_at(to, 4 << 20).unwrap();
    target.check(1);
}

#[test]
fn what_one_device_has_is_not_anothers_to_move() {
    let (one, other) = (device(), open(1));
    let memory = Memory::pages(32);
    memory.fill(1);
    one.migrate(memory.range(), Place::Private).unwrap();
    memory.is_in(&other, None);
    assert_eq!(other.migrate(memory.range(), Place::Private).unwrap(), moved(0, 0, 32));
    assert_eq!(other.migrate(memory.range(), Place::System).unwrap(), moved(0, 0, 32));
    memory.is_in(&one, Some(Place::Private));
    memory.check(1);
    assert_eq!(other.migrate(memory.range(), Place::Private).unwrap(), moved(32, 0, 0));
    memory.is_in(&other, Some(Place::Private));
    memory.check(1);
}

#[test]
fn two_files_of_one_device_pay_for_what_they_moved_each() {
    let (one, other) = (device(), device());
    let memory = Memory::pages(64);
    memory.fill(1);
    one.migrate(memory.part(0, 24), Place::Private).unwrap();
    other.migrate(memory.range(), Place::Private).unwrap();
    assert_eq!((one.info().unwrap().used, other.info().unwrap().used), (24 * PAGE as u64, 40 * PAGE as u64));
    // Either brings back what both moved; each is told of its own.
    assert_eq!(one.migrate(memory.range(), Place::System).unwrap(), moved(64, 0, 0));
    let came_back = |shim: &Shim| shim.counters(Scope::File).unwrap().pages_to_system;
    assert_eq!((came_back(&one), came_back(&other)), (24, 40));
    assert_eq!((one.info().unwrap().used, other.info().unwrap().used), (0, 0));
    memory.check(1);
}

#[test]
fn what_a_closed_file_moved_stays_and_comes_back() {
    let (closing, watching) = (device(), device());
    let before = watching.info().unwrap();
    let memory = Memory::pages(64);
    memory.fill(1);
    closing.migrate(memory.range(), Place::Private).unwrap();
    drop(closing);
    memory.is_in(&watching, Some(Place::Private));
    memory.check(1);
    common::freed_to(&watching, &before);
}
