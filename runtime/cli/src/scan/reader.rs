//! Brings all files to the device, window by window, and has their blocks fingerprinted: while the device goes over one
//! window, the others are read. A file that cannot be read, or is not the same before and after, is told and its blocks
//! are not to be counted; the scan goes on without it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use limosa::{Context, DataFile, Error, Event, PagerError, Queue, Tier, Transfer, UnifiedSliceMut};

use super::plan::{Cut, Part, Windows};
use super::walk::{Found, Stamp};
use crate::cpu_time;
use crate::error::{CliError, with_causes};
use crate::kernels::{Finder, Records, Run, Window};
use crate::progress::Bytes;
use crate::ways::Ways;

/// Why a file does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It could not be opened or read.
    Unreadable(String),
    /// It is not what it was.
    Changed,
}

/// What came of it.
pub(crate) struct Reading {
    /// The files that do not count, by index.
    pub(crate) troubles: BTreeMap<usize, Trouble>,
    /// Which way the bytes came, also those of files that do not count.
    pub(crate) ways: Ways,
    /// From the first request to the last fingerprint.
    pub(crate) time: Duration,
    /// What the CPU worked in that time.
    pub(crate) cpu_time: Duration,
}

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) cut: Cut,
    /// Windows in memory at once.
    pub(crate) depth: usize,
    /// The only way that files may take.
    pub(crate) tier: Option<Tier>,
}

/// Reads all of `files` and has the device fill in `records`.
pub(crate) fn read(
    context: &Context,
    finder: &Finder,
    files: &[Found],
    manner: Manner,
    records: &mut Records,
) -> Result<Reading, CliError> {
    let lengths: Vec<u64> = files.iter().map(|file| file.stamp.bytes).collect();
    let new = |_| Window::new(context.heap(), manner.cut.window, super::plan::ALIGN);
    let windows: limosa::Result<Vec<Window>> = (0..manner.depth).map(new).collect();
    let mut free = windows.map_err(CliError::during("making room for the windows"))?;
    let progress = Bytes::start("reading and fingerprinting", lengths.iter().sum());
    let (start, worked) = (Instant::now(), cpu_time::now());
    // What is read need not wait for what the device goes over.
    let queue = context.queue_builder().out_of_order().build().map_err(CliError::during("making a queue"))?;
    let mut reader = Reader {
        files,
        finder,
        queue: &queue,
        manner,
        records,
        open: None,
        troubles: BTreeMap::new(),
        ways: Ways::default(),
    };
    let mut flying: VecDeque<Flight> = VecDeque::new();
    let mut last: Option<Event> = None;
    for parts in Windows::new(manner.cut, &lengths) {
        if free.is_empty()
            && let Some(flight) = flying.pop_front()
        {
            let (window, event) = reader.end(flight)?;
            free.push(window);
            last = event.or(last);
            progress.at(reader.ways.bytes());
        }
        // There was one, or one has been made free.
        let Some(window) = free.pop() else { break };
        flying.push_back(reader.begin(window, parts)?);
    }
    for flight in flying {
        let (_, event) = reader.end(flight)?;
        last = event.or(last);
        progress.at(reader.ways.bytes());
    }
    // The queue is in order.
    last.map_or(Ok(()), |event| event.wait()).map_err(CliError::during("fingerprinting"))?;
    let Reader { troubles, ways, .. } = reader;
    Ok(Reading { troubles, ways, time: start.elapsed(), cpu_time: cpu_time::now().saturating_sub(worked) })
}

/// A window that is being read.
struct Flight {
    window: Window,
    parts: Vec<Part>,
    /// None if no file of the window could be opened.
    transfer: Option<Transfer>,
}

struct Reader<'a> {
    files: &'a [Found],
    finder: &'a Finder,
    queue: &'a Queue,
    manner: Manner,
    records: &'a mut Records,
    /// The file opened last, which may go on in the next window.
    open: Option<(usize, DataFile)>,
    troubles: BTreeMap<usize, Trouble>,
    ways: Ways,
}

