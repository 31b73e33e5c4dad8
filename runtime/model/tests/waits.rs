//! Who waits for whom, in every order: an exhaustive search of small systems of real chunks and the pager's protocol.
//!
//! From every state that can be reached an end must be reachable: no deadlock, no lost wake-up, no retries that go
//! round for ever. At an end nothing is held, busy, pinned or asleep, and on the way nothing that fits is refused for
//! want of room. That the search would notice is shown by seeding defects. It does *not* run the pager's code: `pager`,
//! `scheduler` and `actors` follow it step by step, and must be kept so.

#[path = "waits/actors.rs"]
mod actors;
#[path = "waits/pager.rs"]
mod pager;
#[path = "waits/scheduler.rs"]
mod scheduler;
#[path = "waits/search.rs"]
mod search;
#[path = "waits/systems.rs"]
mod systems;
#[path = "waits/world.rs"]
mod world;

use actors::System;
use search::{Found, search};
use systems::SYSTEMS;
use world::{Config, Defect};

fn run(config: &Config, defect: Option<Defect>) -> Found {
    let start = std::time::Instant::now();
    let found = search(&System { config: *config, defect });
    let what = found.wrong.as_ref().map_or("fine", |wrong| &wrong.what);
    let (name, states) = (config.name, found.states);
    println!("{name}, defect {defect:?}: {states} states, {what}, {:.2} s", start.elapsed().as_secs_f64());
    found
}

#[test]
fn no_wait_lasts_for_ever() {
    for config in SYSTEMS {
        let found = run(config, None);
        if let Some(wrong) = found.wrong {
            println!("{}: {}\n{}", config.name, wrong.what, wrong.trace.join("\n"));
        }
    }
}

#[test]
fn explore() {
    use Defect::*;
    for defect in [
        ReleaseWakesNobody,
        HoldFromSubmission,
        Piecemeal,
        HandlerWaits,
        KernelWaits,
        EvictionWaits,
        PinWithoutLock,
        ParkingRingsNobody,
        SubmitRingsNobody,
        AdmissionRingsNoDoorbell,
        EpochReadLate,
        UnpinRingsNobody,
        RacedIsNever,
    ] {
        for config in SYSTEMS {
            run(config, Some(defect));
        }
    }
}
