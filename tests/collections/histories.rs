//! Histories of a map and a vector, with launches in between, against the standard library's.

use std::collections::HashMap;

use limosa::{Heap, Kernel, Side, UnifiedAllocator};
use limosa_shaders::map_find::{self, Layout, Table};
use limosa_shaders::{fill, reduce};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::common::builder;
use crate::common::failure::{Kit, turn};
use crate::common::views::{ALL, cases};
use crate::{Map, Words, pointer};

const MISSING: u64 = u64::MAX;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        first: u64,
        count: u64,
        value: u64,
    },
    Remove {
        first: u64,
        count: u64,
    },
    Retain {
        modulus: u64,
    },
    ShrinkMap,
    /// A kernel looks keys up.
    Find,
    Push {
        count: usize,
        value: u32,
    },
    Truncate {
        len: usize,
    },
    Reserve {
        additional: usize,
    },
    ShrinkVec,
    /// A kernel adds the vector up.
    Sum,
    /// A kernel fills the vector.
    Fill {
        value: u32,
    },
    Prefetch(Side),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0u64..20_000;
    let step = prop_oneof![
        3 => (key.clone(), 1u64..6_000, any::<u64>()).prop_map(|(first, count, value)| Step::Insert { first, count, value }),
        1 => (key, 1u64..9_000).prop_map(|(first, count)| Step::Remove { first, count }),
        1 => (1u64..4).prop_map(|modulus| Step::Retain { modulus }),
        1 => Just(Step::ShrinkMap),
        3 => Just(Step::Find),
        3 => (1usize..300_000, any::<u32>()).prop_map(|(count, value)| Step::Push { count, value }),
        1 => (0usize..500_000).prop_map(|len| Step::Truncate { len }),
        1 => (0usize..500_000).prop_map(|additional| Step::Reserve { additional }),
        1 => Just(Step::ShrinkVec),
        3 => Just(Step::Sum),
        1 => any::<u32>().prop_map(|value| Step::Fill { value }),
        1 => prop_oneof![Just(Side::Host), Just(Side::Device)].prop_map(Step::Prefetch),
    ];
    proptest::collection::vec(step, 1..25)
}

/// Where the map's table is: in the allocation that any of its keys is in.
fn table(map: &Map, layout: Layout) -> Table {
    let Some(key) = map.keys().next() else { return Table::default() };
    let memory = map.allocator().allocation_of(pointer(key).address()).unwrap();
    layout.table(memory.start.0, memory.len).unwrap()
}

/// The layout of tables, from a map in `heap`.
fn layout(heap: &Heap) -> Layout {
    let mut sample = Map::with_hasher_in(Default::default(), heap.allocator());
    sample.extend((0..100).map(|i| (i * 7, i)));
    let key = pointer(sample.keys().next().unwrap());
    let memory = sample.allocator().allocation_of(key.address()).unwrap();
    let mut bytes = vec![0; usize::try_from(memory.len).unwrap()];
    // SAFETY: nobody writes the map meanwhile.
    unsafe { heap.try_read(memory.start.0, &mut bytes) }.unwrap();
    Layout::verified(&bytes, &sample.iter().map(|(key, value)| (*key, *value)).collect()).unwrap()
}

/// Collections in unified memory, and what should be in them.
struct Both<'a> {
    kit: &'a Kit,
    find: &'a Kernel,
    layout: Layout,
    allocator: UnifiedAllocator,
    map: Map,
    pairs: HashMap<u64, u64>,
    words: Words,
    expected: Vec<u32>,
}

impl<'a> Both<'a> {
    fn new(kit: &'a Kit, find: &'a Kernel, layout: Layout) -> Self {
        let allocator = kit.heap().allocator();
        Self {
            map: Map::with_hasher_in(Default::default(), allocator.clone()),
            words: Words::new_in(allocator.clone()),
            kit,
            find,
            layout,
            allocator,
            pairs: HashMap::new(),
            expected: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Insert { first, count, value } => {
                let new = || (first..first + count).map(|key| (key, value.wrapping_add(key)));
                self.map.extend(new());
                self.pairs.extend(new());
            }
            Step::Remove { first, count } => {
                for key in first..first + count {
                    assert_eq!(self.map.remove(&key), self.pairs.remove(&key));
                }
            }
            Step::Retain { modulus } => {
                self.map.retain(|key, _| key % modulus == 0);
                self.pairs.retain(|key, _| key % modulus == 0);
            }
            Step::ShrinkMap => self.map.shrink_to_fit(),
            Step::Push { count, value } => {
                self.words.extend(std::iter::repeat_n(value, count));
                self.expected.extend(std::iter::repeat_n(value, count));
            }
            Step::Truncate { len } => {
                self.words.truncate(len);
                self.expected.truncate(len);
            }
            Step::Reserve { additional } => self.words.reserve_exact(additional),
            Step::ShrinkVec => self.words.shrink_to_fit(),
            Step::Find => self.find(),
            Step::Sum => self.sum(),
            Step::Fill { value } => self.fill(value),
            Step::Prefetch(Side::Host) => self.allocator.prefetch_to_host().unwrap(),
            Step::Prefetch(Side::Device) => self.allocator.prefetch_to_device().unwrap(),
        }
    }

