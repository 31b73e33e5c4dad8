//! Files that fail: in the middle, at the end of what there is room for, by shrinking. The event tells file and place, what
//! arrived is told exactly, and nothing is passed off as data.

use std::fs::File;

use limosa::{DataFile, Error, FileErrorKind, PagerError, Side, Tier};

use crate::common::builder;
use crate::common::failure::{Kit, child, is_child, told, turn};
use crate::common::mounts::{mount, mounted, with_own_mounts};
use crate::common::views::{DECLARED, FAULTING, STAGED};
use crate::files::{Scratch, byte, bytes, difference, folders, open};
use crate::served::{Rules, Served};

const LEN: usize = 5 << 20;
/// What memory holds that is on neither side's way.
const OLD: u8 = 9;

/// Memory in a state that a file is to be read into.
fn memory(kit: &Kit, before: Option<Side>, len: usize) -> limosa::UnifiedVec<u8> {
    let mut vec = kit.heap().vec_zeroed::<u8>(len).unwrap();
    if let Some(side) = before {
        vec.write().unwrap().fill(OLD);
        vec.raw().prefetch(side).unwrap();
    }
    vec
}

/// That the first `arrived` bytes are the file's, the rest the file's or as it was, and those in `bad` as they were.
fn check(found: &[u8], before: Option<Side>, arrived: usize, bad: std::ops::Range<usize>, what: &str) {
    let old = if before.is_some() { OLD } else { 0 };
    let wrong = (0..found.len()).find(|&i| {
        let is_data = found[i] == byte(i, 1);
        if i < arrived { !is_data } else { found[i] != old && (!is_data || bad.contains(&i)) }
    });
    assert_eq!(wrong, None, "{what}: {arrived} arrived, {:?}", wrong.map(|i| (found[i], byte(i, 1))));
}

#[test]
fn an_error_in_the_middle_is_told_with_its_place() {
    let _turn = turn("error in the middle");
    let test = "failures::an_error_in_the_middle_is_told_with_its_place";
    with_own_mounts(test, |folder| {
        let bad = 2_600_000..2_600_001u64;
        for way in [FAULTING, DECLARED, STAGED] {
            let Some(kit) = way.kit(test, builder()) else { continue };
            for (uncached, tier) in
                [(true, None), (false, None), (false, Some(Tier::Buffered)), (true, Some(Tier::Staged))]
            {
                let Some(served) = Served::with(test, folder, uncached, bytes(LEN, 1)) else { return };
                let file = DataFile::options().read(true).write(true).open(served.path()).unwrap();
                served.set(|rules| rules.fails = Some((bad.clone(), libc::EIO)));
                for before in [None, Some(Side::Host), Some(Side::Device)] {
                    let what = format!("{way:?}, {uncached}, {tier:?}, {before:?}");
                    let mut vec = memory(&kit, before, LEN);
                    let reading = kit.queue.read_file(&file, 0, &mut vec);
                    let reading = tier.into_iter().fold(reading, |reading, tier| reading.tier(tier)).submit().unwrap();
                    let error = reading.wait().unwrap_err();
                    let Error::Pager(PagerError::FileFailed { error, arrived, total }) = error else {
                        panic!("{what}: {error}")
                    };
                    assert!(error.kind() == FileErrorKind::Io && error.file == served.path(), "{what}: {error}");
                    assert_eq!((error.offset, total), (Some(arrived), LEN as u64), "{what}: all before it arrived");
                    assert!(arrived <= bad.start && bad.start - arrived <= 2 << 20, "{what}: {error}");
                    assert_eq!(reading.report().arrived, arrived, "{what}");
                    let place = usize::try_from(bad.start).unwrap();
                    check(&vec.read().unwrap(), before, usize::try_from(arrived).unwrap(), place..place + 1, &what);
                }
                let source = kit.heap().vec_from(&bytes(LEN, 2)).unwrap();
                let writing = kit.queue.write_file(&source, &file, 0).submit().unwrap();
                let error = writing.wait().unwrap_err();
                let Error::Pager(PagerError::FileFailed { error, arrived, .. }) = error else { panic!("{error}") };
                assert_eq!((error.kind(), error.offset), (FileErrorKind::Io, Some(arrived)), "{error}");
                assert!(arrived <= bad.start, "{error}");
                let (rules, arrived) = (served.rules(), usize::try_from(arrived).unwrap());
                assert_eq!(difference(&rules.data[..arrived], &bytes(LEN, 2)[..arrived]), None);
                drop(file);
            }
            kit.works();
        }
    });
}

