//! The threads: who they are, that they go on, and what has been done in all.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::arena::Arena;
use crate::raw::random::Random;
use crate::watch::{self, MOST};
use crate::{accessor, disturb, lavapipe, owner, secret, trap};

macro_rules! ops {
    ($($name:ident $text:literal)*) => {
        /// What can be done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Op { $($name),* }
        const OPS: &[&str] = &[$($text),*];
        const ALL: &[Op] = &[$(Op::$name),*];
    };
}
ops! {
    Look "look" Write "write" Count "count"
    Rewrite "rewrite" Discard "discard" Fresh "fresh to device" Unmap "munmap" Move "mremap" MoveLeaving "mremap leaving"
    Fork "fork" DirectIo "O_DIRECT" OwnView "own view"
    Migrate "MIGRATE" Policy "POLICY" Limit "LIMIT" Query "query" Protect "mprotect" Lock "mlock" PageOut "MADV_PAGEOUT"
    Cold "MADV_COLD" Populate "MADV_POPULATE_READ" Collapse "MADV_COLLAPSE" Merge "KSM" Huge "huge pages" Remote "process_madvise"
    Compact "compaction" Signal "signals" Kernel "kernel" Secret "secret"
}

/// What may never be done in a run though all is well: the kernel may lack it, or refuse it for reasons of its own, or it is
/// done too rarely.
const MAY_LACK: &[Op] = &[Op::Collapse, Op::Merge, Op::Huge, Op::Compact];
/// What takes a device.
const OF_DEVICES: &[Op] = &[Op::Fresh, Op::OwnView, Op::Migrate, Op::Policy, Op::Limit, Op::Query, Op::Secret];

/// What all agents see.
pub struct Shared {
    /// The memory.
    pub arena: Arena,
    /// What all choices follow from.
    pub seed: u64,
    stop: AtomicBool,
    threads: [AtomicI32; MOST],
    done: [(AtomicU64, AtomicU64); OPS.len()],
}

impl Shared {
    /// Nothing done yet.
    pub fn new(arena: Arena, seed: u64) -> Self {
        Self {
            arena,
            seed,
            stop: AtomicBool::new(false),
            threads: [const { AtomicI32::new(0) }; MOST],
            done: [const { (AtomicU64::new(0), AtomicU64::new(0)) }; OPS.len()],
        }
    }

    /// How often each operation was done, and in brackets how often it was refused or not possible.
    pub fn tally(&self) -> String {
        let mut text = String::new();
        for (name, (done, refused)) in OPS.iter().zip(&self.done) {
            let (done, refused) = (done.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
            if done + refused > 0 {
                let _ = write!(text, "{name} {done}");
                let _ = if refused > 0 { write!(text, " ({refused}), ") } else { write!(text, ", ") };
            }
        }
        text + &format!("accesses tried again {}", trap::REFUSED.load(Ordering::Relaxed))
    }

    /// What was never done and should have been: a run that only ever heard refusals shows nothing. `have` are the parts
    /// that this machine has, each by an operation that takes it.
    pub fn never_done(&self, have: &[Op]) -> Vec<&'static str> {
        let never = self.done.iter().map(|(done, _)| done.load(Ordering::Relaxed) == 0);
        let never = ALL.iter().zip(never).filter(|(_, never)| *never).map(|(op, _)| *op);
        let due = never.filter(|op| {
            let by_part = [Op::Kernel, Op::DirectIo].contains(op) && !have.contains(op);
            let by_device = OF_DEVICES.contains(op) && self.arena.devices.is_empty();
            !(MAY_LACK.contains(op) || by_part || by_device)
        });
        due.map(|op| OPS[op as usize]).collect()
    }

    /// The threads that may be sent signals.
    pub fn threads(&self) -> impl Iterator<Item = i32> {
        self.threads.iter().map(|thread| thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0)
    }
}

/// One thread.
pub struct Agent {
    /// What it shares.
    pub shared: Arc<Shared>,
    /// Its choices.
    pub random: Random,
    /// Its place among the agents.
    pub index: usize,
}

