//! Passes over a file in unified memory, window by window: fingerprints of its blocks, and counts of its bytes. It
//! does *not* decide when a window's turn is, nor what the results should be.
//!
//! What launches rely on: a window's range lies in the file's bytes, which are whole blocks; its results have room for
//! what either kernel writes. Both are made in [`FileInMemory::new`] only.

use std::mem::offset_of;
use std::ops::Range;

use limosa::{BLOCK, Context, DataFile, Event, GpuPtr, Heap, Kernel, Queue, Result, Side, Transfer, UnifiedVec};
use limosa_shaders::{fingerprint, histogram};

use super::index;

/// What a pass does with each window. Each kind is done twice, with results of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// One half of each block's fingerprint.
    Fingerprint(Turn),
    /// A count of all bytes.
    Histogram(Turn),
}

/// Which of the two passes of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    First,
    Second,
}

/// The seeds of a fingerprint's halves.
pub(crate) const SEEDS: [u64; 2] = [0, 1];

/// A file's bytes, and the results of its windows.
pub(crate) struct FileInMemory {
    /// Whole blocks: behind the file's end there are zeros.
    bytes: UnifiedVec<u8>,
    windows: Vec<Window>,
}

/// A part of the file, and what launches find out about it. Results of different windows share no block: launches that
/// write them need not wait for each other.
struct Window {
    range: Range<usize>,
    blocks: usize,
    /// The halves of the fingerprints, one after the other, then both counts.
    results: UnifiedVec<u64>,
}

/// What the device found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Both halves of each block's fingerprint.
    pub(crate) fingerprints: Vec<[u64; 2]>,
    /// How often each byte occurs, counted twice.
    pub(crate) counts: [[u64; histogram::COUNTS]; 2],
}

impl Findings {
    /// Nothing yet.
    pub(crate) fn none() -> Self {
        Self { fingerprints: Vec::new(), counts: [[0; histogram::COUNTS]; 2] }
    }
}

impl Window {
    fn new(heap: &Heap, range: Range<usize>) -> Result<Self> {
        let blocks = range.len().div_ceil(index(BLOCK));
        let used = SEEDS.len() * blocks + 2 * histogram::COUNTS;
        let results = heap.vec_zeroed(used.max(index(BLOCK) / size_of::<u64>()))?;
        Ok(Self { range, blocks, results })
    }

    fn results_of(&self, pass: Pass) -> Range<usize> {
        place(pass, self.blocks)
    }
}

/// Where a pass over so many blocks has its results.
fn place(pass: Pass, blocks: usize) -> Range<usize> {
    let (start, len) = match pass {
        Pass::Fingerprint(turn) => (turn as usize * blocks, blocks),
        Pass::Histogram(turn) => (SEEDS.len() * blocks + turn as usize * histogram::COUNTS, histogram::COUNTS),
    };
    start..start + len
}

impl FileInMemory {
    /// Room for `len` bytes, to be looked at in windows of `window` bytes, which is a multiple of a block.
    pub(crate) fn new(heap: &Heap, len: u64, window: u64) -> Result<Self> {
        let bytes = heap.vec_zeroed::<u8>(index(len.next_multiple_of(BLOCK)))?;
        let (len, window) = (index(len), index(window.next_multiple_of(BLOCK).max(BLOCK)));
        let ranges = (0..len).step_by(window).map(|start| start..(start + window).min(len));
        let windows = ranges.map(|range| Window::new(heap, range)).collect::<Result<_>>()?;
        Ok(Self { bytes, windows })
    }

    /// Has `queue` read `file` from its start on, each window by itself, to the host: what launches need of it goes to the
    /// device with them.
    pub(crate) fn read(&mut self, queue: &Queue, file: &DataFile) -> Result<Vec<Transfer>> {
        let Self { bytes, windows, .. } = self;
        let read = |Window { range, .. }: &Window| {
            let target = bytes.slice_mut(range.clone())?;
            queue.read_file(file, range.start as u64, target).to(Side::Host).submit()
        };
        windows.iter().map(read).collect()
    }

    /// Windows.
    pub(crate) fn windows(&self) -> usize {
        self.windows.len()
    }

