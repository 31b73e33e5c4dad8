//! The interface to the letter, where it is about files: pools, probes and loads. Each errno of the header for what the
//! header says, and what is written back. What becomes of the data in each topology and file system is other tests'.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use common::child::{in_child, signal_of};
use common::ioctl::*;
use common::memory::{self, Memory, PAGE, page_bytes};
use common::{device, open, parameter, until};
use limosa_os::shim::uapi::*;
use limosa_os::shim::{Place, Shim};

const P: u64 = PAGE as u64;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// A pool of so many pages; the errno, if it is refused.
fn take(shim: &Shim, pages: u64) -> Result<OwnedFd, i32> {
    let mut arguments = limosa_pool { len: pages * P, ..pool() };
    call(shim.as_fd(), LIMOSA_POOL, &mut arguments)?;
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(arguments.fd) })
}

/// A mapping of pages of a pool; the errno, if it is refused.
fn map(pool: &OwnedFd, pages: usize, from: usize, protection: i32, flags: i32) -> Result<*mut u8, i32> {
    let offset = i64::try_from(from * PAGE).unwrap();
    // SAFETY: fresh addresses of the kernel's choice.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE, protection, flags, pool.as_raw_fd(), offset) };
    if at == libc::MAP_FAILED { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(at.cast()) }
}

fn word(at: *mut u8, page: usize) -> &'static std::sync::atomic::AtomicU64 {
    memory::word_at(limosa_model::HostAddr((at.addr() + page * PAGE) as u64))
}

fn store(at: *mut u8, page: usize, value: u64) {
    word(at, page).store(value, std::sync::atomic::Ordering::Relaxed);
}

fn read(at: *mut u8, page: usize) -> u64 {
    word(at, page).load(std::sync::atomic::Ordering::Relaxed)
}

/// Pages of a pattern on the disk, from its beginning on.
fn write_disk(pages: usize, seed: u64) {
    let disk = OpenOptions::new().write(true).open(DISK).unwrap();
    (0..pages).for_each(|page| disk.write_all_at(&page_bytes(seed, page), (page * PAGE) as u64).unwrap());
    disk.sync_all().unwrap();
}

/// A file by its name, and what a probe for reading says of it: verdict and reason, or an errno.
type Odd = (&'static str, File, Result<(u32, u32), i32>);

/// Files that are not open for reading, or from which nothing goes straight.
fn odd_files() -> Vec<Odd> {
    let temporary = std::env::temp_dir().join("odd-file");
    std::fs::write(&temporary, [1; 8192]).unwrap();
    let open = |flags: i32, path: &str| OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap();
    let direct = open(libc::O_DIRECT, temporary.to_str().unwrap());
    let buffered = open(0, temporary.to_str().unwrap());
    std::fs::remove_file(temporary).unwrap();
    let mut ends = [0; 2];
    // SAFETY: room for two numbers, which are nobody else's.
    let pipe = unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        libc::close(ends[1]);
        File::from_raw_fd(ends[0])
    };
    let only_written = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(DISK).unwrap();
    let staged = |reason| Ok((LIMOSA_VERDICT_STAGED, reason));
    vec![
        ("a name alone", open(libc::O_PATH, DISK), Err(libc::EBADF)),
        ("a disk for writing", only_written, Err(libc::EBADF)),
        ("a buffered disk", open(0, DISK), staged(LIMOSA_REASON_NOT_O_DIRECT)),
        ("a pipe", pipe, staged(LIMOSA_REASON_NOT_STORAGE)),
        ("a folder", open(0, "/"), Ok((LIMOSA_VERDICT_REFUSED, LIMOSA_REASON_NOT_STORAGE))),
        ("a device", open(0, "/dev/zero"), Ok((LIMOSA_VERDICT_UNKNOWN, LIMOSA_REASON_NOT_STORAGE))),
        ("a file in memory", direct, staged(LIMOSA_REASON_NO_BLOCK_DEVICE)),
        ("a buffered file in memory", buffered, staged(LIMOSA_REASON_NOT_O_DIRECT)),
    ]
}

