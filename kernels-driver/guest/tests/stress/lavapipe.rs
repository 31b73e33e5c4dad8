//! Compute kernels of lavapipe on the first 2 MiB of the arena, through a view: its worker threads are the GPU. The kernel
//! is the coherence oracle's: each lane checks and advances a word of its own, counts, and watches that no counter goes
//! down. The CPU starts the launches, checks all words between them, and counts in the same counters meanwhile.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use limosa_gpu::{
    Device, DeviceChoice, DeviceKind, GpuError, ImportedRange, Instance, Kernel, Queue, QueueOptions, Source,
    Submission, Translation,
};
use limosa_model::{HostAddr, HostRange};
use limosa_shaders::stress::{Args, KERNEL, counter_index, lane_value};

use crate::agent::{Agent, Op};
use crate::arena::{Arena, COUNTERS, LANES, Path};
use crate::raw::{self, HUGE, PAGE, memory};
use crate::watch;

/// A lane's words are 72 bytes apart, so that lanes share pages and pages share lanes.
const STRIDE: usize = 72;
const COUNT: usize = 1024;
const ROUNDS: u32 = 8;
/// Behind the lanes' words.
const REPORT: usize = (LANES + COUNT * STRIDE).next_multiple_of(PAGE);

/// Lavapipe: one device, and a range of it for each path.
struct Gpu {
    queue: Queue,
    kernel: Arc<Kernel>,
    ranges: Vec<ImportedRange>,
}

static GPU: OnceLock<Gpu> = OnceLock::new();

/// Starts lavapipe and launches once by each path, before others are at work: the driver compiles at the first launch, which
/// takes long on an emulated processor. Whether there is lavapipe.
pub fn prepare(arena: &Arena, seed: u64) -> bool {
    let gpu = match Gpu::new(&arena.paths) {
        Ok(gpu) => gpu,
        Err(error) if raw::expected("lavapipe") => panic!("this machine is meant to have lavapipe: {error}"),
        Err(error) => {
            raw::skip_part("stress lavapipe", &error.to_string());
            return false;
        }
    };
    for lane in 0..COUNT {
        word(LANES + lane * STRIDE).store(lane_value(seed, lane as u64, 0), Ordering::Relaxed);
    }
    for launch in 0..arena.paths.len() as u64 {
        gpu.launch(arena, seed, launch);
        watch::step(watch::MAIN);
    }
    GPU.set(gpu).is_ok()
}

/// Launches, one after the other, by each path in turn.
pub fn work(agent: Agent) {
    const { assert!(REPORT + PAGE <= HUGE) };
    let shared = Arc::clone(&agent.shared);
    let arena = &shared.arena;
    let Some(gpu) = GPU.get() else { return };
    let mut launch = arena.paths.len() as u64;
    while agent.goes_on() {
        gpu.launch(arena, shared.seed, launch);
        launch += 1;
        agent.note(Op::Kernel, true);
    }
}

impl Gpu {
    fn new(paths: &[Path]) -> Result<Self, GpuError> {
        let instance = Instance::new()?;
        let device = Device::open(&instance, instance.choose(&DeviceChoice::Kind(DeviceKind::Cpu))?)?;
        let import = |path: &Path| {
            let range = HostRange { start: HostAddr(path.base as u64), len: HUGE as u64 };
            // SAFETY: views stay mapped for as long as agents run; what they mirror here is never unmapped or protected.
            unsafe { ImportedRange::new(&device, range) }
        };
        let ranges = paths.iter().map(import).collect::<Result<_, _>>()?;
        let words = KERNEL.words();
        let source = Source { name: KERNEL.name, words: &words, entry: "main", constants: &[] };
        let kernel = Kernel::new(&device, &source, Translation::Delta(0))?;
        Ok(Self { queue: Queue::new(&device, QueueOptions::default())?, kernel, ranges })
    }

    /// A launch, by the path whose turn it is, and what must come of it.
    fn launch(&self, arena: &Arena, seed: u64, launch: u64) {
        let place = usize::try_from(launch).unwrap_or(0) % arena.paths.len();
        let path = &arena.paths[place];
        if let Err(error) = self.run(&self.ranges[place], seed, launch) {
            arena.fail(&format!("a launch on lavapipe by {}: {error}", path.name));
        }
        check(arena, path, seed, launch + 1);
    }

    /// A launch by one of the ranges: how far it is from the CPU's is an argument.
    fn run(&self, range: &ImportedRange, seed: u64, launch: u64) -> Result<(), GpuError> {
        const { assert!(size_of::<Args>() == 12 * 8) };
        let at = |offset: usize| (Arena::address(0) + offset) as u64;
        let translation = Translation::Delta(range.base().0.wrapping_sub(at(0)));
        let counters = [at(0), COUNTERS as u64];
        let args = [
            translation.word(),
            at(LANES),
            COUNT as u64,
            STRIDE as u64,
            counters[0],
            counters[1],
            counters[0], // watched: they never go down
            8,
            counters[1],
            at(REPORT),
            seed,
            launch,
            u64::from(ROUNDS),
        ];
        let submission = Submission {
            kernel: Arc::clone(&self.kernel),
            groups: self.kernel.groups_for(COUNT as u64)?,
            arguments: args.iter().flat_map(|word| word.to_ne_bytes()).collect(),
            keep: Box::new(()),
            span: None,
        };
        // SAFETY: all that the kernel reaches is in the arena's first 2 MiB, and it is waited for.
        let ticket = unsafe { self.queue.submit(submission, Vec::new()) }.map_err(|refused| refused.error)?;
        self.queue.wait(ticket)
    }
}

/// Every word is what so many launches make it, and no lane has seen anything else.
fn check(arena: &Arena, path: &Path, seed: u64, launches: u64) {
    let report: Vec<_> = (0..7).map(|place| word(REPORT + 8 * place).load(Ordering::Relaxed)).collect();
    if report[0] != 0 {
        arena.fail(&format!(
            "{} words wrong in a kernel by {}; the first: kind {}, lane {}, step {}, found {:#x}, expected {:#x}",
            report[0], path.name, report[2], report[3], report[4], report[5], report[6]
        ));
    }
    let rounds = u64::from(ROUNDS);
    for lane in 0..COUNT {
        let found = word(LANES + lane * STRIDE).load(Ordering::Relaxed);
        let expected = lane_value(seed, lane as u64, launches * rounds);
        if found != expected {
            arena.fail(&format!("lane {lane} after launch {launches} by {}: {found:#x}, not {expected:#x}", path.name));
        }
        for step in (launches - 1) * rounds..launches * rounds {
            let counter =
                counter_index(seed, lane as u64, step, COUNTERS as u64).and_then(|at| usize::try_from(at).ok());
            if let Some(counter) = counter.and_then(|at| arena.counted.get(at)) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn word(offset: usize) -> &'static std::sync::atomic::AtomicU64 {
    // SAFETY: the arena's first 2 MiB stay mapped for as long as agents run.
    unsafe { memory::word(Arena::address(0) + offset) }
}
