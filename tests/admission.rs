//! When launches are admitted: in which order, after whom, and with which sets into which budget.
//!
//! Nothing here waits by the clock: a [`Gate`] keeps the device busy for as long as a test likes.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, settle, turn};
use common::gate::Gate;
use common::views::{ALL, BESIDE_KERNELS, FAULTING, MODES, Way, cases};
use common::words::{Random, all_are, copy_on, counted, peek, since, sum_of};
use limosa::{Access, ContextBuilder, Error, Event, FaultMode, Kernel, PagerError, Queue, RawAllocation, UnifiedVec};
use limosa_shaders::{copy, fill, triad};

/// The least that a budget can be: four chunks.
const BUDGET: u64 = 8 * MIB;
const BUDGET_BLOCKS: usize = 128;

#[test]
fn queues_that_conflict_run_one_after_the_other_in_order_of_submission() {
    let _turn = turn("conflicts");
    for way in BESIDE_KERNELS {
        conflicts(*way);
    }
}

fn conflicts(way: Way) {
    let Some(kit) = way.kit("conflicts", builder().device_budget(BUDGET)) else { return };
    let queues: Vec<_> = (0..3).map(|_| kit.context.queue().unwrap()).collect();
    let mut shared = kit.heap().vec_zeroed::<u32>(3 * BLOCK_WORDS).unwrap();
    let mut seen: Vec<_> = (0..40).map(|_| kit.heap().vec_zeroed::<u32>(3 * BLOCK_WORDS).unwrap()).collect();
    let mut random = Random(0x1234_5678_9abc_def1);
    let gate = Gate::close(&kit, &queues[0]);
    let mut events = Vec::new();
    for (step, seen) in (1u32..).zip(&mut seen) {
        events.push(kit.fill_on(&queues[random.below(3)], &mut shared, step).unwrap());
        events.push(copy_on(&kit, &queues[random.below(3)], &shared, seen));
    }
    assert!(events.iter().all(|event| !event.is_complete().unwrap()));
    gate.open();
    for event in events.iter().rev() {
        event.wait().unwrap();
    }
    assert!((1u32..).zip(&seen).all(|(step, seen)| all_are(seen, step)));
    assert!(all_are(&shared, 40));
}

#[test]
fn a_conflict_keeps_the_second_launch_off_the_device() {
    let _turn = turn("conflict, pending");
    for way in BESIDE_KERNELS {
        conflict_pending(*way);
    }
}

fn conflict_pending(way: Way) {
    let Some(kit) = way.kit("conflict, pending", builder()) else { return };
    let other = kit.context.queue().unwrap();
    let mut vec = counted(&kit, 3);
    let mut free = counted(&kit, 3);
    let gate = Gate::close(&kit, &kit.queue);
    let before = kit.heap().counters();
    let first = kit.fill(&mut vec, 1).unwrap();
    let second = kit.fill_on(&other, &mut vec, 2).unwrap();
    assert_eq!(since(&kit, &before).launches, 1, "the second waits for the first's blocks");
    let third = kit.fill(&mut free, 3).unwrap();
    assert_eq!(since(&kit, &before).launches, 1, "and nobody overtakes it");
    gate.open();
    [third, second, first].iter().for_each(|event| event.wait().unwrap());
    assert_eq!(since(&kit, &before).launches, 3);
    assert!(all_are(&vec, 2) && all_are(&free, 3));
}

#[test]
fn sets_that_do_not_fit_together_are_admitted_one_after_the_other() {
    let _turn = turn("sets in turn");
    for (way, mode) in cases(BESIDE_KERNELS) {
        let Some(kit) = way.kit("sets in turn", builder().device_budget(BUDGET).fault_mode(mode)) else { break };
        let queues: Vec<_> = (0..4).map(|_| kit.context.queue().unwrap()).collect();
        let mut vecs: Vec<_> = (0..12).map(|i| counted(&kit, 65 + i * 5)).collect();
        let gate = Gate::close(&kit, &kit.queue);
        let before = kit.heap().counters();
        let mut events = Vec::new();
        for (step, vec) in (0u32..).zip(&mut vecs) {
            events.push(kit.fill_on(&queues[step as usize % 4], vec, step).unwrap());
        }
        assert_eq!(since(&kit, &before).launches, 1, "two of them do not fit");
        gate.open();
        // Whoever is waited for last must not be needed for the others to go on.
        let last = events.pop().unwrap();
        last.wait().unwrap();
        assert!(events.iter().all(|event| event.is_complete().unwrap()), "in order");
        assert!((0u32..).zip(&vecs).all(|(step, vec)| all_are(vec, step)));
        assert!(kit.heap().device_bytes() <= BUDGET);
        assert!(kit.heap().device_frames_resident().unwrap() <= BUDGET);
    }
}

