//! What a process does to its memory while pages of it are on the device: each system call means what it means in RAM.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::sync::atomic::Ordering;

use common::child::{Child, in_child, signal_of};
use common::memory::{Memory, PAGE, pattern};
use common::userfault::{SERVED, Userfault};
use common::{Since, device, freed_to};
use limosa_os::shim::{Migrated, Place};

#[test]
fn after_fork_the_child_writes_its_own_and_the_parent_keeps_its_own() {
    let shim = device();
    let before = shim.info().unwrap();
    for memory in [Memory::pages(64), Memory::huge(2)] {
        memory.fill(1);
        shim.migrate(memory.range(), Place::Private).unwrap();
        let mut child = Child::start(|parent| {
            memory.check_part(0, 20, 1);
            memory.fill_part(10, 30, 2);
            parent.tell();
            parent.wait();
            memory.check_part(0, 10, 1);
            memory.check_part(10, 30, 2);
            memory.check_part(40, memory.page_count() - 40, 1);
        });
        child.wait();
        memory.check(1);
        memory.fill(3);
        child.tell();
        child.succeeds();
        memory.check(3);
    }
    freed_to(&shim, &before);
}

#[test]
fn after_fork_the_parent_writes_first_and_the_child_keeps_what_was() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.fill(1);
    shim.migrate(memory.range(), Place::Private).unwrap();
    let mut child = Child::start(|parent| {
        parent.wait();
        memory.check(1);
    });
    memory.fill(2);
    child.tell();
    child.succeeds();
    memory.check(2);
}

#[test]
fn memory_shared_since_fork_moves_and_stays_each_sides_own() {
    let shim = device();
    for memory in [Memory::pages(64), Memory::huge(2)] {
        memory.fill(1);
        let mut child = Child::start(|parent| {
            parent.wait();
            let own = device();
            memory.check_part(0, 8, 1);
            own.migrate(memory.range(), Place::Private).unwrap();
            memory.fill_part(0, 32, 2);
            memory.check_part(0, 32, 2);
            memory.check_part(32, memory.page_count() - 32, 1);
            parent.tell();
            parent.wait();
        });
        shim.migrate(memory.range(), Place::Private).unwrap();
        child.tell();
        child.wait();
        memory.check(1);
        shim.migrate(memory.range(), Place::Private).unwrap();
        shim.migrate(memory.range(), Place::System).unwrap();
        memory.check(1);
        child.tell();
        child.succeeds();
    }
}

#[test]
fn what_is_on_the_device_outlives_the_process_that_moved_it() {
    let watching = device();
    let before = watching.info().unwrap();
    in_child(|_| {
        let memory = Memory::pages(64);
        memory.fill(1);
        let mut grandchild = Child::start(|parent| {
            // The middle process moves what both have, and is gone.
            parent.wait();
            memory.check(1);
        });
        device().migrate(memory.range(), Place::Private).unwrap();
        grandchild.tell();
        grandchild.succeeds();
    });
    freed_to(&watching, &before);
}

#[test]
fn mremap_takes_pages_on_the_device_along() {
    let shim = device();
    for memory in [Memory::pages(600), Memory::huge(1)] {
        memory.fill(1);
        shim.migrate(memory.range(), Place::Private).unwrap();
        let elsewhere = Memory::pages(memory.page_count());
        let (from, to, len) = (memory.at(0), elsewhere.at(0), memory.page_count() * PAGE);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both are memory of the test's own, and the target is given up to be replaced.
        let moved = unsafe { libc::mremap(from.cast(), len, len, flags, to) };
        assert_eq!(moved, to.cast());
        std::mem::forget(elsewhere);
        let memory = memory.moved_to(moved as usize);
        memory.is_in(&shim, Some(Place::Private));
        let since = Since::now(&shim);
        memory.check(1);
        assert_eq!(since.counted().cpu_fault_pages, memory.page_count() as u64);
    }
}

