//! Everything at once: reads, writes, batches and cancels from several threads and queues, under a device budget that
//! holds a part of the memory, between launches that check and change it, touches of the CPU's and prefetches; to the byte.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use limosa::{DataFile, Error, Event, PagerError, Queue, Side, Tier, Transfer, Transfers, UnifiedVec};
use limosa_shaders::fill;

use crate::common::builder;
use crate::common::failure::{Kit, turn};
use crate::common::views::{ALL, Way};
use crate::files::{Numbers, Scratch, bytes, difference, folders, open};

/// Seconds that it lasts on all views together; more by this variable.
const SECONDS: &str = "LIMOSA_SOAK_SECONDS";
/// Another history.
const SEED: &str = "LIMOSA_SOAK_SEED";
const DEFAULT_SECONDS: u64 = 5;
const THREADS: usize = 3;
const WORDS: usize = (5 << 20) / 4 + 123;
const FILE: usize = 6 << 20;

/// What one thread works on, with what it must be.
struct Lane<'a> {
    kit: &'a Kit,
    queues: [Queue; 2],
    numbers: Numbers,
    memory: UnifiedVec<u32>,
    /// What was submitted that uses it: launches must be told what they come after.
    last: Vec<Event>,
    expected: Vec<u32>,
    files: Vec<Kept>,
    what: String,
}

/// A file, what it must hold, and what goes on with it: nothing orders that but who asks for it.
struct Kept {
    file: DataFile,
    scratch: Scratch,
    bytes: Vec<u8>,
    reads: Vec<Transfer>,
    writes: Vec<Transfer>,
}

impl Kept {
    fn new(folder: &Path, name: &str, seed: u32) -> Self {
        let bytes = bytes(FILE, seed);
        let scratch = Scratch::with(folder, name, &bytes);
        Self { file: open(&scratch.0), scratch, bytes, reads: Vec::new(), writes: Vec::new() }
    }

    fn settle(&mut self, also_reads: bool) {
        let reads = if also_reads { self.reads.len() } else { 0 };
        for transfer in self.writes.drain(..).chain(self.reads.drain(..reads)) {
            let report = transfer.wait().unwrap();
            assert_eq!(report.arrived, transfer.progress().total);
        }
    }
}

fn words_of(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// As one likes it.
fn varied<'q>(transfer: Transfers<'q>, numbers: &mut Numbers) -> Transfers<'q> {
    match numbers.below(6) {
        0 => transfer.to(Side::Host),
        1 => transfer.tier(Tier::Buffered),
        2 => transfer.depth(1 + u32::try_from(numbers.below(4)).unwrap()),
        3 => transfer.request_bytes(4096 << numbers.below(6)),
        _ => transfer,
    }
}