#[test]
fn a_pool_of_no_pages_is_malformed_and_one_of_too_many_is_refused() {
    let shim = device();
    let before = shim.info().unwrap();
    for len in [0, 1, P - 1, P + 1, u64::MAX] {
        let mut arguments = limosa_pool { len, ..pool() };
        assert_eq!(call(shim.as_fd(), LIMOSA_POOL, &mut arguments), Err(libc::EINVAL), "{len:#x}");
        assert_eq!(arguments.fd, -7, "no descriptor is handed out");
    }
    for pages in [before.private.bytes / P + 1, before.private.free / P + 1, 1 << 40, (1 << 52) - 1] {
        assert_eq!(take(&shim, pages).unwrap_err(), libc::ENOSPC, "{pages:#x}");
    }
    shim.limit(20 * P).unwrap();
    assert_eq!(take(&shim, 21).unwrap_err(), libc::EDQUOT);
    let now = shim.info().unwrap();
    assert_eq!((now.used, now.private), (0, before.private), "nothing stays taken");
    let pool = take(&shim, 20).unwrap();
    assert_eq!(shim.info().unwrap().used, 20 * P);
    assert_eq!(take(&shim, 1).unwrap_err(), libc::EDQUOT);
    drop(pool);
    until("a pool is free", || shim.info().unwrap().used == 0);
}

#[test]
fn a_descriptor_that_cannot_be_had_leaves_nothing_taken() {
    let shim = device();
    // SAFETY: a limit of this process, and a number that is given back at once.
    let before = unsafe {
        let lowest = libc::dup(0);
        libc::close(lowest);
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        let few = libc::rlimit { rlim_cur: lowest.try_into().unwrap(), ..limit };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few), 0);
        limit
    };
    assert_eq!(take(&shim, 4).unwrap_err(), libc::EMFILE);
    // SAFETY: as above.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const before) };
    until("the pool is free", || shim.info().unwrap().used == 0);
}

#[test]
fn a_pool_is_zero_again_after_others_wrote_to_it() {
    // All of the device, so that the second is of the same pages as the first.
    let shim = open(1);
    let pages = shim.info().unwrap().private.free / P;
    for _ in 0..2 {
        let pool = take(&shim, pages).unwrap();
        let pages = usize::try_from(pages).unwrap();
        let at = map(&pool, pages, 0, RW, libc::MAP_SHARED).unwrap();
        for page in 0..pages {
            assert_eq!(read(at, page), 0, "page {page}");
            store(at, page, u64::MAX);
        }
        memory::unmap(at.addr(), pages * PAGE);
        drop(pool);
        until("the pool is free", || shim.info().unwrap().used == 0);
    }
}

#[test]
fn a_pool_is_mapped_shared_and_within_its_length() {
    let shim = device();
    let pool = take(&shim, 16).unwrap();
    // SAFETY: a question about a descriptor.
    assert_eq!(unsafe { libc::fcntl(pool.as_raw_fd(), libc::F_GETFD) } & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    for (pages, from, protection, flags, errno) in [
        (16, 0, RW, libc::MAP_PRIVATE, libc::EINVAL),
        (16, 0, RW | libc::PROT_EXEC, libc::MAP_SHARED, libc::EPERM),
        (17, 0, RW, libc::MAP_SHARED, libc::EINVAL),
        (1, 16, RW, libc::MAP_SHARED, libc::EINVAL),
        (16, 1, RW, libc::MAP_SHARED, libc::EINVAL),
        (1, 1 << 40, RW, libc::MAP_SHARED, libc::EINVAL),
    ] {
        let refused = map(&pool, pages, from, protection, flags);
        assert_eq!(refused, Err(errno), "{pages} {from} {protection} {flags}");
    }
    let (all, part) = (map(&pool, 16, 0, RW, libc::MAP_SHARED), map(&pool, 3, 13, RW, libc::MAP_SHARED));
    let (all, part) = (all.unwrap(), part.unwrap());
    store(all, 14, 77);
    assert_eq!(read(part, 1), 77, "the same page");
    // SAFETY: mappings of the test's own.
    unsafe {
        assert_eq!(libc::mprotect(part.cast(), PAGE, RW | libc::PROT_EXEC), -1);
        assert_eq!(libc::mremap(part.cast(), 3 * PAGE, 4 * PAGE, libc::MREMAP_MAYMOVE), libc::MAP_FAILED);
        assert_eq!(libc::mprotect(part.cast(), PAGE, libc::PROT_READ), 0);
    }
    assert_eq!(signal_of(|| store(part, 0, 1)), Some(libc::SIGSEGV), "it is not to be written");
    drop(pool);
    store(all, 14, 78);
    assert_eq!((read(part, 1), shim.info().unwrap().used), (78, 16 * P), "the mapping keeps the pool");
    memory::unmap(part.addr(), 3 * PAGE);
    memory::unmap(all.addr(), 16 * PAGE);
    until("the pool is free", || shim.info().unwrap().used == 0);
}

#[test]
fn a_pools_file_is_only_mapped() {
    let (shim, mut byte) = (device(), [0u8; 4096]);
    let pool = take(&shim, 1).unwrap();
    for request in [LIMOSA_INFO, LIMOSA_POOL, LIMOSA_PROBE, LIMOSA_LOAD, LIMOSA_POLICY, 0] {
        assert_eq!(call(pool.as_fd(), request, &mut [0u64; 16]), Err(libc::ENOTTY), "{request:#x}");
    }
    // SAFETY: a buffer of ours.
    unsafe {
        assert_eq!(libc::pread(pool.as_raw_fd(), byte.as_mut_ptr().cast(), 4096, 0), -1);
        assert_eq!(libc::pwrite(pool.as_raw_fd(), byte.as_ptr().cast(), 4096, 0), -1);
        assert_eq!(libc::ftruncate(pool.as_raw_fd(), 0), -1);
    }
}

#[test]
fn what_is_no_file_or_not_open_for_that_is_named_so() {
    let (shim, memory) = (device(), Memory::pages(2));
    for fd in [-1, 4000, i32::MIN, i32::MAX] {
        let mut arguments = limosa_probe { fd, size: size::<limosa_probe>(), ..Default::default() };
        assert_eq!(call(shim.as_fd(), LIMOSA_PROBE, &mut arguments), Err(libc::EBADF), "{fd}");
        let mut arguments = limosa_load { fd, ..load(&memory, &disk()) };
        assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut arguments), Err(libc::EBADF), "{fd}");
    }
    let only_read = File::open(DISK).unwrap();
    let mut arguments = limosa_probe { direction: LIMOSA_TO_FILE, ..probe(&only_read) };
    assert_eq!(call(shim.as_fd(), LIMOSA_PROBE, &mut arguments), Err(libc::EBADF));
    for (name, file, expected) in odd_files() {
        let mut arguments = probe(&file);
        let result = call(shim.as_fd(), LIMOSA_PROBE, &mut arguments);
        assert_eq!(result.map(|()| (arguments.verdict, arguments.reason)), expected, "{name}");
        let errno = expected.err().unwrap_or(libc::EOPNOTSUPP);
        let mut arguments = load(&memory, &file);
        assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut arguments), Err(errno), "{name}");
    }
    memory.is_in(&shim, None);
}

