//! The GPU's side of the coherence oracle: lanes that check and advance words of their own, count
//! atomically, and watch words of the CPU. What runs beside it, and which defects are seeded, is the
//! test's business; the kernel orders nothing between lanes.

use crate::{Kernel, hash};

/// The kernel's arguments. Launch `lanes` invocations or more. Counters are 64-bit words of an array.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The address of the first lane's `u64`. Before launch 0 a lane's word is [`lane_value`] of step 0.
    pub words: u64,
    /// How many lanes.
    pub lanes: u64,
    /// Bytes from one lane's word to the next, a multiple of 8.
    pub lane_stride: u64,
    /// The address of `counter_count` `u64`, or unused where that is 0.
    pub counters: u64,
    /// How many counters; 0 for none.
    pub counter_count: u64,
    /// The address of the first watched `u64`: words that never decrease while the kernel runs.
    pub watched: u64,
    /// Bytes from one watched word to the next, a multiple of 8.
    pub watched_stride: u64,
    /// How many watched words; 0 for none.
    pub watched_count: u64,
    /// The address of a [`Report`].
    pub report: u64,
    /// What all values follow from.
    pub seed: u64,
    /// The number of this launch, from 0, all of which have the same `rounds`.
    pub launch: u64,
    /// Rounds in a launch.
    pub rounds: u32,
    /// Not read: it fills the struct to a multiple of 8 bytes.
    pub reserved: u32,
}
assert_layout!(Args, 96, {
    words: 0, lanes: 8, lane_stride: 16, counters: 24, counter_count: 32, watched: 40, watched_stride: 48,
    watched_count: 56, report: 64, seed: 72, launch: 80, rounds: 88, reserved: 92,
});

/// What went wrong. All zero before the first launch; the first mismatch fills the record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many loads gave what they must not.
    pub mismatches: u64,
    /// 1 once the fields below are, or are being, written.
    pub claimed: u64,
    /// [`KIND_WORD`] or [`KIND_WATCHED`].
    pub kind: u64,
    /// The lane that saw it.
    pub lane: u64,
    /// The lane's step: rounds, counted over all launches.
    pub step: u64,
    /// What was loaded.
    pub observed: u64,
    /// What it must be (a lane's word), or must not be less than (a watched word).
    pub expected: u64,
}
assert_layout!(Report, 56, {
    mismatches: 0, claimed: 8, kind: 16, lane: 24, step: 32, observed: 40, expected: 48,
});

/// A lane's own word had another value than the lane had written.
pub const KIND_WORD: u64 = 1;
/// A watched word was seen to decrease.
pub const KIND_WATCHED: u64 = 2;

const COUNTER_SALT: u64 = 0x0063_6f75_6e74_6572;
const WATCH_SALT: u64 = 0x0077_6174_6368_6564;

/// The kernel.
pub const KERNEL: Kernel = kernel!("stress");

/// The value of a lane's word before its step `step`, and so after step `step - 1`.
pub fn lane_value(seed: u64, lane: u64, step: u64) -> u64 {
    hash::three(seed, lane, step)
}

/// The counter that a lane adds 1 to in a step; none where there are no counters.
pub fn counter_index(seed: u64, lane: u64, step: u64, counter_count: u64) -> Option<u64> {
    hash::three(seed ^ COUNTER_SALT, lane, step).checked_rem(counter_count)
}

/// The word that a lane watches in a step; none where there are no watched words.
pub fn watched_index(seed: u64, lane: u64, step: u64, watched_count: u64) -> Option<u64> {
    hash::three(seed ^ WATCH_SALT, lane, step).checked_rem(watched_count)
}

/// What a launch does to the words (one per lane) and the counters, and the report of a launch that ran
/// alone (the first mismatch is then that of the lowest lane). Watched words cannot change here.
pub fn twin(words: &mut [u64], counters: &mut [u64], seed: u64, launch: u64, rounds: u32) -> Report {
    let mut report = Report::default();
    let counter_count = counters.len() as u64;
    for (lane, word) in (0..).zip(words) {
        for round in 0..u64::from(rounds) {
            let step = launch * u64::from(rounds) + round;
            let expected = lane_value(seed, lane, step);
            if *word != expected {
                if report.mismatches == 0 {
                    report = Report { claimed: 1, kind: KIND_WORD, lane, step, observed: *word, expected, ..report };
                }
                report.mismatches += 1;
            }
            *word = lane_value(seed, lane, step + 1);
            let index = counter_index(seed, lane, step, counter_count).and_then(|i| usize::try_from(i).ok());
            if let Some(counter) = index.and_then(|i| counters.get_mut(i)) {
                *counter = counter.wrapping_add(1);
            }
        }
    }
    report
}

/// What the counters are after `launches` launches of `lanes` lanes, from zero.
pub fn expected_counters(seed: u64, lanes: u64, launches: u64, rounds: u32, counter_count: usize) -> Vec<u64> {
    let mut counters = vec![0; counter_count];
    let count = counter_count as u64;
    for lane in 0..lanes {
        for step in 0..launches * u64::from(rounds) {
            let index = counter_index(seed, lane, step, count).and_then(|i| usize::try_from(i).ok());
            if let Some(counter) = index.and_then(|i| counters.get_mut(i)) {
                *counter += 1;
            }
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_follow_on_and_count_every_step() {
        let (seed, lanes, rounds) = (42, 37, 5);
        let mut words: Vec<u64> = (0..lanes).map(|lane| lane_value(seed, lane, 0)).collect();
        let mut counters = vec![0; 11];
        for launch in 0..4 {
            assert_eq!(twin(&mut words, &mut counters, seed, launch, rounds), Report::default());
        }
        assert!((0..).zip(&words).all(|(lane, word)| *word == lane_value(seed, lane, 20)));
        assert_eq!(counters, expected_counters(seed, lanes, 4, rounds, 11));
        assert_eq!(counters.iter().sum::<u64>(), 37 * 20);
        assert!(counters.iter().all(|n| *n > 20));
    }

    #[test]
    fn a_stale_word_is_reported_once() {
        let mut words: Vec<u64> = (0..4).map(|lane| lane_value(7, lane, 6)).collect();
        words[2] = lane_value(7, 2, 5);
        words[3] = 0;
        let report = twin(&mut words, &mut [], 7, 3, 2);
        let (observed, expected) = (lane_value(7, 2, 5), lane_value(7, 2, 6));
        assert_eq!(report, Report { mismatches: 2, claimed: 1, kind: KIND_WORD, lane: 2, step: 6, observed, expected });
    }

    #[test]
    fn nothing_is_picked_from_nothing() {
        assert_eq!(counter_index(1, 2, 3, 0), None);
        assert_eq!(watched_index(1, 2, 3, 0), None);
        assert!(watched_index(1, 2, 3, 5).is_some_and(|i| i < 5));
    }
}
