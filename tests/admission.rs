//! Launches declare what they touch: when they are admitted, what they hold meanwhile, and who waits for whom.
//!
//! Nothing here waits by the clock: a [`Gate`] keeps the device busy for as long as a test likes, and the counters
//! tell when a thread is parked.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, turn};
use limosa::{
    Access, ContextBuilder, Counters, Error, Event, FaultMode, GpuPtr, Kernel, PagerError, Queue, RawAllocation,
    TouchCause, UnifiedVec, inject,
};
use limosa_shaders::{copy, fill, lookup, reduce, triad};

const MODES: [FaultMode; 2] = [FaultMode::HandlerThread, FaultMode::InThread];
/// The least that a budget can be: four chunks.
const BUDGET: u64 = 8 * MIB;
const BUDGET_BLOCKS: usize = 128;

/// A kernel that runs until it is let through: it looks a key up in a tree that is a ring.
struct Gate {
    _memory: Arc<RawAllocation>,
    /// The same where the device sees it, so that opening asks nothing of the host's side, also after a loss.
    at_device: GpuPtr<u8>,
    event: Event,
}

/// In the gate's block: two nodes (key, value, left, right), then the key to look for, then what was found.
const NODES: [u64; 2] = [0, 32];
const KEY: u64 = 64;
const FOUND: u64 = 72;
const WANTED: u64 = 7;

impl Gate {
    fn close(kit: &Kit, queue: &Queue) -> Self {
        let kernel = kit.context.kernel(lookup::KERNEL.name, lookup::KERNEL.spirv).unwrap();
        let memory = kit.heap().allocate(BLOCK, BLOCK).unwrap();
        let base = memory.ptr();
        let put = |at: u64, value: u64| {
            // SAFETY: inside the block, of which nobody else knows yet.
            unsafe { base.add(at).as_ptr().cast::<u64>().write(value) };
        };
        for (node, other) in [(NODES[0], NODES[1]), (NODES[1], NODES[0])] {
            let next = base.add(other).address();
            [1, 0, next, next].into_iter().zip(0..).for_each(|(word, i)| put(node + 8 * i, word));
        }
        put(KEY, WANTED);
        // There before the kernel is, so that no fault of the gate's own is counted later.
        memory.prefetch(limosa::Side::Device).unwrap();
        let launch = queue.launch(&kernel, 1).keeps(&memory).pointer(base.add(NODES[0])).pointer(base.add(KEY));
        let launch = launch.pointer(base.add(FOUND)).value(1u64).value(0u64);
        // SAFETY: lookup touches the block only, which is kept; the CPU's store below is one aligned word.
        let event = unsafe { launch.submit() }.unwrap();
        let offset = base.address() - kit.heap().range().start.0;
        let at_device = GpuPtr::from_address(kit.heap().device_range().unwrap().start.0 + offset);
        Self { _memory: memory, at_device, event }
    }

    /// Lets the kernel end.
    fn open(&self) {
        for node in NODES {
            // SAFETY: an aligned word inside the block, which is this gate's to order and kept by it.
            unsafe { self.at_device.add(node).as_ptr().cast::<u64>().write_volatile(WANTED) };
        }
    }

