//! What working sets beyond device memory cost: sizes from half the budget to twice, four ways to go through them, with
//! what launches touch declared and brought by faults. Unit: ns a KiB that kernels go through; the peer is the same at
//! half of the budget, where all is resident. No bound: what a size costs is the machine's, and the budget bench has the
//! bounds. Notes tell the blocks moved to the device since the start, and the fewest that Belady's rule would move for
//! all that was gone through, which knows the future.
//!
//! - sequential: pass after pass, each waited for, so that nobody can know of the next;
//! - cyclic: the same passes, all submitted before the first wait;
//! - random: single blocks by chance, many submitted before a wait;
//! - stencil: a plate of rows in two grids that take turns; each launch reads a band with its neighbours' rows.

use limosa::{Context, Counters, Kernel, Queue, UnifiedVec, ViewKind, fewest_loads};
use limosa_shaders::{reduce, stencil};

use crate::ceiling::{BLOCK, CHUNK};
use crate::faults::Random;
use crate::report::Row;
use crate::resident::HEAP_BYTES;
use crate::rounds::{rotated, time};
use crate::scale::Scale;

const PERCENT: [usize; 7] = [50, 75, 100, 105, 125, 150, 200];
const PASSES: usize = 4;
/// Launches that are submitted before a wait, where the pattern itself does not say.
const AHEAD: usize = 256;
const BLOCK_WORDS: usize = BLOCK / 4;
const CHUNK_WORDS: usize = CHUNK / 4;
/// Cells of a row of the stencil's plate: a row is a quarter of a block.
const WIDTH: usize = BLOCK_WORDS / 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    Sequential,
    Cyclic,
    Random,
    Stencil,
}

const PATTERNS: [Pattern; 4] = [Pattern::Sequential, Pattern::Cyclic, Pattern::Random, Pattern::Stencil];

/// One size of a pattern, with a heap of its own.
struct Case {
    pattern: Pattern,
    declared: bool,
    /// The stencil has two grids; the others one array.
    grids: [UnifiedVec<f32>; 2],
    total: UnifiedVec<u64>,
    reduce: Kernel,
    stencil: Kernel,
    queue: Queue,
    context: Context,
    random: Random,
    /// Before the first use: the self-test has moved some.
    start: Counters,
    /// Every use of a block, in order, since the start.
    uses: Vec<u32>,
}

impl Case {
    fn new(pattern: Pattern, declared: bool, budget: usize, percent: usize) -> Self {
        let builder = Context::builder().view(ViewKind::Import).heap_size(HEAP_BYTES as u64);
        let context = builder.device_budget(budget as u64).poison_stale(false).build().unwrap();
        let heap = context.heap();
        // The total's block comes out of the budget as well, and a chunk for what single blocks are rounded to.
        let words = (budget - CHUNK) / 100 * percent / CHUNK * CHUNK_WORDS;
        let (first, second) = if pattern == Pattern::Stencil { (words / 2, words / 2) } else { (words, 0) };
        let grid = |words: usize| heap.vec_with(words / BLOCK_WORDS * BLOCK_WORDS, |_| 1.0f32).unwrap();
        let grids = [grid(first), grid(second.max(BLOCK_WORDS))];
        let kernel = |kernel: limosa_shaders::Kernel| context.kernel(kernel.name, kernel.spirv).unwrap();
        Self {
            pattern,
            declared,
            grids,
            total: heap.vec_zeroed(1).unwrap(),
            reduce: kernel(reduce::KERNEL),
            stencil: kernel(stencil::KERNEL),
            queue: context.queue().unwrap(),
            start: heap.counters(),
            context,
            random: Random(0x2545_f491_4f6c_dd1d),
            uses: Vec::new(),
        }
    }

    /// Goes through all of it, several times over; gives ns a KiB.
    fn measure(&mut self) -> f64 {
        let words = self.grids[0].len();
        let mut gone_through = 0;
        let taken = time(|| {
            for pass in 0..PASSES {
                gone_through += match self.pattern {
                    Pattern::Sequential => self.pass(true),
                    Pattern::Cyclic => self.pass(false),
                    Pattern::Random => self.touch_blocks(words / BLOCK_WORDS),
                    Pattern::Stencil => self.step(pass),
                };
            }
            self.queue.wait_idle().unwrap();
        });
        taken.as_secs_f64() * 1e9 / (gone_through as f64 / 256.0)
    }

    /// Adds up everything; gives the words gone through.
    fn pass(&mut self, wait: bool) -> usize {
        let words = self.grids[0].len();
        for start in (0..words).step_by(CHUNK_WORDS) {
            self.add_up(start, CHUNK_WORDS.min(words - start));
        }
        if wait {
            self.queue.wait_idle().unwrap();
        }
        words
    }

