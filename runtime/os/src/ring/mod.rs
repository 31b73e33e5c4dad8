//! Requests in flight between files and memory, for one thread: by the kernel's own queue (io_uring), or where that may not
//! be used, by a few threads. It does *not* own the memory, cut requests, or wait for anything but completions and its waker.

#[cfg(test)]
mod tests;
mod threads;
mod uring;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::OsError;
use crate::file::IoFailure;
use crate::inject::{Call, fails};
use crate::shim::Direction;
use crate::wakeup::Wakeup;
use threads::Threads;
use uring::Uring;

/// Requests in flight at most.
const MOST: u32 = 4096;
/// Places for registered files.
const FILES: u32 = 64;
/// Places for registered buffers.
const BUFFERS: u16 = 64;
/// Tokens are below: what is not is the ring's own.
const TOKENS: u64 = u64::MAX - 1;

/// How a ring does what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RingKind {
    /// The kernel's own queue, io_uring.
    IoUring,
    /// Threads, each with one request at a time: what is left where io_uring may not be used.
    Threads,
}

impl fmt::Display for RingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Threads => "threads",
        })
    }
}

/// A ring that does not work.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// This process may not use io_uring: allow it.
    #[error(
        "this process may not use io_uring ({source}): set the sysctl kernel.io_uring_disabled to 0, or allow it in the \
         sandbox (seccomp)"
    )]
    Unavailable {
        /// The kernel's reason.
        source: io::Error,
    },
    /// So much memory may not be registered: raise the limit, or go without.
    #[error("{bytes} bytes cannot be registered for input and output ({source}): raise `ulimit -l`, or free memory")]
    MemoryLimit {
        /// Bytes asked for.
        bytes: u64,
        /// The kernel's reason.
        source: io::Error,
    },
    /// That memory cannot be registered: it is not mapped, is a device's, or is more than 1 GiB at a time.
    #[error(
        "{bytes} bytes at {address:#x} cannot be registered for input and output ({source}): they must be mapped memory, \
         not of a device, and at most 1 GiB at a time"
    )]
    BadMemory {
        /// Where.
        address: usize,
        /// Bytes asked for.
        bytes: u64,
        /// The kernel's reason.
        source: io::Error,
    },
    /// No place is left to register another.
    #[error("no place is left to register {what}: at most {limit}")]
    Unregistered {
        /// What was to be registered.
        what: &'static str,
        /// How many there can be.
        limit: u32,
    },
    /// It was made by a process that this one is a child of: make another.
    #[error("the ring was made by another process: make another one after fork()")]
    OtherProcess,
    /// No file descriptor is left.
    #[error("no file descriptor is left ({source}): close some, or raise `ulimit -n` or the sysctl fs.file-max")]
    TooManyFiles {
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel is out of memory, or this user of what may be locked, of which a ring takes a little.
    #[error("the kernel has no memory for a ring ({source}): free some, or raise `ulimit -l`")]
    OutOfMemory {
        /// The kernel's reason.
        source: io::Error,
    },
    /// Anything else.
    #[error("{operation} failed: {source}")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl RingError {
    fn of(operation: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Self::TooManyFiles { source },
            Some(libc::ENOMEM) => Self::OutOfMemory { source },
            _ => Self::Failed { operation, source },
        }
    }
}

/// As many requests are in flight as there is room for: wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many requests are in flight as there is room for: wait for one")]
pub struct QueueFull;

/// A registered buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(u16);

/// A registered file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileSlot(u32);

/// The file that a request is about.
#[derive(Clone, Copy, Debug)]
pub enum RingFile<'a> {
    /// Registered by [`Ring::register_file`].
    Slot(FileSlot),
    /// Any other.
    Fd(BorrowedFd<'a>),
}

/// What is to be moved. It can be moved in part.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Of which file.
    pub file: RingFile<'a>,
    /// Which way.
    pub direction: Direction,
    /// From which byte of the file on; `None` for the file's own position, as streams have it.
    pub offset: Option<u64>,
    /// Where in memory.
    pub memory: *mut u8,
    /// How many bytes.
    pub len: u32,
    /// The registered buffer that the memory lies in, where there is one.
    pub buffer: Option<BufferId>,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Completion {
    /// As it was given to [`Ring::push`].
    pub token: u64,
    /// How many bytes were moved; 0 at the end of the file.
    pub result: Result<u32, IoFailure>,
}

