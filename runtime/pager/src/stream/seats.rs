//! The seats of a transfer: where its bytes stand while it lasts, and the holds and pins that keep them there. When it
//! gets them is `admission`'s to say, and they are given up at its end (`end`). It does *not* move file data.

use arrayvec::ArrayVec;
use limosa_model::{Access, BLOCK, BLOCKS_PER_CHUNK, BlockSet, ChunkIndex, ChunkSets, DeclaredSets, Extent, Side};
use limosa_os::shim::Direction;

use super::submit::{Part, Streaming, stretches};
use crate::cell::Cell;
use crate::core::Core;
use crate::error::PagerError;
use crate::record::Record;
use crate::view::to_usize;

/// Where a stretch of memory is while a transfer uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Where ordinary I/O and the CPU reach it.
    Memory(*mut u8),
    /// In device memory that other devices reach, where the CPU has it; that reads it slowly.
    Peer(*mut u8),
    /// In device memory that only the driver reaches.
    Device,
}

impl Seat {
    /// Where the CPU has it, if it has.
    pub(super) fn pointer(self) -> Option<*mut u8> {
        match self {
            Self::Memory(start) | Self::Peer(start) => Some(start),
            Self::Device => None,
        }
    }

    /// The address that alignments are of.
    pub(super) fn address(self) -> u64 {
        self.pointer().map_or(0, |start| start.addr() as u64)
    }

    /// What is behind so many bytes of it, where that is one stretch.
    fn behind(self, bytes: u64) -> Option<Self> {
        match self {
            Self::Memory(start) => Some(Self::Memory(start.wrapping_add(to_usize(bytes)))),
            Self::Peer(start) => Some(Self::Peer(start.wrapping_add(to_usize(bytes)))),
            Self::Device => None,
        }
    }
}

/// A stretch of one part, in one seat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Which part.
    pub(super) part: usize,
    /// Where it begins in the part.
    pub(super) at: u64,
    /// Where it begins in the whole transfer, part after part.
    pub(super) from: u64,
    /// The memory.
    pub(super) extent: Extent,
    /// Where that is.
    pub(super) seat: Seat,
    /// Which side's memory that is.
    pub(super) side: Side,
}

/// What a transfer has taken.
#[derive(Default)]
pub(crate) struct Seats {
    pub(super) held: Vec<(ChunkIndex, ChunkSets)>,
    /// Held blocks that read as zeros before, and now have arbitrary contents.
    pub(super) blank: Vec<(ChunkIndex, BlockSet)>,
    pub(super) pinned: Vec<(ChunkIndex, BlockSet)>,
    pub(super) runs: Vec<Run>,
    fresh: u64,
}

// SAFETY: the pointers are into mappings of the heap's that live as long as it does, and the transfer keeps that; whoever
// has the seats is alone with the memory.
unsafe impl Send for Seats {}

impl Seats {
    /// How many of the blocks nobody held before.
    pub(crate) fn fresh(&self) -> u64 {
        self.fresh
    }
}

impl Core {
    /// What fits the budget and the limits.
    pub(crate) fn check_sets_for_transfer(&self, sets: &DeclaredSets) -> Result<(), PagerError> {
        let (asked, budget) = (sets.blocks() * BLOCK, self.vram.asked());
        if asked > budget {
            return Err(PagerError::RangeTooLarge { asked, budget });
        }
        self.check_limits(format_args!("the transfer"), |chunk| sets.of(chunk).all())
    }

