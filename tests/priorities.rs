//! Priorities and device limits of allocations: who leaves the device for whom, against a model; and limits that are kept
//! at every instant, by whatever brings blocks.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, turn};
use common::gate::Gate;
use common::moves::filled;
use common::views::{ALL, BESIDE_KERNELS, DECLARED, FAULTING, Way, cases};
use common::words::{Random, all_are, fill_part, peek, poke, since, sum_part};
use limosa::{
    Copies, Error, Heap, Home, PagerError, Priority, ResidencyWatch, Side, TouchCause, UnifiedVec, WatchEvent,
};

const BUDGET: u64 = 8 * MIB;
const CHUNK_BLOCKS: usize = 32;
const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

fn vec_in(heap: &Heap, blocks: usize) -> UnifiedVec<u32> {
    heap.vec_with(blocks * BLOCK_WORDS, |_| 1).unwrap()
}

/// Blocks of it that are on the device.
fn on_device(vec: &UnifiedVec<u32>) -> u64 {
    let summary = vec.residency_summary();
    (summary.device + summary.both) / BLOCK
}

/// One launch after the other on allocations of a chunk each: who is on the device is what a model of the order says.
#[test]
fn low_leaves_before_normal_before_high_and_recency_decides_among_equals() {
    for (way, mode) in cases(ALL) {
        let _turn = turn(&format!("order, {way:?}, {mode:?}"));
        let Some(kit) = way.kit("order", builder().device_budget(BUDGET).fault_mode(mode)) else { break };
        let mut random = Random(0xfeed_0000_0000_0001);
        let room = usize::try_from(kit.heap().device_budget() / (2 * MIB)).unwrap();
        let mut priorities: Vec<_> = (0..9).map(|i| PRIORITIES[i % 3]).collect();
        let mut vecs: Vec<_> =
            priorities.iter().map(|priority| vec_in(&kit.heap().with_priority(*priority), CHUNK_BLOCKS)).collect();
        // The least recently used first.
        let mut resident: Vec<usize> = Vec::new();
        for step in 0..120u32 {
            let chosen = random.below(vecs.len());
            if random.below(5) == 0 {
                priorities[chosen] = PRIORITIES[random.below(3)];
                vecs[chosen].set_priority(priorities[chosen]).unwrap();
                continue;
            }
            kit.fill(&mut vecs[chosen], step).unwrap().wait().unwrap();
            resident.retain(|other| *other != chosen);
            if resident.len() == room {
                let leaves = (0..resident.len()).min_by_key(|at| (priorities[resident[*at]], *at)).unwrap();
                resident.remove(leaves);
            }
            resident.push(chosen);
            for (index, vec) in vecs.iter().enumerate() {
                let expected = if resident.contains(&index) { 32 } else { 0 };
                assert_eq!(on_device(vec), expected, "{way:?}, {mode:?}, step {step}: {index} of {priorities:?}");
            }
        }
    }
}

/// A queue of passes over Low data, all declared, leaves High data alone that nobody has declared.
#[test]
fn what_is_declared_far_ahead_does_not_drive_out_what_matters_more() {
    let _turn = turn("declared ahead");
    for way in BESIDE_KERNELS {
        for (low, high, stays) in [(Priority::Low, Priority::High, true), (Priority::Normal, Priority::Normal, false)] {
            let Some(kit) = way.kit("declared ahead", builder().device_budget(BUDGET)) else { return };
            let mut kept = vec_in(&kit.heap().with_priority(high), CHUNK_BLOCKS);
            let mut passes: Vec<_> = (0..4).map(|_| vec_in(&kit.heap().with_priority(low), CHUNK_BLOCKS)).collect();
            kit.fill(&mut kept, 5).unwrap().wait().unwrap();
            let other = kit.context.queue().unwrap();
            let gate = Gate::close(&kit, &kit.queue);
            // One at a time, all of them known from the first on.
            let mut last = kit.fill_on(&kit.queue, &mut passes[3], 9).unwrap();
            for turn in 0..8u32 {
                let vec = &mut passes[turn as usize % 4];
                let words = vec.len() as u64;
                let launch = other.launch(&kit.fill, 64).args((vec.writes(), words, turn, 0u32));
                // SAFETY: fill writes the words of `vec`, as declared.
                last = unsafe { launch.after(&last).submit() }.unwrap();
            }
            gate.open();
            last.wait().unwrap();
            assert_eq!(on_device(&kept) == 32, stays, "{way:?}: {} blocks stay", on_device(&kept));
            assert!((4..).zip(&passes).all(|(value, vec)| all_are(vec, value)) && all_are(&kept, 5));
        }
    }
}

