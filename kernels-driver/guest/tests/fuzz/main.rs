//! The fuzzer of the shim's ioctls: it knows their structs (shape.rs), fills them well, spoils some, and knows what must
//! come of that (call.rs). Half of its workers know all of their memory, too (exact.rs), the others let threads race
//! (race.rs). They run as nobody; a process of root's takes most of the devices' memory (hog.rs), so that they get full.
//! It fails if an outcome is one that the header does not allow, if memory is wrong, if device memory is not given back,
//! or if an ioctl never succeeded or an error never came (tally.rs). It does not look for crashes: the kernel's log does.
//!
//! `fuzz [--calls N] [--workers N] [--seed S]`, and for one of its workers again, alone: `--worker K` with the rest the
//! same. What a worker of the first kind does follows from seed and number.

#![allow(unreachable_pub)] // its modules are its own

#[path = "../raw/mod.rs"]
mod raw;

mod call;
mod disk;
mod exact;
mod files;
mod hog;
mod model;
mod pools;
mod race;
mod shape;
mod tally;
mod views;

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use raw::random::Random;
use raw::{number, shim};
use tally::{Sum, Tally};

/// A user that may do nothing.
const NOBODY: u32 = 65534;
/// What the hog leaves of the first device; of the next sixteen times as much.
const SPARE: u64 = 512 << 10;

fn main() {
    if raw::argument("--hog").is_some() {
        return hog::run(number("--hog", 0));
    }
    let (calls, workers) = (number("--calls", 1_000_000), number("--workers", 4).max(1));
    let seed = number("--seed", u64::from(std::process::id()) << 32 | 0xF022);
    if raw::argument("--worker").is_some() {
        return worker(number("--worker", 0), calls.div_ceil(workers), seed);
    }
    let devices = shim::devices().unwrap_or_else(|error| panic!("/dev/limosa*: {error}"));
    println!("fuzz: --seed {seed:#x} --calls {calls} --workers {workers}, {} devices", devices.len());
    disk::prepare().unwrap_or_else(|error| panic!("{}: {error}", disk::PATH));
    let nodes = devices.iter().map(|device| format!("/dev/limosa{}", device.index));
    let admitted: Vec<_> = nodes.chain([disk::PATH.into()]).map(Admitted::new).collect();
    let before = free(&devices);
    let hog = hog::Hog::start(SPARE).unwrap_or_else(|error| panic!("the hog: {error}"));
    let start = Instant::now();
    let children: Vec<_> = (0..workers).map(|worker| spawn(worker, calls, workers, seed)).collect();
    let mut sum = Sum::default();
    let ended: Vec<_> = children.into_iter().map(|child| end(child, &mut sum)).collect();
    let took = start.elapsed();
    drop(hog);
    let missing = sum.print();
    println!("fuzz: {} calls in {} s: {}/s", sum.total(), took.as_secs(), rate(sum.total(), took));
    assert!(ended.iter().all(|ended| *ended), "a worker failed: it says more above");
    // The memory of a pool follows its file when it has been looked for I/O.
    let deadline = Instant::now() + Duration::from_secs(20);
    while free(&devices) != before && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(free(&devices), before, "bytes free (private, coherent) of each device, after and before");
    assert!(missing.is_empty(), "{}", missing.join("; "));
    assert!(sum.total() >= calls, "{} calls were made of the {calls} that were asked for", sum.total());
    drop(admitted);
    println!("fuzz: passed");
}

/// A device, or a disk, that the workers may open, as an administrator's rule for udev would let them: until this is dropped, since who
/// comes after finds the node as the module makes it.
struct Admitted {
    node: String,
    before: Permissions,
}

impl Admitted {
    fn new(node: String) -> Self {
        let before = std::fs::metadata(&node).map(|found| found.permissions());
        let before = before.unwrap_or_else(|error| panic!("{node}: {error}"));
        let admitted = std::fs::set_permissions(&node, Permissions::from_mode(0o666));
        admitted.unwrap_or_else(|error| panic!("{node}: {error}"));
        Self { node, before }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Err(error) = std::fs::set_permissions(&self.node, self.before.clone()) {
            println!("fuzz: {} stays open to all: {error}", self.node);
        }
    }
}

fn rate(calls: u64, took: Duration) -> u64 {
    calls * 1000 / u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn free(devices: &[shim::Device]) -> Vec<(u64, u64)> {
    let info = devices.iter().map(|device| device.info().unwrap_or_else(|error| panic!("INFO: {error}")));
    info.map(|info| (info.private_free, info.coherent_free)).collect()
}

/// Starts a worker, as nobody if we are root.
fn spawn(worker: u64, calls: u64, workers: u64, seed: u64) -> Child {
    let program = std::env::current_exe().unwrap_or_else(|error| panic!("who am I: {error}"));
    let mut command = Command::new(program);
    for (name, value) in [("--worker", worker), ("--calls", calls), ("--workers", workers), ("--seed", seed)] {
        command.arg(name).arg(value.to_string());
    }
    // SAFETY: always allowed.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("a worker: {error}"))
}

/// Waits for a worker, and adds what it counted. Whether it passed.
fn end(mut child: Child, sum: &mut Sum) -> bool {
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
        if !sum.add(&line) {
            println!("{line}");
        }
    }
    let status = child.wait();
    let passed = status.as_ref().is_ok_and(std::process::ExitStatus::success);
    if !passed {
        println!("a worker ended with {status:?}");
    }
    passed
}

/// One worker, in a process of its own: of two, one knows and one races.
fn worker(index: u64, calls: u64, seed: u64) {
    let devices = shim::devices().unwrap_or_else(|error| panic!("/dev/limosa*: {error}"));
    let devices: Vec<_> = devices.iter().map(|device| device.index).collect();
    let (tally, random) = (Tally::new(), Random::new(seed, index));
    let result = if index.is_multiple_of(2) {
        exact::run(calls, random, tally, &devices)
    } else {
        race::run(calls, &random, tally, &devices)
    };
    println!("{}", tally.line());
    if let Err(why) = result {
        println!("fuzz: FAILED: worker {index} of --seed {seed:#x}: {why}");
        std::process::exit(1);
    }
}
