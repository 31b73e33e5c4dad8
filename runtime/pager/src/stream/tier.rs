//! The ways that a file's bytes can take, and which of them serve a file, a direction and a stretch of memory. What is
//! decided here is what the file and the memory allow; `proof` tries it. It does *not* move anything.
//!
//! The seam for io_uring's registered dma-bufs, once a kernel has them: memory that a driver exports as one is a seat beside
//! [`Seat::Peer`], reached by the number of a registered buffer instead of an address (`limosa_os::Request::buffer`), and
//! serves [`Tier::P2p`] without a home of its own; requests, proofs and reports stay as they are.

use std::fmt;

use limosa_model::stream::{Alignment, Cut};
use limosa_model::{PAGE, Side};
use limosa_os::shim::{Direction, Verdict};
use limosa_os::{DataFile, PeerMemory};
use limosa_os::{DirectIo, FileKind};

use super::report::TierReason;
use super::seats::{Run, Seat};
use crate::core::Core;
use crate::error::PagerError;
use crate::heap::Heap;

/// A way for bytes between a file and memory; the best is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The drive and the device exchange them by DMA; system RAM is not touched.
    P2p,
    /// By direct I/O into memory that the GPU uses as it is; no CPU touches them.
    Direct,
    /// By direct I/O into a ring of limosa's, and copied from there.
    Staged,
    /// Through the page cache.
    Buffered,
}

impl Tier {
    /// All of them, best first.
    pub const ALL: [Self; 4] = [Self::P2p, Self::Direct, Self::Staged, Self::Buffered];
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P2p => "P2p",
            Self::Direct => "Direct",
            Self::Staged => "Staged",
            Self::Buffered => "Buffered",
        })
    }
}

/// Whether a tier serves a file in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierVerdict {
    /// Which.
    pub tier: Tier,
    /// Why not, and what would change it; `None` if it does.
    pub obstacle: Option<String>,
}

/// The most bytes of a request: enough that what it costs the CPU does not count, and few enough that several are in
/// flight of a transfer of some megabytes.
const REQUEST_MAX: u64 = 2 << 20;
/// The least, where a drive says that it takes less at a time: the kernel splits them.
const REQUEST_MIN: u64 = 1 << 20;
/// A slot of the staging ring, and so the most bytes of a request that goes through it.
pub(super) const SLOT: u64 = 1 << 20;

/// How a stretch is to be moved.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) tier: Tier,
    /// Of the requests; what is not aligned goes through a slot.
    pub(super) alignment: Alignment,
    /// Whether everything goes through slots.
    pub(super) bounces: bool,
    /// The most bytes of a request.
    pub(super) request: u64,
    /// Why no better one.
    pub(super) reasons: Vec<TierReason>,
}

/// What was learnt of a file and kind of memory by trying.
pub(super) trait Experience {
    /// Why the tier does not serve there, though it should.
    fn failed(&self, tier: Tier) -> Option<String>;

    /// Whether most of what is to be read is in the page cache, and comes from there faster than from the drive.
    fn is_hot(&self) -> bool;
}

/// What direct I/O asks of requests in this direction.
fn alignment_of(direct: DirectIo, direction: Direction) -> Alignment {
    let offset = match direction {
        Direction::FromFile => u64::from(direct.read_offset_alignment),
        // A part of a page is written through the page cache: beside it, direct I/O on the same page would race it.
        Direction::ToFile => u64::from(direct.offset_alignment).max(PAGE),
    };
    Alignment { offset, memory: direct.memory_alignment.into() }
}

fn request_bytes(file: &DataFile) -> u64 {
    file.facts().device.as_ref().map_or(REQUEST_MIN, |device| device.request_bytes).clamp(REQUEST_MIN, REQUEST_MAX)
}