/// A queue of requests. It stays on the thread that made it, and is of no use in a child process.
///
/// To drop it cancels what is in flight, and waits until all memory has been given back.
///
/// # Example
/// ```
/// use std::os::fd::AsFd;
///
/// use limosa_os::shim::Direction;
/// use limosa_os::{Request, Ring, RingFile};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut ring = Ring::new(8)?;
/// if let Some(why) = ring.why_not_uring() {
///     println!("requests go by {}, because {why}", ring.kind());
/// }
/// let file = std::fs::File::open("/proc/self/exe")?;
/// let mut magic = [0; 4];
/// let request = Request {
///     file: RingFile::Fd(file.as_fd()),
///     direction: Direction::FromFile,
///     offset: Some(0),
///     memory: magic.as_mut_ptr(),
///     len: 4,
///     buffer: None,
/// };
/// // SAFETY: nobody uses `magic` before the completion has been taken.
/// unsafe { ring.push(7, &request) }?;
/// ring.wait()?;
/// let done = ring.next().ok_or("a completion")?;
/// assert_eq!((done.token, done.result?), (7, 4));
/// assert_eq!(&magic[1..], b"ELF");
/// # Ok(())
/// # }
/// ```
pub struct Ring {
    queue: Box<dyn Queue>,
    kind: RingKind,
    /// Why it is not the kernel's queue, where that was tried.
    refusal: Option<RingError>,
    depth: usize,
    waker: RingWaker,
    /// The kernel lets only the thread that made it submit.
    _not_send: PhantomData<*mut ()>,
}

