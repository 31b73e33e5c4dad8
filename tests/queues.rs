//! Queues in and out of order: who passes whom, markers and barriers, and random graphs of launches over several queues
//! against an oracle of order.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::builder;
use common::failure::{BLOCK_WORDS, Kit, MIB, turn};
use common::gate::Gate;
use common::views::{ALL, BESIDE_KERNELS, FAULTING};
use common::words::{all_are, copy_on, counted, wait_until};
use limosa::{Error, Event, PagerError, Queue, UnifiedVec, UserEvent};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

fn unordered(kit: &Kit) -> Queue {
    kit.context.queue_builder().out_of_order().build().unwrap()
}

fn words(kit: &Kit) -> UnifiedVec<u32> {
    kit.heap().vec_zeroed(BLOCK_WORDS).unwrap()
}

fn is_done(event: &Event) -> bool {
    event.is_complete().unwrap()
}

#[test]
fn what_waits_for_events_and_pins_is_passed() {
    let _turn = turn("passed");
    for way in ALL {
        let Some(kit) = way.kit("passed", builder()) else { break };
        let (mut one, mut two, mut pinned) = (words(&kit), words(&kit), words(&kit));
        let queue = unordered(&kit);
        let (go, raw) = (kit.context.user_event(), std::sync::Arc::clone(pinned.raw()));
        let waits = queue.fill(&mut one, 1).after(&go.event()).submit().unwrap();
        let pin = pinned.host_pin().unwrap();
        let launch = queue.launch(&kit.fill, 1).args((raw.ptr(), 16u64, 3u32, 0u32));
        // SAFETY: fill writes 16 words, while only the pin has a reference, which is not used after.
        let at_pin = unsafe { launch.with_raw(&raw, limosa::Access::Write).submit() }.unwrap();
        queue.fill(&mut two, 2).submit().unwrap().wait().unwrap();
        assert!(!is_done(&waits) && !is_done(&at_pin) && all_are(&two, 2));
        drop(pin);
        at_pin.wait().unwrap();
        assert!(!is_done(&waits));
        // In order, nobody passes.
        let ahead = kit.queue.fill(&mut two, 3).after(&go.event()).submit().unwrap();
        let behind = kit.queue.fill(&mut pinned, 4).submit().unwrap();
        queue.fill(&mut words(&kit), 5).submit().unwrap().wait().unwrap();
        assert!(!is_done(&ahead) && !is_done(&behind));
        go.complete();
        behind.wait().unwrap();
        assert!(all_are(&one, 1) && all_are(&two, 3) && all_are(&pinned, 4));
    }
}

/// Launches that were given to the device since `before`.
fn admitted(kit: &Kit, before: u64) -> u64 {
    kit.heap().counters().launches - before
}

#[test]
fn what_waits_for_room_or_holds_is_passed_but_not_for_ever() {
    let _turn = turn("room");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("room", builder().device_budget(16 * MIB)) else { break };
        let large = |blocks: usize| kit.heap().vec_zeroed::<u32>(blocks * BLOCK_WORDS).unwrap();
        let (mut held, mut too_large, mut conflicting) = (large(60), large(250), words(&kit));
        let mut small: Vec<_> = (0..80).map(|_| kit.heap().vec_zeroed::<u32>(16).unwrap()).collect();
        let (queue, third) = (unordered(&kit), kit.context.queue().unwrap());
        // The first makes the kernel, which waits on lavapipe for what runs.
        kit.queue.fill(&mut conflicting, 0).submit().unwrap().wait().unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        kit.queue.fill(&mut held, 1).submit().unwrap();
        let before = kit.heap().counters().launches;
        kit.queue.fill(&mut conflicting, 1).submit().unwrap();
        assert_eq!(admitted(&kit, before), 1);
        let room = queue.fill(&mut too_large, 2).submit().unwrap();
        let holds = queue.fill(&mut conflicting, 2).submit().unwrap();
        assert_eq!(admitted(&kit, before), 1);
        // The small ones share blocks with each other, so each holds alone: readers may be many.
        let mut target = words(&kit);
        let passing = copy_on(&kit, &queue, &small[0], &mut target);
        assert_eq!(admitted(&kit, before), 2, "{way:?}");
        // Another queue's do not, since it came later.
        let other = kit.fill_on(&third, &mut small[1], 3).unwrap();
        assert_eq!(admitted(&kit, before), 2);
        let source = counted(&kit, 1);
        let mut targets: Vec<_> = (0..80).map(|_| words(&kit)).collect();
        let many: Vec<_> = targets.iter_mut().map(|target| copy_on(&kit, &queue, &source, target)).collect();
        assert_eq!(admitted(&kit, before), 1 + 64, "so many may pass the first, and no more");
        assert!([&room, &holds, &passing, &other].iter().all(|event| !is_done(event)));
        gate.open();
        [&room, &holds, &passing, &other].into_iter().chain(&many).for_each(|event| event.wait().unwrap());
        assert!(all_are(&held, 1) && all_are(&too_large, 2) && all_are(&conflicting, 2));
    }
}