impl Core {
    /// Why `tier` does not serve the stretch, or how it would be moved.
    pub(super) fn way(
        &self,
        tier: Tier,
        file: &DataFile,
        direction: Direction,
        offset: u64,
        run: &Run,
        experience: &impl Experience,
    ) -> Result<Way, String> {
        let way = |alignment, bounces, request| Way { tier, alignment, bounces, request, reasons: Vec::new() };
        if let Some(reason) = experience.failed(tier) {
            return Err(reason);
        }
        if let Seat::Peer(_) = run.seat {
            self.peer_is_there(run)?;
        }
        let direct = || file.facts().direct.clone().map_err(|why| format!("no direct I/O: {why}"));
        let hot = || -> Result<(), String> {
            if !experience.is_hot() {
                return Ok(());
            }
            Err("the page cache has it, and gives it faster than the drive: drop it from there to read anew".into())
        };
        match tier {
            Tier::P2p => {
                let Seat::Peer(_) = run.seat else { return Err(no_peer_memory(run)) };
                let alignment = alignment_of(direct()?, direction);
                self.goes_straight(file, direction, run)?;
                let cut = Cut::new(offset + run.at, run.extent.len, run.seat.address(), alignment, REQUEST_MAX);
                if !cut.has_body() {
                    return Err(crooked(offset + run.at, run, alignment));
                }
                Ok(way(alignment, false, request_bytes(file)))
            }
            Tier::Direct => {
                let alignment = alignment_of(direct()?, direction);
                match run.seat {
                    Seat::Memory(_) => {}
                    Seat::Peer(_) => {
                        return Err("into a device's memory the drive's data goes straight, or not at all".into());
                    }
                    Seat::Device => return Err(self.unreachable_memory()),
                }
                hot()?;
                let cut = Cut::new(offset + run.at, run.extent.len, run.seat.address(), alignment, REQUEST_MAX);
                if !cut.has_body() {
                    return Err(crooked(offset + run.at, run, alignment));
                }
                Ok(way(alignment, false, request_bytes(file)))
            }
            Tier::Staged => {
                let alignment = alignment_of(direct()?, direction);
                hot()?;
                Ok(way(Alignment { memory: 1, ..alignment }, true, SLOT))
            }
            Tier::Buffered => Ok(way(Alignment::NONE, run.seat == Seat::Device, REQUEST_MIN)),
        }
    }

    /// The best way for a stretch, or the one that was asked for.
    pub(super) fn best_way(
        &self,
        only: Option<Tier>,
        file: &DataFile,
        direction: Direction,
        offset: u64,
        run: &Run,
        experience: &impl Experience,
    ) -> Result<Way, PagerError> {
        let mut reasons = Vec::new();
        for tier in Tier::ALL {
            if only.is_some_and(|only| only != tier) {
                reasons.push(TierReason { tier, reason: "another tier was asked for".into() });
                continue;
            }
            match self.way(tier, file, direction, offset, run, experience) {
                Ok(way) => {
                    reasons.retain(|better| better.tier < tier);
                    return Ok(Way { reasons, ..way });
                }
                Err(reason) => reasons.push(TierReason { tier, reason }),
            }
        }
        let asked = only.unwrap_or(Tier::Buffered);
        let reason = reasons.into_iter().find(|reason| reason.tier == asked).map(|reason| reason.reason);
        let reason = reason.unwrap_or_default();
        Err(PagerError::TierUnusable { tier: asked, file: file.name().to_owned(), reason })
    }

    fn unreachable_memory(&self) -> String {
        if self.config.staged_copies {
            "copies through the driver were asked for (staged_copies)".into()
        } else {
            "this device's memory is reached through its driver only: neither the CPU nor a drive can use it".into()
        }
    }

    /// That the memory's device has its driver still: else a copy to it would end the process.
    fn peer_is_there(&self, run: &Run) -> Result<(), String> {
        let Some((memory, _)) = self.peer_memory_of(run.extent) else { return Ok(()) };
        let gone = memory.shim().and_then(|shim| shim.info().err());
        gone.map_or(Ok(()), |gone| Err(format!("{}: {gone}", memory.provider())))
    }