    /// The blocks that a launch on this window reads, numbered through the file.
    pub(crate) fn blocks_of(&self, window: usize) -> Range<u64> {
        let Range { start, end } = self.windows[window].range;
        start as u64 / BLOCK..(end as u64).div_ceil(BLOCK)
    }

    /// What was found. Waits for launches.
    pub(crate) fn findings(&self) -> Result<Findings> {
        let mut findings = Findings::none();
        for window in &self.windows {
            let results = window.results.read()?;
            let of = |pass| &results[window.results_of(pass)];
            let halves = of(Pass::Fingerprint(Turn::First)).iter().zip(of(Pass::Fingerprint(Turn::Second)));
            findings.fingerprints.extend(halves.map(|(first, second)| [*first, *second]));
            for (counts, turn) in findings.counts.iter_mut().zip([Turn::First, Turn::Second]) {
                counts.iter_mut().zip(of(Pass::Histogram(turn))).for_each(|(sum, count)| *sum += count);
            }
        }
        Ok(findings)
    }
}

/// Both kernels, ready to run.
pub(crate) struct Scanner {
    fingerprint: Kernel,
    histogram: Kernel,
    queue: Queue,
}

impl Scanner {
    pub(crate) fn new(context: &Context) -> Result<Self> {
        let fingerprint = context.kernel(fingerprint::KERNEL.name, fingerprint::KERNEL.spirv)?;
        let histogram = context.kernel(histogram::KERNEL.name, histogram::KERNEL.spirv)?;
        Ok(Self { fingerprint, histogram, queue: context.queue()? })
    }

    /// Queues a pass over one window of the file, to begin when that of `after` is done.
    pub(crate) fn launch(
        &self,
        file: &mut FileInMemory,
        window: usize,
        pass: Pass,
        after: Option<&Event>,
    ) -> Result<Event> {
        // The order of the launches' arguments below.
        const {
            assert!(offset_of!(fingerprint::Args, bytes) == 8 && offset_of!(histogram::Args, bytes) == 8);
            assert!(offset_of!(fingerprint::Args, hashes) == 16 && offset_of!(histogram::Args, counts) == 16);
            assert!(offset_of!(fingerprint::Args, seed) == 24 && fingerprint::BLOCK == BLOCK);
        }
        let FileInMemory { bytes, windows, .. } = file;
        let window = &mut windows[window];
        let len = window.range.len() as u64;
        let results = window.results_of(pass);
        let (source, target): (GpuPtr<u8>, GpuPtr<u64>) =
            (bytes.ptr(window.range.start), window.results.ptr(results.start));
        let launch = match pass {
            Pass::Fingerprint(_) => {
                let lanes = u64::from(fingerprint::KERNEL.workgroup);
                self.queue.launch(&self.fingerprint, window.blocks as u64 * lanes)
            }
            Pass::Histogram(_) => self.queue.launch(&self.histogram, len.div_ceil(histogram::ITEMS)),
        };
        let launch = after.into_iter().fold(launch, limosa::Launch::after);
        // The kernels read 16 bytes at a time.
        let read = window.range.start..window.range.end.next_multiple_of(16);
        let launch = launch.with(bytes.slice(read)?.reads()).with(window.results.slice_mut(results)?.writes());
        let launch = launch.args((source, len, target));
        let launch = match pass {
            Pass::Fingerprint(turn) => launch.arg(SEEDS[turn as usize]),
            Pass::Histogram(_) => launch,
        };
        // SAFETY: the kernels read `len` bytes from `source`, and up to the next multiple of 16, which are in `bytes`
        // since that is whole blocks; they write a hash for each block, or the counts: `results_of` has room for
        // just that. All of it is declared.
        unsafe { launch.submit() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_have_results_of_their_own() {
        let [[a, c], [b, d]] = [Turn::First, Turn::Second]
            .map(|turn| [place(Pass::Fingerprint(turn), 32), place(Pass::Histogram(turn), 32)]);
        assert!(a.end == b.start && b.end == c.start && c.end == d.start && d.end == 64 + 512);
    }
}
