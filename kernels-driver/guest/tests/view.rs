//! The mirror: what an access through a view sees and does, in contents, places and counts of faults. The threads that use
//! a view here stand for the device's.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::child::{Child, signal_of};
use common::memory::{Memory, PAGE, memory_file, pattern, unmap, word_at};
use common::userfault::{SERVED, Userfault};
use common::{Since, device};
use limosa_os::shim::{Place, Policy, Shim, ShimError, View};
use std::sync::atomic::AtomicU64;

/// A word of `memory` as the view shows it.
fn seen<'a>(view: &View, memory: &Memory, page: usize, word: usize) -> &'a AtomicU64 {
    let address = memory.part(page, 1).start.offset(word as u64 * 8);
    word_at(view.address_of(address).unwrap())
}

fn check_through(view: &View, memory: &Memory, seed: u64) {
    for page in 0..memory.page_count() {
        for word in (0..512).step_by(73) {
            assert_eq!(
                seen(view, memory, page, word).load(Ordering::Relaxed),
                pattern(seed, page, word),
                "page {page}"
            );
        }
    }
}

#[test]
fn a_view_shows_memory_where_it_is_and_moves_nothing_under_the_policy_map() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.fill(1);
    shim.migrate(memory.part(0, 32), Place::Private).unwrap();
    let view = shim.view(memory.range(), Policy::Map).unwrap();
    assert_eq!(view.mirrored(), memory.range());
    let since = Since::now(&shim);
    check_through(&view, &memory, 1);
    let counted = since.counted();
    assert_eq!((counted.gpu_pages_moved, counted.pages_to_device, counted.cpu_faults), (0, 0, 0));
    assert_eq!(counted.gpu_fault_pages, 64);
    assert!((1..=64).contains(&counted.gpu_faults), "{counted:?}");
    memory.part_is_in(&shim, 0, 32, Some(Place::Private));
    memory.part_is_in(&shim, 32, 32, Some(Place::System));
}

#[test]
fn under_the_policy_migrate_an_access_brings_the_memory_to_the_device() {
    let shim = device();
    for memory in [Memory::pages(256), Memory::huge(2)] {
        memory.fill(1);
        let view = shim.view(memory.range(), Policy::Migrate).unwrap();
        let since = Since::now(&shim);
        check_through(&view, &memory, 1);
        let counted = since.counted();
        assert_eq!(counted.gpu_pages_moved, memory.page_count() as u64);
        assert_eq!(counted.pages_to_device, memory.page_count() as u64);
        assert!(counted.gpu_faults * 8 <= memory.page_count() as u64, "{counted:?}");
        memory.is_in(&shim, Some(Place::Private));
        memory.check(1);
    }
}

#[test]
fn huge_memory_moves_as_one_for_an_access_through_a_view() {
    let shim = device();
    let memory = Memory::huge(2);
    memory.fill(1);
    let view = shim.view(memory.range(), Policy::Migrate).unwrap();
    let since = Since::now(&shim);
    seen(&view, &memory, 700, 0).load(Ordering::Relaxed);
    let counted = since.counted();
    assert_eq!((counted.gpu_pages_moved, counted.huge_to_device), (512, 1));
    memory.part_is_in(&shim, 0, 512, Some(Place::System));
    memory.part_is_in(&shim, 512, 512, Some(Place::Private));
}

#[test]
fn in_the_steady_state_accesses_take_no_faults() {
    let shim = device();
    for policy in [Policy::Map, Policy::Migrate] {
        let memory = Memory::pages(512);
        memory.fill(1);
        let view = shim.view(memory.range(), policy).unwrap();
        // The first write to each page may be told.
        (0..512).for_each(|page| seen(&view, &memory, page, 1).store(pattern(1, page, 1), Ordering::Relaxed));
        let since = Since::now(&shim);
        for _ in 0..20 {
            check_through(&view, &memory, 1);
            (0..512).for_each(|page| seen(&view, &memory, page, 1).store(pattern(1, page, 1), Ordering::Relaxed));
        }
        let counted = since.counted();
        assert_eq!((counted.gpu_faults, counted.invalidations, counted.cpu_faults), (0, 0, 0), "{policy:?}");
        if policy == Policy::Map {
            // RAM that both map: neither takes it from the other.
            memory.check(1);
            assert_eq!(since.counted().gpu_faults + since.counted().cpu_faults, 0);
        }
    }
}

