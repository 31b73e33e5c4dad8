//! A userfaultfd on a test's memory, with a thread that serves it: missing pages by a pattern, write protection by
//! lifting it.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use limosa_model::HostRange;

use super::memory::PAGE;

const API: u64 = 0xC018_AA3F;
const REGISTER: u64 = 0xC020_AA00;
const COPY: u64 = 0xC028_AA03;
const WRITE_PROTECT: u64 = 0xC018_AA06;
const MISSING: u64 = 1;
const PROTECTED: u64 = 2;
const PROTECTED_FLAG: u64 = 2;

/// What the first words of a page that was missing are.
pub const SERVED: u64 = 0x5e57_ed00_5e57_ed00;

/// A served range. It is unregistered by dropping.
pub struct Userfault {
    fd: Arc<OwnedFd>,
    wake: OwnedFd,
    faults: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Userfault {
    pub fn on(range: HostRange) -> Self {
        let fd = descriptor(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK, 0);
        call(&fd, API, &mut [0xAA, 0, 0]);
        call(&fd, REGISTER, &mut [range.start.0, range.len, MISSING | PROTECTED, 0]);
        let wake = descriptor(libc::SYS_eventfd2, 0, libc::EFD_CLOEXEC);
        let (fd, faults) = (Arc::new(fd), Arc::new(AtomicU64::new(0)));
        let served = (Arc::clone(&fd), Arc::clone(&faults), wake.as_raw_fd());
        let thread = std::thread::spawn(move || serve(&served.0, &served.1, served.2));
        Self { fd, wake, faults, thread: Some(thread) }
    }

    /// Has writes to the range be told first.
    pub fn write_protect(&self, range: HostRange) {
        call(&self.fd, WRITE_PROTECT, &mut [range.start.0, range.len, 1]);
    }

    /// How many faults were served.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }
}

impl Drop for Userfault {
    fn drop(&mut self) {
        let one = 1u64;
        // SAFETY: a write of eight bytes of ours.
        unsafe { libc::write(self.wake.as_raw_fd(), (&raw const one).cast(), 8) };
        self.thread.take().unwrap().join().unwrap();
    }
}

/// What a system call makes that takes these two numbers, or the first of them.
fn descriptor(call: i64, first: i32, second: i32) -> OwnedFd {
    // SAFETY: called with what makes a descriptor, and takes no memory.
    let fd = unsafe { libc::syscall(call, first, second) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: just made, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

fn call(fd: &OwnedFd, request: u64, words: &mut [u64]) {
    // SAFETY: the words are the request's struct.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, words.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn serve(fd: &OwnedFd, faults: &AtomicU64, wake: i32) {
    let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    loop {
        let mut both = [poll(fd.as_raw_fd()), poll(wake)];
        // SAFETY: an array of ours.
        unsafe { libc::poll(both.as_mut_ptr(), 2, -1) };
        if both[1].revents != 0 {
            return;
        }
        let mut message = [0u64; 4];
        // SAFETY: the kernel writes one message, which has 32 bytes.
        if unsafe { libc::read(fd.as_raw_fd(), message.as_mut_ptr().cast(), 32) } != 32 {
            continue;
        }
        faults.fetch_add(1, Ordering::SeqCst);
        let page = message[2] & !(PAGE as u64 - 1);
        if message[1] & PROTECTED_FLAG != 0 {
            call(fd, WRITE_PROTECT, &mut [page, PAGE as u64, 0]);
        } else {
            let contents = vec![SERVED; PAGE / 8];
            call(fd, COPY, &mut [page, contents.as_ptr().addr() as u64, PAGE as u64, 0, 0]);
        }
    }
}