#[test]
fn a_probe_answers_in_full_whatever_was_there_before() {
    let (shim, disk) = (device(), disk());
    let junk = u32::MAX / 3;
    for direction in [LIMOSA_FROM_FILE, LIMOSA_TO_FILE] {
        let mut arguments = limosa_probe {
            direction,
            verdict: junk,
            reason: junk,
            route: junk,
            distance: junk,
            memory_align: junk,
            offset_align: junk,
            ..probe(&disk)
        };
        assert_eq!(call(shim.as_fd(), LIMOSA_PROBE, &mut arguments), Ok(()));
        assert_eq!((arguments.verdict, arguments.reason), (LIMOSA_VERDICT_DIRECT, LIMOSA_REASON_NONE));
        assert_eq!((arguments.route, arguments.distance), (LIMOSA_ROUTE_SWITCH, 4), "two ports of one switch");
        assert_eq!((arguments.memory_align, arguments.offset_align), (4, 512), "as NVMe disks have it");
        let (_, file, _) = odd_files().remove(3);
        let told = arguments;
        let mut arguments = limosa_probe { fd: file.as_raw_fd(), direction: LIMOSA_FROM_FILE, ..told };
        assert_eq!(call(shim.as_fd(), LIMOSA_PROBE, &mut arguments), Ok(()));
        assert_eq!((arguments.route, arguments.distance), (LIMOSA_ROUTE_NONE, 0));
        assert_eq!((arguments.memory_align, arguments.offset_align), (0, 0), "there is no direct I/O to a pipe");
    }
}

#[test]
fn a_load_of_a_bad_place_of_the_file_is_malformed() {
    let (shim, memory, disk) = (device(), Memory::pages(4), disk());
    for offset in [1, 511, 513, P - 1, 1 << 63, u64::MAX, (1 << 63) - 3 * P, i64::MAX as u64] {
        let mut arguments = limosa_load { offset, ..load(&memory, &disk) };
        assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut arguments), Err(libc::EINVAL), "{offset:#x}");
    }
    memory.is_in(&shim, None);
}