    fn is_closed(&self) -> bool {
        !self.event.is_complete().unwrap()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Also when a test fails, so that it ends.
        self.open();
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

fn counted(kit: &Kit, blocks: usize) -> UnifiedVec<u32> {
    kit.heap().vec_with(blocks * BLOCK_WORDS, |i| u32::try_from(i).unwrap()).unwrap()
}

fn sum_of(words: usize) -> u64 {
    (0..words as u64).sum()
}

fn all_are(vec: &UnifiedVec<u32>, value: u32) -> bool {
    vec.read().unwrap().iter().all(|word| *word == value)
}

fn since(kit: &Kit, before: &Counters) -> Counters {
    kit.heap().counters().since(before)
}

/// The first word, read past the guards that would wait.
fn peek(vec: &UnifiedVec<u32>, index: usize) -> u32 {
    // SAFETY: an aligned word of the vector; what launches write of it is held against the CPU meanwhile.
    unsafe { vec.ptr(index).as_ptr().read_volatile() }
}

fn poke(vec: &UnifiedVec<u32>, index: usize, value: u32) {
    // SAFETY: as in `peek`; the tests have no reference to the word.
    unsafe { vec.ptr(index).as_ptr().write_volatile(value) };
}

/// Has `queue` add `source` up into `total`.
fn sum_into(kit: &Kit, queue: &Queue, source: &UnifiedVec<u32>, total: &mut UnifiedVec<u64>) -> Event {
    let words = source.len() as u64;
    let launch = queue.launch(&kit.reduce, words.div_ceil(reduce::ITEMS));
    // SAFETY: reduce reads `source` and adds to the first word of `total`.
    unsafe { launch.reads(source).writes(total).value(words).submit() }.unwrap()
}

fn copy_on(kit: &Kit, queue: &Queue, from: &UnifiedVec<u32>, to: &mut UnifiedVec<u32>) -> Event {
    let words = from.len().min(to.len()) as u64;
    let launch = queue.launch(&kit.copy, words.div_ceil(copy::ITEMS));
    // SAFETY: copy writes as many words of `to` as it reads of `from`.
    unsafe { launch.writes(to).reads(from).value(words).submit() }.unwrap()
}

#[test]
fn a_touch_of_what_a_launch_writes_waits_for_it() {
    let _turn = turn("touch of a written block");
    for mode in MODES {
        let Some(kit) = Kit::new("touch", builder().fault_mode(mode)) else { return };
        for access in [Access::Read, Access::Write] {
            let mut vec = counted(&kit, 40);
            let gate = Gate::close(&kit, &kit.queue);
            let event = kit.fill(&mut vec, 77).unwrap();
            let before = kit.heap().counters();
            let (vec, done) = (&vec, &AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    if access == Access::Write {
                        poke(vec, 39 * BLOCK_WORDS, 78);
                    }
                    assert_eq!(peek(vec, 5), 77, "{mode:?}");
                    done.store(true, Ordering::SeqCst);
                });
                wait_until(|| since(&kit, &before).faults_parked > 0);
                assert!(!done.load(Ordering::SeqCst) && gate.is_closed() && !event.is_complete().unwrap());
                gate.open();
            });
            event.wait().unwrap();
            let last = if access == Access::Write { 78 } else { 77 };
            assert_eq!((peek(vec, 39 * BLOCK_WORDS), peek(vec, 39 * BLOCK_WORDS + 1)), (last, 77));
        }
    }
}

#[test]
fn a_read_of_what_a_launch_reads_does_not_wait_and_a_write_does() {
    let _turn = turn("touch of a read block");
    for mode in MODES {
        let Some(kit) = Kit::new("touch of a read block", builder().fault_mode(mode)) else { return };
        let vec = counted(&kit, 40);
        let mut total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let event = sum_into(&kit, &kit.queue, &vec, &mut total);
        // The guard does not wait either.
        assert!(vec.read().unwrap().iter().enumerate().all(|(i, word)| u32::try_from(i) == Ok(*word)));
        assert!(gate.is_closed() && !event.is_complete().unwrap());
        assert_eq!(vec.residency_summary().both, 40 * BLOCK, "read by both");
        let before = kit.heap().counters();
        std::thread::scope(|scope| {
            scope.spawn(|| poke(&vec, 3, 1_000_000));
            wait_until(|| since(&kit, &before).faults_parked > 0);
            assert!(gate.is_closed());
            gate.open();
        });
        event.wait().unwrap();
        assert_eq!(total.read().unwrap()[0], sum_of(vec.len()), "{mode:?}: the store came after the launch");
        assert_eq!(peek(&vec, 3), 1_000_000);
    }
}