#[test]
fn munmap_of_a_part_gives_its_device_memory_back_and_keeps_the_rest() {
    let shim = device();
    let before = shim.info().unwrap();
    for memory in [Memory::pages(512), Memory::huge(1)] {
        memory.fill(1);
        shim.migrate(memory.range(), Place::Private).unwrap();
        memory.punch(100, 200);
        memory.part_is_in(&shim, 0, 100, Some(Place::Private));
        memory.check_part(0, 100, 1);
        memory.check_part(300, 212, 1);
        drop(memory);
        freed_to(&shim, &before);
    }
    let memory = Memory::pages(64);
    shim.migrate(memory.range(), Place::Private).unwrap();
    memory.punch(0, 48);
    assert_eq!(shim.info().unwrap().used, 16 * PAGE as u64);
}

#[test]
fn mprotect_binds_what_is_on_the_device() {
    let shim = device();
    for memory in [Memory::pages(64), Memory::huge(1)] {
        memory.fill(1);
        shim.migrate(memory.range(), Place::Private).unwrap();
        memory.protect(16, 16, libc::PROT_READ);
        memory.protect(32, 16, libc::PROT_NONE);
        let write = |page: usize| signal_of(|| memory.word(page, 0).store(0, Ordering::Relaxed));
        let read = |page: usize| {
            signal_of(|| {
                memory.word(page, 0).load(Ordering::Relaxed);
            })
        };
        assert_eq!((read(20), write(20)), (None, Some(libc::SIGSEGV)));
        assert_eq!((read(40), write(40)), (Some(libc::SIGSEGV), Some(libc::SIGSEGV)));
        assert_eq!((read(50), write(50)), (None, None));
        memory.check_part(0, 32, 1);
        memory.protect(0, memory.page_count(), libc::PROT_READ | libc::PROT_WRITE);
        memory.check(1);
        memory.fill(2);
        memory.check(2);
    }
}

#[test]
fn memory_protected_against_writing_comes_back_so() {
    let shim = device();
    let memory = Memory::pages(16);
    memory.fill(1);
    memory.protect(0, 16, libc::PROT_READ);
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap().moved, 16);
    memory.check(1);
    assert_eq!(signal_of(|| memory.word(3, 0).store(0, Ordering::Relaxed)), Some(libc::SIGSEGV));
    memory.check(1);
}

#[test]
fn dontneed_frees_device_memory_and_leaves_zeros() {
    let shim = device();
    for memory in [Memory::pages(512), Memory::huge(1)] {
        memory.fill(1);
        shim.migrate(memory.range(), Place::Private).unwrap();
        memory.advise_part(100, 50, libc::MADV_DONTNEED);
        memory.part_is_in(&shim, 100, 50, None);
        memory.part_is_in(&shim, 0, 100, Some(Place::Private));
        assert_eq!(memory.word(120, 5).load(Ordering::Relaxed), 0);
        memory.check_part(0, 100, 1);
        memory.check_part(150, 362, 1);
        memory.advise(libc::MADV_DONTNEED);
        freed_used(&shim, 0);
        memory.check_zero();
    }
}

fn freed_used(shim: &limosa_os::shim::Shim, bytes: u64) {
    common::until("device memory is given back", || shim.info().unwrap().used == bytes);
}

#[test]
fn memory_that_is_swapped_out_is_left_and_whole() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.fill(1);
    memory.advise_part(0, 32, libc::MADV_PAGEOUT);
    let pages = shim.residency(memory.range()).unwrap().pages;
    assert!(pages.absent > 0, "nothing was swapped out: {pages:?}");
    let done = shim.migrate(memory.range(), Place::Private).unwrap();
    assert_eq!(done, Migrated { moved: pages.system, moved_huge: 0, left: pages.absent });
    memory.check(1);
}

