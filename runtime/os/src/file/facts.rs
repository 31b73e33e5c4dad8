//! What is known of an open file: its file system, its device, and whether direct I/O reaches it. It does *not* read data.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::recent::Recent;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A file of a file system.
    Regular,
    /// A disk, or a part of one.
    BlockDevice,
    /// A pipe, a socket, or a character device: what comes next comes next, and there are no offsets.
    Stream,
}

/// What is known of an open file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// What it is.
    pub kind: FileKind,
    /// The kind of its file system, like `ext4`; of what is in none, `block device` or `stream`.
    pub file_system: String,
    /// What direct I/O asks for, or why there is none.
    pub direct: Result<DirectIo, NoDirect>,
    /// The disk that it is on, or is; `None` where there is none or the kernel does not tell. Of a file system of several
    /// disks, the first.
    pub device: Option<BlockDevice>,
    /// Whether the file system keeps checksums of the data, which the CPU computes. Of a file on btrfs that was created
    /// under the mount option `nodatasum` alone this is wrong: nothing tells.
    pub checksums: bool,
}

/// What direct I/O asks for, in bytes, all of them powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectIo {
    /// Of memory.
    pub memory_alignment: u32,
    /// Of offsets and lengths.
    pub offset_alignment: u32,
    /// Of those where it is read; at most [`Self::offset_alignment`].
    pub read_offset_alignment: u32,
}

/// Why there is no direct I/O. As text it says what would change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoDirect {
    /// It is a stream.
    Stream,
    /// Its data is in memory anyway: the page cache is all there is of it.
    InMemory,
    /// The file system says that it has none for this file.
    FileSystem,
    /// The file system does not say what it asks for, and hands the file on to another.
    Unknown,
    /// To open it with `O_DIRECT` failed.
    Refused(String),
    /// It could not be opened a second time.
    ReopenFailed(String),
}

impl fmt::Display for NoDirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream => f.write_str("a pipe, socket or character device has none: put the data into a file"),
            Self::InMemory => {
                f.write_str("the file is in memory, in the page cache itself: put it on a disk to read it without the cache")
            }
            Self::FileSystem => f.write_str(
                "the file system has none for this file (it may be encrypted, verified, compressed or journalled): put it \
                 on ext4 or xfs, without those",
            ),
            Self::Unknown => f.write_str(
                "the file system hands the file on to another one and does not say what direct I/O it has: open the file \
                 where it really is",
            ),
            Self::Refused(why) => {
                write!(f, "the file system refuses to open the file with O_DIRECT ({why}): put it on ext4 or xfs")
            }
            Self::ReopenFailed(why) => write!(
                f,
                "the file could not be opened a second time, with O_DIRECT ({why}): see that /proc is mounted and that \
                 this user may open the file"
            ),
        }
    }
}

/// A disk, as the kernel told of it when this process first asked about it. A disk that was plugged in since is another one,
/// whatever its name; settings that were changed since are not noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// Its name, like `nvme0n1`: of the whole disk, also where a part of it is meant.
    pub name: String,
    /// The most that it takes in one request, in bytes: a longer one is split.
    pub request_bytes: u64,
    /// Requests that the kernel keeps for it at a time.
    pub queue_depth: u32,
    /// Whether it is better read in order.
    pub rotational: bool,
    /// Its smallest unit, in bytes.
    pub logical_block: u32,
}

impl FileKind {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        if kind.is_dir() { Err(io::Error::from_raw_os_error(libc::EISDIR)) } else { Ok(Self::of_type(kind)) }
    }

    /// A directory, which cannot be opened in the end, counts as a file.
    pub(super) fn of_type(kind: fs::FileType) -> Self {
        match kind {
            kind if kind.is_file() || kind.is_dir() => Self::Regular,
            kind if kind.is_block_device() => Self::BlockDevice,
            _ => Self::Stream,
        }
    }

    pub(super) fn is_stream(self) -> bool {
        self == Self::Stream
    }
}

