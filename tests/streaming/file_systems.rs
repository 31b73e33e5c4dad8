//! The oracle on every file system and kind of file that is to be had: what direct I/O asks for differs, and what it does
//! to holes, ends and files that grow.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use limosa::{DataFile, Error, Home, PagerError, Side, Tier};

use crate::common::builder;
use crate::common::failure::turn;
use crate::common::mounts::{Disk, mount, mounted, with_own_mounts};
use crate::common::views::{FAULTING, STAGED};
use crate::files::{Scratch, bytes, difference, folders, open};
use crate::oracle::{FILE, histories};

fn on_each_view(test: &str, path: &Path, rounds: usize) {
    for (index, way) in (0..).zip([FAULTING, STAGED]) {
        let Some(kit) = way.kit(test, builder().device_budget(16 << 20)) else { continue };
        histories(&kit, &format!("{way:?}, {}", path.display()), path, Home::Migrating, rounds, 3 + index);
    }
}

#[test]
fn on_disks_of_every_file_system() {
    let _turn = turn("file systems");
    let test = "file_systems::on_disks_of_every_file_system";
    with_own_mounts(test, |folder| {
        on_each_view(test, &folder.join("on-tmpfs"), 10);
        for (kind, size) in [("ext4", 64 << 20), ("xfs", 320 << 20), ("btrfs", 128 << 20)] {
            let Some(place) = mounted(test, folder, kind, size) else { continue };
            on_each_view(test, &place.join("file"), 25);
            if kind == "ext4" {
                overlay(test, folder, &place);
            }
        }
    });
}

/// Over a file that is below, which is copied up by the first write; and without that.
fn overlay(test: &str, folder: &Path, disk: &Path) {
    let [lower, upper, work, over] = ["lower", "upper", "work", "over"].map(|name| disk.join(name));
    [&lower, &upper, &work, &over].iter().for_each(|path| std::fs::create_dir(path).unwrap());
    std::fs::write(lower.join("file"), bytes(FILE, 1)).unwrap();
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    if let Err(error) = mount("overlay", &over, "overlay", &options) {
        return crate::common::skip(test, "overlayfs", &format!("{error} in {}", folder.display()));
    }
    let kit = FAULTING.kit(test, builder());
    if let Some(kit) = &kit {
        let mut vec = kit.heap().vec_zeroed::<u8>(FILE).unwrap();
        let below = DataFile::open(over.join("file")).unwrap();
        kit.queue.read_file(&below, 0, &mut vec).submit().unwrap().wait().unwrap();
        assert_eq!(difference(&vec.read().unwrap(), &bytes(FILE, 1)), None);
    }
    on_each_view(test, &over.join("file"), 15);
    on_each_view(test, &over.join("new"), 15);
}

#[test]
fn on_a_disk_itself() {
    let _turn = turn("disk");
    let test = "file_systems::on_a_disk_itself";
    with_own_mounts(test, |folder| {
        let image = folder.join("image");
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        let Some(disk) = Disk::attach(test, &image) else { return };
        on_each_view(test, &disk.0, 25);
        let Some(kit) = FAULTING.kit(test, builder()) else { return };
        let file = open(&disk.0);
        assert_eq!(file.len().unwrap(), Some(8 << 20));
        let mut vec = kit.heap().vec_from(&vec![9u8; 1 << 20]).unwrap();
        let end = (8 << 20) - 5000;
        let error = kit.queue.read_file(&file, end, &mut vec).submit().unwrap().wait().unwrap_err();
        assert!(matches!(error, Error::Pager(PagerError::FileEnded { arrived: 5000, .. })), "{error}");
        assert!(vec.read().unwrap()[5000..].iter().all(|byte| *byte == 9));
        let error = kit.queue.write_file(&vec, &file, end).submit().unwrap().wait().unwrap_err();
        assert!(matches!(error, Error::Pager(PagerError::FileFailed { arrived, .. }) if arrived <= 5000), "{error}");
        // Nothing keeps it open behind the back of who closes it.
        drop(file);
        assert!(disk.detach()(), "somebody has it open");
    });
}

#[test]
fn a_sparse_file_reads_as_zeros_that_are_data() {
    let _turn = turn("sparse");
    let Some(kit) = FAULTING.kit("sparse", builder()) else { return };
    for folder in folders() {
        let scratch = Scratch::new(&folder, "sparse");
        let file = File::create(&scratch.0).unwrap();
        file.set_len(1 << 40).unwrap();
        file.write_all_at(b"here", (1 << 39) + 4095).unwrap();
        let file = open(&scratch.0);
        let mut vec = kit.heap().vec_from(&vec![9u8; 3 << 20]).unwrap();
        let report = kit.queue.read_file(&file, 1 << 39, &mut vec).submit().unwrap().wait().unwrap();
        assert_eq!(report.arrived, 3 << 20);
        let found = vec.read().unwrap();
        assert!(found[..4095].iter().chain(&found[4099..]).all(|byte| *byte == 0), "{folder:?}");
        assert_eq!(&found[4095..4099], b"here");
        // Parts as far apart as a file allows.
        let (first, second) = vec.slice_mut(0..3 << 20).unwrap().split_at(1 << 20).unwrap();
        let far = kit.queue.transfers().read(&file, 0, first).read(&file, i64::MAX as u64 - (2 << 20), second);
        let error = far.submit().unwrap().wait().unwrap_err();
        assert!(matches!(error, Error::Pager(PagerError::FileEnded { arrived, .. }) if arrived == 1 << 20), "{error}");
    }
}

