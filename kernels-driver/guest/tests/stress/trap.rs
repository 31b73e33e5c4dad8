//! Tries accesses again that were refused: disturbers and owners take memory away and protect it while others use it, and
//! put it back. What stays refused ends the program. Threads that block SIGSEGV, as lavapipe's do, cannot be helped.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t};

/// How long an access may stay refused, in nanoseconds.
const PATIENCE: u64 = 60_000_000_000;

static RANGES: [(AtomicUsize, AtomicUsize); 64] = [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; 64];
/// How many accesses were tried again.
pub static REFUSED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The access that is being tried again: its address, and since when.
    static TRYING: Cell<(usize, u64)> = const { Cell::new((0, 0)) };
}

/// Has accesses to a range tried again.
pub fn watch(start: usize, len: usize) {
    for (from, end) in &RANGES {
        if from.compare_exchange(0, start, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            end.store(start + len, Ordering::SeqCst);
            return;
        }
    }
    panic!("too many ranges");
}

/// No longer.
pub fn forget(start: usize) {
    for (from, end) in &RANGES {
        if from.load(Ordering::SeqCst) == start {
            end.store(0, Ordering::SeqCst);
            from.store(0, Ordering::SeqCst);
        }
    }
}

/// From now on.
pub fn install() {
    // SAFETY: the handler does only what a handler may: atomics, a thread's own cell, clock_gettime, write, _exit.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = refused as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        assert_eq!(libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()), 0);
    }
}

extern "C" fn refused(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel's own.
    let address = unsafe { (*info).si_addr() }.addr();
    let ours = RANGES.iter().any(|(from, end)| {
        let from = from.load(Ordering::SeqCst);
        from != 0 && address >= from && address < end.load(Ordering::SeqCst)
    });
    if !ours {
        // SAFETY: the access is made again, and then ends the program as it would have.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    REFUSED.fetch_add(1, Ordering::Relaxed);
    let now = now();
    TRYING.with(|trying| {
        let (last, since) = trying.get();
        if last != address {
            trying.set((address, now));
        } else if now - since > PATIENCE {
            give_up(address);
        }
    });
    // SAFETY: always allowed.
    unsafe { libc::sched_yield() };
}

/// An access was served: the next to the same address is another.
pub fn served() {
    TRYING.with(|trying| trying.set((0, 0)));
}

fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

fn give_up(address: usize) -> ! {
    let mut text = *b"stress: FAILED: an access stays refused at 0x0000000000000000\n";
    let mut left = address;
    for digit in text.iter_mut().rev().skip(1).take(16) {
        *digit = b"0123456789abcdef"[left & 15];
        left >>= 4;
    }
    // SAFETY: the text is as long as it says.
    unsafe {
        libc::write(1, text.as_ptr().cast(), text.len());
        libc::_exit(1)
    }
}