#[test]
fn markers_and_barriers_come_in_their_turn() {
    let _turn = turn("markers");
    for way in ALL {
        let Some(kit) = way.kit("markers", builder()) else { break };
        let (mut one, mut two, mut three) = (words(&kit), words(&kit), words(&kit));
        let queue = unordered(&kit);
        let (go, stay, lost) = (kit.context.user_event(), kit.context.user_event(), kit.context.user_event());
        let first = queue.fill(&mut one, 1).after(&go.event()).submit().unwrap();
        let all = queue.marker([]).unwrap();
        let some = queue.marker([&stay.event()]).unwrap();
        let both = queue.marker([&stay.event(), &lost.event()]).unwrap();
        let passes = queue.fill(&mut two, 2).submit().unwrap();
        passes.wait().unwrap();
        assert!(![&first, &all, &some, &both].into_iter().any(is_done));
        stay.complete();
        some.wait().unwrap();
        assert!(!is_done(&first) && !is_done(&all));
        drop(lost);
        let error = both.wait().unwrap_err();
        assert!(
            matches!(&error, Error::Pager(PagerError::AfterFailed { what, .. }) if what == "the marker"),
            "{error}"
        );
        // Who submits behind a barrier waits, whatever it waits for.
        let barrier = queue.barrier([&first]).unwrap();
        let stopped = queue.fill(&mut three, 3).submit().unwrap();
        kit.fill(&mut two, 4).unwrap().wait().unwrap();
        assert!(!is_done(&barrier) && !is_done(&stopped));
        go.complete();
        stopped.wait().unwrap();
        assert!(is_done(&first) && is_done(&barrier));
        all.wait().unwrap();
        // In order, a marker comes after what is before it, whatever else it waits for.
        let (go, stay) = (kit.context.user_event(), kit.context.user_event());
        let before = kit.queue.fill(&mut one, 5).after(&go.event()).submit().unwrap();
        let marker = kit.queue.marker([&stay.event()]).unwrap();
        stay.complete();
        queue.fill(&mut two, 6).submit().unwrap().wait().unwrap();
        assert!(!is_done(&before) && !is_done(&marker));
        go.fail("never");
        // That what came before it failed is no reason.
        marker.wait().unwrap();
        assert!(before.wait().is_err() && all_are(&one, 1));
    }
}

#[test]
fn dropping_a_queue_waits_for_what_it_has_to_do() {
    let _turn = turn("dropping");
    for way in ALL {
        let Some(kit) = way.kit("dropping", builder()) else { break };
        let (queue, mut vecs) = (unordered(&kit), (0..20).map(|_| counted(&kit, 3)).collect::<Vec<_>>());
        let events: Vec<_> = vecs.iter_mut().map(|vec| queue.fill(vec, 9).submit().unwrap()).collect();
        let prefetch = queue.prefetch(limosa::Side::Host, &vecs[0]).after(&events[0]).submit().unwrap();
        drop(queue);
        assert!(events.iter().chain([&prefetch]).all(is_done));
        assert!(vecs.iter().all(|vec| all_are(vec, 9)));
    }
}

/// What a node of a graph is to do.
#[derive(Clone, Debug)]
struct Node {
    queue: usize,
    /// Earlier nodes that it waits for, as shares of those there are.
    parents: Vec<prop::sample::Index>,
    /// Waits for them by a marker on some queue, or a barrier.
    by: Option<(usize, bool)>,
    /// Waits for a user event as well.
    outside: bool,
    /// Is followed by an event of the host's that moves its word.
    moves: Option<bool>,
}

