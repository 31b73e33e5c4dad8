//! The run as one JSON document, for machines: benches/README.md says what the fields are.

use std::fs::File;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::Measured;
use crate::machine::Machine;
use crate::report::{Bound, Row, Verdict};
use crate::rounds::percentile;
use crate::scale::Scale;

/// Where the document goes.
pub(crate) enum Target {
    StandardOutput,
    File(File),
}

impl Target {
    /// By a path, or `-`. The file is made now: one that cannot be written is to be told before hours of measuring.
    pub(crate) fn open(path: &str) -> io::Result<Self> {
        if path == "-" { Ok(Self::StandardOutput) } else { File::create(path).map(Self::File) }
    }

    pub(crate) fn write(self, document: &Value) -> io::Result<()> {
        match self {
            Self::StandardOutput => writeln!(io::stdout(), "{document:#}"),
            Self::File(mut file) => writeln!(file, "{document:#}"),
        }
    }
}

pub(crate) fn document(machine: &Machine, scale: &Scale, measured: &[Measured]) -> Value {
    let benches: Vec<Value> = measured
        .iter()
        .map(|Measured { bench, seconds, rows }| {
            let rows: Vec<Value> = rows.iter().map(row).collect();
            json!({ "name": bench.name, "question": bench.question, "seconds": seconds, "rows": rows })
        })
        .collect();
    json!({ "machine": machine.json(), "scale": scale.name, "benches": benches })
}

fn row(row: &Row) -> Value {
    let least_and_most = [0, 100].map(|percent| percentile(&row.figures.0, percent));
    let verdict = match row.verdict() {
        Verdict::None => Value::Null,
        Verdict::Holds => "holds".into(),
        Verdict::Misses => "misses".into(),
        Verdict::LeftOut => "left out".into(),
    };
    let bound = row.bound.map(|bound| match bound {
        Bound::AtLeast(least) => json!({ "at_least": least }),
        Bound::AtMost(most) => json!({ "at_most": most }),
    });
    json!({
        "name": row.name,
        "unit": row.unit,
        // NaN, where nothing was measured, becomes null.
        "median": row.figures.median(),
        "min": least_and_most[0],
        "max": least_and_most[1],
        "rounds": row.figures.0.len(),
        "peer": row.peer.as_ref().map(|peer| json!({ "name": peer.name, "median": peer.median })),
        "ratio": row.peer.as_ref().map(|peer| peer.ratio),
        "bound": bound,
        "verdict": verdict,
        "notes": row.notes,
    })
}
