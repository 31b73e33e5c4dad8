//! `limosa scan`: has the device fingerprint the blocks of any files and find those that occur several times, in a hash
//! table that may exceed device memory, and says which these are.
//!
//! A *duplicate* is a block of the same length and the same fingerprint as one before it, in the order of the files.
//! What it does *not* find: equal bytes at different distances from the beginnings of blocks.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use limosa::{BLOCK, Context, Counters};

use crate::cpu_time;
use crate::error::{CliError, with_causes};
use crate::kernels::{Finder, Records, Table};
use crate::options::Scan;
use crate::progress::{Spinner, Steps};

mod matches;
mod plan;
mod reader;
mod report;
mod verify;
mod walk;

use matches::{Counted, Matches};
use plan::Cut;
use reader::{Manner, Reading, Trouble};
use walk::{Unread, Walk};

/// A window is no larger: the device has enough to do with it.
const WINDOW_MOST: u64 = 16 << 20;
/// Files that are open at once: each takes two descriptors, and a process has 1024 unless it asks for more.
const FILES_OPEN: usize = 384;
/// The device budget over what all windows may take, and over a part of the hash table.
const SHARE: u64 = 2;
/// The device budget over the records that one launch enters into the table.
const SHARE_OF_RECORDS: u64 = 4;

/// What came of a scan.
struct Outcome {
    walk: Walk,
    reading: Reading,
    matches: Matches,
    table: TableFacts,
    /// Duplicates that were compared byte for byte, if this was asked for.
    verified: Option<u64>,
    /// From the walk through the directories to that along the chains.
    time: Duration,
    cpu_time: Duration,
    /// What was counted in that time.
    ran: Counters,
}

/// The hash table, and how it was filled.
struct TableFacts {
    bytes: u64,
    /// Bytes of the records that it leads to.
    records: u64,
    parts: usize,
    launches: usize,
    time: Duration,
}

/// Runs the scan.
pub(crate) fn run(options: &Scan, out: &mut impl Write) -> Result<ExitCode, CliError> {
    let walk = find(options);
    let context = options.opening.open()?;
    let manner = manner(options, context.heap().device_budget())?;
    let outcome = scan(&context, options, manner, walk)?;
    report::write(&context, options, manner, &outcome, out)?;
    Ok(if outcome.walk.unread.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn find(options: &Scan) -> Walk {
    let progress = Spinner::start("looking for files");
    Walk::through(&options.paths, options.one_file_system, |walk| {
        if walk.files.len().is_multiple_of(1000) {
            progress.say(format!("looking for files: {}", walk.files.len()));
        }
    })
}

/// How files are cut and read under this budget.
fn manner(options: &Scan, budget: u64) -> Result<Manner, CliError> {
    let (block, depth) = (options.block, usize::from(options.depth));
    let window = (budget / SHARE / depth as u64).min(WINDOW_MOST.max(block)) / block * block;
    if window == 0 {
        return Err(CliError::BlockTooLarge { block, depth, needed: SHARE * depth as u64 * block, budget });
    }
    Ok(Manner {
        cut: Cut { block, window, files: (FILES_OPEN / depth).max(1) },
        depth,
        tier: options.tier.map(Into::into),
    })
}

fn scan(context: &Context, options: &Scan, manner: Manner, mut walk: Walk) -> Result<Outcome, CliError> {
    let heap = context.heap();
    let (start, worked, before) = (Instant::now(), cpu_time::now(), heap.counters());
    let Manner { cut, .. } = manner;
    let blocks: u64 = walk.files.iter().map(|file| cut.blocks(file.stamp.bytes)).sum();
    let mut records = room(context, &walk, blocks)?;
    let finder = Finder::new(context).map_err(CliError::during("loading the kernels"))?;
    let reading = reader::read(context, &finder, &walk.files, manner, &mut records)?;
    let (table, facts) = enter(context, &finder, &mut records, blocks)?;
    let counted = count(&walk, &reading, cut);
    let matches = matches::walk(&table, &mut records, &counted, cut, options.top)?;
    let (time, cpu_time) = (start.elapsed(), cpu_time::now().saturating_sub(worked));
    let ran = heap.counters().since(&before);
    let verified = options.verify.then(|| verify::verify(&walk.files, &counted, cut, &records, &matches));
    let verified = verified.transpose()?;
    for (index, trouble) in &reading.troubles {
        let reason = match trouble {
            Trouble::Unreadable(reason) => reason.clone(),
            Trouble::Changed => "it changed while it was read, and is not counted; scan it again".to_owned(),
        };
        walk.unread.push(Unread { path: walk.files[*index].path.clone(), reason });
    }
    Ok(Outcome { walk, reading, matches, table: facts, verified, time, cpu_time, ran })
}

/// Room for a record of each block.
fn room(context: &Context, walk: &Walk, blocks: u64) -> Result<Records, CliError> {
    let made = match blocks {
        // A file has a block at least, so that files can be counted, too.
        0..=Records::MOST => Records::new(context.heap(), blocks).map_err(|error| with_causes(&error)),
        _ => Err(format!("a scan counts {} at most", Records::MOST)),
    };
    made.map_err(|why| {
        let largest = walk.files.iter().max_by_key(|file| file.stamp.bytes);
        let (path, largest) = largest.map(|file| (file.path.clone(), file.stamp.bytes)).unwrap_or_default();
        CliError::TooManyBlocks { blocks, why, path, largest }
    })
}

/// Has the device enter all records into a table.
fn enter(
    context: &Context,
    finder: &Finder,
    records: &mut Records,
    blocks: u64,
) -> Result<(Table, TableFacts), CliError> {
    let failed = CliError::during("filling the hash table");
    let budget = context.heap().device_budget();
    let start = Instant::now();
    let mut table = Table::new(context.heap(), blocks, budget / SHARE).map_err(&failed)?;
    // Whole blocks of memory, so that launches on neighbours share none.
    let at_once = (budget / SHARE_OF_RECORDS / BLOCK * BLOCK).max(BLOCK) / Records::BYTES_EACH;
    let events = finder.enter(records, &mut table, at_once).map_err(&failed)?;
    let progress = Steps::start("filling the hash table", events.len() as u64);
    for event in &events {
        event.wait().map_err(&failed)?;
        progress.next();
    }
    match table.homeless().map_err(&failed)? {
        0 => {}
        homeless => return Err(CliError::TableFull { homeless, blocks }),
    }
    let (bytes, parts) = (table.bytes(), table.parts());
    let time = start.elapsed();
    Ok((table, TableFacts { bytes, records: records.bytes(), parts, launches: events.len(), time }))
}

fn count(walk: &Walk, reading: &Reading, cut: Cut) -> Vec<Counted> {
    let mut first = 0;
    let counted = walk.files.iter().enumerate().map(|(index, file)| {
        let bytes = file.stamp.bytes;
        let one = Counted { bytes, first, sound: !reading.troubles.contains_key(&index) };
        first += cut.blocks(bytes);
        one
    });
    counted.collect()
}
