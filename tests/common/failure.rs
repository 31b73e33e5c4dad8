//! What the tests of failures share: a watchdog in the place of sleeps, children made of the test binary itself, and a
//! device with the kernels at hand. It does *not* inject anything.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::process::{Command, Output};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use limosa::{Context, ContextBuilder, Event, Heap, Kernel, Queue, Result, UnifiedVec};
use limosa_shaders::{copy, fill, reduce};

/// One MiB.
pub const MIB: u64 = 1 << 20;
/// One block of 64 KiB.
pub const BLOCK: u64 = 64 << 10;
/// `u32`s in a block.
pub const BLOCK_WORDS: usize = 16 << 10;
/// Bytes of VRAM beside the budget that stand in for stray accesses, at most: 33 chunks (the pager's `stand_in`).
pub const STAND_IN_BYTES: u64 = 33 * 2 * MIB;

/// How long a test may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(60);
const CHILD: &str = "LIMOSA_TEST_CHILD";

/// Ends the process, with the test's name, if the test hangs.
pub struct Watchdog {
    _test_is_running: Sender<()>,
}

impl Watchdog {
    pub fn new(test: &str) -> Self {
        let (running, ended) = mpsc::channel::<()>();
        let test = test.to_owned();
        std::thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test}: hangs: still running after {} s", LIMIT.as_secs());
                std::process::abort();
            }
        });
        Self { _test_is_running: running }
    }
}

/// A test's turn: no other test of this binary that takes one runs meanwhile, and injection ends with it.
pub struct Turn {
    _watchdog: Watchdog,
    _turn: MutexGuard<'static, ()>,
}

/// Waits for this test's turn.
pub fn turn(test: &str) -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Turn { _watchdog: Watchdog::new(test), _turn: turn }
}

#[cfg(feature = "inject")]
impl Drop for Turn {
    fn drop(&mut self) {
        limosa::inject::clear();
        limosa::inject::find_device();
    }
}

/// Runs the test `test` of this binary in a process of its own, where [`is_child`] tells it so.
pub fn child(test: &str, case: &str, prepare: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, case);
    prepare(&mut command);
    command.output().unwrap()
}

/// Whether this process was made by [`child`] for `case`.
pub fn is_child(case: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|wanted| wanted == case)
}

/// What a child wrote, for messages.
pub fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Keeps this process from dumping core when a signal ends it, as the test means it to.
pub fn no_core() {
    // SAFETY: changes an attribute of this process.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
}

/// Waits until no move is under way: a touch goes on as soon as its page is there, before the move is entered.
pub fn settle(vec: &UnifiedVec<u32>) {
    while vec.residency().iter().any(|run| run.state.busy) {
        std::thread::yield_now();
    }
}

/// A context with a queue and kernels.
pub struct Kit {
    pub queue: Queue,
    pub fill: Kernel,
    pub copy: Kernel,
    pub reduce: Kernel,
    pub context: Context,
}

impl Kit {
    /// As [`super::context`], with what launches need.
    pub fn new(test: &str, builder: ContextBuilder) -> Option<Self> {
        super::context(test, builder).map(Self::of)
    }

    pub fn of(context: Context) -> Self {
        let kernel = |kernel: limosa_shaders::Kernel| context.kernel(kernel.name, kernel.spirv).unwrap();
        Self {
            queue: context.queue().unwrap(),
            fill: kernel(fill::KERNEL),
            copy: kernel(copy::KERNEL),
            reduce: kernel(reduce::KERNEL),
            context,
        }
    }

    pub fn heap(&self) -> &Heap {
        self.context.heap()
    }

    /// Has a kernel fill `vec`.
    pub fn fill(&self, vec: &mut UnifiedVec<u32>, value: u32) -> Result<Event> {
        self.fill_on(&self.queue, vec, value)
    }

    /// The same on another queue.
    pub fn fill_on(&self, queue: &Queue, vec: &mut UnifiedVec<u32>, value: u32) -> Result<Event> {
        let count = vec.len() as u64;
        let launch = queue.launch(&self.fill, count.div_ceil(fill::ITEMS));
        // SAFETY: fill writes the words of `vec`, as declared.
        unsafe { launch.args((vec.writes(), count, value, 0u32)).submit() }
    }

    /// Has a kernel fill `words` words from `address` on, which nothing declares.
    pub fn fill_at(&self, address: u64, words: u64, value: u32) -> Result<Event> {
        // By number: as a pointer, check mode would refuse it.
        let launch = self.queue.launch(&self.fill, words.div_ceil(fill::ITEMS)).arg(address);
        // SAFETY: the tests give heap addresses to which no reference exists.
        unsafe { launch.args((words, value, 0u32)).submit() }
    }

    /// What a kernel finds to be the sum of `vec`.
    pub fn sum(&self, vec: &UnifiedVec<u32>) -> Result<u64> {
        let mut total = self.heap().boxed(0u64)?;
        let count = vec.len() as u64;
        let launch = self.queue.launch(&self.reduce, count.div_ceil(reduce::ITEMS));
        // SAFETY: reduce reads the words of `vec` and adds to `total`, as declared.
        unsafe { launch.args((vec.reads(), total.as_mut_vec().writes(), count)).submit()? }.wait()?;
        total.get()
    }

    /// The same for `words` words from `address` on, which nothing declares.
    pub fn sum_at(&self, address: u64, words: u64) -> Result<u64> {
        let mut total = self.heap().boxed(0u64)?;
        let launch = self.queue.launch(&self.reduce, words.div_ceil(reduce::ITEMS));
        let launch = launch.args((address, total.as_mut_vec().writes(), words));
        // SAFETY: the tests give heap addresses that nobody writes meanwhile.
        unsafe { launch.submit()? }.wait()?;
        total.get()
    }

    /// That launches and both sides' accesses work, after whatever came before.
    pub fn works(&self) {
        let mut vec = self.heap().vec_with(BLOCK_WORDS, |i| u32::try_from(i).unwrap()).unwrap();
        let words = BLOCK_WORDS as u64;
        assert_eq!(self.sum(&vec).unwrap(), words * (words - 1) / 2);
        self.fill(&mut vec, 3).unwrap().wait().unwrap();
        assert!(vec.read().unwrap().iter().all(|word| *word == 3));
        vec.write().unwrap()[0] = 4;
        assert_eq!(self.sum(&vec).unwrap(), 3 * words + 1);
    }
}