#[test]
fn a_load_into_what_is_not_mapped_or_not_written_is_a_fault() {
    let (shim, memory, disk) = (device(), Memory::pages(8), disk());
    memory.punch(5, 1);
    let mut arguments = load(&memory, &disk);
    assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut arguments), Err(libc::EFAULT));
    assert_eq!((arguments.cursor, arguments.bytes), (memory.range().start.0, 0), "it did not begin");
    memory.protect(3, 1, libc::PROT_READ);
    let range = memory.part(2, 3);
    let mut arguments = limosa_load { addr: range.start.0, len: range.len, ..load(&memory, &disk) };
    assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut arguments), Err(libc::EFAULT));
    memory.part_is_in(&shim, 0, 5, None);
}

#[test]
fn memory_that_cannot_stand_on_the_device_is_not_supported() {
    let (shim, disk) = (device(), disk());
    let of_file = memory::memory_file(4 * PAGE);
    let pool = take(&shim, 4).unwrap();
    let shared = Memory::of_file(-1, 4 * PAGE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    let others = [
        ("shared", shared),
        ("a file's", Memory::of_file(of_file.as_raw_fd(), 4 * PAGE, libc::MAP_SHARED)),
        ("a private file's", Memory::of_file(of_file.as_raw_fd(), 4 * PAGE, libc::MAP_PRIVATE)),
        ("a pool's", Memory::of_file(pool.as_raw_fd(), 4 * PAGE, libc::MAP_SHARED)),
    ];
    for (name, memory) in others {
        let mut arguments = load(&memory, &disk);
        assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut arguments), Err(libc::EOPNOTSUPP), "{name}");
        memory.check_zero();
    }
}

#[test]
fn a_load_tells_of_its_way_whatever_was_there_before() {
    const SEED: u64 = 3;
    write_disk(6, SEED);
    let (shim, memory, disk) = (device(), Memory::pages(6), disk());
    // One page is there already.
    memory.word(2, 0).store(9, std::sync::atomic::Ordering::Relaxed);
    let junk = u64::MAX / 3;
    let mut arguments = limosa_load {
        cursor: junk,
        bytes: junk,
        loaded: junk,
        loaded_huge: junk,
        copied: junk,
        ..load(&memory, &disk)
    };
    assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut arguments), Ok(()));
    let end = memory.range().start.0 + 6 * P;
    assert_eq!((arguments.cursor, arguments.bytes, arguments.size), (end, 6 * P, size::<limosa_load>()));
    assert_eq!((arguments.loaded, arguments.loaded_huge, arguments.copied), (5, 0, 1));
    memory.part_is_in(&shim, 0, 2, Some(Place::Private));
    memory.part_is_in(&shim, 2, 1, Some(Place::System));
    memory.part_is_in(&shim, 3, 3, Some(Place::Private));
    memory.check(SEED);
}

#[test]
fn a_load_ends_with_the_file_and_leaves_what_lies_behind() {
    let (shim, disk) = (device(), disk());
    let size = std::io::Seek::seek(&mut &disk, std::io::SeekFrom::End(0)).unwrap();
    for (offset, pages) in [(size - P, 1), (size, 0), (size + 8 * P, 0)] {
        let memory = Memory::pages(3);
        memory.fill_part(2, 1, 5);
        let mut arguments = limosa_load { offset, ..load(&memory, &disk) };
        assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut arguments), Ok(()), "{offset:#x}");
        let end = memory.range().start.0 + 3 * P;
        assert_eq!((arguments.cursor, arguments.bytes, arguments.loaded), (end, pages * P, pages), "{offset:#x}");
        memory.part_is_in(&shim, usize::try_from(pages).unwrap(), 1, None);
        memory.check_part(2, 1, 5);
    }
}

#[test]
fn a_load_that_does_not_fit_stops_where_it_is_full_and_goes_on() {
    const SEED: u64 = 8;
    write_disk(8, SEED);
    let (shim, memory, disk) = (device(), Memory::pages(8), disk());
    shim.limit(3 * P).unwrap();
    let mut arguments = load(&memory, &disk);
    assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut arguments), Err(libc::EDQUOT));
    let start = memory.range().start.0;
    assert_eq!((arguments.cursor, arguments.bytes, arguments.loaded), (start + 3 * P, 3 * P, 3));
    memory.part_is_in(&shim, 3, 5, None);
    shim.limit(u64::MAX).unwrap();
    let mut rest = limosa_load { addr: start + 3 * P, len: 5 * P, offset: 3 * P, ..load(&memory, &disk) };
    assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut rest), Ok(()));
    assert_eq!((rest.bytes, rest.loaded), (5 * P, 5));
    memory.check(SEED);
}