#[test]
fn after_orders_launches_of_different_queues() {
    let _turn = turn("after");
    let Some(kit) = Kit::new("after", builder()) else { return };
    let queues: Vec<_> = (0..4).map(|_| kit.context.queue().unwrap()).collect();
    let vecs: Vec<_> = (0..5).map(|_| counted(&kit, 2)).collect();
    let gate = Gate::close(&kit, &kit.queue);
    let before = kit.heap().counters();
    let words = vecs[0].len() as u64;
    let mut previous = kit.fill_at(vecs[0].ptr(0).address(), words, 6).unwrap();
    // Nothing is declared, so that only the events can order it.
    for (queue, pair) in queues.iter().zip(vecs.windows(2)) {
        let launch = queue.launch(&kit.copy, words / copy::ITEMS).args((pair[1].ptr(0), pair[0].ptr(0)));
        let launch = launch.arg(words).keeps(pair[0].raw()).keeps(pair[1].raw()).after(&previous);
        // SAFETY: copy touches two vectors that are kept, ordered by the event.
        previous = unsafe { launch.submit() }.unwrap();
    }
    // The queue waits with its head, another queue's launch passes.
    let mut own = counted(&kit, 1);
    let behind = kit.fill_on(&queues[3], &mut own, 8).unwrap();
    assert_eq!(since(&kit, &before).launches, 1);
    let free = kit.context.queue().unwrap();
    let mut passing = counted(&kit, 1);
    let passes = kit.fill_on(&free, &mut passing, 9).unwrap();
    assert_eq!(since(&kit, &before).launches, 2);
    assert!(!previous.is_complete().unwrap() && !behind.is_complete().unwrap());
    gate.open();
    behind.wait().unwrap();
    assert!(previous.is_complete().unwrap());
    previous.wait().unwrap();
    passes.wait().unwrap();
    assert!(vecs.iter().all(|vec| all_are(vec, 6)) && all_are(&own, 8) && all_are(&passing, 9));
}

#[test]
fn a_set_beyond_the_budget_names_both_sizes_and_parts_of_it_go() {
    let _turn = turn("set beyond the budget");
    for way in BESIDE_KERNELS {
        set_beyond_the_budget(*way);
    }
}

fn set_beyond_the_budget(way: Way) {
    let Some(kit) = way.kit("set beyond the budget", builder().device_budget(BUDGET)) else { return };
    let mut vec = counted(&kit, BUDGET_BLOCKS + 1);
    let address = vec.ptr(0);
    let fill = |vec: &mut UnifiedVec<u32>, blocks: usize| {
        let words = (blocks * BLOCK_WORDS) as u64;
        let launch = kit.queue.launch(&kit.fill, words / fill::ITEMS).args((address, words));
        // SAFETY: fill writes the declared range.
        unsafe { launch.args((2u32, 0u32)).with(vec.slice_mut(0..blocks * BLOCK_WORDS).unwrap().writes()).submit() }
    };
    let error = fill(&mut vec, BUDGET_BLOCKS + 1).err().unwrap();
    let text = error.to_string();
    assert!(error.is_out_of_memory() && text.contains("split"), "{text}");
    let Error::Pager(PagerError::SetTooLarge { kernel, asked, budget, .. }) = error else { panic!("{text}") };
    assert_eq!((kernel.as_str(), asked, budget), ("fill", BUDGET + BLOCK, BUDGET));
    assert!(text.contains(&asked.to_string()) && text.contains(&budget.to_string()), "{text}");
    // All of the budget can be had.
    fill(&mut vec, BUDGET_BLOCKS).unwrap().wait().unwrap();
    assert_eq!((peek(&vec, 0), peek(&vec, BUDGET_BLOCKS * BLOCK_WORDS - 1)), (2, 2));
    assert_eq!(peek(&vec, BUDGET_BLOCKS * BLOCK_WORDS), u32::try_from(BUDGET_BLOCKS * BLOCK_WORDS).unwrap());
    kit.works();
}

/// A set that fills the budget, while the blocks beside it in its own chunks are on the device.
#[test]
fn a_set_may_fill_the_budget_whatever_was_there_before() {
    let _turn = turn("set of the budget");
    for way in BESIDE_KERNELS {
        set_of_the_budget(*way);
    }
}

