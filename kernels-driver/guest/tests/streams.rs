//! Streaming by limosa's own calls, with a disk that reaches a device: which tier, which way the bytes took by the disk's
//! trace, and that they are the file's. What machines and file systems differ in, PROBE's own tests have.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::files::{Mapped, Mounted, contents, disk, kernel_has, put};
use common::memory::PAGE;
use common::peer::{forget, host_has, traced, way, went_straight};
use common::unified::{Unified, data_file, reason};
use limosa::{DataFile, Direction, Error, PagerError, Side, Tier, TierShare, TransferReport, UnifiedVec};
use limosa_guest::trace::Tally;

const PAGES: usize = 1500;
const BYTES: usize = PAGES * PAGE;
const WORDS: usize = BYTES / 4;

/// What the file has that `put` wrote.
fn words(seed: u64) -> Vec<u32> {
    contents(PAGES, seed).chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect()
}

fn sum(words: &[u32]) -> u64 {
    words.iter().map(|word| u64::from(*word)).sum()
}

/// Fails unless all took one way.
fn took(report: &TransferReport, tier: Tier) {
    assert_eq!(report.tiers, [TierShare { tier, bytes: BYTES as u64 }], "{report:?}");
}

/// Has the tier of a file and memory proven, which reads the page cache beside it.
fn prove(kit: &Unified, file: &DataFile, vec: &mut UnifiedVec<u32>) {
    let part = || 0..PAGE / 4;
    kit.queue.read_file(file, 0, vec.slice_mut(part()).unwrap()).submit().unwrap().wait().unwrap();
    kit.queue.write_file(vec.slice(part()).unwrap(), file, 0).submit().unwrap().wait().unwrap();
    file.sync().unwrap();
}

#[test]
fn a_file_goes_from_the_disk_to_the_device_and_back_without_system_memory() {
    let Some(kit) = Unified::new("streams::a_file_goes_from_the_disk_to_the_device_and_back", |builder| builder) else {
        return;
    };
    put(&disk(), PAGES, 1);
    let (file, all) = (data_file(&disk()), words(1));
    let mut vec = kit.device_heap().vec_zeroed::<u32>(WORDS).unwrap();
    prove(&kit, &file, &mut vec);

    // disk → device → GPU → CPU
    forget();
    let (report, commands) = traced(|| kit.read(&file, &mut vec));
    took(&report, Tier::P2p);
    assert_eq!((report.bounced, report.reasons.len()), (0, 0), "{report:?}");
    went_straight(&commands, BYTES);
    host_has(&commands, PAGES, 1);
    assert_eq!(kit.sum(&vec), sum(&all));
    assert!(vec.read().unwrap()[..] == all[..]);

    // The same to memory that migrates is the control: each byte is in system memory, where lavapipe's frames are.
    let mut other = kit.context.heap().vec_zeroed::<u32>(WORDS).unwrap();
    prove(&kit, &file, &mut other);
    forget();
    let (report, commands) = traced(|| kit.read(&file, &mut other));
    took(&report, Tier::Direct);
    assert!(reason(&report, Tier::P2p).contains("SharedDevice"), "{report:?}");
    assert_eq!(way(&commands, false), Tally { inside: 0, outside: BYTES as u64 });
    assert!(other.read().unwrap()[..] == all[..]);

    // GPU → device → disk
    kit.fill(&mut vec, 0x0bad_f00d);
    forget();
    let (report, commands) = traced(|| kit.queue.write_file(&vec, &file, 0).submit().unwrap().wait().unwrap());
    took(&report, Tier::P2p);
    assert_eq!(way(&commands, true), Tally { inside: BYTES as u64, outside: 0 });
    assert!(kit.read(&file, &mut other).bytes == BYTES as u64);
    assert!(other.read().unwrap().iter().all(|word| *word == 0x0bad_f00d));
}

#[test]
fn each_tier_brings_the_same_of_one_file_and_the_disk_tells_them_apart() {
    let Some(kit) = Unified::new("streams::each_tier_brings_the_same_of_one_file", |builder| builder) else { return };
    let mounted = Mounted::ext4(&disk());
    drop(mounted.pages("file", PAGES, 2));
    let (file, all) = (data_file(&mounted.file("file")), words(2));
    let verdicts = kit.context.tiers(&file, Direction::FromFile);
    assert!(verdicts[0].obstacle.as_ref().unwrap().contains("they would be"), "{verdicts:?}");
    assert!(verdicts[1..].iter().all(|verdict| verdict.obstacle.is_none()), "{verdicts:?}");
    let [device, migrating] = [kit.device_heap(), kit.context.heap().clone()];
    for (heap, asked, expected) in [
        (&device, None, Tier::P2p),
        (&device, Some(Tier::Staged), Tier::Staged),
        (&device, Some(Tier::Buffered), Tier::Buffered),
        (&migrating, None, Tier::Direct),
        (&migrating, Some(Tier::Staged), Tier::Staged),
        (&migrating, Some(Tier::Buffered), Tier::Buffered),
    ] {
        let mut vec = heap.vec_zeroed::<u32>(WORDS).unwrap();
        forget();
        let (report, commands) = traced(|| {
            let read = kit.queue.read_file(&file, 0, &mut vec);
            let read = if let Some(tier) = asked { read.tier(tier) } else { read };
            read.submit().unwrap().wait().unwrap()
        });
        took(&report, expected);
        let way = way(&commands, false);
        // What a first read of a tier compares it with comes through the page cache.
        assert_eq!(way.inside >= BYTES as u64, expected == Tier::P2p, "{way:?} {report:?}");
        assert!(way.outside >= BYTES as u64 || expected == Tier::P2p, "{way:?} {report:?}");
        assert_eq!(report.bounced > 0, expected >= Tier::Staged, "{report:?}");
        assert_eq!(kit.sum(&vec), sum(&all), "{expected}");
        assert!(vec.read().unwrap()[..] == all[..], "{expected}");
    }
    let refused = {
        let mut vec = migrating.vec_zeroed::<u32>(WORDS).unwrap();
        kit.queue.read_file(&file, 0, &mut vec).tier(Tier::P2p).submit().unwrap().wait().unwrap_err()
    };
    assert!(matches!(refused, Error::Pager(PagerError::TierUnusable { tier: Tier::P2p, .. })), "{refused}");
}

