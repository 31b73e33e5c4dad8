//! limosa's ways between a file and device memory that is there already, and has been written before.

use std::time::Instant;

use limosa::{Context, DataFile, Direction, FaultMode, Queue, Tier, UnifiedVec, ViewKind};

use super::load::{Figures, Load, cpu_seconds};
use super::place::Place;
use crate::faults::Random;
use crate::resident::DEVICE_BUDGET;
use crate::rounds::percentile;

/// Requests at random places that are one command. Caches hold their memory, as they do fio's: most of what such a request
/// costs on a fast device is otherwise that the kernel copies to memory which no cache has.
const BATCH: usize = 512;

/// A tier on a kind of device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Staged,
    Buffered,
    /// Staged, and copied by the driver, as where only that reaches device memory.
    Driver,
    /// The same by the view of stock discrete cards.
    Sparse,
}

impl Way {
    /// As rows call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "Direct",
            Self::Staged => "Staged",
            Self::Buffered => "Buffered",
            Self::Driver => "Staged by the driver",
            Self::Sparse => "Staged in a SparseView",
        }
    }

    fn tier(self) -> Tier {
        match self {
            Self::Direct => Tier::Direct,
            Self::Staged | Self::Driver | Self::Sparse => Tier::Staged,
            Self::Buffered => Tier::Buffered,
        }
    }

    /// Which of [`Ours`]'s devices it needs.
    fn device(self) -> usize {
        match self {
            Self::Direct | Self::Staged | Self::Buffered => 0,
            Self::Driver => 1,
            Self::Sparse => 2,
        }
    }
}

/// A context with as much device memory as a file has bytes.
struct Device {
    memory: UnifiedVec<u8>,
    queue: Queue,
    context: Context,
}

/// The devices, each made when it is needed.
pub(crate) struct Ours {
    devices: [Option<Device>; 3],
    bytes: usize,
    random: Random,
}

impl Device {
    fn new(number: usize, bytes: usize) -> Self {
        let view = if number == 2 { ViewKind::Sparse } else { ViewKind::Import };
        let builder = Context::builder().view(view).fault_mode(FaultMode::HandlerThread).heap_size(8 << 30);
        let builder = builder.device_budget(DEVICE_BUDGET).poison_stale(false).staged_copies(number == 1);
        let context = builder.build().unwrap();
        let memory = context.heap().vec_with(bytes, |_| 1).unwrap();
        memory.prefetch_to_device().unwrap();
        Self { memory, queue: context.queue().unwrap(), context }
    }
}

impl Device {
    /// Moves `each` bytes at each of these places of the file, in one transfer. Gives the requests that it took.
    fn batch(&mut self, way: Way, place: &Place, load: &Load, places: &[u64], each: usize) -> u64 {
        let bytes = each * places.len();
        let transfers = self.queue.transfers().tier(way.tier()).depth(load.depth);
        let mut transfers = transfers.request_bytes(load.request as u64);
        if load.direction == Direction::FromFile {
            let mut rest = self.memory.slice_mut(0..bytes).unwrap();
            for offset in places {
                let (target, others) = rest.split_at(each).unwrap();
                (transfers, rest) = (transfers.read(&place.file, *offset, target), others);
            }
        } else {
            for (at, offset) in (0..).step_by(each).zip(places) {
                transfers = transfers.write(self.memory.slice(at..at + each).unwrap(), &place.file, *offset);
            }
        }
        let report = transfers.submit().unwrap().wait().unwrap();
        assert_eq!(report.bytes, bytes as u64, "{}: {load}", way.name());
        assert!(report.tiers.iter().all(|share| share.tier == way.tier()), "{}: {load}: {report:?}", way.name());
        report.requests
    }
}

impl Ours {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { devices: Default::default(), bytes, random: Random(0x9E37_79B9_7F4A_7C15) }
    }

    fn device(&mut self, way: Way) -> &mut Device {
        let bytes = self.bytes;
        self.devices[way.device()].get_or_insert_with(|| Device::new(way.device(), bytes))
    }

    /// Puts a load on a file: as one command, or, of requests at random places, as batches one after the other into the
    /// same memory. On the clock is all from the first part to the end; of what the page cache was given, until the drive
    /// has it.
    pub(crate) fn run(&mut self, way: Way, place: &Place, load: &Load) -> Figures {
        let (bytes, request) = (load.bytes(place.bytes), load.request.min(place.bytes));
        let places: Vec<u64> = if load.random {
            (0..bytes / request).map(|_| (self.random.below(place.bytes / request) * request) as u64).collect()
        } else {
            vec![0]
        };
        let each = bytes / places.len();
        let device = self.device(way);
        let (cpu, start) = (cpu_seconds(), Instant::now());
        let requests: u64 = places.chunks(BATCH).map(|batch| device.batch(way, place, load, batch, each)).sum();
        if way == Way::Buffered && load.direction == Direction::ToFile {
            place.file.sync().unwrap();
        }
        let (time, cpu) = (start.elapsed(), cpu_seconds() - cpu);
        Figures { bytes, requests: requests as f64, time, cpu }
    }

    /// Reads all of a file, and compares it with what the page cache says.
    pub(crate) fn verify(&mut self, way: Way, place: &Place) {
        let Device { memory, queue, .. } = self.device(way);
        memory.write().unwrap().fill(0xEE);
        memory.prefetch_to_device().unwrap();
        queue.read_file(&place.file, 0, &mut *memory).tier(way.tier()).submit().unwrap().wait().unwrap();
        let expected = std::fs::read(&place.path).unwrap();
        assert!(
            memory.read().unwrap()[..] == expected[..place.bytes],
            "{} has wrong bytes of {}",
            way.name(),
            place.what
        );
        memory.prefetch_to_device().unwrap();
        // It has all of it now.
        place.file.forget_cache().unwrap();
    }

    /// Memory that only the CPU has, of which there are `bytes`, to be read into at once.
    pub(crate) fn host_memory(&mut self, bytes: usize) -> UnifiedVec<u8> {
        let mut memory = self.device(Way::Direct).context.heap().vec_zeroed::<u8>(bytes).unwrap();
        memory.write().unwrap().fill(1);
        memory
    }
}

/// Calls `read` with the number and the place of each read; gives the median of what they took, in µs.
pub(crate) fn each_at_once(places: &[u64], mut read: impl FnMut(usize, u64)) -> f64 {
    let each = |(number, place): (usize, &u64)| {
        let start = Instant::now();
        read(number, *place);
        start.elapsed().as_secs_f64() * 1e6
    };
    percentile(&places.iter().enumerate().map(each).collect::<Vec<_>>(), 50)
}

/// Reads `each` bytes at a time at these places of a file, into memory that the CPU has; gives the median in µs.
pub(crate) fn read_at_once(file: &DataFile, memory: &mut UnifiedVec<u8>, places: &[u64], each: usize) -> f64 {
    each_at_once(places, |number, place| {
        let at = number * each % memory.len();
        let report = file.read_into(place, memory.slice_mut(at..at + each).unwrap()).unwrap();
        assert_eq!(report.tier(), Some(Tier::Direct));
    })
}