fn set_of_the_budget(way: Way) {
    let Some(kit) = way.kit("set of the budget", builder().device_budget(BUDGET)) else { return };
    let vec = counted(&kit, 2 * BUDGET_BLOCKS);
    // Every other 16 blocks, or every other 8: chunks are shared with what is to leave.
    for run in [16, 8, 1] {
        for start in [0, run] {
            let ranges: Vec<_> = (start..2 * BUDGET_BLOCKS)
                .step_by(2 * run)
                .map(|at| at * BLOCK_WORDS..(at + run) * BLOCK_WORDS)
                .collect();
            let launch = kit.queue.launch(&kit.fill, 1).args((vec.ptr(0), 0u64, 9u32, 0u32));
            let launch =
                ranges.iter().fold(launch, |launch, range| launch.with(vec.slice(range.clone()).unwrap().reads()));
            // SAFETY: fill writes nothing.
            unsafe { launch.submit() }.unwrap().wait().unwrap();
            assert!(kit.heap().device_frames_resident().unwrap() <= BUDGET);
        }
    }
    assert!(vec.read().unwrap().iter().zip(0u32..).all(|(word, i)| *word == i));
    kit.works();
}

#[test]
fn undeclared_use_goes_through_what_the_declared_set_leaves() {
    let _turn = turn("beside a declared set");
    let Some(kit) = Kit::new("beside a declared set", builder().device_budget(BUDGET)) else { return };
    for left in [40, 16, 4] {
        let held = counted(&kit, BUDGET_BLOCKS - left);
        let swept = counted(&kit, 64);
        let mut total = kit.heap().vec_zeroed::<u64>(BLOCK_WORDS / 2).unwrap();
        let words = swept.len() as u64;
        // One invocation a word: each workgroup reads its own stretch, once.
        let launch = kit.queue.launch(&kit.reduce, words).args((swept.ptr(0), total.ptr(0)));
        let launch = launch.arg(words).with(held.reads()).keeps(swept.raw()).keeps(total.raw());
        // SAFETY: reduce reads `swept` and adds to `total`, both kept.
        unsafe { launch.submit() }.unwrap().wait().unwrap();
        assert_eq!(total.write().unwrap()[0], sum_of(0..swept.len()), "{left} blocks left");
    }
}

/// The holds of a launch that has completed must not fail the next one's faults.
#[test]
fn undeclared_use_follows_a_set_that_fills_the_budget() {
    let _turn = turn("undeclared after declared");
    let Some(kit) = Kit::new("undeclared after declared", builder().device_budget(BUDGET)) else { return };
    let mut held = counted(&kit, BUDGET_BLOCKS);
    let swept = counted(&kit, 16);
    let words = swept.len() as u64;
    for round in 0..20 {
        let first = kit.fill(&mut held, round).unwrap();
        let second = kit.fill_at(swept.ptr(0).address(), words, round).unwrap();
        second.wait().unwrap();
        first.wait().unwrap();
        assert!(all_are(&swept, round) && all_are(&held, round));
    }
}

/// The rest of a chunk leaves for the part of it that is needed.
#[test]
fn a_set_may_fill_the_budget_although_its_chunks_have_more() {
    let _turn = turn("rest of a chunk");
    for way in BESIDE_KERNELS {
        rest_of_a_chunk(*way);
    }
}

fn rest_of_a_chunk(way: Way) {
    let Some(kit) = way.kit("rest of a chunk", builder().device_budget(BUDGET)) else { return };
    let vec = counted(&kit, 256);
    let word = |block: usize| block * BLOCK_WORDS;
    // Something else, then the end of chunk 5 as the latest, then all but the room for the start of chunk 5. (Fewer
    // than 16 blocks of a chunk, so that it does not get all of its frames at once.)
    for ranges in [[200..256, 0..0], [177..192, 0..0], [0..111, 128..130]] {
        let launch = kit.queue.launch(&kit.fill, 1).args((vec.ptr(0), 0u64, 9u32, 0u32));
        let launch = ranges
            .iter()
            .fold(launch, |launch, range| launch.with(vec.slice(word(range.start)..word(range.end)).unwrap().reads()));
        // SAFETY: fill writes nothing.
        unsafe { launch.submit() }.unwrap().wait().unwrap();
    }
    let launch = kit.queue.launch(&kit.fill, 1).args((vec.ptr(0), 0u64, 9u32, 0u32));
    let launch =
        launch.with(vec.slice(0..word(111)).unwrap().reads()).with(vec.slice(word(128)..word(130)).unwrap().reads());
    // SAFETY: fill writes nothing.
    unsafe { launch.with(vec.slice(word(160)..word(175)).unwrap().reads()).submit() }.unwrap().wait().unwrap();
    assert!(kit.heap().device_frames_resident().unwrap() <= BUDGET);
    assert!(vec.read().unwrap().iter().zip(0u32..).all(|(word, i)| *word == i));
}

