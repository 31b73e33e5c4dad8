//! Transfers between files and unified memory, byte for byte against a plain model: each tier, file system, alignment,
//! size, direction, side and view.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::path::PathBuf;

use common::builder;
use common::failure::{Kit, turn};
use common::views::{ALL, DECLARED, FAULTING, SPARSE, Way};
use limosa::{DataFile, Direction, Error, Heap, Home, PagerError, Side, Tier, ViewKind, inject};

const FILE: usize = (3 << 20) + 1234;

/// Bytes that repeat nowhere near.
fn byte(i: usize, seed: u32) -> u8 {
    let mut word = u32::try_from(i / 4).unwrap().wrapping_mul(0x9E37_79B1) ^ seed.wrapping_mul(0x85EB_CA6B);
    word ^= word >> 15;
    word.wrapping_mul(0x2C1B_3C6D).to_le_bytes()[i % 4]
}

/// A file that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: &str, name: &str) -> Self {
        Self(PathBuf::from(folder).join(format!("limosa-{name}-{}", std::process::id())))
    }

    fn with(folder: &str, name: &str, bytes: &[u8]) -> Self {
        let scratch = Self::new(folder, name);
        std::fs::write(&scratch.0, bytes).unwrap();
        scratch
    }

    fn open(&self) -> DataFile {
        let file = DataFile::options().read(true).write(true).create(true).open(&self.0).unwrap();
        file.forget_cache().unwrap();
        file
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Numbers that look random, the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }

    /// A number up to `most`, often one that is of interest.
    fn crooked(&mut self, most: usize) -> usize {
        let near = self.of(&[0, 512, 4096, 65536, 1 << 20, 2 << 20]);
        let number = match self.below(4) {
            0 => self.below(most + 1),
            1 => near,
            2 => near + self.below(5000),
            _ => near.saturating_sub(1 + self.below(700)),
        };
        number.min(most)
    }
}

fn folders() -> [&'static str; 2] {
    ["/tmp", "/dev/shm"]
}

/// One transfer after the other, against a plain model of the memory and the file.
fn histories(kit: &Kit, heap: &Heap, way: Way, rounds: usize, seed: u64) {
    let mut numbers = Numbers(seed);
    for folder in folders() {
        let mut on_disk: Vec<u8> = (0..FILE).map(|i| byte(i, 1)).collect();
        let scratch = Scratch::with(folder, "oracle", &on_disk);
        let file = scratch.open();
        let len = (2 << 20) + 70_000;
        let mut vec = heap.vec_from(&(0..len).map(|i| byte(i, 2)).collect::<Vec<u8>>()).unwrap();
        let mut memory: Vec<u8> = vec.read().unwrap().to_vec();
        for round in 0..rounds {
            let (at, offset) = (numbers.crooked(len), numbers.crooked(FILE));
            let count = numbers.crooked((len - at).min(FILE - offset));
            // Where both have the same remainder, all is straight.
            let offset = if numbers.below(2) == 0 { offset / 4096 * 4096 + at % 4096 } else { offset };
            let count = count.min(FILE.saturating_sub(offset));
            let tier = numbers.of(&[
                None,
                None,
                None,
                Some(Tier::Buffered),
                Some(Tier::Staged),
                Some(Tier::Direct),
                Some(Tier::P2p),
            ]);
            let side = numbers.of(&[None, Some(Side::Host), Some(Side::Device)]);
            let to_file = numbers.below(3) == 0;
            match numbers.below(4) {
                0 => vec.prefetch_to_device().unwrap(),
                1 => vec.prefetch_to_host().unwrap(),
                2 => vec.write().unwrap()[at.min(len - 1)] = memory[at.min(len - 1)],
                _ => {}
            }
            let what = format!(
                "{way:?}, {folder}, round {round}: {count} bytes, file {offset}, memory {at}, {tier:?}, {side:?}, write {to_file}"
            );
            let mut transfer = kit.queue.transfers();
            transfer = if to_file {
                transfer.write(vec.slice(at..at + count).unwrap(), &file, offset as u64)
            } else {
                transfer.read(&file, offset as u64, vec.slice_mut(at..at + count).unwrap())
            };
            if let Some(tier) = tier {
                transfer = transfer.tier(tier);
            }
            if let Some(side) = side {
                transfer = transfer.to(side);
            }
            let transfer = transfer.submit().unwrap_or_else(|error| panic!("{what}: {error}"));
            match transfer.wait() {
                Ok(report) => {
                    assert_eq!((report.bytes, report.arrived), (count as u64, count as u64), "{what}");
                    assert!(tier.is_none() || count == 0 || report.tiers.len() == 1, "{what}: {report:?}");
                    assert!(report.tiers.iter().all(|share| tier.is_none_or(|tier| tier == share.tier)), "{what}");
                    if to_file {
                        on_disk[offset..offset + count].copy_from_slice(&memory[at..at + count]);
                    } else {
                        memory[at..at + count].copy_from_slice(&on_disk[offset..offset + count]);
                    }
                }
                Err(Error::Pager(PagerError::TierUnusable { .. })) => assert!(tier.is_some(), "{what}"),
                Err(error) => panic!("{what}: {error}"),
            }
            if numbers.below(3) == 0 || round + 1 == rounds {
                let found = vec.read().unwrap();
                let wrong = (0..len).find(|i| found[*i] != memory[*i]);
                assert_eq!(wrong, None, "{what}: memory {:?}", wrong.map(|i| (found[i], memory[i])));
                let found = std::fs::read(&scratch.0).unwrap();
                let wrong = (0..FILE).find(|i| found[*i] != on_disk[*i]);
                assert_eq!((wrong, found.len()), (None, FILE), "{what}: file");
            }
        }
    }
}

