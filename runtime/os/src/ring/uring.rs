//! The kernel's own queue (io_uring). It does *not* own the memory, cut requests, or wait for anything but completions and
//! its bell.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, opcode, squeue};

use super::{
    BUFFERS, BufferId, Completion, FILES, FileSlot, Queue, QueueFull, Request, RingError, RingFile, RingWaker, TOKENS,
};
use crate::file::IoFailure;
use crate::inject::{self, Call};
use crate::machine::complain;
use crate::shim::Direction;

/// What tells completions of the ring's own from those of requests.
const WOKEN: u64 = u64::MAX;
const CANCELLED: u64 = TOKENS;

/// The kernel's queue, and what is known of it.
pub(super) struct Uring {
    queue: IoUring,
    /// Requests whose completion the kernel has not given yet.
    flying: usize,
    /// Completions that nobody has taken yet.
    ended: VecDeque<Completion>,
    waker: RingWaker,
    woken: bool,
    files: Vec<bool>,
    buffers: u16,
    process: u32,
}

impl Uring {
    /// With what the kernel has that costs least: completions are made when they are asked for, and only by this thread.
    pub(super) fn best(depth: u32, waker: RingWaker) -> Result<Self, RingError> {
        let mut best = IoUring::builder();
        best.setup_submit_all().setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun().setup_taskrun_flag();
        match Self::of(&best, depth, waker.clone()) {
            Err(RingError::Failed { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                Self::roving(depth, waker)
            }
            made => made,
        }
    }

    /// That any thread may use, one at a time.
    pub(super) fn roving(depth: u32, waker: RingWaker) -> Result<Self, RingError> {
        Self::of(&IoUring::builder(), depth, waker)
    }

    fn of(builder: &Builder, depth: u32, waker: RingWaker) -> Result<Self, RingError> {
        let operation = "making a ring";
        inject::fails(Call::Ring).map_err(|source| RingError::Unavailable { source })?;
        // What is pushed beyond that, the ring's own, is handed over at once.
        let queue = builder.build(depth.max(8)).map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => RingError::Unavailable { source },
            _ => RingError::of(operation, source),
        })?;
        // Files that may make their workers wait, as those of servers may, must not keep others from getting any.
        let _ = queue.submitter().register_iowq_max_workers(&mut [WORKERS, 0]);
        let register = |what: io::Result<()>| what.map_err(|source| RingError::of(operation, source));
        register(queue.submitter().register_files_sparse(FILES))?;
        register(queue.submitter().register_buffers_sparse(BUFFERS.into()))?;
        let mut ring = Self {
            queue,
            flying: 0,
            ended: VecDeque::new(),
            waker,
            woken: false,
            files: vec![false; FILES as usize],
            buffers: 0,
            process: std::process::id(),
        };
        ring.listen();
        Ok(ring)
    }

    fn set_file(&mut self, place: u32, fd: libc::c_int) -> Result<(), RingError> {
        let updated = self.queue.submitter().register_files_update(place, &[fd]);
        updated.map(drop).map_err(|source| RingError::of("registering a file", source))
    }

    /// A child has the descriptor, and the kernel keeps the queue's memory from it.
    fn check_process(&self) -> Result<(), RingError> {
        if self.process == std::process::id() { Ok(()) } else { Err(RingError::OtherProcess) }
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
        self.check_process().map_err(|_| QueueFull)?;
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
        self.check_process()?;
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

impl Queue for Uring {
    unsafe fn register_buffer(&mut self, memory: NonNull<u8>, len: usize) -> Result<BufferId, RingError> {
        self.check_process()?;
        if self.buffers == BUFFERS {
            return Err(RingError::Unregistered { what: "a buffer", limit: BUFFERS.into() });
        }
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

    fn register_file(&mut self, fd: BorrowedFd<'_>) -> Result<FileSlot, RingError> {
        self.check_process()?;
        let free = self.files.iter().position(|taken| !taken);
        let Some(place) = free.and_then(|free| u32::try_from(free).ok()) else {
            return Err(RingError::Unregistered { what: "a file", limit: FILES });
        };
        self.set_file(place, fd.as_raw_fd())?;
        self.files[place as usize] = true;
        Ok(FileSlot(place))
    }

    fn forget_file(&mut self, slot: FileSlot) -> Result<(), RingError> {
        self.check_process()?;
        // What was pushed and not handed over would not find it, or find the file that has its place next.
        while !self.queue.submission().is_empty() {
            self.submit()?;
            self.collect();
        }
        self.set_file(slot.0, -1)?;
        self.files[slot.0 as usize] = false;
        Ok(())
    }

    unsafe fn push(&mut self, token: u64, request: &Request<'_>) -> Result<(), QueueFull> {
        let entry = request.entry().user_data(token);
        // SAFETY: as the caller promises.
        unsafe { self.enter(&entry) }?;
        self.flying += 1;
        Ok(())
    }

    fn cancel(&mut self, token: u64) {
        let entry = opcode::AsyncCancel::new(token).build().user_data(CANCELLED);
        // Where there is no room for it, the request ends in its own time.
        // SAFETY: it refers to no memory.
        let _ = unsafe { self.enter(&entry) };
    }

    fn in_flight(&self) -> usize {
        self.flying + self.ended.len()
    }

    fn submit(&mut self) -> Result<(), RingError> {
        self.hand_over(Wait::No)
    }

    fn wait_for(&mut self, completions: usize) -> Result<(), RingError> {
        self.check_process()?;
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

    fn wait_a_while(&mut self) -> Result<(), RingError> {
        self.check_process()?;
        self.collect();
        if self.ended.is_empty() && !self.woken {
            self.hand_over(Wait::AWhile(1))?;
            self.collect();
        }
        self.woken = false;
        Ok(())
    }

    fn next(&mut self) -> Option<Completion> {
        if self.ended.is_empty() && self.check_process().is_ok() {
            self.collect();
        }
        self.ended.pop_front()
    }
}

/// How long to wait for a completion.
#[derive(Clone, Copy)]
enum Wait {
    No,
    /// For so many, and not for ever.
    AWhile(usize),
    Ever,
}

/// Of the kernel's threads for requests that have to wait, at most; they are made as they are needed.
const WORKERS: u32 = 256;

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

impl Drop for Uring {
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