#[test]
fn answers_that_come_short_are_asked_for_again() {
    let _turn = turn("short");
    let test = "failures::answers_that_come_short_are_asked_for_again";
    with_own_mounts(test, |folder| {
        for way in [FAULTING, STAGED] {
            let Some(kit) = way.kit(test, builder()) else { continue };
            for (most, tier) in
                [(4096, None), (5000, None), (70_001, None), (1, Some(Tier::Buffered)), (4095, Some(Tier::Staged))]
            {
                let len = if most == 1 { 300 } else { 1 << 20 };
                let Some(served) = Served::with(test, folder, true, bytes(len, 1)) else { return };
                let file = DataFile::options().read(true).write(true).open(served.path()).unwrap();
                served.set(|rules| rules.most = Some(most));
                let mut vec = memory(&kit, Some(Side::Device), len);
                let reading = kit.queue.read_file(&file, 0, &mut vec);
                let reading = tier.into_iter().fold(reading, |reading, tier| reading.tier(tier)).submit().unwrap();
                let report = reading.wait().unwrap_or_else(|error| panic!("{way:?}, {most}, {tier:?}: {error}"));
                assert!(report.arrived == len as u64 && report.requests > (len / most) as u64 / 600, "{report:?}");
                assert_eq!(difference(&vec.read().unwrap(), &bytes(len, 1)), None, "{way:?}, {most}, {tier:?}");
            }
        }
    });
}

#[test]
fn a_file_that_shrinks_while_it_is_read_ends_where_it_does() {
    let _turn = turn("shrinks");
    let test = "failures::a_file_that_shrinks_while_it_is_read_ends_where_it_does";
    with_own_mounts(test, |folder| {
        for way in [FAULTING, STAGED] {
            let Some(kit) = way.kit(test, builder()) else { continue };
            for (end, tier) in [(0, None), (1 << 20, None), (2_500_123, None), (2_500_123, Some(Tier::Buffered))] {
                let Some(served) = Served::with(test, folder, true, bytes(LEN, 1)) else { return };
                let file = DataFile::open(served.path()).unwrap();
                // What is proven is not proven again, so that the first reads are those of the transfer.
                kit.queue.read_file(&file, 0, &mut memory(&kit, None, 65536)).submit().unwrap().wait().unwrap();
                let mut vec = memory(&kit, Some(Side::Device), LEN);
                served.set(|rules| rules.late = true);
                let reading = kit.queue.read_file(&file, 0, &mut vec);
                let reading = tier.into_iter().fold(reading, |reading, tier| reading.tier(tier)).submit().unwrap();
                served.wait_for_held(1);
                served.set(|rules| rules.data.truncate(end));
                served.release();
                let error = reading.wait().unwrap_err();
                let Error::Pager(PagerError::FileEnded { offset, arrived, .. }) = error else { panic!("{error}") };
                assert_eq!((offset, arrived), (end as u64, end as u64), "{way:?}, {tier:?}");
                check(&vec.read().unwrap(), Some(Side::Device), end, end..LEN, &format!("{way:?}, {end}, {tier:?}"));
            }
        }
    });
}

#[test]
fn a_file_that_grows_while_it_is_read_finds_room() {
    let _turn = turn("grows");
    let test = "failures::a_file_that_grows_while_it_is_read_finds_room";
    with_own_mounts(test, |folder| {
        let Some(kit) = FAULTING.kit(test, builder()) else { return };
        let len = 9 << 20;
        let rules = Rules { data: bytes(len, 1), len: 16384, ..Rules::default() };
        let Some(served) = Served::new(test, folder, true, rules) else { return };
        let file = DataFile::open(served.path()).unwrap();
        kit.queue.read_file(&file, 0, &mut memory(&kit, None, 4096)).submit().unwrap().wait().unwrap();
        let mut vec = memory(&kit, Some(Side::Device), len);
        served.set(|rules| rules.late = true);
        let (one, rest) = vec.slice_mut(0..len).unwrap().split_at(4096).unwrap();
        let (two, rest) = rest.split_at(4096).unwrap();
        let reads = kit.queue.transfers().read(&file, 0, one).read(&file, 4096, two).read(&file, 8192, rest);
        // Larger than what there is to stage in.
        let reading = reads.depth(2).request_bytes(4 << 20).submit().unwrap();
        served.wait_for_held(2);
        // Both it and the kernel believed so far that it ends there.
        served.set(|rules| rules.len = len as u64);
        assert_eq!(std::fs::metadata(served.path()).unwrap().len(), len as u64);
        served.answer();
        served.wait_for_held(2);
        served.release();
        reading.wait().unwrap();
        assert_eq!(difference(&vec.read().unwrap(), &bytes(len, 1)), None);
    });
}