#[test]
fn locked_memory_moves_and_is_locked_when_it_is_back() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.fill(1);
    // SAFETY: memory of the test's own.
    assert_eq!(unsafe { libc::mlock(memory.at(0).cast(), 64 * PAGE) }, 0);
    let done = shim.migrate(memory.range(), Place::Private).unwrap();
    assert_eq!(done.moved + done.left, 64);
    assert!(done.moved > 0, "locked memory does not move");
    memory.check(1);
    memory.is_in(&shim, Some(Place::System));
    assert_eq!(status_kib("VmLck:"), 64 * PAGE as u64 / 1024);
    // mlock means mapped: swapping it out is refused.
    // SAFETY: advice on memory of the test's own.
    unsafe { libc::madvise(memory.at(0).cast(), 64 * PAGE, libc::MADV_PAGEOUT) };
    memory.is_in(&shim, Some(Place::System));
    // SAFETY: memory of the test's own.
    assert_eq!(unsafe { libc::munlock(memory.at(0).cast(), 64 * PAGE) }, 0);
    memory.check(1);
}

#[test]
fn mlock_brings_back_what_is_on_the_device() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.fill(1);
    shim.migrate(memory.range(), Place::Private).unwrap();
    // SAFETY: memory of the test's own.
    assert_eq!(unsafe { libc::mlock(memory.at(0).cast(), 64 * PAGE) }, 0);
    memory.is_in(&shim, Some(Place::System));
    memory.check(1);
}

/// A number of /proc/self/status, in KiB.
fn status_kib(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn a_userfaultfd_still_gets_the_faults_of_missing_pages() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.fill_part(0, 32, 1);
    let userfault = Userfault::on(memory.range());
    // What is missing is for the userfaultfd to fill, and not for the device.
    let done = shim.migrate(memory.range(), Place::Private).unwrap();
    assert_eq!(done, Migrated { moved: 32, moved_huge: 0, left: 32 });
    memory.check_part(0, 32, 1);
    assert_eq!(userfault.faults(), 0);
    assert_eq!(memory.word(40, 9).load(Ordering::Relaxed), SERVED);
    assert_eq!(userfault.faults(), 1);
    assert_eq!(shim.migrate(memory.part(40, 1), Place::Private).unwrap().moved, 1);
    assert_eq!(memory.word(40, 9).load(Ordering::Relaxed), SERVED);
    assert_eq!(userfault.faults(), 1);
}

#[test]
fn a_userfaultfds_write_protection_survives_the_way_to_the_device_and_back() {
    let shim = device();
    for bring_back in [false, true] {
        let memory = Memory::pages(16);
        memory.fill(1);
        let userfault = Userfault::on(memory.range());
        userfault.write_protect(memory.range());
        assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap().moved, 16);
        if bring_back {
            shim.migrate(memory.range(), Place::System).unwrap();
        }
        memory.check(1);
        assert_eq!(userfault.faults(), 0, "reading is no fault");
        memory.word(5, 0).store(77, Ordering::Relaxed);
        assert_eq!(userfault.faults(), 1, "a write to a protected page is told first");
        assert_eq!(memory.word(5, 0).load(Ordering::Relaxed), 77);
        assert_eq!(memory.word(5, 1).load(Ordering::Relaxed), pattern(1, 5, 1));
    }
}

#[test]
fn another_process_reads_and_writes_memory_on_the_device_by_system_calls() {
    let shim = device();
    let memory = Memory::pages(16);
    memory.fill(1);
    shim.migrate(memory.range(), Place::Private).unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    in_child(|_| {
        let mut bytes = vec![0u8; PAGE];
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: PAGE };
        let remote = libc::iovec { iov_base: memory.at(3).cast(), iov_len: PAGE };
        // SAFETY: reads into a buffer of the child's, and writes a page of the parent's, which expects it.
        unsafe {
            assert_eq!(libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0), 4096);
            assert_eq!(bytes, common::memory::page_bytes(1, 3));
            let remote = libc::iovec { iov_base: memory.at(4).cast(), iov_len: PAGE };
            assert_eq!(libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0), 4096);
        }
    });
    memory.check_part(0, 4, 1);
    memory.check_part(5, 11, 1);
    assert_eq!(memory.word(4, 8).load(Ordering::Relaxed), pattern(1, 3, 8));
}
