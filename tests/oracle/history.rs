//! One random history on a heap: the threads, the kernels, and what each knows its words must hold.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use limosa::{Access, Advice, Context, DeviceClass, Event, Home, HostRange, RawAllocation, Side};
use limosa_shaders::{fill, reduce, stress};

/// Bytes of one cell: a lane's word, a CPU thread's word and a watched word, in that order.
const CELL: u64 = 16 << 10;
const CELLS: u64 = 600;
const CPU_THREADS: u64 = 3;
const COUNTERS: u64 = 64;
const ROUNDS: u32 = 4;

/// What a history came to.
pub(crate) struct Outcome {
    /// Each wrong value that was seen.
    pub(crate) defects: Vec<String>,
    /// Values checked by CPU threads.
    pub(crate) cpu_operations: u64,
    /// Values checked by kernels.
    pub(crate) gpu_operations: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values checked by the CPU, {} by the GPU", self.cpu_operations, self.gpu_operations)
    }
}

/// A small random generator with a state of its own.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        stress::lane_value(self.0, 0, 0) % bound
    }
}

struct History<'a> {
    context: &'a Context,
    cells: Arc<RawAllocation>,
    counters: Arc<RawAllocation>,
    seed: u64,
    target: u64,
    stop: AtomicBool,
    cpu_operations: AtomicU64,
    gpu_operations: AtomicU64,
    cpu_counted: AtomicU64,
    defects: Mutex<Vec<String>>,
}

/// Runs a history until both sides have checked `target` values, or until something is wrong.
pub(crate) fn run(context: &Context, target: u64, seed: u64) -> Outcome {
    let heap = context.heap();
    let history = History {
        context,
        cells: heap.allocate(CELLS * CELL, 4096).unwrap(),
        counters: heap.allocate(64 << 10, 4096).unwrap(),
        seed,
        target,
        stop: AtomicBool::new(false),
        cpu_operations: AtomicU64::new(0),
        gpu_operations: AtomicU64::new(0),
        cpu_counted: AtomicU64::new(0),
        defects: Mutex::new(Vec::new()),
    };
    for lane in 0..CELLS {
        history.store(lane * CELL, stress::lane_value(seed, lane, 0));
    }
    std::thread::scope(|scope| {
        let history = &history;
        for thread in 0..CPU_THREADS {
            scope.spawn(move || history.guarded(|| history.cpu_thread(thread)));
        }
        scope.spawn(|| history.guarded(|| history.prefetches()));
        scope.spawn(|| history.guarded(|| history.sweeps()));
        scope.spawn(|| history.guarded(|| history.churn()));
        history.guarded(|| history.kernels());
    });
    Outcome {
        defects: history.defects.into_inner().unwrap_or_else(PoisonError::into_inner),
        cpu_operations: history.cpu_operations.into_inner(),
        gpu_operations: history.gpu_operations.into_inner(),
    }
}