impl FileFacts {
    /// Asks. `reopen` opens the file again, with more flags; with `O_DIRECT` it is given back, where direct I/O is to be had.
    pub(super) fn look(
        file: &File,
        kind: FileKind,
        reopen: impl FnOnce(libc::c_int) -> io::Result<File>,
    ) -> io::Result<(Self, Option<File>)> {
        let status = status(file)?;
        let mount = Mount::of(file, &status);
        let magic = magic(file)?;
        let file_system = match kind {
            FileKind::BlockDevice => "block device".into(),
            FileKind::Stream => "stream".into(),
            FileKind::Regular => mount.as_ref().map_or_else(|| name_of(magic), |mount| mount.file_system.clone()),
        };
        let device = match kind {
            FileKind::BlockDevice => BlockDevice::of(status.stx_rdev_major, status.stx_rdev_minor),
            FileKind::Regular => BlockDevice::of(status.stx_dev_major, status.stx_dev_minor)
                .or_else(|| mount.as_ref().and_then(Mount::device)),
            FileKind::Stream => None,
        };
        let checksums = kind == FileKind::Regular
            && match magic {
                BTRFS | BCACHEFS => !copied_in_place(file),
                ZFS => true,
                _ => false,
            };
        let asked = match kind {
            FileKind::Stream => Err(NoDirect::Stream),
            FileKind::Regular if [TMPFS, RAMFS, HUGETLBFS].contains(&magic) => Err(NoDirect::InMemory),
            _ => alignment(&status, magic, device.as_ref()),
        };
        let opened = asked.and_then(|asked| {
            let file = reopen(libc::O_DIRECT).map_err(|error| match error.raw_os_error() {
                Some(libc::EINVAL | libc::EOPNOTSUPP) => NoDirect::Refused(error.to_string()),
                _ => NoDirect::ReopenFailed(error.to_string()),
            })?;
            Ok((asked, file))
        });
        let (direct, opened) = match opened {
            Ok((asked, file)) => (Ok(asked), Some(file)),
            Err(why) => (Err(why), None),
        };
        Ok((Self { kind, file_system, direct, device, checksums }, opened))
    }
}

/// What direct I/O of a file asks for, as its file system says, or as its blocks are.
fn alignment(status: &libc::statx, magic: i64, device: Option<&BlockDevice>) -> Result<DirectIo, NoDirect> {
    if status.stx_mask & libc::STATX_DIOALIGN == 0 {
        // Some file systems do not say it, and take multiples of their blocks: those are multiples of the disk's, too.
        if magic == OVERLAYFS {
            return Err(NoDirect::Unknown);
        }
        let block = status.stx_blksize.clamp(512, 65536).next_power_of_two();
        let block = device.map_or(block, |device| block.max(device.logical_block));
        return Ok(DirectIo { memory_alignment: block, offset_alignment: block, read_offset_alignment: block });
    }
    let (memory_alignment, offset_alignment) = (status.stx_dio_mem_align, status.stx_dio_offset_align);
    if memory_alignment == 0 || offset_alignment == 0 {
        return Err(NoDirect::FileSystem);
    }
    let read = if status.stx_mask & libc::STATX_DIO_READ_ALIGN == 0 { 0 } else { status.stx_dio_read_offset_align };
    let read_offset_alignment = if read == 0 { offset_alignment } else { read.min(offset_alignment) };
    Ok(DirectIo { memory_alignment, offset_alignment, read_offset_alignment })
}

impl BlockDevice {
    fn of(major: u32, minor: u32) -> Option<Self> {
        static KNOWN: Recent<(u32, u32, u64), BlockDevice> = Recent::new();
        // Of no disk: file systems in memory or on a network, and those that give their files a number of their own.
        if major == 0 {
            return None;
        }
        match Self::sequence(major, minor) {
            Some(sequence) => KNOWN.get((major, minor, sequence), || Self::ask(major, minor)),
            None => Self::ask(major, minor),
        }
    }

    /// A number that no other disk had or will have until the machine starts anew, of the whole disk also where a part of it
    /// is meant; since Linux 5.15.
    fn sequence(major: u32, minor: u32) -> Option<u64> {
        let folder = format!("/sys/dev/block/{major}:{minor}");
        let read = |name| fs::read_to_string(format!("{folder}/{name}")).ok();
        read("diskseq").or_else(|| read("../diskseq"))?.trim().parse().ok()
    }

    fn ask(major: u32, minor: u32) -> Option<Self> {
        let folder = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        let disk = if folder.join("partition").exists() { folder.parent()? } else { &folder };
        let number =
            |name: &str| -> Option<u64> { fs::read_to_string(disk.join("queue").join(name)).ok()?.trim().parse().ok() };
        let small = |name| number(name).and_then(|number| u32::try_from(number).ok());
        Some(Self {
            name: disk.file_name()?.to_string_lossy().into_owned(),
            request_bytes: number("max_sectors_kb")? << 10,
            queue_depth: small("nr_requests")?,
            rotational: number("rotational")? != 0,
            logical_block: small("logical_block_size")?,
        })
    }
}

/// A line of the kernel's table of mounts: what never changes of one.
#[derive(Clone)]
struct Mount {
    file_system: String,
    source: String,
}

impl Mount {
    /// That of a file. What the kernel mounts for itself, as for memfd, is in no table.
    fn of(file: &File, status: &libc::statx) -> Option<Self> {
        static KNOWN: Recent<u64, Mount> = Recent::new();
        // Only these numbers, since Linux 6.8, go to no other mount later. The table has the others.
        if status.stx_mask & STATX_MNT_ID_UNIQUE == 0 {
            return Self::ask(status);
        }
        KNOWN.get(status.stx_mnt_id, || Self::ask(&ask_status(file, libc::STATX_MNT_ID).ok()?))
    }

