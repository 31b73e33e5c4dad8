//! What must not change contents, whoever is at work: moves between system and device, protection that comes and goes,
//! swapping, compaction, merging and collapsing, policies, limits, signals. Ranges overlap each other and what owners do.

use std::sync::Arc;

use crate::agent::{Agent, Op};
use crate::arena::{Arena, set_policy};
use crate::raw::shim::Device;
use crate::raw::uapi::{
    COHERENT, COUNTER_NAMES, COUNTERS_TOLD, POLICY_MAP, POLICY_MIGRATE, PRIVATE, SCOPE_DEVICE, SCOPE_FILE, SYSTEM,
};
use crate::raw::{HUGE, PAGE, errno, memory};

/// Since Linux 6.1; libc does not have it everywhere.
const MADV_COLLAPSE: i32 = 25;

/// Does all of them, in turn by chance.
pub fn work(mut agent: Agent) {
    let _ = std::fs::write("/sys/kernel/mm/ksm/run", "1");
    let mut counts = vec![[[0; COUNTERS_TOLD]; 2]; agent.arena().devices.len()];
    while agent.goes_on() {
        let shared = Arc::clone(&agent.shared);
        let (at, len, slots) = range(&mut agent, &shared.arena);
        if agent.random.once_in(3) {
            signal(&mut agent);
        }
        match agent.random.below(32) {
            0..12 => migrate(&mut agent, at, len),
            12..15 => policy(&mut agent, at, len),
            15 => limit(&mut agent),
            16..18 => query(&mut agent, at, len, &mut counts),
            18..22 if slots => protect(&mut agent, at, len),
            22 => lock(&mut agent, at, len),
            23 => advise(&mut agent, Op::PageOut, at, len, libc::MADV_PAGEOUT),
            24 => advise(&mut agent, Op::Cold, at, len, libc::MADV_COLD),
            25 => advise(&mut agent, Op::Collapse, at / HUGE * HUGE, HUGE, MADV_COLLAPSE),
            26 => {
                let merge = agent.random.once_in(2);
                advise(
                    &mut agent,
                    Op::Merge,
                    at,
                    len,
                    if merge { libc::MADV_MERGEABLE } else { libc::MADV_UNMERGEABLE },
                );
            }
            27 => {
                let huge = !agent.random.once_in(3);
                advise(&mut agent, Op::Huge, at, len, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
            }
            28 => remote(&mut agent, at, len),
            29 if agent.random.once_in(40) => {
                let done = std::fs::write("/proc/sys/vm/compact_memory", "1").is_ok();
                agent.note(Op::Compact, done);
            }
            _ => advise(&mut agent, Op::Populate, at, len, libc::MADV_POPULATE_READ),
        }
    }
}

/// A range of pages, and whether it has only slots in it.
fn range(agent: &mut Agent, arena: &Arena) -> (usize, usize, bool) {
    let pages = arena.len / PAGE;
    let count = match agent.random.below(32) {
        0..24 => 1 + agent.random.below(8),
        24..29 => 1 + agent.random.below(64),
        29 | 30 => 512,
        _ => 1 + agent.random.below(2048),
    }
    .min(pages);
    let mut first = agent.random.below(pages - count + 1);
    if agent.random.once_in(4) {
        first = first / 512 * 512;
    }
    (Arena::address(0) + first * PAGE, count * PAGE, first >= HUGE / PAGE)
}

fn device<'a>(agent: &mut Agent, arena: &'a Arena) -> Option<&'a Device> {
    (!arena.devices.is_empty()).then(|| &arena.devices[agent.random.below(arena.devices.len())])
}

fn migrate(agent: &mut Agent, at: usize, len: usize) {
    let shared = Arc::clone(&agent.shared);
    let Some(device) = device(agent, &shared.arena) else { return };
    let to = *agent.random.pick(&[SYSTEM, PRIVATE, PRIVATE, PRIVATE, COHERENT]);
    let (told, result) = device.migrate(at, len, to);
    let done = told.moved + told.left;
    let within = told.cursor >= at as u64 && told.cursor <= (at + len) as u64;
    let known = match errno(&result) {
        0 => told.cursor == (at + len) as u64,
        libc::EFAULT | libc::ENOSPC | libc::EDQUOT | libc::EINTR | libc::ENOMEM => true,
        // Where the device has no such memory: before anything is done.
        libc::EOPNOTSUPP => return agent.note(Op::Migrate, false),
        _ => false,
    };
    if !known || !within || done * PAGE as u64 != told.cursor - at as u64 || told.moved_huge * 512 > told.moved {
        shared.arena.fail(&format!("MIGRATE of {len:#x} bytes at {at:#x} to {to}: {result:?}, {told:?}"));
    }
    agent.note(Op::Migrate, result.is_ok());
}

