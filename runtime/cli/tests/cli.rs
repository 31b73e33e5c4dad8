//! The `limosa` command as a user runs it. What needs the software device skips aloud without it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do; clippy knows only test functions")]

mod common;

use std::path::PathBuf;
use std::process::Output;

use common::{has_device, limosa, text};

/// Fails unless the command failed with status 1 and one line that has all of `parts`.
fn assert_named_error(output: &Output, parts: &[&str]) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("limosa: ") && error.lines().count() == 1, "{error}");
    parts.iter().for_each(|part| assert!(error.contains(part), "{part:?} is not in {error:?}"));
}

/// A file with `contents` for the test of this name.
fn file(test: &str, contents: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.txt"));
    std::fs::write(&path, contents).unwrap();
    path
}

/// A file of so many pseudo-random bytes, each 64 KiB of the second half equal to some of the first.
fn noise(test: &str, len: usize) -> PathBuf {
    let mut state = 1u64;
    let mut words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32).to_le_bytes()
    });
    let mut bytes: Vec<u8> = words.by_ref().flat_map(|word| [word[0], word[1], word[2]]).take(len).collect();
    let half = (len / (2 << 16)) << 16;
    let (first, second) = bytes.split_at_mut(half);
    second.chunks_mut(1 << 16).zip(first.chunks(1 << 16).rev()).for_each(|(to, from)| {
        let shared = to.len().min(from.len());
        to[..shared].copy_from_slice(&from[..shared]);
    });
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.bin"));
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The demo with a small graph and a file.
fn demo_file(test: &str, path: &std::path::Path, extra: &[&str]) -> Output {
    let graph = ring(test);
    let mut command = limosa(&["demo", "--device", "cpu", "--transfer", "0", "--graph"]);
    command.arg(graph).arg("--file").arg(path).args(extra).output().unwrap()
}

/// What the demo printed, of a file that it verified.
fn verified_file(test: &str, len: usize, extra: &[&str]) -> Option<String> {
    if !has_device(test) {
        return None;
    }
    let path = noise(test, len);
    let output = demo_file(test, &path, extra);
    std::fs::remove_file(path).unwrap();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && error.is_empty(), "{out}\n{error}");
    for part in ["as asked for", "Verified: each fingerprint", "tier", "why not P2p", "evictions", "Belady", "memcpy's"]
    {
        assert!(out.contains(part), "{part:?} is not in:\n{out}");
    }
    Some(out)
}

/// The number in front of `unit` in the row of this name.
fn number_in(out: &str, row: &str, unit: &str) -> f64 {
    let line = out.lines().find(|line| line.trim_start().starts_with(row)).unwrap();
    let before = line.split(unit).next().unwrap();
    before.split_whitespace().last().unwrap().replace(',', "").parse().unwrap()
}

/// A ring of 300 nodes with chords, and 9 nodes that no edge leaves.
fn ring(test: &str) -> PathBuf {
    let edges = (0..300).map(|i| format!("{i}\t{}\n{i} {}\n", (i + 1) % 300, i * i % 317));
    file(test, &format!("# a ring\n{}", edges.collect::<String>()))
}

fn demo(test: &str, extra: &[&str]) -> Option<String> {
    if !has_device(test) {
        return None;
    }
    let path = ring(test);
    let output =
        limosa(&["demo", "--transfer", "4MiB", "--file-limit", "0", "--graph"]).arg(path).args(extra).output().unwrap();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{error}");
    assert!(error.is_empty(), "progress is for terminals only: {error}");
    Some(out)
}

fn assert_complete(out: &str) {
    for part in ["Faulting", "309 nodes", "Verified", "The highest ranks", " 10. ", "edges/s", "memcpy", "GPU faults"] {
        assert!(out.contains(part), "{part:?} is not in:\n{out}");
    }
}

#[test]
fn the_demo_verifies_a_graph_of_the_users() {
    let Some(out) = demo("cli_demo", &[]) else { return };
    assert_complete(&out);
    assert!(out.contains("handler thread"), "{out}");
}

#[test]
fn the_demo_verifies_with_faults_served_in_the_thread() {
    let Some(out) = demo("cli_in_thread", &["--fault-mode", "in-thread", "--check"]) else { return };
    assert_complete(&out);
    assert!(out.contains("in the faulting thread"), "{out}");
}

#[test]
fn the_demo_ranks_the_bundled_graph() {
    if !has_device("cli_bundled") {
        return;
    }
    let output = limosa(&["demo", "--transfer", "0", "--file-limit", "4MiB", "--device", "cpu", "--budget", "64MiB"])
        .output()
        .unwrap();
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}\n{}", text(&output.stderr));
    assert!(out.contains("Debian") && out.contains(" 1. ") && out.contains("libc6"), "{out}");
    // The default file is larger than 4 MiB: the toolchain's, or this program itself.
    assert!(out.contains("the start, see --file-limit") && out.contains("Fingerprints of 64 blocks"), "{out}");
}

#[test]
fn a_malformed_edge_list_is_named_with_its_line() {
    let path = file("cli_malformed", "# list\n1 2\n2 three\n");
    let output = limosa(&["demo", "--graph"]).arg(&path).output().unwrap();
    assert_named_error(&output, &["cli_malformed.txt", "line 3", "2 three"]);
}

#[test]
fn a_missing_edge_list_is_named() {
    let output = limosa(&["demo", "--graph", "/nonexistent/list.txt"]).output().unwrap();
    assert_named_error(&output, &["/nonexistent/list.txt"]);
}

