//! A transfer under way: what of it is to be asked for next, what is in flight, what has arrived. It does *not* talk to the
//! kernel.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use limosa_model::stream::{Cut, Piece};
use limosa_os::shim::Direction;
use limosa_os::{FileError, FileErrorKind, FileKind, IoFailure};

use super::arrivals::Arrivals;
use super::report::TierReason;
use super::seats::{Run, Seat, Seats};
use super::submit::{Part, Shared, Streaming, TransferOptions};
use super::tier::{SLOT, Tier, Way};
use super::trials::Tried;
use crate::error::PagerError;
use crate::record::Record;

/// What a request is to move, or moves: bytes of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    pub(super) run: usize,
    /// Where it begins in the run.
    pub(super) at: u64,
    pub(super) len: u64,
    /// The tier that it counts for.
    pub(super) tier: Tier,
    /// How it goes.
    pub(super) by: By,
}

/// How bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Direct I/O on the memory itself, in whole units of so many bytes.
    Direct(u64),
    /// Direct I/O on a slot, widened to such units.
    Slot(u64),
    /// The page cache, and the memory itself.
    Cache,
    /// The page cache, and a slot.
    CacheSlot,
}

impl By {
    pub(super) fn needs_slot(self) -> bool {
        matches!(self, Self::Slot(_) | Self::CacheSlot)
    }

    pub(super) fn is_direct(self) -> bool {
        matches!(self, Self::Direct(_) | Self::Slot(_))
    }
}

/// What went wrong with a transfer.
pub(super) enum Failure {
    /// With a file.
    File(FileError),
    /// The file ended.
    Ended { file: PathBuf, offset: u64 },
    /// With anything else.
    Other(PagerError),
}

/// How the runs of one kind are moved, and which they are.
#[derive(Clone)]
struct Chosen {
    file: u64,
    direction: Direction,
    seat: std::mem::Discriminant<Seat>,
    side: limosa_model::Side,
    way: Rc<Way>,
}

/// A way that is tried before it is taken.
pub(super) struct Proving {
    pub(super) run: usize,
    pub(super) way: Way,
    pub(super) trial: Tried,
    /// Where, if not in the run itself.
    pub(super) slot: Option<usize>,
}

/// A transfer under way.
pub(super) struct Job {
    pub(super) record: Arc<Record>,
    pub(super) parts: Vec<Part>,
    pub(super) options: TransferOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) keep: Box<dyn Any + Send>,
    pub(super) seats: Seats,
    pub(super) arrivals: Arrivals,
    /// Requests, and a proof.
    pub(super) in_flight: u32,
    pub(super) bytes_in_flight: u64,
    /// What is being tried; nothing else is asked for meanwhile.
    pub(super) proving: Option<Proving>,
    pub(super) began: Instant,
    /// The first failure by place in the transfer, and that place.
    pub(super) failure: Option<(u64, Failure)>,
    /// Whether nothing more is asked for.
    pub(super) stopped: bool,
    /// Whether its requests in flight were told to end.
    pub(super) cancelled: bool,
    /// The stretch of each file that all of its parts are in.
    pub(super) spans: HashMap<u64, Range<u64>>,
    /// Whether what is read is in the page cache, by file.
    pub(super) hot: HashMap<u64, bool>,
    /// Where files ended when the transfer was submitted, by file.
    pub(super) ends: HashMap<u64, u64>,
    run: usize,
    cutting: Option<(Rc<Way>, Cut)>,
    chosen: Option<Chosen>,
    /// To be asked for before what comes next: what requests left over.
    again: VecDeque<Leg>,
}

/// What is left of a transfer when nothing of it is in flight any more.
pub(super) struct Ended {
    pub(super) record: Arc<Record>,
    pub(super) shared: Arc<Shared>,
    pub(super) seats: Seats,
    pub(super) arrivals: Arrivals,
    pub(super) failure: Option<(u64, Failure)>,
}

/// A transfer that has its seats, on its way to the pump.
pub(crate) struct Boarded {
    record: Arc<Record>,
    streaming: Streaming,
    seats: Seats,
}

impl Boarded {
    pub(crate) fn new(record: Arc<Record>, streaming: Streaming, seats: Seats) -> Self {
        Self { record, streaming, seats }
    }
}

impl Job {
    pub(super) fn new(boarded: Boarded) -> Self {
        let Boarded { record, streaming, seats } = boarded;
        let Streaming { parts, options, shared, keep, ends, .. } = streaming;
        let mut spans: HashMap<u64, Range<u64>> = HashMap::new();
        for part in &parts {
            let own = part.offset..part.offset + part.extent.len;
            let span = spans.entry(part.file.id()).or_insert(own.clone());
            *span = span.start.min(own.start)..span.end.max(own.end);
        }
        Self {
            record,
            parts,
            options,
            shared,
            keep,
            seats,
            arrivals: Arrivals::default(),
            in_flight: 0,
            bytes_in_flight: 0,
            proving: None,
            began: Instant::now(),
            failure: None,
            stopped: false,
            cancelled: false,
            spans,
            hot: HashMap::new(),
            ends,
            run: 0,
            cutting: None,
            chosen: None,
            again: VecDeque::new(),
        }
    }

