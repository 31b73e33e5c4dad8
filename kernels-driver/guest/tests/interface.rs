//! The interface to the letter: each errno of the header for what the header says, structs of other sizes, and what is
//! written back. Raw calls, as a program in any language makes them.
#![allow(clippy::unwrap_used, non_camel_case_types)] // tests; the structs' own names

mod common;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use common::ioctl::*;
use common::memory::{Memory, PAGE};
use common::{device, open};
use limosa_os::shim::Policy;
use limosa_os::shim::uapi::*;

const P: u64 = PAGE as u64;

#[test]
fn every_request_takes_its_own_struct() {
    let (shim, memory, disk) = (device(), Memory::pages(4), disk());
    memory.fill(1);
    for sample in samples(&memory, &disk) {
        sample.call(shim.as_fd(), |_| ()).unwrap_or_else(|errno| panic!("{:#x}: {errno}", sample.request));
    }
}

#[test]
fn a_struct_shorter_than_the_first_version_is_malformed() {
    let (shim, memory, disk) = (device(), Memory::pages(4), disk());
    for sample in samples(&memory, &disk) {
        for size in [0, 4, 8, sample.first - 8, sample.first - 1] {
            let result = sample.call(shim.as_fd(), |words| set_size(words, size));
            assert_eq!(result.unwrap_err(), libc::EINVAL, "{:#x} with size {size}", sample.request);
        }
    }
}

#[test]
fn a_struct_of_an_earlier_version_is_answered_as_far_as_it_goes() {
    let (shim, memory, disk) = (device(), Memory::pages(4), disk());
    const KEPT: u64 = 0xfeed_beef;
    for sample in samples(&memory, &disk).into_iter().filter(|sample| sample.first < sample.words.len() * 8) {
        let after = sample.call(shim.as_fd(), |words| {
            words[sample.first / 8..].fill(KEPT);
            set_size(words, sample.first);
        });
        let after = after.unwrap_or_else(|errno| panic!("{:#x}: {errno}", sample.request));
        assert!(after[sample.first / 8..].iter().all(|word| *word == KEPT), "{:#x}: {after:x?}", sample.request);
    }
}

#[test]
fn a_longer_struct_is_taken_where_its_end_is_zero() {
    let (shim, memory, disk) = (device(), Memory::pages(4), disk());
    memory.fill(1);
    for sample in samples(&memory, &disk) {
        let longer = |words: &mut Vec<u64>, end: u64| {
            words.extend([0, 0, end]);
            let size = words.len() * 8;
            set_size(words, size);
        };
        let after = sample.call(shim.as_fd(), |words| longer(words, 0)).unwrap();
        assert_eq!(after[sample.words.len()..], [0; 3], "{:#x}", sample.request);
        for end in [1, 1 << 63] {
            let result = sample.call(shim.as_fd(), |words| longer(words, end));
            assert_eq!(result.unwrap_err(), libc::E2BIG, "{:#x}", sample.request);
        }
        let huge = sample.call(shim.as_fd(), |words| {
            words.resize(2 * PAGE / 8, 0);
            words[2 * PAGE / 8 - 1] = 1;
            set_size(words, 2 * PAGE);
        });
        assert_eq!(huge.unwrap_err(), libc::E2BIG, "{:#x}", sample.request);
    }
}

#[test]
fn flags_that_are_not_defined_are_not_supported() {
    let (shim, memory, disk) = (device(), Memory::pages(4), disk());
    let view = shim.view(memory.range(), Policy::Map).unwrap();
    for flag in [1u64, 1 << 31] {
        for sample in samples(&memory, &disk) {
            let result = sample.call(shim.as_fd(), |words| words[0] |= flag << 32);
            assert_eq!(result.unwrap_err(), libc::EOPNOTSUPP, "{:#x}", sample.request);
        }
        let mut arguments = policy(&memory);
        arguments.flags = u32::try_from(flag).unwrap();
        assert_eq!(call(view.as_fd(), LIMOSA_POLICY, &mut arguments), Err(libc::EOPNOTSUPP));
    }
}

