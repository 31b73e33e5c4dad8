//! What launches that do nothing cost (one workgroup filling zero words): one at a time, submit to end of wait, and many
//! that are submitted before one wait. Peers: raw Vulkan that records, submits and waits for the same, wgpu, and the
//! pager's own calls. Unit: µs a launch (the median of a round; of a batch, the mean). A batch is measured twice: with
//! launches that only read what they share, and with launches that write the same vector, one after the other.
//!
//! Bounds: 1.10 of raw Vulkan with four resident arguments declared, 1.05 in a batch; 1.02 of the pager's own calls,
//! which is the API's overhead: those two share a heap and take turns launch by launch, so that both meet the same noise.

use limosa::{Context, FaultMode, Kernel, Queue, UnifiedVec, ViewKind};
use limosa_shaders::fill::{Args, KERNEL};

use crate::pager::Pager;
use crate::raw::{Commands, Device, Pipeline};
use crate::report::{Bound, Row};
use crate::resident::{HEAP_BYTES, context_by};
use crate::rounds::{Series, percentile, rotated, rotated_each, time};
use crate::scale::Scale;
use crate::webgpu::WebGpu;

const WORDS: usize = 1 << 20;
const EMPTY: Args = Args { dst: 0, count: 0, value: 0, reserved: 0 };
/// Launches of the comparison with the pager, for each of the others: what it looks for is small.
const OVERHEAD_LAUNCHES: usize = 10;
/// The order of the arms.
const WGPU: usize = 4;
const BATCHED_WGPU: usize = 4;

/// limosa's side.
struct Ours {
    target: UnifiedVec<u32>,
    resident: [UnifiedVec<u32>; 3],
    kernel: Kernel,
    queue: Queue,
    context: Context,
}

impl Ours {
    fn new(view: ViewKind) -> Self {
        let context = context_by(view, FaultMode::HandlerThread, HEAP_BYTES);
        let vec = || context.heap().vec_zeroed::<u32>(WORDS).unwrap();
        let resident: [_; 3] = std::array::from_fn(|_| vec());
        resident.iter().for_each(|vec| vec.prefetch_to_device().unwrap());
        let (kernel, queue) = (context.kernel(KERNEL.name, KERNEL.spirv).unwrap(), context.queue().unwrap());
        Self { target: vec(), resident, kernel, queue, context }
    }

    /// Submits an empty launch that reads one vector.
    fn submit_reading(&mut self) {
        let launch = self.queue.launch(&self.kernel, 1).args((self.resident[0].reads(), 0u64, 0u32, 0u32));
        // SAFETY: as below.
        unsafe { launch.submit() }.unwrap();
    }

    /// Submits an empty launch that writes one vector and declares that it reads the first `declared` others.
    fn submit(&mut self, declared: usize) -> limosa::Event {
        let launch = self.queue.launch(&self.kernel, 1).args((self.target.writes(), 0u64, 0u32, 0u32));
        let launch = self.resident[..declared].iter().fold(launch, |launch, vec| launch.with(vec.reads()));
        // SAFETY: fill writes none of the vector's words.
        unsafe { launch.submit() }.unwrap()
    }
}

/// Raw Vulkan's.
struct Raw {
    recorded: Vec<Commands>,
    recorded_anew: Vec<Commands>,
    pipeline: Pipeline,
    device: Device,
}

impl Raw {
    fn new(name: &str, batch: usize) -> Self {
        let device = Device::open(name);
        let pipeline = device.pipeline(&KERNEL.words(), &[]);
        let recorded = (0..batch).map(|_| device.record(&pipeline, 1, &EMPTY)).collect();
        let recorded_anew = (0..batch).map(|_| device.commands()).collect();
        Self { recorded, recorded_anew, pipeline, device }
    }

    fn one(&self) {
        // SAFETY: fill of no words touches nothing.
        unsafe { self.device.launch(&self.pipeline, 1, &EMPTY) };
    }

    fn one_recorded(&self) {
        // SAFETY: as above; each submission ends before the next.
        unsafe { self.device.submit(self.recorded[0]) };
        self.device.wait();
    }

    fn batch(&self) {
        for commands in &self.recorded_anew {
            // SAFETY: as above; the wait ends all submissions before the next batch.
            unsafe { self.device.enqueue(*commands, &self.pipeline, 1, &EMPTY) };
        }
        self.device.wait();
    }

    fn batch_recorded(&self) {
        // SAFETY: as above.
        self.recorded.iter().for_each(|commands| unsafe { self.device.submit(*commands) });
        self.device.wait();
    }
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    [ViewKind::Import, ViewKind::Sparse].into_iter().flat_map(|view| by(view, scale)).collect()
}

