//! What is special about sparse views: several buffers behind one heap, translation, frames that change hands, the limit on
//! pieces, the whole heap as a set, and what is refused. Values are compared with plain memory's.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::ops::Range;

use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, turn};
use common::scarce::{BUDGET, BUDGET_BLOCKS, kit};
use common::views::{ALL, FAULTING, MODES, OF_CLASS_DECLARED, ON_SPARSE, SEGMENT, SPARSE, cases, has_sparse};
use common::words::{Random, all_are, counted, fill_part, is_counted, sum_of, sum_part};
use common::{builder, skip};
use limosa::{
    ContextBuilder, DeviceChoice, DeviceClass, DeviceKind, Error, Instance, PagerError, Side, Translation, UnifiedVec,
    ViewKind,
};
use limosa_shaders::copy;

const GIB: u64 = 1 << 30;

/// Kernels write and read around word `middle`, the CPU before and after them.
fn both_sides_of(kit: &Kit, vec: &mut UnifiedVec<u32>, middle: usize) {
    let reach = 20 * BLOCK_WORDS;
    let (start, end) = (middle - reach, middle + reach);
    let value = |i: usize| u32::try_from(i % 1_000_003).unwrap();
    {
        let mut words = vec.write().unwrap();
        (start..end).for_each(|i| words[i] = value(i));
    }
    let expected: u64 = (start..end).map(|i| u64::from(value(i))).sum();
    assert_eq!(sum_part(kit, vec, start..end), expected, "read across word {middle}");
    for (side, filled) in [(start..middle, 5u32), (middle..end, 6), (middle - 77..middle + 99, 7)] {
        fill_part(kit, vec, side, filled).unwrap();
    }
    let words = vec.read().unwrap();
    for i in start..end {
        let expected = if (middle - 77..middle + 99).contains(&i) { 7 } else { 5 + u32::from(i >= middle) };
        assert_eq!(words[i], expected, "word {i} around {middle}");
    }
}

/// Twelve GiB are several buffers on every driver so far. With a small host budget zeros take no memory, so that one
/// vector may lie over all borders.
#[test]
fn a_heap_larger_than_a_buffer_works_on_both_sides_of_each_border() {
    let _turn = turn("large heap");
    let test = "large heap";
    let builder = builder().heap_size(12 * GIB).host_limit(16 * GIB).host_budget(64 * MIB).poison_stale(false);
    let Some(kit) = SPARSE.kit(test, builder) else { return };
    let segment = kit.context.adapter().limits.segment_bytes;
    assert!(matches!(kit.context.translation(), Translation::Table(_)), "{:?}", kit.context.translation());
    let mut vec = kit.heap().vec_zeroed::<u32>(usize::try_from(11 * GIB / 4).unwrap()).unwrap();
    let start = vec.ptr(0).address() - kit.heap().range().start.0;
    let borders: Vec<_> =
        (1..).map(|n| n * segment).take_while(|border| *border < start + 11 * GIB - 2 * MIB).collect();
    assert!(borders.len() >= 5, "{borders:x?}");
    for border in borders {
        both_sides_of(&kit, &mut vec, usize::try_from((border - start) / 4).unwrap());
    }
    drop(vec);
    kit.works();
}

#[test]
fn a_limit_on_segments_makes_more_of_them() {
    for segment in [2 * MIB, SEGMENT, 64 * MIB] {
        for mode in MODES {
            let _turn = turn("segment limit");
            let small = || builder().heap_size(256 * MIB).fault_mode(mode).segment_limit(segment);
            let Some(kit) = SPARSE.kit("segment limit", small()) else { return };
            let translation = kit.context.translation();
            assert!(matches!(translation, Translation::Table(_)), "{segment}: {translation:?}");
            let mut vec = counted(&kit, 70 * 32);
            let start = vec.ptr(0).address() - kit.heap().range().start.0;
            assert_eq!(kit.sum(&vec).unwrap(), sum_of(0..vec.len()), "across all borders at once");
            for border in (1..).map(|n| n * segment).skip_while(|at| *at < start + 2 * MIB).step_by(5) {
                if border + 2 * MIB > start + vec.raw().len() {
                    break;
                }
                both_sides_of(&kit, &mut vec, usize::try_from((border - start) / 4).unwrap());
            }
            drop(vec);
            kit.works();
        }
    }
}

#[test]
fn one_segment_is_reached_by_one_distance() {
    let _turn = turn("one segment");
    let Some(kit) = SPARSE.kit("one segment", builder()) else { return };
    let translation = kit.context.translation();
    assert!(matches!(translation, Translation::Delta(_)), "{translation:?}");
    kit.works();
}