#[test]
fn cpu_and_view_see_each_others_writes_whoever_has_the_page() {
    let shim = device();
    for policy in [Policy::Map, Policy::Migrate] {
        for memory in [Memory::pages(64), Memory::huge(1)] {
            let view = shim.view(memory.range(), policy).unwrap();
            for round in 1..20u64 {
                for page in (0..memory.page_count()).step_by(13) {
                    memory.word(page, 0).store(round, Ordering::Relaxed);
                    assert_eq!(seen(&view, &memory, page, 0).load(Ordering::Relaxed), round);
                    seen(&view, &memory, page, 1).store(round + 1, Ordering::Relaxed);
                    assert_eq!(memory.word(page, 1).load(Ordering::Relaxed), round + 1);
                }
            }
        }
    }
}

#[test]
fn atomic_additions_of_cpu_and_view_threads_are_all_there_while_pages_move() {
    const PAGES: usize = 32;
    const ADDITIONS: u64 = 15_000;
    let shim = device();
    for policy in [Policy::Map, Policy::Migrate] {
        let memory = Memory::pages(PAGES);
        let view = shim.view(memory.range(), policy).unwrap();
        let done = AtomicBool::new(false);
        let since = Since::now(&shim);
        std::thread::scope(|scope| {
            let (shim, memory, view, done) = (&shim, &memory, &view, &done);
            let mover = scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    shim.migrate(memory.range(), Place::Private).unwrap();
                    shim.migrate(memory.range(), Place::System).unwrap();
                }
            });
            let adders: Vec<_> = (0..4u64)
                .map(|number| {
                    scope.spawn(move || {
                        for i in 0..ADDITIONS {
                            let page = usize::try_from(i.wrapping_mul(7 + number) % PAGES as u64).unwrap();
                            let word = if number % 2 == 0 { memory.word(page, 3) } else { seen(view, memory, page, 3) };
                            word.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            adders.into_iter().for_each(|thread| thread.join().unwrap());
            done.store(true, Ordering::Relaxed);
            mover.join().unwrap();
        });
        let sum: u64 = (0..PAGES).map(|page| memory.word(page, 3).load(Ordering::Relaxed)).sum();
        assert_eq!(sum, 4 * ADDITIONS);
        assert!(since.counted().invalidations > 0);
    }
}

#[test]
fn a_policy_holds_for_its_part_of_the_range() {
    let shim = device();
    let memory = Memory::pages(256);
    memory.fill(1);
    let view = shim.view(memory.range(), Policy::Map).unwrap();
    view.set_policy(memory.part(96, 48), Policy::Migrate).unwrap();
    check_through(&view, &memory, 1);
    memory.part_is_in(&shim, 0, 96, Some(Place::System));
    memory.part_is_in(&shim, 96, 48, Some(Place::Private));
    memory.part_is_in(&shim, 144, 112, Some(Place::System));
    view.set_policy(memory.range(), Policy::Map).unwrap();
    shim.migrate(memory.range(), Place::System).unwrap();
    check_through(&view, &memory, 1);
    memory.is_in(&shim, Some(Place::System));
}

#[test]
fn a_page_that_both_sides_fight_over_is_left_where_both_map_it() {
    const ROUNDS: u64 = 300;
    let shim = device();
    let memory = Memory::pages(16);
    memory.fill(1);
    let view = shim.view(memory.range(), Policy::Migrate).unwrap();
    let since = Since::now(&shim);
    let start = Instant::now();
    for round in 0..ROUNDS {
        seen(&view, &memory, 4, 0).store(round, Ordering::Relaxed);
        assert_eq!(memory.word(4, 0).fetch_add(1, Ordering::Relaxed), round);
        assert_eq!(seen(&view, &memory, 4, 0).load(Ordering::Relaxed), round + 1);
    }
    let counted = since.counted();
    assert!(counted.gpu_moves_held > 0, "{counted:?}");
    assert!(counted.cpu_faults < ROUNDS / 4, "{counted:?} in {:?}", start.elapsed());
}

#[test]
fn where_the_device_is_full_a_view_maps_system_memory() {
    let shim = device();
    shim.limit(8 * PAGE as u64).unwrap();
    let memory = Memory::pages(64);
    memory.fill(1);
    let view = shim.view(memory.range(), Policy::Migrate).unwrap();
    let since = Since::now(&shim);
    check_through(&view, &memory, 1);
    let counted = since.counted();
    assert!(counted.gpu_moves_full > 0 && counted.gpu_pages_moved <= 8, "{counted:?}");
    let pages = shim.residency(memory.range()).unwrap().pages;
    assert!(pages.private <= 8 && pages.private + pages.system == 64, "{pages:?}");
    seen(&view, &memory, 63, 0).store(5, Ordering::Relaxed);
    assert_eq!(memory.word(63, 0).load(Ordering::Relaxed), 5);
}

/// The signal of a child's own view when it reads or writes a word of it.
fn signal_through(memory: &Memory, page: usize, write: bool, prepare: impl FnOnce(&Shim)) -> Option<i32> {
    signal_of(|| {
        let shim = device();
        let view = shim.view(memory.range(), Policy::Migrate).unwrap();
        prepare(&shim);
        let word = seen(&view, memory, page, 0);
        if write {
            word.store(1, Ordering::Relaxed);
        } else {
            word.load(Ordering::Relaxed);
        }
    })
}

#[test]
fn the_rights_of_the_memory_bind_the_view() {
    let memory = Memory::pages(64);
    memory.fill(1);
    memory.protect(16, 16, libc::PROT_READ);
    memory.protect(32, 16, libc::PROT_NONE);
    for on_device in [false, true] {
        let place = |shim: &Shim| {
            if on_device {
                shim.migrate(memory.range(), Place::Private).unwrap();
            }
        };
        for (page, write, signal) in [
            (0, false, None),
            (0, true, None),
            (20, false, None),
            (20, true, Some(libc::SIGSEGV)),
            (40, false, Some(libc::SIGSEGV)),
            (40, true, Some(libc::SIGSEGV)),
        ] {
            assert_eq!(signal_through(&memory, page, write, place), signal, "page {page}, write: {write}, {on_device}");
        }
    }
    memory.check_part(0, 32, 1);
}

#[test]
fn rights_that_change_bind_from_then_on() {
    let memory = Memory::pages(16);
    memory.fill(1);
    let signal = |before: i32, after: i32, write: bool| {
        signal_of(|| {
            let shim = device();
            let view = shim.view(memory.range(), Policy::Migrate).unwrap();
            memory.protect(0, 16, before);
            seen(&view, &memory, 3, 0).load(Ordering::Relaxed);
            if before & libc::PROT_WRITE != 0 {
                seen(&view, &memory, 3, 0).store(3, Ordering::Relaxed);
            }
            memory.protect(0, 16, after);
            let word = seen(&view, &memory, 3, 0);
            if write {
                word.store(4, Ordering::Relaxed);
            } else {
                word.load(Ordering::Relaxed);
            }
        })
    };
    let (read, write) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE);
    assert_eq!(signal(write, read, true), Some(libc::SIGSEGV));
    assert_eq!(signal(write, read, false), None);
    assert_eq!(signal(write, libc::PROT_NONE, false), Some(libc::SIGSEGV));
    assert_eq!(signal(read, write, true), None);
    memory.check(1);
}

#[test]
fn what_is_unmapped_is_not_to_be_seen_any_more() {
    let memory = Memory::pages(64);
    memory.fill(1);
    let unmap_after_a_look = |page: usize| {
        signal_of(|| {
            let shim = device();
            let view = shim.view(memory.range(), Policy::Migrate).unwrap();
            check_through(&view, &memory, 1);
            memory.punch(16, 16);
            seen(&view, &memory, page, 0).load(Ordering::Relaxed);
        })
    };
    assert_eq!(unmap_after_a_look(20), Some(libc::SIGSEGV));
    assert_eq!((unmap_after_a_look(15), unmap_after_a_look(32)), (None, None));
}

#[test]
fn a_view_follows_what_becomes_of_its_range() {
    let shim = device();
    for policy in [Policy::Map, Policy::Migrate] {
        let memory = Memory::pages(64);
        memory.fill(1);
        let view = shim.view(memory.range(), policy).unwrap();
        check_through(&view, &memory, 1);
        // Given up: zeros.
        memory.advise_part(8, 8, libc::MADV_DONTNEED);
        assert_eq!(seen(&view, &memory, 10, 0).load(Ordering::Relaxed), 0);
        // Replaced by other memory.
        let other = Memory::pages(8);
        other.fill(2);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both are memory of the test's own; the target is to be replaced.
        let moved = unsafe { libc::mremap(other.at(0).cast(), 8 * PAGE, 8 * PAGE, flags, memory.at(24)) };
        assert_eq!(moved, memory.at(24).cast());
        std::mem::forget(other);
        for page in 0..8 {
            assert_eq!(seen(&view, &memory, 24 + page, 9).load(Ordering::Relaxed), pattern(2, page, 9));
        }
        // Swapped out: back again.
        // SAFETY: advice on memory of the test's own.
        unsafe { libc::madvise(memory.at(40).cast(), 8 * PAGE, libc::MADV_PAGEOUT) };
        for page in 40..48 {
            assert_eq!(seen(&view, &memory, page, 9).load(Ordering::Relaxed), pattern(1, page, 9));
        }
    }
}

#[test]
fn a_view_may_be_made_before_its_memory() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.punch(0, 64);
    let view = shim.view(memory.range(), Policy::Migrate).unwrap();
    assert!(
        view.range().start.0.abs_diff(memory.range().start.0) >= (64 * PAGE) as u64,
        "the view is beside its range"
    );
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: nothing is mapped there.
    let mapped =
        unsafe { libc::mmap(memory.at(0).cast(), 64 * PAGE, protection, flags | libc::MAP_FIXED_NOREPLACE, -1, 0) };
    assert_eq!(mapped, memory.at(0).cast());
    // The view makes the pages, on the device.
    seen(&view, &memory, 5, 0).store(7, Ordering::Relaxed);
    memory.part_is_in(&shim, 5, 1, Some(Place::Private));
    assert_eq!(memory.word(5, 0).load(Ordering::Relaxed), 7);
    assert_eq!(memory.word(6, 0).load(Ordering::Relaxed), 0);
}

