//! The kernels that find duplicate blocks against their twins: fingerprints of blocks of random lengths at random
//! places, and the hash table, whole, in parts, and too small.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::collections::{BTreeSet, HashMap};

use limosa::{GpuPtr, Kernel, Shareable, UnifiedVec};
use limosa_shaders::digest::{self, PIECE};
use limosa_shaders::hash_enter;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use common::builder;
use common::failure::{BLOCK_WORDS, Kit, Watchdog};
use common::views::{ALL, Way};

macro_rules! shareable {
    ($($name:ident: $inner:ty),*) => {
        $(
            #[derive(Clone, Copy)]
            #[repr(transparent)]
            struct $name($inner);
            // SAFETY: numbers, `repr(C)` without padding, which limosa-shaders asserts.
            unsafe impl Shareable for $name {}
        )*
    };
}
shareable!(Block: digest::Block, Record: digest::Record, Slot: hash_enter::Slot);

/// A device with both kernels.
struct Device {
    kit: Kit,
    digest: Kernel,
    enter: Kernel,
}

impl Device {
    fn new(way: Way, test: &str) -> Option<Self> {
        let kit = way.kit(test, builder().device_budget(16 << 20))?;
        let kernel = |kernel: limosa_shaders::Kernel| kit.context.kernel(kernel.name, kernel.spirv).unwrap();
        let (digest, enter) = (kernel(digest::KERNEL), kernel(hash_enter::KERNEL));
        Some(Self { kit, digest, enter })
    }

    /// The records that the kernel makes of these blocks, which it finds one behind the other in `bytes`.
    fn digests(&self, bytes: &UnifiedVec<u8>, lengths: &[usize]) -> UnifiedVec<Record> {
        let mut records = self.kit.heap().vec_zeroed::<Record>(lengths.len()).unwrap();
        let mut at = 0;
        let blocks = lengths.iter().enumerate().map(|(index, length)| {
            let number = u32::try_from(index).unwrap();
            let block = digest::Block {
                source: bytes.ptr(at).address(),
                record: records.ptr(index).address(),
                bytes: u32::try_from(*length).unwrap(),
                file: !number,
                number,
                reserved: 0,
            };
            at += place(*length);
            Block(block)
        });
        let blocks: Vec<Block> = blocks.collect();
        let blocks = self.kit.heap().vec_from(&blocks).unwrap();
        let longest = lengths.iter().max().map_or(0, |length| *length as u64);
        let groups = [longest.div_ceil(PIECE), lengths.len() as u64, 1].map(|groups| u32::try_from(groups).unwrap());
        let launch = self.kit.queue.launch_groups(&self.digest, groups).args((blocks.reads(),));
        let launch = launch.with(bytes.reads()).with(records.writes());
        // SAFETY: the kernel reads blocks and bytes, and writes records, as declared.
        unsafe { launch.submit() }.unwrap().wait().unwrap();
        records
    }

    /// The table of these records, and how many found no slot.
    fn enter(&self, records: &mut UnifiedVec<Record>, slots: usize, parts: usize) -> (UnifiedVec<Slot>, u32) {
        let heap = self.kit.heap();
        let mut table = heap.vec_zeroed::<Slot>(slots * parts).unwrap();
        let mut homeless = heap.boxed(0u32).unwrap();
        let (first, count) = (records.ptr(0), records.len());
        for part in 0..parts {
            let launch = self.kit.queue.launch(&self.enter, count as u64).arg(records.writes());
            let launch = launch.args((count as u64, first));
            let launch = launch.arg(table.slice_mut(part * slots..(part + 1) * slots).unwrap().writes());
            let launch = launch.args((slots as u64 - 1, homeless.as_mut_vec().writes()));
            let number = |number: usize| u32::try_from(number).unwrap();
            let launch = launch.args((number(parts - 1), number(part)));
            // SAFETY: the kernel writes the records, the part's slots and the counter, as declared.
            unsafe { launch.submit() }.unwrap().wait().unwrap();
        }
        let homeless = homeless.get().unwrap();
        (table, homeless)
    }
}

/// Where the block behind one of this length is.
fn place(length: usize) -> usize {
    length.next_multiple_of(16)
}

/// Bytes of blocks, those of equal seed and length with equal contents; what is between them is noise.
fn contents(blocks: &[(usize, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, (length, seed)) in blocks.iter().enumerate() {
        let mut state = *seed;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            state.to_be_bytes()[0]
        });
        bytes.extend(noise.take(*length));
        bytes.resize(bytes.len().next_multiple_of(16), u8::try_from(index % 256).unwrap());
    }
    // As much as begins at a block of its own, and so at a multiple of 16.
    bytes.resize(bytes.len().max(BLOCK_WORDS * size_of::<u32>()), 0);
    bytes
}

