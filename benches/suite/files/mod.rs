//! Files to device memory and back, by each way that their bytes can take, beside fio on the same file in the same rounds:
//! on the disk of this machine, and on a loop device over memory. Units: GB/s, or thousand requests a second where they
//! are small and anywhere; µs of one read at once. Ours goes into as much memory as the file has bytes, or in batches into
//! 2 MiB where requests are anywhere; fio's into what `depth` requests need, again and again.

mod fio;
mod load;
mod ours;
mod peers;
mod place;

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use limosa::Direction::{FromFile, ToFile};

use crate::buffer::Buffer;
use crate::faults::Random;
use crate::opencl::{Bytes, OpenCl};
use crate::report::{Bound, Row};
use crate::rounds::{Series, rotated, rotated_each};
use crate::scale::Scale;
use load::{Figures, Load};
use ours::{Ours, Way, each_at_once, read_at_once};
use place::Place;

const READ: Load = Load::new(FromFile, 1 << 20, 16);
const WRITE: Load = Load::new(ToFile, 1 << 20, 16);
const RANDOM: Load = Load::new(FromFile, PAGE, 32).at_random();
const PAGE: usize = 4096;
/// Of one read at once: a page, several hundred times a round.
const AT_ONCE: &str = "read_into, 4 KiB, resident host memory";
/// Milliseconds of CPU a GiB that the best way may take.
const CPU_MS: f64 = 25.0;

/// What is measured, with the ways that are compared to fio there. The first ones are promised something.
const CELLS: &[(Load, &[Way])] = &[
    (READ, &[Way::Direct, Way::Staged, Way::Driver, Way::Sparse, Way::Buffered]),
    (WRITE, &[Way::Direct, Way::Staged, Way::Driver, Way::Buffered]),
    (RANDOM, &[Way::Direct, Way::Staged]),
    // By size.
    (Load { request: PAGE, ..READ }, &[Way::Direct, Way::Staged, Way::Buffered]),
    (Load { request: 64 << 10, ..READ }, &[Way::Direct, Way::Staged, Way::Buffered]),
    (Load { request: 256 << 10, ..READ }, &[Way::Direct, Way::Staged]),
    (Load { request: 4 << 20, ..READ }, &[Way::Direct, Way::Staged]),
    (Load { request: 16 << 20, ..READ }, &[Way::Direct, Way::Staged]),
    (Load { request: 64 << 10, ..WRITE }, &[Way::Direct, Way::Staged]),
    (Load { request: 16 << 20, ..WRITE }, &[Way::Direct, Way::Staged]),
    // By depth.
    (Load { depth: 1, ..READ }, &[Way::Direct, Way::Staged]),
    (Load { depth: 4, ..READ }, &[Way::Direct, Way::Staged]),
    (Load { depth: 32, ..READ }, &[Way::Direct]),
    (Load { depth: 64, ..READ }, &[Way::Direct]),
    (Load { depth: 1, ..RANDOM }, &[Way::Direct]),
    (Load { depth: 4, ..RANDOM }, &[Way::Direct]),
    (Load { depth: 16, ..RANDOM }, &[Way::Direct]),
    (Load { depth: 64, ..RANDOM }, &[Way::Direct]),
    (Load { direction: ToFile, ..RANDOM }, &[Way::Direct]),
];

/// What is promised of a way under a load.
fn bound(way: Way, load: &Load, place: &str) -> Option<Bound> {
    match (way, *load) {
        (Way::Direct, READ) => Some(Bound::AtLeast(if place == place::NAMES[0] { 0.97 } else { 0.90 })),
        (Way::Staged | Way::Driver, READ) => Some(Bound::AtLeast(0.92)),
        (Way::Direct | Way::Staged, WRITE) => Some(Bound::AtLeast(0.90)),
        (Way::Direct, RANDOM) => Some(Bound::AtLeast(0.85)),
        _ => None,
    }
}

fn row_name(way: Way, load: &Load, place: &str) -> String {
    format!("{} {load}, {place}", way.name())
}