/// Single blocks of many chunks lie in many pieces: they leave before the budget asks for it.
#[test]
fn what_lies_in_too_many_pieces_leaves_early() {
    const CHUNKS: usize = 18;
    for (way, mode) in cases(ON_SPARSE) {
        let _turn = turn("pieces");
        let limited = builder().device_budget(64 * MIB).mappings_limit(40).fault_mode(mode);
        let Some(kit) = way.kit("pieces", limited) else { return };
        let mut vec = counted(&kit, 32 * CHUNKS);
        let mut model: Vec<u32> = (0..vec.len()).map(|i| u32::try_from(i).unwrap()).collect();
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        for value in 0..60u32 {
            let block = random.below(CHUNKS) * 32 + 1 + 2 * random.below(15);
            let range = block * BLOCK_WORDS..(block + 1) * BLOCK_WORDS;
            if value % 3 == 0 {
                let expected: u64 = model[range.clone()].iter().map(|word| u64::from(*word)).sum();
                assert_eq!(sum_part(&kit, &vec, range), expected, "{way:?}, {mode:?}: block {block}");
            } else {
                fill_part(&kit, &mut vec, range.clone(), value).unwrap();
                model[range].fill(value);
            }
        }
        let counters = kit.heap().counters();
        assert!(counters.blocks_evicted > 0, "{counters:?}");
        assert!(kit.heap().device_bytes() < 16 * MIB, "far from the budget");

        // One launch's own blocks, in too many pieces: that is an error, and nothing is lost.
        let launch = kit.queue.launch(&kit.fill, 1).args((vec.ptr(0), 0u64, 9u32, 0u32));
        let blocks = (0..CHUNKS).map(|chunk| (chunk * 32 + 7) * BLOCK_WORDS);
        let launch = blocks.fold(launch, |launch, at| launch.with(vec.slice(at..at + BLOCK_WORDS).unwrap().reads()));
        // SAFETY: fill of no words touches nothing.
        let error = unsafe { launch.submit() }.and_then(|event| event.wait()).unwrap_err();
        let text = error.to_string();
        let Error::Pager(PagerError::TooManyBindings { needed, limit }) = error else { panic!("{text}") };
        assert!(needed > limit && limit == 40 && text.contains(&needed.to_string()), "{text}");
        assert!(text.contains("vm.max_map_count") && text.contains("larger ranges"), "{text}");
        assert_eq!(vec.read().unwrap().iter().zip(&model).position(|(seen, word)| seen != word), None, "{way:?}");
        fill_part(&kit, &mut vec, 0..32 * BLOCK_WORDS, 3).unwrap();
        assert_eq!(sum_part(&kit, &vec, 0..32 * BLOCK_WORDS), 3 * 32 * BLOCK_WORDS as u64);
        kit.works();
        assert_eq!(kit.heap().counters().faults_refused, 0, "{way:?}, {mode:?}");
    }
}

/// A single block in a chunk makes three pieces of it, and is not charged for more.
#[test]
fn a_scattered_set_that_fits_the_limit_is_not_refused() {
    const CHUNKS: usize = 11;
    for (way, mode) in cases(ON_SPARSE) {
        let _turn = turn("scattered");
        let Some(kit) = way.kit("scattered", builder().mappings_limit(40).fault_mode(mode)) else { return };
        let vec = counted(&kit, 32 * CHUNKS);
        let launch = kit.queue.launch(&kit.fill, 1).args((vec.ptr(0), 0u64, 9u32, 0u32));
        let blocks = (0..CHUNKS).map(|chunk| (chunk * 32 + 7) * BLOCK_WORDS);
        let launch = blocks.fold(launch, |launch, at| launch.with(vec.slice(at..at + BLOCK_WORDS).unwrap().reads()));
        // SAFETY: fill of no words touches nothing.
        unsafe { launch.submit() }.unwrap().wait().unwrap();
        assert!(is_counted(&vec), "{way:?}, {mode:?}");
    }
}

/// An allocation and what it must hold.
struct Mirrored {
    vec: UnifiedVec<u32>,
    model: Vec<u32>,
}

impl Mirrored {
    fn new(kit: &Kit, random: &mut Random) -> Self {
        let len = (1 + random.below(48)) * BLOCK_WORDS - random.below(2) * random.below(BLOCK_WORDS);
        if random.below(2) == 0 {
            // Frames of others hold something else than zeros.
            return Self { vec: kit.heap().vec_zeroed(len).unwrap(), model: vec![0; len] };
        }
        let seed = u32::try_from(random.below(1 << 20)).unwrap();
        let model: Vec<u32> = (0..len).map(|i| u32::try_from(i).unwrap() ^ seed).collect();
        Self { vec: kit.heap().vec_from(&model).unwrap(), model }
    }

