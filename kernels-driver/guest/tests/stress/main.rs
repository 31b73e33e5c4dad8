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

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::{Agents, Shared};
use arena::Arena;
use raw::uapi::{COUNTER_NAMES, SCOPE_FILE};
use raw::{HUGE, number, shim};

/// How long an agent may take over one step.
const STUCK: Duration = Duration::from_secs(120);

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
    if devices.is_empty() && !bare {
        raw::skip("there is no /dev/limosa*");
    }
    println!("stress: --seed {seed:#x} --seconds {} --mib {mib}, {} devices", seconds.as_secs(), devices.len());
    let free: Vec<_> = devices.iter().map(baseline).collect();
    let shared = Arc::new(Shared::new(Arena::new(mib << 20, devices), seed));
    lavapipe::prepare(&shared.arena, seed);
    let agents = Agents::start(&shared);
    watch(&shared, &agents, seconds);
    agents.join(&shared);
    shared.arena.check_all();
    println!("{}", shared.tally());
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
    let info = device.info().unwrap_or_else(|error| panic!("info: {error}"));
    assert!(info.page_size as usize == raw::PAGE && [0, HUGE].contains(&(info.huge_size as usize)), "{info:?}");
    (info.private_free, info.coherent_free)
}

/// Waits for the end, and sees to it that nobody hangs.
fn watch(shared: &Shared, agents: &Agents, seconds: Duration) {
    let start = Instant::now();
    let mut moved = vec![(0, start); agents.names.len()];
    let mut said = 0;
    while start.elapsed() < seconds {
        agents.any_ended(Duration::from_millis(200));
        for ((name, steps), (last, since)) in agents.names.iter().zip(shared.steps(agents.names.len())).zip(&mut moved)
        {
            if steps != *last {
                (*last, *since) = (steps, Instant::now());
            }
            if since.elapsed() > STUCK {
                shared.arena.fail(&format!("{name} hangs in its step {steps}"));
            }
        }
        if start.elapsed().as_secs() / 10 > said {
            said = start.elapsed().as_secs() / 10;
            println!("{:4} s: {}", said * 10, shared.tally());
        }
    }
}
