//! `limosa scan` as a user runs it, against an oracle that knows nothing of fingerprints. What needs the software device
//! skips aloud without it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do; clippy knows only test functions")]

mod common;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{has_device, limosa, text};
use serde_json::Value;

/// An empty folder for the test of this name, gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
        // Of a run that was cut short.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: impl AsRef<OsStr>, contents: &[u8]) -> PathBuf {
        let path = self.0.join(name.as_ref());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Bytes that look random.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32).to_le_bytes()
    });
    words.flat_map(|word| [word[0], word[1], word[2]]).take(len).collect()
}

/// Runs a scan; none where there is no device.
fn scan(test: &str, path: &Path, arguments: &[&str]) -> Option<Output> {
    has_device(test).then(|| limosa(&["scan", "--device", "cpu"]).args(arguments).arg(path).output().unwrap())
}

/// The report of a scan that verifies itself, and its exit status.
fn report(test: &str, path: &Path, arguments: &[&str]) -> Option<(Value, Option<i32>)> {
    let output = scan(test, path, &[&["--json", "--verify"], arguments].concat())?;
    let error = text(&output.stderr);
    assert!(error.is_empty(), "{error}");
    Some((serde_json::from_slice(&output.stdout).unwrap(), output.status.code()))
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {report:#}"))
}

/// Blocks, bytes, and those of them that are elsewhere before.
fn expected(files: &[&[u8]], block: usize) -> [u64; 4] {
    let mut seen = HashSet::new();
    let mut sums = [0; 4];
    for block in files.iter().flat_map(|file| file.chunks(block)) {
        let again = u64::from(!seen.insert(block));
        let len = block.len() as u64;
        sums.iter_mut().zip([1, len, again, again * len]).for_each(|(sum, add)| *sum += add);
    }
    sums
}

fn found(report: &Value) -> [u64; 4] {
    ["blocks", "bytes", "duplicate_blocks", "duplicate_bytes"].map(|key| number(report, key))
}

fn left_out(report: &Value, what: &str) -> u64 {
    let all = report["left_out"].as_array().unwrap();
    all.iter().find(|one| one["what"].as_str().unwrap().contains(what)).map_or(0, |one| number(one, "count"))
}

/// Files with what they have in common, at odd places and of odd lengths.
fn related() -> Vec<(&'static str, Vec<u8>)> {
    let base = noise(1, 300_001);
    let mut changed = base.clone();
    changed[70_000] ^= 1;
    vec![
        ("a/base", base.clone()),
        ("a/copy", base.clone()),
        ("b/changed", changed),
        ("b/longer", [&base[..], b"more"].concat()),
        ("b/shifted", [b"x", &base[..]].concat()),
        ("c/deep/er/start", base[..131_072].to_vec()),
        ("c/zeros", vec![0; 200_000]),
        ("one", vec![7]),
        ("other", vec![7]),
        ("zz", noise(2, 17 << 20)),
    ]
}

#[test]
fn duplicates_are_those_of_the_bytes() {
    let folder = Folder::new("scan_bytes");
    let files = related();
    files.iter().for_each(|(name, contents)| drop(folder.file(name, contents)));
    let contents: Vec<&[u8]> = files.iter().map(|(_, contents)| &contents[..]).collect();
    for (size, block) in [("4KiB", 4 << 10), ("64KiB", 64 << 10), ("16MiB", 16 << 20)] {
        let arguments = ["--block", size, "--budget", "256MiB"];
        let Some((report, status)) = report("scan_bytes", &folder.0, &arguments) else { return };
        let expected = expected(&contents, block);
        assert_eq!((found(&report), status), (expected, Some(0)), "blocks of {size}");
        assert_eq!(number(&report, "verified_duplicates"), expected[2]);
        assert_eq!(number(&report, "files"), files.len() as u64);
        let largest = &report["largest"][0];
        assert_eq!(number(largest, "bytes"), 300_001);
        assert!(largest["file"].as_str().unwrap().ends_with("a/copy"), "{largest}");
        assert!(largest["of_file"].as_str().unwrap().ends_with("a/base"), "{largest}");
    }
}

#[test]
fn what_cannot_be_read_is_told_and_holds_nothing_up() {
    let folder = Folder::new("scan_odd");
    let contents = noise(3, 100_000);
    folder.file("plain", &contents);
    folder.file(OsStr::from_bytes(b"not\xffUTF\n8"), &contents);
    folder.file("empty", b"");
    let locked = folder.file("locked", b"secret");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    fs::hard_link(folder.0.join("plain"), folder.0.join("plain again")).unwrap();
    symlink(".", folder.0.join("loop")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.0.join("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(folder.0.join("s")).unwrap();
    // Root may read it all the same.
    let locked_out = File::open(&locked).is_err();
    let Some((report, status)) = report("scan_odd", &folder.0, &["--block", "64KiB"]) else { return };
    let secret: &[u8] = if locked_out { b"" } else { b"secret" };
    assert_eq!(found(&report), expected(&[&contents, &contents, secret], 64 << 10));
    assert_eq!(status, Some(i32::from(locked_out)));
    for (what, times) in [("empty", 1), ("links", 1), ("further names", 1), ("pipes", 1), ("sockets", 1)] {
        assert_eq!(left_out(&report, what), times, "{what}: {report:#}");
    }
    assert_eq!(report["not_read"].as_array().unwrap().len(), usize::from(locked_out));
    assert!(report["largest"][0]["file"].as_str().unwrap().ends_with("plain"), "{report:#}");
    // As text, too; and what is named and missing is no reason to leave the rest out.
    let missing = folder.0.join("missing");
    let output = scan("scan_odd", &folder.0, &[missing.to_str().unwrap()]).unwrap();
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(out.contains("missing: No such file") && out.contains("1 pipes"), "{out}");
    assert!(out.contains("not\u{fffd}UTF\\n8") && out.contains("no cryptography"), "{out}");
}

/// Files of /sys say that they have 4096 bytes, and have fewer.
#[test]
fn a_file_that_ends_early_does_not_count() {
    let short = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    if !fs::metadata(short).is_ok_and(|metadata| metadata.len() == 4096) {
        return common::skip("scan_short", "sysfs", "no file that is shorter than it says");
    }
    let folder = Folder::new("scan_short");
    let contents = noise(4, 10_000);
    folder.file("a", &contents);
    folder.file("b", &contents);
    let Some((report, status)) = report("scan_short", &folder.0, &[short.to_str().unwrap()]) else { return };
    assert_eq!((found(&report), status), (expected(&[&contents, &contents], 64 << 10), Some(1)), "{report:#}");
    let unread = &report["not_read"][0];
    assert!(unread["file"].as_str().unwrap() == short.to_str().unwrap(), "{report:#}");
}

/// Whether the process has this file open.
fn has_open(process: u32, path: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    open.into_iter().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == path))
}

/// It changes when its first windows have been read, and the others have not.
#[test]
fn a_file_that_changes_meanwhile_does_not_count() {
    if !has_device("scan_changing") {
        return;
    }
    let folder = Folder::new("scan_changing");
    let contents = noise(5, 1 << 20);
    let changing = folder.file("0", &contents);
    let mut file = File::options().append(true).open(&changing).unwrap();
    file.set_len(1 << 30).unwrap();
    folder.file("a", &contents);
    folder.file("z", &contents);
    let mut command = limosa(&["scan", "--device", "cpu", "--json", "--verify"]);
    let mut scan = command.arg(&folder.0).stdout(Stdio::piped()).spawn().unwrap();
    while !has_open(scan.id(), &changing) && scan.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    file.write_all(b"more").unwrap();
    let output = scan.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Nor is anything a duplicate of it.
    assert_eq!(found(&report), expected(&[&contents, &contents], 64 << 10), "{report:#}");
    assert_eq!(output.status.code(), Some(1));
    let unread = &report["not_read"][0];
    assert!(unread["file"].as_str().unwrap().ends_with("/0"), "{report:#}");
    assert!(unread["reason"].as_str().unwrap().contains("changed"), "{report:#}");
}

#[test]
fn the_table_may_exceed_device_memory() {
    let folder = Folder::new("scan_table");
    let contents = noise(6, 24 << 20);
    folder.file("a", &contents);
    folder.file("b", &contents[4096..]);
    // Nothing but a hole: one block, again and again.
    let hole = 512u64 << 20;
    File::create(folder.0.join("hole")).unwrap().set_len(hole).unwrap();
    for view in ["sparse", "import"] {
        let arguments = ["--block", "4KiB", "--budget", "8MiB", "--view", view, "--top", "2"];
        let Some((report, status)) = report("scan_table", &folder.0, &arguments) else { return };
        assert_eq!(status, Some(0));
        let [mut blocks, mut bytes, mut again, mut bytes_again] = expected(&[&contents, &contents[4096..]], 4096);
        (blocks, bytes) = (blocks + hole / 4096, bytes + hole);
        (again, bytes_again) = (again + hole / 4096 - 1, bytes_again + hole - 4096);
        assert_eq!(found(&report), [blocks, bytes, again, bytes_again], "{view}");
        assert!(number(&report, "table_bytes") > number(&report, "device_budget"), "{view}: {report:#}");
        let [first, second] = [0, 1].map(|index| &report["largest"][index]);
        assert_eq!((number(first, "bytes"), &first["repeats"]), (hole - 4096, &Value::Bool(true)));
        assert_eq!((number(second, "bytes"), number(second, "of_offset")), ((24 << 20) - 4096, 4096));
    }
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let folder = Folder::new("scan_sizes");
    folder.file("a", b"a");
    let Some(output) = scan("scan_sizes", &folder.0, &["--block", "16MiB", "--budget", "64MiB"]) else { return };
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(["--block", "--depth", "--budget", "100663296"].iter().all(|part| error.contains(part)), "{error}");
    for arguments in [&["--block", "96KiB"][..], &["--block", "32MiB"], &["--depth", "0"]] {
        assert_eq!(scan("scan_sizes", &folder.0, arguments).unwrap().status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(limosa(&["scan"]).output().unwrap().status.code(), Some(2));
}

/// More blocks than can be counted, of a file that has none of its bytes on the disk.
#[test]
fn more_blocks_than_there_is_room_for_are_an_error() {
    let folder = Folder::new("scan_huge");
    let huge = File::create(folder.0.join("huge")).unwrap();
    if let Err(error) = huge.set_len(1 << 45) {
        return common::skip("scan_huge", "large files", &error.to_string());
    }
    let Some(output) = scan("scan_huge", &folder.0, &["--block", "4KiB"]) else { return };
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(["huge alone", "8589934592 blocks", "--block"].iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn the_only_tier_is_taken_or_why_not_is_told() {
    let folder = Folder::new("scan_tiers");
    let contents = noise(7, 300_000);
    folder.file("a", &contents);
    folder.file("b", &contents);
    for (argument, tier) in [("direct", "Direct"), ("staged", "Staged"), ("buffered", "Buffered")] {
        let Some((report, status)) = report("scan_tiers", &folder.0, &["--tier", argument]) else { return };
        let unread = report["not_read"].as_array().unwrap();
        if unread.is_empty() {
            assert_eq!((found(&report), status), (expected(&[&contents, &contents], 64 << 10), Some(0)));
            // What is not aligned at the end of a file has no other way.
            let share = report["tiers"].as_array().unwrap().iter().find(|share| share["tier"] == tier).unwrap();
            assert!(number(share, "bytes") >= 2 * (300_000 - 4096), "{report:#}");
        } else {
            assert_eq!((found(&report), status, unread.len()), ([0; 4], Some(1), 2), "{report:#}");
            assert!(tier != "Buffered" && unread[0]["reason"].as_str().unwrap().contains(tier), "{report:#}");
        }
    }
}

#[test]
fn nothing_to_scan_is_no_error() {
    let folder = Folder::new("scan_nothing");
    let Some((report, status)) = report("scan_nothing", &folder.0, &[]) else { return };
    assert_eq!((found(&report), status), ([0; 4], Some(0)));
}