    /// What the transfer would hold on the device now, and which blocks it would pin on the host. Blocks of shared homes
    /// are neither.
    pub(crate) fn wants_of(&self, streaming: &Streaming) -> (DeclaredSets, Vec<(ChunkIndex, BlockSet)>) {
        let arriving = stretches(&streaming.parts, |part| part.direction == Direction::FromFile);
        let (received, arriving) = match streaming.side {
            Side::Device => (arriving, DeclaredSets::default()),
            Side::Host => (Vec::new(), DeclaredSets::new(&[], &arriving, &[])),
        };
        let mut reads = Vec::new();
        let mut host: Vec<(ChunkIndex, BlockSet)> =
            arriving.chunks().map(|(chunk, sets)| (chunk, sets.all())).collect();
        let to_file = stretches(&streaming.parts, |part| part.direction == Direction::ToFile);
        for (chunk, set) in to_file.iter().flat_map(|extent| extent.chunks()) {
            let there = self.cells.get(chunk).map(|cell| cell.lock().chunk.current(Side::Device) & set);
            // What is read into on the host as well is written from there.
            let there = there.unwrap_or(BlockSet::EMPTY) - arriving.of(chunk).all();
            reads.extend(there.runs().map(|(first, count)| chunk.run(first, count)));
            host.push((chunk, set - there));
        }
        let mut sets = DeclaredSets::new(&reads, &[], &received);
        self.leave_out_shared(&mut sets);
        // What one part reads and another writes is held, and so on the device.
        let pinned = host.into_iter().map(|(chunk, set)| {
            let shared = self.cells.get(chunk).map_or(BlockSet::EMPTY, |cell| cell.lock().chunk.shared());
            (chunk, set - shared - sets.of(chunk).all())
        });
        let pinned = pinned.filter(|(_, set)| !set.is_empty()).collect();
        (sets, pinned)
    }

    /// Whether nobody holds any of the blocks.
    pub(crate) fn are_unheld(&self, blocks: &[(ChunkIndex, BlockSet)]) -> bool {
        let unheld = |cell: &Cell, set: BlockSet| (cell.lock().chunk.held() & set).is_empty();
        blocks.iter().all(|(chunk, set)| self.cells.get(*chunk).is_none_or(|cell| unheld(cell, *set)))
    }

    /// Takes all seats of a transfer, or none. Under the scheduler's lock, and only where nobody's holds are in the way.
    pub(crate) fn take_seats(
        &self,
        record: &Record,
        streaming: &Streaming,
        pins: Vec<(ChunkIndex, BlockSet)>,
    ) -> Result<Seats, PagerError> {
        let mut seats = Seats::default();
        let taken = self.hold_seats(record, &mut seats).and_then(|()| self.pin_seats(pins, &mut seats));
        let taken = taken.and_then(|()| self.find_runs(&streaming.parts, &mut seats));
        match taken {
            Ok(()) => Ok(seats),
            Err(error) => {
                self.leave_blank(&seats);
                Err(error)
            }
        }
    }

    fn hold_seats(&self, record: &Record, seats: &mut Seats) -> Result<(), PagerError> {
        let sets = record.sets();
        let none = ChunkSets::default();
        for (chunk, sets) in sets.chunks() {
            if !sets.reads.is_empty() {
                seats.fresh += self.acquire_blocks(record, chunk, sets.reads, Access::Read, false)?;
                seats.held.push((chunk, ChunkSets { reads: sets.reads, ..none }));
            }
            if !sets.writes.is_empty() {
                seats.fresh += self.acquire_blocks(record, chunk, sets.writes, Access::Write, false)?;
                seats.held.push((chunk, ChunkSets { writes: sets.writes, ..none }));
            }
            if !sets.overwrites.is_empty() {
                let (mut before, mut blank) = (BlockSet::EMPTY, BlockSet::EMPTY);
                self.transition(chunk, |state| {
                    before = state.held();
                    let (verdict, was_blank) = state.receive(sets.overwrites);
                    blank = was_blank;
                    verdict
                })?;
                seats.fresh += u64::from((sets.overwrites - before).count());
                seats.held.push((chunk, ChunkSets { writes: sets.overwrites, ..none }));
                seats.blank.push((chunk, blank));
            }
        }
        Ok(())
    }

    fn pin_seats(&self, pins: Vec<(ChunkIndex, BlockSet)>, seats: &mut Seats) -> Result<(), PagerError> {
        pins.into_iter().try_for_each(|(chunk, set)| {
            self.transition(chunk, |blocks| blocks.pin(set))?;
            seats.pinned.push((chunk, set));
            Ok(())
        })
    }