impl Agent {
    /// Whether to go on, with another step.
    pub fn goes_on(&self) -> bool {
        trap::served();
        watch::step(self.index);
        !self.shared.stop.load(Ordering::Relaxed)
    }

    /// Notes that something was done, or was not to be had.
    pub fn note(&self, op: Op, done: bool) {
        let (yes, no) = &self.shared.done[op as usize];
        if done { yes } else { no }.fetch_add(1, Ordering::Relaxed);
    }

    /// What is said of a slot that this agent last did `op` to.
    pub fn mark(&self, op: Op) -> u64 {
        let steps = watch::steps(self.index);
        1 << 63 | (self.index as u64) << 56 | (op as u64) << 48 | steps & 0xFFFF_FFFF_FFFF
    }

    /// The memory.
    pub fn arena(&self) -> &Arena {
        &self.shared.arena
    }
}

/// The text of a [`Agent::mark`].
pub fn describe(mark: u64) -> String {
    if mark == 0 {
        return "nothing yet".into();
    }
    let op = usize::try_from(mark >> 48 & 0xFF).ok().and_then(|op| OPS.get(op)).copied().unwrap_or("?");
    format!("{op} by agent {} in its step {}", mark >> 56 & 0x7F, mark & 0xFFFF_FFFF_FFFF)
}

/// What an agent does until it is to stop.
type Work = fn(Agent);

/// All agents.
pub struct Agents {
    /// Their names.
    pub names: Vec<String>,
    threads: Vec<JoinHandle<()>>,
    ended: mpsc::Receiver<()>,
}

impl Agents {
    /// Starts them.
    pub fn start(shared: &Arc<Shared>) -> Self {
        // Enough that they meet, and few enough that each gets on.
        let some = std::thread::available_parallelism().map_or(1, |count| (count.get() / 2).clamp(1, 3));
        let works: &[(&str, usize, Work)] = &[
            ("CPU", some, accessor::cpu),
            ("GPU", some, accessor::gpu),
            ("owner", 2 * some, owner::work),
            ("disturber", some, disturb::work),
            ("secrets", 1, secret::work),
            ("lavapipe", 1, lavapipe::work),
        ];
        disturb::expect_signals();
        let (end, ended) = mpsc::channel();
        let mut agents = Self { names: Vec::new(), threads: Vec::new(), ended };
        for (name, count, work) in works {
            for number in 0..*count {
                let index = agents.names.len();
                let random = Random::new(shared.seed, index as u64);
                let agent = Agent { shared: Arc::clone(shared), random, index };
                let (work, end) = (*work, end.clone());
                let name = format!("agent {index} ({name} {number})");
                watch::begin(index, name.clone());
                agents.names.push(name);
                agents.threads.push(std::thread::spawn(move || run(agent, work, &end)));
            }
        }
        println!("agents: {}", agents.names.join(", "));
        agents
    }

    /// Waits a while for an agent to end, which none should.
    pub fn any_ended(&self, limit: Duration) {
        let _ = self.ended.recv_timeout(limit);
    }

    /// Has all stop, and waits for them.
    pub fn join(self, shared: &Shared) {
        shared.stop.store(true, Ordering::Relaxed);
        for (thread, name) in self.threads.into_iter().zip(self.names) {
            if thread.join().is_err() {
                shared.arena.fail(&format!("{name} panicked"));
            }
            watch::step(watch::MAIN);
        }
    }
}

fn run(agent: Agent, work: Work, end: &mpsc::Sender<()>) {
    let (shared, index) = (Arc::clone(&agent.shared), agent.index);
    // SAFETY: always allowed.
    shared.threads[index].store(unsafe { libc::gettid() }, Ordering::Relaxed);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(agent)));
    shared.threads[index].store(0, Ordering::Relaxed);
    watch::end(index);
    if outcome.is_err() {
        shared.arena.fail(&format!("agent {index} panicked"));
    }
    let _ = end.send(());
}
