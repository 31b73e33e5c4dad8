//! Prefetch in both directions, a chunk and 32 chunks at a time. Unit: GB/s. Bound: 0.90 of memcpy of the same bytes in
//! the same pieces, after which the CPU reads without a fault.

use limosa::{FaultMode, Side};

use crate::ceiling::{CHUNK, Memcpy};
use crate::report::{Bound, Row};
use crate::resident::{Resident, sum};
use crate::rounds::{Series, gb_per_s, rotated, time};
use crate::scale::Scale;

const PIECES: [(usize, &str); 2] = [(CHUNK, "2 MiB"), (32 * CHUNK, "64 MiB")];
/// To the device, to the host, memcpy.
const KINDS: usize = 3;

struct Prefetch {
    bytes: usize,
    data: Resident,
    memcpy: Memcpy,
    faults_after: u64,
    value: u32,
}

impl Prefetch {
    fn measure(&mut self, arm: usize) -> f64 {
        let piece = PIECES[arm / KINDS].0;
        self.value += 1;
        let taken = match arm % KINDS {
            0 => {
                self.data.put_on_host(self.value.into());
                let taken = self.prefetch(Side::Device, piece);
                assert_eq!(self.data.vec().residency_summary().device, self.bytes as u64);
                taken
            }
            1 => {
                self.data.put_on_device(self.value);
                let taken = self.prefetch(Side::Host, piece);
                let word = u64::from(self.value) << 32 | u64::from(self.value);
                let counted = self.data.counted(|| {
                    let words = self.data.vec().read().unwrap();
                    assert_eq!(sum(&words), word.wrapping_mul(words.len() as u64), "the data did not come along");
                });
                self.faults_after += counted.cpu_read_faults + counted.cpu_write_faults;
                taken
            }
            _ => self.memcpy.all(piece),
        };
        gb_per_s(self.bytes, taken)
    }

    fn prefetch(&self, side: Side, piece: usize) -> std::time::Duration {
        let (vec, step) = (self.data.vec(), piece / size_of::<u64>());
        time(|| {
            for start in (0..vec.len()).step_by(step) {
                vec.prefetch_range(side, start..start + step).unwrap();
            }
        })
    }
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let data = Resident::new(FaultMode::HandlerThread, scale.bytes);
    let memcpy = Memcpy::new(scale.bytes);
    let mut prefetch = Prefetch { bytes: scale.bytes, data, memcpy, faults_after: 0, value: 0 };
    let series = rotated(PIECES.len() * KINDS, scale.rounds, |arm| prefetch.measure(arm));
    let mut rows: Vec<Row> =
        series.chunks(KINDS).zip(PIECES).flat_map(|(series, piece)| two(series, piece.1)).collect();
    let faults = prefetch.faults_after as f64;
    let row = Row::new("CPU read of all that was prefetched to the host", format!("{faults:.0} faults"));
    rows.push(row.beside("none", faults).bound(Bound::AtMost(0.0)));
    rows
}

fn two(series: &[Series], piece: &str) -> [Row; 2] {
    let row = |direction: &str, ours: &Series| {
        let row = Row::new(format!("prefetch to the {direction}, {piece} a call"), format!("{ours} GB/s"));
        row.beside(format!("memcpy {} GB/s", series[2]), ours.ratio_to(&series[2])).bound(Bound::AtLeast(0.90))
    };
    [row("device", &series[0]), row("host", &series[1])]
}
