//! Pools as the buffers of direct I/O: what the disk writes stands in the device's memory as it is in the file, whatever
//! comes between, and nobody sees what another had there.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use common::child::Child;
use common::files::{Mounted, buffered, contents, direct, disk, put};
use common::memory::{Memory, PAGE, page_bytes};
use common::peer::{Pool, errno, forget, host_has, load, pool, read, traced, transfer, way, went_straight, write};
use common::{device, freed_to, open, stopped, until};
use limosa_guest::host;
use limosa_guest::trace::Tally;
use limosa_os::shim::{Place, ShimError};

/// What is read of the disk: enough for several requests, and no multiple of what one of them takes.
const PAGES: usize = 1100;

/// The data disk with the pages of `seed`, which are not in the page cache.
fn filled(pages: usize, seed: u64) -> File {
    put(&disk(), pages, seed);
    forget();
    direct(&disk())
}

#[test]
fn the_disk_writes_a_pools_pages_itself_and_the_host_finds_them_there() {
    let (shim, file) = (device(), filled(PAGES, 1));
    let pool = Pool::new(&shim, PAGES);
    pool.memory.fill(!1);
    let (got, commands) = traced(|| read(&file, &pool.memory));
    assert_eq!(got.unwrap(), PAGES * PAGE);
    went_straight(&commands, PAGES * PAGE);
    host_has(&commands, PAGES, 1);
    pool.memory.check(1);
}

#[test]
fn what_is_in_system_memory_is_seen_as_that() {
    let (shim, file) = (device(), filled(PAGES, 2));
    let outside = Tally { inside: 0, outside: (PAGES * PAGE) as u64 };
    let memory = Memory::pages(PAGES);
    let (got, commands) = traced(|| read(&file, &memory));
    assert_eq!((got.unwrap(), way(&commands, false)), (PAGES * PAGE, outside), "a direct read to system memory");
    memory.check(2);
    let pool = Pool::new(&shim, PAGES);
    let (got, commands) = traced(|| read(&buffered(&disk()), &pool.memory));
    assert_eq!(got.unwrap(), PAGES * PAGE);
    let way = way(&commands, false);
    assert!(way.inside == 0 && way.outside >= outside.outside, "a read to a pool through the page cache: {way:?}");
    pool.memory.check(2);
}

/// One read to system memory, and from its middle on to a pool, of a file with the pages of `seed`: it has all of it then.
/// What of it was where when the disk wrote it.
fn read_to_both(file: &File, seed: u64) -> Tally {
    const HALF: usize = 128;
    let shim = device();
    let (pool, memory) = (Pool::new(&shim, HALF), Memory::pages(HALF));
    let part = |memory: &Memory| {
        // SAFETY: memory of the test's own that nobody else refers to before the call has ended.
        IoSliceMut::new(unsafe { std::slice::from_raw_parts_mut(memory.at(0), HALF * PAGE) })
    };
    let mut parts = [part(&memory), part(&pool.memory)];
    let count = i32::try_from(parts.len()).unwrap();
    // SAFETY: slices are laid out as the system has them.
    let (got, commands) = traced(|| unsafe { libc::preadv(file.as_raw_fd(), parts.as_mut_ptr().cast(), count, 0) });
    assert_eq!(got, (2 * HALF * PAGE).cast_signed());
    memory.check(seed);
    for page in 0..HALF {
        assert!(bytes(&pool.memory, page) == page_bytes(seed, HALF + page), "page {page} of the pool");
    }
    way(&commands, false)
}

#[test]
fn one_read_of_a_file_fills_system_memory_and_a_pool() {
    let mounted = Mounted::ext4(&disk());
    let file = mounted.pages("file", 256, 3);
    forget();
    let half = (128 * PAGE) as u64;
    assert_eq!(read_to_both(&file, 3), Tally { inside: half, outside: half });
}

