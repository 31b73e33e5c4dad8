//! Pools, probes and loads as the kernel has them, and how their data went: what a test does is traced, and compared with
//! what PROBE has said.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use limosa_guest::trace::{Command, Tally, tally};
use limosa_guest::{device, host};
use limosa_model::HostRange;
use limosa_os::shim::Shim;
use limosa_os::shim::uapi::{
    LIMOSA_FROM_FILE, LIMOSA_LOAD, LIMOSA_POOL, LIMOSA_PROBE, LIMOSA_ROUTE_NONE, LIMOSA_TO_FILE, LIMOSA_VERDICT_DIRECT,
    LIMOSA_VERDICT_REFUSED, LIMOSA_VERDICT_STAGED, LIMOSA_VERDICT_UNKNOWN, limosa_load, limosa_pool, limosa_probe,
};

use super::ioctl;
use super::memory::{Memory, PAGE, page_bytes, pattern};

/// A pool, all of which is mapped.
pub struct Pool {
    pub fd: OwnedFd,
    pub memory: Memory,
}

impl Pool {
    pub fn new(shim: &Shim, pages: usize) -> Self {
        Self::of(shim, pages).unwrap_or_else(|error| panic!("a pool of {pages} pages: {error}"))
    }

    pub fn of(shim: &Shim, pages: usize) -> io::Result<Self> {
        let fd = pool(shim, pages * PAGE)?;
        let memory = Memory::of_file(fd.as_raw_fd(), pages * PAGE, libc::MAP_SHARED);
        Ok(Self { fd, memory })
    }
}

/// LIMOSA_POOL.
pub fn pool(shim: &Shim, bytes: usize) -> io::Result<OwnedFd> {
    let mut arguments = limosa_pool { len: bytes as u64, ..ioctl::pool() };
    call(shim, LIMOSA_POOL, &mut arguments)?;
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(arguments.fd) })
}

/// LIMOSA_PROBE.
pub fn probe(shim: &Shim, file: &File, direction: u32) -> io::Result<limosa_probe> {
    let mut arguments = limosa_probe { direction, ..ioctl::probe(file) };
    call(shim, LIMOSA_PROBE, &mut arguments).map(|()| arguments)
}

/// LIMOSA_LOAD, once: what it tells, also of an error.
pub fn load_once(shim: &Shim, to: HostRange, file: &File, offset: u64) -> (limosa_load, io::Result<()>) {
    let (size, fd) = (ioctl::size::<limosa_load>(), file.as_raw_fd());
    let mut arguments = limosa_load { size, addr: to.start.0, len: to.len, offset, fd, ..Default::default() };
    let result = call(shim, LIMOSA_LOAD, &mut arguments);
    (arguments, result)
}

/// LIMOSA_LOAD, on and on where a signal came between.
pub fn load(shim: &Shim, to: HostRange, file: &File, offset: u64) -> io::Result<limosa_load> {
    let (mut sum, mut rest) = (limosa_load { cursor: to.start.0, ..Default::default() }, to);
    loop {
        let (told, result) = load_once(shim, rest, file, offset + (rest.start.0 - to.start.0));
        sum.bytes += told.bytes;
        sum.loaded += told.loaded;
        sum.loaded_huge += told.loaded_huge;
        sum.copied += told.copied;
        sum.cursor = told.cursor;
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                rest.len -= told.cursor - rest.start.0;
                rest.start.0 = told.cursor;
            }
            other => return other.map(|()| sum),
        }
    }
}

fn call<T>(shim: &Shim, request: u32, arguments: &mut T) -> io::Result<()> {
    ioctl::call(shim.as_fd(), request, arguments).map_err(io::Error::from_raw_os_error)
}

/// The error number of what failed.
pub fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

/// One call of pread() or pwrite() on memory of a test's own.
pub fn transfer(file: &File, memory: &Memory, bytes: Range<usize>, offset: u64, write: bool) -> io::Result<usize> {
    assert!(bytes.end <= memory.page_count() * PAGE);
    transfer_at(file, memory.at(0).wrapping_add(bytes.start), bytes.len(), offset, write)
}

