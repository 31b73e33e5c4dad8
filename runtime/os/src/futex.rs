//! Waiting for a number to change, without memory or locks: usable in a signal handler.
//!
//! Used for the in-thread mode of fault delivery, where a thread that must wait has nothing but its stack. It does
//! *not* queue: waiters re-check what they wait for.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Sleeps while `word` holds `seen`; wakes on [`wake_all`], on a signal, or for no reason.
pub fn wait(word: &AtomicU32, seen: u32) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a system call on a word that outlives it, with no time limit.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, seen, std::ptr::null::<libc::timespec>());
    }
}

/// As [`wait`], at most for `limit`.
pub fn wait_for(word: &AtomicU32, seen: u32, limit: Duration) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let limit = timespec(limit);
    // SAFETY: a system call on a word and a time that outlive it.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, seen, &raw const limit);
    }
}

/// Wakes all that wait on `word`.
pub fn wake_all(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a system call on a word that outlives it.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, i32::MAX);
    }
}

/// A length of time as system calls take it.
pub(crate) fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
