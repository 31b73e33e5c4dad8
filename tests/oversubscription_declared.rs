//! More than fits, declared: data of half the budget up to four times the budget is used in declared parts, in order and
//! at random, on each view. The results are right, nothing faults, and VRAM never exceeds its budget.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::collections::BTreeMap;

use common::builder;
use common::failure::{BLOCK_WORDS, Kit, turn};
use common::scarce::{BUDGET, BUDGET_BLOCKS, Chain, blocks, each, within_budget};
use common::views::{ALL, OF_CLASS_DECLARED, Way};
use common::words::{Random, counted, sum_of};
use limosa::{Counters, UnifiedVec, ViewKind};
use limosa_shaders::{copy, fill, lookup, reduce};

/// As [`each`]; and what does not fit is evicted.
fn declared(test: &str, ways: &[Way], check: impl Fn(&Kit, usize, &str)) {
    each(test, ways, |kit, percent, what| {
        let before = kit.heap().counters();
        check(kit, percent, what);
        let counted = kit.heap().counters().since(&before);
        assert!(percent < 200 || counted.blocks_evicted > 0, "{what}: {counted:?}");
        // On ImportView a plan for a part of a huge page takes the mappings of the rest with it, and kernels that run
        // fault them back: `within_budget` sees that each was served.
        let faults = counted.gpu_read_faults + counted.gpu_write_faults;
        assert!(faults == 0 || kit.context.view() == ViewKind::Import, "{what}: {counted:?}");
    });
}

/// Passes over `vec` in parts, in the order of each pass, each part declared to be read. Gives what was counted.
fn read_in_parts(kit: &Kit, vec: &UnifiedVec<u32>, part: usize, passes: &[Vec<usize>]) -> (u64, Counters) {
    let mut total = kit.heap().vec_zeroed::<u64>(1).unwrap();
    let before = kit.heap().counters();
    let words = part * BLOCK_WORDS;
    for at in passes.iter().flatten() {
        let range = at * words..(at + 1) * words;
        let launch = kit.queue.launch(&kit.reduce, words as u64 / reduce::ITEMS).arg(vec.ptr(range.start));
        let launch = launch.args((total.writes(), words as u64)).with(vec.slice(range).unwrap().reads());
        // SAFETY: reduce reads the declared part and adds to `total`.
        unsafe { launch.submit() }.unwrap();
    }
    kit.queue.wait_idle().unwrap();
    let counted = kit.heap().counters().since(&before);
    (total.read().unwrap()[0], counted)
}

#[test]
fn declared_reads_in_parts_leave_without_a_copy() {
    declared("declared reads", ALL, |kit, percent, what| {
        let part = 8;
        let vec = counted(kit, blocks(percent));
        let parts = blocks(percent) / part;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let passes = [(0..parts).collect(), (0..parts).collect(), random.shuffled(parts), (0..parts).rev().collect()];
        let (total, moved) = read_in_parts(kit, &vec, part, &passes);
        assert_eq!(total, 4 * sum_of(0..vec.len()), "{what}");
        assert_eq!(moved.blocks_to_host, 0, "{what}: {moved:?}");
        assert_eq!(moved.gpu_read_faults + moved.gpu_write_faults, 0, "{what}: {moved:?}");
        assert!(moved.blocks_to_device >= blocks(percent) as u64, "{what}: {moved:?}");
        if percent == 50 {
            assert_eq!(moved.blocks_evicted, 0, "{what}: {moved:?}");
        }
    });
}

#[test]
fn declared_writes_in_parts_come_back() {
    declared("declared writes", ALL, |kit, percent, what| {
        let part = 16;
        let words = part * BLOCK_WORDS;
        let mut vec = counted(kit, blocks(percent));
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        for value in 0..3u32 {
            for at in random.shuffled(blocks(percent) / part) {
                let range = at * words..(at + 1) * words;
                // The last word of each part stays.
                let count = words as u64 - 1;
                let launch = kit.queue.launch(&kit.fill, count.div_ceil(fill::ITEMS)).arg(vec.ptr(range.start));
                let launch = launch.args((count, value, 0u32)).with(vec.slice_mut(range).unwrap().writes());
                // SAFETY: fill writes inside of the declared part.
                unsafe { launch.submit() }.unwrap();
            }
        }
        kit.queue.wait_idle().unwrap();
        within_budget(kit, what);
        let last = |i: usize| i % words == words - 1;
        let words = vec.read().unwrap();
        let right = |(i, word): (usize, &u32)| *word == if last(i) { u32::try_from(i).unwrap() } else { 2 };
        assert!(words.iter().enumerate().all(right), "{what}");
    });
}

