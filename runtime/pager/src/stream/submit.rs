//! Submitting a transfer, and what its owner keeps of it. When it begins is the scheduler's to say.

use std::any::Any;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limosa_model::{DeclaredSets, Extent, Side};
use limosa_os::shim::Direction;
use limosa_os::{DataFile, FileErrorKind, FileKind, IoFailure};

use super::report::{Progress, TransferReport};
use super::tier::Tier;
use crate::core::Core;
use crate::error::PagerError;
use crate::event::{LaunchEvent, LaunchMark};
use crate::launch::LaunchQueue;
use crate::record::Record;
use crate::scheduler::Work;

/// A stretch of a file and one of unified memory, of the same length.
#[derive(Clone)]
pub struct Part {
    /// The file.
    pub file: Arc<DataFile>,
    /// Where the stretch begins in it, in bytes; 0 for a pipe, which goes on where it is.
    pub offset: u64,
    /// The memory.
    pub extent: Extent,
    /// Which way its bytes go.
    pub direction: Direction,
}

/// How a transfer is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferOptions {
    /// Where what is read is to arrive; `None`: on the device, as far as the budget and the allocations' limits allow.
    pub side: Option<Side>,
    /// The only way it may take; `None`: the best.
    pub tier: Option<Tier>,
    /// The most requests of it that the kernel is to have at a time; `None`: as many as serve it.
    pub depth: Option<u32>,
    /// The most bytes of a request; `None`: what suits the drive.
    pub request: Option<u64>,
}

/// Parts that are moved as one: one event, begun together and in flight together.
pub struct Transfers {
    /// What is to be moved.
    pub parts: Vec<Part>,
    /// How.
    pub options: TransferOptions,
    /// What must be over before it begins; if any of it failed, it does not.
    pub after: Vec<LaunchEvent>,
    /// What must be over before it begins, whatever becomes of it.
    pub behind: Vec<LaunchMark>,
    /// Kept until it is over.
    pub keep: Box<dyn Any + Send>,
}

/// A transfer that was submitted. Dropping it changes nothing for that.
#[derive(Clone)]
pub struct Transfer {
    event: LaunchEvent,
    shared: Arc<Shared>,
}

/// What the owner of a transfer and the pump share.
pub(super) struct Shared {
    total: u64,
    done: AtomicU64,
    cancelled: AtomicBool,
    report: Mutex<TransferReport>,
}

impl Shared {
    pub(super) fn report(&self) -> MutexGuard<'_, TransferReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, tier: Tier, bytes: u64, bounced: bool) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.report().count(tier, bytes, bounced);
    }
}

/// A transfer whose turn has not come.
pub(crate) struct Streaming {
    pub(super) parts: Vec<Part>,
    pub(super) options: TransferOptions,
    /// Where what is read arrives.
    pub(super) side: Side,
    pub(super) shared: Arc<Shared>,
    /// Where the files end, by file: asked by who submits, since a server may take its time.
    pub(super) ends: HashMap<u64, u64>,
    pub(super) keep: Box<dyn Any + Send>,
}

impl Streaming {
    /// Whether what is read may arrive on the host instead.
    pub(crate) fn may_be_displaced(&self) -> bool {
        self.side == Side::Device && self.options.side.is_none()
    }

    /// Has what is read arrive on the host, and tells why.
    pub(crate) fn displace(&mut self, why: String) {
        self.side = Side::Host;
        self.shared.report().displaced = Some(why);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled()
    }

    /// What its event tells where that came before its turn.
    pub(crate) fn cancelled_before(&self, record: &Record) -> PagerError {
        PagerError::Cancelled { what: record.told(), arrived: 0, total: self.shared.total }
    }

    /// What the application may have put into it, for an application's thread to drop.
    pub(crate) fn kept(self) -> Box<dyn Any + Send> {
        self.keep
    }
}

impl Transfer {
    /// Its event.
    #[must_use]
    pub fn event(&self) -> &LaunchEvent {
        &self.event
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { done: self.shared.done.load(Ordering::Relaxed), total: self.shared.total }
    }

    /// What became of it so far; all of it once the event is over, failed or not.
    #[must_use]
    pub fn report(&self) -> TransferReport {
        self.shared.report().clone()
    }

    /// Has it end early: its event fails with [`PagerError::Cancelled`] once the kernel has given back all of its memory.
    /// What is over stays so.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::SeqCst);
        let core = self.event.heap.core();
        core.pumps.note_cancelled();
        core.pumps.look_around();
        // It may still be in the queue.
        core.call_reaper();
    }
}

