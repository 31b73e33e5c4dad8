//! Who is lent a collection has it to itself, until the launch is over: dropped, forgotten, failed or lost.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use allocator_api2::vec::Vec as UnifiedMemoryVec;
use bump_scope::Bump;
use bump_scope::alloc::compat::AllocatorApi2V02Compat;
use limosa::{Access, GpuPtr, Kernel, Launch, ResidencySummary};
use limosa_shaders::{copy, fill, lookup};

use crate::common::builder;
use crate::common::failure::{BLOCK_WORDS, Kit, turn};
use crate::common::gate::Gate;
use crate::common::moves::counted;
use crate::common::views::{ALL, BESIDE_KERNELS, FAULTING};
use crate::common::words::wait_until;
use crate::{Words, is_counted, moved, pointer, words};

const COUNT: usize = 4 * BLOCK_WORDS;

/// A launch that fills all of `words`, which are still to be lent.
fn filling<'a>(kit: &'a Kit, words: &Words, value: u32) -> Launch<'a> {
    let count = words.len() as u64;
    let launch = kit.queue.launch(&kit.fill, count.div_ceil(fill::ITEMS)).arg(pointer(words.as_ptr()));
    launch.args((count, value, 0u32))
}

/// Counts how often such are dropped, before the gate was opened and after.
#[derive(Clone, Default)]
struct Drops {
    opened: Arc<AtomicBool>,
    before: Arc<AtomicUsize>,
    after: Arc<AtomicUsize>,
}

impl Drops {
    fn counted(&self) -> (usize, usize) {
        (self.before.load(Ordering::SeqCst), self.after.load(Ordering::SeqCst))
    }
}

/// Counts once.
struct Counts(Drops);

impl Drop for Counts {
    fn drop(&mut self) {
        let opened = self.0.opened.load(Ordering::SeqCst);
        let counter = if opened { &self.0.after } else { &self.0.before };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

/// Opens the gate when others have begun what is to wait for it, and had time to be done if they do not.
fn open_after(gate: &Gate, begun: &AtomicBool, opened: &AtomicBool) {
    wait_until(|| begun.load(Ordering::SeqCst));
    (0..200).for_each(|_| std::thread::yield_now());
    opened.store(true, Ordering::SeqCst);
    gate.open();
}

#[test]
fn what_is_dropped_while_it_is_lent_is_dropped_after_the_launch() {
    for way in BESIDE_KERNELS {
        let _turn = turn(&format!("drop, {way:?}"));
        let Some(kit) = way.kit("drop", builder()) else { continue };
        let (allocator, drops) = (kit.heap().allocator(), Drops::default());
        let lent_words = words(&allocator, COUNT);
        let gate = Gate::close(&kit, &kit.queue);
        let launch = filling(&kit, &lent_words, 7);
        // SAFETY: fill writes the words, which are lent with what tells of their end.
        let lent = unsafe { launch.lend_mut((Counts(drops.clone()), lent_words), &allocator).submit() }.unwrap();
        let dropping = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| open_after(&gate, &dropping, &drops.opened));
            dropping.store(true, Ordering::SeqCst);
            drop(lent);
        });
        assert_eq!(drops.counted(), (0, 1), "{way:?}");
        assert_eq!(allocator.residency_summary(), ResidencySummary::default(), "{way:?}");
    }
}

#[test]
fn what_is_forgotten_while_it_is_lent_stays_the_launchs() {
    for way in BESIDE_KERNELS {
        let _turn = turn(&format!("forget, {way:?}"));
        let Some(kit) = way.kit("forget", builder()) else { continue };
        let allocator = kit.heap().allocator();
        let lent_words = words(&allocator, COUNT);
        let there = allocator.allocation_of(lent_words.as_ptr() as u64).unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let launch = filling(&kit, &lent_words, 7);
        // SAFETY: fill writes the words, which are lent.
        std::mem::forget(unsafe { launch.lend_mut(lent_words, &allocator).submit() }.unwrap());
        // Nobody else is given its memory, whoever asks.
        let others: Vec<_> = (0..8).map(|_| words(&kit.heap().allocator(), COUNT)).collect();
        gate.open();
        kit.queue.wait_idle().unwrap();
        assert_eq!(allocator.allocation_of(there.start.0), Some(there), "{way:?}: leaked, not freed");
        assert!(others.iter().all(is_counted), "{way:?}");
        let mut first = [0u8; 4];
        // SAFETY: the launch is over, and nobody has a reference to what was leaked.
        unsafe { kit.heap().try_read(there.start.0, &mut first) }.unwrap();
        assert_eq!(u32::from_ne_bytes(first), 7, "{way:?}");
        drop(allocator);
        kit.works();
    }
}

