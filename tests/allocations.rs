//! Names of allocations in whatever error concerns them, the list of what is live, and the counters of allocations and
//! kernels against what was done.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::collections::HashMap;

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, child, is_child, no_core, told, turn};
use common::gate::Gate;
use common::moves::filled;
use common::views::{ALL, BESIDE_KERNELS, DECLARED, FAULTING, Way, cases};
use common::words::{Random, fill_part, peek, poke, since, sum_part, wait_until};
use limosa::{
    Advice, AllocationCounters, Cause, Error, FaultMode, Heap, Home, PagerError, Priority, Relation, ResidencySummary,
    Side, TouchCause, UnifiedVec, WatchEvent, Whereabouts, inject,
};
use limosa_shaders::fill;

fn vec_in(heap: &Heap, blocks: usize) -> UnifiedVec<u32> {
    heap.vec_with(blocks * BLOCK_WORDS, |i| u32::try_from(i).unwrap()).unwrap()
}

#[test]
fn settings_compose_and_are_listed() {
    let _turn = turn("list");
    let Some(kit) = Kit::new("list", builder()) else { return };
    let heap = kit.heap().named("a").with_priority(Priority::High).with_device_limit(4 * MIB + 1);
    let (a, b) = (vec_in(&heap, 100), vec_in(&heap.named("b").with_priority(Priority::Low), 3));
    let shared = kit.heap().in_home(Home::Shared).named("flags").with_device_limit(1).boxed(7u32).unwrap();
    let plain = kit.heap().vec_zeroed::<u64>(10).unwrap();
    a.prefetch_to_device().err().unwrap();
    a.raw().prefetch_range(Side::Device, 0, 64 * BLOCK).unwrap();
    let all = kit.heap().allocations();
    let one = |name: &str| all.iter().find(|one| one.name.as_deref() == Some(name)).unwrap().clone();
    assert!(all.is_sorted_by_key(|one| one.range.start));
    let (listed, of_b, flags) = (one("a"), one("b"), one("flags"));
    assert_eq!((listed.range, listed.home, listed.priority), (a.raw().range(), Home::Migrating, Priority::High));
    assert_eq!(listed.device_limit, Some(4 * MIB + BLOCK), "rounded up to blocks");
    assert_eq!(listed.residency, a.residency_summary());
    assert_eq!(listed.residency.to_string(), "2304 KiB on the host, 4 MiB on the device");
    assert_eq!((listed.counters, listed.counters.blocks_prefetched), (a.counters(), 64));
    assert_eq!((of_b.priority, of_b.device_limit, b.raw().name()), (Priority::Low, Some(4 * MIB + BLOCK), Some("b")));
    assert_eq!((flags.home, flags.device_limit, flags.priority), (Home::Shared, None, Priority::Normal));
    assert_eq!((shared.as_vec().raw().home(), shared.get().unwrap()), (Home::Shared, 7));
    assert!(all.iter().any(|one| one.name.is_none() && one.range == plain.raw().range()));
    b.set_priority(Priority::High).unwrap();
    assert_eq!((b.priority(), a.priority()), (Priority::High, Priority::High));
    let ranges = [a.raw().range(), b.raw().range()];
    drop((a, b));
    assert!(kit.heap().allocations().iter().all(|one| !ranges.contains(&one.range)), "gone with their allocations");
    let again = kit.heap().vec_zeroed::<u32>(BLOCK_WORDS).unwrap();
    assert_eq!((again.priority(), again.raw().device_limit()), (Priority::Normal, None), "nothing is inherited");
}

#[test]
fn a_summary_says_what_there_is() {
    let none = ResidencySummary::default();
    assert_eq!(none.to_string(), "nothing");
    let some = ResidencySummary { host: 3 << 30, device: 12 * MIB, both: 3 * BLOCK, poisoned: BLOCK, ..none };
    assert_eq!(some.to_string(), "3 GiB on the host, 12 MiB on the device, 192 KiB on both, 64 KiB lost");
    assert_eq!(ResidencySummary { zero: BLOCK, shared: MIB, ..none }.to_string(), "1 MiB shared, 64 KiB zero");
}

