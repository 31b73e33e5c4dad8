//! Transfers one after the other, byte for byte against a plain model: each tier, alignment, size, direction, side and
//! view. On which file systems is told by those who call it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use limosa::{DataFile, Direction, Edge, Error, Home, PagerError, Side, Tier, ViewKind, inject};

use crate::common::builder;
use crate::common::failure::{Kit, turn};
use crate::common::views::{ALL, DECLARED, FAULTING, SPARSE, STAGED};
use crate::files::{Numbers, Scratch, byte, bytes, difference, folders, open};

pub(crate) const FILE: usize = (3 << 20) + 1234;
/// Where nothing is ever written at first: zeros that are data.
const HOLE: std::ops::Range<usize> = (1 << 20) + 4096..(2 << 20) - 4096;
const MEMORY: usize = (2 << 20) + 70_000;

/// A file's first bytes, as everybody else sees them.
fn read(path: &Path) -> Vec<u8> {
    let mut found = Vec::new();
    File::open(path).unwrap().take(FILE as u64).read_to_end(&mut found).unwrap();
    found
}

/// One transfer after the other between a file at `path`, which is made or written over, and memory of `home`.
pub(crate) fn histories(kit: &Kit, what: &str, path: &Path, home: Home, rounds: usize, seed: u64) {
    let mut numbers = Numbers(seed);
    let mut on_disk = bytes(FILE, 1);
    on_disk[HOLE].fill(0);
    let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    if file.metadata().unwrap().is_file() {
        file.set_len(0).unwrap();
        file.write_all_at(&on_disk[..HOLE.start], 0).unwrap();
        file.write_all_at(&on_disk[HOLE.end..], HOLE.end as u64).unwrap();
    } else {
        file.write_all_at(&on_disk, 0).unwrap();
    }
    drop(file);
    let file = open(path);
    let mut vec = kit.heap().in_home(home).vec_from(&bytes(MEMORY, 2)).unwrap();
    let mut memory = bytes(MEMORY, 2);
    for round in 0..rounds {
        let (at, offset) = (numbers.crooked(MEMORY), numbers.crooked(FILE));
        let count = numbers.crooked((MEMORY - at).min(FILE - offset));
        // Where both have the same remainder, all is straight.
        let offset = if numbers.below(2) == 0 { offset / 4096 * 4096 + at % 4096 } else { offset };
        let count = count.min(FILE.saturating_sub(offset));
        let tiers = [Some(Tier::P2p), Some(Tier::Direct), Some(Tier::Staged), Some(Tier::Buffered)];
        let tier = if numbers.below(7) < 3 { None } else { numbers.of(&tiers) };
        let side = numbers.of(&[None, Some(Side::Host), Some(Side::Device)]);
        let (to_file, at_once) = (numbers.below(3) == 0, numbers.below(4) == 0);
        match numbers.below(5) {
            0 => vec.prefetch_to_device().unwrap(),
            1 => vec.prefetch_to_host().unwrap(),
            2 => vec.write().unwrap()[at.min(MEMORY - 1)] = memory[at.min(MEMORY - 1)],
            3 => file.forget_cache().unwrap(),
            _ => {}
        }
        let how = format!("{tier:?}, {side:?}, to file {to_file}, at once {at_once}");
        let what = format!("{what}, {home:?}, round {round}: {count} bytes, file {offset}, memory {at}, {how}");
        let moved = if at_once && to_file {
            file.write_from(offset as u64, vec.slice(at..at + count).unwrap())
        } else if at_once {
            file.read_into(offset as u64, vec.slice_mut(at..at + count).unwrap())
        } else {
            let mut transfer = kit.queue.transfers();
            transfer = if to_file {
                transfer.write(vec.slice(at..at + count).unwrap(), &file, offset as u64)
            } else {
                transfer.read(&file, offset as u64, vec.slice_mut(at..at + count).unwrap())
            };
            transfer = tier.into_iter().fold(transfer, |transfer, tier| transfer.tier(tier));
            transfer = side.into_iter().fold(transfer, |transfer, side| transfer.to(side));
            transfer.submit().unwrap_or_else(|error| panic!("{what}: {error}")).wait()
        };
        match moved {
            Ok(report) => {
                assert_eq!((report.bytes, report.arrived), (count as u64, count as u64), "{what}");
                let asked = |share: &limosa::TierShare| at_once || tier.is_none_or(|tier| tier == share.tier);
                assert!(report.tiers.iter().all(asked), "{what}: {report:?}");
                assert_eq!(report.tiers.iter().map(|share| share.bytes).sum::<u64>(), count as u64, "{what}");
                assert!(count == 0 || report.requests > 0, "{what}: {report:?}");
                if to_file {
                    on_disk[offset..offset + count].copy_from_slice(&memory[at..at + count]);
                } else {
                    memory[at..at + count].copy_from_slice(&on_disk[offset..offset + count]);
                }
            }
            Err(Error::Pager(PagerError::TierUnusable { .. })) => {
                assert!(tier.is_some() && !at_once, "{what}");
                // Of memory in several places some may have been moved before: each byte is old or new.
                let (before, found) = (&on_disk[offset..offset + count], vec.slice(at..at + count).unwrap());
                let stored =
                    if to_file { read(path)[offset..offset + count].to_vec() } else { found.read().unwrap().to_vec() };
                let own = &memory[at..at + count];
                let wrong = (0..count).find(|i| stored[*i] != before[*i] && stored[*i] != own[*i]);
                assert_eq!(wrong, None, "{what}: neither old nor new");
                let target = if to_file { &mut on_disk[offset..offset + count] } else { &mut memory[at..at + count] };
                target.copy_from_slice(&stored);
            }
            Err(error) => panic!("{what}: {error}"),
        }
        if numbers.below(3) == 0 || round + 1 == rounds {
            let wrong = difference(&vec.read().unwrap(), &memory);
            assert_eq!(
                wrong,
                None,
                "{what}: memory, {:?} is {:?}",
                wrong.map(|i| vec.read().unwrap()[i]),
                wrong.map(|i| memory[i])
            );
            let found = read(path);
            assert_eq!(difference(&found, &on_disk), None, "{what}: file");
        }
    }
}

