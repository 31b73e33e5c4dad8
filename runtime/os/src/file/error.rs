//! What can go wrong with a file's data, by meaning. It does *not* say which file of several to try next, or what had
//! arrived before: the caller knows.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A file that could not be opened, read, written or asked, and why.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}{}: {failure}", file.display(), At(*offset))]
pub struct FileError {
    /// Its name, as it was opened.
    pub file: PathBuf,
    /// What was tried, like `reading`.
    pub operation: &'static str,
    /// At which byte, where that has a meaning.
    pub offset: Option<u64>,
    /// Why it failed.
    #[source]
    pub failure: IoFailure,
}

impl FileError {
    /// What the failure means.
    #[must_use]
    pub fn kind(&self) -> FileErrorKind {
        self.failure.kind
    }
}

/// Why input or output failed, without the file.
#[derive(Debug, thiserror::Error)]
#[error("{source}: {kind}")]
pub struct IoFailure {
    /// What it means.
    pub kind: FileErrorKind,
    /// The kernel's reason.
    #[source]
    pub source: io::Error,
}

/// What a failure means. As text it says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileErrorKind {
    /// The file system or its device does not do this: most often direct I/O that is not aligned as
    /// [`DirectIo`](super::DirectIo) tells, or memory of a device that the file's cannot reach.
    Refused,
    /// No room is left on the file system, or to this user.
    NoSpace,
    /// The file would be larger than its file system or `ulimit -f` allows, or an offset is 2⁶³ or beyond.
    TooLarge,
    /// There is no such file.
    NotFound,
    /// There is one already, and a new one was asked for.
    Exists,
    /// It is a directory.
    Directory,
    /// It is a pipe, a socket or a character device, and what keeps data was asked for.
    NoStorage,
    /// This user may not, or nobody may: a file system that is mounted read-only, a program that is running.
    NotPermitted,
    /// It is not open for this direction.
    NotOpenFor,
    /// It is open without waiting (`O_NONBLOCK`), and there is nothing to be had now.
    NotReady,
    /// It was cancelled.
    Cancelled,
    /// The device, the server or the other end of the pipe is gone.
    Gone,
    /// Input and output do not reach this memory.
    BadMemory,
    /// The kernel is out of memory.
    OutOfMemory,
    /// No file descriptor is left.
    TooManyFiles,
    /// The device failed, or something else did.
    Io,
}

impl fmt::Display for FileErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => {
                "neither the file system nor its device does this: for direct I/O, align offset, length and memory as the \
                 file's facts tell, or read through the page cache"
            }
            Self::NoSpace => "no room is left there: free some on that file system, or raise this user's quota",
            Self::TooLarge => "so large a file is not allowed: see `ulimit -f`, or use another file system",
            Self::NotFound => "there is no such file: see its name, or create it",
            Self::Exists => "there is one already: remove it, or open it as it is",
            Self::Directory => "this is a directory: name a file in it",
            Self::NoStorage => "this is a pipe, a socket or a character device: name a file or a disk",
            Self::NotPermitted => {
                "this user may not do that, the file system is mounted read-only, or the program is running: change the \
                 file's mode, or copy the file"
            }
            Self::NotOpenFor => "the file is not open for that: open it for reading, or for writing where it is written",
            Self::NotReady => "the file is open with O_NONBLOCK and has nothing now: open it without",
            Self::Cancelled => "it was cancelled",
            Self::Gone => "its device, its server, or the other end of the pipe is gone: connect it again and open it anew",
            Self::BadMemory => {
                "input and output do not reach that memory: it is not mapped, or not for writing, or belongs to a device"
            }
            Self::OutOfMemory => "the kernel is out of memory: free some",
            Self::TooManyFiles => {
                "no file descriptor is left: close some, or raise `ulimit -n` or the sysctl fs.file-max"
            }
            Self::Io => "the device failed; the kernel's log (dmesg) tells more",
        })
    }
}

impl From<io::Error> for IoFailure {
    fn from(source: io::Error) -> Self {
        // What the standard library refuses, it refuses without the kernel: options that contradict each other.
        let own = if source.kind() == io::ErrorKind::InvalidInput { FileErrorKind::Refused } else { FileErrorKind::Io };
        let kind = source.raw_os_error().map_or(own, meaning);
        Self { kind, source }
    }
}

impl IoFailure {
    /// Of a negative number that the kernel gave back.
    pub(crate) fn of_result(result: i32) -> Self {
        io::Error::from_raw_os_error(result.saturating_neg()).into()
    }
}

fn meaning(errno: i32) -> FileErrorKind {
    match errno {
        // The second: the disk's queue takes no pages of another device.
        libc::EINVAL | libc::EREMOTEIO | libc::EOPNOTSUPP | libc::ENOSYS | libc::ESPIPE | libc::ENOTTY => {
            FileErrorKind::Refused
        }
        libc::ENOSPC | libc::EDQUOT => FileErrorKind::NoSpace,
        libc::EFBIG | libc::EOVERFLOW => FileErrorKind::TooLarge,
        libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG | libc::ELOOP => FileErrorKind::NotFound,
        libc::EEXIST => FileErrorKind::Exists,
        libc::EISDIR => FileErrorKind::Directory,
        libc::EACCES | libc::EPERM | libc::EROFS | libc::ETXTBSY => FileErrorKind::NotPermitted,
        libc::EBADF => FileErrorKind::NotOpenFor,
        libc::EAGAIN => FileErrorKind::NotReady,
        // The second is of a request that a worker of the kernel's was busy with. System calls are repeated instead.
        libc::ECANCELED | libc::EINTR => FileErrorKind::Cancelled,
        libc::ENODEV | libc::ENXIO | libc::EPIPE | libc::ESTALE | libc::ESHUTDOWN => FileErrorKind::Gone,
        libc::EFAULT => FileErrorKind::BadMemory,
        libc::ENOMEM => FileErrorKind::OutOfMemory,
        libc::EMFILE | libc::ENFILE => FileErrorKind::TooManyFiles,
        _ => FileErrorKind::Io,
    }
}

struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |offset| write!(f, " at byte {offset}"))
    }
}
