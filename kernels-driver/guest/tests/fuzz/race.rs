//! The worker that does not know: threads that share files, views and memory, and take them away from each other. What a
//! call may end with follows from what was spoilt and from the header; progress adds up; and signals come in the middle.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::call::{Bench, Call, Expected, Values};
use crate::disk::Disk;
use crate::files::{Others, Pipe};
use crate::model::{AREA, Model, PAGES, address, range};
use crate::raw::memory::checked;
use crate::raw::random::Random;
use crate::raw::shim::Device;
use crate::raw::{PAGE, memory};
use crate::shape::{Field, LOAD, MIGRATE, POOL, PROBE, SHAPES, VIEW};
use crate::tally::Tally;

/// Threads.
const THREADS: u64 = 3;
/// The numbers that files have here: high, so that no other file of the process gets one.
const FILES: RawFd = 300;
const MOST: usize = 12;
/// Where files are mapped, each at a place of its own: what a thread still writes to when another has unmapped it is nobody
/// else's memory.
const MAPPINGS: usize = AREA + (64 << 30);
/// From one to the next. It is more than is ever mapped.
const STRIDE: usize = 16 << 20;
/// What a call may end with besides, when anything can happen to files and memory meanwhile.
const ALWAYS: &[i32] = &[libc::EBADF, libc::ENOTTY];
const ON_MEMORY: &[i32] =
    &[libc::EFAULT, libc::ENOMEM, libc::ENOSPC, libc::EDQUOT, libc::EINTR, libc::EOPNOTSUPP, libc::EMFILE];

/// What threads share.
struct Shared {
    devices: Vec<usize>,
    /// Where a view is mapped, or 0; and its length.
    mappings: [(AtomicUsize, AtomicUsize); MOST],
    failed: AtomicBool,
    why: Mutex<Option<String>>,
}

/// Makes `calls` calls, or says which went wrong.
pub fn run(calls: u64, random: &Random, tally: Tally, devices: &[usize]) -> Result<(), String> {
    drop(Model::new()); // maps the area, and then nobody knows what is there
    let shared = Shared {
        devices: devices.to_vec(),
        mappings: [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; MOST],
        failed: AtomicBool::new(false),
        why: Mutex::new(None),
    };
    interrupt().map_err(|error| format!("setitimer: {error}"))?;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut random = random.clone();
            let random = Random::new(random.next(), thread);
            let shared = &shared;
            scope.spawn(move || work(shared, random, calls.div_ceil(THREADS), tally));
        }
    });
    let why = shared.why.lock().map_err(|error| error.to_string())?.take();
    why.map_or(Ok(()), Err)
}

/// Signals, often, to whoever is running: they end what can be interrupted.
fn interrupt() -> io::Result<()> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    let every = libc::timeval { tv_sec: 0, tv_usec: 5000 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigemptyset(&raw mut action.sa_mask);
        checked(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()))?;
        checked(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut())).map(drop)
    }
}

fn work(shared: &Shared, mut random: Random, calls: u64, tally: Tally) {
    let bench = Bench::new();
    let (Ok(pipe), Ok(others), Ok(disk)) = (Pipe::new(), Others::new(), Disk::open()) else {
        return fail(shared, "no pipe, or no disk".into());
    };
    for call in 0..calls {
        if shared.failed.load(Ordering::Relaxed) {
            return;
        }
        if random.once_in(24) {
            change_memory(&mut random);
        }
        if random.once_in(16) {
            change_files(shared, &mut random);
        }
        if random.once_in(8) {
            access(shared, &mut random, &pipe, &disk);
        }
        if let Err(why) = make(&mut random, bench, tally, &others, &disk) {
            return fail(shared, format!("in call {call} of a thread: {why}"));
        }
    }
}

fn fail(shared: &Shared, why: String) {
    shared.failed.store(true, Ordering::Relaxed);
    if let Ok(mut first) = shared.why.lock() {
        first.get_or_insert(why);
    }
}

fn file(random: &mut Random) -> RawFd {
    FILES + RawFd::try_from(random.below(MOST)).unwrap_or(0)
}

