//! The measure of all moves: how fast one thread copies memory that was touched before. It knows nothing of heaps.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::progress::Steps;
use crate::units::gigabytes_per_second;

/// Bytes of a copy: beyond every cache.
const BYTES: usize = 128 << 20;
const COPIES: usize = 7;

/// The ceiling, with how it was found.
#[derive(Clone, Copy)]
pub(crate) struct Ceiling {
    /// 10⁹ bytes a second: the median.
    pub(crate) rate: f64,
    /// Bytes of one copy.
    pub(crate) bytes: u64,
    /// How many copies the median is of.
    pub(crate) copies: usize,
}

/// Measures.
pub(crate) fn measure() -> Ceiling {
    let progress = Steps::start("measuring memcpy", COPIES as u64);
    // Not zeros: an allocation of zeros is pages that nobody has touched.
    let source = vec![1u64; BYTES / 8];
    let mut target = vec![2u64; BYTES / 8];
    let mut times: Vec<Duration> = Vec::with_capacity(COPIES);
    for _ in 0..COPIES {
        let start = Instant::now();
        target.copy_from_slice(black_box(&source));
        black_box(&mut target);
        times.push(start.elapsed());
        progress.next();
    }
    times.sort_unstable();
    let bytes = BYTES as u64;
    Ceiling { rate: gigabytes_per_second(bytes, times[COPIES / 2]), bytes, copies: COPIES }
}
