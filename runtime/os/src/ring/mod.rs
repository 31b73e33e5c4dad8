//! Requests in flight between files and memory, by the kernel's own queue (io_uring), for one thread. It does *not* own the
//! memory, cut requests, or wait for anything but completions and its waker.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, opcode, squeue};

use crate::error::OsError;
use crate::file::IoFailure;
use crate::inject::{Call, fails};
use crate::machine::complain;
use crate::shim::Direction;
use crate::wakeup::Wakeup;

/// Requests in flight at most.
const MOST: u32 = 4096;
/// Places for registered files.
const FILES: u32 = 64;
/// Places for registered buffers.
const BUFFERS: u16 = 64;
/// What tells completions of the ring's own from those of requests.
const WOKEN: u64 = u64::MAX;
const CANCELLED: u64 = u64::MAX - 1;

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
/// To drop it cancels what is in flight, and waits until the kernel has given all memory back.
///
/// # Example
/// ```
/// use std::os::fd::AsFd;
///
/// use limosa_os::shim::Direction;
/// use limosa_os::{Request, Ring, RingError, RingFile};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut ring = match Ring::new(8) {
///     Err(RingError::Unavailable { .. }) => return Ok(()), // a container may forbid it
///     ring => ring?,
/// };
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
    queue: IoUring,
    depth: usize,
    /// Requests whose completion the kernel has not given yet.
    flying: usize,
    /// Completions that nobody has taken yet.
    ended: VecDeque<Completion>,
    waker: RingWaker,
    woken: bool,
    files: Vec<bool>,
    buffers: u16,
    process: u32,
    /// The kernel lets only the thread that made it submit.
    _not_send: PhantomData<*mut ()>,
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
    /// Room for `depth` requests in flight, at least one and at most 4096.
    ///
    /// # Errors
    /// [`RingError::Unavailable`], [`RingError::TooManyFiles`], [`RingError::OutOfMemory`], [`RingError::Failed`].
    pub fn new(depth: u32) -> Result<Self, RingError> {
        // What the kernel has that costs least: completions are made when they are asked for, and only by this thread.
        let mut best = IoUring::builder();
        best.setup_submit_all().setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun().setup_taskrun_flag();
        match Self::of(&best, depth) {
            Err(RingError::Failed { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                Self::of(&IoUring::builder(), depth)
            }
            made => made,
        }
    }

    fn of(builder: &Builder, depth: u32) -> Result<Self, RingError> {
        let depth = depth.clamp(1, MOST);
        let operation = "making a ring";
        fails(Call::Ring).map_err(|source| RingError::of(operation, source))?;
        // What is pushed beyond that, the ring's own, is handed over at once.
        let queue = builder.build(depth.max(8)).map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => RingError::Unavailable { source },
            _ => RingError::of(operation, source),
        })?;
        let wakeup = Wakeup::new().map_err(|error| match error {
            OsError::Mapping { source, .. } => RingError::of(operation, source),
            other => RingError::Failed { operation, source: io::Error::other(other) },
        })?;
        let waker = RingWaker { bell: Arc::new(Bell { wakeup, rung: AtomicBool::new(false) }) };
        let register = |what: io::Result<()>| what.map_err(|source| RingError::of(operation, source));
        register(queue.submitter().register_files_sparse(FILES))?;
        register(queue.submitter().register_buffers_sparse(BUFFERS.into()))?;
        let mut ring = Self {
            queue,
            depth: depth as usize,
            flying: 0,
            ended: VecDeque::new(),
            waker,
            woken: false,
            files: vec![false; FILES as usize],
            buffers: 0,
            process: std::process::id(),
            _not_send: PhantomData,
        };
        ring.listen();
        Ok(ring)
    }

    /// What makes [`Self::wait`] return.
    #[must_use]
    pub fn waker(&self) -> RingWaker {
        self.waker.clone()
    }

    /// Registers memory, so that requests in it do not look it up anew. It stays so until the ring is dropped.
    ///
    /// # Errors
    /// [`RingError::MemoryLimit`], [`RingError::BadMemory`], [`RingError::Unregistered`], [`RingError::Failed`].
    ///
    /// # Safety
    /// The memory stays mapped until the ring is dropped.
    pub unsafe fn register_buffer(&mut self, memory: NonNull<u8>, len: usize) -> Result<BufferId, RingError> {
        if self.buffers == BUFFERS {
            return Err(RingError::Unregistered { what: "a buffer", limit: BUFFERS.into() });
        }
        fails(Call::Known).map_err(|source| RingError::of("registering a buffer", source))?;
        let buffer = [libc::iovec { iov_base: memory.as_ptr().cast(), iov_len: len }];
        let (bytes, address) = (len as u64, memory.as_ptr().addr());
        // SAFETY: as the caller promises.
        match unsafe { self.queue.submitter().register_buffers_update(self.buffers.into(), &buffer, None) } {
            Ok(()) => {
                self.buffers += 1;
                Ok(BufferId(self.buffers - 1))
            }
            Err(source) => Err(match source.raw_os_error() {
                Some(libc::ENOMEM) => RingError::MemoryLimit { bytes, source },
                Some(libc::EFAULT | libc::EOPNOTSUPP | libc::EINVAL | libc::EOVERFLOW) => {
                    RingError::BadMemory { address, bytes, source }
                }
                _ => RingError::Failed { operation: "registering a buffer", source },
            }),
        }
    }

    /// Registers a file, so that requests do not look it up anew. It may be closed then.
    ///
    /// # Errors
    /// [`RingError::Unregistered`] (no place is left: go without), [`RingError::OutOfMemory`], [`RingError::Failed`].
    pub fn register_file(&mut self, fd: BorrowedFd<'_>) -> Result<FileSlot, RingError> {
        fails(Call::Known).map_err(|source| RingError::of("registering a file", source))?;
        let free = self.files.iter().position(|taken| !taken);
        let Some(place) = free.and_then(|free| u32::try_from(free).ok()) else {
            return Err(RingError::Unregistered { what: "a file", limit: FILES });
        };
        self.set_file(place, fd.as_raw_fd())?;
        self.files[place as usize] = true;
        Ok(FileSlot(place))
    }

    /// Ends that. Requests in flight go on, and the file is closed after them.
    ///
    /// # Errors
    /// [`RingError::Failed`], [`RingError::OutOfMemory`]: it is still registered.
    pub fn forget_file(&mut self, slot: FileSlot) -> Result<(), RingError> {
        // What was pushed and not handed over would not find it, or find the file that has its place next.
        while !self.queue.submission().is_empty() {
            self.submit()?;
            self.collect();
        }
        self.set_file(slot.0, -1)?;
        self.files[slot.0 as usize] = false;
        Ok(())
    }

    fn set_file(&mut self, place: u32, fd: libc::c_int) -> Result<(), RingError> {
        let updated = self.queue.submitter().register_files_update(place, &[fd]);
        updated.map(drop).map_err(|source| RingError::of("registering a file", source))
    }

    /// Puts a request into the queue. The kernel sees it with the next [`Self::submit`] or [`Self::wait`].
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
        assert!(token < CANCELLED, "the token {token:#x} is the ring's own");
        if self.in_flight() >= self.depth || fails(Call::Push).is_err() {
            return Err(QueueFull);
        }
        let entry = request.entry().user_data(token);
        // SAFETY: as the caller promises.
        unsafe { self.enter(&entry) }?;
        self.flying += 1;
        Ok(())
    }

    /// Asks the kernel to end a request early. Its completion comes in any case: with what it says, or with
    /// [`crate::FileErrorKind::Cancelled`]. What a disk is busy with is not ended early.
    pub fn cancel(&mut self, token: u64) {
        let entry = opcode::AsyncCancel::new(token).build().user_data(CANCELLED);
        // Where there is no room for it, the request ends in its own time.
        // SAFETY: it refers to no memory.
        let _ = unsafe { self.enter(&entry) };
    }

    /// Requests whose completion has not been taken.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flying + self.ended.len()
    }

    /// Hands what was pushed to the kernel, without waiting.
    ///
    /// # Errors
    /// [`RingError::OtherProcess`], [`RingError::Failed`].
    pub fn submit(&mut self) -> Result<(), RingError> {
        self.hand_over(Wait::No)
    }

    /// Hands what was pushed to the kernel, and waits until there is a completion to be taken, or somebody wakes it.
    ///
    /// # Errors
    /// [`RingError::OtherProcess`], [`RingError::Failed`].
    pub fn wait(&mut self) -> Result<(), RingError> {
        self.wait_for(1)
    }

    /// As [`Self::wait`], but for so many completions, or for what has come after 10 ms. Each time that a thread is woken
    /// costs more than a small request. A wake counts as a completion.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_for(&mut self, completions: usize) -> Result<(), RingError> {
        self.collect();
        loop {
            let idle = self.ended.is_empty() && !self.woken;
            let wait = match completions.min(self.flying) {
                _ if !idle => Wait::No,
                0 | 1 => Wait::Ever,
                several => Wait::AWhile(several),
            };
            self.hand_over(wait)?;
            self.collect();
            if !self.ended.is_empty() || self.woken {
                self.woken = false;
                return Ok(());
            }
        }
    }

    /// Takes a completion, if there is one.
    #[allow(clippy::should_implement_trait)] // an iterator that goes on after its end would be a trap
    pub fn next(&mut self) -> Option<Completion> {
        if self.ended.is_empty() {
            self.collect();
        }
        self.ended.pop_front()
    }

    /// Takes what the kernel has laid ready.
    fn collect(&mut self) {
        let mut heard = false;
        for entry in self.queue.completion() {
            match entry.user_data() {
                WOKEN => heard = true,
                CANCELLED => {}
                token => {
                    self.flying -= 1;
                    let result = u32::try_from(entry.result()).map_err(|_| IoFailure::of_result(entry.result()));
                    self.ended.push_back(Completion { token, result });
                }
            }
        }
        if heard {
            self.hear();
        }
    }

    fn hear(&mut self) {
        self.waker.bell.hear(|| ());
        self.woken = true;
        self.listen();
    }

    /// Asks for a completion when the bell rings.
    fn listen(&mut self) {
        let poll = opcode::PollAdd::new(Fd(self.waker.bell.wakeup.raw()), libc::POLLIN.cast_unsigned().into())
            .build()
            .user_data(WOKEN);
        // SAFETY: it refers to no memory, and the bell is open as long as the ring.
        let listening = unsafe { self.enter(&poll) };
        debug_assert!(listening.is_ok(), "there is always room for it");
    }

    /// # Safety
    /// What the entry refers to stays valid until its completion comes.
    unsafe fn enter(&mut self, entry: &squeue::Entry) -> Result<(), QueueFull> {
        // SAFETY: as the caller promises.
        if unsafe { self.queue.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        self.submit().map_err(|_| QueueFull)?;
        // SAFETY: as above.
        unsafe { self.queue.submission().push(entry) }.map_err(|_| QueueFull)
    }

    /// Hands over what was pushed; waits for a completion, if at all, for so long.
    fn hand_over(&mut self, wait: Wait) -> Result<(), RingError> {
        if self.process != std::process::id() {
            return Err(RingError::OtherProcess);
        }
        let pushed = self.queue.submission();
        let nothing = pushed.is_empty() && !pushed.taskrun() && !pushed.cq_overflow();
        drop(pushed);
        let submitter = self.queue.submitter();
        let handed = match wait {
            Wait::No if nothing => Ok(0),
            Wait::No => submitter.submit(),
            Wait::Ever => submitter.submit_and_wait(1),
            Wait::AWhile(completions) => submitter.submit_with_args(completions, &SubmitArgs::new().timespec(&A_WHILE)),
        };
        match handed {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error().is_some_and(|errno| COMES_AGAIN.contains(&errno)) => Ok(()),
            Err(source) => Err(RingError::of("waiting for a ring", source)),
        }
    }
}