impl Reader<'_> {
    /// Begins to read a window, all of its parts at once. Files that cannot be opened are left out.
    fn begin(&mut self, mut window: Window, parts: Vec<Part>) -> Result<Flight, CliError> {
        let failed = CliError::during("reading files");
        let mut opened: Vec<(Part, DataFile)> = Vec::new();
        for part in parts {
            opened.extend(self.file(part.file).map(|file| (part, file)));
        }
        let len = window.bytes.len();
        let mut transfers = self.queue.transfers();
        let mut rest = window.bytes.slice_mut(0..len).map_err(&failed)?;
        let mut at = 0;
        for (part, file) in &opened {
            let (own, others) = cut_out(rest, part.at - at, part.bytes).map_err(&failed)?;
            transfers = transfers.read(file, part.offset, own);
            (rest, at) = (others, part.at + part.bytes);
        }
        let transfers = self.manner.tier.into_iter().fold(transfers, limosa::Transfers::tier);
        let transfer = if opened.is_empty() { None } else { Some(transfers.submit().map_err(&failed)?) };
        Ok(Flight { window, parts: opened.into_iter().map(|(part, _)| part).collect(), transfer })
    }

    /// Waits until a window is there, and has the device go over it.
    fn end(&mut self, flight: Flight) -> Result<(Window, Option<Event>), CliError> {
        let Flight { mut window, parts, transfer } = flight;
        match transfer.map(|transfer| transfer.wait()) {
            None => {}
            Some(Ok(report)) => self.ways.add(&report),
            // Which of them it was is not told, nor whether others have arrived.
            Some(Err(error)) if is_of_a_file(&error) => self.read_each(&mut window, &parts)?,
            Some(Err(error)) => return Err(CliError::during("reading files")(error)),
        }
        for part in parts.iter().filter(|part| part.last) {
            self.check(part.file);
        }
        let block = self.manner.cut.block;
        let runs = parts.iter().filter(|part| self.is_sound(part)).map(|part| Run {
            at: part.at,
            bytes: part.bytes,
            block,
            file: part.file,
            number: part.offset / block,
            record: part.blocks.start,
        });
        let runs: Vec<Run> = runs.collect();
        let listed = window.list(&runs, self.records);
        let event = listed.and_then(|()| self.finder.digest(&mut window, self.records));
        Ok((window, event.map_err(CliError::during("fingerprinting"))?))
    }

    /// Reads the parts of a window one after the other: a file that fails is told, and keeps no other from being read.
    fn read_each(&mut self, window: &mut Window, parts: &[Part]) -> Result<(), CliError> {
        let failed = CliError::during("reading files");
        for part in parts {
            let Some(file) = self.file(part.file) else { continue };
            let all = window.bytes.len();
            let rest = window.bytes.slice_mut(0..all).map_err(&failed)?;
            let (own, _) = cut_out(rest, part.at, part.bytes).map_err(&failed)?;
            let transfers = self.queue.read_file(&file, part.offset, own);
            let transfers = self.manner.tier.into_iter().fold(transfers, limosa::Transfers::tier);
            match transfers.submit().and_then(|transfer| transfer.wait()) {
                Ok(report) => self.ways.add(&report),
                Err(error) if is_of_a_file(&error) => {
                    self.troubles.entry(part.file).or_insert(Trouble::Unreadable(with_causes(&error)));
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    fn is_sound(&self, part: &Part) -> bool {
        !self.troubles.contains_key(&part.file)
    }

    /// The file, open; none if it has failed.
    fn file(&mut self, index: usize) -> Option<DataFile> {
        if self.troubles.contains_key(&index) {
            return None;
        }
        if let Some((open, file)) = &self.open
            && *open == index
        {
            return Some(file.clone());
        }
        if !self.check(index) {
            return None;
        }
        // What became a pipe meanwhile is refused.
        match DataFile::options().read(true).storage(true).open(&self.files[index].path) {
            Ok(file) => {
                self.open = Some((index, file.clone()));
                Some(file)
            }
            Err(error) => {
                self.troubles.insert(index, Trouble::Unreadable(with_causes(&error)));
                None
            }
        }
    }

    /// Whether the file is what it was when it was found; if not, it does not count.
    fn check(&mut self, index: usize) -> bool {
        let Found { path, stamp } = &self.files[index];
        let trouble = match Stamp::now(path) {
            Ok(now) if now == *stamp => return true,
            Ok(_) => Trouble::Changed,
            Err(error) => Trouble::Unreadable(error.to_string()),
        };
        self.troubles.entry(index).or_insert(trouble);
        false
    }
}

/// The `len` bytes behind the first `skipped`, and those behind them.
fn cut_out(
    bytes: UnifiedSliceMut<'_, u8>,
    skipped: u64,
    len: u64,
) -> limosa::Result<(UnifiedSliceMut<'_, u8>, UnifiedSliceMut<'_, u8>)> {
    let index = |number| usize::try_from(number).unwrap_or(usize::MAX);
    let (_, rest) = bytes.split_at(index(skipped))?;
    rest.split_at(index(len))
}

/// Whether it is one file's fault: the others can be read.
fn is_of_a_file(error: &Error) -> bool {
    matches!(
        error,
        Error::Pager(PagerError::File(_) | PagerError::FileFailed { .. } | PagerError::FileEnded { .. })
            | Error::Pager(PagerError::TierUnusable { .. })
    )
}