    /// Finds where each part is, in as few runs as can be.
    fn find_runs(&self, parts: &[Part], seats: &mut Seats) -> Result<(), PagerError> {
        let mut from = 0;
        let mut held = seats.held.iter().map(|(chunk, sets)| (*chunk, sets.all())).collect::<Vec<_>>();
        held.sort_unstable_by_key(|(chunk, _)| *chunk);
        for (index, part) in parts.iter().enumerate() {
            let extent = part.extent;
            for (chunk, set) in extent.chunks() {
                let first = held.partition_point(|(other, _)| *other < chunk);
                let own = held[first..].iter().take_while(|(other, _)| *other == chunk);
                let own = own.fold(BlockSet::EMPTY, |all, (_, set)| all | *set);
                for (side, first, count) in by_side(set, own) {
                    let run = chunk.run(first, count);
                    let (start, end) = (run.start.max(extent.start), run.end().min(extent.end()));
                    self.find_run(side, chunk, Extent { start, len: end - start }, &mut |extent, seat| {
                        let at = extent.start - part.extent.start;
                        push_joined(&mut seats.runs, Run { part: index, at, from: from + at, extent, seat, side });
                    })?;
                }
            }
            from += extent.len;
        }
        Ok(())
    }

    fn find_run(
        &self,
        side: Side,
        chunk: ChunkIndex,
        extent: Extent,
        found: &mut dyn FnMut(Extent, Seat),
    ) -> Result<(), PagerError> {
        if side == Side::Device {
            return self.view.reach(chunk, extent, found);
        }
        found(extent, self.host_seat(extent));
        Ok(())
    }

    /// Where the host's copy of a stretch of one allocation is reached without faults.
    pub(super) fn host_seat(&self, extent: Extent) -> Seat {
        let chunk = ChunkIndex::containing(extent.start);
        let shared = self.cells.get(chunk).map_or(BlockSet::EMPTY, |cell| cell.lock().chunk.shared());
        let of_shared = !(shared & extent.blocks_in(chunk)).is_empty();
        // Shared memory is where the application sees it, and nowhere else for sure.
        match of_shared.then(|| self.peer_memory_of(extent)) {
            None => Seat::Memory(self.host.mapping.pointer(extent)),
            Some(None) => Seat::Memory(self.address(extent.start).0 as *mut u8),
            Some(Some((_, start))) => Seat::Peer(start),
        }
    }

    /// Gives up everything before anything arrived: what read as zeros before does so again.
    fn leave_blank(&self, seats: &Seats) {
        let blanked = |(chunk, blocks): &&(ChunkIndex, BlockSet)| self.fill(*chunk, Side::Device, *blocks, 0).is_ok();
        let spoilt: Vec<_> = seats.blank.iter().filter(|blank| !blanked(blank)).collect();
        self.leave_seats(seats);
        for (chunk, blocks) in spoilt {
            // The device fails: whoever was parked there may have come first.
            let _ = self.transition(*chunk, |state| state.discard(*blocks));
        }
    }

    /// Gives up holds and pins. Gives how many blocks nobody holds any more.
    pub(super) fn leave_seats(&self, seats: &Seats) -> u64 {
        let freed = seats.held.iter().map(|(chunk, sets)| self.release_sets(*chunk, *sets)).sum();
        seats.pinned.iter().for_each(|(chunk, set)| self.unpin_blocks(*chunk, *set));
        freed
    }
}

/// The runs of `set` in their order, those within `device` on its side, the others on the host's.
fn by_side(set: BlockSet, device: BlockSet) -> ArrayVec<(Side, u32, u32), { BLOCKS_PER_CHUNK as usize }> {
    let on = |side, blocks: BlockSet| blocks.runs().map(move |(first, count)| (side, first, count));
    let mut runs: ArrayVec<_, _> = on(Side::Device, set & device).chain(on(Side::Host, set - device)).collect();
    runs.sort_unstable_by_key(|(_, first, _)| *first);
    runs
}

/// Enters a run, as part of the one before where both are one stretch of memory.
fn push_joined(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last)
            if last.part == run.part
                && last.side == run.side
                && last.extent.end() == run.extent.start
                && last.seat.behind(last.extent.len) == Some(run.seat) =>
        {
            last.extent.len += run.extent.len;
        }
        _ => runs.push(run),
    }
}
