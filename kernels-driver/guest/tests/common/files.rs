//! Files and disks for tests: on file systems that they make, and on disks made of the data disk. Each is gone when it is
//! dropped.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use limosa_guest::device;
use limosa_guest::protocol::DATA_SERIAL;

use super::memory::page_bytes;

/// The data disk.
pub fn disk() -> PathBuf {
    device::disk(DATA_SERIAL).unwrap().unwrap()
}

/// Runs a tool, which must succeed.
pub fn tool(words: &str) -> String {
    let mut split = words.split_whitespace();
    let mut command = Command::new(split.next().unwrap());
    // There is no udev to make device files.
    let output =
        command.args(split).env("DM_DISABLE_UDEV", "1").output().unwrap_or_else(|error| panic!("{words}: {error}"));
    assert!(output.status.success(), "{words}: {} {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether the kernel has a module. Debian's has all that tests want; another that lacks one skips the test aloud.
pub fn kernel_has(test: &str, module: &str) -> bool {
    let output = Command::new("modprobe").arg(module).output().unwrap();
    if output.status.success() {
        return true;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(!Path::new("/lib/modules").join(release.trim()).exists(), "{why}");
    super::skip(test, module, "it is no module of this kernel's");
    false
}

/// Opens a file for reading and writing with O_DIRECT.
pub fn direct(path: &Path) -> File {
    let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path);
    open.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Opens a file as usual.
pub fn buffered(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// The contents of a file of so many pages, as `Memory::fill` of `seed` would make them.
pub fn contents(pages: usize, seed: u64) -> Vec<u8> {
    (0..pages).flat_map(|page| page_bytes(seed, page)).collect()
}

/// Writes such pages to a file's beginning, which is made if it is not there, and to the disk.
pub fn put(path: &Path, pages: usize, seed: u64) {
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
    file.write_all(&contents(pages, seed)).unwrap();
    file.sync_all().unwrap();
}

/// A mounted file system.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Makes it on a disk and mounts it: `mkfs` is the tool with its options.
    pub fn new(mkfs: &str, options: &str, disk: &Path) -> Self {
        let at = PathBuf::from(format!("/run/mounted-{}", std::process::id()));
        fs::create_dir_all(&at).unwrap();
        tool(&format!("{mkfs} {}", disk.display()));
        tool(&format!("mount -o {options} {} {}", disk.display(), at.display()));
        Self(at)
    }

    pub fn ext4(disk: &Path) -> Self {
        Self::new("mkfs.ext4 -q -F -E nodiscard", "defaults", disk)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A new file with O_DIRECT and so many pages as `Memory::fill` of `seed` would make them.
    pub fn pages(&self, name: &str, pages: usize, seed: u64) -> File {
        put(&self.file(name), pages, seed);
        direct(&self.file(name))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What a test that fails has open goes with it, and then the file system.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The data disk in partitions, until this is dropped.
pub struct Partitions(PathBuf);

impl Partitions {
    /// So many sectors each.
    pub fn new(sectors: &[usize]) -> Self {
        let own = Self(disk());
        let (mut table, mut start) = ([0; 512], 2048);
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        for (entry, sectors) in table[446..510].chunks_mut(16).zip(sectors) {
            let sectors = u32::try_from(*sectors).unwrap();
            entry[4] = 0x83;
            entry[8..12].copy_from_slice(&u32::to_le_bytes(start));
            entry[12..].copy_from_slice(&sectors.to_le_bytes());
            start += sectors.next_multiple_of(2048);
        }
        own.write(&table);
        let there = || (1..=sectors.len()).all(|one| own.path(one).exists());
        super::until("the partitions' device files are there", there);
        own
    }

    /// Where one of them is, of which the first is 1.
    pub fn path(&self, number: usize) -> PathBuf {
        PathBuf::from(format!("{}p{number}", self.0.display()))
    }

    fn write(&self, table: &[u8; 512]) {
        let file = buffered(&self.0);
        std::os::unix::fs::FileExt::write_all_at(&file, table, 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        tool(&format!("blockdev --rereadpt {}", self.0.display()));
    }
}

impl Drop for Partitions {
    fn drop(&mut self) {
        self.write(&[0; 512]);
    }
}

/// A disk of the device mapper's.
pub struct Mapped(String);

impl Mapped {
    pub fn new(table: &str) -> Self {
        let name = format!("limosa-{}", std::process::id());
        let mut command = Command::new("dmsetup");
        command.args(["create", &name]).env("DM_DISABLE_UDEV", "1");
        // A table of several lines is taken from there only.
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{table}: {}", String::from_utf8_lossy(&output.stderr));
        Self(name)
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.0)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = Command::new("dmsetup").args(["remove", "--force", &self.0]).env("DM_DISABLE_UDEV", "1").status();
    }
}