/// A kernel that may fault keeps some room free of holds as long as it runs: a launch behind it that needs all of the
/// budget comes after it, and is not refused.
#[test]
fn a_set_of_all_the_budget_waits_for_a_kernel_that_declares_nothing() {
    let _turn = turn("all of the budget behind an undeclared kernel");
    for mode in MODES {
        let Some(kit) = Kit::new("behind", builder().device_budget(BUDGET).fault_mode(mode)) else { return };
        let other = kit.context.queue().unwrap();
        let (mut whole, mut small) = (counted(&kit, BUDGET_BLOCKS), counted(&kit, 4));
        let swept = counted(&kit, 64);
        let gate = Gate::close(&kit, &kit.queue);
        let before = kit.heap().counters();
        // Faults while it runs, too, when the gate opens: on the same queue, behind the gate.
        let launch = kit.queue.launch(&kit.fill, 64).args((swept.ptr(0), swept.len() as u64, 3u32));
        // SAFETY: fill writes `swept`, which is kept; nobody else uses it until the event.
        let faults = unsafe { launch.arg(0u32).keeps(swept.raw()).submit() }.unwrap();
        let beside = kit.fill_on(&other, &mut small, 2).unwrap();
        assert_eq!(since(&kit, &before).launches, 2, "a small set goes beside");
        let all = kit.fill_on(&other, &mut whole, 5).unwrap();
        assert_eq!(since(&kit, &before).launches, 2, "all of it does not");
        assert!(gate.is_closed() && !all.is_complete().unwrap());
        gate.open();
        for event in [&all, &faults, &beside] {
            event.wait().unwrap();
        }
        assert_eq!(kit.heap().counters().faults_refused, 0, "{mode:?}");
        assert!(all_are(&whole, 5) && all_are(&swept, 3) && all_are(&small, 2), "{mode:?}");
        drop(gate);
        kit.works();
    }
}

/// What a launch needs and has on the device is not evicted to make room for the rest of what it needs.
#[test]
fn a_launch_does_not_evict_its_own_set() {
    let _turn = turn("own set");
    let Some(kit) = Kit::new("own set", builder().device_budget(BUDGET)) else { return };
    let chunk = 32 * BLOCK_WORDS;
    let mut vec = counted(&kit, 32 * 8);
    let other = counted(&kit, 8);
    let address = vec.ptr(chunk);
    // Written, so that leaving and coming back costs copies: chunks 1 to 3 of the vector, oldest first.
    let launch = kit.queue.launch(&kit.fill, 1000).args((address, 3 * chunk as u64, 6u32, 0u32));
    // SAFETY: fill writes the declared range.
    unsafe { launch.with(vec.slice_mut(chunk..4 * chunk).unwrap().writes()).submit() }.unwrap().wait().unwrap();
    kit.sum_at(other.ptr(0).address(), other.len() as u64).unwrap();
    // A kernel goes on, and ends, before the move that it faulted for does.
    settle(&other);
    let before = kit.heap().counters();
    let launch = kit.queue.launch(&kit.fill, 1000).args((vec.ptr(0), 4 * chunk as u64, 7u32, 0u32));
    // SAFETY: fill writes the declared range.
    unsafe { launch.with(vec.slice_mut(0..4 * chunk).unwrap().writes()).submit() }.unwrap().wait().unwrap();
    let moved = since(&kit, &before);
    assert_eq!((moved.blocks_to_host, moved.blocks_to_device), (0, 32), "{moved:?}");
    assert!(vec.read().unwrap()[..4 * chunk].iter().all(|word| *word == 7));
}

/// Memory that launches of many queues count in.
struct Tallies {
    cells: Vec<Arc<RawAllocation>>,
    counts: Vec<AtomicU64>,
    ones: UnifiedVec<f32>,
    triad: Kernel,
    events: Mutex<Vec<Event>>,
}

impl Tallies {
    const MOST_BLOCKS: usize = 60;

    fn new(kit: &Kit, random: &mut Random) -> Self {
        let cells: Vec<_> = (0..14)
            .map(|_| kit.heap().allocate((1 + random.below(Self::MOST_BLOCKS)) as u64 * BLOCK, 1).unwrap())
            .collect();
        Self {
            counts: cells.iter().map(|_| AtomicU64::new(0)).collect(),
            cells,
            ones: kit.heap().vec_with(Self::MOST_BLOCKS * BLOCK_WORDS, |_| 1f32).unwrap(),
            triad: kit.context.kernel(triad::KERNEL.name, triad::KERNEL.spirv).unwrap(),
            events: Mutex::default(),
        }
    }

