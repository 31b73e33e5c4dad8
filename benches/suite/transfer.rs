//! Upload and download of large data: all of a vector in one prefetch, by both views. Unit: GB/s. Bound: 0.95 of memcpy
//! of the same bytes in one call.

use limosa::{Side, ViewKind};

use crate::ceiling::Memcpy;
use crate::prefetch::Prefetch;
use crate::report::{Bound, Row};
use crate::rounds::{gb_per_s, rotated};
use crate::scale::Scale;

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    [ViewKind::Import, ViewKind::Sparse].into_iter().flat_map(|view| by(view, scale)).collect()
}

fn by(view: ViewKind, scale: &Scale) -> Vec<Row> {
    let bytes = scale.bytes;
    let (mut prefetch, mut memcpy) = (Prefetch::new(view, bytes), Memcpy::new(bytes));
    let series = rotated(3, scale.rounds, |arm| {
        let taken = match arm {
            0 => prefetch.measure(Side::Device, bytes),
            1 => prefetch.measure(Side::Host, bytes),
            _ => memcpy.all(bytes),
        };
        gb_per_s(bytes, taken)
    });
    let row = |name: &str, arm: usize| {
        let row = Row::new(format!("{name} of {} MiB, {view}", bytes >> 20), &series[arm], "GB/s");
        row.beside("memcpy", &series[2]).bound(Bound::AtLeast(0.95))
    };
    vec![row("upload", 0), row("download", 1)]
}