#[test]
fn blocks_go_to_random_places() {
    declared("random places", ALL, |kit, percent, what| {
        let (source, mut target) = (counted(kit, blocks(percent)), counted(kit, blocks(percent)));
        let mut random = Random(0x1234_5678_9abc_def1);
        let order = random.shuffled(blocks(percent));
        // Block i goes to block order[i], each launch declaring two blocks of two vectors.
        for (from, to) in order.iter().enumerate() {
            let (from, to) = (from * BLOCK_WORDS, to * BLOCK_WORDS);
            let words = BLOCK_WORDS as u64;
            let launch = kit.queue.launch(&kit.copy, words / copy::ITEMS).arg(target.ptr(to));
            let launch =
                launch.args((source.ptr(from), words)).with(source.slice(from..from + BLOCK_WORDS).unwrap().reads());
            // SAFETY: copy touches the two declared blocks.
            unsafe { launch.with(target.slice_mut(to..to + BLOCK_WORDS).unwrap().writes()).submit() }.unwrap();
        }
        let words = target.read().unwrap();
        for (from, to) in order.iter().enumerate() {
            let block = &words[to * BLOCK_WORDS..][..BLOCK_WORDS];
            let right = |(i, word): (usize, &u32)| usize::try_from(*word) == Ok(from * BLOCK_WORDS + i);
            assert!(block.iter().enumerate().all(right), "{what}: block {from}");
        }
    });
}

/// Looks `wanted` up from `root` on, in a part of `nodes` that is declared. Gives what was found.
fn look_up(kit: &Kit, nodes: &UnifiedVec<u64>, part: std::ops::Range<usize>, root: u64, wanted: &[u64]) -> Vec<u64> {
    let kernel = kit.context.kernel(lookup::KERNEL.name, lookup::KERNEL.spirv).unwrap();
    let keys = kit.heap().vec_from(wanted).unwrap();
    let mut values = kit.heap().vec_zeroed::<u64>(wanted.len()).unwrap();
    let count = wanted.len() as u64;
    let launch = kit.queue.launch(&kernel, count).args((root, keys.reads(), values.writes()));
    let launch = launch.args((count, u64::MAX)).with(nodes.slice(part).unwrap().reads());
    // SAFETY: lookup follows pointers inside of the declared part.
    unsafe { launch.submit() }.unwrap().wait().unwrap();
    values.to_vec().unwrap()
}

/// Where a part goes on is found at the end of the part before.
#[test]
fn a_pointer_chase_through_parts() {
    declared("pointer chase", OF_CLASS_DECLARED, |kit, percent, what| {
        let part = 16;
        let parts = blocks(percent) / part;
        let chain = Chain::new(kit, parts, part, 3, &mut Random(0x2545_f491_4f6c_dd1d));
        for _ in 0..2 {
            let mut root = chain.root(0).address();
            for part in 0..parts {
                let keys = chain.keys(part);
                // No key that is missing: the search for it would leave the part.
                let wanted = [keys.end - 1, (keys.start + keys.end) / 2, keys.start];
                let found = look_up(kit, &chain.words, chain.part(part), root, &wanted);
                assert_eq!(found, wanted.map(|key| chain.value(key)), "{what}, part {part}");
                root = found[0];
            }
            assert_eq!(root, 0, "{what}: at the end");
            within_budget(kit, what);
        }
    });
}

