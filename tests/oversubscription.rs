//! More than fits: kernels walk through data of half the budget up to four times the budget, in order and at random,
//! and declare nothing. The results are right, and VRAM never exceeds its budget. What launches declare is
//! `oversubscription_declared`'s.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::sync::Arc;

use common::failure::{BLOCK, BLOCK_WORDS, Kit, turn};
use common::scarce::{Chain, blocks, each, within_budget};
use common::views::{FAULTING, MODES};
use common::words::{Random, counted, sum_of};
use limosa::{Access, GpuPtr, Kernel, RawAllocation, UnifiedVec};
use limosa_shaders::lookup;

/// Adds up `words` words at `source` by faults alone.
fn sum_undeclared(kit: &Kit, source: GpuPtr<u32>, words: usize, keep: &Arc<RawAllocation>, total: &UnifiedVec<u64>) {
    // One invocation a word: each workgroup reads its own stretch, once.
    let launch = kit.queue.launch(&kit.reduce, words as u64).arg(source);
    let launch = launch.args((total.ptr(0), words as u64)).keeps(keep).keeps(total.raw());
    // SAFETY: reduce reads inside of what is kept, and adds to `total`, which nobody uses meanwhile.
    unsafe { launch.submit() }.unwrap().wait().unwrap();
}

#[test]
fn sequential_undeclared() {
    each("sequential", &[FAULTING], |kit, percent, what| {
        let vec = counted(kit, blocks(percent));
        let total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        let mut expected = 0;
        for (value, there) in [(5u32, sum_of(0..vec.len())), (6, 5 * vec.len() as u64)] {
            sum_undeclared(kit, vec.ptr(0), vec.len(), vec.raw(), &total);
            kit.fill_at(vec.ptr(0).address(), vec.len() as u64, value).unwrap().wait().unwrap();
            expected += there;
            within_budget(kit, what);
        }
        assert_eq!(total.read().unwrap()[0], expected, "{what}");
        assert!(vec.read().unwrap().iter().all(|word| *word == 6), "{what}");
        let evicted = kit.heap().counters().blocks_evicted;
        assert!(percent <= 100 || evicted > 0, "{what}: {evicted} blocks evicted");
    });
}

#[test]
fn random_blocks_undeclared() {
    each("random blocks", &[FAULTING], |kit, percent, what| {
        let vec = counted(kit, blocks(percent));
        let total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        let order = Random(0x9e37_79b9_7f4a_7c15).shuffled(blocks(percent));
        let mut expected = 0;
        for (turn, block) in order.iter().enumerate() {
            let words = block * BLOCK_WORDS..(block + 1) * BLOCK_WORDS;
            if turn % 3 == 0 {
                let at = vec.ptr(words.start).address();
                kit.fill_at(at, BLOCK_WORDS as u64, 1).unwrap().wait().unwrap();
                expected += BLOCK_WORDS as u64;
            } else {
                expected += sum_of(words.clone());
            }
            sum_undeclared(kit, vec.ptr(words.start), BLOCK_WORDS, vec.raw(), &total);
        }
        assert_eq!(total.read().unwrap()[0], expected, "{what}");
        let words = vec.read().unwrap();
        for (turn, block) in order.iter().enumerate() {
            let mut block = (block * BLOCK_WORDS..).zip(&words[block * BLOCK_WORDS..][..BLOCK_WORDS]);
            assert!(
                block.all(|(i, word)| *word == if turn % 3 == 0 { 1 } else { u32::try_from(i).unwrap() }),
                "{what}"
            );
        }
    });
}

fn chase(kit: &Kit, kernel: &Kernel, blocks: usize, per_block: usize, what: &str) {
    let chain = Chain::new(kit, 1, blocks, per_block, &mut Random(0x2545_f491_4f6c_dd1d));
    let count = chain.count();
    let wanted: Vec<u64> = [count - 1, count / 2, 0, count].iter().map(|key| *key as u64).collect();
    let keys = kit.heap().vec_from(&wanted).unwrap();
    let mut values = kit.heap().vec_zeroed::<u64>(wanted.len()).unwrap();
    for _ in 0..2 {
        let launch = kit.queue.launch(kernel, wanted.len() as u64).args((chain.root(0), keys.reads()));
        let launch = launch.args((values.writes(), wanted.len() as u64, u64::MAX)).keeps(chain.words.raw());
        // SAFETY: lookup follows pointers inside of `chain`, which is kept.
        unsafe { launch.submit() }.unwrap().wait().unwrap();
        let expected: Vec<u64> =
            wanted.iter().map(|key| if *key < count as u64 { chain.value(*key) } else { u64::MAX }).collect();
        assert_eq!(values.to_vec().unwrap(), expected, "{what}");
    }
}

#[test]
fn pointer_chase_undeclared() {
    each("pointer chase", &[FAULTING], |kit, percent, what| {
        let kernel = kit.context.kernel(lookup::KERNEL.name, lookup::KERNEL.spirv).unwrap();
        chase(kit, &kernel, blocks(percent), 3, what);
    });
}

/// A gather of single words: the walk goes to another block with every step, and so to another chunk.
#[test]
fn random_words_undeclared() {
    each("random words", &[FAULTING], |kit, percent, what| {
        let vec = counted(kit, blocks(percent));
        let total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        let mut random = Random(0x1234_5678_9abc_def1);
        let mut expected = 0;
        let mut touched = std::collections::BTreeMap::new();
        for turn in 0..400u32 {
            let word = random.below(vec.len());
            if turn % 2 == 0 {
                kit.fill_at(vec.ptr(word).address(), 1, turn).unwrap().wait().unwrap();
                touched.insert(word, turn);
            }
            expected += touched.get(&word).map_or(word as u64, |turn| u64::from(*turn));
            sum_undeclared(kit, vec.ptr(word), 1, vec.raw(), &total);
        }
        assert_eq!(total.read().unwrap()[0], expected, "{what}");
        let words = vec.read().unwrap();
        let right = |(i, word): (usize, &u32)| *word == touched.get(&i).copied().unwrap_or(u32::try_from(i).unwrap());
        assert!(words.iter().enumerate().all(right), "{what}");
    });
}

/// Both sides at once: the CPU reads what the GPU streams through, in raw memory that is larger than the budget.
#[test]
fn the_cpu_reads_along_while_kernels_stream() {
    let _turn = turn("reads along");
    for mode in MODES {
        let Some(kit) = common::scarce::kit("reads along", FAULTING, mode) else { return };
        let vec = counted(&kit, blocks(200));
        let total = kit.heap().vec_zeroed::<u64>(1).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random(0x9e37_79b9_7f4a_7c15);
                let words = vec.read().unwrap();
                (0..2000).map(|_| random.below(words.len())).for_each(|i| assert_eq!(usize::try_from(words[i]), Ok(i)));
            });
            for part in 0..8 {
                let words = vec.len() / 8;
                sum_undeclared(&kit, vec.ptr(part * words), words, vec.raw(), &total);
            }
        });
        assert_eq!(total.read().unwrap()[0], sum_of(0..vec.len()));
        within_budget(&kit, "reads along");
        let launch = kit.queue.launch(&kit.fill, 1).args((0u64, 0u64, 0u32, 0u32));
        // SAFETY: fill of no words touches nothing; what is declared fits.
        unsafe { launch.with_raw(total.raw(), Access::Read).submit() }.unwrap().wait().unwrap();
        assert!(kit.heap().device_bytes() % BLOCK == 0);
    }
}
