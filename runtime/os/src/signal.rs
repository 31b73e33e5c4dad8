//! Faults served by the faulting thread itself: SIGBUS, chained to whatever handler the application installed before.
//!
//! An opt-in: it saves two thread switches a fault, and system calls on unserved memory then fail with EFAULT. The
//! handler runs on the faulting thread's stack in signal mode, so what it calls may touch only atomics and memory
//! that exists already. It does *not* catch an application that installs its own SIGBUS handler later without
//! calling ours.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use limosa_model::{Access, HostAddr, HostRange};

use crate::error::OsError;

/// Heaps that can take their faults by signal at the same time in one process.
pub const HEAPS_MAX: usize = 16;

/// Serves faults in signal mode.
///
/// # Safety
/// `serve` runs inside a signal handler: it must not allocate, must not wait for anything that the interrupted thread
/// may hold, and must not panic.
pub unsafe trait ServeInThread: Send + Sync {
    /// Serves a touch of `address`; the access is `None` where the machine does not tell. Gives whether the access
    /// may be tried again; `false` raises the signal for good.
    fn serve(&self, address: HostAddr, access: Option<Access>) -> bool;
}

/// A heap's entry in the table of the handler; leaves it when dropped.
pub struct Registration {
    slot: &'static Slot,
    /// Freed after the slot is empty and no handler is inside.
    server: *mut Arc<dyn ServeInThread>,
}

// SAFETY: the pointer is owned like a box, and what it points to is Send and Sync.
unsafe impl Send for Registration {}
// SAFETY: as above; no method uses it through a shared reference.
unsafe impl Sync for Registration {}

struct Slot {
    start: AtomicU64,
    end: AtomicU64,
    server: AtomicPtr<Arc<dyn ServeInThread>>,
    inside: AtomicUsize,
}

static SLOTS: [Slot; HEAPS_MAX] = [const {
    Slot {
        start: AtomicU64::new(0),
        end: AtomicU64::new(0),
        server: AtomicPtr::new(std::ptr::null_mut()),
        inside: AtomicUsize::new(0),
    }
}; HEAPS_MAX];
static TABLE: Mutex<()> = Mutex::new(());
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Has the faults on `range` served by `server` in the threads that take them. Installs the handler at first use.
///
/// # Errors
/// [`OsError::TooManySignalHeaps`], [`OsError::Mapping`] if the handler cannot be installed.
pub fn register(range: HostRange, server: Arc<dyn ServeInThread>) -> Result<Registration, OsError> {
    let _guard = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    install()?;
    let empty = SLOTS.iter().find(|slot| slot.server.load(Ordering::Acquire).is_null());
    let slot = empty.ok_or(OsError::TooManySignalHeaps { limit: HEAPS_MAX })?;
    let server = Box::into_raw(Box::new(server));
    slot.start.store(range.start.0, Ordering::Relaxed);
    slot.end.store(range.start.0 + range.len, Ordering::Relaxed);
    slot.server.store(server, Ordering::SeqCst);
    Ok(Registration { slot, server })
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.slot.server.store(std::ptr::null_mut(), Ordering::SeqCst);
        while self.slot.inside.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        // SAFETY: made by Box::into_raw in `register`; the slot no longer gives it out, and nobody is inside.
        drop(unsafe { Box::from_raw(self.server) });
    }
}

/// Keeps all signals away from the calling thread: a handler of the application must not run on a thread that serves
/// faults, where it could fault itself.
pub fn block_in_this_thread() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills a set of ours, then changes only this thread's mask.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
}

fn install() -> Result<(), OsError> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: reads the present action into memory of ours.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), previous.as_mut_ptr()) } != 0 {
        return Err(OsError::mapping("reading the SIGBUS action", 0));
    }
    // Known before ours is in place, so that the handler always finds it.
    // SAFETY: filled by the call above.
    let _ = PREVIOUS.set(unsafe { previous.assume_init() });
    // SAFETY: all-zero bytes are a valid action; the fields that matter follow.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    // NODEFER: a fault in a handler of the application that we chained to must be served, too.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
    // SAFETY: the handler keeps to what is allowed in signal mode.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(OsError::mapping("installing the SIGBUS handler", 0));
    }
    Ok(())
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: errno is this thread's own.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel passes valid information with SA_SIGINFO.
    let address = HostAddr(unsafe { (*info).si_addr() } as u64);
    let served = serve(address, access_of(context));
    // SAFETY: as above. The interrupted code must not see our system calls' errors.
    unsafe { *libc::__errno_location() = errno };
    if !served {
        chain(signal, info, context);
    }
}

fn serve(address: HostAddr, access: Option<Access>) -> bool {
    for slot in &SLOTS {
        slot.inside.fetch_add(1, Ordering::SeqCst);
        let server = slot.server.load(Ordering::SeqCst);
        let inside = (slot.start.load(Ordering::Relaxed)..slot.end.load(Ordering::Relaxed)).contains(&address.0);
        let served = if server.is_null() || !inside {
            None
        } else {
            // SAFETY: not freed while `inside` is above zero and the slot gave it out.
            Some(unsafe { &*server }.serve(address, access))
        };
        slot.inside.fetch_sub(1, Ordering::SeqCst);
        if let Some(served) = served {
            return served;
        }
    }
    false
}

/// Hands the signal to who had it before us.
fn chain(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.get();
    match previous.map_or(libc::SIG_DFL, |action| action.sa_sigaction) {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: all-zero bytes are the default action. The instruction runs again and ends the process.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const default, std::ptr::null_mut());
            }
        }
        handler if previous.is_some_and(|action| action.sa_flags & libc::SA_SIGINFO != 0) => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: the application installed a function of this type.
            let handler: Handler = unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without SA_SIGINFO the application installed a function of this type.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// What the faulting instruction tried: bit 1 of x86-64's page-fault error code.
#[cfg(target_arch = "x86_64")]
fn access_of(context: *mut libc::c_void) -> Option<Access> {
    let register = usize::try_from(libc::REG_ERR).ok()?;
    // SAFETY: the kernel passes a ucontext with SA_SIGINFO.
    let error = unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[register] };
    Some(if error & 2 != 0 { Access::Write } else { Access::Read })
}

#[cfg(not(target_arch = "x86_64"))]
fn access_of(_: *mut libc::c_void) -> Option<Access> {
    None
}
