//! What the pump gives to the kernel and takes from it, leg by leg: requests, what came of them, and the copies between
//! slots and memory. It does *not* choose what is next.

use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use limosa_model::Extent;
use limosa_os::copy::{self, Caching};
use limosa_os::shim::Direction;
use limosa_os::{Completion, DataFile, FileSlot, Request, RingFile};
use limosa_os::{FileErrorKind, FileKind, IoFailure};

use super::flight::{By, Failure, Job, Leg};
use super::pump::{Flying, Pump, Registered, locked};
use super::seats::Seat;
use super::tier::{SLOT, Tier};
use crate::core::Core;
use crate::error::PagerError;
use crate::view::to_usize;

/// Files that the ring knows before it is looked for some that are closed.
const FILES_KEPT: usize = 16;

impl Pump {
    /// Gives the kernel a leg, or keeps it for later where there is no room; says which.
    pub(super) fn push(
        &mut self,
        job: &mut Job,
        index: usize,
        leg: Leg,
        slot: Option<usize>,
    ) -> Result<bool, PagerError> {
        let (offset, (part, run)) = (job.offset_of(&leg), job.part_of(leg.run));
        let (file, direction) = (Arc::clone(&part.file), part.direction);
        let (start, len) = job.widened(&leg);
        debug_assert!(slot.is_none() || len <= SLOT, "{len} bytes for a slot");
        let memory = match (slot, run.seat) {
            (Some(slot), _) => self.slot_memory(slot),
            (None, Seat::Memory(memory) | Seat::Peer(memory)) => memory.wrapping_add(to_usize(leg.at)),
            (None, Seat::Device) => return Err(PagerError::NoFrame { offset: run.extent.start }),
        };
        if slot.is_some() && direction == Direction::ToFile {
            self.gather(run.seat, run.extent.start, &leg, memory)?;
        }
        let Some(token) = self.idle_tokens.pop() else {
            self.idle_slots.extend(slot);
            job.retry(leg);
            return Ok(false);
        };
        let known = self.registered(&file, leg.by.is_direct());
        let fd = file.direct_fd().filter(|_| leg.by.is_direct()).unwrap_or_else(|| file.as_fd());
        let request = Request {
            file: known.map_or(RingFile::Fd(fd), RingFile::Slot),
            direction,
            offset: (file.facts().kind != FileKind::Stream).then_some(start),
            memory,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            buffer: slot.and(self.buffer),
        };
        // SAFETY: the transfer keeps its seats, its files and the heap until it has ended, which is after all its
        // completions; a slot is nobody else's until then. The pump is of this process: children have no thread of it.
        if unsafe { self.ring.push(token as u64, &request) }.is_err() {
            self.idle_tokens.push(token);
            if self.flying.iter().all(Option::is_none) {
                // Nothing will come that would make room.
                let (what, reason) = (job.record.told(), "the kernel takes no requests".into());
                return Err(PagerError::NotDone { what, reason });
            }
            self.idle_slots.extend(slot);
            job.retry(leg);
            return Ok(false);
        }
        self.flying[token] = Some(Flying { job: index, leg, slot, lead: offset - start });
        job.bytes_in_flight += leg.len;
        job.in_flight += 1;
        job.shared.report().requests += 1;
        if slot.is_some() && direction == Direction::ToFile {
            // The drive is to be busy while the next slot is filled. It is tried again with what is pushed next.
            let _ = self.ring.submit();
        }
        Ok(true)
    }

    /// The number that the ring has for a descriptor of the file, if there is room for one.
    fn registered(&mut self, file: &Arc<DataFile>, direct: bool) -> Option<FileSlot> {
        if self.files.len() >= FILES_KEPT && !self.files.contains_key(&file.id()) {
            self.forget_closed();
        }
        let new = || Registered { slots: [None; 2], file: Arc::downgrade(file) };
        let known = self.files.entry(file.id()).or_insert_with(new);
        let place = &mut known.slots[usize::from(direct)];
        if place.is_none() {
            let fd = if direct { file.direct_fd()? } else { file.as_fd() };
            *place = self.ring.register_file(fd).ok();
        }
        *place
    }

    /// The ring would keep files open that nobody else has open any more: only what transfers use stays there.
    fn leave_files(&mut self, job: &Job) {
        let mut files: Vec<u64> = job.parts.iter().map(|part| part.file.id()).collect();
        files.sort_unstable();
        files.dedup();
        let used = |file: u64| self.jobs.iter().flatten().flat_map(|job| &job.parts).any(|part| part.file.id() == file);
        let left: Vec<u64> = files.into_iter().filter(|file| !used(*file)).collect();
        for file in left {
            let Some(known) = self.files.get_mut(&file) else { continue };
            for slot in std::mem::take(&mut known.slots).into_iter().flatten() {
                let _ = self.ring.forget_file(slot);
            }
        }
    }

    /// Forgets what is known of files that are closed.
    fn forget_closed(&mut self) {
        let closed = |known: &Registered| Weak::strong_count(&known.file) == 0;
        let gone: Vec<u64> = self.files.iter().filter(|(_, known)| closed(known)).map(|(file, _)| *file).collect();
        for file in gone {
            for slot in self.files.remove(&file).into_iter().flat_map(|known| known.slots).flatten() {
                // It stays open a while longer then.
                let _ = self.ring.forget_file(slot);
            }
            locked(&self.core.pumps.tried).forget(file);
            self.pace.forget(file);
        }
    }