#[test]
fn a_struct_that_is_not_mapped_is_a_fault() {
    let (shim, memory, disk) = (device(), Memory::pages(4), disk());
    let edge = Memory::pages(2);
    edge.punch(1, 1);
    for sample in samples(&memory, &disk) {
        for address in [0, 8, memory.range().start.0 + 8 * P, u64::MAX - 7] {
            // SAFETY: refused, as nothing is mapped there (8 pages further on was never mapped, or is not a struct).
            let result = unsafe { libc::ioctl(shim.as_fd().as_raw_fd(), sample.request.into(), address) };
            if address != memory.range().start.0 + 8 * P {
                assert_eq!(result, -1, "{:#x}", sample.request);
                assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EFAULT));
            }
        }
        // The size is there, the rest is not.
        let start = edge.part(0, 1).start.0 + P - 8;
        common::memory::word_at(limosa_model::HostAddr(start))
            .store(sample.words[0], std::sync::atomic::Ordering::Relaxed);
        // SAFETY: refused, as it is not all mapped.
        let result = unsafe { libc::ioctl(shim.as_fd().as_raw_fd(), sample.request.into(), start) };
        assert_eq!((result, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EFAULT)));
    }
}

#[test]
fn there_are_no_other_requests() {
    let (shim, memory) = (device(), Memory::pages(4));
    let view = shim.view(memory.range(), Policy::Map).unwrap();
    let mut none = [0u64; 32];
    for request in [LIMOSA_POLICY, LIMOSA_LOAD + 1, LIMOSA_INFO + 0xff, 0x8000_0000 + LIMOSA_INFO, 0, u32::MAX, 0x5401]
    {
        assert_eq!(call(shim.as_fd(), request, &mut none), Err(libc::ENOTTY), "{request:#x}");
    }
    for request in [LIMOSA_INFO, LIMOSA_MIGRATE, LIMOSA_VIEW, LIMOSA_LOAD, LIMOSA_POLICY + 1, 0] {
        assert_eq!(call(view.as_fd(), request, &mut none), Err(libc::ENOTTY), "{request:#x} on a view");
    }
}

#[test]
fn malformed_ranges_are_named_so_wherever_there_is_a_range() {
    let (shim, memory, disk) = (device(), Memory::pages(4), disk());
    let view_file = shim.view(memory.range(), Policy::Map).unwrap();
    let (start, end) = (memory.range().start.0, memory.range().start.0 + 4 * P);
    let bad = [
        (start + 1, P),
        (start, P + 1),
        (start, 0),
        (start, P - 1),
        (0, 1 << 63),
        (1 << 63, P),
        (end, u64::MAX - end + 1),
        (!(P - 1), P),
    ];
    for (addr, len) in bad {
        let what = format!("{addr:#x} + {len:#x}");
        let mut arguments = limosa_migrate { addr, len, ..migrate(&memory) };
        assert_eq!(call(shim.as_fd(), LIMOSA_MIGRATE, &mut arguments), Err(libc::EINVAL), "{what}");
        let mut arguments = limosa_residency { addr, len, ..residency(&memory) };
        assert_eq!(call(shim.as_fd(), LIMOSA_RESIDENCY, &mut arguments), Err(libc::EINVAL), "{what}");
        let mut arguments = limosa_view { addr, len, ..view(&memory) };
        assert_eq!(call(shim.as_fd(), LIMOSA_VIEW, &mut arguments), Err(libc::EINVAL), "{what}");
        assert_eq!(arguments.fd, -7, "no descriptor is handed out");
        let mut arguments = limosa_load { addr, len, ..load(&memory, &disk) };
        assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut arguments), Err(libc::EINVAL), "{what}");
        let mut arguments = limosa_policy { addr, len, ..policy(&memory) };
        assert_eq!(call(view_file.as_fd(), LIMOSA_POLICY, &mut arguments), Err(libc::EINVAL), "{what}");
    }
}