/// What a kind of ring does; the contract of each is that of the [`Ring`]'s method.
trait Queue {
    unsafe fn register_buffer(&mut self, memory: NonNull<u8>, len: usize) -> Result<BufferId, RingError>;
    fn register_file(&mut self, fd: BorrowedFd<'_>) -> Result<FileSlot, RingError>;
    fn forget_file(&mut self, slot: FileSlot) -> Result<(), RingError>;
    /// There is room for it in the ring, and the token is none of the ring's own.
    unsafe fn push(&mut self, token: u64, request: &Request<'_>) -> Result<(), QueueFull>;
    fn cancel(&mut self, token: u64);
    fn in_flight(&self) -> usize;
    fn submit(&mut self) -> Result<(), RingError>;
    fn wait_for(&mut self, completions: usize) -> Result<(), RingError>;
    fn wait_a_while(&mut self) -> Result<(), RingError>;
    fn next(&mut self) -> Option<Completion>;
}

/// Makes the ring's thread return from [`Ring::wait`]: from any thread, for as long as it likes.
#[derive(Clone, Debug)]
pub struct RingWaker {
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    wakeup: Wakeup,
    /// It rings already, and the ring's thread has not heard it: another call would add nothing.
    rung: AtomicBool,
}

impl Bell {
    /// Makes it ring for the next one. `between` is for tests: whoever wakes then does not ring, and need not: the ring's
    /// thread looks after this. The other way round, its ring would be silenced, and nobody would ring again.
    fn hear(&self, between: impl FnOnce()) {
        self.wakeup.silence();
        between();
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl RingWaker {
    /// Wakes. A wake while the ring does not wait makes the next wait return at once; several are one.
    pub fn wake(&self) {
        if !self.bell.rung.swap(true, Ordering::AcqRel) {
            self.bell.wakeup.ring();
        }
    }
}

impl Ring {
    /// Room for `depth` requests in flight, at least one and at most 4096. It is the kernel's queue, or where none can be
    /// made, threads ([`Self::why_not_uring`]).
    ///
    /// # Errors
    /// [`RingError::TooManyFiles`], [`RingError::OutOfMemory`], [`RingError::Failed`].
    pub fn new(depth: u32) -> Result<Self, RingError> {
        match Self::with(RingKind::IoUring, depth) {
            Ok(ring) => Ok(ring),
            // Threads take descriptors, too.
            Err(error @ RingError::TooManyFiles { .. }) => Err(error),
            Err(refusal) => Ok(Self { refusal: Some(refusal), ..Self::with(RingKind::Threads, depth)? }),
        }
    }

    /// As [`Self::new`], of that kind only.
    ///
    /// # Errors
    /// [`RingError::Unavailable`] (io_uring may not be used), [`RingError::TooManyFiles`], [`RingError::OutOfMemory`],
    /// [`RingError::Failed`].
    pub fn with(kind: RingKind, depth: u32) -> Result<Self, RingError> {
        match kind {
            RingKind::IoUring => Self::of(kind, depth, |depth, waker| Ok(Box::new(Uring::best(depth, waker)?))),
            RingKind::Threads => Self::of(kind, depth, |_, waker| Ok(Box::new(Threads::new(waker)?))),
        }
    }

    fn of(
        kind: RingKind,
        depth: u32,
        queue: impl FnOnce(u32, RingWaker) -> Result<Box<dyn Queue>, RingError>,
    ) -> Result<Self, RingError> {
        let depth = depth.clamp(1, MOST);
        let waker = RingWaker { bell: Arc::new(Bell { wakeup: bell()?, rung: AtomicBool::new(false) }) };
        let queue = queue(depth, waker.clone())?;
        Ok(Self { queue, kind, refusal: None, depth: depth as usize, waker, _not_send: PhantomData })
    }

    /// How it does what it is asked.
    #[must_use]
    pub fn kind(&self) -> RingKind {
        self.kind
    }

    /// Why it is not the kernel's queue; `None` if it is, or if something else was asked for.
    #[must_use]
    pub fn why_not_uring(&self) -> Option<&RingError> {
        self.refusal.as_ref()
    }

    /// What makes [`Self::wait`] return.
    #[must_use]
    pub fn waker(&self) -> RingWaker {
        self.waker.clone()
    }

    /// Registers memory, so that requests in it do not look it up anew. It stays so until the ring is dropped. Threads gain
    /// nothing by it, and find only with the request that memory is not mapped.
    ///
    /// # Errors
    /// [`RingError::MemoryLimit`], [`RingError::BadMemory`], [`RingError::Unregistered`], [`RingError::Failed`].
    ///
    /// # Safety
    /// The memory stays mapped until the ring is dropped.
    pub unsafe fn register_buffer(&mut self, memory: NonNull<u8>, len: usize) -> Result<BufferId, RingError> {
        fails(Call::Known).map_err(|source| RingError::of("registering a buffer", source))?;
        // SAFETY: as the caller promises.
        unsafe { self.queue.register_buffer(memory, len) }
    }

    /// Registers a file, so that requests do not look it up anew. It may be closed then.
    ///
    /// # Errors
    /// [`RingError::Unregistered`] (no place is left: go without), [`RingError::OutOfMemory`],
    /// [`RingError::TooManyFiles`], [`RingError::Failed`].
    pub fn register_file(&mut self, fd: BorrowedFd<'_>) -> Result<FileSlot, RingError> {
        fails(Call::Known).map_err(|source| RingError::of("registering a file", source))?;
        self.queue.register_file(fd)
    }

    /// Ends that. Requests in flight go on, and the file is closed after them.
    ///
    /// # Errors
    /// [`RingError::Failed`], [`RingError::OutOfMemory`]: it is still registered.
    pub fn forget_file(&mut self, slot: FileSlot) -> Result<(), RingError> {
        self.queue.forget_file(slot)
    }

    /// Puts a request into the queue. It begins with the next [`Self::submit`] or [`Self::wait`].
    ///
    /// # Errors
    /// [`QueueFull`]. All else comes with its completion.
    ///
    /// # Panics
    /// If `token` is one of the last two numbers, which are the ring's.
    ///
    /// # Safety
    /// Until the completion of `token` has been taken: the memory is valid, for writes if the file is read; nobody uses it,
    /// or, if the file is written, nobody writes it; and the file stays open, or registered. The process is the one that made
    /// the ring.
    pub unsafe fn push(&mut self, token: u64, request: &Request<'_>) -> Result<(), QueueFull> {
        assert!(token < TOKENS, "the token {token:#x} is the ring's own");
        if self.in_flight() >= self.depth || fails(Call::Push).is_err() {
            return Err(QueueFull);
        }
        // SAFETY: as the caller promises.
        unsafe { self.queue.push(token, request) }
    }

    /// Asks for a request to end early. Its completion comes in any case: with what it says, or with
    /// [`crate::FileErrorKind::Cancelled`]. What a disk is busy with is not ended early.
    pub fn cancel(&mut self, token: u64) {
        self.queue.cancel(token);
    }

    /// Requests whose completion has not been taken.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    /// Begins what was pushed, without waiting.
    ///
    /// # Errors
    /// [`RingError::OtherProcess`], [`RingError::OutOfMemory`], [`RingError::Failed`].
    pub fn submit(&mut self) -> Result<(), RingError> {
        self.queue.submit()
    }

    /// Begins what was pushed, and waits until there is a completion to be taken, or somebody wakes it.
    ///
    /// # Errors
    /// [`RingError::OtherProcess`], [`RingError::OutOfMemory`], [`RingError::Failed`].
    pub fn wait(&mut self) -> Result<(), RingError> {
        self.wait_for(1)
    }

    /// As [`Self::wait`], but for so many completions, or for what has come after 10 ms. Each time that a thread is woken
    /// costs more than a small request. A wake counts as a completion. By threads it waits for one.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_for(&mut self, completions: usize) -> Result<(), RingError> {
        self.queue.wait_for(completions)
    }

    /// As [`Self::wait`], but for no longer than 10 ms where a cancelled request may have to be told again. By threads none
    /// has.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_a_while(&mut self) -> Result<(), RingError> {
        self.queue.wait_a_while()
    }

    /// Takes a completion, if there is one.
    #[allow(clippy::should_implement_trait)] // an iterator that goes on after its end would be a trap
    pub fn next(&mut self) -> Option<Completion> {
        self.queue.next()
    }
}

fn bell() -> Result<Wakeup, RingError> {
    let operation = "making a ring";
    Wakeup::new().map_err(|error| match error {
        OsError::Mapping { source, .. } => RingError::of(operation, source),
        other => RingError::Failed { operation, source: io::Error::other(other) },
    })
}

/// A ring of the kernel's that goes from thread to thread, and takes a little more of each.
pub(crate) struct RovingRing(pub(crate) Ring);

impl RovingRing {
    /// As [`Ring::with`].
    pub(crate) fn new(depth: u32) -> Result<Self, RingError> {
        let ring = |depth, waker| -> Result<Box<dyn Queue>, _> { Ok(Box::new(Uring::roving(depth, waker)?)) };
        Ring::of(RingKind::IoUring, depth, ring).map(Self)
    }
}

// SAFETY: what keeps a ring on its thread is only what the kernel was told when it was made, and it was not told.
unsafe impl Send for RovingRing {}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("kind", &self.kind)
            .field("in_flight", &self.in_flight())
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}
