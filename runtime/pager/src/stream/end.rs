//! The end of a transfer: what did not arrive is made as it was, the seats are given up, and its event tells.
//! It does *not* wait for anybody.

use std::ops::Range;
use std::sync::Arc;

use limosa_gpu::GpuError;
use limosa_model::{BLOCK, BlockSet, ChunkIndex, Extent, Side};
use limosa_os::DataFile;

use super::flight::{Ended, Failure, Job};
use super::seats::Run;
use super::tier::SLOT;
use crate::core::Core;
use crate::error::PagerError;
use crate::notifier::Job as Notice;
use crate::view::to_usize;

/// As much as one unit of migration, of zeros.
#[allow(clippy::cast_possible_truncation)] // 64 KiB
static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

impl Core {
    /// Nothing of the transfer is in flight any more. Where that closes files, which may wait for a server, another thread
    /// ends it.
    pub(super) fn end_transfer(own: &Arc<Self>, mut job: Job) {
        let mut files: Vec<Arc<DataFile>> = job.parts.iter().map(|part| Arc::clone(&part.file)).collect();
        files.sort_unstable_by_key(|file| file.id());
        files.dedup_by_key(|file| file.id());
        // Nobody's any more when the event tells: the application may be about to remove or unmount it.
        job.parts.clear();
        let (keep, end) = job.over();
        let closes = files.iter().any(|file| Arc::strong_count(file) == 1);
        if closes {
            let core = Arc::clone(own);
            let end = move || {
                drop(files);
                core.tell_end(end);
                drop(keep);
            };
            // It was announced when the transfer was submitted.
            return own.notifier.hand_over([Box::new(end) as Notice]);
        }
        drop(files);
        own.tell_end(end);
        own.notifier.hand_over([Box::new(move || drop(keep)) as Notice]);
    }

    fn tell_end(&self, mut job: Ended) {
        let lost = self.lost() && !job.seats.held.is_empty();
        let (mut arrived, total) = (job.arrivals.without_gap(), job.shared.total());
        let mut spoilt = Vec::new();
        if !lost && (job.failure.is_some() || arrived < total) {
            spoilt = self.blank_missing(&job, &mut arrived);
        }
        let error = match job.failure.take().map(|(_, failure)| failure) {
            _ if lost => Some(GpuError::DeviceLost.into()),
            Some(Failure::File(error)) => Some(PagerError::FileFailed { error, arrived, total }),
            Some(Failure::Ended { file, offset }) => Some(PagerError::FileEnded { file, offset, arrived, total }),
            Some(Failure::Other(error)) => Some(error),
            None if arrived < total => Some(PagerError::Cancelled { what: job.record.told(), arrived, total }),
            None => None,
        };
        job.shared.report().arrived = arrived;
        self.ordering_point();
        let mut state = self.scheduler.lock();
        state.tasks.retain(|task| !Arc::ptr_eq(&task.record, &job.record));
        let freed = self.leave_seats(&job.seats);
        for (chunk, block) in spoilt {
            // Whoever was parked there may have come first, and found what the frame held before.
            let _ = self.transition(chunk, |state| state.discard(block));
        }
        if !self.lost() {
            state.held_blocks -= freed;
        }
        // Whoever finds it in no list any more finds it over.
        let notices = match error {
            None => job.record.done(),
            Some(error) => job.record.fail(error),
        };
        drop(state);
        self.ended(notices);
    }

    /// Blocks that read as zeros before do so again where nothing arrived. Gives those of which that failed, and lowers what
    /// has `arrived` to where they begin.
    fn blank_missing(&self, job: &Ended, arrived: &mut u64) -> Vec<(ChunkIndex, BlockSet)> {
        let mut spoilt = Vec::new();
        let blank = |chunk: ChunkIndex| {
            let own = job.seats.blank.iter().filter(|(other, _)| *other == chunk);
            own.fold(BlockSet::EMPTY, |all, (_, blocks)| all | *blocks)
        };
        for run in job.seats.runs.iter().filter(|run| run.side == Side::Device) {
            for (chunk, set) in run.extent.chunks() {
                for slot in (set & blank(chunk)).slots() {
                    let Extent { start, len } = chunk.run(slot, 1);
                    let (start, end) = (start.max(run.extent.start), (start + len).min(run.extent.end()));
                    let from = run.from + (start - run.extent.start);
                    let missing = job.arrivals.missing(from..from + (end - start));
                    let part = |gap: &Range<u64>| gap.start - run.from..gap.end - run.from;
                    if !missing.iter().all(|gap| self.blank_part(run, part(gap))) {
                        spoilt.push((chunk, BlockSet::of(slot)));
                        *arrived = from.min(*arrived);
                    }
                }
            }
        }
        spoilt
    }

    /// Gives whether it could.
    fn blank_part(&self, run: &Run, part: Range<u64>) -> bool {
        let mut at = part.start;
        while at < part.end {
            let len = (part.end - at).min(BLOCK).min(SLOT);
            match run.seat.pointer() {
                // SAFETY: within the run, which the transfer holds until it leaves its seats.
                Some(start) => unsafe { start.add(to_usize(at)).write_bytes(0, to_usize(len)) },
                None => {
                    let extent = Extent { start: run.extent.start + at, len };
                    // SAFETY: as above; the source is as long.
                    if unsafe { self.view.upload(extent, ZEROS.as_ptr()) }.is_err() {
                        return false;
                    }
                }
            }
            at += len;
        }
        true
    }
}