/// The loads that a scale measures: the smallest only those with promises.
fn cells(scale: &Scale) -> impl Iterator<Item = &'static (Load, &'static [Way])> {
    let all = scale.name != Scale::SMOKE.name;
    CELLS.iter().filter(move |(load, _)| all || [READ, WRITE, RANDOM].contains(load))
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let fio = fio::version();
    let expected = std::env::var("LIMOSA_EXPECT").is_ok_and(|all| all.split(',').any(|one| one == "fio"));
    assert!(!expected || fio.is_ok(), "this machine is meant to have fio: {fio:?}");
    let cl = OpenCl::open();
    let mut bench = Bench { scale, ours: Ours::new(scale.bytes), cl: cl.as_ref().map_err(Clone::clone) };
    let mut rows = Vec::new();
    for name in place::NAMES {
        match fio.clone().and_then(|fio| Ok((fio, place::open(name, scale.bytes)?))) {
            Ok((fio, place)) => {
                println!("  {name}: {}; {fio}", place.what);
                rows.extend(bench.place(&place));
            }
            Err(why) => rows.extend(left_out(scale, name, &why)),
        }
    }
    rows
}

/// The rows of a place that cannot be had.
fn left_out(scale: &Scale, place: &str, why: &str) -> Vec<Row> {
    let of_cells = cells(scale).flat_map(|(load, ways)| ways.iter().map(|way| row_name(*way, load, place)));
    let others = [format!("CPU of {}", row_name(Way::Direct, &READ, place)), format!("{AT_ONCE}, {place}")];
    of_cells.chain(others).map(|name| Row::left_out(name, why)).collect()
}

/// What is put under a load, in turns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arm {
    Fio,
    Ours(Way),
    Mapped,
    OpenCl,
}

impl Arm {
    /// Who it is, with requests in flight.
    fn told(self, load: &Load) -> (&'static str, u32) {
        match self {
            Self::Fio => ("fio", load.depth),
            Self::Ours(_) => ("limosa", load.depth),
            Self::Mapped => ("mmap", 1),
            Self::OpenCl => ("OpenCL", 1),
        }
    }
}

struct Bench<'a> {
    scale: &'a Scale,
    ours: Ours,
    cl: Result<&'a OpenCl, String>,
}

/// What the peers copy from and to.
struct PeersMemory<'a> {
    target: Buffer,
    host: Buffer,
    device: Result<(&'a OpenCl, Bytes<'a>), String>,
}

impl<'a> Bench<'a> {
    fn place(&mut self, place: &Place) -> Vec<Row> {
        let mut rows = Vec::new();
        for way in CELLS[0].1 {
            self.ours.verify(*way, place);
        }
        for (load, ways) in cells(self.scale) {
            rows.extend(self.cell(place, load, ways));
        }
        rows.push(self.at_once(place));
        rows
    }

