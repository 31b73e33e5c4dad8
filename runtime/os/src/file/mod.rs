//! A file as streaming needs it: open twice, through the page cache and past it, with what is known of its file system and
//! device. Calls here move bytes at once, one system call each; many at a time go through a [`crate::Ring`]. It does *not*
//! choose between the two ways.

mod error;
mod facts;
mod recent;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::reservation::to_usize;

pub use error::{FileError, FileErrorKind, IoFailure};
pub use facts::{BlockDevice, DirectIo, FileFacts, FileKind, NoDirect};

/// How a file is opened by name. The default opens nothing: say at least `read` or `write`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // as std::fs::OpenOptions has them
pub struct OpenHow {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Create it if there is none; needs `write`.
    pub create: bool,
    /// Create it, and fail if there is one; needs `write`.
    pub create_new: bool,
    /// Empty it; needs `write`.
    pub truncate: bool,
    /// Only what keeps data, a file or a disk: what else there is, is refused, and nobody is waited for. Without, to open a
    /// named pipe waits for its other end, as open(2) does.
    pub storage: bool,
}

/// An open file. It can be used by several threads at a time.
///
/// # Example
/// ```
/// use limosa_os::{DataFile, OpenHow};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = DataFile::open("/proc/self/exe".as_ref(), OpenHow { read: true, ..OpenHow::default() })?;
/// let mut magic = [0; 4];
/// assert_eq!(file.read_at(&mut magic, 0)?, 4);
/// assert_eq!(&magic[1..], b"ELF");
/// match &file.facts().direct {
///     Ok(direct) => println!("direct I/O in multiples of {} bytes", direct.offset_alignment),
///     Err(why) => println!("no direct I/O: {why}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DataFile {
    buffered: File,
    direct: Option<File>,
    facts: FileFacts,
    name: PathBuf,
    id: u64,
    readable: bool,
    writable: bool,
}

