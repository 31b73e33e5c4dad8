//! Random touches of device data, one for each pair of neighbouring blocks, so that density never grows a move beyond
//! its block. Units: GB/s of bytes moved, µs a touch. Bound: 0.50 of memcpy of the same blocks in the same order, one
//! thread, in-thread mode.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use limosa::FaultMode;

use crate::ceiling::{BLOCK, Memcpy};
use crate::report::{Bound, Row};
use crate::resident::{BLOCK_WORDS, Resident};
use crate::rounds::{Series, gb_per_s, percentile, rotated};
use crate::scale::Scale;

const ARMS: [(usize, usize, &str); 4] = [
    (0, 1, "in-thread mode, 1 thread"),
    (1, 1, "handler thread, 1 thread"),
    (0, 4, "in-thread mode, 4 threads"),
    (1, 4, "handler thread, 4 threads"),
];

/// A xorshift generator: the same sequence in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// One block of each pair of `blocks`, in random order.
pub(crate) fn one_of_each_pair(blocks: usize, random: &mut Random) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..blocks / 2).map(|pair| pair * 2 + random.below(2)).collect();
    for index in (1..chosen.len()).rev() {
        chosen.swap(index, random.below(index + 1));
    }
    chosen
}

/// Touches `blocks` of `words` and gives what each touch took in µs.
pub(crate) fn touch(words: &[u64], blocks: &[usize]) -> Vec<f64> {
    let each = |block: &usize| {
        let start = Instant::now();
        std::hint::black_box(words[block * BLOCK_WORDS]);
        start.elapsed().as_secs_f64() * 1e6
    };
    blocks.iter().map(each).collect()
}

struct Faults {
    data: [Resident; 2],
    memcpy: Memcpy,
    random: Random,
    /// µs of each touch, by arm and round, the round that does not count included.
    touches: [Vec<Vec<f64>>; 4],
    moved_beyond: u64,
}

impl Faults {
    fn measure(&mut self, arm: usize) -> f64 {
        let blocks = one_of_each_pair(self.data[0].vec().len() / BLOCK_WORDS, &mut self.random);
        if arm == ARMS.len() {
            return gb_per_s(blocks.len() * BLOCK, self.memcpy.blocks(&blocks));
        }
        let (data, threads, _) = ARMS[arm];
        let data = &mut self.data[data];
        data.put_on_device(7);
        let mut taken = Duration::ZERO;
        let mut touches = Vec::new();
        let counted = data.counted(|| (taken, touches) = in_threads(&data.vec().read().unwrap(), &blocks, threads));
        self.touches[arm].push(touches);
        self.moved_beyond += counted.blocks_to_host.abs_diff(blocks.len() as u64);
        gb_per_s(usize::try_from(counted.blocks_to_host).unwrap() * BLOCK, taken)
    }
}

/// Touches `blocks` from `threads` threads at once; gives the time of all and of each.
fn in_threads(words: &[u64], blocks: &[usize], threads: usize) -> (Duration, Vec<f64>) {
    if threads == 1 {
        let start = Instant::now();
        let touches = touch(words, blocks);
        return (start.elapsed(), touches);
    }
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let work = |part| {
            barrier.wait();
            touch(words, part)
        };
        let running: Vec<_> =
            blocks.chunks(blocks.len().div_ceil(threads)).map(|part| scope.spawn(move || work(part))).collect();
        barrier.wait();
        let start = Instant::now();
        let touches: Vec<f64> = running.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (start.elapsed(), touches)
    })
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let data = [FaultMode::InThread, FaultMode::HandlerThread].map(|mode| Resident::new(mode, scale.bytes));
    let memcpy = Memcpy::new(scale.bytes);
    let mut faults =
        Faults { data, memcpy, random: Random(0x2545_f491_4f6c_dd1d), touches: Default::default(), moved_beyond: 0 };
    let series = rotated(ARMS.len() + 1, scale.rounds, |arm| faults.measure(arm));
    let memcpy = &series[ARMS.len()];
    ARMS.iter().enumerate().map(|(arm, (_, _, name))| row(arm, name, &series[arm], memcpy, &faults)).collect()
}

fn row(arm: usize, name: &str, ours: &Series, memcpy: &Series, faults: &Faults) -> Row {
    let touches = faults.touches[arm][1..].concat();
    let (p50, p99) = (percentile(&touches, 50), percentile(&touches, 99));
    let row = Row::new(format!("random 64 KiB faults, {name}"), ours, "GB/s").beside("memcpy of the blocks", memcpy);
    let row = row.note(format!("a touch: p50 {p50:.1} µs, p99 {p99:.1} µs"));
    let row = row.note(format!("blocks moved beyond those touched, all arms: {}", faults.moved_beyond));
    if arm == 0 { row.bound(Bound::AtLeast(0.50)) } else { row }
}