#[test]
fn an_unaligned_part_bounces_at_its_ends_only() {
    let Some(kit) = Unified::new("streams::an_unaligned_part_bounces_at_its_ends_only", |builder| builder) else {
        return;
    };
    put(&disk(), PAGES, 3);
    let (file, all) = (data_file(&disk()), words(3));
    let mut vec = kit.device_heap().vec_zeroed::<u32>(WORDS).unwrap();
    let (start, end) = (77, WORDS - 99);
    let read = kit.queue.read_file(&file, 4 * start as u64, vec.slice_mut(start..end).unwrap()).submit().unwrap();
    let report = read.wait().unwrap();
    assert_eq!(report.tier(), Some(Tier::P2p), "{report:?}");
    assert!(report.bounced > 0 && report.bounced < 2 * PAGE as u64, "{report:?}");
    let found = vec.read().unwrap();
    let whole = |at: usize| if (start..end).contains(&at) { all[at] } else { 0 };
    let wrong = (0..WORDS).find(|at| found[*at] != whole(*at));
    assert_eq!(wrong, None, "a word of {WORDS}");
}

/// A disk that fails for some pages in its middle, by dm-flakey.
#[test]
fn an_error_of_the_disks_in_the_middle_is_told_with_file_and_place() {
    let test = "streams::an_error_of_the_disks_in_the_middle_is_told_with_file_and_place";
    if !kernel_has(test, "dm-flakey") {
        return;
    }
    let Some(kit) = Unified::new(test, |builder| builder) else { return };
    put(&disk(), PAGES, 4);
    let sectors = |pages: usize| pages * PAGE / 512;
    let (path, bad, good) = (disk(), sectors(900), sectors(908));
    let (path, rest) = (path.display(), sectors(PAGES) - good);
    let mapped = Mapped::new(&format!(
        "0 {bad} linear {path} 0\n{bad} {} flakey {path} {bad} 0 60\n{good} {rest} linear {path} {good}\n",
        good - bad
    ));
    let (bad, all) = (900 * PAGE as u64, words(4));
    let file = data_file(&mapped.path());
    for (heap, tier) in [
        (kit.device_heap(), None),
        (kit.device_heap(), Some(Tier::Buffered)),
        (kit.context.heap().clone(), None),
        (kit.context.heap().clone(), Some(Tier::Staged)),
    ] {
        let mut vec = heap.vec_with(WORDS, |_| 0xEEEE_EEEE_u32).unwrap();
        forget();
        let read = kit.queue.read_file(&file, 0, &mut vec).request_bytes(256 << 10);
        let read = if let Some(tier) = tier { read.tier(tier) } else { read };
        let read = read.submit().unwrap();
        let failed = read.wait().unwrap_err();
        let Error::Pager(PagerError::FileFailed { error, arrived, total }) = failed else { panic!("{failed}") };
        assert_eq!((error.file.as_path(), total), (mapped.path().as_path(), BYTES as u64));
        // The request that failed has the bad place in it.
        let from = error.offset.unwrap();
        assert!(from <= bad + 8 * PAGE as u64 && from + (1 << 20) > bad, "{error}");
        assert!(arrived <= bad && read.report().arrived == arrived, "{arrived} bytes");
        let (arrived, found) = (usize::try_from(arrived).unwrap() / 4, vec.read().unwrap());
        assert!(found[..arrived] == all[..arrived], "what arrived is the file's: {tier:?}");
        // Never zeros, nor anything else, passed off as data.
        let (bad, good) = (900 * PAGE / 4, 908 * PAGE / 4);
        assert!(found[bad..good].iter().all(|word| *word == 0xEEEE_EEEE), "nothing came: {tier:?}");
        assert!((0..WORDS).all(|at| found[at] == all[at] || found[at] == 0xEEEE_EEEE), "{tier:?}");
        if tier.is_none() {
            // Device mapper takes no pages of a device's.
            let why = reason(&read.report(), Tier::P2p).to_owned();
            assert!(why.contains("device mapper") || why.contains("SharedDevice"), "{why}");
        }
    }
}

#[test]
fn where_it_was_to_arrive_on_the_host_it_does() {
    let Some(kit) = Unified::new("streams::where_it_was_to_arrive_on_the_host_it_does", |builder| builder) else {
        return;
    };
    put(&disk(), PAGES, 5);
    let file = data_file(&disk());
    let mut vec = kit.context.heap().vec_zeroed::<u32>(WORDS).unwrap();
    let report = kit.queue.read_file(&file, 0, &mut vec).to(Side::Host).submit().unwrap().wait().unwrap();
    took(&report, Tier::Direct);
    assert!(reason(&report, Tier::P2p).contains("system RAM"), "{report:?}");
    assert!(vec.read().unwrap()[..] == words(5)[..]);
}