#[test]
fn values_that_are_not_listed_and_reserved_members_are_malformed() {
    let (shim, memory, disk) = (device(), Memory::pages(4), disk());
    let view_file = shim.view(memory.range(), Policy::Map).unwrap();
    for wrong in [LIMOSA_PLACE_COHERENT + 1, u32::MAX] {
        let mut arguments = limosa_migrate { to: wrong, ..migrate(&memory) };
        assert_eq!(call(shim.as_fd(), LIMOSA_MIGRATE, &mut arguments), Err(libc::EINVAL));
        let mut arguments = limosa_migrate { reserved: wrong, ..migrate(&memory) };
        assert_eq!(call(shim.as_fd(), LIMOSA_MIGRATE, &mut arguments), Err(libc::EINVAL));
        let counters = limosa_counters { size: size::<limosa_counters>(), ..Default::default() };
        let mut arguments = limosa_counters { scope: wrong, ..counters };
        assert_eq!(call(shim.as_fd(), LIMOSA_COUNTERS, &mut arguments), Err(libc::EINVAL));
        let mut arguments = limosa_counters { reserved: wrong, ..counters };
        assert_eq!(call(shim.as_fd(), LIMOSA_COUNTERS, &mut arguments), Err(libc::EINVAL));
        let mut arguments = limosa_probe { direction: wrong, ..probe(&disk) };
        assert_eq!(call(shim.as_fd(), LIMOSA_PROBE, &mut arguments), Err(libc::EINVAL));
        let mut arguments = limosa_pool { reserved: wrong, ..pool() };
        assert_eq!(call(shim.as_fd(), LIMOSA_POOL, &mut arguments), Err(libc::EINVAL));
        let mut arguments = limosa_load { reserved: wrong, ..load(&memory, &disk) };
        assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut arguments), Err(libc::EINVAL));
        let mut arguments = limosa_view { policy: wrong, ..view(&memory) };
        assert_eq!(call(shim.as_fd(), LIMOSA_VIEW, &mut arguments), Err(libc::EINVAL));
        let mut arguments = limosa_policy { policy: wrong, ..policy(&memory) };
        assert_eq!(call(view_file.as_fd(), LIMOSA_POLICY, &mut arguments), Err(libc::EINVAL));
        let mut arguments = limosa_policy { reserved: wrong, ..policy(&memory) };
        assert_eq!(call(view_file.as_fd(), LIMOSA_POLICY, &mut arguments), Err(libc::EINVAL));
    }
    memory.fill(1);
    memory.check(1);
}

#[test]
fn what_is_not_mapped_is_a_fault_with_the_cursor_before_it() {
    let (shim, memory) = (device(), Memory::pages(8));
    memory.fill(1);
    memory.punch(5, 3);
    let hole = memory.part(5, 1).start.0;
    let mut states = [0xeeu8; 8];
    let mut arguments = limosa_residency { states: states.as_mut_ptr().addr() as u64, ..residency(&memory) };
    assert_eq!(call(shim.as_fd(), LIMOSA_RESIDENCY, &mut arguments), Err(libc::EFAULT));
    assert_eq!((arguments.cursor, arguments.in_system, arguments.absent), (hole, 5, 0));
    assert_eq!(states[5..], [0xee; 3], "what was not dealt with is not written");
    let mut arguments = migrate(&memory);
    assert_eq!(call(shim.as_fd(), LIMOSA_MIGRATE, &mut arguments), Err(libc::EFAULT));
    assert_eq!((arguments.cursor, arguments.moved, arguments.left), (hole, 5, 0));
    assert_eq!((arguments.addr, arguments.len, arguments.size), (memory.range().start.0, 8 * P, 64));
}