fn by(view: ViewKind, scale: &Scale) -> Vec<Row> {
    let mut ours = Ours::new(view);
    let name = ours.context.adapter().name.clone();
    let raw = Raw::new(&name, scale.batch);
    let wgpu = WebGpu::open(&name);
    let mut rows = single(view, scale, &mut ours, &raw, wgpu.as_ref().ok());
    rows.push(overhead(view, scale, &mut ours));
    rows.extend(batched(view, scale, &mut ours, &raw, wgpu.as_ref().ok()));
    rows.extend(wgpu.err().map(|why| Row::left_out(format!("empty launches, wgpu, {view}"), why)));
    rows
}

fn micros(work: impl FnOnce()) -> f64 {
    time(work).as_secs_f64() * 1e6
}

/// One launch at a time.
fn single(view: ViewKind, scale: &Scale, ours: &mut Ours, raw: &Raw, wgpu: Option<&WebGpu>) -> Vec<Row> {
    let arms = if wgpu.is_some() { WGPU + 1 } else { WGPU };
    let series = rotated(arms, scale.rounds * 2, |arm| {
        let mut one = || {
            micros(|| match arm {
                0 => ours.submit(0).wait().unwrap(),
                1 => raw.one(),
                2 => ours.submit(3).wait().unwrap(),
                3 => raw.one_recorded(),
                _ => wgpu.iter().for_each(|wgpu| {
                    wgpu.submit();
                    wgpu.wait();
                }),
            })
        };
        let times: Vec<f64> = (0..scale.launches).map(|_| one()).collect();
        percentile(&times, 50)
    });
    let row = |name: &str, arm: usize| Row::new(format!("{name}, {view}"), &series[arm], "µs");
    let (raw, peer) = (&series[1], "raw Vulkan, recorded each time");
    let mut rows = vec![
        row("empty launch", 0).beside(peer, raw),
        row("empty launch, four resident arguments declared", 2).beside(peer, raw).bound(Bound::AtMost(1.10)),
        row("empty launch, raw Vulkan, recorded once", 3).beside(peer, raw),
    ];
    rows.extend(series.get(WGPU).map(|wgpu| row("empty launch, beside wgpu", 0).beside("wgpu", wgpu)));
    rows
}

/// The API beside the pager's own calls.
fn overhead(view: ViewKind, scale: &Scale, ours: &mut Ours) -> Row {
    let pager = Pager::new(ours.context.heap().engine(), WORDS as u64 * 4);
    let launches = scale.launches * OVERHEAD_LAUNCHES;
    let series = rotated_each(1, scale.rounds * 2, |_| {
        let mut times: [Vec<f64>; 2] = std::array::from_fn(|_| Vec::with_capacity(launches));
        for turn in 0..2 * launches {
            // First one, then the other, then the other way round.
            let arm = (turn + turn / 2) % 2;
            times[arm].push(micros(|| match arm {
                0 => ours.submit(0).wait().unwrap(),
                _ => pager.launch().wait().unwrap(),
            }));
        }
        times.map(|times| percentile(&times, 50))
    });
    let [api, own] = &series[0];
    let row = Row::new(format!("empty launch through the API, {view}"), api, "µs");
    row.beside("the pager's own calls", own).bound(Bound::AtMost(1.02))
}

/// Many launches, then one wait.
fn batched(view: ViewKind, scale: &Scale, ours: &mut Ours, raw: &Raw, wgpu: Option<&WebGpu>) -> Vec<Row> {
    let arms = if wgpu.is_some() { BATCHED_WGPU + 1 } else { BATCHED_WGPU };
    let batches = scale.launches.div_ceil(10);
    let series: Vec<Series> = rotated(arms, scale.rounds * 2, |arm| {
        let mut batch = || {
            micros(|| match arm {
                0 => {
                    (0..scale.batch).for_each(|_| ours.submit_reading());
                    ours.queue.wait_idle().unwrap();
                }
                1 => raw.batch(),
                2 => raw.batch_recorded(),
                3 => {
                    (0..scale.batch).for_each(|_| drop(ours.submit(0)));
                    ours.queue.wait_idle().unwrap();
                }
                _ => wgpu.iter().for_each(|wgpu| {
                    (0..scale.batch).for_each(|_| wgpu.submit());
                    wgpu.wait();
                }),
            })
        };
        let times: Vec<f64> = (0..batches).map(|_| batch() / scale.batch as f64).collect();
        percentile(&times, 50)
    });
    let row = |name: &str, arm: usize| {
        let row = Row::new(format!("{name}, {view}"), &series[arm], "µs a launch");
        row.note(format!("{} launches, then one wait", scale.batch))
    };
    let peer = "raw Vulkan, recorded each time";
    let mut rows = vec![
        row("batched launches", 0).beside(peer, &series[1]).bound(Bound::AtMost(1.05)),
        row("batched launches that write the same vector", 3).beside(peer, &series[1]).bound(Bound::AtMost(1.05)),
        row("batched launches, raw Vulkan, recorded once", 2).beside(peer, &series[1]),
    ];
    rows.extend(series.get(BATCHED_WGPU).map(|wgpu| row("batched launches, beside wgpu", 0).beside("wgpu", wgpu)));
    rows
}