/// The chains of a table, by key: the indices of records.
fn chains(table: &UnifiedVec<Slot>, records: &UnifiedVec<Record>) -> HashMap<[u32; 4], BTreeSet<usize>> {
    let (table, all) = (table.read().unwrap(), records.read().unwrap());
    let mut chains = HashMap::new();
    for Slot(slot) in table.iter().filter(|slot| slot.0.head != 0) {
        let mut chain = BTreeSet::new();
        let mut pointer = records.ptr(slot.head as usize - 1);
        while let Some(Record(record)) = all.follow(pointer) {
            assert_eq!(hash_enter::key_of(record), slot.key);
            let index = usize::try_from(pointer.address() - records.ptr(0).address()).unwrap() / size_of::<Record>();
            assert!(chain.insert(index), "a chain without end");
            pointer = GpuPtr::from_address(record.next);
        }
        assert!(pointer.is_null() && chain.len() == slot.count as usize, "{slot:?}: {chain:?}");
        assert!(chains.insert(slot.key, chain).is_none(), "two slots of the key {:?}", slot.key);
    }
    chains
}

fn expected(records: &UnifiedVec<Record>) -> HashMap<[u32; 4], BTreeSet<usize>> {
    let records: Vec<_> = records.read().unwrap().iter().map(|record| record.0).collect();
    hash_enter::twin(&records).into_iter().map(|(key, chain)| (key, chain.into_iter().collect())).collect()
}

/// What both kernels make of these blocks is what the twins make of them.
fn agree(device: &Device, blocks: &[(usize, u32)], parts: usize) -> Result<(), TestCaseError> {
    let lengths: Vec<usize> = blocks.iter().map(|(length, _)| *length).collect();
    let bytes = contents(blocks);
    let unified = device.kit.heap().vec_from(&bytes).unwrap();
    let mut records = device.digests(&unified, &lengths);
    let mut at = 0;
    for (index, (length, Record(record))) in lengths.iter().zip(records.read().unwrap().iter()).enumerate() {
        prop_assert_eq!(record.key, digest::twin(&bytes[at..at + length]), "block {} of {} bytes", index, length);
        let number = u32::try_from(index).unwrap();
        prop_assert_eq!((record.file, record.number), (!number, number));
        at += place(*length);
    }
    // Each part could take all.
    let (table, homeless) = device.enter(&mut records, lengths.len().next_power_of_two(), parts);
    prop_assert_eq!(homeless, 0);
    prop_assert_eq!(chains(&table, &records), expected(&records));
    Ok(())
}

#[test]
fn duplicates_are_those_of_the_twins() {
    for way in ALL {
        let _watchdog = Watchdog::new("duplicates_are_those_of_the_twins");
        let Some(device) = Device::new(*way, "duplicates_are_those_of_the_twins") else { return };
        let length = prop_oneof![1..200usize, 4000..4200usize, 65_500..65_600usize, 1..200_000usize];
        // Few seeds and few lengths among many blocks: some are equal.
        let block = (prop_oneof![Just(4096usize), Just(65_536), length], 0..4u32);
        let cases = (proptest::collection::vec(block, 1..60), 0..4u32);
        let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
        runner.run(&cases, |(blocks, parts)| agree(&device, &blocks, 1 << parts)).unwrap();
    }
}

/// Records that meet: keys of few values, also zeros, in few slots.
#[test]
fn keys_that_share_words_end_at_slots_of_their_own() {
    for way in ALL {
        let _watchdog = Watchdog::new("keys_that_share_words");
        let Some(device) = Device::new(*way, "keys_that_share_words") else { return };
        let key = |index: u32| [index & 3, index >> 2 & 1, index >> 3 & 3, index >> 5 & 1];
        let record = |index: usize| {
            let key = key(u32::try_from(index).unwrap().wrapping_mul(0x9e37_79b9) >> 20);
            Record(digest::Record { key, ..digest::Record::default() })
        };
        let mut records = device.kit.heap().vec_with(20_000, record).unwrap();
        // Of each word, 0 and 1 are one: 3 × 1 × 3 × 1 keys, in 16 slots.
        let (table, homeless) = device.enter(&mut records, 16, 1);
        assert_eq!((homeless, chains(&table, &records)), (0, expected(&records)), "{way:?}");
        assert_eq!(expected(&records).len(), 9);
        // In two parts; then in fewer slots than keys, where who finds none is counted.
        let (table, homeless) = device.enter(&mut records, 16, 2);
        assert_eq!((homeless, chains(&table, &records)), (0, expected(&records)), "{way:?}");
        let (table, homeless) = device.enter(&mut records, 8, 1);
        let housed: usize = table.read().unwrap().iter().map(|slot| slot.0.count as usize).sum();
        let keyed = records.read().unwrap().iter().filter(|record| record.0.key != [0; 4]).count();
        assert!(homeless > 0 && housed + homeless as usize == keyed, "{way:?}: {homeless} of {housed}");
    }
}
