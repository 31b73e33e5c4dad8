//! The stress of the shim: CPU threads, GPU threads and mm system calls on the same memory, with every value checked.
//!
//! The arena (arena.rs) says of every word what it must be. Owners (owner.rs) hold a range for themselves and do to it what
//! changes contents: write, discard, unmap, move, fork. Accessors (accessor.rs) read, write and count, as CPU or as GPU.
//! Disturbers (disturb.rs) do to any range, held by whoever, what must not change contents. Lavapipe's threads run
//! compute kernels (lavapipe.rs); other processes leave secrets in device memory (secret.rs). What was not served because
//! memory is just not there or not permitted is tried again (trap.rs). It does *not* look at times.
//!
//! `stress [--seconds N] [--seed S] [--mib N] [--no-device]`. The same seed gives the same choices, not the same schedule.

#![allow(unreachable_pub)] // its modules are its own

#[path = "../raw/mod.rs"]
mod raw;

mod accessor;
mod agent;
mod arena;
mod disturb;
mod lavapipe;
mod owner;
mod secret;
mod trap;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::{Agents, Op, Shared};
use arena::Arena;
use raw::uapi::{COUNTER_NAMES, SCOPE_FILE};
use raw::{HUGE, number, shim};

fn main() {
    if let Some(kind) = raw::argument("--secret") {
        return secret::leave(&kind);
    }
    let seconds = Duration::from_secs(number("--seconds", 60));
    let seed = number("--seed", u64::from(std::process::id()) << 32 | 0x11305A);
    let mib = usize::try_from(number("--mib", 8)).unwrap_or(8).max(4);
    let bare = std::env::args().any(|word| word == "--no-device");
    let devices =
        if bare { Vec::new() } else { shim::devices().unwrap_or_else(|error| panic!("/dev/limosa*: {error}")) };
    println!("stress: --seed {seed:#x} --seconds {} --mib {mib}, {} devices", seconds.as_secs(), devices.len());
    watch::start();
    let free: Vec<_> = devices.iter().map(baseline).collect();
    let shared = Arc::new(Shared::new(Arena::new(mib << 20, devices), seed));
    let have =
        [lavapipe::prepare(&shared.arena, seed).then_some(Op::Kernel), owner::has_disk().then_some(Op::DirectIo)];
    let have: Vec<Op> = have.into_iter().flatten().collect();
    let agents = Agents::start(&shared);
    let never = wait(&shared, &agents, seconds, &have);
    agents.join(&shared);
    shared.arena.check_all();
    watch::step(watch::MAIN);
    println!("{}", shared.tally());
    assert!(never.is_empty(), "never done in all the time: {}", never.join(", "));
    let devices = Arc::into_inner(shared).unwrap_or_else(|| panic!("an agent is left")).arena.end();
    for (device, free) in devices.iter().zip(free) {
        let counts = device.counters(SCOPE_FILE).unwrap_or_else(|error| panic!("counters: {error}"));
        let counts: Vec<_> = COUNTER_NAMES.iter().zip(counts).map(|(name, count)| format!("{name} {count}")).collect();
        println!("limosa{}: {}", device.index, counts.join(", "));
        let left = baseline(device);
        assert_eq!(left, free, "limosa{}: bytes free (private, coherent) after and before", device.index);
    }
    println!("stress: passed");
}

fn baseline(device: &shim::Device) -> (u64, u64) {
    // Core keeps references to pages in batches of each CPU (of the LRU, of mlock) until they are full: this drains them.
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "1");
    let info = device.info().unwrap_or_else(|error| panic!("info: {error}"));
    assert!(info.page_size as usize == raw::PAGE && [0, HUGE].contains(&(info.huge_size as usize)), "{info:?}");
    (info.private_free, info.coherent_free)
}

/// Waits for the end, and tells on the way what has been done. On a slow machine the end comes later than asked for: when
/// everything has been done once, or is not likely to be any more. Gives what never was.
fn wait(shared: &Shared, agents: &Agents, seconds: Duration, have: &[Op]) -> Vec<&'static str> {
    let (start, latest) = (Instant::now(), seconds * raw::factor().unwrap_or(1).max(2));
    let mut said = 0;
    loop {
        agents.any_ended(Duration::from_millis(200));
        watch::step(watch::MAIN);
        let (elapsed, never) = (start.elapsed(), shared.never_done(have));
        if elapsed >= latest || elapsed >= seconds && never.is_empty() {
            return never;
        }
        if elapsed.as_secs() / 10 > said {
            said = elapsed.as_secs() / 10;
            println!("{:4} s: {}", said * 10, shared.tally());
        }
    }
}