    fn part(&self, random: &mut Random) -> Range<usize> {
        let start = random.below(self.model.len());
        start..start + 1 + random.below(self.model.len() - start)
    }

    fn check(&self, what: &str) {
        let wrong = self.vec.read().unwrap().iter().zip(&self.model).position(|(seen, word)| seen != word);
        assert_eq!(wrong, None, "{what}: of {} words", self.model.len());
    }
}

fn frames_change_hands(kit: &Kit, seed: u64, what: &str) {
    let mut random = Random(seed);
    let mut all: Vec<Mirrored> = Vec::new();
    for step in 0..250u32 {
        let blocks: usize = all.iter().map(|one| one.model.len().div_ceil(BLOCK_WORDS)).sum();
        if all.len() < 2 || random.below(5) == 0 && blocks < 4 * BUDGET_BLOCKS {
            all.push(Mirrored::new(kit, &mut random));
            continue;
        }
        let (at, other) = (random.below(all.len()), random.below(all.len()));
        match random.below(9) {
            0 => drop(all.swap_remove(at)),
            1 | 2 => {
                let range = all[at].part(&mut random);
                let one = &mut all[at];
                fill_part(kit, &mut one.vec, range.clone(), step).unwrap();
                one.model[range].fill(step);
            }
            3 | 4 if at != other => {
                let (first, last) = all.split_at_mut(at.max(other));
                let (from, to) = (&first[at.min(other)], &mut last[0]);
                let words = from.model.len().min(to.model.len());
                let launch = kit.queue.launch(&kit.copy, (words as u64).div_ceil(copy::ITEMS)).arg(to.vec.ptr(0));
                let launch = launch.args((from.vec.reads(), words as u64)).with(to.vec.writes());
                // SAFETY: copy writes words of one and reads words of the other.
                unsafe { launch.submit() }.unwrap().wait().unwrap();
                to.model[..words].copy_from_slice(&from.model[..words]);
            }
            5 => {
                let range = all[at].part(&mut random);
                let expected: u64 = all[at].model[range.clone()].iter().map(|word| u64::from(*word)).sum();
                assert_eq!(sum_part(kit, &all[at].vec, range), expected, "{what}, step {step}");
            }
            6 => {
                let range = all[at].part(&mut random);
                all[at].vec.write().unwrap()[range.clone()].fill(!step);
                all[at].model[range].fill(!step);
            }
            7 => {
                let side = if random.below(2) == 0 { Side::Host } else { Side::Device };
                all[at].vec.raw().prefetch(side).unwrap();
            }
            _ => all[at].check(&format!("{what}, step {step}")),
        }
        let (counted, resident) = (kit.heap().device_bytes(), kit.heap().device_frames_resident().unwrap());
        assert!(counted <= BUDGET && resident <= BUDGET, "{what}, step {step}: {counted}, {resident}");
    }
    all.iter().for_each(|one| one.check(what));
    assert_eq!(kit.heap().counters().faults_refused, 0, "{what}");
    assert!(kit.heap().counters().blocks_evicted > 0, "{what}");
}

#[test]
fn frames_change_hands_between_allocations() {
    for (way, mode) in cases(ALL) {
        for seed in [0x9e37_79b9_7f4a_7c15, 0x1234_5678_9abc_def1] {
            let _turn = turn("frames");
            let Some(kit) = kit("frames", way, mode) else { break };
            frames_change_hands(&kit, seed, &format!("{way:?}, {mode:?}, seed {seed:#x}"));
        }
    }
}