#[test]
fn a_view_shows_shared_memory_and_files_where_they_are() {
    let shim = device();
    let file = memory_file(16 * PAGE);
    let memory = Memory::of_file(file.as_raw_fd(), 16 * PAGE, libc::MAP_SHARED);
    memory.fill(1);
    let view = shim.view(memory.range(), Policy::Migrate).unwrap();
    check_through(&view, &memory, 1);
    seen(&view, &memory, 3, 0).store(9, Ordering::Relaxed);
    assert_eq!(memory.word(3, 0).load(Ordering::Relaxed), 9);
    let mut bytes = [0u8; 8];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 3 * PAGE as u64).unwrap();
    assert_eq!(u64::from_ne_bytes(bytes), 9);
    // Beyond the file's end there is nothing.
    let beyond = signal_of(|| {
        let shim = device();
        let view = shim.view(memory.range(), Policy::Map).unwrap();
        seen(&view, &memory, 12, 0).load(Ordering::Relaxed);
        file.set_len(8 * PAGE as u64).unwrap();
        seen(&view, &memory, 12, 0).load(Ordering::Relaxed);
    });
    assert_eq!(beyond, Some(libc::SIGBUS));
}

#[test]
fn after_fork_the_view_shows_the_parents_memory_alone() {
    let shim = device();
    for policy in [Policy::Map, Policy::Migrate] {
        for memory in [Memory::pages(64), Memory::huge(1)] {
            memory.fill(1);
            let view = shim.view(memory.range(), policy).unwrap();
            check_through(&view, &memory, 1);
            let mut child = Child::start(|parent| {
                parent.tell();
                parent.wait();
                memory.check(1);
                memory.fill(3);
                parent.tell();
                parent.wait();
                memory.check(3);
            });
            child.wait();
            (0..memory.page_count()).for_each(|page| seen(&view, &memory, page, 0).store(2, Ordering::Relaxed));
            child.tell();
            child.wait();
            for page in 0..memory.page_count() {
                assert_eq!(memory.word(page, 0).load(Ordering::Relaxed), 2);
                assert_eq!(seen(&view, &memory, page, 1).load(Ordering::Relaxed), pattern(1, page, 1));
            }
            child.tell();
            child.succeeds();
        }
    }
}

