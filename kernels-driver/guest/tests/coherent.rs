//! DEVICE_COHERENT: device memory that the CPU uses where it is.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::memory::{HUGE, Memory, PAGE};
use common::{Since, child, device, stopped};
use limosa_os::shim::{Migrated, Place, ShimError};

fn moved(pages: u64) -> Migrated {
    Migrated { moved: pages, ..Migrated::default() }
}

#[test]
fn coherent_memory_is_used_by_the_cpu_where_it_is_without_faults() {
    let shim = device();
    let before = shim.info().unwrap();
    let memory = Memory::pages(128);
    memory.fill(1);
    let since = Since::now(&shim);
    assert_eq!(shim.migrate(memory.range(), Place::Coherent).unwrap(), moved(128));
    memory.check(1);
    memory.fill(2);
    memory.check(2);
    memory.is_in(&shim, Some(Place::Coherent));
    let counted = since.counted();
    assert_eq!((counted.pages_to_device, counted.cpu_faults, counted.pages_to_system), (128, 0, 0));
    let there = shim.info().unwrap();
    assert_eq!(before.coherent.free - there.coherent.free, 128 * PAGE as u64);
    assert_eq!((there.private.free, there.used), (before.private.free, 128 * PAGE as u64));
    assert_eq!(shim.migrate(memory.range(), Place::System).unwrap(), moved(128));
    memory.is_in(&shim, Some(Place::System));
    memory.check(2);
    assert_eq!(shim.info().unwrap().coherent.free, before.coherent.free);
}

#[test]
fn huge_memory_becomes_coherent_page_by_page() {
    let shim = device();
    let memory = Memory::huge(1);
    memory.fill(1);
    assert_eq!(shim.migrate(memory.range(), Place::Coherent).unwrap(), moved(512));
    memory.check(1);
    assert_eq!(shim.migrate(memory.range(), Place::System).unwrap(), moved(512));
    memory.check(1);
}

#[test]
fn to_the_system_brings_back_both_kinds() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.fill(1);
    shim.migrate(memory.part(0, 20), Place::Private).unwrap();
    shim.migrate(memory.part(30, 20), Place::Coherent).unwrap();
    let pages = shim.residency(memory.range()).unwrap().pages;
    assert_eq!((pages.private, pages.coherent, pages.system), (20, 20, 24));
    let back = shim.migrate(memory.range(), Place::System).unwrap();
    assert_eq!((back.moved, back.left), (40, 24));
    memory.is_in(&shim, Some(Place::System));
    memory.check(1);
}

#[test]
fn full_coherent_memory_stops_the_move() {
    let shim = device();
    let free = usize::try_from(shim.info().unwrap().coherent.free).unwrap() / PAGE;
    let memory = Memory::pages(free + 64);
    let error = stopped(shim.migrate(memory.range(), Place::Coherent), |cause| matches!(cause, ShimError::DeviceFull));
    assert_eq!((error.done.moved, error.cursor), (free as u64, memory.part(free, 1).start));
    assert_eq!(shim.info().unwrap().coherent.free, 0);
    memory.fill(1);
    memory.check(1);
    memory.part_is_in(&shim, 0, free, Some(Place::Coherent));
}

#[test]
fn after_fork_both_sides_have_their_own_coherent_memory() {
    let shim = device();
    let memory = Memory::pages(32);
    memory.fill(1);
    shim.migrate(memory.range(), Place::Coherent).unwrap();
    let mut other = child::Child::start(|parent| {
        memory.check(1);
        memory.fill_part(0, 16, 2);
        parent.tell();
        parent.wait();
        memory.check_part(0, 16, 2);
        memory.check_part(16, 16, 1);
    });
    other.wait();
    memory.check(1);
    memory.fill(3);
    other.tell();
    other.succeeds();
    memory.check(3);
}

#[test]
fn coherent_memory_handed_out_holds_nothing_of_another_process() {
    let shim = device();
    let all = usize::try_from(shim.info().unwrap().coherent.free).unwrap();
    assert!(all >= HUGE);
    let before = shim.info().unwrap();
    child::in_child(|_| {
        let memory = Memory::pages(all / PAGE);
        memory.fill(0xdead);
        device().migrate(memory.range(), Place::Coherent).unwrap();
    });
    common::until("the child's memory is free", || shim.info().unwrap().coherent.free == before.coherent.free);
    let memory = Memory::pages(all / PAGE);
    shim.migrate(memory.range(), Place::Coherent).unwrap();
    memory.is_in(&shim, Some(Place::Coherent));
    memory.check_zero();
}