#[test]
fn where_there_is_no_other_room_high_leaves_for_low() {
    let _turn = turn("all high");
    for way in ALL {
        let Some(kit) = way.kit("all high", builder().device_budget(BUDGET)) else { return };
        let mut high: Vec<_> =
            (0..6).map(|_| vec_in(&kit.heap().with_priority(Priority::High), CHUNK_BLOCKS)).collect();
        let mut low = vec_in(&kit.heap().with_priority(Priority::Low), 40);
        for round in 0..3u32 {
            high.iter_mut().for_each(|vec| kit.fill(vec, round).unwrap().wait().unwrap());
            kit.fill(&mut low, round).unwrap().wait().unwrap();
            assert_eq!(on_device(&low), 40, "{way:?}");
            assert!(kit.heap().device_bytes() <= BUDGET);
        }
        assert!(high.iter().all(|vec| all_are(vec, 2)) && all_are(&low, 2), "{way:?}");
    }
}

/// What a watch tells of an allocation, in the order in which it came to be: the most blocks of it that were on the device
/// at any instant.
struct Most {
    watch: ResidencyWatch,
    start: u64,
    on_device: Vec<bool>,
    most: usize,
}

impl Most {
    fn of(kit: &Kit, vec: &UnifiedVec<u32>) -> Self {
        assert_eq!(on_device(vec), 0);
        let range = vec.raw().range();
        let blocks = usize::try_from(range.len.div_ceil(BLOCK)).unwrap();
        let watch = kit.heap().watch(range).unwrap();
        Self { watch, start: range.start.0, on_device: vec![false; blocks], most: 0 }
    }

    fn follow(&mut self) -> usize {
        while let Some(WatchEvent::Changed { range, copies, .. }) = self.watch.try_next() {
            let first = usize::try_from((range.start.0 - self.start) / BLOCK).unwrap();
            let there = matches!(copies, Copies::Current { device: true, .. });
            self.on_device[first..first + usize::try_from(range.len / BLOCK).unwrap()].fill(there);
            self.most = self.most.max(self.on_device.iter().filter(|there| **there).count());
        }
        assert_eq!(self.watch.missed(), 0);
        self.most
    }
}

/// The least limit that can be had this way, in blocks.
fn least(way: Way) -> usize {
    if way == FAULTING { CHUNK_BLOCKS } else { 1 }
}

/// Several threads launch, prefetch and touch, in a budget that is too small for all of it, and no limit is ever passed.
#[test]
fn limits_are_kept_at_every_instant() {
    for (way, mode) in cases(ALL) {
        let _turn = turn(&format!("every instant, {way:?}, {mode:?}"));
        let Some(kit) = way.kit("every instant", builder().device_budget(BUDGET).fault_mode(mode)) else { break };
        let limits = [least(way), 40, 70];
        let make = |limit: &usize| vec_in(&kit.heap().with_device_limit(*limit as u64 * BLOCK), 100);
        let mut vecs: Vec<_> = limits.iter().map(make).collect();
        let mut free = filled(&kit, 90, 1);
        let mut most: Vec<_> = vecs.iter().map(|vec| Most::of(&kit, vec)).collect();
        std::thread::scope(|scope| {
            let each = vecs.iter_mut().zip(limits).zip(most.iter_mut().map(Some)).chain([((&mut free, 60), None)]);
            for (seed, ((vec, limit), most)) in (1u64..).zip(each) {
                let kit = &kit;
                scope.spawn(move || work(kit, &mut Random(seed * 0x9e37_79b9), vec, limit, most));
            }
        });
        for (most, limit) in most.iter_mut().zip(limits) {
            let most = most.follow();
            assert!(most <= limit && most > 0, "{way:?}, {mode:?}: {most} blocks at a time of {limit}");
        }
        assert!(kit.heap().device_bytes() <= BUDGET);
        assert_eq!(kit.heap().counters().faults_refused, 0, "{way:?}, {mode:?}");
    }
}