/// A launch with the whole heap holds all that is allocated, where nothing can fault.
#[test]
fn the_whole_heap_is_held_where_nothing_faults() {
    for (way, mode) in cases(OF_CLASS_DECLARED) {
        let _turn = turn("whole heap");
        let Some(kit) = kit("whole heap", way, mode) else { break };
        let (mut one, two) = (counted(&kit, 60), counted(&kit, 60));
        let words = two.len() as u64;
        let copied = |kit: &Kit, one: &UnifiedVec<u32>| {
            let launch = kit.queue.launch(&kit.copy, words / copy::ITEMS).args((one.ptr(0), two.ptr(0)));
            // SAFETY: copy touches two vectors that live and that nobody else uses until the event.
            unsafe { launch.arg(words).with_whole_heap().submit() }
        };
        one.write().unwrap().fill(1);
        copied(&kit, &one).unwrap().wait().unwrap();
        let there = [&one, &two].map(|vec| (vec.residency_summary().device, vec.residency_summary().both));
        assert_eq!(there, [(60 * BLOCK, 0); 2], "{way:?}: all of it was there, to be written");
        assert!(is_counted(&one) && is_counted(&two), "{way:?}, {mode:?}");

        let more = counted(&kit, 9);
        one.write().unwrap().fill(1);
        let error = copied(&kit, &one).err().unwrap();
        let text = error.to_string();
        let Error::Pager(PagerError::SetTooLarge { asked, budget, .. }) = error else { panic!("{text}") };
        assert_eq!((asked, budget), (129 * BLOCK, BUDGET));
        assert!(text.contains(&asked.to_string()) && text.contains(&budget.to_string()), "{text}");
        assert!(all_are(&one, 1) && is_counted(&two) && is_counted(&more), "nothing was lost");
        drop(more);
        copied(&kit, &one).unwrap().wait().unwrap();
        assert!(is_counted(&one));
    }
}

fn refused(builder: ContextBuilder) -> String {
    let error = builder.build().err().unwrap();
    let text = error.to_string();
    let Error::Pager(PagerError::NoView { device, reason }) = error else { panic!("{text}") };
    assert!(!device.is_empty() && text.contains(&reason), "{text}");
    text
}

#[test]
fn what_a_view_cannot_do_is_refused_with_the_reason() {
    let _turn = turn("refused");
    let Some(kit) = FAULTING.kit("refused", builder()) else { return };
    assert_eq!(
        (kit.context.view(), kit.context.refused_views().len()),
        (ViewKind::Import, 0),
        "the best that there is"
    );
    drop(kit);
    if !has_sparse("refused") {
        let text = refused(builder().view(ViewKind::Sparse));
        assert!(text.contains("SparseView"), "{text}");
        return;
    }
    let text = refused(builder().view(ViewKind::Sparse).check(true));
    assert!(text.contains("SparseView") && text.contains("check mode"), "{text}");
    let text = refused(builder().view(ViewKind::Sparse).device_class(DeviceClass::Faulting));
    assert!(text.contains("SparseView") && text.contains("Faulting"), "{text}");
    let Some(kit) = SPARSE.kit("refused", builder()) else { return };
    assert_eq!((kit.context.view(), kit.context.device_class()), (ViewKind::Sparse, DeviceClass::Declared));
    let [(view, reason)] = kit.context.refused_views() else { panic!("{:?}", kit.context.refused_views()) };
    assert!(*view == ViewKind::Import && reason.contains("asked for"), "{reason}");
}

/// On devices other than software ones, the view of software devices is refused by name.
#[test]
fn a_view_that_the_device_does_not_have_is_refused() {
    let _turn = turn("no such view");
    let Some(_) = common::context("no such view", builder()) else { return };
    let adapters = Instance::new().unwrap().adapters().unwrap();
    let kinds: Vec<DeviceKind> =
        adapters.iter().map(|adapter| adapter.kind).filter(|kind| *kind != DeviceKind::Cpu).collect();
    if kinds.is_empty() {
        skip("no such view", "gpu", "every device here has both views");
    }
    for kind in kinds {
        let text = refused(builder().device(DeviceChoice::Kind(kind)).view(ViewKind::Import));
        assert!(text.contains("ImportView") && text.contains("software devices"), "{text}");
    }
}

#[test]
fn contexts_with_different_views_work_side_by_side() {
    let _turn = turn("side by side");
    let kits: Vec<Kit> = ALL
        .iter()
        .filter_map(|way| way.kit("side by side", builder().heap_size(256 * MIB).device_budget(BUDGET)))
        .collect();
    let mut vecs: Vec<UnifiedVec<u32>> = kits.iter().map(|kit| counted(kit, 100)).collect();
    std::thread::scope(|scope| {
        for (index, (kit, vec)) in (0u32..).zip(kits.iter().zip(&mut vecs)) {
            scope.spawn(move || {
                for round in 0..10 {
                    let value = 100 * index + round;
                    kit.fill(vec, value).unwrap().wait().unwrap();
                    assert_eq!(kit.sum(vec).unwrap(), u64::from(value) * vec.len() as u64);
                    assert!(all_are(vec, value));
                }
            });
        }
    });
    // One goes, the others stay.
    for (kit, vec) in kits.into_iter().zip(vecs) {
        kit.works();
        drop(kit);
        assert!(vec.read().unwrap().iter().all(|word| *word % 100 == 9));
    }
}