    fn touch_blocks(&mut self, count: usize) -> usize {
        for launched in 1..=count {
            let block = self.random.below(self.grids[0].len() / BLOCK_WORDS);
            self.add_up(block * BLOCK_WORDS, BLOCK_WORDS);
            if launched % AHEAD == 0 {
                self.queue.wait_idle().unwrap();
            }
        }
        count * BLOCK_WORDS
    }

    fn add_up(&mut self, start: usize, words: usize) {
        self.note_uses(0, start..start + words);
        let vec = &self.grids[0];
        let launch = self.queue.launch(&self.reduce, words as u64 / reduce::ITEMS).arg(vec.ptr(start));
        let launch = launch.args((self.total.writes(), words as u64));
        let launch = if self.declared {
            launch.with(vec.slice(start..start + words).unwrap().reads())
        } else {
            launch.keeps(vec.raw())
        };
        // SAFETY: reduce reads these words and adds to `total`; nobody writes them, and the device serves faults.
        unsafe { launch.submit() }.unwrap();
    }

    /// One step of the plate, a chunk's rows a launch; gives the words gone through, read or written.
    fn step(&mut self, step: usize) -> usize {
        let rows = self.grids[0].len() / WIDTH;
        let band = CHUNK_WORDS / WIDTH;
        let (now, next) = (step % 2, (step + 1) % 2);
        // A launch computes the inner rows of what it is given, and copies the outer: bands overlap by two rows.
        for start in (0..rows - 2).step_by(band - 2) {
            let words = start * WIDTH..(start + band).min(rows) * WIDTH;
            self.note_uses(now, words.clone());
            self.note_uses(next, words.clone());
            let height = u32::try_from(words.len() / WIDTH).unwrap();
            let [first, second] = &mut self.grids;
            let (from, to) = if now == 0 { (&*first, second) } else { (&*second, first) };
            let launch = self.queue.launch(&self.stencil, words.len() as u64);
            let launch = launch.args((to.ptr(words.start), from.ptr(words.start)));
            let launch = launch.args((u32::try_from(WIDTH).unwrap(), height));
            let launch = if self.declared {
                launch.with(from.slice(words.clone()).unwrap().reads()).with(to.slice_mut(words).unwrap().writes())
            } else {
                launch.keeps(from.raw()).keeps(to.raw())
            };
            // SAFETY: stencil reads these words of one grid and writes those of the other; launches of one queue run
            // in order, and the device serves faults.
            unsafe { launch.submit() }.unwrap();
        }
        2 * rows * WIDTH
    }

    fn note_uses(&mut self, grid: usize, words: std::ops::Range<usize>) {
        let offset = grid * self.grids[0].len() / BLOCK_WORDS;
        let blocks = words.start / BLOCK_WORDS..words.end.div_ceil(BLOCK_WORDS);
        self.uses.extend(blocks.map(|block| u32::try_from(offset + block).unwrap()));
    }

    /// Blocks moved to the device since the start, and the fewest possible.
    fn moved(&self) -> (u64, u64) {
        let heap = self.context.heap();
        let room = usize::try_from(heap.device_budget() / BLOCK as u64).unwrap();
        (heap.counters().since(&self.start).blocks_to_device, fewest_loads(&self.uses, room))
    }
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let ways = PATTERNS.into_iter().flat_map(|pattern| [(pattern, true), (pattern, false)]);
    ways.flat_map(|(pattern, declared)| sizes(pattern, declared, scale)).collect()
}

fn sizes(pattern: Pattern, declared: bool, scale: &Scale) -> Vec<Row> {
    let mut cases = PERCENT.map(|percent| Case::new(pattern, declared, scale.grid_bytes, percent));
    let name = format!("{pattern:?}").to_lowercase();
    let how = if declared { "declared" } else { "by faults" };
    if !declared && !cases[0].context.serves_undeclared() {
        return vec![Row::left_out(format!("grid, {name}, {how}"), "kernels' faults are not served here")];
    }
    let series = rotated(cases.len(), scale.rounds.div_ceil(3), |arm| cases[arm].measure());
    let row = |arm: usize| {
        let (moved, least) = cases[arm].moved();
        let row = Row::new(format!("grid, {name}, {how}, {} %", PERCENT[arm]), &series[arm], "ns a KiB");
        row.beside("50 %", &series[0]).note(format!("{moved} blocks moved to the device; Belady's rule: {least}"))
    };
    (0..cases.len()).map(row).collect()
}