impl LaunchQueue {
    /// Takes a transfer in: on an in-order queue it begins when all before it is over, and what is behind it waits.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`]; [`PagerError::RangeTooLarge`] and [`PagerError::OverDeviceLimit`] where the device was
    /// asked for; [`PagerError::File`] where the file is not open for it, or is a pipe and the part does not begin at 0;
    /// [`PagerError::NoStreaming`]; those of [`LaunchQueue::marker`]. Nothing is moved then. What goes wrong later is told
    /// by the event: [`PagerError::File`], [`PagerError::FileEnded`], [`PagerError::TierUnusable`],
    /// [`PagerError::Cancelled`].
    pub fn transfer(&self, transfers: Transfers) -> Result<Transfer, PagerError> {
        let Transfers { parts, options, after, behind, keep } = transfers;
        let (heap, core) = (self.heap(), self.heap().core());
        let extents = stretches(&parts, |_| true);
        heap.check_allocated(&extents)?;
        parts.iter().try_for_each(check_file)?;
        heap.start_pump()?;
        let total = extents.iter().map(|extent| extent.len).sum();
        let (side, displaced) = core.side_for(&parts, &options)?;
        let report = TransferReport { displaced, ..TransferReport::default() };
        let shared =
            Shared { total, done: AtomicU64::new(0), cancelled: AtomicBool::new(false), report: Mutex::new(report) };
        let shared = Arc::new(shared);
        // What comes through a pipe, the application may be about to write.
        let is_outside = parts.iter().any(|part| part.file.facts().kind == FileKind::Stream);
        let record = Record::of_transfer(&name_of(&parts), core.id, is_outside);
        let mut ends = HashMap::new();
        for Part { file, .. } in &parts {
            // Unknown of a pipe; of what cannot be asked, the transfer itself will tell.
            ends.entry(file.id()).or_insert_with(|| file.len().ok().flatten().unwrap_or(u64::MAX));
        }
        let streaming = Streaming { parts, options, side, shared: Arc::clone(&shared), ends, keep };
        // Of the thread that drops what the transfer keeps, when it is over.
        core.notifier.announce()?;
        let submitted = self.submit_host(record, Work::Stream(Box::new(streaming)), &after, behind);
        let event = submitted.inspect_err(|_| core.notifier.forgo())?;
        Ok(Transfer { event, shared })
    }
}

/// That a part could be moved at all.
pub(super) fn check_file(part: &Part) -> Result<(), PagerError> {
    let Part { file, offset, extent, direction } = part;
    let (open, operation) = match direction {
        Direction::FromFile => (file.is_readable(), "reading"),
        Direction::ToFile => (file.is_writable(), "writing"),
    };
    let end = offset.checked_add(extent.len).and_then(|end| i64::try_from(end).ok());
    let wrong = if !open {
        (FileErrorKind::NotOpenFor, ErrorKind::PermissionDenied)
    } else if file.facts().kind == FileKind::Stream && *offset != 0 {
        (FileErrorKind::Refused, ErrorKind::NotSeekable)
    } else if end.is_none() {
        (FileErrorKind::TooLarge, ErrorKind::FileTooLarge)
    } else {
        return Ok(());
    };
    Err(file.error(operation, Some(*offset), IoFailure { kind: wrong.0, source: wrong.1.into() }).into())
}

/// The memory of the parts that `wanted` says, in as few stretches as parts that follow each other make: of many small
/// ones, together they may cover whole blocks.
pub(super) fn stretches(parts: &[Part], wanted: impl Fn(&Part) -> bool) -> Vec<Extent> {
    let mut stretches: Vec<Extent> = Vec::new();
    for Part { extent, .. } in parts.iter().filter(|part| wanted(part)) {
        match stretches.last_mut() {
            Some(last) if last.end() == extent.start => last.len += extent.len,
            _ => stretches.push(*extent),
        }
    }
    stretches
}

/// As errors call it.
fn name_of(parts: &[Part]) -> String {
    match parts {
        [] => "the empty transfer".into(),
        [part] if part.direction == Direction::FromFile => format!("the read of {}", part.file.name().display()),
        [part] => format!("the write of {}", part.file.name().display()),
        [first, ..] => format!("the transfer of {} parts, of {} first", parts.len(), first.file.name().display()),
    }
}

impl Core {
    /// Where what is read arrives, and why that is not the device where that was the first choice.
    fn side_for(&self, parts: &[Part], options: &TransferOptions) -> Result<(Side, Option<String>), PagerError> {
        if options.side == Some(Side::Host) {
            return Ok((Side::Host, None));
        }
        let extents = stretches(parts, |part| part.direction == Direction::FromFile);
        let mut sets = DeclaredSets::new(&[], &extents, &[]);
        self.leave_out_shared(&mut sets);
        let fits = self.check_sets_for_transfer(&sets);
        match (fits, options.side) {
            (Ok(()), _) => Ok((Side::Device, None)),
            (Err(error), Some(_)) => Err(error),
            (Err(error), None) => Ok((Side::Host, Some(error.to_string()))),
        }
    }
}
