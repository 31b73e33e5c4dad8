//! The cost of a fault in a large heap and in a small one: the same random touches of pieces of 2 MiB, in-thread mode.
//! In the large heap the pieces lie apart, with memory in use between them; RAM does not suffice to use all of it.
//! Unit: µs a touch (the median of a round). Bound: 1.1 of the small heap's.

use limosa::{FaultMode, UnifiedVec};

use crate::ceiling::{BLOCK, CHUNK};
use crate::faults::{Random, one_of_each_pair, touch};
use crate::report::{Bound, Row};
use crate::resident::{HEAP_BYTES, Resident, context};
use crate::rounds::{percentile, rotated};
use crate::scale::Scale;

/// 10^3 blocks and a few.
const SMALL_HEAP_BYTES: usize = 64 << 20;
const PIECES: usize = 30;
/// Of a piece.
const BLOCKS: usize = CHUNK / BLOCK;

/// Touches one block of each pair of every piece, across the pieces in random order.
fn touch_all(data: &Resident, random: &mut Random) -> Vec<f64> {
    let guards: Vec<_> = data.vecs().iter().map(|vec| vec.read().unwrap()).collect();
    let blocks = one_of_each_pair(PIECES * BLOCKS, random);
    blocks.iter().flat_map(|block| touch(&guards[block / BLOCKS], &[block % BLOCKS])).collect()
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let mut small = Resident::empty(context(FaultMode::InThread, SMALL_HEAP_BYTES));
    let mut large = Resident::empty(context(FaultMode::InThread, HEAP_BYTES));
    let mut ballast: Vec<UnifiedVec<u8>> = Vec::new();
    for _ in 0..PIECES {
        small.allocate(CHUNK);
        large.allocate(CHUNK);
        ballast.push(large.heap().vec_zeroed(scale.ballast_bytes).unwrap());
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut heaps = [small, large];
    let series = rotated(2, scale.rounds * 5, |arm| {
        heaps[arm].put_on_device(7);
        percentile(&touch_all(&heaps[arm], &mut random), 50)
    });
    let used = heaps[1].heap().host_bytes() as f64 / f64::from(1 << 30);
    let row = Row::new("fault in a heap of 10^6 blocks", &series[1], "µs").beside("heap of 10^3", &series[0]);
    vec![row.bound(Bound::AtMost(1.1)).note(format!("the large heap has {used:.1} GiB in use"))]
}
