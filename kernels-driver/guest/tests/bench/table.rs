//! The figures, as people and as programs read them.

use std::time::{Duration, Instant};

/// A figure.
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    /// What it is to reach: at least, or at most.
    bound: Option<(bool, f64)>,
    /// Whether to miss it is a failure.
    firm: bool,
}

/// All of them.
#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// A figure for comparison.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(name, value, unit, None, false);
    }

    /// A figure that is to be at least so much, on a machine of which the times mean something.
    pub fn at_least(&mut self, name: impl Into<String>, value: f64, unit: &'static str, bound: f64) {
        self.push(name, value, unit, Some((true, bound)), false);
    }

    /// A figure that must be at most so much on any machine.
    pub fn no_more_than(&mut self, name: impl Into<String>, value: f64, unit: &'static str, bound: f64) {
        self.push(name, value, unit, Some((false, bound)), true);
    }

    fn push(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        bound: Option<(bool, f64)>,
        firm: bool,
    ) {
        let name = name.into();
        assert!(value.is_finite(), "{name}: nothing was measured ({value})");
        self.0.push(Row { name, value, unit, bound, firm });
    }

    /// What must be met and is not.
    pub fn failed(&self) -> Vec<String> {
        let failed = self.0.iter().filter(|row| row.firm && !row.met());
        failed.map(|row| format!("{}: {:.3} {}", row.name, row.value, row.unit)).collect()
    }

    /// Prints it.
    pub fn print(&self) {
        for row in &self.0 {
            let met = row.bound.map_or(String::new(), |(least, bound)| {
                let words = ["at most", "at least"][usize::from(least)];
                format!("  ({words} {bound}: {})", if row.met() { "met" } else { "NOT MET" })
            });
            println!("{:58} {:>12.3} {:9}{met}", row.name, row.value, row.unit);
        }
        for row in &self.0 {
            let bound = row.bound.map_or(String::new(), |(least, bound)| {
                format!(",\"{}\":{bound},\"met\":{}", ["at_most", "at_least"][usize::from(least)], row.met())
            });
            println!("{{\"bench\":\"{}\",\"value\":{:.6},\"unit\":\"{}\"{bound}}}", row.name, row.value, row.unit);
        }
    }
}

impl Row {
    fn met(&self) -> bool {
        self.bound.is_none_or(|(least, bound)| if least { self.value >= bound } else { self.value <= bound })
    }
}

/// The middle one.
pub fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How long something takes.
pub fn time(what: impl FnOnce()) -> Duration {
    let start = Instant::now();
    what();
    start.elapsed()
}

/// So much of something in a second.
pub fn rate(much: usize, took: Duration) -> f64 {
    much as f64 / took.as_secs_f64()
}