#[test]
fn every_tier_moves_what_it_says_and_nothing_else() {
    let _turn = turn("streaming");
    for way in ALL {
        let Some(kit) = way.kit("streaming", builder().device_budget(16 << 20)) else { continue };
        histories(&kit, kit.heap(), *way, 60, 7);
    }
}

#[test]
fn so_they_do_where_memory_is_of_a_shared_home() {
    let _turn = turn("streaming");
    inject::stand_in_for_peer_memory(8 << 20);
    for way in [FAULTING, DECLARED, SPARSE] {
        let Some(kit) = way.kit("streaming", builder()) else { continue };
        for home in [Home::Shared, Home::SharedDevice] {
            if home == Home::Shared || way.view == ViewKind::Import {
                histories(&kit, &kit.heap().in_home(home), way, 60, 11);
            }
        }
    }
    inject::stand_in_for_peer_memory(0);
}

#[test]
fn a_file_that_ends_is_told_exactly_and_the_rest_stays_as_it_was() {
    let _turn = turn("streaming");
    for way in [FAULTING, DECLARED] {
        let Some(kit) = way.kit("streaming", builder()) else { continue };
        for folder in folders() {
            for end in [0usize, 100, 4096, 70_000, 1 << 20, (1 << 20) + 1] {
                let scratch = Scratch::with(folder, "ends", &(0..end).map(|i| byte(i, 3)).collect::<Vec<_>>());
                let file = scratch.open();
                for before in [None, Some(Side::Host), Some(Side::Device)] {
                    let len = 2 << 20;
                    let mut vec = kit.heap().vec_zeroed::<u8>(len).unwrap();
                    if let Some(side) = before {
                        vec.write().unwrap().fill(9);
                        vec.raw().prefetch(side).unwrap();
                    }
                    let old = if before.is_some() { 9 } else { 0 };
                    let transfer = kit.queue.read_file(&file, 0, &mut vec).submit().unwrap();
                    let error = transfer.wait().unwrap_err();
                    let Error::Pager(PagerError::FileEnded { offset, arrived, total, .. }) = error else {
                        panic!("{error}")
                    };
                    assert_eq!((offset, arrived, total), (end as u64, end as u64, len as u64), "{folder}, {before:?}");
                    assert_eq!(transfer.report().arrived, end as u64);
                    let found = vec.read().unwrap();
                    let wrong = (0..len).find(|i| found[*i] != if *i < end { byte(*i, 3) } else { old });
                    assert_eq!(wrong, None, "{way:?}, {folder}, {end} bytes, {before:?}");
                }
            }
        }
    }
}

#[test]
fn the_tiers_are_told_with_reasons() {
    let _turn = turn("streaming");
    let Some(kit) = FAULTING.kit("streaming", builder()) else { return };
    let scratch = Scratch::with("/dev/shm", "tiers", &vec![1; 1 << 20]);
    let verdicts = kit.context.tiers(&scratch.open(), Direction::FromFile);
    assert_eq!(verdicts.iter().filter(|verdict| verdict.obstacle.is_none()).count(), 1);
    assert!(verdicts[1].obstacle.as_ref().unwrap().contains("memory"), "{verdicts:?}");
    let mut vec = kit.heap().vec_zeroed::<u8>(1 << 20).unwrap();
    let report = kit.queue.read_file(&scratch.open(), 0, &mut vec).submit().unwrap().wait().unwrap();
    assert_eq!(report.tier(), Some(Tier::Buffered));
    assert_eq!(report.reasons.len(), 3, "{:?}", report.reasons);
}