impl History<'_> {
    fn word(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: inside the allocation, aligned, and only ever used as an atomic on this side; the GPU's accesses to
        // the same words are whole 64-bit ones.
        unsafe { AtomicU64::from_ptr(self.cells.ptr().add(offset).as_ptr().cast()) }
    }

    fn load(&self, offset: u64) -> u64 {
        self.word(offset).load(Ordering::Relaxed)
    }

    fn store(&self, offset: u64, value: u64) {
        self.word(offset).store(value, Ordering::Relaxed);
    }

    fn counter(&self, index: u64) -> &AtomicU64 {
        // SAFETY: as in `word`.
        unsafe { AtomicU64::from_ptr(self.counters.ptr().add(index * 8).as_ptr().cast()) }
    }

    /// A panic is a defect found, and ends the history for all threads.
    fn guarded(&self, work: impl FnOnce()) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        if let Err(panic) = result {
            self.wrong(format!("a panic: {:?}", panic.downcast_ref::<String>()));
        }
    }

    fn running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn wrong(&self, what: String) {
        self.defects.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        self.stop.store(true, Ordering::Relaxed);
    }

    fn expect(&self, who: &str, at: u64, seen: u64, due: u64) {
        if seen != due {
            self.wrong(format!("{who} at {at:#x}: {seen:#x} instead of {due:#x}"));
        }
    }

    fn fine<T>(&self, result: limosa::Result<T>) {
        if let Err(error) = result {
            self.wrong(error.to_string());
        }
    }

    fn done(&self) -> bool {
        let checked = |count: &AtomicU64| count.load(Ordering::Relaxed) >= self.target;
        checked(&self.cpu_operations) && checked(&self.gpu_operations)
    }

    /// Whether a thread that has done `work` is far ahead of the kernels, which have the same processors: what it does
    /// beyond some measure only keeps them waiting.
    fn ahead(&self, work: u64) -> bool {
        let ahead = work > self.gpu_operations.load(Ordering::Relaxed) * 4 + 20_000;
        if ahead {
            std::thread::yield_now();
        }
        ahead
    }

    /// Owns every third cell's CPU word and watched word: checks and replaces the one, counts the other up.
    fn cpu_thread(&self, thread: u64) {
        let mut random = Random(self.seed ^ thread << 32);
        let mut due = vec![0u64; usize::try_from(CELLS).unwrap()];
        while self.running() {
            if self.ahead(self.cpu_operations.load(Ordering::Relaxed)) {
                continue;
            }
            let cell = random.below(CELLS / CPU_THREADS) * CPU_THREADS + thread;
            let at = cell * CELL;
            match random.below(8) {
                0 => {
                    self.counter(random.below(COUNTERS)).fetch_add(1, Ordering::Relaxed);
                    self.cpu_counted.fetch_add(1, Ordering::Relaxed);
                }
                1 => self.store(at + 16, self.load(at + 16) + 1),
                kind => {
                    let mine = &mut due[usize::try_from(cell).unwrap()];
                    self.expect("a CPU thread's word", at, self.load(at + 8), *mine);
                    if kind > 3 {
                        *mine = stress::lane_value(*mine, cell, 0);
                        self.store(at + 8, *mine);
                    }
                    self.cpu_operations.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        for cell in (thread..CELLS).step_by(usize::try_from(CPU_THREADS).unwrap()) {
            let due = due[usize::try_from(cell).unwrap()];
            self.expect("a CPU thread's word in the end", cell, self.load(cell * CELL + 8), due);
        }
    }

    /// Launches the stress kernel, whose lanes check their words, until both sides have done enough.
    fn kernels(&self) {
        let heap = self.context.heap();
        let kernel = self.context.kernel("stress", stress::KERNEL.spirv).unwrap();
        let queues = [self.context.queue().unwrap(), self.context.queue().unwrap()];
        let mut before: Option<Event> = None;
        let report = heap.vec_zeroed::<[u64; 7]>(1).unwrap();
        let base = self.cells.ptr().address();
        let mut launches = 0;
        while self.running() && !self.done() {
            let arguments: [u64; 11] = [
                base,
                CELLS,
                CELL,
                self.counters.ptr().address(),
                COUNTERS,
                base + 16,
                CELL,
                CELLS,
                report.ptr(0).address(),
                self.seed,
                launches,
            ];
            let queue = &queues[usize::try_from(launches % 2).unwrap()];
            let launch = queue.launch(&kernel, CELLS).args((arguments, ROUNDS, 0u32));
            let launch = launch.with_raw(report.raw(), Access::Write).keeps(&self.counters);
            // By turns the cells are declared, and held: CPU threads wait for the launch; and not: they take blocks
            // from the kernel.
            let must = self.context.device_class() == DeviceClass::Declared;
            let held = must || launches % 3 == 0 && heap.device_budget() > 2 * self.cells.len();
            let launch = if held {
                launch.with_raw(&self.cells, Access::Write).with_raw(&self.counters, Access::Write)
            } else {
                launch.keeps(&self.cells)
            };
            // By turns on two queues, each after the one before: now and then that is waited for, now and then it is not.
            let launch = before.iter().fold(launch, |launch, event| launch.after(event));
            // SAFETY: all that the kernel touches is kept, and only used as whole words by both sides.
            let event = unsafe { launch.submit() };
            launches += 1;
            match event {
                Ok(event) if launches % 5 < 2 => {
                    before = Some(event);
                    continue;
                }
                event => self.fine(event.and_then(|event| event.wait())),
            }
            self.fine(before.take().map_or(Ok(()), |event| event.wait()));
            let done = launches * CELLS * u64::from(ROUNDS);
            self.gpu_operations.store(done, Ordering::Relaxed);
            let seen = report.read().unwrap()[0];
            if seen[0] != 0 {
                self.wrong(format!(
                    "a kernel saw {} wrong words, first (kind, lane, step, …): {:x?}",
                    seen[0],
                    &seen[2..]
                ));
            }
            if launches % 4 == 0 {
                self.check_lanes(launches);
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        self.fine(before.map_or(Ok(()), |event| event.wait()));
        self.check_lanes(launches);
        self.check_counters(launches);
    }

    fn check_lanes(&self, launches: u64) {
        for lane in 0..CELLS {
            let due = stress::lane_value(self.seed, lane, launches * u64::from(ROUNDS));
            self.expect("a lane's word", lane, self.load(lane * CELL), due);
        }
    }

    fn check_counters(&self, launches: u64) {
        let total: u64 =
            (0..COUNTERS).fold(0, |sum: u64, index| sum.wrapping_add(self.counter(index).load(Ordering::Relaxed)));
        let by_gpu = launches * CELLS * u64::from(ROUNDS);
        let by_cpu = self.cpu_counted.load(Ordering::Relaxed);
        // CPU threads may still be counting: all of theirs are in the sum that is complete.
        if total < by_gpu || total > by_gpu + by_cpu + CPU_THREADS {
            self.wrong(format!("{total} counted, {by_gpu} by the GPU and {by_cpu} by the CPU"));
        }
    }

    /// Moves random ranges both ways.
    fn prefetches(&self) {
        let mut random = Random(!self.seed);
        let mut moved = 0;
        while self.running() {
            if self.ahead(moved * 100) {
                continue;
            }
            moved += 1;
            let (side, start) = (random.below(2), random.below(CELLS * CELL));
            let side = if side == 0 { Side::Host } else { Side::Device };
            let len = 1 << random.below(22);
            match random.below(4) {
                0 => {
                    let advice = [Advice::None, Advice::ReadMostly, Advice::PreferDevice, Advice::PreferHost];
                    let advice = advice[usize::try_from(random.below(4)).unwrap()];
                    self.fine(self.cells.advise_range(start, len, advice));
                }
                1 => {
                    let ranges: Vec<_> = (0..3).map(|_| self.some_range(&mut random)).collect();
                    self.fine(self.context.heap().prefetch_batch(side, &ranges));
                }
                _ => self.fine(self.cells.prefetch_range(side, start, len)),
            }
        }
    }

    fn some_range(&self, random: &mut Random) -> HostRange {
        let all = self.cells.range();
        let start = random.below(all.len);
        HostRange { start: all.start.offset(start), len: (1 << random.below(19)).min(all.len - start) }
    }

    /// Sweeps a range of several chunks in order, by turns with kernels that fill it and add it up, and pinned.
    fn sweeps(&self) {
        let words = (5 << 20) / 4;
        let fill = self.context.kernel("fill", fill::KERNEL.spirv).unwrap();
        let reduce = self.context.kernel("reduce", reduce::KERNEL.spirv).unwrap();
        let queue = self.context.queue().unwrap();
        let mut vec = self.context.heap().vec_zeroed::<u32>(words).unwrap();
        let mut total = self.context.heap().boxed(0u64).unwrap();
        for turn in 1u32.. {
            let launch = queue.launch(&fill, words as u64 / fill::ITEMS);
            let launch = launch.args((vec.writes(), words as u64, turn, 0u32));
            // SAFETY: fill writes the vector's words.
            unsafe { launch.submit() }.unwrap();
            let wrong = vec.read().unwrap().iter().copied().zip(0..).find(|(word, _)| *word != turn);
            if let Some((word, at)) = wrong {
                self.expect("a filled word", at, word.into(), turn.into());
            }
            let mut pin = vec.host_pin().unwrap();
            pin.iter_mut().for_each(|word| *word += 1);
            drop(pin);
            *total.write().unwrap() = 0;
            let launch = queue.launch(&reduce, words as u64 / reduce::ITEMS).arg(vec.reads());
            let launch = launch.args((total.as_mut_vec().writes(), words as u64));
            // SAFETY: reduce reads the vector's words and adds to the total.
            unsafe { launch.submit() }.unwrap();
            let due = words as u64 * (u64::from(turn) + 1);
            self.expect("a sum", 0, total.get().unwrap(), due);
            if !self.running() {
                break;
            }
        }
    }

    /// Allocates in any home, finds zeros, writes, moves, reads back, discards, finds zeros, frees.
    fn churn(&self) {
        let mut random = Random(self.seed.rotate_left(17));
        let mut allocated = 0;
        while self.running() {
            if self.ahead(allocated * 500) {
                continue;
            }
            allocated += 1;
            let len = (64 << 10) + random.below(5 << 20);
            let home = if random.below(4) == 0 { Home::Shared } else { Home::Migrating };
            let memory = self.context.heap().in_home(home).allocate(len, 4096).unwrap();
            if random.below(2) == 0 {
                self.fine(memory.prefetch(Side::Device));
            }
            let tag = random.below(u64::MAX) | 1;
            let words = (0..len / 8).step_by(509).map(|index| {
                // SAFETY: inside the allocation, which is this thread's alone.
                (index, unsafe { AtomicU64::from_ptr(memory.ptr().add(index * 8).as_ptr().cast()) })
            });
            for (index, word) in words.clone() {
                self.expect("new memory", index, word.load(Ordering::Relaxed), 0);
                word.store(tag ^ index, Ordering::Relaxed);
            }
            self.fine(memory.prefetch(Side::Device));
            for (index, word) in words.clone() {
                self.expect("moved memory", index, word.load(Ordering::Relaxed), tag ^ index);
                word.store(!tag, Ordering::Relaxed);
            }
            if random.below(2) == 0 {
                let range = memory.range();
                let [one, two] = [range.len / 2, range.len].map(|end| HostRange { start: range.start, len: end });
                // SAFETY: nobody has a reference to it, and zeros are valid words.
                self.fine(unsafe { self.context.heap().discard_batch(&[one, two]) });
                // The last block may not be whole.
                for (index, word) in words.take_while(|(index, _)| index * 8 + 8 <= len / (64 << 10) * (64 << 10)) {
                    self.expect("discarded memory", index, word.load(Ordering::Relaxed), 0);
                }
            }
        }
    }
}
