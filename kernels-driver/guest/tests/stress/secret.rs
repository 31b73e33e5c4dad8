//! Other processes that leave what nobody else may see: they fill device memory with a mark, and end in one way or
//! another. Whoever finds the mark in memory of his own has been given a page that was not cleared.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use crate::agent::{Agent, Op};
use crate::arena::TAG_SECRET;
use crate::raw::uapi::{COHERENT, POLICY_MIGRATE, PRIVATE};
use crate::raw::{HUGE, PAGE, memory, shim};

const LEN: usize = HUGE;

/// Starts them, one after the other.
pub fn work(mut agent: Agent) {
    let program = std::env::current_exe().unwrap_or_else(|error| panic!("who am I: {error}"));
    while agent.goes_on() {
        if agent.arena().devices.is_empty() {
            return;
        }
        let kind = *agent.random.pick(&["exit", "kill", "unmap", "view"]);
        let status = Command::new(&program).args(["--secret", kind]).stdin(Stdio::null()).status();
        let ended = status.as_ref().is_ok_and(|status| status.success() || kind == "kill");
        if !ended {
            agent.arena().fail(&format!("the process with a secret ({kind}): {status:?}"));
        }
        agent.note(Op::Secret, true);
    }
}

/// One of them: never returns with anything put away that the kernel is to put away.
pub fn leave(kind: &str) {
    let mark = TAG_SECRET << 56 | u64::from(std::process::id());
    let at = memory::aligned(LEN).unwrap_or_else(|error| panic!("mmap: {error}"));
    for device in shim::devices().unwrap_or_else(|error| panic!("/dev/limosa*: {error}")) {
        for offset in (0..LEN).step_by(64) {
            // SAFETY: mapped above.
            unsafe { memory::word(at + offset) }.store(mark, Ordering::Relaxed);
        }
        let _ = device.migrate(at, LEN / 2, COHERENT);
        let _ = device.migrate(at, LEN, PRIVATE);
        if kind == "view"
            && let Ok(view) = shim::Mapped::new(&device, at, LEN, POLICY_MIGRATE)
        {
            for offset in (0..LEN).step_by(PAGE) {
                assert_eq!(view.read(offset), mark, "a secret, by a view of its process");
            }
            std::mem::forget(view);
        }
        if kind == "unmap" {
            let _ = memory::unmap(at + LEN / 4, LEN / 2);
            memory::replace(at, LEN).unwrap_or_else(|error| panic!("mmap: {error}"));
        }
        if kind == "kill" {
            // SAFETY: ends this process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    }
}
