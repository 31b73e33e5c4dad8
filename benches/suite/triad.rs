//! STREAM's triad on resident data through the heap, beside raw Vulkan: memory of the driver's, and imported memory in
//! huge pages. Same SPIR-V, grid, submission and wait. Unit: GB/s of the 12 bytes an element. Bound: 0.95 of the
//! faster raw buffer. Raw Vulkan on the heap's own pages tells what of a difference is those pages' and what limosa's
//! (pointer translation above all).

use limosa::{Context, FaultMode, Kernel, Queue, UnifiedVec};
use limosa_shaders::triad::{Args, ITEMS, KERNEL};

use crate::buffer::Buffer;
use crate::raw::{Device, Memory, Pipeline};
use crate::report::{Bound, Row};
use crate::resident::{HEAP_BYTES, context};
use crate::rounds::{gb_per_s, rotated, time};
use crate::scale::Scale;

const SCALE: f32 = 3.0;

struct Heap {
    vecs: [UnifiedVec<f32>; 3],
    kernel: Kernel,
    queue: Queue,
    context: Context,
}

impl Heap {
    fn new(count: usize) -> Self {
        let context = context(FaultMode::HandlerThread, HEAP_BYTES);
        let vecs = std::array::from_fn(|which| context.heap().vec_with(count, |index| value(which, index)).unwrap());
        vecs.iter().for_each(|vec| vec.prefetch_to_device().unwrap());
        let (kernel, queue) = (context.kernel(KERNEL.name, KERNEL.spirv).unwrap(), context.queue().unwrap());
        Self { vecs, kernel, queue, context }
    }

    fn launch(&mut self) {
        let [a, b, c] = &mut self.vecs;
        let count = a.len() as u64;
        let launch = self.queue.launch(&self.kernel, count / ITEMS);
        let launch = launch.args((a.writes(), b.reads(), c.reads(), count, SCALE, 0u32));
        // SAFETY: triad touches its three arrays of `count` elements as declared.
        unsafe { launch.submit() }.unwrap().wait().unwrap();
    }

    /// The software GPU's pages under the three arrays, which lie in a row.
    fn pages(&self) -> *mut u8 {
        let starts: [u64; 3] = std::array::from_fn(|which| self.vecs[which].raw().extent().start);
        let bytes = self.vecs[0].raw().len();
        assert!(starts[1] == starts[0] + bytes && starts[2] == starts[1] + bytes, "the arrays lie apart: {starts:x?}");
        (self.context.heap().device_range().unwrap().start.0 + starts[0]) as *mut u8
    }

    fn gpu_faults(&self) -> u64 {
        let counters = self.context.heap().counters();
        counters.gpu_read_faults + counters.gpu_write_faults
    }
}

/// What array `which` (a, b, c) holds at first.
fn value(which: usize, index: usize) -> f32 {
    ((index + which * 13) % 1000) as f32
}

/// Three arrays in a row in one raw allocation.
struct Raw<'a> {
    device: &'a Device,
    pipeline: &'a Pipeline,
    memory: Memory,
    count: usize,
}

impl Raw<'_> {
    fn fill(&mut self) {
        let count = self.count;
        // SAFETY: host memory of three arrays of `count` floats, aligned to a page, used by no launch now.
        let floats = unsafe { std::slice::from_raw_parts_mut(self.memory.host().cast::<f32>(), 3 * count) };
        floats.iter_mut().enumerate().for_each(|(index, float)| *float = value(index / count, index % count));
    }

    fn launch(&self) {
        let (base, bytes) = (self.memory.address(), self.count as u64 * 4);
        let count = self.count as u64;
        let arguments = Args { a: base, b: base + bytes, c: base + 2 * bytes, count, scale: SCALE, reserved: 0 };
        let groups = u32::try_from((count / ITEMS).div_ceil(KERNEL.workgroup.into())).unwrap();
        // SAFETY: the arrays are in memory that lives as long as `self`, and the wait ends the launch.
        unsafe { self.device.launch(self.pipeline, groups, &arguments) };
    }

    fn check(&self) {
        for index in [0, 1, 12345, self.count - 1] {
            // SAFETY: inside the first array, which no launch uses now.
            let got = unsafe { self.memory.host().cast::<f32>().add(index).read() };
            assert_eq!(got, value(1, index) + SCALE * value(2, index), "element {index}");
        }
    }
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let count = scale.array_bytes / 4;
    let total = 3 * scale.array_bytes;
    let mut heap = Heap::new(count);
    let device = Device::open(&heap.context.adapter().name);
    let pipeline = device.pipeline(&KERNEL.words(), &[]);
    let raw = |memory| Raw { device: &device, pipeline: &pipeline, memory, count };
    // Its faults are the heap's to have once.
    heap.launch();
    // SAFETY: the heap is dropped after what is made here.
    let same = unsafe { device.import_range(heap.pages(), total, None) };
    let mut peers = [raw(device.allocate(total)), raw(device.import(Buffer::new(total))), raw(same)];
    peers[..2].iter_mut().for_each(Raw::fill);

    let before = heap.gpu_faults();
    let series = rotated(4, scale.rounds * 2, |arm| {
        let taken = if arm == 0 { time(|| heap.launch()) } else { time(|| peers[arm - 1].launch()) };
        gb_per_s(total, taken)
    });
    let faults = heap.gpu_faults() - before;
    peers.iter().for_each(Raw::check);
    let result = heap.vecs[0].read().unwrap();
    (0..count).step_by(99_991).for_each(|i| assert_eq!(result[i], value(1, i) + SCALE * value(2, i), "element {i}"));

    let [ours, allocated, imported, same] = &series[..] else { return Vec::new() };
    let (name, best) =
        if allocated.median() > imported.median() { ("driver's memory", allocated) } else { ("imported", imported) };
    let row = Row::new("triad through the heap", ours, "GB/s").beside(format!("raw Vulkan, {name}"), best);
    let row = row.bound(Bound::AtLeast(0.95)).note(format!("GPU faults in the measured launches: {faults}"));
    vec![
        row,
        Row::new("triad, raw Vulkan, driver's memory", allocated, "GB/s"),
        Row::new("triad, raw Vulkan, imported huge pages", imported, "GB/s"),
        Row::new("triad, raw Vulkan on the heap's own pages", same, "GB/s").beside("the faster raw buffer", best),
    ]
}
