//! What a budget of device memory costs: making room, passes over more than fits, and the step at its edge.
//!
//! - Room: prefetches of written chunks into a device full of written chunks, less the same prefetches into an empty
//!   one; what is left is the eviction. Unit: GB/s of what is evicted. Bound: 0.90 of memcpy, 2 MiB a call.
//! - Passes: read-only, cyclic, declared, twice the budget. Unit: chunks moved. Bounds: 0.65 of what least recently
//!   used moves, which is everything, and 1.2 of the least possible (Belady).
//! - Edge: declared passes over 100 % and 105 % of the budget. Unit: ns a KiB. Bound: 1.15.

use std::time::Duration;

use limosa::{Context, Counters, Kernel, Queue, Side, UnifiedVec, ViewKind, fewest_loads};
use limosa_shaders::{fill, reduce};

use crate::ceiling::{BLOCK, CHUNK, Memcpy};
use crate::report::{Bound, Row};
use crate::resident::HEAP_BYTES;
use crate::rounds::{Series, gb_per_s, rotated, time};
use crate::scale::Scale;

const CHUNK_WORDS: usize = CHUNK / size_of::<u32>();
/// Passes of one measurement.
const PASSES: usize = 8;
/// Of the budget, at its edge.
const EDGE_PERCENT: [usize; 2] = [100, 105];

/// A heap with a budget, and data in it.
struct Budget {
    vec: UnifiedVec<u32>,
    total: UnifiedVec<u64>,
    fill: Kernel,
    reduce: Kernel,
    queue: Queue,
    context: Context,
}

impl Budget {
    fn new(view: ViewKind, budget: usize, data: usize) -> Self {
        let builder = Context::builder().view(view).heap_size(HEAP_BYTES as u64).device_budget(budget as u64);
        let context = builder.poison_stale(false).build().unwrap();
        let heap = context.heap();
        let vec = heap.vec_with(data / size_of::<u32>(), |_| 1u32).unwrap();
        let total = heap.vec_zeroed(1).unwrap();
        let kernel = |kernel: limosa_shaders::Kernel| context.kernel(kernel.name, kernel.spirv).unwrap();
        let (fill, reduce) = (kernel(fill::KERNEL), kernel(reduce::KERNEL));
        Self { vec, total, fill, reduce, queue: context.queue().unwrap(), context }
    }

    fn counted(&mut self, work: impl FnOnce(&mut Self)) -> Counters {
        let before = self.context.heap().counters();
        work(self);
        self.context.heap().counters().since(&before)
    }

    /// Has kernels write these chunks, so that only the device has them.
    fn write(&mut self, chunks: std::ops::Range<usize>) {
        let words = chunks.start * CHUNK_WORDS..chunks.end * CHUNK_WORDS;
        let (first, count) = (self.vec.ptr(words.start), words.len() as u64);
        let launch = self.queue.launch(&self.fill, count / fill::ITEMS).args((first, count, 1u32));
        // SAFETY: fill writes the declared words.
        unsafe { launch.arg(0u32).with(self.vec.slice_mut(words).unwrap().writes()).submit() }.unwrap().wait().unwrap();
    }

    fn prefetch(&self, side: Side, chunks: std::ops::Range<usize>) -> Duration {
        time(|| {
            for at in chunks {
                self.vec.prefetch_range(side, at * CHUNK_WORDS..(at + 1) * CHUNK_WORDS).unwrap();
            }
        })
    }

    /// Adds up `words` words at a time, in order, `passes` times over; every launch is submitted before the first is
    /// waited for.
    fn passes(&mut self, words: usize, passes: usize) -> Duration {
        let len = self.vec.len();
        time(|| {
            for start in (0..passes).flat_map(|_| (0..len).step_by(words)) {
                let range = start..(start + words).min(len);
                let count = range.len() as u64;
                let launch = self.queue.launch(&self.reduce, count / reduce::ITEMS).arg(self.vec.ptr(start));
                let launch = launch.args((self.total.writes(), count)).with(self.vec.slice(range).unwrap().reads());
                // SAFETY: reduce reads the declared words and adds to `total`.
                unsafe { launch.submit() }.unwrap();
            }
            self.queue.wait_idle().unwrap();
        })
    }
}