#[test]
fn an_array_that_cannot_be_written_is_a_fault() {
    let (shim, memory) = (device(), Memory::pages(8));
    memory.fill(1);
    let array = Memory::pages(1);
    array.protect(0, 1, libc::PROT_READ);
    for states in [8, array.range().start.0, u64::MAX - 3, 1 << 63] {
        let mut arguments = limosa_residency { states, ..residency(&memory) };
        assert_eq!(call(shim.as_fd(), LIMOSA_RESIDENCY, &mut arguments), Err(libc::EFAULT), "{states:#x}");
        assert_eq!((arguments.cursor, arguments.in_system), (memory.range().start.0, 0));
    }
    // Into the very memory that is asked about: it is memory like any other.
    shim.migrate(memory.range(), limosa_os::shim::Place::Private).unwrap();
    let mut arguments = limosa_residency { states: memory.range().start.0, ..residency(&memory) };
    assert_eq!(call(shim.as_fd(), LIMOSA_RESIDENCY, &mut arguments), Ok(()));
    assert_eq!(arguments.in_private, 8);
}

#[test]
fn counts_alone_are_told_without_an_array() {
    let (shim, memory) = (device(), Memory::pages(8));
    memory.fill_part(0, 3, 1);
    let mut arguments = residency(&memory);
    assert_eq!(call(shim.as_fd(), LIMOSA_RESIDENCY, &mut arguments), Ok(()));
    assert_eq!((arguments.in_system, arguments.absent, arguments.cursor), (3, 5, memory.part(8, 0).start.0));
}

#[test]
fn what_a_caller_puts_into_answers_does_not_matter() {
    let (shim, memory) = (device(), Memory::pages(8));
    memory.fill(1);
    let junk = u64::MAX / 3;
    let mut arguments = limosa_migrate { cursor: junk, moved: junk, moved_huge: junk, left: junk, ..migrate(&memory) };
    assert_eq!(call(shim.as_fd(), LIMOSA_MIGRATE, &mut arguments), Ok(()));
    assert_eq!((arguments.moved, arguments.moved_huge, arguments.left), (8, 0, 0));
    let mut arguments = limosa_residency {
        cursor: junk,
        absent: junk,
        in_private: junk,
        in_system: junk,
        in_coherent: junk,
        ..residency(&memory)
    };
    assert_eq!(call(shim.as_fd(), LIMOSA_RESIDENCY, &mut arguments), Ok(()));
    assert_eq!((arguments.absent, arguments.in_system, arguments.in_private, arguments.in_coherent), (0, 0, 8, 0));
}

#[test]
fn memory_of_a_kind_that_the_device_lacks_is_not_supported() {
    let shim = open(1);
    let memory = Memory::pages(4);
    if shim.info().unwrap().coherent.bytes > 0 {
        let _none = common::parameter("coherent_mb", "0");
        let device = limosa_guest::device::list().unwrap().swap_remove(1);
        device.unbind().unwrap();
        device.bind("limosa").unwrap();
        let result = call(
            open(1).as_fd(),
            LIMOSA_MIGRATE,
            &mut limosa_migrate { to: LIMOSA_PLACE_COHERENT, ..migrate(&memory) },
        );
        drop(_none);
        device.unbind().unwrap();
        device.bind("limosa").unwrap();
        assert_eq!(result, Err(libc::EOPNOTSUPP));
    } else {
        let mut arguments = limosa_migrate { to: LIMOSA_PLACE_COHERENT, ..migrate(&memory) };
        assert_eq!(call(shim.as_fd(), LIMOSA_MIGRATE, &mut arguments), Err(libc::EOPNOTSUPP));
    }
}

