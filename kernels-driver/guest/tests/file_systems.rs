//! What a file is on decides what becomes of its data: on each file system and each kind of disk PROBE says what then
//! happens.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use common::device;
use common::files::{Mapped, Mounted, Partitions, buffered, contents, direct, disk, kernel_has, put, tool};
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

#[test]
fn encrypted_files_are_the_cpus_work() {
    let mounted = Mounted::new("mkfs.ext4 -q -F -E nodiscard -O encrypt", "defaults", &disk());
    std::fs::create_dir(mounted.file("secret")).unwrap();
    encrypt(&mounted.file("secret"));
    let staged = staged(LIMOSA_REASON_ENCRYPTED);
    file_goes(&mounted, "secret/file", staged, staged);
}

/// Has what is made in a folder be encrypted by a key that the file system is given (linux/fscrypt.h).
fn encrypt(folder: &Path) {
    const ADD_KEY: u64 = 0xC050_6617;
    const SET_POLICY: u64 = 0x800C_6613;
    let folder = File::open(folder).unwrap();
    let call = |request: u64, words: &mut [u32]| {
        // SAFETY: the words are the request's struct.
        let result = unsafe { libc::ioctl(folder.as_raw_fd(), request, words.as_mut_ptr()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    };
    // Named by itself; 64 bytes, which follow.
    let mut key = [7; 20 + 16];
    key[..20].fill(0);
    (key[0], key[10]) = (2, 64);
    call(ADD_KEY, &mut key);
    // The second version: AES-256-XTS for contents, AES-256-CTS for names, which are padded.
    let mut policy = [u32::from_ne_bytes([2, 1, 4, 3]), 0, key[2], key[3], key[4], key[5]];
    call(SET_POLICY, &mut policy);
}

#[test]
fn a_partition_is_as_its_disk() {
    disk_goes(&Partitions::new(&[SECTORS]).path(1), DIRECT, DIRECT);
}

/// A RAID 0 of two partitions, made by sysfs as `mdadm --build` makes it, until this is dropped.
struct Array(Partitions);

impl Array {
    const NAME: &str = "md_limosa";

    fn new() -> Self {
        let own = Self(Partitions::new(&[SECTORS; 2]));
        std::fs::write("/sys/module/md_mod/parameters/new_array", Self::NAME).unwrap();
        for (name, value) in
            [("metadata_version", "none"), ("level", "raid0"), ("raid_disks", "2"), ("chunk_size", "131072")]
        {
            Self::set(name, value);
        }
        for number in 0..2 {
            let part = own.0.path(number + 1);
            let device = std::os::unix::fs::MetadataExt::rdev(&std::fs::metadata(&part).unwrap());
            Self::set("new_dev", &format!("{}:{}", libc::major(device), libc::minor(device)));
            let name = part.file_name().unwrap().to_string_lossy().into_owned();
            Self::set(&format!("dev-{name}/size"), &(SECTORS / 2).to_string());
            Self::set(&format!("dev-{name}/slot"), &number.to_string());
        }
        Self::set("array_state", "active");
        own
    }

    fn set(name: &str, value: &str) {
        let path = format!("/sys/block/{}/md/{name}", Self::NAME);
        std::fs::write(&path, value).unwrap_or_else(|error| panic!("{value} to {path}: {error}"));
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        // As far as it came.
        let _ = std::fs::write(format!("/sys/block/{}/md/array_state", Self::NAME), "clear");
    }
}

#[test]
fn an_array_of_disks_is_tried() {
    if kernel_has("file_systems::an_array_of_disks_is_tried", "raid0") {
        let _array = Array::new();
        disk_goes(&Path::new("/dev").join(Array::NAME), DIRECT, unknown(LIMOSA_REASON_STACKED));
    }
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
