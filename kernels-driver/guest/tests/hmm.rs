//! What the kernel's own tests of HMM leave open. `hmm-tests` is a program of its own here: it runs in full against the
//! shim's companion, for private and for coherent memory, and none of its cases may fail. These tests make sure that it skips
//! none for want of devices, and tell how fast the companion is beside the kernel's own driver.
//!
//! The kernel's driver (`test_hmm`) is not put to `hmm-tests` here: with coherent memory it fails eight cases, some of them
//! with an oops, after which the guest is good for nothing.

#![allow(clippy::unwrap_used)] // tests

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use limosa_guest::protocol::{FIGURE, PAYLOAD};

/// The module that serves the nodes with the shim's means.
const OURS: &str = "limosa-dmirror";
/// The kernel's own, which serves the same.
const KERNELS: &str = "test_hmm";
/// Private and coherent memory, two devices each.
const NODES: [&str; 4] = ["/dev/hmm_dmirror0", "/dev/hmm_dmirror1", "/dev/hmm_dmirror2", "/dev/hmm_dmirror3"];

#[test]
fn there_are_two_devices_with_each_kind_of_memory() {
    for node in NODES {
        File::open(node).unwrap_or_else(|error| panic!("{node}: {error}"));
    }
}

/// The figures are for the guide; what each page holds is checked on the way.
#[test]
fn pages_are_moved_as_they_were_by_both_drivers() {
    bench(OURS, NODES[0]);
    bench(OURS, NODES[2]);
    let theirs = InPlaceOfOurs::load();
    bench(KERNELS, NODES[0]);
    drop(theirs);
    assert!(is_loaded(OURS));
}

/// The kernel's driver, until this is dropped: then it is ours again, for the tests after this one, however this one ends.
struct InPlaceOfOurs;

impl InPlaceOfOurs {
    fn load() -> Self {
        tool("rmmod", &[OURS]);
        let guard = Self;
        tool("insmod", &[&payload(&format!("{KERNELS}.ko"))]);
        guard
    }
}

impl Drop for InPlaceOfOurs {
    fn drop(&mut self) {
        // No panic here: one may be under way. Who needs the module will miss it.
        let ours = payload(&format!("{OURS}.ko"));
        for (program, argument) in [("rmmod", KERNELS), ("insmod", ours.as_str())] {
            let status = Command::new(program).arg(argument).status();
            if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
                println!("{program} {argument}: {status:?}");
            }
        }
    }
}

fn is_loaded(module: &str) -> bool {
    Path::new("/sys/module").join(module.replace('-', "_")).exists()
}

fn bench(driver: &str, node: &str) {
    let figures = tool(&payload("dmirror-bench"), &[node]);
    figures.lines().for_each(|line| println!("{FIGURE}{driver} {line}"));
    assert_eq!(figures.lines().count(), 2, "{figures}");
}

/// Runs a program and gives what it says.
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn payload(file: &str) -> String {
    let path: PathBuf = Path::new(PAYLOAD).join(file);
    path.to_string_lossy().into_owned()
}