#[test]
fn a_view_is_mapped_once_as_a_whole_and_shared() {
    let (shim, memory) = (device(), Memory::pages(16));
    let mut arguments = view(&memory);
    call(shim.as_fd(), LIMOSA_VIEW, &mut arguments).unwrap();
    // SAFETY: just made, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(arguments.fd) };
    // SAFETY: a question about a descriptor.
    assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) } & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    let map = |pages: usize, flags: i32, offset: usize| {
        let (protection, offset) = (libc::PROT_READ | libc::PROT_WRITE, i64::try_from(offset).unwrap());
        // SAFETY: fresh addresses of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE, protection, flags, fd.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(at) }
    };
    assert_eq!(map(8, libc::MAP_SHARED, 0), Err(libc::EINVAL), "a part");
    assert_eq!(map(32, libc::MAP_SHARED, 0), Err(libc::EINVAL), "more");
    assert_eq!(map(16, libc::MAP_SHARED, PAGE), Err(libc::EINVAL), "from elsewhere on");
    assert_eq!(map(16, libc::MAP_PRIVATE, 0), Err(libc::EINVAL), "private");
    let at = map(16, libc::MAP_SHARED, 0).unwrap();
    assert_eq!(map(16, libc::MAP_SHARED, 0), Err(libc::EBUSY), "twice");
    common::memory::unmap(at as usize, 16 * PAGE);
}

#[test]
fn a_view_is_not_mapped_over_its_own_range() {
    let (shim, memory) = (device(), Memory::pages(16));
    let mut arguments = view(&memory);
    call(shim.as_fd(), LIMOSA_VIEW, &mut arguments).unwrap();
    // SAFETY: just made, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(arguments.fd) };
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
    let at = memory.at(8).cast();
    // SAFETY: memory of the test's own, with room behind it (2 MiB are reserved at least).
    let mapped = unsafe { libc::mmap(at, 16 * PAGE, protection, flags, fd.as_raw_fd(), 0) };
    let errno = std::io::Error::last_os_error().raw_os_error();
    assert_eq!((mapped, errno), (libc::MAP_FAILED, Some(libc::EBUSY)));
}

#[test]
fn a_policy_outside_of_the_views_range_is_a_fault() {
    let (shim, memory) = (device(), Memory::pages(16));
    let mut small = view(&memory);
    (small.addr, small.len) = (memory.part(4, 1).start.0, 4 * P);
    call(shim.as_fd(), LIMOSA_VIEW, &mut small).unwrap();
    // SAFETY: just made, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(small.fd) };
    for (first, pages) in [(3, 2), (7, 2), (0, 1), (8, 1), (0, 16)] {
        let range = memory.part(first, pages);
        let mut arguments = limosa_policy { addr: range.start.0, len: range.len, ..policy(&memory) };
        assert_eq!(call(fd.as_fd(), LIMOSA_POLICY, &mut arguments), Err(libc::EFAULT), "{first} + {pages}");
    }
    let range = memory.part(5, 2);
    let mut arguments = limosa_policy { addr: range.start.0, len: range.len, ..policy(&memory) };
    assert_eq!(call(fd.as_fd(), LIMOSA_POLICY, &mut arguments), Ok(()));
}

#[test]
fn a_device_file_itself_is_neither_read_nor_mapped() {
    let shim = device();
    let mut byte = [0u8];
    // SAFETY: a buffer of ours, and fresh addresses of the kernel's choice.
    unsafe {
        let fd = shim.as_fd().as_raw_fd();
        assert_eq!(libc::read(fd, byte.as_mut_ptr().cast(), 1), -1);
        assert_eq!(libc::write(fd, byte.as_ptr().cast(), 1), -1);
        assert_eq!(libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0), libc::MAP_FAILED);
    }
}

#[test]
fn a_user_without_access_may_not_open_a_device() {
    common::child::in_child(|_| {
        // SAFETY: gives up this child's rights.
        unsafe {
            assert_eq!(libc::setgid(65534), 0);
            assert_eq!(libc::setuid(65534), 0);
        }
        let number = limosa_os::shim::devices()[0];
        let error = limosa_os::shim::Shim::open(number).unwrap_err();
        assert!(matches!(error, limosa_os::shim::ShimError::Forbidden { .. }), "{error}");
    });
}
