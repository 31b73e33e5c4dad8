//! Prefetch in both directions, a chunk and 32 chunks at a time. Unit: GB/s. Bound: 0.90 of memcpy of the same bytes in
//! the same pieces, after which the CPU reads without a fault.

use std::time::Duration;

use limosa::{FaultMode, Side, ViewKind};

use crate::ceiling::{CHUNK, Memcpy};
use crate::report::{Bound, Row};
use crate::resident::{HEAP_BYTES, Resident, context_by, sum};
use crate::rounds::{Series, gb_per_s, rotated, time};
use crate::scale::Scale;

const PIECES: [(usize, &str); 2] = [(CHUNK, "2 MiB"), (32 * CHUNK, "64 MiB")];
/// To the device, to the host, memcpy.
const KINDS: usize = 3;

/// Data that is moved by prefetches, and read or written where it came to.
pub(crate) struct Prefetch {
    bytes: usize,
    data: Resident,
    faults_after: u64,
    value: u32,
}

impl Prefetch {
    pub(crate) fn new(view: ViewKind, bytes: usize) -> Self {
        let mut data = Resident::empty(context_by(view, FaultMode::HandlerThread, HEAP_BYTES));
        data.allocate(bytes);
        Self { bytes, data, faults_after: 0, value: 0 }
    }

    /// Moves all of it to `side` from the other, `piece` bytes a call.
    pub(crate) fn measure(&mut self, side: Side, piece: usize) -> Duration {
        self.value += 1;
        match side {
            Side::Device => {
                self.data.put_on_host(self.value.into());
                let taken = self.prefetch(side, piece);
                assert_eq!(self.data.vec().residency_summary().device, self.bytes as u64);
                taken
            }
            Side::Host => {
                self.data.put_on_device(self.value);
                let taken = self.prefetch(side, piece);
                let word = u64::from(self.value) << 32 | u64::from(self.value);
                let counted = self.data.counted(|| {
                    let words = self.data.vec().read().unwrap();
                    assert_eq!(sum(&words), word.wrapping_mul(words.len() as u64), "the data did not come along");
                });
                self.faults_after += counted.cpu_read_faults + counted.cpu_write_faults;
                taken
            }
        }
    }

    fn prefetch(&self, side: Side, piece: usize) -> Duration {
        let (vec, step) = (self.data.vec(), piece / size_of::<u64>());
        time(|| {
            for start in (0..vec.len()).step_by(step) {
                vec.prefetch_range(side, start..start + step).unwrap();
            }
        })
    }
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let (mut prefetch, mut memcpy) = (Prefetch::new(ViewKind::Import, scale.bytes), Memcpy::new(scale.bytes));
    let series = rotated(PIECES.len() * KINDS, scale.rounds, |arm| {
        let piece = PIECES[arm / KINDS].0;
        let taken = match arm % KINDS {
            0 => prefetch.measure(Side::Device, piece),
            1 => prefetch.measure(Side::Host, piece),
            _ => memcpy.all(piece),
        };
        gb_per_s(scale.bytes, taken)
    });
    let mut rows: Vec<Row> =
        series.chunks(KINDS).zip(PIECES).flat_map(|(series, piece)| two(series, piece.1)).collect();
    let faults = prefetch.faults_after as f64;
    let row = Row::of_value("CPU read of all that was prefetched to the host", faults, "faults");
    rows.push(row.beside_value("none", 0.0, faults).bound(Bound::AtMost(0.0)));
    rows
}

fn two(series: &[Series], piece: &str) -> [Row; 2] {
    let row = |direction: &str, ours: &Series| {
        let row = Row::new(format!("prefetch to the {direction}, {piece} a call"), ours, "GB/s");
        row.beside("memcpy", &series[2]).bound(Bound::AtLeast(0.90))
    };
    [row("device", &series[0]), row("host", &series[1])]
}
