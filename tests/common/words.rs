//! Vectors of words as tests use them: filled with what can be computed again, looked at past guards, and used by
//! launches. And what tests share beside: random numbers, and waiting for a condition.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::ops::Range;

use limosa::{Counters, Event, Queue, Result, UnifiedVec};
use limosa_shaders::{copy, fill, reduce};

use super::failure::{BLOCK_WORDS, Kit};

/// A xorshift generator: the same sequence in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    pub fn shuffled(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for index in (1..len).rev() {
            order.swap(index, self.below(index + 1));
        }
        order
    }
}

/// Waits, without a clock: the watchdog ends a test whose condition never comes.
pub fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// Each word is its index.
pub fn counted(kit: &Kit, blocks: usize) -> UnifiedVec<u32> {
    kit.heap().vec_with(blocks * BLOCK_WORDS, |i| u32::try_from(i).unwrap()).unwrap()
}

/// The sum of a part of a counted vector.
pub fn sum_of(words: Range<usize>) -> u64 {
    words.map(|word| word as u64).sum()
}

pub fn is_counted(vec: &UnifiedVec<u32>) -> bool {
    vec.read().unwrap().iter().enumerate().all(|(i, word)| usize::try_from(*word) == Ok(i))
}

pub fn all_are(vec: &UnifiedVec<u32>, value: u32) -> bool {
    vec.read().unwrap().iter().all(|word| *word == value)
}

pub fn since(kit: &Kit, before: &Counters) -> Counters {
    kit.heap().counters().since(before)
}

/// The first word, read past the guards that would wait.
pub fn peek(vec: &UnifiedVec<u32>, index: usize) -> u32 {
    // SAFETY: an aligned word of the vector; what launches write of it is held against the CPU meanwhile.
    unsafe { vec.ptr(index).as_ptr().read_volatile() }
}

/// Stored past the guards that would wait.
pub fn poke(vec: &UnifiedVec<u32>, index: usize, value: u32) {
    // SAFETY: as in `peek`; the tests have no reference to the word.
    unsafe { vec.ptr(index).as_ptr().write_volatile(value) };
}

/// Has `queue` add `source` up into `total`.
pub fn sum_into(kit: &Kit, queue: &Queue, source: &UnifiedVec<u32>, total: &mut UnifiedVec<u64>) -> Event {
    let words = source.len() as u64;
    let launch = queue.launch(&kit.reduce, words.div_ceil(reduce::ITEMS));
    // SAFETY: reduce reads `source` and adds to the first word of `total`.
    unsafe { launch.args((source.reads(), total.writes(), words)).submit() }.unwrap()
}

pub fn copy_on(kit: &Kit, queue: &Queue, from: &UnifiedVec<u32>, to: &mut UnifiedVec<u32>) -> Event {
    let words = from.len().min(to.len()) as u64;
    let launch = queue.launch(&kit.copy, words.div_ceil(copy::ITEMS));
    // SAFETY: copy writes as many words of `to` as it reads of `from`.
    unsafe { launch.args((to.writes(), from.reads(), words)).submit() }.unwrap()
}

/// Has a kernel fill the declared words.
pub fn fill_part(kit: &Kit, vec: &mut UnifiedVec<u32>, range: Range<usize>, value: u32) -> Result<()> {
    let count = range.len() as u64;
    let launch = kit.queue.launch(&kit.fill, count.div_ceil(fill::ITEMS)).arg(vec.ptr(range.start));
    // SAFETY: fill writes the declared words.
    unsafe { launch.args((count, value, 0u32)).with(vec.slice_mut(range).unwrap().writes()).submit() }?.wait()
}

/// What a kernel finds to be the sum of the declared words.
pub fn sum_part(kit: &Kit, vec: &UnifiedVec<u32>, range: Range<usize>) -> u64 {
    let mut total = kit.heap().boxed(0u64).unwrap();
    let count = range.len() as u64;
    let launch = kit.queue.launch(&kit.reduce, count.div_ceil(reduce::ITEMS)).arg(vec.ptr(range.start));
    // SAFETY: reduce reads the declared words and adds to `total`.
    let launch =
        unsafe { launch.args((total.as_mut_vec().writes(), count)).with(vec.slice(range).unwrap().reads()).submit() };
    launch.unwrap().wait().unwrap();
    total.get().unwrap()
}