#[test]
fn every_tier_moves_what_it_says_and_nothing_else() {
    let _turn = turn("streaming");
    for (index, way) in (0..).zip(ALL) {
        let Some(kit) = way.kit("streaming", builder().device_budget(16 << 20)) else { continue };
        for folder in folders() {
            let scratch = Scratch::new(&folder, "oracle");
            histories(&kit, &format!("{way:?}, {folder:?}"), &scratch.0, Home::Migrating, 50, 7 + index);
        }
        kit.works();
    }
}

#[test]
fn so_they_do_where_memory_is_of_a_shared_home() {
    let _turn = turn("shared homes");
    inject::stand_in_for_peer_memory(8 << 20);
    for way in [FAULTING, DECLARED, SPARSE] {
        let Some(kit) = way.kit("shared homes", builder()) else { continue };
        for home in [Home::Shared, Home::SharedDevice] {
            for folder in folders().iter().filter(|_| home == Home::Shared || way.view == ViewKind::Import) {
                let scratch = Scratch::new(folder, "shared-home");
                histories(&kit, &format!("{way:?}, {folder:?}"), &scratch.0, home, 40, 11);
            }
        }
    }
    inject::stand_in_for_peer_memory(0);
}

#[test]
fn memory_of_odd_addresses_moves_as_well_in_check_mode() {
    let _turn = turn("check mode");
    for edge in [Edge::Start, Edge::End] {
        let checking = builder().device_budget(16 << 20).check(true).check_edge(edge);
        let Some(kit) = FAULTING.kit("check mode", checking) else { return };
        for folder in folders() {
            let scratch = Scratch::new(&folder, "checked");
            histories(&kit, &format!("{edge:?}, {folder:?}"), &scratch.0, Home::Migrating, 25, 5);
        }
    }
}

