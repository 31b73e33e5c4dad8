//! Files for real, in the folder for temporary ones.

use std::io::{Read, Write, pipe};
use std::os::unix::net::UnixListener;
use std::sync::atomic::AtomicU32;

use super::*;
use crate::skip::skip;
use crate::staging::Staging;

const READ: OpenHow =
    OpenHow { read: true, write: false, create: false, create_new: false, truncate: false, storage: false };
const BOTH: OpenHow =
    OpenHow { read: true, write: true, create: true, create_new: false, truncate: false, storage: false };

/// A name that nobody else has; what it names goes with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("limosa-os-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    /// With a pipe there.
    pub(crate) fn fifo() -> Self {
        let scratch = Self::new();
        let name = std::ffi::CString::new(scratch.0.to_str().unwrap()).unwrap();
        // SAFETY: a string that ends in zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        scratch
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn open(&self) -> DataFile {
        DataFile::open(&self.0, BOTH).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Bytes that tell where they are.
pub(crate) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| ((at + seed).wrapping_mul(0x9e37_79b1) >> 13 & 0xff).try_into().unwrap()).collect()
}

fn read_all(file: &DataFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap().unwrap()).unwrap() + 1];
    let read = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(read);
    bytes
}

#[test]
fn what_is_written_one_way_is_read_the_other() {
    let scratch = Scratch::new();
    let file = scratch.open();
    let direct = match &file.facts().direct {
        Ok(direct) => *direct,
        Err(why) => return skip("what_is_written_one_way", "direct I/O", &why.to_string()),
    };
    let unit = direct.offset_alignment.max(direct.memory_alignment) as usize;
    let staging = Staging::new(1, 64 * unit).unwrap();
    let memory = staging.slot(0);
    let mut oracle = pattern(64 * unit + 100, 0);
    assert_eq!(file.write_at(&oracle, 0).unwrap(), oracle.len());
    for (start, units) in [(0, 1), (3, 5), (60, 4), (64, 1)] {
        let (offset, len) = ((start * unit) as u64, units * unit);
        // The last one meets the end of the file.
        let there = len.min(oracle.len() - start * unit);
        // SAFETY: the slot is ours alone.
        let read = unsafe { file.read_direct_at(memory, len, offset) }.unwrap();
        // SAFETY: as above.
        let found = unsafe { std::slice::from_raw_parts(memory.as_ptr(), read) };
        assert_eq!(found, &oracle[start * unit..][..there]);
    }
    for (start, units) in [(0, 2), (7, 9), (63, 1)] {
        let (offset, new) = (start * unit, pattern(units * unit, start + 1));
        // SAFETY: the slot is ours alone, and as long as that.
        unsafe { memory.as_ptr().copy_from_nonoverlapping(new.as_ptr(), new.len()) };
        // SAFETY: as above.
        assert_eq!(unsafe { file.write_direct_at(memory, new.len(), offset as u64) }.unwrap(), new.len());
        oracle[offset..offset + new.len()].copy_from_slice(&new);
        assert!(read_all(&file) == oracle, "at {start}");
    }
    // SAFETY: as above.
    let refused = unsafe { file.read_direct_at(memory, unit, 1) }.unwrap_err();
    assert_eq!((refused.kind(), refused.offset), (FileErrorKind::Refused, Some(1)), "{refused}");
}

#[test]
fn facts_hold_together() {
    let scratch = Scratch::new();
    let file = scratch.open();
    let facts = file.facts();
    assert_eq!(facts.kind, FileKind::Regular);
    assert_eq!(facts.direct.is_ok(), file.direct_fd().is_some());
    if let Ok(direct) = facts.direct {
        for number in [direct.memory_alignment, direct.offset_alignment, direct.read_offset_alignment] {
            assert!(number.is_power_of_two(), "{direct:?}");
        }
        assert!(direct.read_offset_alignment <= direct.offset_alignment, "{direct:?}");
    }
    if let Some(device) = &facts.device {
        assert!(device.request_bytes >= 4096 && device.queue_depth > 0 && device.logical_block >= 512, "{device:?}");
        assert!(!device.name.is_empty() && !device.name.contains('/'), "{device:?}");
    }
    let memory = DataFile::from_fd(crate::memfile::memfd().unwrap()).unwrap();
    assert_eq!((memory.facts().direct.clone(), memory.facts().device.clone()), (Err(NoDirect::InMemory), None));
    assert_eq!(memory.facts().file_system, "tmpfs");
    let (end, _other) = pipe().unwrap();
    let stream = DataFile::from_fd(end.into()).unwrap();
    assert_eq!((stream.facts().kind, stream.len().unwrap()), (FileKind::Stream, None));
    assert_eq!(stream.facts().direct, Err(NoDirect::Stream));
    assert!(stream.direct_fd().is_none() && stream.cached_bytes(0, 1).is_none() && !stream.reserve(0, 1).unwrap());
    assert!(file.id() != memory.id() && memory.id() != stream.id());
}