    fn find(&mut self) {
        let heap = self.kit.heap();
        let keys: Vec<u64> = (0..26_000).step_by(3).collect();
        let (count, keys_there) = (keys.len() as u64, heap.vec_from(&keys).unwrap());
        let mut values = heap.vec_zeroed::<u64>(keys.len()).unwrap();
        let Table { control, mask, width } = table(&self.map, self.layout);
        let launch = self.kit.queue.launch(self.find, count).args((control, mask, width));
        let launch = launch.args((keys_there.reads(), values.writes(), count, MISSING));
        let map = std::mem::replace(&mut self.map, Map::with_hasher_in(Default::default(), self.allocator.clone()));
        // SAFETY: map_find reads the map's table, whose layout was verified, and `keys`, and writes `values`.
        self.map = unsafe { launch.lend(map, &self.allocator).submit() }.unwrap().wait().unwrap();
        assert_eq!(values.to_vec().unwrap(), map_find::twin(&self.pairs, &keys, MISSING));
    }

    fn sum(&mut self) {
        let mut total = self.kit.heap().boxed(0u64).unwrap();
        let count = self.words.len() as u64;
        let launch = self.kit.queue.launch(&self.kit.reduce, count.div_ceil(reduce::ITEMS));
        let launch = launch.args((pointer(self.words.as_ptr()), total.as_mut_vec().writes(), count));
        let words = std::mem::replace(&mut self.words, Words::new_in(self.allocator.clone()));
        // SAFETY: reduce reads `count` words, all of `words`, and adds to `total`.
        self.words = unsafe { launch.lend(words, &self.allocator).submit() }.unwrap().wait().unwrap();
        assert_eq!(total.get().unwrap(), self.expected.iter().map(|word| u64::from(*word)).sum::<u64>());
    }

    fn fill(&mut self, value: u32) {
        let count = self.words.len() as u64;
        let launch = self.kit.queue.launch(&self.kit.fill, count.div_ceil(fill::ITEMS));
        let launch = launch.args((pointer(self.words.as_ptr()), count, value, 0u32));
        let words = std::mem::replace(&mut self.words, Words::new_in(self.allocator.clone()));
        // SAFETY: fill writes `count` words, all of `words`; any bits are a `u32`.
        self.words = unsafe { launch.lend_mut(words, &self.allocator).submit() }.unwrap().wait().unwrap();
        self.expected.fill(value);
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.words.as_slice(), self.expected.as_slice());
        prop_assert_eq!(self.map.len(), self.pairs.len());
        prop_assert!(self.pairs.iter().all(|(key, value)| self.map.get(key) == Some(value)));
        Ok(())
    }
}

#[test]
fn histories_agree_with_the_standard_library() {
    for (way, mode) in cases(ALL) {
        let _turn = turn(&format!("histories, {way:?}, {mode:?}"));
        let Some(kit) = way.kit("histories", builder().fault_mode(mode)) else { continue };
        let find = kit.context.kernel(map_find::KERNEL.name, map_find::KERNEL.spirv).unwrap();
        let layout = layout(kit.heap());
        let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
        let ran = runner.run(&steps(), |steps| {
            let mut both = Both::new(&kit, &find, layout);
            steps.iter().for_each(|step| both.step(step));
            both.compare()?;
            let allocator = both.allocator.clone();
            drop(both);
            prop_assert_eq!(allocator.residency_summary(), limosa::ResidencySummary::default(), "all is freed");
            prop_assert!(allocator.take_failure().is_none());
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("{way:?}, {mode:?}: {error}"));
    }
}
