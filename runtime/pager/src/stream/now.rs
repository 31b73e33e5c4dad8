//! Transfers at once, in the calling thread: of a few bytes, that go to memory which the CPU has anyhow, a request of its
//! own costs less than a queue. It does *not* bring anything anywhere: what is elsewhere is a queue's business.

use std::ptr::NonNull;

use limosa_model::{Extent, Side};
use limosa_os::shim::Direction;
use limosa_os::{FileError, FileErrorKind, FileKind};

use super::report::TransferReport;
use super::seats::Seat;
use super::submit::Part;
use super::tier::Tier;
use crate::error::PagerError;
use crate::heap::Heap;
use crate::view::to_usize;

/// Larger ones are better in many requests.
const BYTES_MAX: u64 = 1 << 20;

impl Heap {
    /// Reads or writes a part in this thread, if the CPU is the only owner of the memory and may write it; `None` where that
    /// is not so, or a queue does it better. Launches wait for it; the caller has waited for those.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`]; [`PagerError::File`], [`PagerError::FileFailed`], [`PagerError::FileEnded`].
    pub fn transfer_now(&self, part: &Part) -> Result<Option<TransferReport>, PagerError> {
        super::submit::check_file(part)?;
        self.check_allocated(&[part.extent])?;
        let Part { file, offset, extent, direction } = part;
        if extent.len > BYTES_MAX || file.facts().kind == FileKind::Stream || !self.pin_in_place(*extent) {
            return Ok(None);
        }
        let unit = file.facts().direct.as_ref().map(|direct| match direction {
            Direction::FromFile => u64::from(direct.read_offset_alignment.max(direct.memory_alignment)),
            Direction::ToFile => u64::from(direct.offset_alignment.max(direct.memory_alignment)),
        });
        let straight = |unit: u64| (offset | extent.start | extent.len).is_multiple_of(unit);
        // Of the unit that has the file's end a drive would fill all.
        let whole =
            || *direction == Direction::ToFile || matches!(file.len(), Ok(Some(end)) if offset + extent.len <= end);
        let direct = unit.as_ref().is_ok_and(|unit| straight(*unit))
            && self.core().pumps.is_proven(file, *direction, file.len().ok().flatten().unwrap_or(u64::MAX))
            && whole();
        // What is not proven, crooked, read for the first time, or has an end: a queue knows how.
        let moved = match self.core().host_seat(*extent) {
            Seat::Memory(start) if direct => Self::move_directly(part, start, unit.unwrap_or(1)),
            _ => Ok(None),
        };
        self.unpin_in_place(*extent);
        moved
    }

    /// The host, if that alone has the memory.
    #[must_use]
    pub fn side_of(&self, extent: Extent) -> Option<Side> {
        let all = |side: Side| {
            extent.chunks().all(|(chunk, set)| {
                self.core().cells.get(chunk).is_some_and(|cell| cell.lock().chunk.current(side).covers(set))
            })
        };
        // What fits the budget now may not in a moment: that side need not be asked for.
        if all(Side::Host) && !all(Side::Device) { Some(Side::Host) } else { None }
    }

    /// `None`: it was refused, or came short; a queue knows how to go on.
    fn move_directly(part: &Part, start: *mut u8, unit: u64) -> Result<Option<TransferReport>, PagerError> {
        let Part { file, offset, extent, direction } = part;
        let (mut report, total) = (TransferReport::default(), extent.len);
        while report.bytes < total {
            let Some(memory) = NonNull::new(start.wrapping_add(to_usize(report.bytes))) else { break };
            let (at, len) = (offset + report.bytes, to_usize(total - report.bytes));
            // SAFETY: the rest of the extent, pinned; whoever asks for it has seen to it that nobody else uses it.
            let moved: Result<usize, FileError> = unsafe {
                match direction {
                    Direction::FromFile => file.read_direct_at(memory, len, at),
                    Direction::ToFile => file.write_direct_at(memory, len, at),
                }
            };
            let arrived = report.bytes;
            match moved {
                Err(error) if matches!(error.kind(), FileErrorKind::Refused | FileErrorKind::BadMemory) => {
                    return Ok(None);
                }
                Err(error) => return Err(PagerError::FileFailed { error, arrived, total }),
                Ok(0) => {
                    let file = file.name().to_owned();
                    return Err(PagerError::FileEnded { file, offset: at, arrived, total });
                }
                Ok(moved) if !(moved as u64).is_multiple_of(unit) => return Ok(None),
                Ok(moved) => report.count(Tier::Direct, moved as u64, false),
            }
            report.requests += 1;
            report.arrived = report.bytes;
        }
        Ok(Some(report))
    }

    /// Pins what the CPU owns and may write. Gives whether that is all of it.
    fn pin_in_place(&self, extent: Extent) -> bool {
        // So that no admission is half-way.
        let _state = self.core().scheduler.lock();
        for (done, (chunk, set)) in extent.chunks().enumerate() {
            let cell = self.core().cells.get(chunk);
            if !cell.is_some_and(|cell| cell.lock().chunk.pin_in_place(set)) {
                extent.chunks().take(done).for_each(|(chunk, set)| self.core().unpin_blocks(chunk, set));
                return false;
            }
        }
        true
    }

    fn unpin_in_place(&self, extent: Extent) {
        extent.chunks().for_each(|(chunk, set)| self.core().unpin_blocks(chunk, set));
        if !self.core().scheduler.lock().queued.is_empty() {
            // It may be what they wait for, and nobody else need be there to move them on.
            self.core().call_reaper();
        }
    }
}
