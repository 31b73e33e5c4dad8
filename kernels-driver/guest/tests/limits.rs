//! What is not enough: device memory, a file's share of it, and system memory. Nothing is lost, and what was done is said.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::process::Command;

use common::child::Child;
use common::memory::{Memory, PAGE};
use common::{Setting, device, open, parameter, stopped};
use limosa_os::shim::{Place, ShimError};

#[test]
fn a_full_device_takes_what_fits_and_says_how_far_it_came() {
    let shim = open(1);
    let free = usize::try_from(shim.info().unwrap().private.free).unwrap() / PAGE;
    let memory = Memory::pages(free + 700);
    memory.fill_part(free - 10, 710, 1);
    let error = stopped(shim.migrate(memory.range(), Place::Private), |cause| matches!(cause, ShimError::DeviceFull));
    assert_eq!((error.done.moved, error.cursor), (free as u64, memory.part(free, 1).start));
    assert_eq!(shim.info().unwrap().private.free, 0);
    memory.part_is_in(&shim, 0, free, Some(Place::Private));
    memory.part_is_in(&shim, free, 700, Some(Place::System));
    // Where something goes, just as much may come.
    shim.migrate(memory.part(100, 300), Place::System).unwrap();
    let rest = memory.part(free, 700);
    let error = stopped(shim.migrate(rest, Place::Private), |cause| matches!(cause, ShimError::DeviceFull));
    assert_eq!((error.done.moved, error.cursor), (300, memory.part(free + 300, 1).start));
    memory.check_part(free - 10, 710, 1);
}

#[test]
fn two_mebibytes_go_page_by_page_where_the_device_has_no_piece_left() {
    let shim = open(1);
    let free = usize::try_from(shim.info().unwrap().private.free).unwrap() / PAGE;
    // All but 600 pages.
    let filler = Memory::pages(free - 600);
    shim.migrate(filler.range(), Place::Private).unwrap();
    let memory = Memory::huge(2);
    memory.fill(1);
    let error = stopped(shim.migrate(memory.range(), Place::Private), |cause| matches!(cause, ShimError::DeviceFull));
    assert_eq!(error.done.moved, 600);
    memory.part_is_in(&shim, 0, 600, Some(Place::Private));
    memory.check(1);
}

#[test]
fn the_limit_of_a_file_stops_its_moves_and_nobody_elses() {
    let (shim, other) = (device(), device());
    let memory = Memory::pages(64);
    memory.fill(1);
    shim.limit(20 * PAGE as u64 + 100).unwrap();
    assert_eq!(shim.info().unwrap().limit, 20 * PAGE as u64);
    let error = stopped(shim.migrate(memory.range(), Place::Private), |cause| matches!(cause, ShimError::LimitReached));
    assert_eq!((error.done.moved, error.cursor), (20, memory.part(20, 1).start));
    assert_eq!(other.migrate(memory.part(20, 44), Place::Private).unwrap().moved, 44);
    assert_eq!((shim.info().unwrap().used, other.info().unwrap().used), (20 * PAGE as u64, 44 * PAGE as u64));
    memory.check(1);
}

#[test]
fn a_lower_limit_moves_nothing_and_a_higher_one_lets_more_come() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.fill(1);
    shim.migrate(memory.part(0, 32), Place::Private).unwrap();
    shim.limit(0).unwrap();
    memory.part_is_in(&shim, 0, 32, Some(Place::Private));
    let error = stopped(shim.migrate(memory.range(), Place::Private), |cause| matches!(cause, ShimError::LimitReached));
    assert_eq!((error.done.moved, error.done.left), (0, 32));
    shim.limit(48 * PAGE as u64).unwrap();
    let error = stopped(shim.migrate(memory.range(), Place::Private), |cause| matches!(cause, ShimError::LimitReached));
    assert_eq!(error.done.moved, 16);
    shim.limit(u64::MAX).unwrap();
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap().moved, 16);
    memory.check(1);
}