#[test]
fn a_userfaultfd_of_the_range_serves_accesses_through_the_view() {
    let shim = device();
    for policy in [Policy::Map, Policy::Migrate] {
        let memory = Memory::pages(32);
        let userfault = Userfault::on(memory.range());
        let view = shim.view(memory.range(), policy).unwrap();
        assert_eq!(seen(&view, &memory, 7, 3).load(Ordering::Relaxed), SERVED);
        seen(&view, &memory, 8, 3).store(4, Ordering::Relaxed);
        assert_eq!(memory.word(8, 3).load(Ordering::Relaxed), 4);
        assert_eq!(memory.word(8, 4).load(Ordering::Relaxed), SERVED);
        assert_eq!(userfault.faults(), 2);
        userfault.write_protect(memory.part(7, 2));
        assert_eq!(seen(&view, &memory, 7, 3).load(Ordering::Relaxed), SERVED);
        assert_eq!(userfault.faults(), 2);
        seen(&view, &memory, 7, 3).store(6, Ordering::Relaxed);
        assert_eq!(userfault.faults(), 3, "{policy:?}: a write through the view is told first");
        assert_eq!(memory.word(7, 3).load(Ordering::Relaxed), 6);
    }
}

#[test]
fn a_view_cannot_be_mirrored() {
    let shim = device();
    let memory = Memory::pages(16);
    memory.fill(1);
    let view = shim.view(memory.range(), Policy::Map).unwrap();
    let again = shim.view(view.range(), Policy::Map);
    assert!(matches!(again, Err(ShimError::Occupied { .. })), "{again:?}");
    // Nor moved.
    let error = shim.migrate(view.range(), Place::Private);
    assert!(error.is_err() || error.unwrap().moved == 0);
    check_through(&view, &memory, 1);
}

