//! What a file is on decides what becomes of its data: on each file system and each kind of disk PROBE says what then
//! happens.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};

use common::device;
use common::files::{Mapped, Mounted, buffered, contents, direct, disk, kernel_has, put, tool};
use common::memory::PAGE;
use common::peer::{Pool, errno, forget, load, probe, reads_go_as_told, traced, transfer, way, writes_go_as_told};
use limosa_os::shim::uapi::*;

const PAGES: usize = 700;
const SECTORS: usize = PAGES * PAGE / 512;

fn told(probe: &limosa_probe) -> [u32; 2] {
    [probe.verdict, probe.reason]
}

const DIRECT: [u32; 2] = [LIMOSA_VERDICT_DIRECT, LIMOSA_REASON_NONE];

fn staged(reason: u32) -> [u32; 2] {
    [LIMOSA_VERDICT_STAGED, reason]
}

fn refused(reason: u32) -> [u32; 2] {
    [LIMOSA_VERDICT_REFUSED, reason]
}

fn unknown(reason: u32) -> [u32; 2] {
    [LIMOSA_VERDICT_UNKNOWN, reason]
}

/// Reads and writes a file of a file system, and fails unless it goes as told, and told is what is expected.
fn file_goes(mounted: &Mounted, name: &str, reads: [u32; 2], writes: [u32; 2]) {
    let shim = device();
    let file = mounted.pages(name, PAGES, 1);
    assert_eq!(told(&reads_go_as_told(&shim, &file, PAGES, 1)), reads, "reads of {name}");
    let again = buffered(&mounted.file(name));
    assert_eq!(told(&writes_go_as_told(&shim, &file, &again, PAGES, 2)), writes, "writes of {name}");
}

/// The same for a disk.
fn disk_goes(path: &Path, reads: [u32; 2], writes: [u32; 2]) {
    let shim = device();
    put(path, PAGES, 3);
    assert_eq!(told(&reads_go_as_told(&shim, &direct(path), PAGES, 3)), reads, "reads of {}", path.display());
    let written = writes_go_as_told(&shim, &direct(path), &buffered(path), PAGES, 4);
    assert_eq!(told(&written), writes, "writes of {}", path.display());
}

#[test]
fn ext4_hands_pages_to_the_disk() {
    let mounted = Mounted::ext4(&disk());
    file_goes(&mounted, "file", DIRECT, DIRECT);
    // Blocks that are allocated by the write itself.
    let path = mounted.file("sparse");
    File::create(&path).unwrap().set_len((PAGES * PAGE) as u64).unwrap();
    let written = writes_go_as_told(&device(), &direct(&path), &buffered(&path), PAGES, 5);
    assert_eq!(told(&written), DIRECT);
    assert_eq!(told(&reads_go_as_told(&device(), &direct(&path), PAGES, 5)), DIRECT);
}

#[test]
fn ext4_that_journals_data_reads_through_the_page_cache() {
    let mounted = Mounted::new("mkfs.ext4 -q -F -E nodiscard", "data=journal", &disk());
    let reason = LIMOSA_REASON_NO_DIRECT_IO;
    file_goes(&mounted, "file", staged(reason), staged(reason));
}

#[test]
fn ext4_has_small_files_among_its_metadata() {
    let mounted = Mounted::new("mkfs.ext4 -q -F -E nodiscard -I 256 -O inline_data", "defaults", &disk());
    let (shim, path) = (device(), mounted.file("small"));
    std::fs::write(&path, &contents(1, 1)[..60]).unwrap();
    forget();
    let file = direct(&path);
    let pool = Pool::new(&shim, 1);
    assert_eq!(told(&probe(&shim, &file, LIMOSA_FROM_FILE).unwrap()), staged(LIMOSA_REASON_INLINE));
    let (got, commands) = traced(|| transfer(&file, &pool.memory, 0..PAGE, 0, false));
    assert_eq!((got.unwrap(), way(&commands, false).inside), (60, 0));
    assert_eq!(errno(load(&shim, common::memory::Memory::pages(1).range(), &file, 0)), libc::EOPNOTSUPP);
    // A file of the same file system that is too large for that goes straight.
    assert_eq!(told(&reads_go_as_told(&shim, &mounted.pages("large", PAGES, 1), PAGES, 1)), DIRECT);
}