/// The same by address.
pub fn transfer_at(file: &File, at: *mut u8, len: usize, offset: u64, write: bool) -> io::Result<usize> {
    let (fd, at, offset) = (file.as_raw_fd(), at.cast(), libc::off_t::try_from(offset).unwrap());
    // SAFETY: within memory of the test's own, which it sees as atomics, or that nobody else uses now.
    let done = unsafe { if write { libc::pwrite(fd, at, len, offset) } else { libc::pread(fd, at, len, offset) } };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// All of a memory, from the file's beginning on: short reads go on. How much came.
pub fn read(file: &File, memory: &Memory) -> io::Result<usize> {
    all(file, memory, false)
}

pub fn write(file: &File, memory: &Memory) -> io::Result<usize> {
    all(file, memory, true)
}

fn all(file: &File, memory: &Memory, write: bool) -> io::Result<usize> {
    let (len, mut done) = (memory.page_count() * PAGE, 0);
    while done < len {
        match transfer(file, memory, done..len, done as u64, write)? {
            0 => break,
            more => done += more,
        }
    }
    Ok(done)
}

/// Does something, and tells what the data disk was asked to do meanwhile.
pub fn traced<T>(action: impl FnOnce() -> T) -> (T, Vec<Command>) {
    let tracing = host::Tracing::new().unwrap();
    let result = action();
    (result, tracing.commands().unwrap())
}

/// Where the data of reads, or of writes, lay: inside the first device's memory, or outside.
pub fn way(commands: &[Command], write: bool) -> Tally {
    let memory = device::list().unwrap()[0].memory();
    tally(commands.iter().filter(|command| command.write == write), &memory)
}

/// Fails unless so many bytes were read, all of them by the disk into the device.
pub fn went_straight(commands: &[Command], bytes: usize) {
    assert_eq!(way(commands, false), Tally { inside: bytes as u64, outside: 0 }, "bytes that the disk wrote where");
}

/// Fails unless the pages of a file that `Memory::fill` of `seed` would make are each in the first device's memory once,
/// where the disk wrote them: the host looks into its own file.
pub fn host_has(commands: &[Command], pages: usize, seed: u64) {
    let memory = device::list().unwrap()[0].memory();
    let mut wanted: HashMap<u64, usize> = (0..pages).map(|page| (pattern(seed, page, 0), page)).collect();
    for piece in joined(commands) {
        let bytes = host::vram(0, piece.start - memory.start, piece.end - piece.start).unwrap();
        for found in bytes.chunks(PAGE) {
            let first = u64::from_ne_bytes(found[..8].try_into().unwrap());
            let page = wanted.remove(&first).unwrap_or_else(|| panic!("{first:#x} begins no page that is missing"));
            assert!(found == page_bytes(seed, page), "page {page} is not as in the file");
        }
    }
    assert!(wanted.is_empty(), "{} pages are not in the device's memory", wanted.len());
}

/// The memory of commands, neighbours as one.
fn joined(commands: &[Command]) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for piece in commands.iter().flat_map(|command| &command.memory) {
        match joined.last_mut() {
            Some(last) if last.end == piece.start && piece.end - last.start <= 8 << 20 => last.end = piece.end,
            _ => joined.push(piece.clone()),
        }
    }
    joined
}