fn policy(agent: &mut Agent, at: usize, len: usize) {
    let shared = Arc::clone(&agent.shared);
    let views = shared.arena.views();
    if views.is_empty() {
        return;
    }
    let (view, policy) = (*agent.random.pick(&views), *agent.random.pick(&[POLICY_MAP, POLICY_MIGRATE]));
    let result = set_policy(view, at, len, policy);
    if !matches!(errno(&result), 0 | libc::ENOMEM | libc::EINTR) {
        shared.arena.fail(&format!("POLICY {policy} of {len:#x} bytes at {at:#x}: {result:?}"));
    }
    agent.note(Op::Policy, result.is_ok());
}

/// Mostly none, at times less than the arena.
fn limit(agent: &mut Agent) {
    let shared = Arc::clone(&agent.shared);
    let Some(device) = device(agent, &shared.arena) else { return };
    let bytes = if agent.random.once_in(3) { agent.random.next() % shared.arena.len as u64 } else { u64::MAX };
    if let Err(error) = device.limit(bytes) {
        shared.arena.fail(&format!("LIMIT {bytes}: {error}"));
    }
    agent.note(Op::Limit, true);
}

fn query(agent: &mut Agent, at: usize, len: usize, counts: &mut [[[u64; COUNTERS_TOLD]; 2]]) {
    let shared = Arc::clone(&agent.shared);
    let Some(device) = device(agent, &shared.arena) else { return };
    let (told, result) = device.residency(at, len);
    let pages = told.absent + told.in_system + told.in_private + told.in_coherent;
    let known = matches!(errno(&result), 0 | libc::EFAULT | libc::EINTR | libc::ENOMEM);
    let whole = result.is_err() || told.cursor == (at + len) as u64;
    if !known || !whole || pages * PAGE as u64 != told.cursor - at as u64 {
        shared.arena.fail(&format!("RESIDENCY of {len:#x} bytes at {at:#x}: {result:?}, {told:?}"));
    }
    let place = shared.arena.devices.iter().position(|other| other.index == device.index).unwrap_or(0);
    for (scope, before) in [SCOPE_FILE, SCOPE_DEVICE].into_iter().zip(&mut counts[place]) {
        let now = device.counters(scope).unwrap_or_else(|error| shared.arena.fail(&format!("COUNTERS: {error}")));
        for ((before, now), name) in before.iter().zip(now).zip(COUNTER_NAMES) {
            if now < *before {
                shared.arena.fail(&format!("counter {name} of limosa{} went from {before} to {now}", device.index));
            }
        }
        *before = now;
    }
    agent.note(Op::Query, result.is_ok());
}

/// Takes rights away and gives them back, which must go on to the end: a hole in the range stops the call.
fn protect(agent: &mut Agent, at: usize, len: usize) {
    let none = agent.random.once_in(2);
    let taken = memory::protect(at, len, if none { libc::PROT_NONE } else { libc::PROT_READ });
    for _ in 0..agent.random.below(3) {
        std::thread::yield_now();
    }
    while memory::protect(at, len, libc::PROT_READ | libc::PROT_WRITE).is_err() {
        std::thread::yield_now();
    }
    agent.note(Op::Protect, taken.is_ok());
}

fn lock(agent: &mut Agent, at: usize, len: usize) {
    let len = len.min(64 * PAGE);
    let locked = memory::lock(at, len);
    let unlocked = memory::unlock(at, len);
    agent.note(Op::Lock, locked.is_ok() && unlocked.is_ok());
}

fn advise(agent: &mut Agent, op: Op, at: usize, len: usize, advice: i32) {
    let done = memory::advise(at, len, advice).is_ok();
    agent.note(op, done);
}

/// As another process would advise.
fn remote(agent: &mut Agent, at: usize, len: usize) {
    let advice = *agent.random.pick(&[libc::MADV_COLD, libc::MADV_PAGEOUT, libc::MADV_WILLNEED, MADV_COLLAPSE]);
    let range = libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(at), iov_len: len };
    // SAFETY: the range is ours, and none of these changes what is in it.
    let done = unsafe {
        let this = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
        let done = libc::syscall(libc::SYS_process_madvise, this, &raw const range, 1, advice, 0);
        libc::close(i32::try_from(this).unwrap_or(-1));
        done
    };
    agent.note(Op::Remote, done >= 0);
}

/// Sends a signal to an agent, so that a call is interrupted in the middle.
fn signal(agent: &mut Agent) {
    let threads: Vec<_> = agent.shared.threads().collect();
    let thread = *agent.random.pick(&threads);
    // SAFETY: at worst there is no such thread any more.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
    agent.note(Op::Signal, sent == 0);
}

/// Has those signals do nothing but interrupt.
pub fn expect_signals() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: the handler does nothing; without SA_RESTART, so that calls end.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigemptyset(&raw mut action.sa_mask);
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
}