#[test]
fn a_launch_brings_only_what_is_its_allocators() {
    for way in ALL {
        let _turn = turn(&format!("only, {way:?}"));
        let Some(kit) = way.kit("only", builder()) else { continue };
        let (ours, theirs) = (kit.heap().allocator(), kit.heap().allocator());
        let (lent_words, others) = (words(&ours, 100), words(&theirs, 100));
        let launch = filling(&kit, &lent_words, 9);
        let filled = counted(&kit, || {
            // SAFETY: fill writes the words, which are lent.
            let lent = unsafe { launch.lend_mut(lent_words, &ours).submit() }.unwrap();
            assert!(lent.wait().unwrap().iter().all(|word| *word == 9));
        });
        assert!(filled.blocks_to_device <= 1, "{way:?}: {filled:?}");
        assert_eq!(theirs.residency_summary().device + theirs.residency_summary().both, 0, "{way:?}");
        assert_eq!(others[99], 99);
    }
}

#[test]
fn what_cannot_be_launched_is_given_back() {
    let _turn = turn("refused");
    let Some(kit) = FAULTING.kit("refused", builder()) else { return };
    let allocator = kit.heap().allocator();
    let lent_words = words(&allocator, COUNT);
    let launch = kit.queue.launch(&kit.fill, 1).arg(1.5f32);
    // SAFETY: nothing is launched: the arguments are wrong.
    let refused = unsafe { launch.lend(lent_words, &allocator).submit() }.err().unwrap();
    assert!(refused.to_string().contains("fill"), "{refused}");
    assert_eq!(refused.into_value().unwrap()[9], 9);

    // A launch that fails later gives it back, too.
    let (lent_words, freed) = (words(&allocator, COUNT), kit.heap().vec_zeroed::<u32>(COUNT).unwrap().ptr(0).address());
    let launch = kit.queue.launch(&kit.copy, 1).arg(pointer(lent_words.as_ptr()));
    let launch = launch.args((GpuPtr::<u32>::from_address(freed), 4u64));
    // SAFETY: what was freed is nobody's.
    let lent = unsafe { launch.lend_mut(lent_words, &allocator).submit() }.unwrap();
    let failed = lent.wait().unwrap_err();
    assert!(failed.error().launch_failure().is_some(), "{failed}");
    assert_eq!(failed.into_value().unwrap()[COUNT - 1] as usize, COUNT - 1);
}

#[test]
fn a_scope_waits_for_its_launches_however_it_ends() {
    for way in BESIDE_KERNELS {
        let _turn = turn(&format!("scope, {way:?}"));
        let Some(kit) = way.kit("scope", builder()) else { continue };
        let allocator = kit.heap().allocator();
        let mut scoped = words(&allocator, COUNT);
        let (ending, opened) = (AtomicBool::new(false), AtomicBool::new(false));
        let (gate, waiting) = (Gate::close(&kit, &kit.queue), std::sync::Mutex::new(None));
        let panicking = || {
            limosa::scope(|scope| {
                let launch = filling(&kit, &scoped, 3).with_allocator(&allocator, Access::Write);
                // SAFETY: fill writes the words, which are lent.
                *waiting.lock().unwrap() = Some(unsafe { scope.submit(launch, &mut scoped) }.unwrap());
                ending.store(true, Ordering::SeqCst);
                panic!("as the test means it to");
            })
        };
        std::thread::scope(|scope| {
            scope.spawn(|| open_after(&gate, &ending, &opened));
            let panicked: Result<limosa::Result<()>, _> = std::panic::catch_unwind(AssertUnwindSafe(panicking));
            assert!(panicked.is_err() && opened.load(Ordering::SeqCst), "{way:?}");
            assert!(waiting.lock().unwrap().as_ref().unwrap().is_complete().unwrap(), "{way:?}");
        });
        assert!(scoped.iter().all(|word| *word == 3), "{way:?}");
    }
}

#[test]
fn readers_in_a_scope_share() {
    for way in ALL {
        let _turn = turn(&format!("readers, {way:?}"));
        let Some(kit) = way.kit("readers", builder()) else { continue };
        let (allocator, other) = (kit.heap().allocator(), kit.context.queue().unwrap());
        let shared = words(&allocator, COUNT);
        let mut copies = [0, 1].map(|_| kit.heap().vec_zeroed::<u32>(COUNT).unwrap());
        let sum = limosa::scope(|scope| {
            for (queue, to) in [&kit.queue, &other].into_iter().zip(&mut copies) {
                let launch = queue.launch(&kit.copy, (COUNT as u64).div_ceil(copy::ITEMS)).arg(to.writes());
                let launch = launch.args((pointer(shared.as_ptr()), COUNT as u64));
                // SAFETY: copy reads the words, which are lent.
                unsafe { scope.submit(launch.with_allocator(&allocator, Access::Read), &shared) }.unwrap();
            }
            shared.iter().map(|word| u64::from(*word)).sum::<u64>()
        });
        assert_eq!(sum.unwrap(), (COUNT * (COUNT - 1) / 2) as u64);
        assert!(copies.iter().all(|copy| copy.read().unwrap()[..] == shared[..]), "{way:?}");
        assert_eq!(allocator.residency_summary().device, 0, "{way:?}: read only");
    }
}