    /// Why the file and the device do not exchange data by themselves, if they do not: as the kernel judges it. That
    /// requests succeed would not tell.
    fn goes_straight(&self, file: &DataFile, direction: Direction, run: &Run) -> Result<(), String> {
        let memory = self.peer_memory_of(run.extent).map(|(memory, _)| memory);
        judged(&*memory.ok_or("its memory is none that other devices reach")?, file, direction)
    }

    /// What would become of P2p, where memory were of the home for it.
    fn outlook(&self, file: &DataFile, direction: Direction) -> String {
        let memory = PeerMemory::take(self.config.peer_memory, PAGE).map_err(|error| error.to_string());
        match memory.and_then(|memory| judged(&memory, file, direction).map(|()| memory.provider().to_string())) {
            Ok(provider) => format!("in Home::SharedDevice, of {provider}, they would be"),
            Err(reason) => format!("in Home::SharedDevice they would not be either: {reason}"),
        }
    }
}

fn judged(memory: &PeerMemory, file: &DataFile, direction: Direction) -> Result<(), String> {
    let direct = file.facts().direct.clone().map_err(|why| format!("no direct I/O: {why}"));
    let (Some(shim), _) = (memory.shim(), direct?) else { return Ok(()) };
    let fd = file.direct_fd().ok_or("it is not open for direct I/O")?;
    let of = |told: &dyn fmt::Display| format!("{} and the file: {told}", memory.provider());
    let probe = shim.probe(fd, direction).map_err(|error| of(&error))?;
    if probe.verdict == Verdict::Direct { Ok(()) } else { Err(of(&probe)) }
}

fn no_peer_memory(run: &Run) -> String {
    match run.side {
        Side::Device => {
            "the frames of migrating memory are none that other devices reach, as stock Vulkan drivers export \
                         none; those of Home::SharedDevice are"
                .into()
        }
        Side::Host => "the data is in system RAM".into(),
    }
}

fn crooked(offset: u64, run: &Run, alignment: Alignment) -> String {
    let unit = alignment.offset.max(alignment.memory);
    if run.extent.len < 2 * unit {
        return format!("too short: direct I/O moves whole units of {unit} bytes of this file");
    }
    format!(
        "the file's byte {offset} is to be at an address with remainder {} of {unit}, and not {}: let both have the same",
        run.extent.start % unit,
        offset % unit,
    )
}

/// Where in a run the first whole unit is, if there is one.
pub(super) fn first_unit(run: &Run, offset: u64, way: &Way) -> Option<u64> {
    let mut cut = Cut::new(offset + run.at, run.extent.len, run.seat.address(), way.alignment, way.request);
    if cut.has_body() { cut.find(|piece| piece.aligned).map(|piece| piece.at) } else { None }
}

/// Nothing was tried.
struct Untried;

impl Experience for Untried {
    fn failed(&self, _: Tier) -> Option<String> {
        None
    }

    fn is_hot(&self) -> bool {
        false
    }
}

impl Heap {
    /// Which tiers serve the file in this direction, for aligned memory on the device, as far as can be told without
    /// moving anything.
    #[must_use]
    pub fn tiers(&self, file: &DataFile, direction: Direction) -> Vec<TierVerdict> {
        let core = self.core();
        let seat = if core.view.copies_in_place() { Seat::Memory(std::ptr::null_mut()) } else { Seat::Device };
        let extent = limosa_model::Extent { start: 0, len: limosa_model::CHUNK };
        let run = Run { part: 0, at: 0, from: 0, extent, seat, side: Side::Device };
        let verdict = |tier| {
            let stream = file.facts().kind == FileKind::Stream && tier != Tier::Buffered;
            let way = core.way(tier, file, direction, 0, &run, &Untried);
            let way = if stream { way.and(Err("a pipe has no offsets".into())) } else { way };
            let outlook = || format!("; {}", core.outlook(file, direction));
            let more = if tier == Tier::P2p && !stream { outlook() } else { String::new() };
            TierVerdict { tier, obstacle: way.err().map(|why| why + &more) }
        };
        Tier::ALL.into_iter().map(verdict).collect()
    }
}
