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
use systems::{
    CONFLICTS, CROWDED, HANDLER_NEEDED, HELD_BEHIND, PARKED, PIN_AND_LAUNCH, PIN_BESIDE, PINNED, PREFETCHED, SYSTEMS,
    TOLD, UNDECLARED, USER_EVENTS,
};
use world::{Bad, Config, Defect, Op};

fn run(config: Config, defect: Option<Defect>) -> Found {
    let start = std::time::Instant::now();
    let found = search(&System { config, defect });
    let what = found.wrong.as_ref().map_or("fine", |wrong| &wrong.what);
    let mode = if config.in_thread { ", in-thread" } else { "" };
    let defect = defect.map_or(String::new(), |defect| format!(", {defect:?}"));
    let (name, states, time) = (config.name, found.states, start.elapsed().as_secs_f64());
    println!("{name}{mode}{defect}: {states} states, {what}, {time:.2} s");
    found
}

/// What goes wrong, if anything, without the way there.
fn outcome(config: Config, defect: Option<Defect>) -> Option<String> {
    run(config, defect).wrong.map(|wrong| wrong.what)
}

#[test]
fn no_wait_lasts_for_ever() {
    for config in SYSTEMS {
        let touches = config.threads.iter().any(|script| script.iter().any(|op| matches!(op, Op::Touch(..))));
        for in_thread in [false, true].into_iter().take(1 + usize::from(touches)) {
            let Found { states, wrong } = run(Config { in_thread, ..*config }, None);
            if let Some(wrong) = wrong {
                panic!("{}: {}\n{}", config.name, wrong.what, wrong.trace.join("\n"));
            }
            // Threads that serve themselves take fewer steps.
            assert!(states >= if in_thread { config.least / 2 } else { config.least }, "{}: {states}", config.name);
        }
    }
}

#[test]
fn seeded_defects_are_noticed() {
    let without_reserve = Config { reserve: None, ..UNDECLARED };
    let deadlocks = [
        (Defect::ReleaseWakesNobody, PARKED),
        (Defect::HoldFromSubmission, CONFLICTS),
        (Defect::Piecemeal, CONFLICTS),
        (Defect::HandlerWaits, HANDLER_NEEDED),
        (Defect::KernelWaits, HELD_BEHIND),
        (Defect::EvictionWaits, without_reserve),
        (Defect::PinWithoutLock, PIN_AND_LAUNCH),
        (Defect::ParkingRingsNobody, PARKED),
        (Defect::SubmitRingsNobody, CROWDED),
        (Defect::EpochReadLate, CROWDED),
        (Defect::UnpinRingsNobody, PINNED),
        (Defect::PinRingsNobody, PIN_BESIDE),
        (Defect::CompleteRingsNobody, USER_EVENTS),
        (Defect::NoticeRingsNobody, TOLD),
    ];
    for (defect, config) in deadlocks {
        assert_eq!(outcome(config, Some(defect)).as_deref(), Some("deadlock"), "{defect:?}");
    }
    let found = outcome(without_reserve, Some(Defect::FullIsLater));
    assert_eq!(found.as_deref(), Some("no end can be reached"), "retries that go round for ever");
}

/// Refusals that another try would not have met: the rules of `make_room` and `prefetch_chunk` as they were found, and
/// what the search is run with instead.
#[test]
fn what_fits_is_not_refused() {
    let refused = |bad: Bad| Some(format!("{bad:?}"));
    assert_eq!(outcome(CROWDED, Some(Defect::RacedIsNever)), refused(Bad::LaunchRefused(1)));
    assert_eq!(outcome(PREFETCHED, Some(Defect::PrefetchForgets)), refused(Bad::PrefetchRefused((1, 0))));
}

/// Without its bell the reaper learns of a launch admitted meanwhile only when one that it knew of ends. That is late,
/// but no hang: those that it knew of came to the device's queue first, so they end first.
#[test]
fn an_unheard_doorbell_delays_only() {
    for config in [PARKED, CONFLICTS, CROWDED, PINNED, HELD_BEHIND] {
        assert_eq!(outcome(config, Some(Defect::AdmissionRingsNoDoorbell)), None);
    }
}

/// The class Faulting's rule of admission: launches leave room for what a kernel touches undeclared, or it is refused.
#[test]
fn room_is_left_for_undeclared_kernels() {
    let refused = Some(format!("{:?}", Bad::FaultRefused((2, 0))));
    for reserve in [None, Some(0)] {
        assert_eq!(outcome(Config { reserve, ..UNDECLARED }, None), refused);
    }
    for config in [UNDECLARED, HELD_BEHIND, HANDLER_NEEDED] {
        assert_eq!(outcome(Config { reserve: Some(1), ..config }, None), None);
    }
    // A launch that runs alone may fill the budget: no rule of admission helps it.
    assert_eq!(outcome(Config { budget: 1, ..UNDECLARED }, None), refused);
}
