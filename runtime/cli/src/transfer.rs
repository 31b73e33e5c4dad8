//! Moves of an array much larger than the demo's graph, each way by prefetch and by faults, with every word verified.
//! A bench varies sizes and looks at latency; this is one look, for the reader of the demo's closing table.

use std::time::{Duration, Instant};

use limosa::{Context, Counters, UnifiedVec};

use crate::error::CliError;
use crate::kernels::{PAGE_WORDS, WordKernels};
use crate::progress::Steps;

use limosa::CHUNK;
/// So much of the budget is left alone: small allocations need a chunk, too.
const SPARE: u64 = 2 * CHUNK;
/// How often each move is made; the median is shown.
pub(crate) const ROUNDS: usize = 3;
const STEPS_OF_ROUND: u64 = 8;

/// A move of the whole array.
pub(crate) struct Move {
    /// From where to where, and by what.
    pub(crate) name: &'static str,
    /// How long it took.
    pub(crate) time: Duration,
    /// What was counted meanwhile.
    pub(crate) counted: Counters,
}

/// How much of `asked` bytes fits the device budget, if nothing else is to stay on the device.
pub(crate) fn fitting(context: &Context, asked: u64) -> u64 {
    asked.min(context.heap().device_budget().saturating_sub(SPARE)) / CHUNK * CHUNK
}

/// Moves an array of `bytes` bytes to the device and back, by prefetch and by faults.
pub(crate) fn measure(context: &Context, bytes: u64) -> Result<Vec<Move>, CliError> {
    let failed = CliError::during("moving a large array");
    let progress = Steps::start("moving a large array", 1 + STEPS_OF_ROUND * ROUNDS as u64);
    let kernels = WordKernels::new(context).map_err(&failed)?;
    let len = usize::try_from(bytes / 4).unwrap_or(usize::MAX);
    let words = context.heap().vec_with(len, |index| pattern(index, 0)).map_err(&failed)?;
    let mut mover = Mover { context, kernels, words, progress };
    // Device memory has never been used: most of the time is the system's, making its pages.
    let first = mover.timed("host to device, first use", |_, words| words.prefetch_to_device())?;
    let mut rounds: Vec<[Move; 4]> = Vec::new();
    for round in 1..=ROUNDS {
        rounds.push(mover.round(u32::try_from(round).unwrap_or(u32::MAX))?);
    }
    let mut moves = vec![first];
    for kind in 0..4 {
        rounds.sort_unstable_by_key(|round| round[kind].time);
        let Move { name, time, counted } = rounds[ROUNDS / 2][kind];
        moves.push(Move { name, time, counted });
    }
    Ok(moves)
}

/// The array, and what moves it.
struct Mover<'a> {
    context: &'a Context,
    kernels: WordKernels,
    words: UnifiedVec<u32>,
    progress: Steps,
}

impl Mover<'_> {
    /// Each of the four moves once. Between them, one side writes all of the array: both sides are equal after a move,
    /// and only what the other side alone has must be moved again.
    fn round(&mut self, round: u32) -> Result<[Move; 4], CliError> {
        self.write(|index| pattern(index, round))?;
        let up = self.timed("host to device, prefetch", |_, words| words.prefetch_to_device())?;
        self.verify(|index| pattern(index, round))?;
        self.fill(round)?;
        let down = self.timed("device to host, prefetch", |_, words| words.prefetch_to_host())?;
        self.verify(|_| round)?;
        self.write(|index| pattern(index, !round))?;
        let by_launch = match self.context.serves_undeclared() {
            true => "host to device, GPU faults",
            false => "host to device, by a launch's set",
        };
        let faults_up = self.timed(by_launch, |kernels, words| {
            kernels.touch_pages(words, u32::MAX) // the kernel flips a word a page
        })?;
        let flipped = |index: usize| if index.is_multiple_of(PAGE_WORDS) { u32::MAX } else { 0 };
        self.verify(|index| pattern(index, !round) ^ flipped(index))?;
        self.fill(!round)?;
        let faults_down = self.timed("device to host, CPU faults", |_, words| {
            let words = words.read()?;
            std::hint::black_box(words.iter().step_by(PAGE_WORDS).fold(0, |sum: u32, word| sum.wrapping_add(*word)));
            Ok(())
        })?;
        self.verify(|_| !round)?;
        Ok([up, down, faults_up, faults_down])
    }

    fn timed(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&WordKernels, &mut UnifiedVec<u32>) -> limosa::Result<()>,
    ) -> Result<Move, CliError> {
        let heap = self.context.heap();
        let before = heap.counters();
        let start = Instant::now();
        work(&self.kernels, &mut self.words).map_err(CliError::during(name))?;
        let time = start.elapsed();
        self.progress.next();
        Ok(Move { name, time, counted: heap.counters().since(&before) })
    }

    /// Has the CPU write every word.
    fn write(&mut self, value: impl Fn(usize) -> u32) -> Result<(), CliError> {
        let mut words = self.words.write().map_err(CliError::during("writing the moved array"))?;
        words.iter_mut().enumerate().for_each(|(index, word)| *word = value(index));
        self.progress.next();
        Ok(())
    }

    /// Has the device write every word.
    fn fill(&mut self, value: u32) -> Result<(), CliError> {
        self.progress.next();
        self.kernels.fill(&mut self.words, value).map_err(CliError::during("filling the moved array"))
    }

    fn verify(&self, wanted: impl Fn(usize) -> u32) -> Result<(), CliError> {
        let words = self.words.read().map_err(CliError::during("reading the moved array"))?;
        match words.iter().enumerate().find(|(index, word)| **word != wanted(*index)) {
            None => Ok(()),
            Some((index, found)) => Err(CliError::Moved { index, found: *found, expected: wanted(index) }),
        }
    }
}

/// A word that tells its place and its round apart from others.
#[allow(clippy::cast_possible_truncation, reason = "only the low bits are wanted")]
fn pattern(index: usize, round: u32) -> u32 {
    (index as u32).wrapping_mul(2_654_435_761) ^ round
}
