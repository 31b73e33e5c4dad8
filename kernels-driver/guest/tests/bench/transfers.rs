//! From the disk to the device: straight, against a read into system memory of the same blocks, and against that and a
//! copy. The host traces one round of each, which is not timed: no byte of the straight ones may be in system memory.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::raw::shim::Device;
use crate::raw::uapi::PRIVATE;
use crate::raw::{PAGE, memory};
use crate::table::{Table, median, rate, time};
use io_uring::{IoUring, opcode, types};
use limosa_guest::protocol::DATA_SERIAL;
use limosa_guest::trace::tally;
use limosa_guest::{device, host};

pub const MIB: usize = 1 << 20;
/// What is read in a round.
pub const BYTES: usize = 16 * MIB;
/// Requests of a page that are under way at a time.
const DEPTH: usize = 32;

/// Memory that the disk writes to: a pool's, or the system's, touched.
pub struct Target {
    pub at: usize,
}

impl Target {
    pub fn system() -> Self {
        Self { at: crate::moves::touched(BYTES, false) }
    }

    fn pool(device: &Device) -> Self {
        let fd = device.pool(BYTES).unwrap_or_else(|error| panic!("a pool: {error}"));
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let at = memory::map(0, BYTES, both, libc::MAP_SHARED, fd.as_raw_fd());
        Self { at: at.unwrap_or_else(|error| panic!("a pool's mapping: {error}")) }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = memory::unmap(self.at, BYTES);
    }
}

/// Where the data disk is.
pub fn path() -> PathBuf {
    device::disk(DATA_SERIAL).ok().flatten().unwrap_or_else(|| panic!("there is no data disk"))
}

/// The data disk, its first blocks written.
pub fn disk() -> File {
    let path = path();
    let bytes: Vec<u8> = (0..BYTES / 8).flat_map(|word| (word as u64 | 1 << 63).to_ne_bytes()).collect();
    std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.sync_all().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file
}

pub fn read(file: &File, at: usize, len: usize, offset: usize) {
    let got = memory::transfer(file.as_raw_fd(), at, len, i64::try_from(offset).unwrap_or(i64::MAX), false);
    assert_eq!(got.unwrap_or_else(|error| panic!("a read of {len} bytes: {error}")), len);
}

/// Fails unless memory is what the disk has from an offset on.
fn compare(at: usize, len: usize, offset: usize) {
    for inside in (0..len).step_by(PAGE) {
        // SAFETY: mapped by the caller.
        let found = unsafe { memory::word(at + inside) }.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(found, ((offset + inside) / 8) as u64 | 1 << 63, "at {offset:#x} and {inside:#x}");
    }
}

/// Bytes in system memory and in the device's that the disk writes while something is done.
pub fn traced(action: impl FnOnce()) -> [f64; 2] {
    let commands = host::Tracing::new().and_then(|tracing| {
        action();
        tracing.commands()
    });
    let commands = commands.unwrap_or_else(|error| panic!("the host's trace: {error}"));
    let devices = device::list().unwrap_or_else(|error| panic!("the devices: {error}"));
    let tally = tally(commands.iter().filter(|command| !command.write), &devices[0].memory());
    [tally.outside as f64, tally.inside as f64]
}

/// Times ways of doing the same by turns, each first once in a while: bytes a second of each.
pub fn in_turns<const N: usize>(rounds: usize, ways: [&dyn Fn() -> f64; N]) -> [f64; N] {
    let mut rates: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for round in 0..=rounds {
        for turn in 0..N {
            let way = (round + turn) % N;
            let rate = ways[way]();
            // The first round is for what the kernel does late.
            if round > 0 {
                rates[way].push(rate);
            }
        }
    }
    rates.map(median)
}

/// Reads of 1 MiB and of 8 MiB: to system memory, to a pool, to both one after the other; loads; and reads whose pages are
/// moved. The last two also with pages of 2 MiB.
pub fn large(device: &Device, rounds: usize, table: &mut Table) {
    let (file, system, pool) = (disk(), Target::system(), Target::pool(device));
    for mib in [1, 8] {
        let size = mib * MIB;
        let each = |request: &mut dyn FnMut(usize)| {
            rate(BYTES / MIB, time(|| (0..BYTES).step_by(size).for_each(&mut *request)))
        };
        let ram = || each(&mut |offset| read(&file, system.at + offset, size, offset));
        let straight = || each(&mut |offset| read(&file, pool.at + offset, size, offset));
        let copied = || {
            each(&mut |offset| {
                read(&file, system.at, size, offset);
                memory::copy(system.at, pool.at + offset, size);
            })
        };
        let load = |huge| with_fresh(huge, |at| each(&mut |offset| load(device, &file, at + offset, size, offset)));
        let moved = |huge| {
            with_fresh(huge, |at| {
                each(&mut |offset| {
                    read(&file, at + offset, size, offset);
                    migrate_read(device, at + offset, size);
                })
            })
        };
        let [outside, inside] = traced(|| assert!(straight() + load(false) + load(true) > 0.0));
        assert!(inside >= 3.0 * BYTES as f64, "{inside} bytes of {} went to the device", 3 * BYTES);
        let (small, huge) = (false, true);
        let rates = in_turns(
            rounds,
            [&ram, &straight, &copied, &|| load(small), &|| moved(small), &|| load(huge), &|| moved(huge)],
        );
        compare(pool.at, BYTES, 0);
        tell(mib, rates, outside, table);
    }
}