/// A random history of one thread on its own vector, of which so many blocks may be on the device; all results are
/// checked against a copy, and what is told of it is read often enough that nothing is missed.
fn work(kit: &Kit, random: &mut Random, vec: &mut UnifiedVec<u32>, limit: usize, mut most: Option<&mut Most>) {
    let queue = kit.context.queue().unwrap();
    let blocks = vec.len() / BLOCK_WORDS;
    let mut known = vec![1u32; blocks];
    for step in 2..60u32 {
        most.iter_mut().for_each(|most| _ = most.follow());
        let first = random.below(blocks);
        let count = 1 + random.below(limit.min(blocks - first));
        let words = first * BLOCK_WORDS..(first + count) * BLOCK_WORDS;
        match random.below(6) {
            0 => vec.prefetch_range(Side::Device, words).unwrap(),
            1 => vec.prefetch_range(Side::Host, words).unwrap(),
            2 => (first..first + count).for_each(|block| assert_eq!(peek(vec, block * BLOCK_WORDS), known[block])),
            3 => {
                let launch = queue.launch(&kit.fill, 64).args((vec.ptr(words.start), words.len() as u64));
                // SAFETY: fill writes the declared words.
                unsafe { launch.args((step, 0u32)).with(vec.slice_mut(words).unwrap().writes()).submit() }
                    .unwrap()
                    .wait()
                    .unwrap();
                known[first..first + count].fill(step);
            }
            4 => {
                let sum = known[first..first + count].iter().map(|value| u64::from(*value) * BLOCK_WORDS as u64);
                assert_eq!(sum_part(kit, vec, words), sum.sum::<u64>());
            }
            _ if kit.context.device_class() == limosa::DeviceClass::Faulting => {
                // More of it than the limit, by faults alone. One invocation a word: each workgroup has its own stretch.
                let words = vec.len() as u64;
                let launch = queue.launch(&kit.fill, words).args((vec.ptr(0), words, step));
                let raw = std::sync::Arc::clone(vec.raw());
                // SAFETY: fill writes the vector, which is kept, and which nobody else uses.
                unsafe { launch.arg(0u32).keeps(&raw).submit() }.unwrap().wait().unwrap();
                known.fill(step);
            }
            _ => {
                poke(vec, words.start, known[first]);
            }
        }
    }
    let elements = vec.read().unwrap();
    assert!(elements.chunks(BLOCK_WORDS).zip(&known).all(|(block, value)| block.iter().all(|word| word == value)));
}

