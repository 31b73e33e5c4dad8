//! BabelStream's five kernels on `f32`, as bandwidth is what they measure and not every device has `f64`: on a buffer of
//! raw Vulkan's; through the heap on data that is on the device, and on data that is on the host before each launch and
//! moves by what the launch declares; in a shared home; and as CPU STREAM, on as many threads as there are processors.
//! Unit: GB/s of the arrays that BabelStream counts. Bound: 0.95 of raw Vulkan on resident data.
//!
//! Every arm goes through copy, mul, add, triad and dot in this order; the results are validated as BabelStream does. What
//! is overwritten is declared so, and does not move. Dot's time has the sum of its parts by the CPU in it.

use std::time::Duration;

use limosa::{Context, FaultMode, Home, Kernel, Queue, UnifiedVec};
use limosa_shaders::stream::{Args, CONSTANT_ID, ITEMS, KERNEL, Operation};

use crate::buffer::Buffer;
use crate::raw::{Device, Memory, Pipeline};
use crate::report::{Bound, Row};
use crate::resident::{HEAP_BYTES, context};
use crate::rounds::{gb_per_s, rotated_each, time};
use crate::scale::Scale;

/// Of BabelStream.
const START: [f32; 3] = [0.1, 0.2, 0.0];
const SCALE: f32 = 0.4;
/// In the arrays, of the mean of the differences; the sum is added in any order, and of many more.
const TOLERANCE: f64 = 100.0 * f32::EPSILON as f64;
const SUM_TOLERANCE: f64 = 1e-5;
const OPERATIONS: usize = Operation::ALL.len();

/// Three arrays, a, b and c, of equal length somewhere.
trait Arrays {
    /// Runs one operation on all elements; gives what it took, and of dot the sum.
    fn run(&mut self, operation: Operation) -> (Duration, f64);
    /// The elements.
    fn arrays(&self) -> [Vec<f32>; 3];
}

/// Which arrays an operation writes and reads; of dot, whose parts are elsewhere, the first does not count.
fn roles(operation: Operation) -> [usize; 3] {
    match operation {
        Operation::Copy => [2, 0, 0],
        Operation::Mul => [1, 2, 2],
        Operation::Add => [2, 0, 1],
        Operation::Triad => [0, 1, 2],
        Operation::Dot => [0, 0, 1],
    }
}

fn groups(count: usize) -> usize {
    usize::try_from((count as u64 / ITEMS).div_ceil(KERNEL.workgroup.into())).unwrap()
}

fn sum(parts: &[f32]) -> f64 {
    parts.iter().copied().map(f64::from).sum()
}

/// What is the same for all arrays of a heap.
struct Program {
    kernels: [Kernel; OPERATIONS],
    queue: Queue,
    context: Context,
}

impl Program {
    fn new() -> Self {
        let context = context(FaultMode::HandlerThread, HEAP_BYTES);
        let kernel = |operation: Operation| {
            let builder = context.kernel_builder(operation.name(), KERNEL.spirv);
            builder.constant(CONSTANT_ID, operation as u32).build().unwrap()
        };
        Self { kernels: Operation::ALL.map(kernel), queue: context.queue().unwrap(), context }
    }
}

/// Where a heap's arrays are before a launch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    WhereTheyAre,
    Host,
}

struct Unified<'a> {
    vecs: [UnifiedVec<f32>; 3],
    parts: UnifiedVec<f32>,
    start: Start,
    program: &'a Program,
}

impl<'a> Unified<'a> {
    fn new(program: &'a Program, home: Home, start: Start, count: usize) -> Self {
        let heap = program.context.heap().in_home(home);
        let vecs = START.map(|value| heap.vec_with(count, |_| value).unwrap());
        if home == Home::Migrating && start == Start::WhereTheyAre {
            vecs.iter().for_each(|vec| vec.prefetch_to_device().unwrap());
        }
        Self { vecs, parts: heap.vec_zeroed(groups(count)).unwrap(), start, program }
    }
}