fn tell(mib: usize, rates: [f64; 7], outside: f64, table: &mut Table) {
    const NAMES: [&str; 7] = [
        "reads to RAM",
        "reads to a pool",
        "reads to RAM, copied to a pool",
        "loads",
        "reads to RAM, moved to the device",
        "loads, 2 MiB pages",
        "reads to RAM, moved, 2 MiB pages",
    ];
    for (name, rate) in NAMES.into_iter().zip(rates) {
        table.add(format!("{mib} MiB {name}"), rate, "MiB/s");
    }
    let [ram, pool, copied, load, moved, huge, moved_huge] = rates;
    for (name, ratio, bound) in [
        ("pool / RAM", pool / ram, 0.75),
        ("load / RAM", load / ram, 0.75),
        ("load, 2 MiB pages / RAM", huge / ram, 0.75),
        ("pool / copied", pool / copied, 1.5),
        ("load / moved", load / moved, 1.5),
        ("load / moved, 2 MiB pages", huge / moved_huge, 1.5),
    ] {
        table.at_least(format!("{mib} MiB {name}"), ratio, "ratio", bound);
    }
    table.no_more_than(format!("{mib} MiB, bytes of pools and loads in RAM"), outside, "bytes", 0.0);
}

/// Does something with memory that was never touched, of 2 MiB pages or of small ones.
fn with_fresh<T>(huge: bool, action: impl FnOnce(usize) -> T) -> T {
    let at = memory::aligned(BYTES).unwrap_or_else(|error| panic!("mmap: {error}"));
    let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    memory::advise(at, BYTES, advice).unwrap_or_else(|error| panic!("madvise: {error}"));
    let result = action(at);
    let _ = memory::unmap(at, BYTES);
    result
}

/// Moves all of a range that was just read to. The kernel lets go of pages of a direct read when it comes to it, and moves none
/// before; nor does it split a huge page until then.
fn migrate_read(device: &Device, at: usize, len: usize) {
    let mut moved = 0;
    for _ in 0..1000 {
        let (told, result) = device.migrate(at, len, PRIVATE);
        assert!(result.is_ok(), "{result:?} {told:?}");
        moved += told.moved;
        if moved == (len / PAGE) as u64 {
            return;
        }
    }
    panic!("{moved} of {} pages were moved", len / PAGE);
}

fn load(device: &Device, file: &File, at: usize, len: usize, offset: usize) {
    let (told, result) = device.load(at, len, file.as_raw_fd(), offset as u64);
    assert!(result.is_ok() && told.loaded == (len / PAGE) as u64, "{result:?} {told:?}");
}

/// Pages, many at a time, each a request of its own.
pub fn small(device: &Device, rounds: usize, table: &mut Table) {
    let (file, system, pool) = (disk(), Target::system(), Target::pool(device));
    let mut ring = IoUring::new(64).unwrap_or_else(|error| panic!("io_uring: {error}"));
    let [outside, inside] = traced(|| pages(&mut ring, &file, pool.at));
    assert!(inside >= BYTES as f64, "{inside} bytes of {BYTES} went to the device");
    let ring = std::cell::RefCell::new(ring);
    let timed = |at| rate(BYTES / PAGE, time(|| pages(&mut ring.borrow_mut(), &file, at)));
    let [ram, straight] = in_turns(rounds, [&|| timed(system.at), &|| timed(pool.at)]);
    compare(system.at, BYTES, 0);
    compare(pool.at, BYTES, 0);
    table.add("4 KiB reads to RAM, 32 at a time", ram, "reads/s");
    table.add("4 KiB reads to a pool, 32 at a time", straight, "reads/s");
    table.at_least("4 KiB, 32 at a time, pool / RAM", straight / ram, "ratio", 0.75);
    table.no_more_than("4 KiB, bytes of pools that were in RAM", outside, "bytes", 0.0);
}

/// Reads all, a page a request, and keeps `DEPTH` of them under way. Not in their order.
fn pages(ring: &mut IoUring, file: &File, at: usize) {
    const COUNT: usize = BYTES / PAGE;
    const LENGTH: u32 = 4096;
    let fd = types::Fd(file.as_raw_fd());
    let (mut begun, mut ended) = (0, 0);
    while ended < COUNT {
        while begun < COUNT && begun - ended < DEPTH {
            // An odd number takes each page once.
            let offset = begun * 1237 % COUNT * PAGE;
            let to = std::ptr::with_exposed_provenance_mut(at + offset);
            let entry = opcode::Read::new(fd, to, LENGTH).offset(offset as u64).build();
            // SAFETY: memory of the bench's own, which is there until all requests have ended, below.
            unsafe { ring.submission().push(&entry) }.unwrap_or_else(|error| panic!("io_uring: {error}"));
            begun += 1;
        }
        ring.submit_and_wait(1).unwrap_or_else(|error| panic!("io_uring: {error}"));
        for completion in ring.completion() {
            assert_eq!(u32::try_from(completion.result()), Ok(LENGTH), "a read of a page");
            ended += 1;
        }
    }
}