    /// Adds 1 to every word of a random cell; declares others besides.
    fn launch(&self, queue: &Queue, random: &mut Random) {
        let cell = random.below(self.cells.len());
        let memory = &self.cells[cell];
        let count = memory.len() / 4;
        let base = memory.ptr();
        let mut launch = queue.launch(&self.triad, count / triad::ITEMS).args((base, base));
        let words = usize::try_from(count).unwrap();
        launch = launch.arg(self.ones.ptr(0)).with(self.ones.slice(0..words).unwrap().reads());
        launch = launch.args((count, 1f32, 0u32)).with_raw(memory, Access::Write);
        let other = &self.cells[random.below(self.cells.len())];
        let room = BUDGET / BLOCK - 2 * memory.len() / BLOCK;
        if random.below(2) == 0 && other.len() / BLOCK <= room {
            let access = if random.below(3) == 0 { Access::Write } else { Access::Read };
            launch = launch.with_raw(other, access);
        }
        let mut events = self.events.lock().unwrap();
        if let Some(event) = events.get(random.below(events.len() + 3)) {
            launch = launch.after(event);
        }
        // SAFETY: triad touches the cell and the ones, which are declared; the CPU only looks while launches run.
        events.push(unsafe { launch.submit() }.unwrap());
        self.counts[cell].fetch_add(1, Ordering::SeqCst);
    }

    /// One of the cells as the CPU sees it: so far never less than before.
    fn look(&self, random: &mut Random, seen: &mut [f32]) {
        let cell = random.below(self.cells.len());
        let word = self.cells[cell].ptr().add(random.below(16) as u64 * 4).as_ptr().cast::<f32>();
        // SAFETY: an aligned word of the cell, held against us while a launch writes it.
        let now = unsafe { word.read_volatile() };
        assert!(now >= seen[cell] && now.fract() == 0.0, "{now} after {}", seen[cell]);
        seen[cell] = now;
    }

    fn check(&self) {
        for (memory, count) in self.cells.iter().zip(&self.counts) {
            let words = usize::try_from(memory.len() / 4).unwrap();
            // SAFETY: all launches have completed.
            let words = unsafe { std::slice::from_raw_parts(memory.ptr().as_ptr().cast::<f32>(), words) };
            let expected = f32::from(u16::try_from(count.load(Ordering::SeqCst)).unwrap());
            let wrong = words.iter().position(|word| *word != expected);
            assert!(wrong.is_none(), "word {wrong:?} of a cell that was counted {expected} times: {:?}", &words[..4]);
        }
    }
}

fn tally(way: Way, builder: ContextBuilder, seed: u64, threads: u64, launches: usize) {
    let Some(kit) = way.kit("tallies", builder) else { return };
    let tallies = Tallies::new(&kit, &mut Random(seed));
    let shared = kit.context.queue().unwrap();
    std::thread::scope(|scope| {
        for thread in 1..=threads {
            let (kit, tallies, shared) = (&kit, &tallies, &shared);
            scope.spawn(move || {
                let own = kit.context.queue().unwrap();
                let mut random = Random(seed.wrapping_mul(thread * 2 + 1));
                let mut seen = vec![0f32; tallies.cells.len()];
                for _ in 0..launches {
                    tallies.launch(if random.below(4) == 0 { shared } else { &own }, &mut random);
                    if random.below(3) == 0 {
                        tallies.look(&mut random, &mut seen);
                    }
                    if random.below(16) == 0 {
                        own.wait_idle().unwrap();
                    }
                }
            });
        }
    });
    tallies.events.lock().unwrap().iter().for_each(|event| event.wait().unwrap());
    tallies.check();
    let heap = kit.heap();
    assert!(heap.device_bytes() <= BUDGET && heap.device_frames_resident().unwrap() <= BUDGET);
    assert_eq!(heap.counters().faults_refused, 0);
    drop(tallies);
    kit.works();
}

#[test]
fn many_threads_and_queues_with_random_sets_in_a_small_budget() {
    for (way, mode) in cases(ALL) {
        let _turn = turn("tallies");
        let seed = if mode == FaultMode::InThread { 0x2545_f491_4f6c_dd1d } else { 0x9e37_79b9_7f4a_7c15 };
        tally(way, builder().device_budget(BUDGET).fault_mode(mode), seed, 5, 50);
    }
    let _turn = turn("tallies");
    tally(FAULTING, builder().device_budget(BUDGET).check(true), 0x1234_5678_9abc_def1, 3, 12);
}