impl Lane<'_> {
    fn range(&mut self) -> Range<usize> {
        let start = self.numbers.crooked(WORDS - 1);
        // Often of whole pages, at whole pages.
        let unit = self.numbers.of(&[1, 1024]);
        let start = start / unit * unit;
        let len = (1 + self.numbers.crooked(WORDS - start - 1)) / unit * unit;
        start..(start + len.max(1)).min(WORDS)
    }

    /// A stretch of memory, and where in which file its bytes are to be.
    fn place(&mut self) -> (Range<usize>, usize, Range<usize>) {
        let (range, file) = (self.range(), self.numbers.below(self.files.len()));
        let most = FILE - range.len() * 4;
        let offset = self.numbers.crooked(most);
        let offset = if self.numbers.below(2) == 0 { offset / 4096 * 4096 + range.start * 4 % 4096 } else { offset };
        let offset = offset.min(most);
        (range.clone(), file, offset..offset + range.len() * 4)
    }

    fn step(&mut self) {
        self.last.retain(|event| !event.is_complete().unwrap());
        match self.numbers.below(12) {
            0..=2 => self.read(),
            3..=4 => self.write(),
            5 => self.batch(),
            6 => self.cancel(),
            7 => self.fill(),
            8 => {
                // Launches and transfers on other queues are in no order, but guards wait for all.
                self.memory.read().map(|_| ()).unwrap();
                let sum: u64 = self.expected.iter().map(|word| u64::from(*word)).sum();
                assert_eq!(self.kit.sum(&self.memory).unwrap(), sum, "{}: as a kernel sees it", self.what);
            }
            9 => {
                let (range, value) = (self.range(), u32::try_from(self.numbers.below(1 << 30)).unwrap());
                self.memory.slice_mut(range.clone()).unwrap().write().unwrap().fill(value);
                self.expected[range].fill(value);
            }
            10 => {
                let (side, range) = (self.numbers.of(&[Side::Host, Side::Device]), self.range());
                match self.memory.prefetch_range(side, range) {
                    // Others may hold all of the budget.
                    Ok(()) | Err(Error::Pager(PagerError::DeviceMemoryFull { .. })) => {}
                    Err(error) => panic!("{}: {error}", self.what),
                }
            }
            _ => self.check(),
        }
    }

    fn fill(&mut self) {
        let (range, value) = (self.range(), u32::try_from(self.numbers.below(1 << 30)).unwrap());
        let (queue, count) = (&self.queues[self.numbers.below(2)], range.len() as u64);
        let launch = queue.launch(&self.kit.fill, count.div_ceil(fill::ITEMS)).arg(self.memory.ptr(range.start));
        let target = self.memory.slice_mut(range.clone()).unwrap();
        let launch = launch.args((count, value, 0u32)).after_all(&self.last).with(target.writes());
        // SAFETY: fill writes the declared words.
        let filled = unsafe { launch.submit() }.unwrap();
        self.expected[range].fill(value);
        if self.numbers.below(2) == 0 {
            filled.wait().unwrap();
        }
        self.last.push(filled);
    }

    fn read(&mut self) {
        let (range, file, place) = self.place();
        let kept = &mut self.files[file];
        kept.settle(false);
        let queue = &self.queues[self.numbers.below(2)];
        let target = self.memory.slice_mut(range.clone()).unwrap();
        let reading = varied(queue.read_file(&kept.file, place.start as u64, target), &mut self.numbers);
        let reading = reading.submit().unwrap();
        self.last.push(reading.event().clone());
        kept.reads.push(reading);
        self.expected[range].copy_from_slice(&words_of(&kept.bytes[place]));
    }

    fn write(&mut self) {
        let (range, file, place) = self.place();
        let kept = &mut self.files[file];
        kept.settle(true);
        let queue = &self.queues[self.numbers.below(2)];
        let source = self.memory.slice(range.clone()).unwrap();
        let writing = varied(queue.write_file(source, &kept.file, place.start as u64), &mut self.numbers);
        let writing = writing.submit().unwrap();
        self.last.push(writing.event().clone());
        kept.writes.push(writing);
        kept.bytes[place].copy_from_slice(&bytes_of(&self.expected[range]));
    }

    /// Many small reads of two files, into neighbouring memory.
    fn batch(&mut self) {
        self.files.iter_mut().for_each(|kept| kept.settle(false));
        let (count, mut at) = (1 + self.numbers.below(40), self.numbers.below(WORDS / 2));
        let mut batch = self.queues[self.numbers.below(2)].transfers();
        let (_, mut rest) = self.memory.slice_mut(0..WORDS).unwrap().split_at(at).unwrap();
        for _ in 0..count {
            let words = 1 + self.numbers.below(WORDS / 2 / 40 - 1);
            let (target, others) = rest.split_at(words).unwrap();
            let kept = &self.files[self.numbers.below(self.files.len())];
            let from = self.numbers.crooked(FILE - words * 4);
            batch = batch.read(&kept.file, from as u64, target);
            self.expected[at..at + words].copy_from_slice(&words_of(&kept.bytes[from..from + words * 4]));
            (rest, at) = (others, at + words);
        }
        let reading = varied(batch, &mut self.numbers).submit().unwrap();
        self.last.push(reading.event().clone());
        self.files.iter_mut().for_each(|kept| kept.reads.push(reading.clone()));
    }

    /// Of what is cancelled all up to some point has arrived, and each byte beyond is old or new.
    fn cancel(&mut self) {
        let (range, file, place) = self.place();
        let kept = &mut self.files[file];
        kept.settle(false);
        let target = self.memory.slice_mut(range.clone()).unwrap();
        let queue = &self.queues[self.numbers.below(2)];
        let reading =
            varied(queue.read_file(&kept.file, place.start as u64, target), &mut self.numbers).submit().unwrap();
        for _ in 0..self.numbers.below(2000) {
            std::hint::spin_loop();
        }
        reading.cancel();
        let arrived = match reading.wait() {
            Ok(report) => report.arrived,
            Err(Error::Pager(PagerError::Cancelled { arrived, .. })) => arrived,
            Err(error) => panic!("{}: {error}", self.what),
        };
        let arrived = usize::try_from(arrived).unwrap();
        let found = bytes_of(&self.memory.slice(range.clone()).unwrap().read().unwrap());
        let (old, new) = (bytes_of(&self.expected[range.clone()]), &kept.bytes[place]);
        let wrong = (0..found.len()).find(|&i| found[i] != new[i] && (i < arrived || found[i] != old[i]));
        assert_eq!(wrong, None, "{}: {arrived} of {} arrived", self.what, found.len());
        self.expected[range].copy_from_slice(&words_of(&found));
    }

    fn check(&mut self) {
        let wrong = self.memory.read().unwrap().iter().zip(&self.expected).position(|(one, other)| one != other);
        assert_eq!(wrong, None, "{}", self.what);
        let file = self.numbers.below(self.files.len());
        let kept = &mut self.files[file];
        kept.settle(true);
        let found = std::fs::read(&kept.scratch.0).unwrap();
        assert_eq!(difference(&found, &kept.bytes), None, "{}: file {file}", self.what);
    }
}