#[test]
fn xfs_hands_pages_to_the_disk() {
    if !kernel_has("file_systems::xfs_hands_pages_to_the_disk", "xfs") {
        return;
    }
    file_goes(&Mounted::new("mkfs.xfs -q -f -K", "defaults", &disk()), "file", DIRECT, DIRECT);
}

#[test]
fn btrfs_has_checksums_of_its_data_or_is_not_known() {
    if !kernel_has("file_systems::btrfs_has_checksums_of_its_data_or_is_not_known", "btrfs") {
        return;
    }
    let mounted = Mounted::new("mkfs.btrfs -q -f -K -d single -m single", "defaults", &disk());
    let checksum = LIMOSA_REASON_CHECKSUM;
    file_goes(&mounted, "file", unknown(checksum), staged(checksum));
    let path = mounted.file("plain");
    File::create(&path).unwrap();
    tool(&format!("chattr +C {}", path.display()));
    let unknown = unknown(LIMOSA_REASON_FILE_SYSTEM);
    file_goes(&mounted, "plain", unknown, unknown);
}

#[test]
fn files_in_memory_are_copied() {
    let (shim, path) = (device(), PathBuf::from("/dev/shm/limosa-file"));
    put(&path, PAGES, 1);
    let reason = LIMOSA_REASON_NO_BLOCK_DEVICE;
    assert_eq!(told(&reads_go_as_told(&shim, &direct(&path), PAGES, 1)), staged(reason));
    assert_eq!(told(&probe(&shim, &direct(&path), LIMOSA_TO_FILE).unwrap()), staged(reason));
    std::fs::remove_file(path).unwrap();
}

/// A partition table with one partition.
fn table(sectors: u32) -> [u8; 512] {
    const START: u32 = 2048;
    let mut sector = [0; 512];
    sector[450] = 0x83;
    sector[454..458].copy_from_slice(&START.to_le_bytes());
    sector[458..462].copy_from_slice(&sectors.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[test]
fn a_partition_is_as_its_disk() {
    let disk = disk();
    let read_again = |sector: &[u8; 512]| {
        let file = buffered(&disk);
        std::os::unix::fs::FileExt::write_all_at(&file, sector, 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        tool(&format!("blockdev --rereadpt {}", disk.display()));
    };
    read_again(&table(u32::try_from(SECTORS).unwrap()));
    let part = PathBuf::from(format!("{}p1", disk.display()));
    common::until("the partition's device file is there", || part.exists());
    disk_goes(&part, DIRECT, DIRECT);
    read_again(&[0; 512]);
}

#[test]
fn disks_of_the_device_mapper_refuse_a_devices_pages() {
    if !kernel_has("file_systems::disks_of_the_device_mapper_refuse_a_devices_pages", "dm-mod") {
        return;
    }
    let (disk, key) = (disk().display().to_string(), "00112233445566778899aabbccddeeff".repeat(4));
    let refused = refused(LIMOSA_REASON_QUEUE);
    for table in [
        format!("0 {SECTORS} linear {disk} 2048"),
        format!("0 {} striped 2 256 {disk} 2048 {disk} 65536", SECTORS.next_multiple_of(512)),
        format!("0 {SECTORS} flakey {disk} 2048 60 0"),
        format!("0 {SECTORS} crypt aes-xts-plain64 {key} 0 {disk} 2048"),
    ] {
        disk_goes(&Mapped::new(&table).path(), refused, refused);
    }
}

#[test]
fn a_file_as_a_disk_refuses_a_devices_pages() {
    if !kernel_has("file_systems::a_file_as_a_disk_refuses_a_devices_pages", "loop") {
        return;
    }
    let mounted = Mounted::ext4(&disk());
    put(&mounted.file("image"), PAGES, 1);
    let path = PathBuf::from(tool(&format!("losetup --find --show {}", mounted.file("image").display())).trim());
    let refused = refused(LIMOSA_REASON_QUEUE);
    disk_goes(&path, refused, refused);
    tool(&format!("losetup --detach {}", path.display()));
}
