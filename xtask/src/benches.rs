//! Running the benches: `cargo xtask bench` for figures, and a step of the tests that runs all of them at the smallest
//! scale, so that none rots. The step judges no figure: it looks whether all rows are there and are numbers, and whether
//! benches/README.md promises what is measured, and nothing else.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::command::{cargo, output, root, run};
use crate::error::Error;
use crate::setup::{Purpose, setup};
use crate::steps::{EXPECTED, executables};

/// `cargo xtask bench`: sets the machine up and runs the benches with the peer wgpu, with `arguments` for them.
pub(crate) fn bench(no_install: bool, arguments: &[String]) -> Result<(), Error> {
    setup(Purpose::Bench, no_install)?;
    let executable = build(&["--release", "--package", "limosa-benches", "--features", "wgpu"])?;
    // Not by `cargo bench`, which would run them in the package's folder: paths are relative to the caller's.
    run(Command::new(executable).args(arguments))
}

/// Runs all benches as little as shows that they run, and looks at what they say.
pub(crate) fn smoke(temp: &Path, skips: &Path) -> Result<(), Error> {
    // With the features of the tests before, so that nothing is built anew.
    let executable = build(&["--workspace", "--features", "inject"])?;
    let path = temp.join("benches.json");
    run(Command::new(executable).arg("--smoke").arg("--json").arg(&path).env("LIMOSA_EXPECT", EXPECTED))?;

    let failed = |path: &Path| Error::io(format!("cannot read {}", path.display()));
    let document = fs::read(&path).map_err(failed(&path))?;
    let readme = root().join("benches/README.md");
    let promises = fs::read_to_string(&readme).map_err(failed(&readme))?;
    let wrong = |detail: String| Error::Output { what: "the benches' JSON document".to_owned(), detail };
    let document: Value = serde_json::from_slice(&document).map_err(|error| wrong(error.to_string()))?;
    let left_out = examine(&document, &promised(&promises)).map_err(wrong)?;
    let mut file = OpenOptions::new().append(true).open(skips).map_err(failed(skips))?;
    left_out.iter().try_for_each(|line| writeln!(file, "SKIP {line}")).map_err(failed(skips))
}

fn build(arguments: &[&str]) -> Result<PathBuf, Error> {
    let mut build = cargo(&["build", "--benches", "--message-format=json-render-diagnostics"]);
    let built = output(build.args(arguments))?;
    let built = executables(&String::from_utf8_lossy(&built), "bench").remove("suite");
    let none = || "no executable for the bench target `suite`".to_owned();
    built.map(PathBuf::from).ok_or_else(|| Error::Output { what: "cargo's messages".to_owned(), detail: none() })
}

/// The rows that the README promises something of: by what their names begin with, in the first column of its tables.
fn promised(readme: &str) -> Vec<&str> {
    readme.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

/// Gives what was left out and why, or what is wrong with the document.
fn examine(document: &Value, promised: &[&str]) -> Result<Vec<String>, String> {
    let benches = document["benches"].as_array().filter(|benches| !benches.is_empty()).ok_or("no benches")?;
    let (mut left_out, mut names) = (Vec::new(), Vec::new());
    for bench in benches {
        let name = bench["name"].as_str().ok_or("a bench without a name")?;
        let rows = bench["rows"].as_array().filter(|rows| !rows.is_empty());
        for row in rows.ok_or_else(|| format!("{name}: no rows"))? {
            let row_name = row["name"].as_str().ok_or_else(|| format!("{name}: a row without a name"))?;
            names.push(row_name);
            if row["verdict"] == "left out" {
                let why = row["notes"][0].as_str().ok_or_else(|| format!("{row_name}: left out without a reason"))?;
                left_out.push(format!("bench {name}: {row_name}: {why}"));
                continue;
            }
            if !is_measured(row) {
                return Err(format!("{row_name}: not all figures are there: {row}"));
            }
            if !row["bound"].is_null() && !promised.iter().any(|promise| row_name.starts_with(promise)) {
                return Err(format!("{row_name}: has a bound that no line of benches/README.md promises"));
            }
        }
    }
    match promised.iter().find(|promise| !names.iter().any(|name| name.starts_with(*promise))) {
        Some(promise) => Err(format!("benches/README.md promises `{promise}`, which no row measures")),
        None => Ok(left_out),
    }
}

/// Whether a row has its figures in their order, and with a bound a ratio.
fn is_measured(row: &Value) -> bool {
    let [least, median, most] = ["min", "median", "max"].map(|figure| row[figure].as_f64());
    let ordered = matches!((least, median, most), (Some(least), Some(median), Some(most))
        if least <= median && median <= most);
    ordered && (row["bound"].is_null() || row["ratio"].is_number()) && row["unit"].is_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(name: &str) -> Value {
        json!({ "name": name, "unit": "µs", "min": 1.0, "median": 2.0, "max": 3.0, "ratio": 1.01,
            "bound": { "at_most": 1.05 }, "verdict": "holds", "notes": [] })
    }

    fn document(row: Value) -> Value {
        json!({ "benches": [{ "name": "launch", "rows": [row] }] })
    }

    #[test]
    fn whole_documents_pass_and_tell_what_was_left_out() {
        assert_eq!(examine(&document(row("empty launch, here")), &["empty launch"]), Ok(vec![]));
        let left_out = json!({ "name": "wgpu", "verdict": "left out", "notes": ["not built"] });
        assert_eq!(examine(&document(left_out), &[]), Ok(vec!["bench launch: wgpu: not built".to_owned()]));
    }

    #[test]
    fn what_is_missing_is_named() {
        let broken = |field: &str, value: Value| {
            let mut row = row("empty launch");
            row[field] = value;
            examine(&document(row), &["empty launch"]).unwrap_err()
        };
        assert!(broken("median", Value::Null).contains("empty launch: not all figures"));
        assert!(broken("max", json!(0.5)).contains("not all figures"));
        assert!(broken("ratio", Value::Null).contains("not all figures"));
        assert!(broken("verdict", json!("left out")).contains("without a reason"));
        assert!(examine(&json!({ "benches": [] }), &[]).is_err());
        assert!(examine(&json!({ "benches": [{ "name": "x", "rows": [] }] }), &[]).unwrap_err().contains("x: no rows"));
    }

    #[test]
    fn promises_and_bounds_belong_together() {
        let found = examine(&document(row("empty launch")), &[]).unwrap_err();
        assert!(found.contains("no line of benches/README.md"), "{found}");
        let found = examine(&document(row("empty launch")), &["empty launch", "upload"]).unwrap_err();
        assert!(found.contains("promises `upload`"), "{found}");
        assert_eq!(
            promised("# Promises\n| row | bound |\n|---|---|\n| `upload`, `x` | 0.95 |\ntext `no`\n"),
            ["upload"]
        );
    }
}