#[test]
fn one_read_of_a_disk_goes_on_through_the_page_cache_where_the_pool_begins() {
    // So the kernel does with a short direct read of a disk: that a call succeeds says nothing of its way.
    let all = (256 * PAGE) as u64;
    assert_eq!(read_to_both(&filled(256, 3), 3), Tally { inside: 0, outside: all });
}

/// The bytes of a page.
fn bytes(memory: &Memory, page: usize) -> Vec<u8> {
    (0..PAGE / 8).flat_map(|word| memory.word(page, word).load(Ordering::Relaxed).to_ne_bytes()).collect()
}

#[test]
fn blocks_of_512_bytes_come_where_they_are_to_and_their_neighbours_stay() {
    let (shim, file) = (device(), filled(8, 4));
    let (pool, all) = (Pool::new(&shim, 4), contents(8, 4));
    for (at, len, offset) in
        [(0, 512, 512), (512, 512, 0), (1024, 1536, 5120), (3584, 4096 + 512, 7 * 512), (4, 512, 0)]
    {
        pool.memory.fill(!4);
        let (got, commands) = traced(|| transfer(&file, &pool.memory, at..at + len, offset as u64, false));
        assert_eq!(got.unwrap(), len, "{len} bytes of {offset} to {at}");
        went_straight(&commands, len);
        let mut expected: Vec<u8> = (0..4).flat_map(|page| page_bytes(!4, page)).collect();
        expected[at..at + len].copy_from_slice(&all[offset..offset + len]);
        let found: Vec<u8> = (0..4).flat_map(|page| bytes(&pool.memory, page)).collect();
        assert!(found == expected, "{len} bytes of {offset} to {at}");
    }
    // What is no multiple of a block, direct I/O refuses.
    assert_eq!(errno(transfer(&file, &pool.memory, 0..100, 0, false)), libc::EINVAL);
    assert_eq!(errno(transfer(&file, &pool.memory, 0..512, 100, false)), libc::EINVAL);
}

#[test]
fn what_a_pool_has_is_written_to_the_disk_by_the_disk() {
    let (shim, file) = (device(), filled(PAGES, 5));
    let pool = Pool::new(&shim, PAGES);
    pool.memory.fill(6);
    let (put, commands) = traced(|| write(&file, &pool.memory));
    assert_eq!(put.unwrap(), PAGES * PAGE);
    assert_eq!(way(&commands, true), Tally { inside: (PAGES * PAGE) as u64, outside: 0 });
    host_has(&commands, PAGES, 6);
    let memory = Memory::pages(PAGES);
    read(&file, &memory).unwrap();
    memory.check(6);
}

#[test]
fn memory_that_a_pool_gave_back_is_another_processs_without_a_trace_of_it() {
    let (shim, file) = (device(), filled(512, 9));
    let before = shim.info().unwrap();
    let pool = Pool::new(&shim, 512);
    read(&file, &pool.memory).unwrap();
    drop(pool);
    freed_to(&shim, &before);
    common::child::in_child(|_| {
        let shim = device();
        let all = usize::try_from(shim.info().unwrap().private.free).unwrap() / PAGE;
        let pool = Pool::new(&shim, all);
        let traces = (0..all).filter(|page| pool.memory.word(*page, 1).load(Ordering::Relaxed) != 0);
        assert_eq!(traces.count(), 0);
    });
}

#[test]
fn pools_and_pages_count_against_the_same_limit() {
    let shim = device();
    shim.limit(64 * PAGE as u64).unwrap();
    let own = Pool::new(&shim, 40);
    let memory = Memory::pages(25);
    memory.fill(1);
    let why = stopped(shim.migrate(memory.range(), Place::Private), |why| matches!(why, ShimError::LimitReached));
    assert_eq!(why.done.moved, 24);
    assert_eq!(errno(pool(&shim, PAGE)), libc::EDQUOT);
    memory.check(1);
    drop((memory, own));
    until("nothing is in use", || shim.info().unwrap().used == 0);
    drop(Pool::new(&shim, 64));
}