impl DataFile {
    /// Opens the file at `path`. A named pipe waits for its other end, unless `how.storage` refuses it.
    ///
    /// # Errors
    /// [`FileErrorKind::NotFound`], [`FileErrorKind::Exists`], [`FileErrorKind::Directory`],
    /// [`FileErrorKind::NotPermitted`], [`FileErrorKind::NoSpace`], [`FileErrorKind::TooManyFiles`],
    /// [`FileErrorKind::Refused`] (a combination that makes no sense), [`FileErrorKind::Gone`], [`FileErrorKind::Io`]; with
    /// `how.storage` [`FileErrorKind::NoStorage`], and [`FileErrorKind::NotReady`] where somebody has a lease on the file.
    pub fn open(path: &Path, how: OpenHow) -> Result<Self, FileError> {
        let opening = |source| failed(path, "opening", None, source);
        if how.storage
            && std::fs::metadata(path).is_ok_and(|metadata| FileKind::of_type(metadata.file_type()).is_stream())
        {
            return Err(no_storage(path));
        }
        // It may have been replaced since.
        let patience = if how.storage { libc::O_NONBLOCK } else { 0 };
        let file = File::options()
            .read(how.read)
            .write(how.write)
            .create(how.create)
            .create_new(how.create_new)
            .truncate(how.truncate)
            .custom_flags(libc::O_NOCTTY | patience)
            .open(path)
            .map_err(opening)?;
        if how.storage {
            if FileKind::of(&file).map_err(opening)?.is_stream() {
                return Err(no_storage(path));
            }
            let flags = status_flags(file.as_fd()).map_err(opening)?;
            // SAFETY: a system call without memory.
            if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) } != 0 {
                return Err(opening(io::Error::last_os_error()));
            }
        }
        Self::of(file, path.into())
    }

    /// Takes an open file. Its own position is not used, unless it is a stream; that it was open for appending, or with
    /// `O_DIRECT`, has no effect on what is done here.
    ///
    /// # Errors
    /// As [`Self::open`], for files that have to be opened anew: those that are open for appending or with `O_DIRECT`.
    /// [`FileErrorKind::Directory`].
    pub fn from_fd(fd: OwnedFd) -> Result<Self, FileError> {
        let by_number = by_number(fd.as_fd());
        let name = std::fs::read_link(&by_number).unwrap_or(by_number);
        Self::of(fd.into(), name)
    }

    fn of(mut buffered: File, name: PathBuf) -> Result<Self, FileError> {
        let asking = |source| failed(&name, "asking about", None, source);
        let flags = status_flags(buffered.as_fd()).map_err(asking)?;
        let kind = FileKind::of(&buffered).map_err(asking)?;
        // Where it is open for appending, the kernel would take no offset; with O_DIRECT, no other than aligned ones.
        if kind != FileKind::Stream && flags & (libc::O_APPEND | libc::O_DIRECT | libc::O_NONBLOCK) != 0 {
            buffered = reopen(buffered.as_fd(), flags, 0).map_err(|source| failed(&name, "opening", None, source))?;
        }
        let direct = |flag| reopen(buffered.as_fd(), flags, flag);
        let (facts, direct) = FileFacts::look(&buffered, kind, direct).map_err(asking)?;
        let access = flags & libc::O_ACCMODE;
        let (readable, writable) = (access != libc::O_WRONLY, access != libc::O_RDONLY);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { buffered, direct, facts, name, id, readable, writable })
    }

    /// The name that it was opened by, or that the kernel knows it by: for people to read.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// A number that no other open file of this process has or had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What is known of it. It was asked when it was opened, and holds as long as it is open.
    #[must_use]
    pub fn facts(&self) -> &FileFacts {
        &self.facts
    }

    /// Whether it is open for reading.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether it is open for writing.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// How many bytes it has now; `None` for a stream.
    ///
    /// # Errors
    /// [`FileErrorKind::Gone`], [`FileErrorKind::Io`].
    #[allow(clippy::len_without_is_empty)] // as std::fs::Metadata, which has no use for it either
    pub fn len(&self) -> Result<Option<u64>, FileError> {
        let asking = |source| self.failed("asking about", None, source);
        match self.facts.kind {
            FileKind::Regular => Ok(Some(self.buffered.metadata().map_err(asking)?.len())),
            FileKind::BlockDevice => facts::device_bytes(&self.buffered).map(Some).map_err(asking),
            FileKind::Stream => Ok(None),
        }
    }

    /// Reads through the page cache, from byte `offset` on (of a stream: what comes next); 0 at the end. It can be less
    /// than was asked for.
    ///
    /// # Errors
    /// [`FileErrorKind::NotOpenFor`], [`FileErrorKind::Refused`] (an offset of 2⁶³ or beyond),
    /// [`FileErrorKind::BadMemory`], [`FileErrorKind::NotReady`], [`FileErrorKind::Gone`], [`FileErrorKind::Io`].
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize, FileError> {
        let memory = NonNull::from(&mut *into).cast();
        // SAFETY: the slice is ours to write, for as long as the call lasts.
        unsafe { self.transfer(&self.buffered, pread, memory, into.len(), offset) }
            .map_err(|source| self.failed("reading", Some(offset), source))
    }

    /// Writes through the page cache, from byte `offset` on (to a stream: next). It can be less than was asked for.
    ///
    /// # Errors
    /// [`FileErrorKind::NotOpenFor`], [`FileErrorKind::NoSpace`], [`FileErrorKind::TooLarge`],
    /// [`FileErrorKind::Refused`] (an offset of 2⁶³ or beyond), [`FileErrorKind::NotReady`], [`FileErrorKind::Gone`],
    /// [`FileErrorKind::Io`].
    pub fn write_at(&self, from: &[u8], offset: u64) -> Result<usize, FileError> {
        let memory = NonNull::from(from).cast();
        // SAFETY: the slice is only read, for as long as the call lasts.
        unsafe { self.transfer(&self.buffered, pwrite, memory, from.len(), offset) }
            .map_err(|source| self.failed("writing", Some(offset), source))
    }

    /// Reads past the page cache, from byte `offset` on; 0 at the end. It can be less than was asked for.
    ///
    /// # Errors
    /// [`FileErrorKind::Refused`] where there is no direct I/O, or something is not aligned; else as [`Self::read_at`].
    ///
    /// # Safety
    /// The memory is valid for writes, and nobody else reads or writes it before the call returns.
    pub unsafe fn read_direct_at(&self, into: NonNull<u8>, len: usize, offset: u64) -> Result<usize, FileError> {
        let direct = self.direct("reading directly", offset)?;
        // SAFETY: as the caller promises.
        unsafe { self.transfer(direct, pread, into, len, offset) }
            .map_err(|source| self.failed("reading directly", Some(offset), source))
    }

    /// Writes past the page cache, from byte `offset` on. It can be less than was asked for.
    ///
    /// # Errors
    /// [`FileErrorKind::Refused`] where there is no direct I/O, or something is not aligned; else as [`Self::write_at`].
    ///
    /// # Safety
    /// The memory is valid for reads, and nobody writes it before the call returns.
    pub unsafe fn write_direct_at(&self, from: NonNull<u8>, len: usize, offset: u64) -> Result<usize, FileError> {
        let direct = self.direct("writing directly", offset)?;
        // SAFETY: as the caller promises.
        unsafe { self.transfer(direct, pwrite, from, len, offset) }
            .map_err(|source| self.failed("writing directly", Some(offset), source))
    }

    /// Waits until what was written is on the device.
    ///
    /// # Errors
    /// [`FileErrorKind::NoSpace`], [`FileErrorKind::Io`]: something written before is lost. A stream has nothing to wait for.
    pub fn sync(&self) -> Result<(), FileError> {
        match self.facts.kind {
            FileKind::Stream => Ok(()),
            _ => self.buffered.sync_all().map_err(|source| self.failed("syncing", None, source)),
        }
    }

    /// How many bytes of a range are in the page cache, in whole pages; `None` where the kernel does not tell (before
    /// Linux 6.5, streams, files of an overlay, files that belong to others).
    #[must_use]
    pub fn cached_bytes(&self, offset: u64, len: u64) -> Option<u64> {
        // An overlay keeps nothing itself: it is with the file that it stands for.
        if self.facts.kind == FileKind::Stream || self.facts.file_system == "overlay" {
            return None;
        }
        if len == 0 {
            return Some(0); // to the kernel it would mean: to the end
        }
        facts::cached_pages(&self.buffered, offset, len).map(|pages| (pages * facts::page_bytes()).min(len))
    }

    /// Writes back what the page cache has of it, and drops it from there, as far as nobody maps it: for benches and tests.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn forget_cache(&self) -> Result<(), FileError> {
        let forgetting = |source| self.failed("clearing the cache of", None, source);
        self.buffered.sync_data().map_err(forgetting)?;
        // SAFETY: a system call without memory.
        match unsafe { libc::posix_fadvise(self.buffered.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
            0 => Ok(()),
            errno => Err(forgetting(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Makes room for a range, so that a lack of it shows before it is written. The file's length stays. `false` where
    /// nothing of the kind is to be had. Where it fails late, because others take room meanwhile, what it found stays the
    /// file's.
    ///
    /// # Errors
    /// [`FileErrorKind::NoSpace`], [`FileErrorKind::TooLarge`], [`FileErrorKind::NotOpenFor`], [`FileErrorKind::Io`].
    pub fn reserve(&self, offset: u64, len: u64) -> Result<bool, FileError> {
        if self.facts.kind != FileKind::Regular || len == 0 {
            return Ok(false);
        }
        match self.allocate(offset, len) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => Ok(false),
            Err(source) => Err(self.failed("making room in", Some(offset), source)),
        }
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).filter(|end| libc::off_t::try_from(*end).is_ok());
        let (Some(_), Ok(start), Ok(signed)) = (end, libc::off_t::try_from(offset), libc::off_t::try_from(len)) else {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        };
        // The kernel would take all there is before it finds that it is not enough, and keep it.
        let has = self.buffered.metadata()?.blocks().saturating_mul(512);
        if facts::free_bytes(&self.buffered)?.is_some_and(|free| len.saturating_sub(has) > free) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let fd = self.buffered.as_raw_fd();
        let call = || {
            // SAFETY: a system call without memory.
            let result = unsafe { libc::fallocate(fd, libc::FALLOC_FL_KEEP_SIZE, start, signed) };
            isize::try_from(result).unwrap_or(-1)
        };
        repeated(call).map(drop)
    }

    /// The descriptor past the page cache, where there is one: for requests in a ring.
    #[must_use]
    pub fn direct_fd(&self) -> Option<BorrowedFd<'_>> {
        self.direct.as_ref().map(AsFd::as_fd)
    }

    /// A failure of this file, told with its name: for requests in a ring.
    #[must_use]
    pub fn error(&self, operation: &'static str, offset: Option<u64>, failure: IoFailure) -> FileError {
        FileError { file: self.name.clone(), operation, offset, failure }
    }

    fn failed(&self, operation: &'static str, offset: Option<u64>, source: io::Error) -> FileError {
        self.error(operation, offset, source.into())
    }

    fn direct(&self, operation: &'static str, offset: u64) -> Result<&File, FileError> {
        self.direct.as_ref().ok_or_else(|| {
            let why = self.facts.direct.as_ref().err().map_or_else(String::new, ToString::to_string);
            let failure = IoFailure { kind: FileErrorKind::Refused, source: io::Error::other(why) };
            self.error(operation, Some(offset), failure)
        })
    }

    /// # Safety
    /// The memory is valid for what `call` does with it, until it returns.
    unsafe fn transfer(
        &self,
        file: &File,
        call: Call,
        memory: NonNull<u8>,
        len: usize,
        offset: u64,
    ) -> io::Result<usize> {
        let offset = match self.facts.kind {
            FileKind::Stream => None,
            _ => Some(libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?),
        };
        // SAFETY: as the caller promises.
        let moved = repeated(|| unsafe { call(file.as_raw_fd(), memory.as_ptr(), len, offset) })?;
        Ok(to_usize(moved))
    }
}

