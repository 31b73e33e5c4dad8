//! The demonstration's second part: a file of four times the device budget, fingerprinted and counted by the device in
//! several passes, and the CPU twins, whose results are the oracle. How it is printed is not decided here.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use limosa::{BLOCK, CHUNK, Context, Counters, DEVICE_BUDGET_MIN, DataFile, Event, fewest_loads};
use limosa_shaders::{fingerprint, histogram};

use crate::error::CliError;
use crate::file::Source;
use crate::kernels::{FileInMemory, Findings, Pass, SEEDS, Scanner, Turn};
use crate::progress::{Bytes, Steps};
use crate::ways::Ways;

/// The passes, each over all windows from the first to the last: the worst order for who evicts by recency.
pub(crate) const PASSES: [Pass; 4] = [
    Pass::Fingerprint(Turn::First),
    Pass::Histogram(Turn::First),
    Pass::Fingerprint(Turn::Second),
    Pass::Histogram(Turn::Second),
];
/// The file's size over the budget.
const OVER: u64 = 4;
/// The budget over a window.
const WINDOWS_OF_BUDGET: u64 = 16;
/// A launch begins when that of so many before it is done: while one runs, the next one's window comes. More windows
/// held at once would leave less room for what is kept from pass to pass.
const AHEAD: usize = 2;
/// Bytes that the twins are given at a time.
const PIECE: usize = 1 << 20;

/// The device budget for a file of `len` bytes.
pub(crate) fn budget(len: u64) -> u64 {
    (len / OVER / CHUNK * CHUNK).max(DEVICE_BUDGET_MIN)
}

/// The bytes of a window under this budget.
fn window(budget: u64) -> u64 {
    (budget / WINDOWS_OF_BUDGET / CHUNK * CHUNK).max(CHUNK)
}

/// What came of it.
pub(crate) struct Outcome {
    /// Bytes looked at in each pass.
    pub(crate) len: u64,
    /// Bytes of a window.
    pub(crate) window: u64,
    /// Launches.
    pub(crate) launches: usize,
    /// Time to read the file into unified memory.
    pub(crate) read_time: Duration,
    /// Which way it came there.
    pub(crate) ways: Ways,
    /// Time from the first submission to the last completion.
    pub(crate) device_time: Duration,
    /// Time that the CPU twins took for the same, without reading the file.
    pub(crate) twin_time: Duration,
    /// What was counted in the device's time.
    pub(crate) ran: Counters,
    /// The fewest blocks that must have gone to the device.
    pub(crate) least_loads: u64,
    /// Blocks of the file.
    pub(crate) blocks: usize,
    /// Blocks that differ from all before them.
    pub(crate) distinct: usize,
    /// The most frequent byte, and how often it occurs.
    pub(crate) frequent: (usize, u64),
}

/// Reads the file into the context's heap, has the device go over it, and verifies what was found.
pub(crate) fn run_over(context: &Context, source: &Source) -> Result<Outcome, CliError> {
    let heap = context.heap();
    let window = window(heap.device_budget());
    let allocating = CliError::during("making room for the file");
    let mut file = FileInMemory::new(heap, source.len, window).map_err(&allocating)?;
    let start = Instant::now();
    let ways = read(context, source, &mut file)?;
    let read_time = start.elapsed();

    let scanner = Scanner::new(context).map_err(CliError::during("loading the kernels"))?;
    let before = heap.counters();
    let start = Instant::now();
    let launches = run(&scanner, &mut file)?;
    let device_time = start.elapsed();
    let ran = heap.counters().since(&before);

    let found = file.findings().map_err(CliError::during("reading what was found"))?;
    let (expected, twin_time) = twins(source)?;
    verify(&found, &expected)?;
    let counts = found.counts[0].iter().enumerate();
    let (byte, count) = counts.max_by_key(|(_, count)| **count).unwrap_or((0, &0));
    Ok(Outcome {
        len: source.len,
        window,
        launches,
        read_time,
        ways,
        device_time,
        twin_time,
        ran,
        least_loads: least(&file, heap.device_budget()),
        blocks: found.fingerprints.len(),
        distinct: found.fingerprints.iter().collect::<HashSet<_>>().len(),
        frequent: (byte, *count),
    })
}

/// Streams the file into unified memory.
fn read(context: &Context, source: &Source, file: &mut FileInMemory) -> Result<Ways, CliError> {
    let failed = CliError::during("reading the file");
    let progress = Bytes::start("reading the file", source.len);
    let queue = context.queue_builder().out_of_order().build().map_err(&failed)?;
    let data = DataFile::options().read(true).storage(true).open(source.path()).map_err(&failed)?;
    let mut ways = Ways::default();
    for transfer in file.read(&queue, &data).map_err(&failed)? {
        ways.add(&transfer.wait().map_err(&failed)?);
        progress.at(ways.bytes());
    }
    Ok(ways)
}