/// Making room, beside a copy of the same bytes.
fn room(view: ViewKind, scale: &Scale) -> Row {
    let half = scale.bytes / 2 / CHUNK;
    let mut heap = Budget::new(view, half * CHUNK, 2 * half * CHUNK);
    let mut memcpy = Memcpy::new(half * CHUNK);
    let mut evicted = Counters::default();
    let series = rotated(3, scale.rounds, |arm| match arm {
        0 | 1 => {
            // The first half comes in; the second is on the device, or is not. Both have their frames on the host.
            heap.prefetch(Side::Host, 0..2 * half);
            if arm == 0 {
                heap.write(half..2 * half);
            } else {
                // The frames are there and idle, as they are once the device is in use.
                heap.prefetch(Side::Device, 0..half);
                heap.prefetch(Side::Host, 0..half);
            }
            let mut taken = Duration::ZERO;
            let counters = heap.counted(|heap| taken = heap.prefetch(Side::Device, 0..half));
            if arm == 0 {
                evicted = counters;
            }
            taken.as_secs_f64()
        }
        _ => memcpy.all(CHUNK).as_secs_f64(),
    });
    let bytes = half * CHUNK;
    let speed = |seconds: &f64| gb_per_s(bytes, Duration::from_secs_f64(seconds.max(1e-9)));
    let (full, empty) = (&series[0].0, &series[1].0);
    let ours = Series(full.iter().zip(empty).map(|(full, empty)| speed(&(full - empty).max(0.0))).collect());
    let theirs = Series(series[2].0.iter().map(speed).collect());
    let row = Row::new(format!("eviction of written chunks, 2 MiB each, {view}"), &ours, "GB/s");
    let row = row.beside("memcpy", &theirs).bound(Bound::AtLeast(0.90));
    row.note(format!(
        "last round: {} blocks evicted, {} of them copied, for {} brought in",
        evicted.blocks_evicted, evicted.blocks_to_host, evicted.blocks_to_device
    ))
}

/// Cyclic passes over twice the budget, by what they move.
fn cyclic(view: ViewKind, scale: &Scale) -> Vec<Row> {
    let chunks = scale.bytes / CHUNK;
    // Besides, the sum's block.
    let mut heap = Budget::new(view, chunks / 2 * CHUNK, chunks * CHUNK);
    let moved = heap.counted(|heap| {
        heap.passes(CHUNK_WORDS, PASSES);
    });
    assert_eq!(heap.total.read().unwrap()[0], (PASSES * heap.vec.len()) as u64, "the sum is wrong");
    let moved = moved.blocks_to_device as f64 * BLOCK as f64 / CHUNK as f64;
    let uses: Vec<usize> = (0..PASSES).flat_map(|_| 0..chunks).collect();
    let (recent, least) = (uses.len() as f64, fewest_loads(&uses, chunks / 2) as f64);
    let row = |peer: &str, loads: f64, bound: f64| {
        let name = format!("cyclic declared reads, 200 %, beside {peer}, {view}");
        Row::of_value(name, moved, "chunks moved").beside_value(peer, loads, moved / loads).bound(Bound::AtMost(bound))
    };
    vec![row("least recently used", recent, 0.65), row("the least possible", least, 1.2)]
}

/// The step from what just fits to what just does not.
fn edge(view: ViewKind, scale: &Scale) -> Row {
    let budget = scale.bytes;
    // The sum's chunk comes out of the budget as well.
    let sizes = EDGE_PERCENT.map(|percent| (budget - CHUNK) / 100 * percent / CHUNK * CHUNK);
    let mut heaps = sizes.map(|size| Budget::new(view, budget, size));
    let series = rotated(2, scale.rounds, |arm| {
        let taken = heaps[arm].passes(2 * CHUNK_WORDS, 4);
        taken.as_secs_f64() * 1e9 / (4 * sizes[arm] / 1024) as f64
    });
    let row = Row::new(format!("declared passes over 105 % of the budget, {view}"), &series[1], "ns a KiB");
    row.beside("100 %", &series[0]).bound(Bound::AtMost(1.15))
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    for view in [ViewKind::Import, ViewKind::Sparse] {
        rows.push(room(view, scale));
        rows.extend(cyclic(view, scale));
        rows.push(edge(view, scale));
    }
    rows
}
