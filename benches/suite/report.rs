//! Rows and the closing table. It judges ratios by their bounds and does *not* act on the verdict.

use crate::rounds::Series;

/// What a ratio must be.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least:.2}"),
            Self::AtMost(most) => format!("≤ {most:.2}"),
        }
    }
}

/// What a row comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is no bound to hold.
    None,
    Holds,
    Misses,
    LeftOut,
}

impl Verdict {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::None => "–",
            Self::Holds => "holds",
            Self::Misses => "MISSES",
            Self::LeftOut => "left out",
        }
    }
}

/// The ceiling or peer of a row, measured in the same rounds.
pub(crate) struct Peer {
    pub(crate) name: String,
    /// In the unit of the row.
    pub(crate) median: f64,
    /// The row's figure as a ratio to it: the median of the rounds' ratios.
    pub(crate) ratio: f64,
}

/// One measured line.
pub(crate) struct Row {
    pub(crate) name: String,
    /// No figures where it was left out.
    pub(crate) figures: Series,
    pub(crate) unit: &'static str,
    pub(crate) peer: Option<Peer>,
    pub(crate) bound: Option<Bound>,
    pub(crate) notes: Vec<String>,
}

impl Row {
    /// What was measured, one figure a round.
    pub(crate) fn new(name: impl Into<String>, figures: &Series, unit: &'static str) -> Self {
        let (name, figures) = (name.into(), figures.clone());
        Self { name, figures, unit, peer: None, bound: None, notes: Vec::new() }
    }

    /// What is the same in every round, as a count is.
    pub(crate) fn of_value(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self::new(name, &Series(vec![value]), unit)
    }

    /// What this machine or build cannot measure, and why: never in silence.
    pub(crate) fn left_out(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(name, &Series(Vec::new()), "").note(why)
    }

    /// The ceiling or peer.
    pub(crate) fn beside(self, peer: impl Into<String>, figures: &Series) -> Self {
        let ratio = self.figures.ratio_to(figures);
        self.beside_value(peer, figures.median(), ratio)
    }

    /// A peer that is a number, and the ratio to it.
    pub(crate) fn beside_value(self, peer: impl Into<String>, median: f64, ratio: f64) -> Self {
        Self { peer: Some(Peer { name: peer.into(), median, ratio }), ..self }
    }

    pub(crate) fn bound(self, bound: Bound) -> Self {
        Self { bound: Some(bound), ..self }
    }

    /// What the figure stands for.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match (&self.peer, self.bound) {
            _ if self.figures.0.is_empty() => Verdict::LeftOut,
            (Some(peer), Some(bound)) if bound.holds(peer.ratio) => Verdict::Holds,
            (_, Some(_)) => Verdict::Misses,
            _ => Verdict::None,
        }
    }

    fn cells(&self) -> [String; 6] {
        let none = || "–".to_owned();
        let verdict = self.verdict();
        let figure = if verdict == Verdict::LeftOut { none() } else { format!("{} {}", self.figures, self.unit) };
        let peer = self.peer.as_ref().map_or_else(none, |peer| format!("{}: {:.2}", peer.name, peer.median));
        let ratio = self.peer.as_ref().map_or_else(none, |peer| format!("{:.3}", peer.ratio));
        let bound = self.bound.map_or_else(none, Bound::text);
        [self.name.clone(), figure, peer, ratio, bound, verdict.text().to_owned()]
    }

    pub(crate) fn print(&self) {
        let [name, figure, peer, ratio, bound, verdict] = self.cells();
        println!("  {name}: {figure}; beside: {peer}; ratio {ratio}, bound {bound}: {verdict}");
        self.notes.iter().for_each(|note| println!("    {note}"));
    }
}

/// Prints all rows with aligned columns.
pub(crate) fn table<'a>(rows: impl Iterator<Item = &'a Row>) {
    let heads = ["what", "median (least–most)", "ceiling or peer", "ratio", "bound", "verdict"].map(String::from);
    let lines: Vec<[String; 6]> = std::iter::once(heads).chain(rows.map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    for (index, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("| {} |", cells.join(" | "));
        if index == 0 {
            println!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"));
        }
    }
}