#[test]
fn pools_and_pages_have_the_same_memory_between_them() {
    let shim = open(1);
    let before = shim.info().unwrap();
    let free = usize::try_from(before.private.free).unwrap() / PAGE;
    let pool = Pool::new(&shim, free - 100);
    pool.memory.fill_part(0, 50, 1);
    let memory = Memory::pages(200);
    memory.fill(2);
    let why = stopped(shim.migrate(memory.range(), Place::Private), |why| matches!(why, ShimError::DeviceFull));
    assert_eq!(why.done.moved, 100, "as much as is free");
    assert_eq!(errno(self::pool(&shim, PAGE)), libc::ENOSPC);
    memory.check(2);
    pool.memory.check_part(0, 50, 1);
    drop(pool);
    until("the pool is free", || shim.info().unwrap().private.free >= (free - 200) as u64 * PAGE as u64);
    shim.migrate(memory.range(), Place::Private).unwrap();
    memory.is_in(&shim, Some(Place::Private));
    assert_eq!(errno(self::pool(&shim, free * PAGE)), libc::ENOSPC);
    memory.check(2);
    drop(memory);
    freed_to(&shim, &before);
}

#[test]
fn a_child_shares_its_parents_pool() {
    let (shim, file) = (device(), filled(300, 1));
    let pool = Pool::new(&shim, 300);
    pool.memory.fill(2);
    let mut child = Child::start(|parent| {
        pool.memory.check(2);
        let (got, commands) = traced(|| read(&file, &pool.memory));
        assert_eq!(got.unwrap(), 300 * PAGE);
        went_straight(&commands, 300 * PAGE);
        parent.tell();
        parent.wait();
        pool.memory.check(3);
    });
    child.wait();
    pool.memory.check(1);
    pool.memory.fill(3);
    child.tell();
    child.succeeds();
}

#[test]
fn two_processes_with_pools_and_loads_never_see_each_others_data() {
    const ROUNDS: usize = 12;
    let file = filled(1024, 1);
    let workers: Vec<Child> = (0..2)
        .map(|own| {
            Child::start(|_| {
                let shim = device();
                for round in 0..ROUNDS {
                    let first = (own * 512 + round * 7) % 768;
                    let pool = Pool::new(&shim, 256);
                    pool.memory.check_zero();
                    transfer(&file, &pool.memory, 0..256 * PAGE, (first * PAGE) as u64, false).unwrap();
                    let memory = Memory::pages(256);
                    load(&shim, memory.range(), &file, (first * PAGE) as u64).unwrap();
                    for page in 0..256 {
                        let expected = page_bytes(1, first + page);
                        assert!(bytes(&pool.memory, page) == expected, "page {page} of a pool in round {round}");
                        assert!(bytes(&memory, page) == expected, "page {page} of a load in round {round}");
                    }
                }
            })
        })
        .collect();
    workers.into_iter().for_each(Child::succeeds);
}

#[test]
fn a_part_of_a_pool_is_a_buffer_too_as_far_as_it_may_be_written() {
    let (shim, file) = (device(), filled(16, 1));
    let pool = Pool::new(&shim, 16);
    let map = |pages: usize, rights: i32, first: usize| {
        Memory::mapped(pool.fd.as_raw_fd(), first * PAGE, pages * PAGE, rights, libc::MAP_SHARED).unwrap()
    };
    let part = map(8, libc::PROT_READ | libc::PROT_WRITE, 4);
    read(&file, &part).unwrap();
    for page in 0..8 {
        assert!(bytes(&pool.memory, 4 + page) == page_bytes(1, page), "page {page} of a part");
    }
    let fixed = map(8, libc::PROT_READ, 0);
    assert_eq!(errno(read(&file, &fixed)), libc::EFAULT);
    // The mappings outlive the descriptor.
    drop(pool.fd);
    read(&file, &pool.memory).unwrap();
    pool.memory.check(1);
}