fn make(random: &mut Random, bench: Bench, tally: Tally, others: &Others, disk: &Disk) -> Result<(), String> {
    // A view costs most: the kernel waits for others before one goes.
    let shape = match random.below(80) {
        0 | 1 => VIEW,
        2 => POOL,
        3..8 => LOAD,
        8..11 => PROBE,
        _ => [0, 1, 2, 3, 4, 6][random.below(6)],
    };
    let (first, count) = range(random);
    let range = (address(first) as u64, (count * PAGE) as u64);
    let mut errnos = ALWAYS.to_vec();
    if SHAPES[shape].fields.iter().any(|(_, field)| matches!(field, Field::Range | Field::Len | Field::File)) {
        errnos.extend(ON_MEMORY);
    }
    let expected = Expected { errnos, ..Expected::default() };
    let choice = u32::try_from(random.below(if shape == MIGRATE { 3 } else { 2 })).unwrap_or(0);
    let fd = if random.once_in(16) { others.pick(random).0 } else { file(random) };
    let of_disk = disk.file.as_raw_fd();
    let (named, offset) = (if random.once_in(4) { file(random) } else { of_disk }, disk.place(random, count));
    let mut call = Call::new(shape, fd, Values { range, choice, states: 0, file: named, offset }, expected);
    let times = [0, 0, 0, 0, 1, 2][random.below(6)];
    call.spoil(random, bench, times);
    let outcome = call.make(random, bench, tally)?;
    let made = match shape {
        VIEW => Some(28),
        POOL => Some(16),
        _ => None,
    };
    if let Some(at) = made.filter(|_| outcome.errno == 0) {
        put(outcome.half(at).cast_signed(), file(random));
    }
    Ok(())
}

/// Gives a file one of the numbers, in place of what has it, and gives its own back.
fn put(fd: RawFd, number: RawFd) {
    // SAFETY: both are numbers that only these threads use.
    unsafe {
        libc::dup3(fd, number, libc::O_CLOEXEC);
        libc::close(fd);
    }
}

fn change_files(shared: &Shared, random: &mut Random) {
    let number = file(random);
    match random.below(6) {
        0 | 1 => {
            if let Ok(device) = Device::open(*random.pick(&shared.devices)) {
                // SAFETY: as above.
                unsafe { libc::dup3(device.as_raw_fd(), number, libc::O_CLOEXEC) };
            }
        }
        // SAFETY: as above.
        2 if random.once_in(4) => unsafe {
            libc::close(number);
        },
        3 => {
            // SAFETY: as above.
            unsafe { libc::dup3(file(random), number, libc::O_CLOEXEC) };
        }
        _ => map(shared, random, number),
    }
}

/// Maps a file, if it is a view of that length or a pool of no less, in place of another mapping.
fn map(shared: &Shared, random: &mut Random, fd: RawFd) {
    let slot = random.below(MOST);
    let (at, len) = &shared.mappings[slot];
    let old = at.swap(0, Ordering::SeqCst);
    if old > 0 {
        let _ = memory::unmap(old, len.load(Ordering::SeqCst));
    }
    for _ in 0..8 {
        let pages = range(random).1;
        let (place, flags) = (MAPPINGS + slot * STRIDE, libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE);
        if memory::map(place, pages * PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, fd).is_ok() {
            // Nobody else has, as nothing was there.
            len.store(pages * PAGE, Ordering::SeqCst);
            at.store(place, Ordering::SeqCst);
            return;
        }
    }
}

/// As CPU, as GPU or as disk, where something is or where nothing is.
fn access(shared: &Shared, random: &mut Random, pipe: &Pipe, disk: &Disk) {
    let (at, len) = random.pick(&shared.mappings);
    let (at, len) = (at.load(Ordering::SeqCst), len.load(Ordering::SeqCst));
    let place =
        if at > 0 && !random.once_in(3) { at + random.below(len) / 8 * 8 } else { AREA + random.below(PAGES) * PAGE };
    if random.once_in(8) {
        let (at, len) = (place & !(PAGE - 1), (1 + random.below(16)) * PAGE);
        let offset = i64::try_from(disk.place(random, 16)).unwrap_or(0);
        let _ = memory::transfer(disk.file.as_raw_fd(), at, len, offset, false);
    }
    let _ = if random.once_in(2) { pipe.peek(place).map(drop) } else { pipe.poke(place, random.next()) };
}

fn change_memory(random: &mut Random) {
    let (first, count) = range(random);
    let (at, len) = (address(first), count.min(96) * PAGE);
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    let _ = match random.below(12) {
        0 => memory::unmap(at, len),
        1..4 => memory::replace(at, len).map(drop),
        4 => memory::map(at, len, read_write, libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED, -1).map(drop),
        5 => memory::protect(at, len, libc::PROT_READ),
        6 => memory::protect(at, len, read_write),
        7 => memory::advise(at, len, libc::MADV_PAGEOUT),
        8 if random.once_in(16) => {
            child();
            Ok(())
        }
        9 => memory::advise(at, len, if random.once_in(2) { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE }),
        10 => memory::shift(at, PAGE, address(random.below(PAGES)), 0).map(drop),
        _ => memory::advise(at, len, libc::MADV_DONTNEED),
    };
}

/// A child that shares all pages for a moment.
fn child() {
    // SAFETY: the child ends at once.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::_exit(0);
        }
        let mut status = 0;
        while libc::waitpid(child, &raw mut status, 0) < 0 && child > 0 {}
    }
}
