//! A queue of requests where the kernel's own may not be used: threads, with one request each, in plain system calls. It does
//! *not* make more threads than there is work for, and none before the first.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::{
    BUFFERS, BufferId, Completion, FILES, FileSlot, Queue, QueueFull, Request, RingError, RingFile, RingWaker,
};
use crate::file::{IoFailure, Opened, pread, pwrite, reopen_without_waiting};
use crate::shim::Direction;
use crate::signal;
use crate::wakeup::Wakeup;

/// Threads that are busy at a time. Those that wait for the other end of a stream are not among them: they are as many as
/// there are such requests, since what ends their waiting may be a request of this ring.
const BUSY: usize = 8;

/// What the ring's thread has of it.
pub(super) struct Threads {
    shared: Arc<Shared>,
    /// Pushed, and not begun.
    pushed: VecDeque<Job>,
    /// Begun, and their completion not taken from the threads.
    flying: usize,
    ended: VecDeque<Completion>,
    waker: RingWaker,
    files: Vec<Option<Arc<OwnedFd>>>,
    buffers: Vec<(usize, usize)>,
    process: u32,
}

struct Shared {
    state: Mutex<State>,
    /// There is work, or an end to it.
    work: Condvar,
    /// Rings as long as there are completions; changed with the lock held.
    done: Wakeup,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    done: Vec<Completion>,
    seats: Vec<Seat>,
    threads: Vec<JoinHandle<()>>,
    /// Threads that wait for work, and for the other end of a stream.
    idle: usize,
    patient: usize,
    closing: bool,
}

/// What is known of a thread.
struct Seat {
    /// Rings when it is to give its request up.
    stop: Arc<Wakeup>,
    token: Option<u64>,
    stopped: bool,
}

/// A request, with what keeps its file open.
struct Job {
    token: u64,
    file: Result<JobFile, i32>,
    direction: Direction,
    offset: Option<u64>,
    memory: *mut u8,
    len: usize,
}

enum JobFile {
    Kept(Arc<OwnedFd>),
    Lent(RawFd),
}

// SAFETY: the memory is the request's until its completion has been taken, as whoever pushed it has promised.
unsafe impl Send for Job {}

impl Threads {
    pub(super) fn new(waker: RingWaker) -> Result<Self, RingError> {
        let shared = Shared { state: Mutex::default(), work: Condvar::new(), done: super::bell()? };
        Ok(Self {
            shared: Arc::new(shared),
            pushed: VecDeque::new(),
            flying: 0,
            ended: VecDeque::new(),
            waker,
            files: vec![None; FILES as usize],
            buffers: Vec::new(),
            process: std::process::id(),
        })
    }

    fn file(&self, file: &RingFile<'_>) -> Result<JobFile, i32> {
        match file {
            RingFile::Fd(fd) => Ok(JobFile::Lent(fd.as_raw_fd())),
            RingFile::Slot(slot) => {
                self.files.get(slot.0 as usize).cloned().flatten().map(JobFile::Kept).ok_or(libc::EBADF)
            }
        }
    }

    /// Whether the registered buffer that a request names holds its memory.
    fn is_in_buffer(&self, request: &Request<'_>) -> bool {
        let Some(BufferId(id)) = request.buffer else { return true };
        self.buffers.get(usize::from(id)).is_some_and(|(start, len)| {
            let from = request.memory.addr().checked_sub(*start);
            from.and_then(|from| from.checked_add(request.len as usize)).is_some_and(|end| end <= *len)
        })
    }

    fn collect(&mut self) {
        let mut state = self.shared.lock();
        if !state.done.is_empty() {
            self.shared.done.silence();
        }
        let done = mem::take(&mut state.done);
        self.flying -= done.len();
        self.ended.extend(done);
    }
}

impl Queue for Threads {
    unsafe fn register_buffer(&mut self, memory: NonNull<u8>, len: usize) -> Result<BufferId, RingError> {
        let full = RingError::Unregistered { what: "a buffer", limit: BUFFERS.into() };
        let id = u16::try_from(self.buffers.len()).ok().filter(|id| *id < BUFFERS).ok_or(full)?;
        self.buffers.push((memory.as_ptr().addr(), len));
        Ok(BufferId(id))
    }

    fn register_file(&mut self, fd: BorrowedFd<'_>) -> Result<FileSlot, RingError> {
        let free = self.files.iter().position(Option::is_none).and_then(|free| u32::try_from(free).ok());
        let place = free.ok_or(RingError::Unregistered { what: "a file", limit: FILES })?;
        let kept = fd.try_clone_to_owned().map_err(|source| RingError::of("registering a file", source))?;
        self.files[place as usize] = Some(Arc::new(kept));
        Ok(FileSlot(place))
    }

