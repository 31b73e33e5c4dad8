//! Ordinary collections in unified memory: what they hold is what the standard library's would, whichever side used them
//! last; growing moves nothing; and who is lent a collection cannot be outrun, forgotten or failed out of it.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

#[path = "collections/allocations.rs"]
mod allocations;
#[path = "collections/histories.rs"]
mod histories;
#[path = "collections/lending.rs"]
mod lending;

use allocator_api2::vec::Vec as UnifiedMemoryVec;
use hashbrown::HashMap;
use limosa::{Counters, GpuPtr, UnifiedAllocator};
use limosa_shaders::map_find::Mixed;

/// A `Vec` in unified memory.
type Words = UnifiedMemoryVec<u32, UnifiedAllocator>;
/// A map in unified memory.
type Map = HashMap<u64, u64, Mixed, UnifiedAllocator>;

/// Words, each of them its index.
fn words(allocator: &UnifiedAllocator, count: usize) -> Words {
    let mut words = Words::with_capacity_in(count, allocator.clone());
    count_to(&mut words, count);
    words
}

/// Adds words until there are `count`.
fn count_to(words: &mut Words, count: usize) {
    words.extend((words.len()..count).map(|i| u32::try_from(i).unwrap()));
}

fn is_counted(words: &Words) -> bool {
    words.iter().enumerate().all(|(i, word)| usize::try_from(*word) == Ok(i))
}

fn pointer<T>(to: *const T) -> GpuPtr<T> {
    GpuPtr::from_address(to as u64)
}

/// Blocks that were copied, either way.
fn moved(counters: &Counters) -> u64 {
    counters.blocks_to_host + counters.blocks_to_device
}