#[test]
fn several_views_of_one_range_show_the_same() {
    let shim = device();
    let memory = Memory::pages(64);
    memory.fill(1);
    let views = [
        shim.view(memory.range(), Policy::Map).unwrap(),
        shim.view(memory.range(), Policy::Migrate).unwrap(),
        device().view(memory.part(16, 32), Policy::Map).unwrap(),
    ];
    for round in 0..30u64 {
        for (number, view) in views.iter().enumerate() {
            seen(view, &memory, 20, 0).store(round * 10 + number as u64, Ordering::Relaxed);
            for other in &views {
                assert_eq!(seen(other, &memory, 20, 0).load(Ordering::Relaxed), round * 10 + number as u64);
            }
        }
    }
}

#[test]
fn a_view_cannot_be_split_or_moved() {
    let shim = device();
    let memory = Memory::pages(16);
    memory.fill(1);
    let view = shim.view(memory.range(), Policy::Map).unwrap();
    check_through(&view, &memory, 1);
    let start = view.range().start.0 as *mut libc::c_void;
    // SAFETY: calls on the view's own range, which are refused.
    unsafe {
        assert_eq!(libc::munmap(start, 4 * PAGE), -1);
        assert_eq!(libc::mprotect(start, 4 * PAGE, libc::PROT_READ), -1);
        assert_eq!(
            libc::mremap(start, 16 * PAGE, 16 * PAGE, libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP),
            libc::MAP_FAILED
        );
        assert_eq!(libc::mremap(start, 16 * PAGE, 32 * PAGE, libc::MREMAP_MAYMOVE), libc::MAP_FAILED);
    }
    check_through(&view, &memory, 1);
}