#[test]
fn a_full_disk_is_told_and_what_was_written_is_there() {
    let _turn = turn("full");
    let test = "failures::a_full_disk_is_told_and_what_was_written_is_there";
    with_own_mounts(test, |folder| {
        let Some(kit) = FAULTING.kit(test, builder()) else { return };
        let small = folder.join("small");
        std::fs::create_dir(&small).unwrap();
        mount("none", &small, "tmpfs", "size=2m").unwrap();
        let disk = mounted(test, folder, "ext4", 8 << 20);
        let source = kit.heap().vec_from(&bytes(16 << 20, 1)).unwrap();
        for place in [Some(small), disk].into_iter().flatten() {
            for side in [Side::Host, Side::Device] {
                source.raw().prefetch(side).unwrap();
                let path = place.join(format!("{side:?}"));
                let file = DataFile::options().read(true).write(true).create(true).open(&path).unwrap();
                let error = kit.queue.write_file(&source, &file, 0).submit().unwrap().wait().unwrap_err();
                let Error::Pager(PagerError::FileFailed { error, arrived, .. }) = error else { panic!("{error}") };
                assert_eq!((error.kind(), error.offset), (FileErrorKind::NoSpace, Some(arrived)), "{error}");
                assert!(arrived > 0 && error.to_string().contains("free some"), "{error}");
                let arrived = usize::try_from(arrived).unwrap();
                assert_eq!(difference(&std::fs::read(&path).unwrap()[..arrived], &bytes(arrived, 1)), None);
                drop(file);
                std::fs::remove_file(path).unwrap();
            }
        }
    });
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_signal() {
    let _turn = turn("limit of sizes");
    let test = "failures::a_limit_of_file_sizes_is_an_error_and_no_signal";
    if !is_child(test) {
        let output = child(test, test, |_| {});
        return assert!(output.status.success(), "{}", told(&output));
    }
    let Some(kit) = FAULTING.kit(test, builder()) else { return };
    let limit = libc::rlimit { rlim_cur: 3 << 20, rlim_max: 3 << 20 };
    // SAFETY: a limit of this process, which is the test's own.
    unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    let source = kit.heap().vec_from(&bytes(4 << 20, 1)).unwrap();
    for folder in folders() {
        let scratch = Scratch::with(&folder, "limited", b"");
        let file = open(&scratch.0);
        let error = kit.queue.write_file(&source, &file, 0).submit().unwrap().wait().unwrap_err();
        let Error::Pager(PagerError::FileFailed { error, arrived, .. }) = error else { panic!("{error}") };
        assert_eq!((error.kind(), error.offset), (FileErrorKind::TooLarge, Some(arrived)), "{error}");
        let arrived = usize::try_from(arrived).unwrap();
        assert_eq!(difference(&std::fs::read(&scratch.0).unwrap()[..arrived], &bytes(arrived, 1)), None);
    }
}

#[test]
fn what_cannot_be_opened_or_used_so_is_refused_by_name() {
    let _turn = turn("refused by name");
    let Some(kit) = FAULTING.kit("refused by name", builder()) else { return };
    let kind = |error: Error| match error {
        Error::Pager(PagerError::File(error)) => error.kind(),
        other => panic!("{other}"),
    };
    let folder = &folders()[0];
    assert_eq!(kind(DataFile::open(folder).unwrap_err()), FileErrorKind::Directory);
    assert_eq!(kind(DataFile::open(folder.join("limosa-none")).unwrap_err()), FileErrorKind::NotFound);
    assert_eq!(kind(DataFile::from_file(File::open(folder).unwrap()).unwrap_err()), FileErrorKind::Directory);
    let scratch = Scratch::with(folder, "modes", &bytes(100_000, 1));
    let mut vec = kit.heap().vec_zeroed::<u8>(4096).unwrap();
    let reading = DataFile::open(&scratch.0).unwrap();
    let writing = DataFile::options().write(true).open(&scratch.0).unwrap();
    let refused = kit.queue.write_file(&vec, &reading, 0).submit().map(drop).unwrap_err();
    assert_eq!(kind(refused), FileErrorKind::NotOpenFor);
    let refused = kit.queue.read_file(&writing, 0, &mut vec).submit().map(drop).unwrap_err();
    assert_eq!(kind(refused), FileErrorKind::NotOpenFor);
    assert_eq!(kind(writing.read_into(0, &mut vec).map(drop).unwrap_err()), FileErrorKind::NotOpenFor);
    for offset in [u64::MAX, i64::MAX as u64 - 4095] {
        let refused = kit.queue.read_file(&reading, offset, &mut vec).submit().map(drop).unwrap_err();
        assert_eq!(kind(refused), FileErrorKind::TooLarge);
    }
    let error = kit.queue.write_file(&vec, &writing, i64::MAX as u64 - 4096).submit().unwrap().wait().unwrap_err();
    assert!(
        matches!(&error, Error::Pager(PagerError::FileFailed { error, arrived: 0, .. })
        if error.kind() == FileErrorKind::TooLarge),
        "{error}"
    );
    // Only open for writing: there is no second look at what was written.
    kit.queue.write_file(&vec, &writing, 0).submit().unwrap().wait().unwrap();
    assert!(std::fs::read(&scratch.0).unwrap()[..4096].iter().all(|byte| *byte == 0));
    // From here on it is somebody else's, and its name is gone.
    std::fs::remove_file(&scratch.0).unwrap();
    kit.queue.read_file(&reading, 4096, &mut vec).submit().unwrap().wait().unwrap();
    assert_eq!(difference(&vec.read().unwrap(), &bytes(8192, 1)[4096..]), None);
    kit.works();
}

#[test]
fn what_lies_behind_the_end_fits_the_slots_whatever_its_alignment() {
    let _turn = turn("behind the end");
    let Some(kit) = FAULTING.kit("behind the end", builder()) else { return };
    for folder in folders() {
        let scratch = Scratch::with(&folder, "behind", b"short");
        let file = open(&scratch.0);
        let mut vec = kit.heap().vec_zeroed::<u8>(8 << 20).unwrap();
        // As long as a slot, and as a request: widened to whole units they are longer.
        for len in [1 << 20, (1 << 20) - 1, 2 << 20, 3 << 20] {
            let reading = kit.queue.read_file(&file, 4196, vec.slice_mut(100..100 + len).unwrap()).submit().unwrap();
            let error = reading.wait().unwrap_err();
            assert!(matches!(error, Error::Pager(PagerError::FileEnded { arrived: 0, .. })), "{error}");
        }
        assert!(vec.read().unwrap().iter().all(|byte| *byte == 0));
    }
}

#[test]
fn few_bytes_that_nobody_has_read_are_not_said_to_be_in_the_page_cache() {
    let _turn = turn("few bytes");
    let Some(kit) = FAULTING.kit("few bytes", builder()) else { return };
    for folder in folders() {
        let scratch = Scratch::with(&folder, "few", &bytes(64, 1));
        let file = open(&scratch.0);
        let cold = file.facts().direct.is_ok() && file.cached_bytes(0, 64) == Some(0);
        let mut vec = kit.heap().vec_zeroed::<u8>(64).unwrap();
        let report = kit.queue.read_file(&file, 0, &mut vec).submit().unwrap().wait().unwrap();
        assert_eq!(report.tier(), Some(if cold { Tier::Staged } else { Tier::Buffered }), "{folder:?}: {report:?}");
        assert_eq!(difference(&vec.read().unwrap(), &bytes(64, 1)), None);
    }
}

#[test]
fn a_batch_whose_sources_leave_no_room_arrives_on_the_host() {
    let _turn = turn("no room beside the sources");
    for way in [FAULTING, DECLARED, STAGED] {
        let Some(kit) = way.kit("no room beside the sources", builder().device_budget(16 << 20)) else { continue };
        let folder = std::env::temp_dir();
        let (from, to) = (Scratch::with(&folder, "from", &bytes(10 << 20, 1)), Scratch::with(&folder, "to", b""));
        let (from, to) = (open(&from.0), open(&to.0));
        let source = kit.heap().vec_from(&bytes(10 << 20, 2)).unwrap();
        let mut target = kit.heap().vec_zeroed::<u8>(10 << 20).unwrap();
        source.prefetch_to_device().unwrap();
        let both = kit.queue.transfers().read(&from, 0, &mut target).write(&source, &to, 0).submit().unwrap();
        let report = both.wait().unwrap();
        assert!(report.displaced.is_some(), "{way:?}: {report:?}");
        assert_eq!(difference(&target.read().unwrap(), &bytes(10 << 20, 1)), None);
        assert_eq!(difference(&std::fs::read(to.name()).unwrap(), &bytes(10 << 20, 2)), None);
    }
}
