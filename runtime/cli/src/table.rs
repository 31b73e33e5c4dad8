//! Text in columns. It neither wraps nor colours, and knows nothing of what stands in it.

use std::fmt;

/// Rows of cells under a title, written with each column as wide as its widest cell.
pub(crate) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
    numbers: bool,
}

impl Table {
    /// A table whose columns behind the first hold text, flush left.
    pub(crate) fn of_text(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new(), numbers: false }
    }

    /// A table whose columns behind the first hold numbers, flush right, under `heads`.
    pub(crate) fn of_numbers<const N: usize>(title: impl Into<String>, heads: [&str; N]) -> Self {
        let heads = std::iter::once("").chain(heads).map(str::to_owned).collect();
        Self { title: title.into(), rows: vec![heads], numbers: true }
    }

    /// Adds a row: its name, and a cell for each further column.
    pub(crate) fn row<const N: usize>(&mut self, name: &str, cells: [String; N]) {
        self.rows.push(std::iter::once(name.to_owned()).chain(cells).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        // Characters, not bytes: µ and → take one column each.
        let width = |cell: &String| cell.chars().count();
        let widest = |column| self.rows.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        writeln!(f, "{}", self.title)?;
        for row in &self.rows {
            let mut line = String::from(" ");
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if self.numbers && index > 0 {
                    line.push_str(&format!("  {cell:>width$}"));
                } else {
                    line.push_str(&format!(" {cell:<width$} "));
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_flush_right_under_their_heads() {
        let mut table = Table::of_numbers("Faults", ["CPU", "GPU"]);
        table.row("read", ["7".into(), "1,234".into()]);
        table.row("written µ", ["12".into(), "0".into()]);
        assert_eq!(
            table.to_string(),
            "Faults\n              CPU    GPU\n  read          7  1,234\n  written µ    12      0\n"
        );
    }

    #[test]
    fn text_is_flush_left_without_trailing_spaces() {
        let mut table = Table::of_text("Run");
        table.row("device", ["llvmpipe".into()]);
        table.row("a", [String::new()]);
        assert_eq!(table.to_string(), "Run\n  device  llvmpipe\n  a\n");
        assert_eq!(Table::of_text("Empty").to_string(), "Empty\n");
    }
}
