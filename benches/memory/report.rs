//! Rows and the closing table. It judges ratios by their bounds and does *not* act on the verdict.

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

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least:.2}"),
            Self::AtMost(most) => format!("≤ {most:.2}"),
        }
    }
}

/// One measured line.
pub(crate) struct Row {
    name: String,
    figure: String,
    beside: String,
    ratio: Option<f64>,
    bound: Option<Bound>,
    notes: Vec<String>,
}

impl Row {
    /// A figure with its unit, as text: median (least–most).
    pub(crate) fn new(name: impl Into<String>, figure: impl Into<String>) -> Self {
        let (name, figure) = (name.into(), figure.into());
        Self { name, figure, beside: "–".into(), ratio: None, bound: None, notes: Vec::new() }
    }

    /// The ceiling or peer, and the figure as a ratio to it.
    pub(crate) fn beside(self, what: impl Into<String>, ratio: f64) -> Self {
        Self { beside: what.into(), ratio: Some(ratio), ..self }
    }

    pub(crate) fn bound(self, bound: Bound) -> Self {
        Self { bound: Some(bound), ..self }
    }

    /// What the figure stands for.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    fn cells(&self) -> [String; 6] {
        let ratio = self.ratio.map_or("–".into(), |ratio| format!("{ratio:.3}"));
        let bound = self.bound.map_or("–".into(), Bound::text);
        let verdict = match (self.ratio, self.bound) {
            (Some(ratio), Some(bound)) if bound.holds(ratio) => "PASS",
            (_, Some(_)) => "below bound",
            _ => "–",
        };
        [self.name.clone(), self.figure.clone(), self.beside.clone(), ratio, bound, verdict.into()]
    }

    pub(crate) fn print(&self) {
        let [name, figure, beside, ratio, bound, verdict] = self.cells();
        println!("  {name}: {figure}; beside: {beside}; ratio {ratio}, bound {bound}: {verdict}");
        self.notes.iter().for_each(|note| println!("    {note}"));
    }
}

/// Prints all rows with aligned columns.
pub(crate) fn table(rows: &[Row]) {
    let heads = ["what", "figure", "ceiling or peer", "ratio", "bound", "verdict"].map(String::from);
    let lines: Vec<[String; 6]> = std::iter::once(heads).chain(rows.iter().map(Row::cells)).collect();
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