fn soak(way: Way, kit: &Kit, time: Duration, seed: u64) {
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let name = |file: usize| format!("traffic-{thread}-{file}");
                let [disk, memory] = folders();
                let first = bytes(WORDS * 4, 9);
                let mut lane = Lane {
                    kit,
                    queues: [kit.context.queue().unwrap(), kit.context.queue_builder().out_of_order().build().unwrap()],
                    numbers: Numbers(seed.wrapping_mul(31) + thread as u64),
                    memory: kit.heap().vec_from(&words_of(&first)).unwrap(),
                    last: Vec::new(),
                    expected: words_of(&first),
                    files: vec![
                        Kept::new(&disk, &name(0), 1),
                        Kept::new(&memory, &name(1), 2),
                        Kept::new(&disk, &name(2), 3),
                    ],
                    what: format!("{way:?}, thread {thread}, seed {seed}"),
                };
                while Instant::now() < end {
                    lane.step();
                }
                (0..3 * lane.files.len()).for_each(|_| lane.check());
            });
        }
    });
    kit.works();
}

#[test]
fn mixed_traffic_is_right_to_the_byte() {
    let asked = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seconds, seed) = (asked(SECONDS).unwrap_or(DEFAULT_SECONDS), asked(SEED).unwrap_or(1));
    // Longer, in turns of their own: each may take a minute.
    let turns = u32::try_from(seconds.div_ceil(30)).unwrap();
    for number in 0..turns {
        for (index, way) in (0..).zip(ALL) {
            let _turn = turn("traffic");
            let Some(kit) = way.kit("traffic", builder().device_budget(8 << 20)) else { continue };
            let time = Duration::from_secs(seconds) / turns / u32::try_from(ALL.len()).unwrap();
            soak(*way, &kit, time, seed + u64::from(number) * 10 + index);
        }
    }
}
