//! Which bytes of a transfer have arrived: all up to some point, and islands beyond it. It does *not* know where they are.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes counted from the transfer's start.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// All before it have arrived.
    shore: u64,
    /// Start and end of those beyond, apart from each other.
    islands: BTreeMap<u64, u64>,
}

impl Arrivals {
    /// Bytes from the start on, without a gap.
    pub(crate) fn without_gap(&self) -> u64 {
        self.shore
    }

    /// Enters bytes that have not arrived before.
    pub(crate) fn add(&mut self, bytes: Range<u64>) {
        if bytes.start > self.shore {
            self.islands.insert(bytes.start, bytes.end);
            return;
        }
        self.shore = self.shore.max(bytes.end);
        while let Some(island) = self.islands.first_entry().filter(|island| *island.key() <= self.shore) {
            self.shore = self.shore.max(island.remove());
        }
    }

    /// The stretches of `bytes` that have not arrived.
    pub(crate) fn missing(&self, bytes: Range<u64>) -> Vec<Range<u64>> {
        let (mut at, mut missing) = (bytes.start.max(self.shore), Vec::new());
        for (&start, &end) in self.islands.range(..bytes.end) {
            if start > at {
                missing.push(at..start);
            }
            at = at.max(end);
        }
        if at < bytes.end {
            missing.push(at..bytes.end);
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(byte: u64) -> usize {
        usize::try_from(byte).unwrap()
    }

    #[test]
    fn what_is_missing_is_what_was_not_added() {
        // All orders of eight pieces of different lengths, some left out.
        let pieces = [0..3, 3..4, 4..9, 9..20, 20..21, 21..30, 30..31, 31..40];
        for seed in 0u32..2000 {
            let mut order: Vec<usize> = (0..pieces.len()).collect();
            let mut random = seed.wrapping_mul(0x9E37_79B1) | 1;
            for at in (1..order.len()).rev() {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                order.swap(at, (random >> 16) as usize % (at + 1));
            }
            let (mut arrivals, mut bytes) = (Arrivals::default(), [false; 40]);
            for &piece in order.iter().take(seed as usize % 9) {
                let Range { start, end } = pieces[piece];
                arrivals.add(start..end);
                (start..end).for_each(|byte| bytes[place(byte)] = true);
            }
            let shore = bytes.iter().take_while(|there| **there).count() as u64;
            assert_eq!(arrivals.without_gap(), shore);
            let mut found = [true; 40];
            for gap in arrivals.missing(5..37) {
                assert!(gap.start < gap.end);
                gap.for_each(|byte| found[place(byte)] = false);
            }
            assert_eq!(found[5..37], bytes[5..37], "{order:?}");
        }
    }
}