#[test]
fn a_file_that_is_appended_to_meanwhile_is_read_as_far_as_it_went() {
    let _turn = turn("appended");
    let Some(kit) = FAULTING.kit("appended", builder()) else { return };
    for folder in folders() {
        let scratch = Scratch::with(&folder, "appended", &bytes(100_000, 6));
        let file = open(&scratch.0);
        let all = bytes(6 << 20, 6);
        std::thread::scope(|scope| {
            let appending = scope.spawn(|| {
                let mut file = File::options().append(true).open(&scratch.0).unwrap();
                all[100_000..].chunks(30_011).for_each(|part| file.write_all(part).unwrap());
            });
            let mut vec = kit.heap().vec_from(&vec![9u8; 6 << 20]).unwrap();
            let (mut ended, mut at) = (0, 0);
            while at < all.len() {
                let rest = vec.slice_mut(at..all.len()).unwrap();
                let transfer = kit.queue.read_file(&file, at as u64, rest).submit().unwrap();
                if let Err(error) = transfer.wait() {
                    let Error::Pager(PagerError::FileEnded { offset, arrived, .. }) = error else { panic!("{error}") };
                    assert_eq!(offset, at as u64 + arrived);
                    ended += 1;
                }
                let arrived = at + usize::try_from(transfer.report().arrived).unwrap();
                let found = vec.read().unwrap();
                assert_eq!(difference(&found[..arrived], &all[..arrived]), None, "{folder:?} from {at}");
                // Nothing but the file's, or what was there: no zeros of a block beyond its end.
                let wrong = (arrived..all.len()).find(|i| found[*i] != 9 && found[*i] != all[*i]);
                assert_eq!(wrong, None, "{folder:?}: {arrived} arrived from {at} on, {ended} ends");
                at = arrived;
            }
            appending.join().unwrap();
        });
    }
}

fn pipe() -> (DataFile, DataFile) {
    let (read, write) = std::io::pipe().unwrap();
    (DataFile::from_file(read).unwrap(), DataFile::from_file(write).unwrap())
}

#[test]
fn pipes_and_sockets_go_through_the_page_caches_way() {
    let _turn = turn("pipes");
    for way in [FAULTING, STAGED] {
        let Some(kit) = way.kit("pipes", builder()) else { continue };
        let other = kit.context.queue().unwrap();
        let source = kit.heap().vec_from(&bytes(3_000_001, 7)).unwrap();
        let (one, two) = UnixStream::pair().unwrap();
        let sockets = (DataFile::from_file(one).unwrap(), DataFile::from_file(two).unwrap());
        for (from, to) in [pipe(), sockets] {
            let mut target = kit.heap().vec_from(&vec![9u8; 3_000_003]).unwrap();
            let reading = kit.queue.read_file(&from, 0, target.slice_mut(1..3_000_002).unwrap()).submit().unwrap();
            let written = other.write_file(&source, &to, 0).submit().unwrap().wait().unwrap();
            let read = reading.wait().unwrap();
            assert_eq!((written.tier(), read.tier()), (Some(Tier::Buffered), Some(Tier::Buffered)));
            assert_eq!(difference(&target.read().unwrap()[1..3_000_002], &bytes(3_000_001, 7)), None);
            assert_eq!((target.read().unwrap()[0], target.read().unwrap()[3_000_002]), (9, 9));
            // The end: nobody has the writing end any more once it is dropped.
            let last = other.write_file(source.slice(0..10).unwrap(), &to, 0).submit().unwrap();
            last.wait().unwrap();
            drop(to);
            let ended = kit.queue.read_file(&from, 0, target.slice_mut(0..20).unwrap()).submit().unwrap().wait();
            let error = ended.unwrap_err();
            assert!(matches!(error, Error::Pager(PagerError::FileEnded { arrived: 10, .. })), "{error}");
        }
        let (from, to) = pipe();
        drop(from);
        let error = other.write_file(&source, &to, 0).submit().unwrap().wait().unwrap_err();
        assert!(matches!(error, Error::Pager(PagerError::FileFailed { arrived: 0, .. })), "{error}");
        let refused = other.write_file(&source, &to, 1).submit().map(drop).unwrap_err();
        assert!(matches!(refused, Error::Pager(PagerError::File(_))), "{refused}");
    }
}

#[test]
fn what_has_no_end_gives_what_is_asked_for() {
    let _turn = turn("endless");
    let Some(kit) = FAULTING.kit("endless", builder()) else { return };
    let mut vec = kit.heap().vec_from(&vec![9u8; 2 << 20]).unwrap();
    let zeros = DataFile::open("/dev/zero").unwrap();
    for side in [Side::Host, Side::Device] {
        kit.queue.read_file(&zeros, 0, vec.slice_mut(1..1 << 20).unwrap()).to(side).submit().unwrap().wait().unwrap();
        let found = vec.read().unwrap();
        assert!(found[0] == 9 && found[1..1 << 20].iter().all(|byte| *byte == 0) && found[1 << 20] == 9);
    }
}

#[test]
fn where_direct_io_is_refused_it_is_said_why() {
    let _turn = turn("refused");
    let Some(kit) = FAULTING.kit("refused", builder()) else { return };
    let scratch = Scratch::with(&folders()[1], "refused", &bytes(1 << 20, 2));
    let file = open(&scratch.0);
    let mut vec = kit.heap().vec_zeroed::<u8>(1 << 20).unwrap();
    for tier in [Tier::P2p, Tier::Direct, Tier::Staged] {
        let transfer = kit.queue.read_file(&file, 0, &mut vec).tier(tier).submit().unwrap();
        let error = transfer.wait().unwrap_err();
        let Error::Pager(PagerError::TierUnusable { tier: told, file, reason }) = error else { panic!("{error}") };
        assert!(told == tier && file == scratch.0 && !reason.is_empty());
    }
    assert!(vec.read().unwrap().iter().all(|byte| *byte == 0));
    kit.works();
}
