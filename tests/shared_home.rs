//! Shared homes: both sides see one memory at once, nothing moves, nothing faults; and what is freed migrates again.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, turn};
use common::gate::Gate;
use common::views::{BESIDE_KERNELS, Way};
use limosa::inject::{self, Call};
use limosa::{Advice, ContextBuilder, FaultMode, Heap, Home, PagerError, Side, UnifiedVec, ViewKind};
use limosa_shaders::{lookup, stress};

/// Each way in which a device reaches a heap, with each home that it has there.
fn ways() -> [(&'static str, Home, ContextBuilder); 8] {
    inject::stand_in_for_peer_memory(64 * MIB);
    let budget = || builder().device_budget(8 * MIB);
    let (import, sparse) = (|| budget().view(ViewKind::Import), || budget().view(ViewKind::Sparse));
    let in_thread = || import().fault_mode(FaultMode::InThread);
    [
        ("shared, import", Home::Shared, import()),
        ("shared, import, in thread", Home::Shared, in_thread()),
        ("shared, import, no host budget", Home::Shared, import().host_budget(0)),
        ("shared, sparse", Home::Shared, sparse()),
        ("shared, sparse, several buffers", Home::Shared, sparse().segment_limit(4 * MIB).staged_copies(true)),
        ("shared on a device, import", Home::SharedDevice, import()),
        ("shared on a device, import, in thread", Home::SharedDevice, in_thread()),
        ("shared on a device, import, no host budget", Home::SharedDevice, import().host_budget(0)),
    ]
}

fn each(check: impl Fn(&Kit, &Heap, &str)) {
    for (what, home, builder) in ways() {
        let Some(kit) = Kit::new(what, builder) else { return };
        let shared = kit.heap().in_home(home);
        check(&kit, &shared, what);
        kit.works();
        drop((shared, kit));
        assert_eq!(inject::peer_memory_used(), 0, "{what}: the device has its memory again");
    }
}

fn all_are(vec: &UnifiedVec<u32>, value: u32) -> bool {
    vec.read().unwrap().iter().all(|word| *word == value)
}

#[test]
fn both_sides_use_one_memory_without_copies_or_faults() {
    let _turn = turn("one memory");
    each(|kit, shared, what| {
        // More than the device budget: shared memory does not count.
        let words = 12 * (1 << 20) / 4;
        let mut vec = shared.vec_with(words, |i| u32::try_from(i).unwrap()).unwrap();
        assert_ne!(vec.raw().home(), Home::Migrating);
        let before = kit.heap().counters();
        let device = kit.heap().device_bytes();
        for value in 1..4 {
            kit.fill(&mut vec, value).unwrap().wait().unwrap();
            assert!(all_are(&vec, value), "{what}");
            vec.write().unwrap().iter_mut().for_each(|word| *word += 10);
            assert_eq!(kit.sum(&vec).unwrap(), words as u64 * u64::from(value + 10), "{what}");
        }
        let moved = kit.heap().counters().since(&before);
        let faults = moved.cpu_read_faults + moved.cpu_write_faults + moved.gpu_read_faults + moved.gpu_write_faults;
        // The sums' own word migrates.
        assert!(faults <= 12 && moved.blocks_to_device <= 3 && moved.blocks_to_host <= 6, "{what}: {moved:?}");
        assert!(kit.heap().device_bytes() <= device + 2 * MIB, "{what}");
        assert_eq!(vec.residency_summary().shared, 12 * MIB, "{what}");
        vec.prefetch_to_device().unwrap();
    });
}

#[test]
fn a_kernel_may_wait_for_a_store_of_the_cpu() {
    let _turn = turn("waiting kernel");
    each(|kit, shared, what| {
        // Two nodes (key, value, left, right) that are a ring: the search ends when the CPU gives one the key.
        let ring = shared.allocate(BLOCK, 8).unwrap();
        // SAFETY: inside the block; used by whole words on both sides.
        let word = |at: u64| unsafe { AtomicU64::from_ptr(ring.ptr().add(8 * at).as_ptr().cast()) };
        for (node, other) in [(0, 4), (4, 0)] {
            let next = ring.ptr().add(8 * other).address();
            [1, 77, next, next]
                .into_iter()
                .zip(node..)
                .for_each(|(value, at)| word(at).store(value, Ordering::Relaxed));
        }
        word(8).store(7, Ordering::Relaxed);
        let kernel = kit.context.kernel(lookup::KERNEL.name, lookup::KERNEL.spirv).unwrap();
        let launch = kit.queue.launch(&kernel, 1).keeps(&ring).args((ring.ptr(), ring.ptr().add(64)));
        let launch = launch.args((ring.ptr().add(72), 1u64, 0u64));
        // SAFETY: lookup touches the block only, which is kept; the CPU's stores are whole words.
        let event = unsafe { launch.submit() }.unwrap();
        assert!(!event.is_complete().unwrap(), "{what}");
        word(0).store(7, Ordering::SeqCst);
        word(4).store(7, Ordering::SeqCst);
        event.wait().unwrap();
        assert_eq!(word(9).load(Ordering::SeqCst), 77, "{what}");
    });
}

#[test]
fn shared_and_migrating_blocks_lie_beside_each_other_and_change_places() {
    let _turn = turn("beside each other");
    each(|kit, shared, what| {
        let mut kept: Vec<(UnifiedVec<u32>, u32)> = Vec::new();
        for step in 0u32..120 {
            let random = stress::lane_value(u64::from(step), 3, 5);
            let words = usize::try_from(1 + random % (6 * BLOCK_WORDS as u64)).unwrap();
            let heap = if random >> 40 & 1 == 0 { shared } else { kit.heap() };
            let mut vec = heap.vec_zeroed::<u32>(words).unwrap();
            assert!(all_are(&vec, 0), "{what}: what was there before");
            if random >> 41 & 1 == 0 {
                kit.fill(&mut vec, step).unwrap().wait().unwrap();
            } else {
                vec.write().unwrap().fill(step);
            }
            kept.push((vec, step));
            if kept.len() > 12 {
                let (vec, value) = kept.swap_remove(usize::try_from(random >> 44).unwrap() % kept.len());
                assert_eq!(kit.sum(&vec).unwrap(), vec.len() as u64 * u64::from(value), "{what}, step {step}");
                assert!(all_are(&vec, value), "{what}, step {step}");
            }
        }
        drop(kept);
        assert_eq!(kit.heap().residency(kit.heap().range().start.0, 32 * MIB).unwrap().len(), 1, "all is free");
    });
}

#[test]
fn hints_and_pins_on_shared_memory_do_what_they_can() {
    let _turn = turn("hints");
    each(|kit, shared, what| {
        let mut vec = shared.vec_with(3 * BLOCK_WORDS, |_| 5u32).unwrap();
        for side in [Side::Device, Side::Host] {
            vec.raw().prefetch(side).unwrap();
        }
        assert_eq!(vec.residency_summary().shared, 3 * BLOCK, "{what}");
        let pin = vec.host_pin().unwrap();
        assert!(pin.iter().all(|word| *word == 5), "{what}");
        drop(pin);
        kit.fill(&mut vec, 6).unwrap().wait().unwrap();
        assert!(all_are(&vec, 6), "{what}");
        vec.discard().unwrap();
        assert!(all_are(&vec, 0), "{what}");
        // A launch on both sorts: the shared part is neither moved nor held.
        let tiny = shared.vec_with(1, |_| 9u32).unwrap();
        assert_eq!((kit.sum(&tiny).unwrap(), tiny.residency_summary().shared), (9, BLOCK), "{what}");
    });
}

#[test]
fn what_both_see_outlives_the_device() {
    let _turn = turn("shared, lost");
    for (what, home, builder) in ways() {
        let Some(kit) = Kit::new(what, builder) else { return };
        let mut vec = kit.heap().in_home(home).vec_zeroed::<u32>(2 * BLOCK_WORDS).unwrap();
        kit.fill(&mut vec, 8).unwrap().wait().unwrap();
        inject::lose_device();
        let error = kit.fill(&mut vec, 9).and_then(|event| event.wait()).unwrap_err();
        assert!(error.is_device_lost(), "{what}: {error}");
        assert!(kit.heap().poisoned().is_empty(), "{what}");
        assert!(all_are(&vec, 8) || all_are(&vec, 9), "{what}");
        inject::find_device();
    }
}

#[test]
fn what_cannot_be_shared_is_told_and_leaves_nothing() {
    let _turn = turn("shared, refused");
    for (what, home, builder) in ways() {
        let Some(kit) = Kit::new(what, builder.host_limit(32 * MIB)) else { return };
        let shared = kit.heap().in_home(home);
        let error = shared.vec_zeroed::<u32>(40 << 20).map(drop).unwrap_err();
        assert!(error.is_out_of_memory(), "{what}: {error}");
        for call in [Call::Open, Call::Reserve] {
            inject::fail(call);
            let result = shared.vec_zeroed::<u32>(3 * BLOCK_WORDS).map(drop);
            inject::clear();
            if let Err(error) = result {
                let named = matches!(error, limosa::Error::Pager(PagerError::Os(_) | PagerError::NoSharedHome { .. }));
                assert!(named && !error.to_string().is_empty(), "{what}: {error}");
            }
        }
        let vec = shared.vec_with(3 * BLOCK_WORDS, |_| 1u32).unwrap();
        assert_eq!(kit.sum(&vec).unwrap(), 3 * BLOCK_WORDS as u64, "{what}");
        kit.works();
    }
}

#[test]
fn a_dense_neighbour_leaves_shared_blocks_alone() {
    let _turn = turn("dense neighbour");
    each(|kit, shared, what| {
        for round in 0..4u32 {
            let half = shared.vec_with(16 * BLOCK_WORDS, |_| 3u32).unwrap();
            let mut dense = kit.heap().vec_zeroed::<u32>(16 * BLOCK_WORDS).unwrap();
            kit.fill(&mut dense, 5).unwrap().wait().unwrap();
            assert_eq!(kit.sum(&half).unwrap(), 3 * 16 * BLOCK_WORDS as u64, "{what}, round {round}");
            drop(half);
            let mut next = kit.heap().vec_with(16 * BLOCK_WORDS, |_| 7u32).unwrap();
            assert_eq!(kit.sum(&next).unwrap(), 7 * 16 * BLOCK_WORDS as u64, "{what}, round {round}");
            kit.fill(&mut next, 9).unwrap().wait().unwrap();
            assert!(all_are(&next, 9) && all_are(&dense, 5), "{what}, round {round}");
        }
    });
}

#[test]
fn advice_means_nothing_on_shared_memory() {
    let _turn = turn("shared, advised");
    each(|kit, shared, what| {
        let vec = shared.vec_with(3 * BLOCK_WORDS, |_| 2u32).unwrap();
        for advice in [Advice::ReadMostly, Advice::PreferDevice, Advice::PreferHost] {
            vec.raw().advise(advice).unwrap();
            vec.prefetch_to_device().unwrap();
            vec.prefetch_to_host().unwrap();
            assert_eq!(kit.sum(&vec).unwrap(), 6 * BLOCK_WORDS as u64, "{what}, {advice:?}");
            assert_eq!(vec.residency_summary().shared, 3 * BLOCK, "{what}, {advice:?}");
        }
    });
}

#[test]
fn what_could_not_be_taken_out_of_sight_stays_out_of_use() {
    let _turn = turn("shared, undone");
    each(|kit, shared, what| {
        // Mapping fails for the sharing and for its undoing.
        inject::fail(Call::Map);
        let refused = shared.vec_zeroed::<u32>(16 * BLOCK_WORDS).map(drop);
        inject::clear();
        let vec = kit.heap().vec_with(16 * BLOCK_WORDS, |_| 7u32).unwrap();
        assert_eq!(kit.sum(&vec).unwrap(), 7 * 16 * BLOCK_WORDS as u64, "{what}: {refused:?}");
    });
}

/// Memory that shared homes are done with is there for what migrates, and the other way round.
#[test]
fn what_shared_homes_had_is_there_for_others() {
    let _turn = turn("shared, trimmed");
    for (what, home, builder) in ways() {
        let Some(kit) = Kit::new(what, builder.host_limit(64 * MIB)) else { return };
        let shared = kit.heap().in_home(home);
        let words = 40 * (1 << 20) / 4;
        for value in 1..4 {
            let mut both = shared.vec_zeroed::<u32>(words).unwrap();
            kit.fill(&mut both, value).unwrap().wait().unwrap();
            assert!(all_are(&both, value), "{what}");
            drop(both);
            let mut own = kit.heap().vec_with(words, |_| value).unwrap();
            own.prefetch_range(Side::Device, 0..1 << 20).unwrap();
            assert!(all_are(&own, value), "{what}");
            own.write().unwrap().fill(9);
            assert!(all_are(&own, 9), "{what}");
        }
        kit.works();
    }
}

/// Nothing is held of it, so what conflicts is put in order when it is submitted, on whatever queues.
#[test]
fn launches_and_commands_that_conflict_over_shared_memory_come_one_after_the_other() {
    let _turn = turn("order over shared memory");
    inject::stand_in_for_peer_memory(64 * MIB);
    let homes = |way: &Way| [Home::Shared, Home::SharedDevice].map(|home| (*way, home));
    let ways = BESIDE_KERNELS.iter().flat_map(homes);
    for (way, home) in ways.filter(|(way, home)| *home == Home::Shared || way.view == ViewKind::Import) {
        let Some(kit) = way.kit("order over shared memory", builder()) else { continue };
        let mut vec = kit.heap().in_home(home).vec_zeroed::<u32>(BLOCK_WORDS).unwrap();
        let mut copy = kit.heap().vec_zeroed::<u32>(BLOCK_WORDS).unwrap();
        let (other, loose) =
            (kit.context.queue().unwrap(), kit.context.queue_builder().out_of_order().build().unwrap());
        // The first copy makes its kernel, for which the software device must be idle.
        other.copy(&vec, &mut copy).submit().unwrap().wait().unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let before = kit.heap().counters();
        let admitted = || kit.heap().counters().since(&before).launches;
        kit.fill(&mut vec, 1).unwrap();
        assert_eq!(admitted(), 1, "{way:?}");
        kit.fill_on(&other, &mut vec, 2).unwrap();
        let discarded = other.discard(&mut vec).submit().unwrap();
        kit.fill_on(&loose, &mut vec, 3).unwrap();
        loose.copy(&vec, &mut copy).submit().unwrap();
        assert_eq!(admitted(), 1, "{way:?}: others wait");
        assert!(gate.is_closed() && !discarded.is_complete().unwrap());
        gate.open();
        assert!(all_are(&copy, 3) && all_are(&vec, 3), "{way:?}");
    }
}
