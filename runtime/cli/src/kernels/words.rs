//! Kernels over an array of words: one that fills it, one that touches each page of it once. They are for moving
//! memory about; how long it takes is not measured here.

use limosa::{Context, Kernel, Queue, Result, UnifiedVec};
use limosa_shaders::{fill, probe};

/// Words of a page: what a touch of one page is apart from the next.
pub(crate) const PAGE_WORDS: usize = 4096 / size_of::<u32>();

/// Both kernels, ready to run.
pub(crate) struct WordKernels {
    fill: Kernel,
    probe: Kernel,
    queue: Queue,
    /// Whether a touched page is to come by the kernel's own fault, or is declared.
    by_faults: bool,
}

impl WordKernels {
    pub(crate) fn new(context: &Context) -> Result<Self> {
        let fill = context.kernel(fill::KERNEL.name, fill::KERNEL.spirv)?;
        let probe = context.kernel(probe::KERNEL.name, probe::KERNEL.spirv)?;
        Ok(Self { fill, probe, queue: context.queue()?, by_faults: context.serves_undeclared() })
    }

    /// Makes every word `value`.
    pub(crate) fn fill(&self, words: &mut UnifiedVec<u32>, value: u32) -> Result<()> {
        let count = words.len() as u64;
        let launch = self.queue.launch(&self.fill, count.div_ceil(fill::ITEMS));
        let launch = launch.args((words.writes(), count, value, 0u32));
        // SAFETY: fill writes `count` words from the first on: all of the array, which is declared.
        unsafe { launch.submit() }?.wait()
    }

    /// Flips the bits of `mask` in the first word of each page.
    pub(crate) fn touch_pages(&self, words: &mut UnifiedVec<u32>, mask: u32) -> Result<()> {
        let touches = words.len().div_ceil(PAGE_WORDS) as u64;
        let first = words.raw().ptr();
        let launch = self.queue.launch(&self.probe, touches).args((first, first));
        let launch = if self.by_faults { launch.keeps(words.raw()) } else { launch.with(words.writes()) };
        let launch = launch.args(((PAGE_WORDS * size_of::<u32>()) as u64, touches, mask, 0u32));
        // SAFETY: source and target of the probe are the same words of the array, one a page, each the business of
        // one invocation. The array is kept, and borrowed until the launch has completed.
        unsafe { launch.submit() }?.wait()
    }
}