#[test]
fn a_launch_holds_the_ranges_that_it_declares_and_no_more() {
    let _turn = turn("ranges");
    for mode in MODES {
        let Some(kit) = Kit::new("ranges", builder().fault_mode(mode)) else { return };
        let mut vec = counted(&kit, 40);
        let middle = 10 * BLOCK_WORDS..12 * BLOCK_WORDS;
        let gate = Gate::close(&kit, &kit.queue);
        let (target, words) = (vec.ptr(middle.start), middle.len() as u64);
        let launch = kit.queue.launch(&kit.fill, words.div_ceil(fill::ITEMS)).pointer(target).value(words);
        // SAFETY: fill writes the declared range.
        let event =
            unsafe { launch.value(5u32).value(0u32).with_writes_of(&mut vec, middle.clone()).submit() }.unwrap();
        // Not the heap's counter: the gate's own fault may come at any time.
        assert_eq!(vec.residency_summary().device, 2 * limosa::BLOCK);
        // Beside the range nobody waits.
        for block in [0, 9, 12, 39] {
            poke(&vec, block * BLOCK_WORDS, 9);
            assert_eq!(peek(&vec, block * BLOCK_WORDS + 1), u32::try_from(block * BLOCK_WORDS + 1).unwrap());
        }
        assert!(gate.is_closed() && !event.is_complete().unwrap());
        gate.open();
        assert_eq!((peek(&vec, middle.start), peek(&vec, middle.end - 1)), (5, 5));
        assert_eq!(peek(&vec, middle.end + 1), u32::try_from(middle.end + 1).unwrap());
        event.wait().unwrap();
    }
}