#[test]
fn a_set_beyond_a_limit_names_allocation_limit_and_what_was_asked() {
    let _turn = turn("set beyond a limit");
    for way in ALL {
        let Some(kit) = way.kit("set beyond a limit", builder()) else { return };
        let limit = least(*way) + 3;
        let mut vec = vec_in(&kit.heap().named("window").with_device_limit(limit as u64 * BLOCK), 100);
        let mut whole = |words: usize| fill_part(&kit, &mut vec, 0..words, 2);
        let error = whole((limit + 1) * BLOCK_WORDS).unwrap_err();
        let text = error.to_string();
        assert!(error.is_out_of_memory() && text.starts_with("kernel fill:") && text.contains("\"window\""), "{text}");
        let Error::Pager(PagerError::OverDeviceLimit { asked, limit: told, .. }) = error else { panic!("{text}") };
        assert_eq!((asked, told), ((limit as u64 + 1) * BLOCK, limit as u64 * BLOCK));
        assert!(text.contains(&asked.to_string()) && text.contains(&told.to_string()), "{text}");
        whole(limit * BLOCK_WORDS).unwrap();
        let before = kit.heap().counters();
        let error = vec.prefetch_to_device().unwrap_err();
        assert!(error.to_string().starts_with("prefetch:") && error.is_out_of_memory(), "{error}");
        let ranges = [0, 50].map(|first| limosa::HostRange {
            start: vec.raw().range().start.offset(first * BLOCK),
            len: (limit as u64 / 2 + 1) * BLOCK,
        });
        let error = kit.heap().prefetch_batch(Side::Device, &ranges).unwrap_err();
        assert!(matches!(error, Error::Pager(PagerError::OverDeviceLimit { .. })), "{error}");
        assert_eq!(since(&kit, &before).blocks_to_device, 0, "nothing has moved");
        assert_eq!(peek(&vec, limit * BLOCK_WORDS), 1);
        kit.works();
    }
}

#[test]
fn what_comes_beyond_a_limit_drives_out_its_own_oldest_blocks_alone() {
    let _turn = turn("own oldest");
    for way in ALL {
        let Some(kit) = way.kit("own oldest", builder()) else { return };
        let limit = least(*way).max(8);
        let vec = vec_in(&kit.heap().with_device_limit(limit as u64 * BLOCK), 100);
        let other = filled(&kit, 64, 1);
        other.prefetch_to_device().unwrap();
        let there = |vec: &UnifiedVec<u32>| -> Vec<usize> {
            let runs = vec.residency().into_iter();
            let runs = runs.filter(|run| matches!(run.state.copies, Copies::Current { device: true, .. }));
            let block = |offset: u64| usize::try_from((offset - vec.raw().extent().start) / BLOCK).unwrap();
            runs.flat_map(|run| block(run.extent.start)..block(run.extent.end())).collect()
        };
        // In an order of their own, so that neither the first nor the last blocks are always the oldest.
        let order: Vec<usize> = (0..100).map(|i| i * 37 % 100).collect();
        for (at, block) in order.iter().enumerate() {
            vec.raw().prefetch_range(Side::Device, *block as u64 * BLOCK, BLOCK).unwrap();
            let mut expected = order[(at + 1).saturating_sub(limit)..=at].to_vec();
            expected.sort_unstable();
            assert_eq!(there(&vec), expected, "{way:?}: after {at}");
        }
        assert_eq!(vec.counters().blocks_evicted, 100 - limit as u64, "{way:?}");
        assert_eq!((on_device(&other), other.counters().blocks_evicted), (64, 0), "{way:?}");
        // What the CPU has taken back leaves its room.
        let left = there(&vec);
        left.iter().for_each(|block| poke(&vec, block * BLOCK_WORDS, 1));
        let evicted = vec.counters().blocks_evicted;
        vec.raw().prefetch_range(Side::Device, 0, limit as u64 * BLOCK).unwrap();
        assert_eq!(there(&vec), (0..limit).collect::<Vec<_>>(), "{way:?}");
        assert_eq!(vec.counters().blocks_evicted, evicted, "{way:?}: nothing had to leave");
        assert!(all_are(&vec, 1));
    }
}