#[test]
fn system_calls_use_a_view_and_direct_io_refuses_it() {
    use std::io::{Read, Write};
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let shim = device();
    let memory = Memory::pages(16);
    memory.fill(1);
    let view = shim.view(memory.range(), Policy::Migrate).unwrap();
    let bytes = 8 * PAGE;
    // SAFETY: the view is memory; nobody else uses it meanwhile.
    let through = unsafe { std::slice::from_raw_parts_mut(view.range().start.0 as *mut u8, bytes) };
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&through[..4 * PAGE]).unwrap();
    reader.read_exact(&mut through[4 * PAGE..]).unwrap();
    memory.check_part(0, 4, 1);
    assert_eq!(memory.word(6, 5).load(Ordering::Relaxed), pattern(1, 2, 5));
    let mut options = std::fs::OpenOptions::new();
    let disk = options.read(true).write(true).custom_flags(libc::O_DIRECT).open("/run/limosa-data").unwrap();
    let error = disk.read_at(through, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
}

#[test]
fn a_view_that_is_gone_and_memory_that_is_gone_leave_each_other_alone() {
    let shim = device();
    for order in 0..3 {
        let memory = Memory::huge(1);
        memory.fill(1);
        let view = shim.view(memory.range(), Policy::Migrate).unwrap();
        check_through(&view, &memory, 1);
        match order {
            0 => {
                drop(view);
                memory.check(1);
            }
            1 => {
                drop(memory);
                drop(view);
            }
            _ => {
                // Mapped, with no descriptor of its own left.
                let (start, len) = (view.range().start, view.range().len);
                // SAFETY: the descriptor is closed twice, of which the second may fail; nothing else opens one meanwhile.
                unsafe { libc::close(view.as_fd().as_raw_fd()) };
                assert_eq!(word_at(start).load(Ordering::Relaxed), pattern(1, 0, 0));
                std::mem::forget(view);
                unmap(usize::try_from(start.0).unwrap(), usize::try_from(len).unwrap());
            }
        }
    }
}

#[test]
fn a_view_of_a_very_large_range_costs_what_is_used_of_it() {
    let shim = device();
    let (len, flags) = (1usize << 40, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: fresh memory at an address of the kernel's choice.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    assert_ne!(base, libc::MAP_FAILED);
    let start = limosa_model::HostAddr(base as u64);
    let view = shim.view(limosa_model::HostRange { start, len: len as u64 }, Policy::Migrate).unwrap();
    let began = Instant::now();
    for step in 0..64u64 {
        let address = start.offset(step * (len as u64 / 64));
        word_at(view.address_of(address).unwrap()).store(step, Ordering::Relaxed);
        assert_eq!(word_at(address).load(Ordering::Relaxed), step);
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    drop(view);
    unmap(base as usize, len);
}