/// Through the page cache.
impl AsFd for DataFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.buffered.as_fd()
    }
}

type Call = unsafe fn(libc::c_int, *mut u8, usize, Option<libc::off_t>) -> isize;

/// # Safety
/// The memory is valid for writes until it returns.
pub(crate) unsafe fn pread(fd: libc::c_int, memory: *mut u8, len: usize, offset: Option<libc::off_t>) -> isize {
    match offset {
        // SAFETY: as the caller promises.
        Some(offset) => unsafe { libc::pread(fd, memory.cast(), len, offset) },
        // SAFETY: as above.
        None => unsafe { libc::read(fd, memory.cast(), len) },
    }
}

/// # Safety
/// The memory is valid for reads until it returns.
pub(crate) unsafe fn pwrite(fd: libc::c_int, memory: *mut u8, len: usize, offset: Option<libc::off_t>) -> isize {
    match offset {
        // SAFETY: as the caller promises.
        Some(offset) => unsafe { libc::pwrite(fd, memory.cast(), len, offset) },
        // SAFETY: as above.
        None => unsafe { libc::write(fd, memory.cast(), len) },
    }
}

/// Calls until no signal comes in between.
pub(crate) fn repeated(mut call: impl FnMut() -> isize) -> io::Result<u64> {
    loop {
        if let Ok(result) = u64::try_from(call()) {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

fn failed(file: &Path, operation: &'static str, offset: Option<u64>, source: io::Error) -> FileError {
    FileError { file: file.into(), operation, offset, failure: source.into() }
}

fn no_storage(file: &Path) -> FileError {
    let source = io::Error::other("it keeps no data");
    let failure = IoFailure { kind: FileErrorKind::NoStorage, source };
    FileError { file: file.into(), operation: "opening", offset: None, failure }
}

fn by_number(fd: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// Opens the same file a second time, whatever its name is by now, for the same directions.
fn reopen(file: BorrowedFd<'_>, flags: libc::c_int, more: libc::c_int) -> io::Result<File> {
    let access = flags & libc::O_ACCMODE;
    File::options()
        .read(access != libc::O_WRONLY)
        .write(access != libc::O_RDONLY)
        .custom_flags(libc::O_NOCTTY | more)
        .open(by_number(file))
}

/// Opens a pipe a second time, for what it was open for, so that calls on it do not wait.
pub(crate) fn reopen_without_waiting(fd: RawFd) -> io::Result<File> {
    // SAFETY: whoever asks keeps it open meanwhile.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    reopen(fd, status_flags(fd)?, libc::O_NONBLOCK)
}

/// What a ring must know of a file before it calls.
pub(crate) struct Opened {
    /// Whether it is to be waited for. Pipes and sockets are, also with `O_NONBLOCK`, as io_uring has it.
    pub(crate) waits: bool,
    pub(crate) is_pipe_or_socket: bool,
}

impl Opened {
    pub(crate) fn of(fd: RawFd) -> io::Result<Self> {
        let mut status = MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the buffer is as large as its type.
        if unsafe { libc::fstat(fd, status.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has filled it.
        let kind = unsafe { status.assume_init() }.st_mode & libc::S_IFMT;
        // SAFETY: a system call without memory; it has just been seen to be open.
        let flags = status_flags(unsafe { BorrowedFd::borrow_raw(fd) })?;
        let is_pipe_or_socket = [libc::S_IFIFO, libc::S_IFSOCK].contains(&kind);
        let waits = is_pipe_or_socket || kind == libc::S_IFCHR && flags & libc::O_NONBLOCK == 0;
        Ok(Self { waits, is_pipe_or_socket })
    }
}

fn status_flags(file: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: a system call without memory.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags),
    }
}