    fn ask(status: &libc::statx) -> Option<Self> {
        if status.stx_mask & libc::STATX_MNT_ID == 0 {
            return None;
        }
        let (table, id) = (fs::read_to_string("/proc/self/mountinfo").ok()?, status.stx_mnt_id.to_string());
        let line = table.lines().find(|line| line.split(' ').next() == Some(&id))?;
        // Of fields, as many as there may be, up to a dash; then those that are meant.
        let mut rest = line.split_once(" - ")?.1.split(' ');
        Some(Self { file_system: rest.next()?.into(), source: rest.next()?.into() })
    }

    /// The disk that was mounted: for file systems that give their files a device number of their own, like btrfs.
    fn device(&self) -> Option<BlockDevice> {
        let source = Path::new(&self.source);
        let metadata = source.is_absolute().then(|| fs::metadata(source).ok())??;
        let number = metadata.rdev();
        metadata.file_type().is_block_device().then(|| BlockDevice::of(libc::major(number), libc::minor(number)))?
    }
}

const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

fn status(file: &File) -> io::Result<libc::statx> {
    // Of the two kinds of a mount's number, the kernel gives the second where it has it.
    let mount = libc::STATX_MNT_ID | STATX_MNT_ID_UNIQUE;
    ask_status(file, libc::STATX_BASIC_STATS | mount | libc::STATX_DIOALIGN | libc::STATX_DIO_READ_ALIGN)
}

fn ask_status(file: &File, mask: u32) -> io::Result<libc::statx> {
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty string, so that the descriptor itself is meant; the buffer is as large as its type.
    match unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, mask, status.as_mut_ptr()) } {
        // SAFETY: the kernel has filled it, and all zeros were valid, too.
        0 => Ok(unsafe { status.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

// Of linux/magic.h, and of the file systems' own sources.
const BCACHEFS: i64 = 0xca45_1a4e;
const BTRFS: i64 = 0x9123_683e;
const HUGETLBFS: i64 = 0x9584_58f6;
const OVERLAYFS: i64 = 0x794c_7630;
const RAMFS: i64 = 0x8584_58f6;
const TMPFS: i64 = 0x0102_1994;
const ZFS: i64 = 0x2fc1_2fc1;

/// Of a file system that no mount names.
fn name_of(magic: i64) -> String {
    match magic {
        HUGETLBFS => "hugetlbfs".into(),
        TMPFS => "tmpfs".into(),
        _ => format!("{magic:#x}"),
    }
}

fn magic(file: &File) -> io::Result<i64> {
    Ok(file_system(file)?.f_type)
}

/// What is free on a file's file system, for whoever may take the last of it; `None` where it has no end.
pub(super) fn free_bytes(file: &File) -> io::Result<Option<u64>> {
    let found = file_system(file)?;
    let block = u64::try_from(found.f_bsize).unwrap_or(1);
    Ok((found.f_blocks > 0).then_some(found.f_bfree.saturating_mul(block)))
}

fn file_system(file: &File) -> io::Result<libc::statfs> {
    let mut found = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the buffer is as large as its type.
    match unsafe { libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) } {
        // SAFETY: the kernel has filled it.
        0 => Ok(unsafe { found.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a file is never copied on write, which on btrfs means that it has no checksums either.
fn copied_in_place(file: &File) -> bool {
    const FS_NOCOW_FL: libc::c_int = 0x0080_0000;
    let mut flags: libc::c_int = 0;
    // SAFETY: the call writes an int, in spite of its name.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    result == 0 && flags & FS_NOCOW_FL != 0
}

/// The size of a disk.
pub(super) fn device_bytes(file: &File) -> io::Result<u64> {
    const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;
    let mut bytes = 0u64;
    // SAFETY: the call writes eight bytes.
    match unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

/// cachestat(2): how many pages of a range are in the page cache.
pub(super) fn cached_pages(file: &File, offset: u64, len: u64) -> Option<u64> {
    const SYS_CACHESTAT: libc::c_long = 451; // on all architectures
    let range: [u64; 2] = [offset, len];
    // Cached, dirty, under way to the disk, evicted, recently so.
    let mut pages = [0u64; 5];
    // SAFETY: the kernel's structures consist of two and five such numbers.
    let result = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range.as_ptr(), pages.as_mut_ptr(), 0 as libc::c_uint)
    };
    (result == 0).then_some(pages[0])
}

pub(super) fn page_bytes() -> u64 {
    // SAFETY: a call without memory.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The file system's kind and the disk, by asking about both and keeping neither.
#[cfg(test)]
pub(super) fn asked_anew(file: &File) -> (String, Option<BlockDevice>) {
    let status = ask_status(file, libc::STATX_BASIC_STATS | libc::STATX_MNT_ID).unwrap();
    let mount = Mount::ask(&status).unwrap();
    let device = BlockDevice::ask(status.stx_dev_major, status.stx_dev_minor);
    (mount.file_system.clone(), device.or_else(|| mount.device()))
}