    /// Takes what the kernel has done.
    pub(super) fn take(&mut self, done: Completion) {
        let Ok(token) = usize::try_from(done.token) else { return };
        let Some(flying) = self.flying.get_mut(token).and_then(Option::take) else { return };
        self.idle_tokens.push(token);
        let Some(mut job) = self.jobs[flying.job].take() else { return };
        job.bytes_in_flight -= flying.leg.len;
        let index = flying.job;
        match done.result {
            Ok(moved) => self.moved(&mut job, flying, u64::from(moved)),
            Err(failure) => {
                self.idle_slots.extend(flying.slot);
                job.in_flight -= 1;
                job.refused(flying.leg, failure);
            }
        }
        self.jobs[index] = Some(job);
    }

    fn moved(&mut self, job: &mut Job, flying: Flying, moved: u64) {
        let Flying { leg, slot, lead, .. } = flying;
        let (direction, offset) = (job.part_of(leg.run).0.direction, job.offset_of(&leg));
        let useful = moved.saturating_sub(lead).min(leg.len);
        if useful < leg.len && useful > 0 {
            job.retry_rest(&leg, useful);
        }
        if useful > 0 && slot.is_some() && direction == Direction::FromFile {
            return self.landed.push_back(Flying { leg: Leg { len: useful, ..leg }, ..flying });
        }
        self.idle_slots.extend(slot);
        job.in_flight -= 1;
        match direction {
            _ if useful > 0 => job.arrived(&leg, useful),
            // It stopped short of what was asked for, as only some servers do: the page cache goes on.
            Direction::FromFile if moved > 0 => {
                let by = if slot.is_some() { By::CacheSlot } else { By::Cache };
                job.retry(Leg { by, ..leg });
            }
            Direction::FromFile => {
                let file = job.part_of(leg.run).0.file.name().to_owned();
                job.fail(job.place_of(&leg), Failure::Ended { file, offset });
            }
            Direction::ToFile => {
                let source = std::io::ErrorKind::WriteZero.into();
                job.refused(leg, IoFailure { kind: FileErrorKind::Io, source });
            }
        }
    }

    /// Copies what has come into a slot to where it belongs.
    pub(super) fn land(&mut self, flying: Flying) {
        let Flying { job: index, leg, slot, lead } = flying;
        let (Some(mut job), Some(slot)) = (self.jobs[index].take(), slot) else { return };
        let run = job.part_of(leg.run).1;
        let source = self.slot_memory(slot).wrapping_add(to_usize(lead)).cast_const();
        let landed = match run.seat {
            Seat::Memory(start) | Seat::Peer(start) => {
                // SAFETY: the slot has so many bytes behind its lead, and the run, which the transfer holds, behind its start.
                unsafe { copy::copy(start.add(to_usize(leg.at)), source, to_usize(leg.len), Caching::Bypass) };
                Ok(())
            }
            // SAFETY: as above.
            Seat::Device => unsafe {
                self.core.view.upload(Extent { start: run.extent.start + leg.at, len: leg.len }, source)
            },
        };
        self.idle_slots.push(slot);
        job.in_flight -= 1;
        match landed {
            Ok(()) => job.arrived(&leg, leg.len),
            Err(error) => job.fail(job.place_of(&leg), Failure::Other(error)),
        }
        self.jobs[index] = Some(job);
    }

    /// Copies what is to be written into a slot.
    fn gather(&self, seat: Seat, start: u64, leg: &Leg, slot: *mut u8) -> Result<(), PagerError> {
        match seat {
            Seat::Memory(memory) | Seat::Peer(memory) => {
                // SAFETY: the run, which the transfer holds, has so many bytes behind its start, and so has the slot.
                unsafe {
                    copy::copy(slot, memory.add(to_usize(leg.at)).cast_const(), to_usize(leg.len), Caching::Bypass)
                };
                Ok(())
            }
            // SAFETY: as above.
            Seat::Device => unsafe { self.core.view.download(Extent { start: start + leg.at, len: leg.len }, slot) },
        }
    }

    /// Notes how fast the drive or the page cache was, if a transfer of one part had it alone.
    fn note_pace(&mut self, job: &Job) {
        if let ([part, ..], [one]) = (&job.parts[..], &job.shared.report().tiers[..]) {
            let alone = self.jobs.iter().all(Option::is_none) && job.parts.len() == 1;
            if alone && part.direction == Direction::FromFile {
                let hot = job.hot.get(&part.file.id()) == Some(&true);
                match one.tier {
                    Tier::Buffered if hot => self.pace.note(part.file.id(), true, one.bytes, job.began.elapsed()),
                    Tier::Direct => self.pace.note(part.file.id(), false, one.bytes, job.began.elapsed()),
                    _ => {}
                }
            }
        }
    }

    /// Ends transfers of which nothing is left.
    pub(super) fn end_finished(&mut self) {
        for index in 0..self.jobs.len() {
            let Some(job) = self.jobs[index].take_if(|job| job.is_over()) else { continue };
            self.note_pace(&job);
            self.leave_files(&job);
            Core::end_transfer(&self.core, *job);
        }
    }
}
