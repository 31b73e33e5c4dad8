//! What is asked of a run on its command line.

use crate::scale::Scale;

pub(crate) const USAGE: &str = "\
usage: cargo bench -p limosa-benches -- [FILTER…] [--quick | --smoke] [--json PATH]
  FILTER       run the benches whose names contain any of these; --list names them
  --quick      smaller and fewer, within minutes: no figure to quote
  --smoke      as little as shows that everything runs
  --json PATH  write all rows as one JSON document; `-`: to standard output, after the table
  --list       name the benches and their questions";

/// A run to be.
pub(crate) struct Options {
    pub(crate) filters: Vec<String>,
    pub(crate) scale: Scale,
    pub(crate) json: Option<String>,
    pub(crate) list: bool,
    pub(crate) help: bool,
}

impl Options {
    /// # Errors
    /// What is not understood, in words.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { filters: Vec::new(), scale: Scale::FULL, json: None, list: false, help: false };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.scale = Scale::QUICK,
                "--smoke" => options.scale = Scale::SMOKE,
                "--json" => options.json = Some(arguments.next().ok_or("--json lacks its path")?),
                "--list" => options.list = true,
                "--help" => options.help = true,
                // Cargo adds it.
                "--bench" => {}
                other if other.starts_with("--") => return Err(format!("no such option: {other}")),
                _ => options.filters.push(argument),
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}