    fn forget_file(&mut self, slot: FileSlot) -> Result<(), RingError> {
        self.files[slot.0 as usize] = None;
        Ok(())
    }

    unsafe fn push(&mut self, token: u64, request: &Request<'_>) -> Result<(), QueueFull> {
        let file = if self.is_in_buffer(request) { self.file(&request.file) } else { Err(libc::EFAULT) };
        let Request { direction, offset, memory, .. } = *request;
        self.pushed.push_back(Job { token, file, direction, offset, memory, len: request.len as usize });
        Ok(())
    }

    fn cancel(&mut self, token: u64) {
        let of = |jobs: &mut VecDeque<Job>| jobs.iter().position(|job| job.token == token).map(|at| jobs.remove(at));
        if of(&mut self.pushed).is_some() {
            return self.ended.push_back(failed(token, libc::ECANCELED));
        }
        let mut state = self.shared.lock();
        if of(&mut state.queue).is_some() {
            self.flying -= 1;
            self.ended.push_back(failed(token, libc::ECANCELED));
        } else if let Some(seat) = state.seats.iter_mut().find(|seat| seat.token == Some(token)) {
            seat.stop();
        }
    }

    fn in_flight(&self) -> usize {
        self.pushed.len() + self.flying + self.ended.len()
    }

    fn submit(&mut self) -> Result<(), RingError> {
        if self.process != std::process::id() {
            return Err(RingError::OtherProcess);
        }
        if self.pushed.is_empty() {
            return Ok(());
        }
        let mut state = self.shared.lock();
        self.flying += self.pushed.len();
        state.queue.append(&mut self.pushed);
        self.shared.staff(&mut state)
    }

    fn wait_for(&mut self, _: usize) -> Result<(), RingError> {
        self.submit()?;
        loop {
            self.collect();
            if !self.ended.is_empty() {
                return Ok(());
            }
            // Where no thread could be made for it, one that has become idle since takes it, or this tells why not.
            self.shared.staff(&mut self.shared.lock())?;
            let bell = &self.waker.bell;
            let [_, woken] = poll([(self.shared.done.raw(), libc::POLLIN), (bell.wakeup.raw(), libc::POLLIN)]);
            if woken {
                bell.hear(|| ());
                return Ok(());
            }
        }
    }

    fn wait_a_while(&mut self) -> Result<(), RingError> {
        self.wait_for(1)
    }

    fn next(&mut self) -> Option<Completion> {
        if self.ended.is_empty() && self.flying > 0 && self.process == std::process::id() {
            self.collect();
        }
        self.ended.pop_front()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // A child has no such threads, and one of the parent's may have held the lock.
            return mem::forget(self.shared.clone());
        }
        let mut state = self.shared.lock();
        state.closing = true;
        state.queue.clear();
        state.seats.iter_mut().filter(|seat| seat.token.is_some()).for_each(Seat::stop);
        let threads = mem::take(&mut state.threads);
        drop(state);
        self.shared.work.notify_all();
        for thread in threads {
            // It has no way to panic; if it did, its request has ended with it.
            let _ = thread.join();
        }
    }
}

impl Seat {
    fn stop(&mut self) {
        self.stopped = true;
        self.stop.ring();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has as many threads take what is in the queue as may.
    ///
    /// # Errors
    /// None could be made, and none is there.
    fn staff(self: &Arc<Self>, state: &mut State) -> Result<(), RingError> {
        for _ in 0..state.queue.len().min(BUSY) {
            self.work.notify_one();
        }
        while state.idle < state.queue.len() && state.seats.len() - state.patient < BUSY {
            match self.hire(state) {
                Ok(()) => {}
                Err(_) if state.seats.len() > state.patient => break,
                Err(source) => return Err(RingError::of("starting a thread for requests", source)),
            }
        }
        Ok(())
    }

    /// Makes a thread, which is idle at first.
    fn hire(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let stop = Arc::new(Wakeup::new().map_err(io::Error::other)?);
        let (shared, seat, bell) = (self.clone(), state.seats.len(), stop.clone());
        let work = move || {
            signal::block_in_this_thread();
            shared.work(seat, &bell);
        };
        let thread = Builder::new().name("limosa-io".into()).stack_size(128 << 10).spawn(work)?;
        state.threads.push(thread);
        state.seats.push(Seat { stop, token: None, stopped: false });
        state.idle += 1;
        Ok(())
    }

    /// What a thread does.
    fn work(self: &Arc<Self>, seat: usize, stop: &Wakeup) {
        let mut state = self.lock();
        while !state.closing {
            let Some(job) = state.queue.pop_front() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.idle -= 1;
            state.seats[seat].token = Some(job.token);
            drop(state);
            let result = job.run(&mut Waiting { shared: self, stop });
            let token = job.token;
            // With its file, which may be the last of it.
            drop(job);
            state = self.lock();
            if mem::take(&mut state.seats[seat].stopped) {
                stop.silence();
            }
            state.seats[seat].token = None;
            state.idle += 1;
            if state.done.is_empty() {
                self.done.ring();
            }
            state.done.push(Completion { token, result: result.map_err(IoFailure::from) });
        }
    }
}

/// How a thread waits for the other end of a stream.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    stop: &'a Wakeup,
}

