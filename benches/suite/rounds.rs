//! Rounds with rotated order, and what is made of their figures. Ratios are taken within a round, so that a machine
//! that slows down for a while slows both sides.

use std::fmt;
use std::time::{Duration, Instant};

/// The figures of one arm, one a round.
#[derive(Clone, Default)]
pub(crate) struct Series(pub(crate) Vec<f64>);

/// Measures `arms` arms in `rounds` rounds, each starting with another arm, after a round that is thrown away.
/// `measure` gets the number of the arm.
pub(crate) fn rotated(arms: usize, rounds: usize, mut measure: impl FnMut(usize) -> f64) -> Vec<Series> {
    rotated_each(arms, rounds, |arm| [measure(arm)]).into_iter().flatten().collect()
}

/// The same for arms that give several figures each.
pub(crate) fn rotated_each<const N: usize>(
    arms: usize,
    rounds: usize,
    mut measure: impl FnMut(usize) -> [f64; N],
) -> Vec<[Series; N]> {
    for arm in 0..arms {
        measure(arm);
    }
    let mut series: Vec<[Series; N]> = (0..arms).map(|_| std::array::from_fn(|_| Series::default())).collect();
    for round in 0..rounds {
        for turn in 0..arms {
            let arm = (round + turn) % arms;
            series[arm].iter_mut().zip(measure(arm)).for_each(|(series, figure)| series.0.push(figure));
        }
    }
    series
}

/// How long `work` takes.
pub(crate) fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// 10^9 bytes a second.
pub(crate) fn gb_per_s(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e9
}

/// The value that `percent` of the values do not exceed.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

impl Series {
    pub(crate) fn median(&self) -> f64 {
        percentile(&self.0, 50)
    }

    /// The median over the rounds of `self` divided by `other`.
    pub(crate) fn ratio_to(&self, other: &Self) -> f64 {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect()).median()
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}–{:.2})", self.median(), percentile(&self.0, 0), percentile(&self.0, 100))
    }
}