#[test]
fn under_a_limit_two_mebibytes_go_as_far_as_it_allows() {
    let shim = device();
    let memory = Memory::huge(2);
    memory.fill(1);
    shim.limit(700 * PAGE as u64).unwrap();
    let error = stopped(shim.migrate(memory.range(), Place::Private), |cause| matches!(cause, ShimError::LimitReached));
    assert_eq!((error.done.moved, shim.info().unwrap().used), (700, 700 * PAGE as u64));
    memory.check(1);
}

#[test]
fn no_file_gets_more_than_the_administrator_grants() {
    let before = device().info().unwrap();
    assert_eq!(before.limit, before.private.bytes + before.coherent.bytes);
    let granted = parameter("client_limit_mb", "1");
    let shim = device();
    assert_eq!(shim.info().unwrap().limit, 1 << 20);
    shim.limit(u64::MAX).unwrap();
    assert_eq!(shim.info().unwrap().limit, 1 << 20);
    let memory = Memory::pages(300);
    let error = stopped(shim.migrate(memory.range(), Place::Private), |cause| matches!(cause, ShimError::LimitReached));
    assert_eq!(error.done.moved, 256);
    drop(granted);
    shim.limit(u64::MAX).unwrap();
    assert_eq!(shim.info().unwrap().limit, before.limit);
}

#[test]
fn a_child_that_shares_device_memory_is_counted_for_who_moved_it() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.fill(1);
    shim.migrate(memory.range(), Place::Private).unwrap();
    let mut child = Child::start(|parent| {
        parent.tell();
        parent.wait();
        memory.check(1);
    });
    child.wait();
    drop(memory);
    assert_eq!(shim.info().unwrap().used, 64 * PAGE as u64, "the child has it still");
    child.tell();
    child.succeeds();
    common::until("the limit is free again", || shim.info().unwrap().used == 0);
}

const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

#[test]
fn out_of_system_memory_a_move_back_stops_and_loses_nothing() {
    const PAGES: usize = 360 << 8; // 360 MiB
    const FILLED: usize = 1000;
    let shim = device();
    // Else the test's own code goes first when memory is short, and comes back from disk for each step.
    // SAFETY: locks what is mapped now.
    assert_eq!(unsafe { libc::mlockall(libc::MCL_CURRENT) }, 0);
    let memory = Memory::pages(PAGES);
    memory.fill_part(0, FILLED, 1);
    memory.fill_part(PAGES - FILLED, FILLED, 1);
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap().moved, PAGES as u64);
    swap(false);
    // All but 60 MiB goes into pages that nobody uses, and that nothing takes back; 64 MiB of it, and what is in too small
    // pieces for those, into memory of ours, for which there is no swap now. That is given back first: the move leaves so
    // little that opening a file would be reason enough to kill us.
    let spare = || meminfo("MemAvailable:").saturating_sub(60 << 20);
    let huge_pages = Setting::set(HUGE_PAGES, &(spare().saturating_sub(64 << 20) >> 21).to_string());
    let ballast = Memory::pages(usize::try_from(spare()).unwrap() / PAGE + 1);
    ballast.fill(2);
    let result = shim.migrate(memory.range(), Place::System);
    drop(ballast);
    drop(huge_pages);
    swap(true);
    let error = stopped(result, |cause| matches!(cause, ShimError::OutOfMemory));
    let pages = shim.residency(memory.range()).unwrap().pages;
    assert_eq!(pages.private + pages.system, PAGES as u64, "{pages:?}");
    assert!(error.done.moved > 0 && pages.private > 0, "{error}: {pages:?}");
    memory.check_part(0, FILLED, 1);
    memory.check_part(PAGES - FILLED, FILLED, 1);
}

fn swap(on: bool) {
    let devices = std::fs::read_to_string("/proc/swaps").unwrap();
    static WERE: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let all = devices.lines().skip(1).filter_map(|line| Some(line.split_whitespace().next()?.to_owned()));
    let were = WERE.get_or_init(|| all.collect());
    for device in were {
        assert!(Command::new(if on { "swapon" } else { "swapoff" }).arg(device).status().unwrap().success());
    }
}

/// A number of /proc/meminfo, in bytes.
fn meminfo(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}