#[test]
fn two_launches_that_need_the_same_limited_allocation() {
    let _turn = turn("two launches");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("two launches", builder()) else { return };
        let limit = least(*way).max(8);
        let vec = vec_in(&kit.heap().with_device_limit(limit as u64 * BLOCK), 100);
        let queues: Vec<_> = (0..3).map(|_| kit.context.queue().unwrap()).collect();
        let read = |queue: usize, first: usize| {
            let words = first * BLOCK_WORDS..(first + limit / 2 + 1) * BLOCK_WORDS;
            let launch = queues[queue].launch(&kit.fill, 1).args((vec.ptr(0), 0u64, 0u32, 0u32));
            // SAFETY: fill writes nothing.
            unsafe { launch.with(vec.slice(words).unwrap().reads()).submit() }.unwrap()
        };
        let (mut free, gate) = (filled(&kit, 3, 1), Gate::close(&kit, &kit.queue));
        let before = kit.heap().counters();
        let first = read(0, 0);
        let same = read(1, 0);
        let launched = since(&kit, &before).launches;
        if way.class == limosa::DeviceClass::Declared {
            assert_eq!(launched, 2, "{way:?}: what both read is there once");
        }
        let other = read(2, 50);
        assert_eq!(since(&kit, &before).launches, launched, "{way:?}: there is no room for these");
        let behind = kit.fill(&mut free, 4).unwrap();
        gate.open();
        [&behind, &other, &same, &first].iter().for_each(|event| event.wait().unwrap());
        assert_eq!(since(&kit, &before).launches, 4, "{way:?}");
        assert!(on_device(&vec) <= limit as u64 && all_are(&free, 4));
        kit.works();
    }
}

/// Several kernels that each need most of a limit, from several threads: all get their turn.
#[test]
fn launches_from_several_threads_take_turns_in_a_limit() {
    for way in ALL {
        let _turn = turn(&format!("turns, {way:?}"));
        let Some(kit) = way.kit("turns", builder().device_budget(BUDGET)) else { return };
        let limit = least(*way).max(8);
        let vec = vec_in(&kit.heap().with_device_limit(limit as u64 * BLOCK), 100);
        std::thread::scope(|scope| {
            for thread in 0..3usize {
                let (kit, vec) = (&kit, &vec);
                scope.spawn(move || {
                    let mut random = Random(thread as u64 + 1);
                    let queue = kit.context.queue().unwrap();
                    let (mut total, mut expected) = (kit.heap().vec_zeroed::<u64>(1).unwrap(), 0);
                    for _ in 0..40 {
                        let count = 1 + random.below(limit);
                        let first = random.below(100 - count);
                        let words = first * BLOCK_WORDS..(first + count) * BLOCK_WORDS;
                        let launch = queue.launch(&kit.reduce, 64).args((vec.ptr(words.start), total.writes()));
                        let launch = launch.arg(words.len() as u64).with(vec.slice(words.clone()).unwrap().reads());
                        // SAFETY: reduce reads the declared words and adds to `total`.
                        drop(unsafe { launch.submit() }.unwrap());
                        expected += words.len() as u64;
                    }
                    assert_eq!(total.read().unwrap()[0], expected);
                });
            }
        });
        assert!(on_device(&vec) <= limit as u64, "{way:?}");
    }
}

/// A kernel that may touch anything finds room in each limit, or is told what it lacks.
#[test]
fn faults_find_room_in_a_limit_beside_what_is_held() {
    let _turn = turn("faults beside holds");
    let Some(kit) = FAULTING.kit("faults beside holds", builder()) else { return };
    let limit = CHUNK_BLOCKS;
    let mut vec = vec_in(&kit.heap().named("tight").with_device_limit(limit as u64 * BLOCK), 100);
    let mut total = kit.heap().vec_zeroed::<u64>(1).unwrap();
    let other = kit.context.queue().unwrap();
    // A launch that holds all of the limit goes behind one that may fault, and does not fail it.
    for _ in 0..10 {
        let whole = kit.queue.launch(&kit.fill, vec.len() as u64).args((vec.ptr(0), vec.len() as u64, 3u32));
        let memory = std::sync::Arc::clone(vec.raw());
        // SAFETY: fill writes the vector, which is kept; the launch behind it writes nothing.
        let whole = unsafe { whole.arg(0u32).keeps(&memory).submit() }.unwrap();
        let part = 0..limit * BLOCK_WORDS;
        let launch = other.launch(&kit.fill, 64).args((vec.ptr(0), 0u64, 0u32, 0u32));
        // SAFETY: fill writes nothing here.
        let held = unsafe { launch.with(vec.slice_mut(part).unwrap().writes()).submit() }.unwrap();
        whole.wait().unwrap();
        held.wait().unwrap();
    }
    assert!(all_are(&vec, 3));
    // One that holds all of it itself, and touches more, has nobody else to blame.
    let part = 0..limit * BLOCK_WORDS;
    let count = vec.len() as u64;
    let launch = kit.queue.launch(&kit.reduce, 64).args((vec.ptr(0), total.writes(), count));
    let memory = std::sync::Arc::clone(vec.raw());
    // SAFETY: reduce reads `vec`, which is kept, and adds to `total`.
    let error =
        unsafe { launch.with(vec.slice(part).unwrap().reads()).keeps(&memory).submit() }.unwrap().wait().unwrap_err();
    let text = error.to_string();
    let failure = error.launch_failure().unwrap();
    assert_eq!(failure.cause, TouchCause::DeviceLimitFull, "{text}");
    assert!(text.contains("of \"tight\"") && text.contains("device limit"), "{text}");
    kit.works();
}