#[test]
fn the_demo_goes_over_a_file_larger_than_the_budget() {
    // The last block has an odd length.
    let Some(out) = verified_file("cli_file", (32 << 20) + 12_345, &[]) else { return };
    assert!(out.contains("Fingerprints of 513 blocks of 64 KiB, 257 of them different"), "{out}");
    assert!(out.contains("the device budget is 8 MiB") && out.contains("68, all queued ahead"), "{out}");
    // Belady's own number, of the library's own moves.
    assert!(number_in(&out, "evictions", " blocks") > 0.0, "{out}");
    assert!(number_in(&out, "the least", " of it moved") >= 1.0, "{out}");
}

#[test]
fn the_demo_goes_over_a_file_with_faults_served_in_the_thread() {
    let extra = ["--fault-mode", "in-thread", "--check"];
    let Some(out) = verified_file("cli_file_in_thread", 20 << 20, &extra) else { return };
    assert!(out.contains("Fingerprints of 320 blocks"), "{out}");
}

#[test]
fn files_of_a_few_bytes_are_verified_too() {
    for (test, len) in [("cli_file_one", 1), ("cli_file_odd", 70_001)] {
        let Some(out) = verified_file(test, len, &[]) else { return };
        assert!(out.contains(&format!("Fingerprints of {} blocks", len.div_ceil(1 << 16))), "{out}");
        assert!(number_in(&out, "the least", " of it moved") <= 1.0, "{out}");
    }
}

#[test]
fn a_file_that_is_missing_empty_or_none_is_named_before_anything_runs() {
    let empty = file("cli_empty", "");
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let missing = std::path::Path::new("/nonexistent/bytes.bin");
    let cases = [
        (missing, &["cannot read /nonexistent/bytes.bin", "No such file"][..]),
        (&empty, &["cli_empty.txt is empty"]),
        (folder, &["is a directory", "--file"]),
        (std::path::Path::new("/dev/zero"), &["/dev/zero is not a regular file"]),
    ];
    for (path, parts) in cases {
        let output = demo_file("cli_bad_file", path, &[]);
        assert_named_error(&output, parts);
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    }
}

#[test]
fn ranks_that_do_not_settle_are_an_error() {
    if !has_device("cli_unsettled") {
        return;
    }
    let path = ring("cli_unsettled");
    let output = limosa(&["demo", "--iterations", "2", "--graph"]).arg(path).output().unwrap();
    assert_named_error(&output, &["no convergence", "2 iterations", "--iterations"]);
}

#[test]
fn a_budget_that_is_too_small_is_named() {
    if !has_device("cli_budget") {
        return;
    }
    let output = limosa(&["demo", "--budget", "1"]).output().unwrap();
    assert_named_error(&output, &["cannot open a context", "1 bytes", "minimum"]);
}

#[test]
fn a_device_that_is_not_there_is_named() {
    if !has_device("cli_device") {
        return;
    }
    let output = limosa(&["demo", "--device", "no such card"]).output().unwrap();
    assert_named_error(&output, &["no such card", "there are"]);
}

#[test]
fn a_wrong_command_line_has_status_2() {
    for arguments in [&["demo", "--budget", "much"][..], &["demo", "--damping", "1"], &["rank"], &[]] {
        assert_eq!(limosa(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn doctor_writes_json_with_its_keys() {
    let usable = has_device("cli_doctor");
    let output = limosa(&["doctor", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in [
        "limosa_version",
        "devices",
        "device_problem",
        "host_engine",
        "huge_pages",
        "kernel_shim",
        "machine",
        "defaults",
    ] {
        assert!(report.get(key).is_some(), "{key}");
    }
    let shim = &report["kernel_shim"];
    let there = shim["devices"].as_array().is_some_and(|devices| !devices.is_empty());
    assert!(there == shim["problem"].is_null(), "devices, or why there are none: {shim}");
    assert!(report["not_built_yet"].as_array().is_some_and(|parts| !parts.is_empty()));
    if !usable {
        return;
    }
    assert_eq!((output.status.code(), &report["usable"]), (Some(0), &true.into()));
    let devices = report["devices"].as_array().unwrap();
    let device = devices.iter().find(|device| device["usable"] == true).unwrap();
    assert_eq!((&device["class"], &device["view"]), (&"Faulting".into(), &"ImportView".into()));
    assert_eq!((&device["kind"], &device["self_test"]), (&"cpu".into(), &"passed".into()));
    let views = device["views"].as_array().unwrap();
    let classes: Vec<_> = views.iter().map(|view| (&view["view"], &view["class"], &view["self_test"])).collect();
    assert_eq!(classes[0], (&"ImportView".into(), &"Faulting".into(), &"passed".into()));
    assert_eq!(classes[1], (&"SparseView".into(), &"Declared".into(), &"passed".into()));
    for key in ["index", "name", "driver", "api", "limits", "missing", "translation", "problem"] {
        assert!(device.get(key).is_some(), "{key}");
    }
}

#[test]
fn doctor_names_reason_and_remedy_where_there_is_no_device() {
    for json in [true, false] {
        let arguments: &[&str] = if json { &["doctor", "--json"] } else { &["doctor"] };
        let mut command = limosa(arguments);
        command.env("VK_DRIVER_FILES", "/nonexistent.json").env("VK_ICD_FILENAMES", "/nonexistent.json");
        let output = command.output().unwrap();
        let out = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{out}");
        assert!(out.contains("remedy") && out.contains("mesa-vulkan-drivers"), "{out}");
        assert!(!json || serde_json::from_str::<serde_json::Value>(&out).unwrap()["usable"] == false);
    }
}