    /// Whether nothing more is to be asked for.
    pub(super) fn is_asked(&self) -> bool {
        let cut = self.run >= self.seats.runs.len() && self.cutting.is_none();
        (self.stopped || cut) && self.again.is_empty()
    }

    /// Whether bytes at a place are asked for anew: all before the first failure are, so that this is where it ends.
    fn is_wanted(&self, place: u64) -> bool {
        !self.cancelled && self.failure.as_ref().is_none_or(|(first, _)| place < *first)
    }

    /// Nothing more is to be asked for.
    pub(super) fn cancel(&mut self) {
        (self.cancelled, self.stopped) = (true, true);
        self.again.clear();
    }

    /// What is to be told of it, and what it kept of the application's.
    pub(super) fn over(self) -> (Box<dyn Any + Send>, Ended) {
        let Self { record, shared, seats, arrivals, failure, keep, .. } = self;
        (keep, Ended { record, shared, seats, arrivals, failure })
    }

    /// Whether nothing of it is left to be done.
    pub(super) fn is_over(&self) -> bool {
        self.in_flight == 0 && self.is_asked()
    }

    pub(super) fn part_of(&self, run: usize) -> (&Part, &Run) {
        let run = &self.seats.runs[run];
        (&self.parts[run.part], run)
    }

    /// Where a leg begins in its file.
    pub(super) fn offset_of(&self, leg: &Leg) -> u64 {
        let (part, run) = self.part_of(leg.run);
        part.offset + run.at + leg.at
    }

    /// Where a leg begins in the transfer.
    pub(super) fn place_of(&self, leg: &Leg) -> u64 {
        self.seats.runs[leg.run].from + leg.at
    }

    /// The run of which the next leg is, if its way is to be chosen first.
    pub(super) fn undecided(&mut self) -> Option<usize> {
        if !self.again.is_empty() || self.cutting.is_some() {
            return None;
        }
        let index = self.run;
        let (part, run) = (index < self.seats.runs.len()).then(|| self.part_of(index))?;
        let same = |chosen: &&Chosen| {
            chosen.file == part.file.id()
                && chosen.direction == part.direction
                && chosen.seat == std::mem::discriminant(&run.seat)
                && chosen.side == run.side
        };
        let Some(chosen) = self.chosen.as_ref().filter(same) else { return Some(index) };
        let (way, cut) = (Rc::clone(&chosen.way), self.cut(index, &chosen.way));
        // Each run may be crooked in its own way.
        if way.tier < Tier::Staged && !cut.has_body() {
            return Some(index);
        }
        self.begin(way, cut);
        None
    }

    fn cut(&self, run: usize, way: &Way) -> Cut {
        let (part, run) = self.part_of(run);
        let request = self.options.request.unwrap_or(way.request).min(if way.bounces { SLOT } else { u64::MAX });
        let request = request.min(u64::from(u32::MAX) / 2);
        let end = self.ends.get(&part.file.id()).copied().filter(|_| part.direction == Direction::FromFile);
        Cut::within(
            part.offset + run.at,
            run.extent.len,
            run.seat.address(),
            way.alignment,
            request,
            end.unwrap_or(u64::MAX),
        )
    }

    fn begin(&mut self, way: Rc<Way>, cut: Cut) {
        self.run += 1;
        self.cutting = Some((way, cut));
    }

    /// The run that was undecided is moved this way.
    pub(super) fn choose(&mut self, run: usize, way: Way) {
        self.shared.report().note(&way.reasons);
        let way = Rc::new(way);
        let (part, own) = self.part_of(run);
        self.shared.report().checksums |= part.file.facts().checksums;
        let (file, direction) = (part.file.id(), part.direction);
        let (seat, side) = (std::mem::discriminant(&own.seat), own.side);
        self.chosen = Some(Chosen { file, direction, seat, side, way: Rc::clone(&way) });
        let cut = self.cut(run, &way);
        self.begin(way, cut);
    }

    /// The next leg of what is decided.
    pub(super) fn next(&mut self) -> Option<Leg> {
        if let Some(leg) = self.again.pop_front() {
            return Some(leg);
        }
        if self.stopped {
            return None;
        }
        let (way, cut) = self.cutting.as_mut()?;
        let Some(Piece { at, len, aligned }) = cut.next() else {
            self.cutting = None;
            return None;
        };
        let way = Rc::clone(way);
        let run = self.run - 1;
        let direction = self.part_of(run).0.direction;
        let unit = way.alignment.offset;
        let by = match (way.tier, aligned) {
            (Tier::Buffered, _) if way.bounces => By::CacheSlot,
            (Tier::Buffered, _) => By::Cache,
            (_, true) if way.bounces => By::Slot(unit),
            (_, true) => By::Direct(unit),
            // What shares its unit of the file with others' bytes: they must stay.
            (_, false) if direction == Direction::ToFile => By::CacheSlot,
            (_, false) => By::Slot(unit),
        };
        let leg = Leg { run, at, len, tier: way.tier, by };
        if !self.fits_slot(&leg) {
            // Beyond where the file ended: it may have grown meanwhile, and what comes must find room.
            self.retry(leg);
            return self.again.pop_front();
        }
        Some(leg)
    }