#[test]
fn a_limit_in_a_shared_home_or_below_a_block_means_nothing() {
    let _turn = turn("no limit");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("no limit", builder()) else { return };
        let heap = kit.heap().with_device_limit(0).with_priority(Priority::High);
        let small = heap.vec_from(&[1u32; 10]).unwrap();
        assert_eq!((small.raw().device_limit(), small.priority()), (None, Priority::Normal));
        let mut shared = heap.in_home(Home::Shared).vec_zeroed::<u32>(3 * BLOCK_WORDS).unwrap();
        assert_eq!((shared.raw().device_limit(), shared.priority()), (None, Priority::Normal));
        shared.set_priority(Priority::Low).unwrap();
        assert_eq!(shared.priority(), Priority::Normal);
        kit.fill(&mut shared, 3).unwrap().wait().unwrap();
        assert!(all_are(&shared, 3));
        let least = vec_in(&heap, 40);
        assert_eq!(least.raw().device_limit(), Some(self::least(*way) as u64 * BLOCK), "{way:?}");
        // Blocks of a limited allocation that were somebody else's before count from the first on.
        let at = least.raw().range();
        drop(least);
        let before = vec_in(kit.heap(), 40);
        before.prefetch_to_device().unwrap();
        assert_eq!(before.raw().range(), at);
        drop(before);
        let again = vec_in(&heap, 40);
        let mut most = Most::of(&kit, &again);
        (0..40).for_each(|block| again.raw().prefetch_range(Side::Device, block * BLOCK, BLOCK).unwrap());
        assert_eq!(most.follow(), self::least(*way), "{way:?}");
    }
}

/// All of the heap, where the launch must hold it, is too much of what is limited; where it need not, it is not.
#[test]
fn a_launch_on_the_whole_heap_meets_limits_as_its_device_does() {
    let _turn = turn("whole heap");
    for way in [FAULTING, DECLARED] {
        let Some(kit) = way.kit("whole heap", builder()) else { return };
        let limit = least(way) as u64 * BLOCK;
        let vec = vec_in(&kit.heap().named("limited").with_device_limit(limit), 100);
        let mut total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        let mut launch = || {
            let launch = kit.queue.launch(&kit.reduce, 64).args((vec.ptr(0), total.writes()));
            // SAFETY: reduce reads `vec` and adds to `total`, which nobody else uses.
            unsafe { launch.arg(vec.len() as u64).with_whole_heap().submit() }?.wait()
        };
        match launch() {
            Ok(()) => {
                assert_eq!(way, FAULTING);
                assert!(on_device(&vec) <= limit / BLOCK);
                assert_eq!(total.read().unwrap()[0], vec.len() as u64);
            }
            Err(error) => assert!(way == DECLARED && error.to_string().contains("\"limited\""), "{error}"),
        }
    }
}