#[test]
fn a_file_that_ends_is_told_exactly_and_the_rest_stays_as_it_was() {
    let _turn = turn("ends");
    for way in ALL {
        let Some(kit) = way.kit("ends", builder()) else { continue };
        for folder in folders() {
            for end in [0usize, 100, 4096, 70_000, 1 << 20, (1 << 20) + 1] {
                let scratch = Scratch::with(&folder, "ends", &bytes(end, 3));
                let file = open(&scratch.0);
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
                    assert_eq!(
                        (offset, arrived, total),
                        (end as u64, end as u64, len as u64),
                        "{folder:?}, {before:?}"
                    );
                    assert_eq!(transfer.report().arrived, end as u64);
                    let found = vec.read().unwrap();
                    let wrong = (0..len).find(|i| found[*i] != if *i < end { byte(*i, 3) } else { old });
                    assert_eq!(wrong, None, "{way:?}, {folder:?}, {end} bytes, {before:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_read_at_once_leaves_what_is_behind_the_end_of_a_file() {
    let _turn = turn("at once");
    let Some(kit) = FAULTING.kit("at once", builder()) else { return };
    for folder in folders() {
        let end = 70_000;
        let scratch = Scratch::with(&folder, "at-once", &bytes(end, 3));
        let file = open(&scratch.0);
        let mut vec = kit.heap().vec_from(&vec![9u8; 128 << 10]).unwrap();
        // So that direct I/O is known to serve.
        kit.queue
            .read_file(&file, 0, vec.slice_mut(0..65536).unwrap())
            .to(Side::Host)
            .submit()
            .unwrap()
            .wait()
            .unwrap();
        for _ in 0..2 {
            let wanted = file.read_into(0, vec.slice_mut(0..65536).unwrap()).unwrap();
            assert_eq!(wanted.arrived, 65536);
        }
        vec.write().unwrap().fill(9);
        let error = file.read_into(0, &mut vec).unwrap_err();
        assert!(
            matches!(error, Error::Pager(PagerError::FileEnded { offset, arrived, .. })
            if offset == end as u64 && arrived == end as u64),
            "{folder:?}: {error}"
        );
        let found = vec.read().unwrap();
        assert_eq!((0..found.len()).find(|i| found[*i] != if *i < end { byte(*i, 3) } else { 9 }), None, "{folder:?}");
    }
}

#[test]
fn the_tiers_are_told_with_reasons() {
    let _turn = turn("tiers");
    let Some(kit) = FAULTING.kit("tiers", builder()) else { return };
    let scratch = Scratch::with("/dev/shm".as_ref(), "tiers", &vec![1; 1 << 20]);
    let file = open(&scratch.0);
    let verdicts = kit.context.tiers(&file, Direction::FromFile);
    assert_eq!(verdicts.iter().filter(|verdict| verdict.obstacle.is_none()).count(), 1);
    assert!(verdicts[1].obstacle.as_ref().unwrap().contains("memory"), "{verdicts:?}");
    let mut vec = kit.heap().vec_zeroed::<u8>(1 << 20).unwrap();
    let report = kit.queue.read_file(&file, 0, &mut vec).submit().unwrap().wait().unwrap();
    assert_eq!(report.tier(), Some(Tier::Buffered));
    assert_eq!(report.reasons.len(), 3, "{:?}", report.reasons);
}

#[test]
fn reads_beyond_the_device_budget_arrive_on_the_host_and_say_so() {
    let _turn = turn("displaced");
    let scratch = Scratch::with(&folders()[0], "displaced", &bytes(9 << 20, 4));
    for way in [FAULTING, STAGED] {
        let Some(kit) = way.kit("displaced", builder().device_budget(8 << 20)) else { continue };
        let file = open(&scratch.0);
        let mut large = kit.heap().vec_zeroed::<u8>(9 << 20).unwrap();
        let report = kit.queue.read_file(&file, 0, &mut large).submit().unwrap().wait().unwrap();
        assert!(report.displaced.is_some(), "{report:?}");
        assert_eq!(difference(&large.read().unwrap(), &bytes(9 << 20, 4)), None);
        let refused = kit.queue.read_file(&file, 0, &mut large).to(Side::Device).submit().map(drop).unwrap_err();
        assert!(matches!(refused, Error::Pager(PagerError::RangeTooLarge { .. })), "{refused}");
        let mut limited = kit.heap().with_device_limit(2 << 20).vec_zeroed::<u8>(4 << 20).unwrap();
        let refused = kit.queue.read_file(&file, 0, &mut limited).to(Side::Device).submit().map(drop).unwrap_err();
        assert!(matches!(refused, Error::Pager(PagerError::OverDeviceLimit { .. })), "{refused}");
        let report = kit.queue.read_file(&file, 5, &mut limited).submit().unwrap().wait().unwrap();
        assert!(report.displaced.is_some(), "{report:?}");
        assert_eq!(limited.read().unwrap()[7], byte(12, 4));
        let name = DataFile::open(&scratch.0).unwrap();
        assert_eq!(name.len().unwrap(), Some(9 << 20));
    }
}
