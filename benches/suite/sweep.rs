//! The CPU sums all words of data that is on the device only, in both fault modes, and on the host for scale. Unit:
//! GB/s of data read. Bound: 0.80 of memcpy of the same bytes.

use limosa::{Counters, FaultMode};

use crate::ceiling::{CHUNK, Memcpy};
use crate::report::{Bound, Row};
use crate::resident::{Resident, sum};
use crate::rounds::{gb_per_s, rotated, time};
use crate::scale::Scale;

const MODES: [(FaultMode, &str); 2] =
    [(FaultMode::InThread, "in-thread mode"), (FaultMode::HandlerThread, "handler thread")];

struct Sweep {
    bytes: usize,
    data: [Resident; 2],
    memcpy: Memcpy,
    counters: [Counters; 2],
}

impl Sweep {
    fn measure(&mut self, arm: usize) -> f64 {
        let taken = match arm {
            0 | 1 => {
                self.data[arm].put_on_device(7);
                let mut taken = std::time::Duration::ZERO;
                let data = &self.data[arm];
                self.counters[arm] = data.counted(|| taken = read(data));
                taken
            }
            2 => {
                self.data[1].vec().prefetch_to_host().unwrap();
                read(&self.data[1])
            }
            _ => self.memcpy.all(CHUNK),
        };
        gb_per_s(self.bytes, taken)
    }
}

fn read(data: &Resident) -> std::time::Duration {
    let words = data.vec().read().unwrap();
    time(|| assert_eq!(sum(&words), 0x7_0000_0007u64.wrapping_mul(words.len() as u64)))
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let data = MODES.map(|(mode, _)| Resident::new(mode, scale.bytes));
    let mut sweep =
        Sweep { bytes: scale.bytes, data, memcpy: Memcpy::new(scale.bytes), counters: [Counters::default(); 2] };
    // The host-resident arm needs data that a device wrote: the warm-up round begins with the device's arms.
    let series = rotated(4, scale.rounds, |arm| sweep.measure(arm));
    let (host, memcpy) = (&series[2], &series[3]);
    let mut rows = Vec::new();
    for (arm, (_, mode)) in MODES.iter().enumerate() {
        let Counters { cpu_read_faults, blocks_to_host, chunks_read_ahead, .. } = sweep.counters[arm];
        let row = Row::new(format!("CPU sweep over device data, {mode}"), &series[arm], "GB/s");
        let row = row.beside("memcpy", memcpy);
        rows.push(row.bound(Bound::AtLeast(0.80)).note(format!(
            "last sweep: {cpu_read_faults} faults, {blocks_to_host} blocks moved, {chunks_read_ahead} chunks read ahead"
        )));
    }
    rows.push(Row::new("CPU sweep over host data (for scale)", host, "GB/s").beside("memcpy", memcpy));
    rows
}