#[test]
fn stray_accesses_name_the_allocation() {
    let _turn = turn("stray");
    for (way, check) in [(FAULTING, true), (DECLARED, false)] {
        let Some(kit) = way.kit("stray", builder().check(check)) else { return };
        let (named, plain) = (vec_in(&kit.heap().named("victim"), 3), vec_in(kit.heap(), 2));
        let lone = kit.heap().named("lone").vec_from(&[1u32; 3000]).unwrap();
        let crowd = [(); 3].map(|()| kit.heap().named("crowd").vec_from(&[1u32, 2, 3]).unwrap());
        for (vec, at, phrase) in [
            (&named, 2 * BLOCK_WORDS + 1, "byte 131076 of \"victim\", 196608 bytes at "),
            (&plain, 0, "byte 0 of the allocation of 131072 bytes at "),
            (&lone, 1024, "byte 4096 of \"lone\", 12000 bytes at "),
            (&crowd[1], 1, "byte 4 of \"crowd\", 12 bytes at "),
        ] {
            let error = kit.fill_at(vec.ptr(at).address(), 1, 9).unwrap().wait().unwrap_err();
            let (text, failure) = (error.to_string(), error.launch_failure().unwrap());
            assert_eq!(failure.cause, TouchCause::Undeclared, "{way:?}");
            assert!(text.contains(phrase), "{way:?}: {text}");
            let place = failure.place.clone().unwrap();
            assert_eq!(place.allocation, vec.raw().range(), "{way:?}: {text}");
            assert_eq!((place.name.as_deref(), place.relation), (vec.raw().name(), Relation::Inside(4 * at as u64)));
        }
        let gone = { vec_in(&kit.heap().named("gone"), 40) }.ptr(0).address();
        let error = kit.fill_at(gone, 1, 9).unwrap().wait().unwrap_err();
        let place = error.launch_failure().unwrap().place.clone();
        let inside = |place: &Whereabouts| matches!(place.relation, Relation::Inside(_));
        assert!(!place.is_some_and(|place| inside(&place)) && !error.to_string().contains("gone"), "{error}");
        // Beside it, what it is beside of is named.
        let beside = named.ptr(named.len() - 1).address() + 4;
        if check {
            let error = kit.fill_at(beside, 1, 9).unwrap().wait().unwrap_err();
            assert!(error.to_string().contains("1 bytes past the end of \"victim\", 196608 bytes at "), "{error}");
        }
    }
}

#[test]
fn sets_and_lost_ranges_name_the_allocation() {
    let _turn = turn("sizes and loss");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("sizes and loss", builder().device_budget(8 * MIB)) else { return };
        let (long, mut short) = (vec_in(&kit.heap().named("long"), 120), vec_in(&kit.heap().named("short"), 20));
        let launch = kit.queue.launch(&kit.fill, 1).args((long.ptr(0), 0u64, 0u32, 0u32));
        // SAFETY: fill writes nothing.
        let error = unsafe { launch.with(short.writes()).with(long.reads()).submit() }.err().unwrap();
        let text = error.to_string();
        assert!(text.contains("(7864320 of \"long\", 1310720 of \"short\")"), "{way:?}: {text}");
        let Error::Pager(PagerError::SetTooLarge { largest, .. }) = error else { panic!("{text}") };
        assert_eq!(largest.iter().map(|share| share.bytes / BLOCK).collect::<Vec<_>>(), [120, 20]);

        kit.fill(&mut short, 1).unwrap().wait().unwrap();
        inject::lose_device();
        kit.fill(&mut short, 2).and_then(|event| event.wait()).unwrap_err();
        let error = short.read().err().unwrap();
        let text = error.to_string();
        let Error::Pager(PagerError::Poisoned { place, .. }) = error else { panic!("{text}") };
        let place = place.unwrap();
        assert_eq!((place.name.as_deref(), place.relation), (Some("short"), Relation::Inside(0)), "{way:?}");
        assert!(text.contains(": byte 0 of \"short\", 1310720 bytes at "), "{way:?}: {text}");
        inject::find_device();
    }
}