    /// The stretch of the file that a leg's request is about, and its length: on slots, direct I/O moves whole units.
    pub(super) fn widened(&self, leg: &Leg) -> (u64, u64) {
        let offset = self.offset_of(leg);
        let By::Slot(unit) = leg.by else { return (offset, leg.len) };
        let start = offset - offset % unit;
        (start, (offset + leg.len).next_multiple_of(unit) - start)
    }

    /// Whether a slot has room for all that a leg's request brings, if it needs one.
    fn fits_slot(&self, leg: &Leg) -> bool {
        !leg.by.needs_slot() || self.widened(leg).1 <= SLOT
    }

    /// To be asked for before all else.
    pub(super) fn retry(&mut self, leg: Leg) {
        if !self.is_wanted(self.place_of(&leg)) {
            return;
        }
        if self.fits_slot(&leg) {
            return self.again.push_front(leg);
        }
        // With a unit before and behind, these do.
        let pieces = (0..leg.len.div_ceil(SLOT / 2)).map(|piece| piece * (SLOT / 2));
        let legs = pieces.map(|at| Leg { at: leg.at + at, len: (SLOT / 2).min(leg.len - at), ..leg });
        legs.collect::<Vec<_>>().into_iter().rev().for_each(|leg| self.again.push_front(leg));
    }

    /// Bytes have arrived, from a leg's start on.
    pub(super) fn arrived(&mut self, leg: &Leg, bytes: u64) {
        let place = self.place_of(leg);
        self.arrivals.add(place..place + bytes);
        self.shared.count(leg.tier, bytes, !matches!(leg.by, By::Direct(_)));
    }

    /// A request moved `useful` bytes of its leg, and not all: the rest is asked for anew.
    pub(super) fn retry_rest(&mut self, leg: &Leg, useful: u64) {
        let (direction, offset) = (self.part_of(leg.run).0.direction, self.offset_of(leg) + useful);
        let by = match (leg.by, direction) {
            (By::Direct(unit) | By::Slot(unit), _) if offset.is_multiple_of(unit) => leg.by,
            // A unit in part: as everything that is not aligned.
            (By::Direct(unit) | By::Slot(unit), Direction::FromFile) => By::Slot(unit),
            (By::Direct(_) | By::Slot(_), Direction::ToFile) => By::CacheSlot,
            (by, _) => by,
        };
        self.retry(Leg { at: leg.at + useful, len: leg.len - useful, by, ..*leg });
    }

    /// The kernel did not do it.
    pub(super) fn refused(&mut self, leg: Leg, failure: IoFailure) {
        let (part, run) = self.part_of(leg.run);
        let (file, direction, seat) = (Arc::clone(&part.file), part.direction, run.seat);
        let offset = (file.facts().kind != FileKind::Stream).then(|| self.offset_of(&leg));
        match failure.kind {
            FileErrorKind::Cancelled if self.cancelled => {}
            // Some files have direct I/O here and not there.
            FileErrorKind::Refused | FileErrorKind::BadMemory if leg.by.is_direct() && self.options.tier.is_none() => {
                let reason = format!("it was refused at byte {} of the file: {failure}", self.offset_of(&leg));
                self.shared.report().note(&[TierReason { tier: leg.tier, reason }]);
                let by = if seat.pointer().is_some() { By::Cache } else { By::CacheSlot };
                self.retry(Leg { tier: Tier::Buffered, by, ..leg });
            }
            _ => {
                let operation = if direction == Direction::FromFile { "reading" } else { "writing" };
                self.fail(self.place_of(&leg), Failure::File(file.error(operation, offset, failure)));
            }
        }
    }

    /// Whether requests of it must come one after the other, as their file has no offsets.
    pub(super) fn is_sequential(&self) -> bool {
        let run =
            self.run.saturating_sub(usize::from(self.cutting.is_some())).min(self.seats.runs.len().saturating_sub(1));
        self.seats.runs.get(run).is_some_and(|run| self.parts[run.part].file.facts().kind == FileKind::Stream)
    }

    /// Something went wrong at a place. What is first in the transfer counts.
    pub(super) fn fail(&mut self, place: u64, failure: Failure) {
        if self.failure.as_ref().is_none_or(|(first, _)| place < *first) {
            self.failure = Some((place, failure));
            let runs = &self.seats.runs;
            self.again.retain(|leg| runs[leg.run].from + leg.at < place);
        }
        self.stopped = true;
    }
}
