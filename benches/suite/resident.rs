//! Data in a heap of its own that can be put on one side for certain.

use std::time::{Duration, Instant};

use limosa::{Context, Counters, FaultMode, Heap, Kernel, Queue, ResidencySummary, UnifiedVec, ViewKind};
use limosa_shaders::fill;

use crate::ceiling::BLOCK;

/// Words of a block.
pub(crate) const BLOCK_WORDS: usize = BLOCK / size_of::<u64>();
/// Of the heaps whose size is not the question.
pub(crate) const HEAP_BYTES: usize = 64 << 30;
/// Device memory of the same, in bytes.
pub(crate) const DEVICE_BUDGET: u64 = 2 << 30;

/// A context with the defaults that users get, and room for what is measured.
pub(crate) fn context(mode: FaultMode, heap_bytes: usize) -> Context {
    context_by(ViewKind::Import, mode, heap_bytes)
}

/// The same by a view of choice.
pub(crate) fn context_by(view: ViewKind, mode: FaultMode, heap_bytes: usize) -> Context {
    let builder = Context::builder().view(view).fault_mode(mode).heap_size(heap_bytes as u64);
    builder.device_budget(DEVICE_BUDGET).poison_stale(false).build().unwrap()
}

/// Vectors of equal length, with what it takes to move them.
pub(crate) struct Resident {
    context: Context,
    queue: Queue,
    fill: Kernel,
    vecs: Vec<UnifiedVec<u64>>,
}

impl Resident {
    /// One vector of `bytes` bytes in a heap of the default size.
    pub(crate) fn new(mode: FaultMode, bytes: usize) -> Self {
        let mut resident = Self::empty(context(mode, HEAP_BYTES));
        resident.allocate(bytes);
        resident
    }

    pub(crate) fn empty(context: Context) -> Self {
        let queue = context.queue().unwrap();
        let fill = context.kernel(fill::KERNEL.name, fill::KERNEL.spirv).unwrap();
        Self { context, queue, fill, vecs: Vec::new() }
    }

    /// One more vector.
    pub(crate) fn allocate(&mut self, bytes: usize) {
        let vec = self.context.heap().vec_with(bytes / size_of::<u64>(), |index| index as u64).unwrap();
        self.vecs.push(vec);
    }

    pub(crate) fn heap(&self) -> &Heap {
        self.context.heap()
    }

    /// The first vector.
    pub(crate) fn vec(&self) -> &UnifiedVec<u64> {
        &self.vecs[0]
    }

    pub(crate) fn vecs(&self) -> &[UnifiedVec<u64>] {
        &self.vecs
    }

    /// What is counted while `work` runs.
    pub(crate) fn counted(&self, work: impl FnOnce()) -> Counters {
        let before = self.heap().counters();
        work();
        self.heap().counters().since(&before)
    }

    /// Has a kernel write every word: all is on the device only afterwards.
    pub(crate) fn put_on_device(&mut self, value: u32) {
        for vec in &mut self.vecs {
            let words = vec.len() as u64 * 2;
            let launch = self.queue.launch(&self.fill, words / fill::ITEMS);
            let launch = launch.args((vec.writes(), words, value, 0u32));
            // SAFETY: fill writes `words` 32-bit words of the vector.
            unsafe { launch.submit() }.unwrap().wait().unwrap();
            settled(vec, "on the device", |there| there.device);
        }
    }

    /// Has the CPU write to every block: all is in system RAM only afterwards.
    pub(crate) fn put_on_host(&mut self, value: u64) {
        for vec in &mut self.vecs {
            vec.write().unwrap().iter_mut().step_by(BLOCK_WORDS).for_each(|word| *word = value);
            settled(vec, "on the host", |there| there.host);
        }
    }
}

/// Makes sure that all of `vec` is where it should be. A move's blocks are open to the toucher just before its end is
/// entered, so the last one may take a moment.
fn settled(vec: &UnifiedVec<u64>, what: &str, there: impl Fn(&ResidencySummary) -> u64) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while there(&vec.residency_summary()) != vec.len() as u64 * 8 {
        assert!(Instant::now() < deadline, "not all {what}: {:?}", vec.residency_summary());
        std::thread::yield_now();
    }
}

/// The sum of all words: reading as fast as one thread can.
pub(crate) fn sum(words: &[u64]) -> u64 {
    std::hint::black_box(words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)))
}