impl Arrays for Unified<'_> {
    fn run(&mut self, operation: Operation) -> (Duration, f64) {
        if self.start == Start::Host {
            self.vecs.iter().for_each(|vec| vec.prefetch_to_host().unwrap());
        }
        let count = self.vecs[0].len() as u64;
        let (kernel, queue) = (&self.program.kernels[operation as usize], &self.program.queue);
        let mut total = 0.0;
        let taken = time(|| {
            let [a, b, c] = &mut self.vecs;
            let (result, first, second): (_, &UnifiedVec<f32>, &UnifiedVec<f32>) = match operation {
                Operation::Copy => (c, a, a),
                Operation::Mul => (b, c, c),
                Operation::Add => (c, a, b),
                Operation::Triad => (a, b, c),
                Operation::Dot => (&mut self.parts, a, b),
            };
            let launch = queue.launch(kernel, count / ITEMS).args((result.overwrites(), first.reads(), second.reads()));
            // SAFETY: stream reads `count` elements of two vectors, and replaces all of the third.
            unsafe { launch.args((count, SCALE, 0u32)).submit() }.unwrap().wait().unwrap();
            if operation == Operation::Dot {
                total = sum(&self.parts.read().unwrap());
            }
        });
        (taken, total)
    }

    fn arrays(&self) -> [Vec<f32>; 3] {
        self.vecs.each_ref().map(|vec| vec.to_vec().unwrap())
    }
}

/// One allocation of the driver's: the arrays in a row, then dot's parts.
struct Raw<'a> {
    memory: Memory,
    pipelines: [Pipeline; OPERATIONS],
    count: usize,
    device: &'a Device,
}

impl<'a> Raw<'a> {
    fn new(device: &'a Device, count: usize) -> Self {
        let pipeline = |operation: Operation| device.pipeline(&KERNEL.words(), &[(CONSTANT_ID, operation as u32)]);
        let memory = device.allocate(4 * (3 * count + groups(count)));
        let raw = Self { memory, pipelines: Operation::ALL.map(pipeline), count, device };
        for (which, value) in START.into_iter().enumerate() {
            // SAFETY: inside the allocation, which nobody else knows yet.
            unsafe { std::slice::from_raw_parts_mut(raw.start(which), count) }.fill(value);
        }
        raw
    }

    /// Of array `which`; the fourth are the parts.
    fn start(&self, which: usize) -> *mut f32 {
        // SAFETY: inside the allocation.
        unsafe { self.memory.host().cast::<f32>().add(which * self.count) }
    }

    fn elements(&self, which: usize, count: usize) -> &[f32] {
        // SAFETY: inside the allocation, all of it written, and every launch was waited for.
        unsafe { std::slice::from_raw_parts(self.start(which), count) }
    }
}

impl Arrays for Raw<'_> {
    fn run(&mut self, operation: Operation) -> (Duration, f64) {
        let address = |which: usize| self.memory.address() + 4 * (which * self.count) as u64;
        let [result, first, second] = roles(operation);
        let result = if operation == Operation::Dot { 3 } else { result };
        let [result, first, second] = [result, first, second].map(address);
        let arguments = Args { result, first, second, count: self.count as u64, scale: SCALE, reserved: 0 };
        let groups = groups(self.count);
        let mut total = 0.0;
        let taken = time(|| {
            let pipeline = &self.pipelines[operation as usize];
            // SAFETY: the arrays are in memory that lives as long as `self`.
            unsafe { self.device.launch(pipeline, u32::try_from(groups).unwrap(), &arguments) };
            if operation == Operation::Dot {
                total = sum(self.elements(3, groups));
            }
        });
        (taken, total)
    }

    fn arrays(&self) -> [Vec<f32>; 3] {
        [0, 1, 2].map(|which| self.elements(which, self.count).to_vec())
    }
}

/// CPU STREAM.
pub(crate) struct Cpu {
    buffers: [Buffer; 3],
    threads: usize,
}

impl Cpu {
    pub(crate) fn new(count: usize) -> Self {
        let buffers = START.map(|value| {
            let mut buffer = Buffer::new(4 * count);
            buffer.floats_mut().fill(value);
            buffer
        });
        Self { buffers, threads: std::thread::available_parallelism().map_or(1, usize::from) }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }
}

/// One thread's part. The operation is chosen outside of the loop.
fn apply(operation: Operation, result: &mut [f32], first: &[f32], second: &[f32]) {
    fn each(result: &mut [f32], first: &[f32], second: &[f32], of: impl Fn(f32, f32) -> f32) {
        for ((result, first), second) in result.iter_mut().zip(first).zip(second) {
            *result = of(*first, *second);
        }
    }
    match operation {
        Operation::Copy => result.copy_from_slice(first),
        Operation::Mul => each(result, first, second, |first, _| Operation::Mul.of(first, 0.0, SCALE)),
        Operation::Add => each(result, first, second, |first, second| first + second),
        _ => each(result, first, second, |first, second| Operation::Triad.of(first, second, SCALE)),
    }
}