#[test]
fn a_thread_that_gets_sigbus_hears_the_name() {
    const TEST: &str = "a_thread_that_gets_sigbus_hears_the_name";
    for (way, mode) in cases(&[FAULTING]) {
        let case = format!("sigbus {mode:?}");
        if is_child(&case) {
            no_core();
            let Some(kit) = way.kit(&case, builder().fault_mode(mode)) else { return };
            let mut vec = vec_in(&kit.heap().named("lost one"), 3);
            kit.fill(&mut vec, 1).unwrap().wait().unwrap();
            inject::lose_device();
            kit.fill(&mut vec, 2).and_then(|event| event.wait()).unwrap_err();
            peek(&vec, BLOCK_WORDS);
            return;
        }
        if std::env::var("LIMOSA_TEST_CHILD").is_ok() {
            continue;
        }
        let output = child(TEST, &case, |_| {});
        let text = told(&output);
        assert!(text.contains("SKIP") || text.contains("byte 65536 of \"lost one\""), "{text}");
    }
}

/// What each of some allocations has counted, and the heap.
struct Counts<'a> {
    kit: &'a Kit,
    vecs: &'a [UnifiedVec<u32>],
    before: (limosa::Counters, Vec<AllocationCounters>),
}

impl<'a> Counts<'a> {
    fn begin(kit: &'a Kit, vecs: &'a [UnifiedVec<u32>]) -> Self {
        Self { kit, vecs, before: (kit.heap().counters(), vecs.iter().map(UnifiedVec::counters).collect()) }
    }

    /// What has come to it since.
    fn since(&self) -> (limosa::Counters, Vec<AllocationCounters>) {
        let each = self.vecs.iter().zip(&self.before.1).map(|(vec, before)| vec.counters().since(before));
        (since(self.kit, &self.before.0), each.collect())
    }
}

/// Waits until every fault that was served is entered: a thread goes on as soon as its page is there.
fn settled(vecs: &[UnifiedVec<u32>]) {
    wait_until(|| vecs.iter().all(|vec| vec.residency().iter().all(|run| !run.state.busy)));
}

/// Its counters. A fault that is left to the handler thread may be tried more than once, and late: of `posted` ones it is
/// enough that there are as many as expected.
fn counters(vec: &UnifiedVec<u32>, expected: &AllocationCounters, posted: bool) -> AllocationCounters {
    let counted = vec.counters();
    let enough =
        counted.cpu_read_faults >= expected.cpu_read_faults && counted.cpu_write_faults >= expected.cpu_write_faults;
    if !(posted && enough) {
        return counted;
    }
    let AllocationCounters { cpu_read_faults, cpu_write_faults, .. } = *expected;
    AllocationCounters { cpu_read_faults, cpu_write_faults, ..counted }
}