#[test]
fn a_pool_that_is_unmapped_under_a_transfer_is_nobody_elses_before_the_transfer_ends() {
    let (shim, file) = (device(), filled(PAGES, 1));
    let before = shim.info().unwrap();
    let pool = Pool::new(&shim, PAGES);
    let bytes = (PAGES * PAGE) as u64;
    let tracing = host::Tracing::new().unwrap();
    let hold = host::Hold::new().unwrap();
    std::thread::scope(|scope| {
        let memory = &pool.memory;
        let reader = scope.spawn(|| transfer(&file, memory, 0..PAGES * PAGE, 0, false));
        until("requests are under way", || tracing.commands().unwrap().len() > 1);
        memory.punch(0, PAGES);
        drop(pool.fd);
        // All that is free is others' meanwhile; none of it may be what the disk is about to write.
        let free = shim.info().unwrap().private.free;
        assert!(free <= before.private.free - bytes / 2, "memory of a transfer is free: {free}");
        let others = Pool::new(&device(), usize::try_from(free).unwrap() / PAGE);
        assert!(!reader.is_finished());
        drop(hold);
        // What was not pinned when it went is not there to be read to.
        let got = reader.join().unwrap();
        assert!(
            got.as_ref().is_ok_and(|got| *got > 0)
                || got.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT)),
            "{got:?}"
        );
        others.memory.check_zero();
    });
    freed_to(&shim, &before);
}

#[test]
fn a_process_that_is_killed_under_a_transfer_leaves_nothing_behind() {
    let (shim, file) = (device(), filled(PAGES, 1));
    let before = shim.info().unwrap();
    let tracing = host::Tracing::new().unwrap();
    let hold = host::Hold::new().unwrap();
    let mut child = Child::start(|parent| {
        let pool = Pool::new(&device(), PAGES);
        parent.tell();
        let _ = transfer(&file, &pool.memory, 0..PAGES * PAGE, 0, false);
    });
    child.wait();
    until("requests are under way", || tracing.commands().unwrap().len() > 1);
    child.kill();
    assert!(shim.info().unwrap().private.free < before.private.free);
    drop(hold);
    assert_eq!(child.ended(), Err(libc::SIGKILL));
    freed_to(&shim, &before);
    Pool::new(&shim, usize::try_from(before.private.free).unwrap() / PAGE).memory.check_zero();
}

#[test]
fn a_fork_under_a_transfer_takes_nothing_from_it() {
    let (shim, file) = (device(), filled(PAGES, 1));
    let pool = Pool::new(&shim, PAGES);
    pool.memory.fill(2);
    let tracing = host::Tracing::new().unwrap();
    let hold = host::Hold::new().unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| transfer(&file, &pool.memory, 0..PAGES * PAGE, 0, false));
        until("requests are under way", || tracing.commands().unwrap().len() > 1);
        let mut child = Child::start(|parent| {
            parent.wait();
            pool.memory.check(1);
        });
        drop(hold);
        assert_eq!(reader.join().unwrap().unwrap(), PAGES * PAGE);
        child.tell();
        child.succeeds();
    });
    pool.memory.check(1);
}

#[test]
fn a_file_that_ends_within_a_pool_is_read_to_its_end() {
    let (shim, mounted) = (device(), Mounted::ext4(&disk()));
    let path = mounted.file("odd");
    let len = 5 * PAGE + 123;
    std::fs::write(&path, &contents(6, 1)[..len]).unwrap();
    forget();
    let pool = Pool::new(&shim, 8);
    pool.memory.fill(2);
    let (got, commands) = traced(|| transfer(&direct(&path), &pool.memory, 0..8 * PAGE, 0, false));
    assert_eq!(got.unwrap(), len);
    assert_eq!(way(&commands, false).outside, 0);
    pool.memory.check_part(0, 5, 1);
    assert_eq!(bytes(&pool.memory, 5)[..123], page_bytes(1, 5)[..123]);
    // What is behind that in the buffer is the kernel's to leave or to clear, as in system memory.
}