/// What is on the disk is not in the page cache.
pub fn forget() {
    // SAFETY: takes nothing.
    unsafe { libc::sync() };
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// Fails unless a read of the file's pages into a pool, which are as `Memory::fill` of `seed` has them, and a load go as PROBE
/// says. What it said.
pub fn reads_go_as_told(shim: &Shim, file: &File, pages: usize, seed: u64) -> limosa_probe {
    let pool = Pool::new(shim, pages);
    pool.memory.fill(!seed);
    forget();
    let told = probe(shim, file, LIMOSA_FROM_FILE).unwrap();
    let (read, commands) = traced(|| read(file, &pool.memory));
    let way = way(&commands, false);
    match told.verdict {
        LIMOSA_VERDICT_DIRECT => {
            assert_eq!(read.unwrap(), pages * PAGE, "{told:?}");
            went_straight(&commands, pages * PAGE);
            host_has(&commands, pages, seed);
            pool.memory.check(seed);
        }
        LIMOSA_VERDICT_STAGED => {
            assert_eq!(read.unwrap(), pages * PAGE, "{told:?}");
            // Where there is a way, the disk has it, and the CPU works on what came.
            assert!(way.inside == 0 || told.route != LIMOSA_ROUTE_NONE, "{told:?} {way:?}");
            pool.memory.check(seed);
        }
        LIMOSA_VERDICT_REFUSED => {
            let error = read.unwrap_err();
            assert!(error.raw_os_error().is_some(), "{told:?}");
            assert_eq!(way.inside, 0, "{told:?}");
            pool.memory.check(!seed);
        }
        _ => {
            assert_eq!(told.verdict, LIMOSA_VERDICT_UNKNOWN);
            // What it says it did it has done.
            if read.is_ok_and(|got| got == pages * PAGE) {
                pool.memory.check(seed);
            }
        }
    }
    drop(pool);
    load_goes_as_told(shim, file, &told, pages, seed);
    told
}

fn load_goes_as_told(shim: &Shim, file: &File, told: &limosa_probe, pages: usize, seed: u64) {
    let memory = Memory::pages(pages);
    forget();
    let (loaded, commands) = traced(|| load(shim, memory.range(), file, 0));
    if told.verdict != LIMOSA_VERDICT_DIRECT {
        assert_eq!(errno(loaded), libc::EOPNOTSUPP, "{told:?}");
        memory.is_in(shim, None);
        return;
    }
    let loaded = loaded.unwrap();
    assert_eq!((loaded.loaded, loaded.copied, loaded.bytes), (pages as u64, 0, (pages * PAGE) as u64), "{loaded:?}");
    // Where no way is known, a block is read to see whether there is one.
    let tried = if told.route == LIMOSA_ROUTE_NONE { told.offset_align as usize } else { 0 };
    went_straight(&commands, pages * PAGE + tried);
    host_has(&commands[usize::from(tried > 0)..], pages, seed);
    memory.is_in(shim, Some(limosa_os::shim::Place::Private));
    memory.check(seed);
}

/// Fails unless a write of a pool to the file, which is read again through the page cache, goes as PROBE says. What it
/// said.
pub fn writes_go_as_told(shim: &Shim, file: &File, again: &File, pages: usize, seed: u64) -> limosa_probe {
    let pool = Pool::new(shim, pages);
    pool.memory.fill(seed);
    forget();
    let told = probe(shim, file, LIMOSA_TO_FILE).unwrap();
    let (written, commands) = traced(|| {
        let written = write(file, &pool.memory);
        file.sync_all().unwrap();
        written
    });
    let way = way(&commands, true);
    match told.verdict {
        LIMOSA_VERDICT_DIRECT => {
            assert_eq!(written.unwrap(), pages * PAGE, "{told:?}");
            // What file systems write beside it comes out of system memory.
            assert_eq!(way.inside, (pages * PAGE) as u64, "{told:?}");
        }
        LIMOSA_VERDICT_STAGED => {
            assert_eq!(written.unwrap(), pages * PAGE, "{told:?}");
            assert!(way.inside == 0 && way.outside >= (pages * PAGE) as u64, "{told:?} {way:?}");
        }
        LIMOSA_VERDICT_REFUSED => {
            assert!(written.is_err() && way.inside == 0, "{told:?}");
            return told;
        }
        _ => {
            assert_eq!(told.verdict, LIMOSA_VERDICT_UNKNOWN);
            if written.is_err() {
                return told;
            }
        }
    }
    forget();
    let memory = Memory::pages(pages);
    assert_eq!(read(again, &memory).unwrap(), pages * PAGE);
    memory.check(seed);
    told
}