#[test]
fn each_way_of_moving_counts_for_its_allocation() {
    let _turn = turn("ways of moving");
    for (way, mode) in cases(ALL) {
        let Some(kit) = way.kit("ways of moving", builder().fault_mode(mode)) else { break };
        let posted = way.staged && mode == FaultMode::InThread;
        let mut vecs = vec![filled(&kit, 40, 1), filled(&kit, 40, 2)];
        // So that faults bring one block each.
        vecs.iter().for_each(|vec| vec.advise(Advice::PreferDevice).unwrap());
        let mut expected = AllocationCounters { cpu_write_faults: vecs[0].counters().cpu_write_faults, ..none() };
        let other = vecs[1].counters();
        let what = |step: &str| format!("{way:?}, {mode:?}: {step}");
        assert!((1..=40).contains(&expected.cpu_write_faults));
        assert_eq!(counters(&vecs[0], &expected, posted), expected, "{}", what("made"));

        vecs[0].prefetch_to_device().unwrap();
        (expected.blocks_prefetched, expected.blocks_to_device) = (40, 40);
        assert_eq!(counters(&vecs[0], &expected, posted), expected, "{}", what("prefetched"));
        vecs[0].prefetch_to_device().unwrap();
        assert_eq!(counters(&vecs[0], &expected, posted), expected, "{}", what("prefetched for nothing"));

        (0..7).for_each(|block| assert_eq!(peek(&vecs[0], block * BLOCK_WORDS), 1));
        settled(&vecs);
        (expected.cpu_read_faults, expected.blocks_to_host) = (7, 7);
        assert_eq!(counters(&vecs[0], &expected, posted), expected, "{}", what("read by the CPU"));
        (7..10).for_each(|block| poke(&vecs[0], block * BLOCK_WORDS, 1));
        settled(&vecs);
        (expected.cpu_write_faults, expected.blocks_to_host) = (expected.cpu_write_faults + 3, 10);
        assert_eq!(counters(&vecs[0], &expected, posted), expected, "{}", what("written by the CPU"));

        fill_part(&kit, &mut vecs[0], 8 * BLOCK_WORDS..20 * BLOCK_WORDS, 1).unwrap();
        expected.blocks_to_device += 2;
        assert_eq!(counters(&vecs[0], &expected, posted), expected, "{}", what("written by a launch"));
        sum_part(&kit, &vecs[0], 0..40 * BLOCK_WORDS);
        expected.blocks_to_device += 1;
        assert_eq!(
            counters(&vecs[0], &expected, posted),
            expected,
            "{}",
            what("read by a launch, which leaves what both sides have")
        );
        vecs[0].raw().prefetch_range(Side::Host, 10 * BLOCK, 5 * BLOCK).unwrap();
        (expected.blocks_to_host, expected.blocks_prefetched) =
            (expected.blocks_to_host + 5, expected.blocks_prefetched + 5);
        assert_eq!(counters(&vecs[0], &expected, posted), expected, "{}", what("prefetched to the host"));
        assert_eq!(counters(&vecs[1], &other, posted), other, "{}", what("the other has nothing of it"));
    }
}

fn none() -> AllocationCounters {
    AllocationCounters::default()
}

#[test]
fn faults_of_kernels_count_for_allocation_and_kernel() {
    let _turn = turn("faults of kernels");
    let Some(kit) = Kit::new("faults of kernels", builder()) else { return };
    let vecs = [filled(&kit, 40, 1), filled(&kit, 40, 2)];
    let counts = Counts::begin(&kit, &vecs);
    let kernel = (kit.fill.counters(), kit.reduce.counters());
    kit.fill_at(vecs[0].ptr(0).address(), vecs[0].len() as u64, 5).unwrap().wait().unwrap();
    settled(&vecs);
    let (heap, each) = counts.since();
    assert!(each[0].gpu_write_faults > 0 && each[0].blocks_to_device == 40, "{each:?}");
    assert_eq!((each[0].gpu_write_faults, each[0].gpu_read_faults), (heap.gpu_write_faults, heap.gpu_read_faults));
    assert_eq!(each[1], none());
    assert_eq!(kit.fill.counters().since(&kernel.0).faults, heap.gpu_write_faults + heap.gpu_read_faults);
    assert_eq!(kit.reduce.counters(), kernel.1);
}

/// Under random histories on too small a device, the allocations' counts add up to the heap's, and what is told of
/// evictions and prefetches by a watch is theirs, one by one.
#[test]
fn counts_add_up_to_the_heaps() {
    let mut seed = 0x0dd0_5eed_1234_5678;
    for (way, mode) in cases(ALL) {
        let _turn = turn(&format!("sums, {way:?}, {mode:?}"));
        let Some(kit) = way.kit("sums", builder().device_budget(8 * MIB).fault_mode(mode)) else { break };
        seed += 1;
        history(&kit, &mut Random(seed), &format!("{way:?}, {mode:?}"));
    }
}