/// How long to wait for completions.
#[derive(Clone, Copy)]
enum Wait {
    No,
    /// For so many, and not for ever.
    AWhile(usize),
    /// For one.
    Ever,
}

const A_WHILE: Timespec = Timespec::new().nsec(10_000_000);

/// A signal; a while is over; no memory for a request, or no room for completions, until some are taken.
const COMES_AGAIN: [i32; 4] = [libc::EINTR, libc::ETIME, libc::EAGAIN, libc::EBUSY];

impl Request<'_> {
    fn entry(&self) -> squeue::Entry {
        // All ones would be the file's own position; the kernel refuses 2⁶³ as it does all beyond it.
        let offset = self.offset.map_or(u64::MAX, |offset| offset.min(1 << 63));
        let (fd, flags) = match self.file {
            RingFile::Slot(slot) => (Fd(slot.0.cast_signed()), squeue::Flags::FIXED_FILE),
            RingFile::Fd(fd) => (Fd(fd.as_raw_fd()), squeue::Flags::empty()),
        };
        let (memory, len) = (self.memory, self.len);
        let entry = match (self.direction, self.buffer) {
            (Direction::FromFile, None) => opcode::Read::new(fd, memory, len).offset(offset).build(),
            (Direction::ToFile, None) => opcode::Write::new(fd, memory, len).offset(offset).build(),
            (Direction::FromFile, Some(BufferId(id))) => {
                opcode::ReadFixed::new(fd, memory, len, id).offset(offset).build()
            }
            (Direction::ToFile, Some(BufferId(id))) => {
                opcode::WriteFixed::new(fd, memory, len, id).offset(offset).build()
            }
        };
        entry.flags(flags)
    }
}

/// A ring that goes from thread to thread, and takes a little more of each.
pub(crate) struct RovingRing(pub(crate) Ring);

impl RovingRing {
    /// As [`Ring::new`].
    pub(crate) fn new(depth: u32) -> Result<Self, RingError> {
        Ring::of(&IoUring::builder(), depth).map(Self)
    }
}

// SAFETY: what keeps a ring on its thread is only what the kernel was told when it was made, and it was not told.
unsafe impl Send for RovingRing {}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.flying > 0 {
            let all = opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(CANCELLED);
            // SAFETY: it refers to no memory.
            let _ = unsafe { self.enter(&all) };
            // A request may be missed that is just then neither waiting nor running, and begins to wait: so again.
            match self.hand_over(Wait::AWhile(1)) {
                Ok(()) => self.collect(),
                // In a child nothing is in flight: the memory that the kernel uses is the parent's.
                Err(RingError::OtherProcess) => return,
                Err(error) => {
                    complain(format!("limosa: {error}: the kernel keeps memory that is about to go\n").as_bytes());
                    std::process::abort();
                }
            }
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight()).field("depth", &self.depth).finish_non_exhaustive()
    }
}