#[test]
fn queues_that_conflict_run_one_after_the_other_in_order_of_submission() {
    let _turn = turn("conflicts");
    let Some(kit) = Kit::new("conflicts", builder().device_budget(BUDGET)) else { return };
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
    let Some(kit) = Kit::new("conflict, pending", builder()) else { return };
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
    for mode in MODES {
        let Some(kit) = Kit::new("sets in turn", builder().device_budget(BUDGET).fault_mode(mode)) else { return };
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
        let launch = queue.launch(&kit.copy, words / copy::ITEMS).pointer(pair[1].ptr(0)).pointer(pair[0].ptr(0));
        let launch = launch.value(words).keeps(pair[0].raw()).keeps(pair[1].raw()).after(&previous);
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
fn what_pending_launches_use_may_be_dropped() {
    let _turn = turn("dropped");
    for mode in MODES {
        let Some(kit) = Kit::new("dropped", builder().device_budget(BUDGET).fault_mode(mode)) else { return };
        let mut last = kit.heap().vec_zeroed::<u32>(100 * BLOCK_WORDS).unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let queues: Vec<_> = (0..3).map(|_| kit.context.queue().unwrap()).collect();
        let before = kit.heap().counters();
        for step in 0..6 {
            let mut vec = counted(&kit, 70 + step);
            let event = kit.fill_on(&queues[step % 3], &mut vec, 1).unwrap();
            assert!(!event.is_complete().unwrap());
        }
        let event = kit.fill_on(&queues[1], &mut last, 4).unwrap();
        assert_eq!(since(&kit, &before).launches, 1);
        gate.open();
        drop(queues);
        assert!(event.is_complete().unwrap(), "a queue waits for its launches");
        assert_eq!(since(&kit, &before).launches, 7);
        assert!(all_are(&last, 4));
        drop(gate);
        kit.works();
    }
}

#[test]
fn a_context_may_go_while_launches_are_pending() {
    let _turn = turn("context dropped");
    let Some(kit) = Kit::new("context dropped", builder().device_budget(BUDGET)) else { return };
    let mut vecs: Vec<_> = (0..4).map(|_| counted(&kit, 90)).collect();
    let gate = Gate::close(&kit, &kit.queue);
    let events: Vec<_> = (0u32..).zip(&mut vecs).map(|(step, vec)| kit.fill(vec, step).unwrap()).collect();
    gate.open();
    drop(kit);
    assert!(events.iter().all(|event| event.is_complete().unwrap()));
    assert!((0u32..).zip(&vecs).all(|(step, vec)| all_are(vec, step)));
}

#[test]
fn overwrites_move_nothing_up_and_spare_what_is_beside_them() {
    let _turn = turn("overwrites");
    for mode in MODES {
        let Some(kit) = Kit::new("overwrites", builder().fault_mode(mode)) else { return };
        let words = 70 * BLOCK_WORDS + 100;
        let mut vec = kit.heap().vec_with(words, |_| 1u32).unwrap();
        let before = kit.heap().counters();
        overwrite(&kit, &mut vec, 5).wait().unwrap();
        let moved = since(&kit, &before);
        assert!(moved.blocks_to_device <= 1, "the last block is overwritten in part: {moved:?}");
        assert_eq!(moved.gpu_read_faults + moved.gpu_write_faults, 0, "{moved:?}");
        assert!(all_are(&vec, 5));

        // Small ones share their block.
        let mut small: Vec<_> = (0..8u32).map(|i| kit.heap().vec_with(100, |_| i).unwrap()).collect();
        let starts: Vec<u64> = small.iter().map(|vec| vec.ptr(0).address() / BLOCK).collect();
        assert!(starts.windows(2).all(|pair| pair[0] == pair[1]), "{starts:x?}");
        overwrite(&kit, &mut small[3], 50).wait().unwrap();
        for (vec, i) in small.iter().zip(0u32..) {
            assert!(all_are(vec, if i == 3 { 50 } else { i }), "{mode:?}: {i}");
        }

        // What is read as well must be there.
        let mut both = counted(&kit, 8);
        let address = both.ptr(0);
        let raw = Arc::clone(both.raw());
        let count = both.len() as u64;
        let launch = kit.queue.launch(&kit.fill, count / fill::ITEMS).overwrites(&mut both).value(count / 2);
        // SAFETY: fill writes the vector's first half; the declared read keeps the other.
        let event = unsafe { launch.value(3u32).value(0u32).with_raw(&raw, Access::Read).submit() }.unwrap();
        event.wait().unwrap();
        assert_eq!(address.address(), both.ptr(0).address());
        let words = both.read().unwrap();
        let (first, second) = words.split_at(words.len() / 2);
        assert!(first.iter().all(|word| *word == 3));
        assert!(second.iter().zip(first.len()..).all(|(word, i)| u32::try_from(i) == Ok(*word)));
    }
}

fn overwrite(kit: &Kit, vec: &mut UnifiedVec<u32>, value: u32) -> Event {
    let count = vec.len() as u64;
    let launch = kit.queue.launch(&kit.fill, count.div_ceil(fill::ITEMS)).overwrites(vec).value(count);
    // SAFETY: fill replaces every word of the vector.
    unsafe { launch.value(value).value(0u32).submit() }.unwrap()
}

#[test]
fn a_set_beyond_the_budget_names_both_sizes_and_parts_of_it_go() {
    let _turn = turn("set beyond the budget");
    let Some(kit) = Kit::new("set beyond the budget", builder().device_budget(BUDGET)) else { return };
    let mut vec = counted(&kit, BUDGET_BLOCKS + 1);
    let address = vec.ptr(0);
    let fill = |vec: &mut UnifiedVec<u32>, blocks: usize| {
        let words = (blocks * BLOCK_WORDS) as u64;
        let launch = kit.queue.launch(&kit.fill, words / fill::ITEMS).pointer(address).value(words);
        // SAFETY: fill writes the declared range.
        unsafe { launch.value(2u32).value(0u32).with_writes_of(vec, 0..blocks * BLOCK_WORDS).submit() }
    };
    let error = fill(&mut vec, BUDGET_BLOCKS + 1).err().unwrap();
    let text = error.to_string();
    assert!(error.is_out_of_memory() && text.contains("split"), "{text}");
    let Error::Pager(PagerError::SetTooLarge { kernel, asked, budget }) = error else { panic!("{text}") };
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
    let Some(kit) = Kit::new("set of the budget", builder().device_budget(BUDGET)) else { return };
    let vec = counted(&kit, 2 * BUDGET_BLOCKS);
    // Every other 16 blocks, or every other 8: chunks are shared with what is to leave.
    for run in [16, 8, 1] {
        for start in [0, run] {
            let ranges: Vec<_> = (start..2 * BUDGET_BLOCKS)
                .step_by(2 * run)
                .map(|at| at * BLOCK_WORDS..(at + run) * BLOCK_WORDS)
                .collect();
            let launch = kit.queue.launch(&kit.fill, 1).pointer(vec.ptr(0)).value(0u64).value(9u32).value(0u32);
            let launch = ranges.iter().fold(launch, |launch, range| launch.with_reads_of(&vec, range.clone()));
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
        let launch = kit.queue.launch(&kit.reduce, words).pointer(swept.ptr(0)).pointer(total.ptr(0));
        let launch = launch.value(words).with_reads(&held).keeps(swept.raw()).keeps(total.raw());
        // SAFETY: reduce reads `swept` and adds to `total`, both kept.
        unsafe { launch.submit() }.unwrap().wait().unwrap();
        assert_eq!(total.write().unwrap()[0], sum_of(swept.len()), "{left} blocks left");
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
    let Some(kit) = Kit::new("rest of a chunk", builder().device_budget(BUDGET)) else { return };
    let vec = counted(&kit, 256);
    let word = |block: usize| block * BLOCK_WORDS;
    // Something else, then the end of chunk 5 as the latest, then all but the room for the start of chunk 5. (Fewer
    // than 16 blocks of a chunk, so that it does not get all of its frames at once.)
    for ranges in [[200..256, 0..0], [177..192, 0..0], [0..111, 128..130]] {
        let launch = kit.queue.launch(&kit.fill, 1).pointer(vec.ptr(0)).value(0u64).value(9u32).value(0u32);
        let launch =
            ranges.iter().fold(launch, |launch, range| launch.with_reads_of(&vec, word(range.start)..word(range.end)));
        // SAFETY: fill writes nothing.
        unsafe { launch.submit() }.unwrap().wait().unwrap();
    }
    let launch = kit.queue.launch(&kit.fill, 1).pointer(vec.ptr(0)).value(0u64).value(9u32).value(0u32);
    let launch = launch.with_reads_of(&vec, 0..word(111)).with_reads_of(&vec, word(128)..word(130));
    // SAFETY: fill writes nothing.
    unsafe { launch.with_reads_of(&vec, word(160)..word(175)).submit() }.unwrap().wait().unwrap();
    assert!(kit.heap().device_frames_resident().unwrap() <= BUDGET);
    assert!(vec.read().unwrap().iter().zip(0u32..).all(|(word, i)| *word == i));
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
    let launch = kit.queue.launch(&kit.fill, 1000).pointer(address).value(3 * chunk as u64).value(6u32).value(0u32);
    // SAFETY: fill writes the declared range.
    unsafe { launch.with_writes_of(&mut vec, chunk..4 * chunk).submit() }.unwrap().wait().unwrap();
    kit.sum_at(other.ptr(0).address(), other.len() as u64).unwrap();
    let before = kit.heap().counters();
    let launch = kit.queue.launch(&kit.fill, 1000).pointer(vec.ptr(0)).value(4 * chunk as u64).value(7u32).value(0u32);
    // SAFETY: fill writes the declared range.
    unsafe { launch.with_writes_of(&mut vec, 0..4 * chunk).submit() }.unwrap().wait().unwrap();
    let moved = since(&kit, &before);
    assert_eq!((moved.blocks_to_host, moved.blocks_to_device), (0, 32), "{moved:?}");
    assert!(vec.read().unwrap()[..4 * chunk].iter().all(|word| *word == 7));
}

/// A xorshift generator: the same sequence in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
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
        let mut launch = queue.launch(&self.triad, count / triad::ITEMS).pointer(base).pointer(base);
        let words = usize::try_from(count).unwrap();
        launch = launch.pointer(self.ones.ptr(0)).with_reads_of(&self.ones, 0..words);
        launch = launch.value(count).value(1f32).value(0u32).with_raw(memory, Access::Write);
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

fn tally(builder: ContextBuilder, seed: u64, threads: u64, launches: usize) {
    let Some(kit) = Kit::new("tallies", builder) else { return };
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
    let _turn = turn("tallies");
    for (mode, seed) in MODES.into_iter().zip([0x9e37_79b9_7f4a_7c15, 0x2545_f491_4f6c_dd1d]) {
        tally(builder().device_budget(BUDGET).fault_mode(mode), seed, 5, 50);
    }
    tally(builder().device_budget(BUDGET).check(true), 0x1234_5678_9abc_def1, 3, 12);
}

#[test]
fn check_mode_goes_by_the_declared_ranges() {
    let _turn = turn("check mode, ranges");
    let Some(kit) = Kit::new("check mode, ranges", builder().check(true).device_budget(BUDGET)) else { return };
    let mut vec = counted(&kit, 12);
    let (from, to) = (3 * BLOCK_WORDS, 5 * BLOCK_WORDS);
    for (start, beyond) in [(from, false), (from - 1, true), (from + 1, true)] {
        let count = (to - from) as u64;
        let launch = kit.queue.launch(&kit.fill, count / fill::ITEMS).pointer(vec.ptr(start)).value(count);
        // SAFETY: fill writes the vector, to which no reference exists; that it leaves its range is the test.
        let event = unsafe { launch.value(1u32).value(0u32).with_writes_of(&mut vec, from..to).submit() }.unwrap();
        match event.wait() {
            Ok(()) => assert!(!beyond),
            Err(error) => {
                let failure = error.launch_failure().unwrap();
                assert!(beyond, "{failure}");
                let block = if start < from { 2 } else { 5 };
                let block = vec.ptr(block * BLOCK_WORDS).address();
                assert_eq!((failure.access, failure.cause), (Access::Write, TouchCause::Undeclared));
                assert!((block..block + BLOCK).contains(&failure.address.0), "{failure}");
            }
        }
    }
    // Beyond the end nothing is declared, and an empty range declares nothing.
    let mut total = kit.heap().vec_zeroed::<u64>(1).unwrap();
    let words = vec.len();
    let launch = kit.queue.launch(&kit.reduce, 1).pointer(vec.ptr(words - 1)).writes(&mut total).value(1u64);
    // SAFETY: reduce reads one word of the vector, and adds to `total`.
    unsafe { launch.with_reads_of(&vec, words - 1..words + 7).submit() }.unwrap().wait().unwrap();
    assert_eq!(total.read().unwrap()[0], words as u64 - 1);
    let launch = kit.queue.launch(&kit.reduce, 1).pointer(vec.ptr(words - 1)).writes(&mut total).value(1u64);
    // SAFETY: as above.
    let event = unsafe { launch.with_reads_of(&vec, words..words).submit() }.unwrap();
    assert_eq!(event.wait().unwrap_err().launch_failure().unwrap().cause, TouchCause::Undeclared);
    kit.works();
}

#[test]
fn all_launches_of_a_lost_device_fail_and_nobody_hangs() {
    let _turn = turn("lost with launches pending");
    for mode in MODES {
        let Some(kit) = Kit::new("lost with launches", builder().device_budget(BUDGET).fault_mode(mode)) else {
            return;
        };
        let queues: Vec<_> = (0..3).map(|_| kit.context.queue().unwrap()).collect();
        let source = counted(&kit, 50);
        let mut vecs: Vec<_> = (0..6).map(|_| counted(&kit, 90)).collect();
        let mut total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let mut events = vec![sum_into(&kit, &queues[0], &source, &mut total)];
        for (step, vec) in (0u32..).zip(&mut vecs) {
            events.push(kit.fill_on(&queues[step as usize % 3], vec, step).unwrap());
        }
        let before = kit.heap().counters();
        std::thread::scope(|scope| {
            scope.spawn(|| poke(&source, 7, 1_000_000));
            let last = events.last().unwrap();
            scope.spawn(|| assert!(last.wait().is_err()));
            scope.spawn(|| assert!(queues[1].wait_idle().is_err()));
            wait_until(|| since(&kit, &before).faults_parked > 0);
            inject::lose_device();
            gate.open();
        });
        for event in &events[1..] {
            let text = event.wait().unwrap_err().to_string();
            assert!(text.contains("lost"), "{text}");
        }
        assert_eq!(peek(&source, 7), 1_000_000);
        assert!(kit.fill(&mut vecs[0], 1).is_err());
        drop(queues);
        inject::find_device();
        assert!(kit.fill(&mut vecs[0], 1).is_err_and(|error| error.is_device_lost()));
        assert!(vecs.last().unwrap().read().unwrap().iter().zip(0u32..).all(|(word, i)| *word == i), "never begun");
    }
}