impl Waiting<'_> {
    /// Waits until there is something to be had, or room; fails where the request is cancelled.
    fn until(&mut self, fd: RawFd, events: libc::c_short) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.patient += 1;
        // It fails where no thread can be made; what is in the queue then waits for one that is idle.
        let _ = self.shared.staff(&mut state);
        drop(state);
        let [_, stopped] = poll([(fd, events), (self.stop.raw(), libc::POLLIN)]);
        self.shared.lock().patient -= 1;
        if stopped { Err(io::Error::from_raw_os_error(libc::ECANCELED)) } else { Ok(()) }
    }
}

impl Job {
    fn run(&self, waiting: &mut Waiting<'_>) -> io::Result<u32> {
        let fd = match &self.file {
            Ok(JobFile::Kept(file)) => file.as_raw_fd(),
            Ok(JobFile::Lent(fd)) => *fd,
            Err(errno) => return Err(io::Error::from_raw_os_error(*errno)),
        };
        let moved = match self.offset {
            None => self.stream(fd, waiting),
            // The kernel refuses 2⁶³ as it does all beyond it.
            Some(offset) => match self.call(fd, Some(libc::off_t::try_from(offset).unwrap_or(libc::off_t::MIN))) {
                // Streams have no offsets, and ignore them.
                Err(error) if error.raw_os_error() == Some(libc::ESPIPE) => self.stream(fd, waiting),
                moved => moved,
            },
        }?;
        // The kernel moves less than 2 GiB at a time.
        u32::try_from(moved).map_err(io::Error::other)
    }

    /// From where the file is.
    fn stream(&self, fd: RawFd, waiting: &mut Waiting<'_>) -> io::Result<usize> {
        let opened = Opened::of(fd)?;
        if !opened.waits {
            return self.call(fd, None);
        }
        let events = if matches!(self.direction, Direction::FromFile) { libc::POLLIN } else { libc::POLLOUT };
        loop {
            waiting.until(fd, events)?;
            if !opened.is_pipe_or_socket {
                return self.call(fd, None);
            }
            // Somebody else may have taken what there was.
            match self.without_waiting(fd) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                moved => return moved,
            }
        }
    }

    fn call(&self, fd: RawFd, offset: Option<libc::off_t>) -> io::Result<usize> {
        let call = if matches!(self.direction, Direction::FromFile) { pread } else { pwrite };
        // SAFETY: the memory is the request's until its completion has been taken.
        crate::file::repeated(|| unsafe { call(fd, self.memory, self.len, offset) }).map(crate::reservation::to_usize)
    }

    /// What can be moved at once; `EAGAIN` if nothing.
    fn without_waiting(&self, fd: RawFd) -> io::Result<usize> {
        let part = libc::iovec { iov_base: self.memory.cast(), iov_len: self.len };
        let moved = crate::file::repeated(|| {
            // SAFETY: as in `call`; -1 is the file's own position.
            unsafe {
                match self.direction {
                    Direction::FromFile => libc::preadv2(fd, &raw const part, 1, -1, libc::RWF_NOWAIT),
                    Direction::ToFile => libc::pwritev2(fd, &raw const part, 1, -1, libc::RWF_NOWAIT),
                }
            }
        });
        match moved {
            // Pipes do not have it in each kernel, and those with a name not even there; but they can be opened anew.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => match reopen_without_waiting(fd) {
                Ok(file) => self.call(file.as_raw_fd(), None),
                Err(_) => self.call(fd, None),
            },
            moved => moved.map(crate::reservation::to_usize),
        }
    }
}

fn failed(token: u64, errno: i32) -> Completion {
    Completion { token, result: Err(io::Error::from_raw_os_error(errno).into()) }
}

/// Sleeps until there is something about one of two descriptors: about which.
fn poll(about: [(RawFd, libc::c_short); 2]) -> [bool; 2] {
    let mut fds = about.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 });
    // SAFETY: the array is ours; its length is given.
    while unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) } < 0 {}
    fds.map(|fd| fd.revents != 0)
}