/// Each part holds a search tree with its nodes in random places, in which many random keys are looked up at once.
#[test]
fn random_gathers_in_parts() {
    const NODES: usize = 512;
    declared("random gathers", OF_CLASS_DECLARED, |kit, percent, what| {
        let part = 16;
        let (parts, words) = (blocks(percent) / part, part * BLOCK_WORDS / 2);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut nodes = kit.heap().vec_zeroed::<u64>(parts * words).unwrap();
        let trees: Vec<(BTreeMap<u64, u64>, u64)> = (0..parts)
            .map(|at| {
                let pairs: BTreeMap<u64, u64> = (0..NODES as u64).map(|key| (2 * key, key * key + at as u64)).collect();
                let places = random.shuffled(NODES);
                let place = |node: usize| at * words + places[node] * (words / NODES);
                let (tree, root) = lookup::balanced(&pairs, |node| nodes.ptr(place(node)).address());
                let mut there = nodes.write().unwrap();
                for (index, node) in tree.iter().enumerate() {
                    there[place(index)..][..4].copy_from_slice(&[node.key, node.value, node.left, node.right]);
                }
                (pairs, root)
            })
            .collect();
        for _ in 0..2 {
            for at in random.shuffled(parts) {
                let (pairs, root) = &trees[at];
                // Every other key is missing.
                let wanted: Vec<u64> = (0..1000).map(|_| random.below(2 * NODES) as u64).collect();
                let found = look_up(kit, &nodes, at * words..(at + 1) * words, *root, &wanted);
                assert_eq!(found, lookup::twin(pairs, &wanted, u64::MAX), "{what}, part {at}");
            }
        }
    });
}

/// Blocks are written in one random order and read back in another.
#[test]
fn random_blocks_are_written_and_read_back() {
    declared("random blocks", OF_CLASS_DECLARED, |kit, percent, what| {
        let mut vec = counted(kit, blocks(percent));
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let value = |block: usize| u32::try_from(block).unwrap() * 7 + 1;
        let words = BLOCK_WORDS as u64;
        let written = random.shuffled(blocks(percent));
        let (written, _) = written.split_at(written.len() / 3 * 2);
        for block in written {
            let range = block * BLOCK_WORDS..(block + 1) * BLOCK_WORDS;
            let launch = kit.queue.launch(&kit.fill, words / fill::ITEMS).args((vec.ptr(range.start), words));
            // SAFETY: fill writes the declared block.
            unsafe { launch.args((value(*block), 0u32)).with(vec.slice_mut(range).unwrap().writes()).submit() }
                .unwrap();
        }
        let mut totals = kit.heap().vec_zeroed::<u64>(blocks(percent)).unwrap();
        for block in random.shuffled(blocks(percent)) {
            let range = block * BLOCK_WORDS..(block + 1) * BLOCK_WORDS;
            let launch = kit.queue.launch(&kit.reduce, words / reduce::ITEMS).arg(vec.ptr(range.start));
            let launch =
                launch.args((totals.ptr(block), words)).with(totals.slice_mut(block..block + 1).unwrap().writes());
            // SAFETY: reduce reads the declared block and adds to the declared total.
            unsafe { launch.with(vec.slice(range).unwrap().reads()).submit() }.unwrap();
        }
        let there = |block: usize, word: usize| {
            let word = u32::try_from(block * BLOCK_WORDS + word).unwrap();
            if written.contains(&block) { value(block) } else { word }
        };
        for (block, total) in totals.read().unwrap().iter().enumerate() {
            let expected: u64 = (0..BLOCK_WORDS).map(|word| u64::from(there(block, word))).sum();
            assert_eq!(*total, expected, "{what}: block {block}");
        }
        for (block, words) in vec.read().unwrap().chunks(BLOCK_WORDS).enumerate() {
            let wrong = (0..).zip(words).find(|(word, seen)| **seen != there(block, *word));
            assert_eq!(wrong, None, "{what}: block {block}");
        }
    });
}

/// What is declared to be read in a cycle of twice the budget moves little more than it must.
#[test]
fn cyclic_passes_keep_what_the_queue_needs() {
    for way in ALL {
        let _turn = turn("cyclic passes");
        cyclic_passes(*way);
    }
}

fn cyclic_passes(way: Way) {
    let Some(kit) = way.kit("cyclic passes", builder().device_budget(4 * BUDGET)) else { return };
    let (all, part) = (8 * BUDGET_BLOCKS, 32);
    let vec = counted(&kit, all);
    let passes: Vec<Vec<usize>> = (0..8).map(|_| (0..all / part).collect()).collect();
    let (total, moved) = read_in_parts(&kit, &vec, part, &passes);
    assert_eq!(total, 8 * sum_of(0..vec.len()));
    let all = 8 * all as u64;
    assert!(moved.blocks_to_device * 100 <= all * 65, "{} blocks of {all}", moved.blocks_to_device);
    assert_eq!(moved.blocks_to_host, 0);
}