    fn peers_memory(&self, place: &Place) -> PeersMemory<'a> {
        let device = self.cl.clone().and_then(|cl| Ok((cl, cl.bytes(place.bytes)?)));
        PeersMemory { target: Buffer::new(place.bytes), host: peers::host_piece(), device }
    }

    /// Measures fio, our ways and, where files are read as they are, the peers.
    fn cell(&mut self, place: &Place, load: &Load, ways: &[Way]) -> Vec<Row> {
        let mut peers = (*load == READ).then(|| self.peers_memory(place));
        let mut arms: Vec<Arm> = std::iter::once(Arm::Fio).chain(ways.iter().copied().map(Arm::Ours)).collect();
        if let Some(peers) = &peers {
            arms.push(Arm::Mapped);
            arms.extend(peers.device.is_ok().then_some(Arm::OpenCl));
        }
        let series = rotated_each(arms.len(), self.scale.rounds, |arm| {
            place.file.forget_cache().unwrap();
            self.measure(arms[arm], place, load, peers.as_mut()).columns()
        });
        let mut rows = Vec::new();
        for (arm, series_of_arm) in arms.iter().zip(&series).skip(1) {
            let row = |name| self::row(name, load, &arm.told(load), series_of_arm, &series[0]);
            match *arm {
                Arm::Fio => {}
                Arm::Ours(way) => {
                    let row = row(row_name(way, load, place.name));
                    rows.push(match bound(way, load, place.name) {
                        Some(bound) => row.bound(bound),
                        None => row,
                    });
                    if (way, *load) == (Way::Direct, READ) {
                        rows.push(cpu_row(place, &series_of_arm[2], &series[0][2]));
                    }
                }
                Arm::Mapped => rows.push(row(format!("mmap and memcpy, {}", place.name))),
                Arm::OpenCl => rows.push(row(format!("OpenCL, pread and clEnqueueWriteBuffer, {}", place.name))),
            }
        }
        if let Some(Err(why)) = peers.map(|peers| peers.device.map(drop)) {
            rows.push(Row::left_out(format!("OpenCL, pread and clEnqueueWriteBuffer, {}", place.name), why));
        }
        rows
    }

    fn measure(&mut self, arm: Arm, place: &Place, load: &Load, peers: Option<&mut PeersMemory<'_>>) -> Figures {
        match (arm, peers) {
            (Arm::Ours(way), _) => self.ours.run(way, place, load),
            (Arm::Mapped, Some(peers)) => peers::mapped(&place.path, &mut peers.target),
            (Arm::OpenCl, Some(PeersMemory { host, device: Ok((cl, device)), .. })) => {
                peers::opencl(&place.path, cl, host.bytes_mut(), device, place.bytes)
            }
            _ => fio::run(&place.path, load, load.bytes(place.bytes), place.bytes).unwrap(),
        }
    }

    /// One read after the other, into memory that the CPU has, beside pread with `O_DIRECT` into ordinary memory.
    fn at_once(&mut self, place: &Place) -> Row {
        // In short turns, and the median of each: one that others' work interrupts says nothing.
        let (count, turns) = (self.scale.launches, 10 * self.scale.rounds);
        let mut ours = self.ours.host_memory(place.bytes / 8);
        let mut theirs = Buffer::new(place.bytes / 8);
        let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&place.path).unwrap();
        // The way is proven, and the drive awake.
        read_at_once(&place.file, &mut ours, &[0, 0], PAGE);
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let series = rotated(2, turns, |arm| {
            let places: Vec<u64> = (0..count).map(|_| (random.below(place.bytes / PAGE) * PAGE) as u64).collect();
            place.file.forget_cache().unwrap();
            if arm == 0 {
                return read_at_once(&place.file, &mut ours, &places, PAGE);
            }
            each_at_once(&places, |number, offset| {
                let at = number * PAGE % theirs.len();
                direct.read_exact_at(&mut theirs.bytes_mut()[at..at + PAGE], offset).unwrap();
            })
        });
        let row = Row::new(format!("{AT_ONCE}, {}", place.name), &series[0], "µs");
        row.beside("pread with O_DIRECT", &series[1]).bound(Bound::AtMost(1.30))
    }
}

/// GB/s, or thousand requests a second, beside fio's, with the rest as notes in the manner of gdsio.
fn row(
    name: String,
    load: &Load,
    (who, depth): &(&str, u32),
    ours: &[Series; Figures::COLUMNS],
    fio: &[Series; Figures::COLUMNS],
) -> Row {
    let told = |who: &str, depth: u32, [rate, requests, cpu]: &[Series; Figures::COLUMNS]| {
        let (requests, depth) = (requests.median(), f64::from(depth));
        // By Little's law: as many are in flight as may be.
        let latency = depth / requests * 1e6;
        let (rate, cpu) = (rate.median(), cpu.median());
        format!("{who}: {rate:.2} GB/s, {requests:.0} requests/s, {latency:.0} µs each, {cpu:.0} ms CPU a GiB")
    };
    let thousands = |series: &Series| Series(series.0.iter().map(|requests| requests / 1e3).collect());
    let row = if load.random {
        Row::new(name, &thousands(&ours[1]), "k/s").beside("fio", &thousands(&fio[1]))
    } else {
        Row::new(name, &ours[0], "GB/s").beside("fio", &fio[0])
    };
    row.note(told(who, *depth, ours)).note(told("fio", load.depth, fio))
}

fn cpu_row(place: &Place, ours: &Series, fio: &Series) -> Row {
    let name = format!("CPU of {}", row_name(Way::Direct, &READ, place.name));
    let row = Row::new(name, ours, "ms/GiB").beside_value("promised", CPU_MS, ours.median() / CPU_MS);
    row.bound(Bound::AtMost(1.0)).note(format!("fio: {fio} ms/GiB"))
}