#[repr(C)]
struct Node {
    key: u64,
    value: u64,
    left: GpuPtr<Node>,
    right: GpuPtr<Node>,
}

/// Keys from `keys` on, balanced, in the arena.
fn tree(arena: &Bump<AllocatorApi2V02Compat<limosa::UnifiedAllocator>>, keys: std::ops::Range<u64>) -> GpuPtr<Node> {
    if keys.is_empty() {
        return GpuPtr::null();
    }
    let key = keys.start.midpoint(keys.end);
    let (left, right) = (tree(arena, keys.start..key), tree(arena, key + 1..keys.end));
    let node = arena.try_alloc(Node { key: 2 * key, value: key * key, left, right }).unwrap();
    pointer(node.into_raw().as_ptr().cast_const())
}

#[test]
fn a_kernel_follows_pointers_in_a_bump_arena() {
    for way in ALL {
        let _turn = turn(&format!("arena, {way:?}"));
        let Some(kit) = way.kit("arena", builder()) else { continue };
        let kernel: Kernel = kit.context.kernel(lookup::KERNEL.name, lookup::KERNEL.spirv).unwrap();
        let allocator = kit.heap().allocator();
        let arena = Bump::try_new_in(AllocatorApi2V02Compat(allocator.clone())).unwrap();
        let root = tree(&arena, 0..20_000);
        let keys: Vec<u64> = (0..50_000).collect();
        let there = kit.heap().vec_from(&keys).unwrap();
        let mut values = kit.heap().vec_zeroed::<u64>(keys.len()).unwrap();
        let launch = kit.queue.launch(&kernel, keys.len() as u64).args((root, there.reads(), values.writes()));
        let launch = launch.args((keys.len() as u64, u64::MAX));
        // SAFETY: lookup reads `keys`, writes `values` and follows pointers that all lead into the arena.
        let arena = unsafe { launch.lend(arena, &allocator).submit() }.unwrap().wait().unwrap();
        let expected = |key: &u64| if key.is_multiple_of(2) && *key < 40_000 { key / 2 * (key / 2) } else { u64::MAX };
        assert_eq!(values.to_vec().unwrap(), keys.iter().map(expected).collect::<Vec<_>>(), "{way:?}");
        drop(arena);
        assert_eq!(allocator.residency_summary(), ResidencySummary::default());
    }
}

#[test]
fn elements_with_a_drop_of_their_own_are_dropped_in_unified_memory() {
    let _turn = turn("elements");
    let Some(kit) = FAULTING.kit("elements", builder()) else { return };
    let (allocator, drops) = (kit.heap().allocator(), Drops::default());
    let mut nested = UnifiedMemoryVec::new_in(allocator.clone());
    nested.extend((0..100).map(|i| (words(&allocator, i * 100), Counts(drops.clone()))));
    allocator.prefetch_to_device().unwrap();
    let before = kit.heap().counters();
    drop(nested);
    assert!(moved(&kit.heap().counters().since(&before)) > 0, "read where they were");
    assert_eq!(drops.counted().0, 100);
    assert_eq!(allocator.residency_summary(), ResidencySummary::default());
}

#[cfg(feature = "inject")]
#[test]
fn what_is_lost_while_it_is_lent_is_neither_touched_nor_repaired() {
    for (way, noticed) in ALL.iter().flat_map(|way| [(way, true), (way, false)]) {
        let _turn = turn(&format!("lost, {way:?}, {noticed}"));
        let Some(kit) = way.kit("lost", builder()) else { continue };
        let (allocator, drops) = (kit.heap().allocator(), Drops::default());
        let (lent_words, untouched) = (words(&allocator, COUNT), words(&kit.heap().allocator(), COUNT));
        let there = allocator.allocation_of(lent_words.as_ptr() as u64).unwrap();
        let launch = filling(&kit, &lent_words, 7);
        // SAFETY: fill writes the words, which are lent.
        let lent = unsafe { launch.lend_mut((lent_words, Counts(drops.clone())), &allocator).submit() }.unwrap();
        lent.event().wait().unwrap();
        limosa::inject::lose_device();
        if noticed {
            kit.queue.wait_idle().unwrap_err();
            let unreturned = lent.wait().err().unwrap();
            assert!(!kit.heap().poisoned().is_empty(), "{way:?}");
            // Zeros may be no words of theirs, so nothing can be had, now or ever.
            kit.heap().repair(there.start.0, there.len).unwrap();
            drop(unreturned.into_value().err().unwrap());
        } else {
            drop(lent);
        }
        assert!(!kit.heap().poisoned().is_empty(), "{way:?}, {noticed}");
        assert_eq!(drops.counted(), (0, 0), "{way:?}, {noticed}: leaked");
        assert_eq!(untouched[9], 9);
    }
}