#[test]
fn an_open_file_is_taken_as_it_is() {
    let scratch = Scratch::new();
    scratch.open().write_at(&pattern(5000, 0), 0).unwrap();
    let appending = File::options().read(true).append(true).open(&scratch.0).unwrap();
    let taken = DataFile::from_fd(appending.into()).unwrap();
    assert_eq!(taken.name(), scratch.0);
    assert!(taken.is_readable() && taken.is_writable());
    taken.write_at(b"mine", 0).unwrap();
    let found = read_all(&taken);
    assert_eq!((found.len(), &found[..4]), (5000, &b"mine"[..]), "not behind the end");

    let only_read = DataFile::from_fd(File::open(&scratch.0).unwrap().into()).unwrap();
    assert!(only_read.is_readable() && !only_read.is_writable());
    assert_eq!(only_read.write_at(b"x", 0).unwrap_err().kind(), FileErrorKind::NotOpenFor);

    if only_read.facts().direct.is_ok() {
        let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(&scratch.0).unwrap();
        let mut three = [0; 3];
        assert_eq!(DataFile::from_fd(direct.into()).unwrap().read_at(&mut three, 1).unwrap(), 3);
        assert_eq!(&three, b"ine");
    }
    // The name may go to another file: the descriptors are of the same one.
    let open = scratch.open();
    std::fs::remove_file(&scratch.0).unwrap();
    let gone = DataFile::from_fd(open.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!(gone.facts(), open.facts());
    assert_eq!(read_all(&gone), found);
}

#[test]
fn a_stream_has_no_offsets() {
    let (reader, mut writer) = pipe().unwrap();
    let reader = DataFile::from_fd(reader.into()).unwrap();
    writer.write_all(b"abcdef").unwrap();
    let mut three = [0; 3];
    assert_eq!(reader.read_at(&mut three, 77).unwrap(), 3);
    assert_eq!(&three, b"abc");
    assert_eq!(reader.read_at(&mut three, 0).unwrap(), 3);
    assert_eq!(&three, b"def");
    drop(writer);
    assert_eq!(reader.read_at(&mut three, 0).unwrap(), 0);
    let (mut reader, writer) = pipe().unwrap();
    let writer = DataFile::from_fd(writer.into()).unwrap();
    assert_eq!(writer.write_at(b"xyz", 123).unwrap(), 3);
    writer.sync().unwrap();
    reader.read_exact(&mut three).unwrap();
    assert_eq!(&three, b"xyz");
    drop(reader);
    assert_eq!(writer.write_at(b"xyz", 0).unwrap_err().kind(), FileErrorKind::Gone);
}

#[test]
fn the_page_cache_can_be_asked_and_emptied() {
    let scratch = Scratch::new();
    let file = scratch.open();
    file.write_at(&pattern(10 * 4096, 0), 0).unwrap();
    let Some(cached) = file.cached_bytes(0, 10 * 4096) else {
        return skip("the_page_cache_can_be_asked", "cachestat", "the kernel does not tell");
    };
    assert_eq!((cached, file.cached_bytes(0, 100), file.cached_bytes(0, 0)), (10 * 4096, Some(100), Some(0)));
    file.forget_cache().unwrap();
    let left = file.cached_bytes(0, 10 * 4096).unwrap();
    assert!(left == 0 || file.facts().direct == Err(NoDirect::InMemory), "{left}");
    assert_eq!(read_all(&file), pattern(10 * 4096, 0));
}

#[test]
fn opening_tells_what_is_wrong() {
    let scratch = Scratch::new();
    let kind = |path: &Path, how| DataFile::open(path, how).unwrap_err().kind();
    assert_eq!(kind(&scratch.0, READ), FileErrorKind::NotFound);
    assert_eq!(kind(&scratch.0, OpenHow::default()), FileErrorKind::Refused);
    assert_eq!(kind(&std::env::temp_dir(), READ), FileErrorKind::Directory);
    assert_eq!(kind(&std::env::temp_dir(), BOTH), FileErrorKind::Directory);
    assert_eq!(kind(Path::new("/proc/self/exe"), OpenHow { create: false, ..BOTH }), FileErrorKind::NotPermitted);
    let folder: OwnedFd = File::open(std::env::temp_dir()).unwrap().into();
    assert_eq!(DataFile::from_fd(folder).unwrap_err().kind(), FileErrorKind::Directory);
    scratch.open().write_at(b"data", 0).unwrap();
    let new = OpenHow { create_new: true, ..BOTH };
    assert_eq!(kind(&scratch.0, new), FileErrorKind::Exists);
    assert_eq!(read_all(&scratch.open()), b"data");
    assert_eq!(DataFile::open(&scratch.0, OpenHow { truncate: true, ..BOTH }).unwrap().len().unwrap(), Some(0));
    std::fs::remove_file(&scratch.0).unwrap();
    let _socket = UnixListener::bind(&scratch.0).unwrap();
    let error = DataFile::open(&scratch.0, READ).unwrap_err();
    assert_eq!(error.kind(), FileErrorKind::Gone);
    let text = error.to_string();
    assert!(text.starts_with("opening ") && text.contains(scratch.0.to_str().unwrap()), "{text}");
}

#[test]
fn each_failure_has_its_meaning() {
    let full = DataFile::open(Path::new("/dev/full"), OpenHow { create: false, ..BOTH }).unwrap();
    assert_eq!(full.write_at(b"x", 0).unwrap_err().kind(), FileErrorKind::NoSpace);
    let scratch = Scratch::new();
    let file = scratch.open();
    for offset in [1 << 63, u64::MAX] {
        let error = file.read_at(&mut [0], offset).unwrap_err();
        assert_eq!((error.kind(), error.offset), (FileErrorKind::Refused, Some(offset)));
        assert_eq!(file.write_at(b"x", offset).unwrap_err().kind(), FileErrorKind::Refused);
        assert_eq!(file.reserve(offset, 1).unwrap_err().kind(), FileErrorKind::TooLarge);
    }
    let last = (1 << 63) - 1;
    let error = file.write_at(b"x", last).unwrap_err();
    assert!(matches!(error.kind(), FileErrorKind::TooLarge | FileErrorKind::Refused), "{error}");
    assert!(error.to_string().contains(&format!(" at byte {last}")), "{error}");
    // More than this disk has, which is found before anything is taken.
    if file.facts().direct != Err(NoDirect::InMemory) {
        assert_eq!(file.reserve(0, 1 << 56).unwrap_err().kind(), FileErrorKind::NoSpace);
        assert_eq!(file.as_fd().try_clone_to_owned().map(File::from).unwrap().metadata().unwrap().blocks(), 0);
    }
    assert!(!file.reserve(5, 0).unwrap());
    file.reserve(0, 8192).unwrap();
    assert_eq!(file.len().unwrap(), Some(0), "the length stays");
    // Nothing is mapped at the first page.
    let memory = DataFile::open(Path::new("/proc/self/mem"), READ).unwrap();
    assert_eq!(memory.read_at(&mut [0; 8], 0).unwrap_err().kind(), FileErrorKind::Io);
    let (reader, _writer) = pipe().unwrap();
    // SAFETY: a system call without memory.
    unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    let reader = DataFile::from_fd(reader.into()).unwrap();
    assert_eq!(reader.read_at(&mut [0], 0).unwrap_err().kind(), FileErrorKind::NotReady);
    // SAFETY: nothing is read: there is no direct I/O.
    let error = unsafe { reader.read_direct_at(NonNull::dangling(), 0, 0) }.unwrap_err();
    assert_eq!(error.kind(), FileErrorKind::Refused);
    assert!(error.to_string().contains("pipe"), "{error}");
}

#[test]
fn what_keeps_no_data_can_be_refused_without_waiting() {
    let storage = OpenHow { storage: true, ..READ };
    let pipe = Scratch::fifo();
    let refused = |path: &Path, how| DataFile::open(path, how).unwrap_err().kind();
    // Nobody has its other end.
    assert_eq!(refused(pipe.path(), storage), FileErrorKind::NoStorage);
    assert_eq!(refused(pipe.path(), OpenHow { write: true, ..storage }), FileErrorKind::NoStorage);
    assert_eq!(refused(Path::new("/dev/null"), storage), FileErrorKind::NoStorage);
    assert_eq!(refused(&std::env::temp_dir(), storage), FileErrorKind::Directory);
    // By its own name it is waited for.
    let path = pipe.path().to_owned();
    let other = std::thread::spawn(move || File::options().write(true).open(path).unwrap().write_all(b"abc").unwrap());
    let reader = DataFile::open(pipe.path(), READ).unwrap();
    let mut three = [0; 3];
    assert_eq!(reader.read_at(&mut three, 0).unwrap(), 3);
    other.join().unwrap();
    assert_eq!(&three, b"abc");
    let scratch = Scratch::new();
    assert_eq!(refused(scratch.path(), storage), FileErrorKind::NotFound);
    let file = DataFile::open(scratch.path(), OpenHow { storage: true, ..BOTH }).unwrap();
    file.write_at(b"data", 0).unwrap();
    let flags = status_flags(file.as_fd()).unwrap();
    assert_eq!(flags & libc::O_NONBLOCK, 0);
    let file = DataFile::open(scratch.path(), storage).unwrap();
    assert_eq!(read_all(&file), b"data");
}

/// What is kept of disks and mounts is what the kernel says when it is asked anew.
#[test]
fn facts_that_are_kept_are_those_that_are_found() {
    let scratch = Scratch::new();
    let first = scratch.open();
    for _ in 0..3 {
        assert_eq!(scratch.open().facts(), first.facts());
    }
    assert_eq!(facts::asked_anew(&first.buffered), (first.facts.file_system.clone(), first.facts.device.clone()));
}