/// Queues all launches of all passes, and waits for them. Answers how many.
fn run(scanner: &Scanner, file: &mut FileInMemory) -> Result<usize, CliError> {
    let failed = CliError::during("running the passes");
    let progress = Steps::start("going over the file", (PASSES.len() * file.windows()) as u64);
    let mut events: Vec<Event> = Vec::new();
    for pass in PASSES {
        for window in 0..file.windows() {
            let after = events.len().checked_sub(AHEAD).and_then(|before| events.get(before));
            let event = scanner.launch(file, window, pass, after).map_err(&failed)?;
            events.push(event);
        }
    }
    for event in &events {
        event.wait().map_err(&failed)?;
        progress.next();
    }
    Ok(events.len())
}

/// The fewest loads for the uses that [`run`] makes. A window's results take room, too, a block at least; they begin
/// as zeros, so that the first time they need not be loaded.
fn least(file: &FileInMemory, budget: u64) -> u64 {
    let windows = PASSES.iter().flat_map(|_| 0..file.windows());
    let results = |window: usize| u64::MAX - window as u64;
    let uses: Vec<u64> = windows.flat_map(|window| file.blocks_of(window).chain([results(window)])).collect();
    let loads = fewest_loads(&uses, usize::try_from(budget / BLOCK).unwrap_or(usize::MAX));
    loads.saturating_sub(file.windows() as u64)
}

/// What the CPU finds in the file, read anew: what came wrong into unified memory shows, too.
fn twins(source: &Source) -> Result<(Findings, Duration), CliError> {
    let progress = Steps::start("verifying", source.len);
    let mut findings = Findings::none();
    let mut time = Duration::ZERO;
    let mut done = 0;
    source.for_each(PIECE, |piece| {
        let start = Instant::now();
        let [first, second] = SEEDS.map(|seed| fingerprint::twin(piece, seed));
        findings.fingerprints.extend(first.into_iter().zip(second).map(|(first, second)| [first, second]));
        findings.counts.iter_mut().for_each(|counts| histogram::twin(piece, counts));
        time += start.elapsed();
        done += piece.len() as u64;
        progress.at(done);
    })?;
    Ok((findings, time))
}

fn verify(found: &Findings, expected: &Findings) -> Result<(), CliError> {
    let pairs = || found.fingerprints.iter().zip(&expected.fingerprints);
    if let Some((block, (found, expected))) = pairs().enumerate().find(|(_, (found, expected))| found != expected) {
        let wrong = pairs().filter(|(found, expected)| found != expected).count();
        let blocks = pairs().len();
        return Err(CliError::Fingerprint { block, found: *found, expected: *expected, wrong, blocks });
    }
    let (found_blocks, expected_blocks) = (found.fingerprints.len(), expected.fingerprints.len());
    if found_blocks != expected_blocks {
        return Err(CliError::Blocks { found: found_blocks, expected: expected_blocks });
    }
    for (found, expected) in found.counts.iter().zip(&expected.counts) {
        let wrong = found.iter().zip(expected).enumerate().find(|(_, (found, expected))| found != expected);
        if let Some((byte, (found, expected))) = wrong {
            return Err(CliError::Count { byte, found: *found, expected: *expected });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_quarter_in_whole_chunks() {
        assert_eq!(budget(190 << 20), 46 << 20);
        assert_eq!((budget(1), budget(32 << 20)), (DEVICE_BUDGET_MIN, 8 << 20));
        assert_eq!((window(8 << 20), window(64 << 20), window(70 << 20)), (2 << 20, 4 << 20, 4 << 20));
    }

    #[test]
    fn each_kind_of_difference_is_an_error() {
        let findings = || Findings { fingerprints: vec![[1, 2], [3, 4]], counts: [[5; 256]; 2] };
        assert!(verify(&findings(), &findings()).is_ok());
        let mut other = findings();
        other.fingerprints[1][1] = 0;
        let error = verify(&other, &findings()).unwrap_err();
        assert!(matches!(error, CliError::Fingerprint { block: 1, wrong: 1, blocks: 2, .. }), "{error}");
        let mut other = findings();
        other.fingerprints.pop();
        assert!(matches!(verify(&other, &findings()), Err(CliError::Blocks { found: 1, expected: 2 })));
        let mut other = findings();
        other.counts[1][255] = 6;
        let error = verify(&other, &findings()).unwrap_err();
        assert!(matches!(error, CliError::Count { byte: 255, found: 6, expected: 5 }), "{error}");
    }
}