#[test]
fn a_child_may_use_its_parents_pool_but_not_its_device() {
    let (shim, memory, disk) = (device(), Memory::pages(2), disk());
    let pool_file = take(&shim, 2).unwrap();
    let at = map(&pool_file, 2, 0, RW, libc::MAP_SHARED).unwrap();
    store(at, 1, 5);
    in_child(|_| {
        assert_eq!(take(&shim, 1).unwrap_err(), libc::EPERM);
        assert_eq!(call(shim.as_fd(), LIMOSA_PROBE, &mut probe(&disk)), Err(libc::EPERM));
        assert_eq!(call(shim.as_fd(), LIMOSA_LOAD, &mut load(&memory, &disk)), Err(libc::EPERM));
        assert_eq!(read(at, 1), 5);
        let own = map(&pool_file, 2, 0, RW, libc::MAP_SHARED).unwrap();
        store(own, 1, 6);
    });
    assert_eq!(read(at, 1), 6, "it is the same memory");
    memory::unmap(at.addr(), 2 * PAGE);
}

#[test]
fn a_device_whose_memory_nobody_reaches_says_so() {
    let (memory, disk) = (Memory::pages(2), disk());
    let device = limosa_guest::device::list().unwrap().swap_remove(1);
    // All of it coherent, which has a struct page already.
    let all = parameter("coherent_mb", &(device.size >> 20).to_string());
    device.unbind().unwrap();
    device.bind("limosa").unwrap();
    let shim = open(1);
    let results = [
        take(&shim, 1).map(drop),
        call(shim.as_fd(), LIMOSA_LOAD, &mut load(&memory, &disk)),
        call(shim.as_fd(), LIMOSA_PROBE, &mut probe(&disk)),
    ];
    let p2p_bytes = shim.info().unwrap().p2p_bytes;
    drop((shim, all));
    device.unbind().unwrap();
    device.bind("limosa").unwrap();
    assert_eq!((results, p2p_bytes), ([Err(libc::EOPNOTSUPP); 3], 0));
}

#[test]
fn of_a_device_that_is_gone_everything_says_so() {
    let (shim, memory, disk) = (open(1), Memory::pages(2), disk());
    let pool_file = take(&shim, 2).unwrap();
    let at = map(&pool_file, 2, 0, RW, libc::MAP_SHARED).unwrap();
    store(at, 0, 1);
    let device = limosa_guest::device::list().unwrap().swap_remove(1);
    device.unbind().unwrap();
    let gone = [
        take(&shim, 1).map(drop),
        call(shim.as_fd(), LIMOSA_PROBE, &mut probe(&disk)),
        call(shim.as_fd(), LIMOSA_LOAD, &mut load(&memory, &disk)),
    ];
    let signal = signal_of(|| store(at, 0, 1));
    // SAFETY: memory of the test's own, or what was it.
    let read = unsafe { libc::pread(disk.as_raw_fd(), at.cast(), PAGE, 0) };
    let errno = std::io::Error::last_os_error().raw_os_error();
    device.bind("limosa").unwrap();
    assert_eq!(gone, [Err(libc::ENODEV); 3]);
    assert_eq!((signal, read, errno), (Some(libc::SIGBUS), -1, Some(libc::EFAULT)));
}

/// io_uring_setup() with room for one entry.
fn ring() -> OwnedFd {
    let mut parameters = [0u32; 30];
    // SAFETY: the kernel's struct has 120 bytes.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: just made, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

#[test]
fn a_pools_pages_are_not_held_for_long() {
    const REGISTER_BUFFERS: i32 = 0;
    let (shim, pipe) = (device(), std::io::pipe().unwrap());
    let pool = take(&shim, 2).unwrap();
    let at = map(&pool, 2, 0, RW, libc::MAP_SHARED).unwrap();
    store(at, 0, 1);
    let piece = libc::iovec { iov_base: at.cast(), iov_len: 2 * PAGE };
    let errno = |result: i64| if result < 0 { std::io::Error::last_os_error().raw_os_error() } else { None };
    let ring = ring();
    // SAFETY: memory of the test's own; one piece each.
    let results = unsafe {
        let registered =
            libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), REGISTER_BUFFERS, &raw const piece, 1);
        let registered = errno(registered);
        let spliced = errno(libc::vmsplice(pipe.1.as_raw_fd(), &raw const piece, 1, 0) as i64);
        [registered, spliced, errno(libc::mlock(at.cast(), 2 * PAGE).into())]
    };
    assert_eq!(results, [Some(libc::EREMOTEIO); 3], "registered, spliced, locked");
    memory::unmap(at.addr(), 2 * PAGE);
    drop(pool);
    until("the pool is free", || shim.info().unwrap().used == 0);
}