fn history(kit: &Kit, random: &mut Random, what: &str) {
    let mut vecs: Vec<_> = [20, 64, 80, 100, 120].map(|blocks| filled(kit, blocks, 1)).into_iter().collect();
    let mut total = kit.heap().vec_zeroed::<u64>(BLOCK_WORDS).unwrap();
    let (total_before, watch) = (total.counters(), kit.heap().watch(kit.heap().range()).unwrap());
    let before = (kit.heap().counters(), vecs.iter().map(UnifiedVec::counters).collect::<Vec<_>>());
    let mut told: HashMap<(usize, Cause), u64> = HashMap::new();
    for _ in 0..150 {
        let chosen = random.below(vecs.len());
        let blocks = vecs[chosen].len() / BLOCK_WORDS;
        let first = random.below(blocks);
        let range = first * BLOCK_WORDS..(first + 1 + random.below(blocks - first)) * BLOCK_WORDS;
        match random.below(6) {
            0 => assert!(peek(&vecs[chosen], range.start) < 100),
            1 => poke(&vecs[chosen], range.start, 2),
            2 => vecs[chosen].prefetch_range(Side::Device, range).unwrap(),
            3 => vecs[chosen].prefetch_range(Side::Host, range).unwrap(),
            4 => fill_part(kit, &mut vecs[chosen], range, 3).unwrap(),
            _ => {
                let (count, groups) = (range.len() as u64, (range.len() as u64).div_ceil(fill::ITEMS));
                let launch = kit.queue.launch(&kit.reduce, groups).arg(vecs[chosen].ptr(range.start));
                let launch = launch.args((total.writes(), count)).with(vecs[chosen].slice(range).unwrap().reads());
                // SAFETY: reduce reads the declared words and adds to `total`.
                unsafe { launch.submit() }.unwrap().wait().unwrap();
            }
        }
        settled(&vecs);
        while let Some(WatchEvent::Changed { range, cause, .. }) = watch.try_next() {
            // Runs may reach from one allocation into the next.
            for block in (0..range.len / BLOCK).map(|block| range.start.offset(block * BLOCK)) {
                let of = |vec: &UnifiedVec<u32>| vec.raw().range().offset_of(block).is_some();
                if let Some(owner) = vecs.iter().position(of) {
                    *told.entry((owner, cause)).or_default() += 1;
                }
            }
        }
    }
    assert_eq!(watch.missed(), 0, "{what}");
    // A fault that was left to the handler thread may come late: nothing has changed while these were read.
    let (heap, each, of_total) = loop {
        let heap = kit.heap().counters().since(&before.0);
        let each: Vec<_> = vecs.iter().zip(&before.1).map(|(vec, before)| vec.counters().since(before)).collect();
        let of_total = total.counters().since(&total_before);
        if kit.heap().counters().since(&before.0) == heap {
            break (heap, each, of_total);
        }
    };
    let sum = |of: fn(&AllocationCounters) -> u64| each.iter().chain([&of_total]).map(of).sum::<u64>();
    assert_eq!(sum(|one| one.cpu_read_faults), heap.cpu_read_faults, "{what}");
    assert_eq!(sum(|one| one.cpu_write_faults), heap.cpu_write_faults, "{what}");
    assert_eq!(sum(|one| one.blocks_to_device), heap.blocks_to_device, "{what}");
    assert_eq!(sum(|one| one.blocks_to_host), heap.blocks_to_host, "{what}");
    assert_eq!(sum(|one| one.blocks_evicted), heap.blocks_evicted, "{what}");
    assert!(heap.blocks_evicted > 0 && heap.cpu_read_faults > 0, "{what}: {heap:?}");
    for (owner, counters) in each.iter().enumerate() {
        let told = |cause: Cause| told.get(&(owner, cause)).copied().unwrap_or(0);
        assert_eq!(counters.blocks_evicted, told(Cause::Eviction), "{what}: {owner}");
        // Not every prefetch that changes copies copies: some only take one away.
        assert!(counters.blocks_prefetched <= told(Cause::Prefetch), "{what}: {owner}");
    }
}