fn graphs() -> impl Strategy<Value = Vec<Node>> {
    let node = (
        0..QUEUES,
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        prop::option::weighted(0.3, (0..QUEUES, any::<bool>())),
        prop::bool::weighted(0.15),
        prop::option::weighted(0.2, any::<bool>()),
    );
    let node = node.prop_map(|(queue, parents, by, outside, moves)| Node { queue, parents, by, outside, moves });
    prop::collection::vec(node, 1..14)
}

/// The first two in order, the others not.
const QUEUES: usize = 4;

/// Runs a graph: each node copies the words of those before it, by a launch each, and then sets its own. A node that runs
/// too early copies a word that is not set.
fn run(kit: &Kit, graph: &[Node]) -> TestCaseResult {
    let queue = |index| if index < 2 { kit.context.queue().unwrap() } else { unordered(kit) };
    let queues: Vec<Queue> = (0..QUEUES).map(queue).collect();
    let mut outs: Vec<UnifiedVec<u32>> = graph.iter().map(|_| words(kit)).collect();
    let mut seen: Vec<(usize, usize, UnifiedVec<u32>)> = Vec::new();
    let (mut done, mut users): (Vec<Event>, Vec<UserEvent>) = (Vec::new(), Vec::new());
    for (index, node) in graph.iter().enumerate() {
        let queue = &queues[node.queue];
        let mut parents: Vec<usize> =
            if index == 0 { Vec::new() } else { node.parents.iter().map(|p| p.index(index)).collect() };
        let mut after: Vec<Event> = parents.iter().map(|parent| done[*parent].clone()).collect();
        if let Some((by, is_barrier)) = node.by {
            let by = &queues[by];
            after = vec![if is_barrier { by.barrier(&after) } else { by.marker(&after) }.unwrap()];
        }
        if node.outside {
            users.push(kit.context.user_event());
            after.push(users.last().unwrap().event());
        }
        // Who is before it on its queue need not be said.
        let before = (0..index).rev().find(|other| node.queue < 2 && graph[*other].queue == node.queue);
        parents.extend(before);
        let mut copied = after.clone();
        for parent in parents {
            let mut target = words(kit);
            copied.push(queue.copy(&outs[parent], &mut target).after_all(&after).submit().unwrap());
            seen.push((index, parent, target));
        }
        let mut last = queue.fill(&mut outs[index], 1).after_all(&copied).submit().unwrap();
        if let Some(to_device) = node.moves {
            let side = if to_device { limosa::Side::Device } else { limosa::Side::Host };
            last = queue.prefetch(side, &outs[index]).after(&last).submit().unwrap();
        }
        done.push(last);
    }
    users.into_iter().rev().for_each(UserEvent::complete);
    done.iter().for_each(|event| event.wait().unwrap());
    for (node, parent, target) in &seen {
        prop_assert!(all_are(target, 1), "node {node} ran before {parent}");
    }
    prop_assert!(outs.iter().all(|out| all_are(out, 1)));
    Ok(())
}

#[test]
fn random_graphs_keep_their_order() {
    let _turn = turn("graphs");
    for way in ALL {
        let Some(kit) = way.kit("graphs", builder().device_budget(16 * MIB)) else { break };
        let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
        let ran = TestRunner::new(config).run(&graphs(), |graph| run(&kit, &graph));
        assert!(ran.is_ok(), "{way:?}: {}", ran.unwrap_err());
    }
}

#[test]
fn graphs_are_finished_though_nobody_waits() {
    let _turn = turn("nobody");
    let Some(kit) = FAULTING.kit("nobody", builder()) else { return };
    let (queue, mut vec, mut copied) = (unordered(&kit), words(&kit), words(&kit));
    let go = kit.context.user_event();
    let mut last = go.event();
    for value in 0..50 {
        last = queue.fill(&mut vec, value).after(&last).submit().unwrap();
        last = copy_after(&queue, &vec, &mut copied, &last);
        last = queue.marker([&last]).unwrap();
    }
    go.complete();
    wait_until(|| is_done(&last));
    assert!(all_are(&copied, 49));
}

fn copy_after(queue: &Queue, from: &UnifiedVec<u32>, to: &mut UnifiedVec<u32>, after: &Event) -> Event {
    queue.copy(from, to).after(after).submit().unwrap()
}
