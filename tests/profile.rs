//! Profiles: the parts of a launch's life come in order, and add up to no more than the clock on the wall says.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::time::Instant;

use common::builder;
use common::failure::{BLOCK_WORDS, Watchdog};
use common::views::{ALL, FAULTING};
use limosa::{Error, PagerError, Profile, Side};

/// That the parts are in order, as far as the clocks can be compared.
fn is_ordered(profile: &Profile) -> bool {
    let off = profile.off_by.unwrap_or(u64::MAX);
    let host = profile.submitted <= profile.admitted && profile.began <= profile.ended;
    host && (profile.off_by.is_none() || profile.admitted <= profile.began.saturating_add(off))
}

#[test]
fn launches_come_in_order_and_no_longer_than_the_wall_says() {
    let _watchdog = Watchdog::new("profiles");
    for way in ALL {
        let Some(kit) = way.kit("profiles", builder()) else { break };
        for queue in [kit.context.queue_builder(), kit.context.queue_builder().out_of_order()] {
            let queue = queue.profiled().build().unwrap();
            let mut vecs: Vec<_> = (0..3).map(|_| kit.heap().vec_zeroed::<u32>(64 * BLOCK_WORDS).unwrap()).collect();
            let wall = Instant::now();
            // More than one pool of queries holds.
            let events: Vec<_> = (0..150).map(|i| queue.fill(&mut vecs[i % 3], 7).submit().unwrap()).collect();
            queue.wait_idle().unwrap();
            let wall = u64::try_from(wall.elapsed().as_nanos()).unwrap();
            let profiles: Vec<_> = events.iter().map(|event| event.profile().unwrap()).collect();
            assert!(profiles.iter().all(is_ordered), "{way:?}: {profiles:?}");
            assert!(profiles.iter().all(|profile| profile.device_time() > 0), "a fill of 4 MiB takes its time");
            let off = 2 * profiles.iter().filter_map(|profile| profile.off_by).max().unwrap_or(0);
            // One after the other on a software device: the sum of them all fits.
            let all: u64 = profiles.iter().map(Profile::device_time).sum();
            assert!(all <= wall + off, "{all} of {wall}");
            let last = profiles.iter().map(|profile| profile.ended).max().unwrap();
            if profiles[0].off_by.is_some() {
                assert!(last - profiles[0].submitted <= wall + off, "{way:?}");
                assert!(profiles.windows(2).all(|pair| pair[0].ended <= pair[1].ended + off), "{way:?}");
            }
            // Asked again, the same, also when the queue is gone.
            drop(queue);
            assert_eq!(events[5].profile().unwrap(), profiles[5]);
        }
    }
}

#[test]
fn time_spent_waiting_is_told_apart() {
    let _watchdog = Watchdog::new("waiting");
    let Some(kit) = FAULTING.kit("waiting", builder()) else { return };
    let (queue, go) = (kit.context.queue_builder().profiled().build().unwrap(), kit.context.user_event());
    let mut vec = kit.heap().vec_zeroed::<u32>(BLOCK_WORDS).unwrap();
    let first = queue.fill(&mut vec, 1).submit().unwrap();
    let second = queue.fill(&mut vec, 2).after(&go.event()).submit().unwrap();
    let before = Instant::now();
    first.wait().unwrap();
    let waited = u64::try_from(before.elapsed().as_nanos()).unwrap();
    go.complete();
    let profile = second.profile().unwrap();
    assert!(profile.admitted - profile.submitted >= waited, "{profile:?}, {waited}");
}

#[test]
fn what_has_no_profile_says_so() {
    let _watchdog = Watchdog::new("none");
    let Some(kit) = FAULTING.kit("none", builder()) else { return };
    let queue = kit.context.queue_builder().profiled().build().unwrap();
    let mut vec = kit.heap().vec_zeroed::<u32>(BLOCK_WORDS).unwrap();
    let unprofiled = kit.fill(&mut vec, 1).unwrap();
    let never = queue.fill(&mut vec, 2).after(&kit.context.user_event().event()).submit().unwrap();
    let marker = queue.marker([]).unwrap();
    let prefetch = queue.prefetch(Side::Device, &vec).submit().unwrap();
    for (event, what) in [
        (unprofiled, "kernel fill"),
        (never, "kernel repeat"),
        (marker, "the marker"),
        (prefetch, "the prefetch"),
        (kit.context.user_event().event(), "the user event"),
    ] {
        match event.profile() {
            Err(Error::Pager(PagerError::NotProfiled { what: told, .. })) => assert_eq!(told, what),
            other => panic!("{what}: {other:?}"),
        }
    }
}