#[test]
fn freed_blocks_begin_at_zero_and_small_allocations_share() {
    let _turn = turn("reuse");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("reuse", builder()) else { return };
        let vec = filled(&kit, 40, 1);
        vec.prefetch_to_device().unwrap();
        let at = vec.raw().range();
        drop(vec);
        let again = kit.heap().vec_zeroed::<u32>(40 * BLOCK_WORDS).unwrap();
        assert_eq!((again.raw().range(), again.counters()), (at, none()), "{way:?}");

        let first = kit.heap().named("first").vec_from(&[1u32; 1000]).unwrap();
        let second = kit.heap().named("second").vec_from(&[1u32; 1000]).unwrap();
        assert_eq!((first.raw().name(), second.raw().name()), (Some("first"), Some("second")));
        let before = first.counters();
        second.prefetch_to_device().unwrap();
        assert_eq!(first.counters().since(&before).blocks_prefetched, 1, "{way:?}: one block");
        assert_eq!(first.counters(), second.counters(), "{way:?}");
        drop(second);
        let third = kit.heap().named("third").vec_from(&[1u32; 1000]).unwrap();
        assert!(third.counters().blocks_prefetched == 1, "{way:?}: the block is still in use");
    }
}

#[test]
fn kernels_count_what_their_launches_did() {
    let _turn = turn("kernels");
    for way in BESIDE_KERNELS {
        kernels(*way);
    }
}

fn kernels(way: Way) {
    let Some(kit) = way.kit("kernels", builder().device_budget(8 * MIB)) else { return };
    let mut vec = filled(&kit, 40, 1);
    let groups = (vec.len() as u64).div_ceil(fill::ITEMS);
    let before = kit.fill.clone().counters();
    assert_eq!(before, limosa::KernelCounters::default());
    kit.fill(&mut vec, 1).unwrap().wait().unwrap();
    kit.fill(&mut vec, 2).unwrap().wait().unwrap();
    let after = kit.fill.counters();
    assert_eq!((after.launches, after.blocks_brought, after.launches_failed), (2, 40, 0), "{way:?}: {after:?}");
    assert!(after.workgroups >= 2 && after.workgroups <= 2 * groups, "{way:?}: {after:?}");
    assert_eq!(kit.copy.counters().launches, 0);

    // One that waits for another's blocks, for as long as this test likes.
    let (other, gate) = (kit.context.queue().unwrap(), Gate::close(&kit, &kit.queue));
    let before = kit.fill.counters();
    let first = kit.fill(&mut vec, 3).unwrap();
    let second = kit.fill_on(&other, &mut vec, 4).unwrap();
    let begun = std::time::Instant::now();
    wait_until(|| begun.elapsed().as_millis() >= 3);
    assert_eq!(kit.fill.counters().since(&before).launches, 1, "{way:?}");
    gate.open();
    [first, second].iter().for_each(|event| event.wait().unwrap());
    let waited = kit.fill.counters().since(&before);
    assert!(waited.launches == 2 && waited.admission_nanos >= 3_000_000, "{way:?}: {waited:?}");

    // One that goes wrong counts once, however often; one that is refused was none.
    if way.view == limosa::ViewKind::Import {
        let gone = { filled(&kit, 3, 1) }.ptr(0).address();
        kit.fill_at(gone, 1, 1).unwrap().wait().unwrap_err();
        kit.fill(&mut filled(&kit, 130, 1), 1).err().unwrap();
        let failed = kit.fill.counters().since(&before);
        assert_eq!((failed.launches, failed.launches_failed), (3, 1), "{way:?}");
    }
}