/// One thread's part of the sum: in floats, in as many sums as a processor can keep, as long as they stay small.
fn dot(first: &[f32], second: &[f32]) -> f64 {
    const LANES: usize = 32;
    const SMALL: usize = 128 * LANES;
    let of_pieces = |(first, second): (&[f32], &[f32])| {
        let mut sums = [0.0f32; LANES];
        for (first, second) in first.chunks_exact(LANES).zip(second.chunks_exact(LANES)) {
            for ((sum, first), second) in sums.iter_mut().zip(first).zip(second) {
                *sum += first * second;
            }
        }
        sum(&sums)
    };
    first.chunks(SMALL).zip(second.chunks(SMALL)).map(of_pieces).sum()
}

impl Arrays for Cpu {
    fn run(&mut self, operation: Operation) -> (Duration, f64) {
        let [a, b, c] = &mut self.buffers;
        let part = (a.len() / 4).div_ceil(self.threads).next_multiple_of(1024);
        let mut total = 0.0;
        let taken = time(|| {
            std::thread::scope(|scope| {
                if operation == Operation::Dot {
                    let parts = a.floats().chunks(part).zip(b.floats().chunks(part));
                    let running: Vec<_> = parts.map(|(first, second)| scope.spawn(|| dot(first, second))).collect();
                    total = running.into_iter().map(|thread| thread.join().unwrap()).sum();
                    return;
                }
                let (result, first, second): (_, &Buffer, &Buffer) = match operation {
                    Operation::Copy => (c, a, a),
                    Operation::Mul => (b, c, c),
                    Operation::Add => (c, a, b),
                    _ => (a, b, c),
                };
                let parts = result.floats_mut().chunks_mut(part);
                for ((result, first), second) in
                    parts.zip(first.floats().chunks(part)).zip(second.floats().chunks(part))
                {
                    scope.spawn(move || apply(operation, result, first, second));
                }
            });
        });
        (taken, total)
    }

    fn arrays(&self) -> [Vec<f32>; 3] {
        self.buffers.each_ref().map(|buffer| buffer.floats().to_vec())
    }
}

/// One way to run, and what its elements must be: all of an array are equal.
struct Arm<'a> {
    name: &'static str,
    arrays: Box<dyn Arrays + 'a>,
    gold: [f32; 3],
    count: usize,
}

impl Arm<'_> {
    /// All five operations in a row, in GB/s.
    fn measure(&mut self) -> [f64; OPERATIONS] {
        Operation::ALL.map(|operation| {
            let (taken, sum) = self.arrays.run(operation);
            let [result, first, second] = roles(operation);
            let value = operation.of(self.gold[first], self.gold[second], SCALE);
            if operation == Operation::Dot {
                let expected = f64::from(value) * self.count as f64;
                assert!((sum - expected).abs() <= SUM_TOLERANCE * expected, "{}: dot {sum}, not {expected}", self.name);
            } else {
                self.gold[result] = value;
            }
            gb_per_s(operation.arrays() * 4 * self.count, taken)
        })
    }

    fn validate(&self) {
        for (array, gold) in self.arrays.arrays().iter().zip(self.gold) {
            let gold = f64::from(gold);
            let error: f64 = array.iter().map(|value| (f64::from(*value) - gold).abs()).sum();
            let mean = error / array.len() as f64;
            assert!(mean <= TOLERANCE * gold, "{}: elements differ from {gold} by {mean} in the mean", self.name);
        }
    }
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let count = scale.array_bytes / 4;
    let program = Program::new();
    let device = Device::open(&program.context.adapter().name);
    let unified = |home, start| Box::new(Unified::new(&program, home, start, count));
    let cpu = Cpu::new(count);
    let threads = cpu.threads();
    let arms: [(&str, Box<dyn Arrays>); 5] = [
        ("raw Vulkan", Box::new(Raw::new(&device, count))),
        ("unified resident", unified(Home::Migrating, Start::WhereTheyAre)),
        ("unified cold", unified(Home::Migrating, Start::Host)),
        ("Shared", unified(Home::Shared, Start::WhereTheyAre)),
        ("CPU STREAM", Box::new(cpu)),
    ];
    let mut arms = arms.map(|(name, arrays)| Arm { name, arrays, gold: START, count });
    let series = rotated_each(arms.len(), scale.rounds, |arm| arms[arm].measure());
    arms.iter().for_each(Arm::validate);

    let mut rows = Vec::new();
    for operation in Operation::ALL {
        let of = |arm: usize| &series[arm][operation as usize];
        let row = |arm: usize| {
            let row = Row::new(format!("stream {}, {}", operation.name(), arms[arm].name), of(arm), "GB/s");
            if arm == 0 { row } else { row.beside("raw Vulkan", of(0)) }
        };
        let cpu = row(4).note(format!("{threads} threads"));
        rows.extend([row(0), row(1).bound(Bound::AtLeast(0.95)), row(2), row(3), cpu]);
    }
    rows
}
