//! Touches that are to end the process by SIGBUS, each in a child made of the test binary itself.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::os::unix::process::ExitStatusExt;

use limosa::{FaultMode, ViewKind};

use super::failure::{child, told};
use super::views::{Way, cases, has_sparse};
use super::{builder, context};

/// Which way a child goes, and whether it writes.
pub fn touches(ways: &[Way]) -> impl Iterator<Item = (String, Way, FaultMode, bool)> {
    cases(ways).flat_map(|(way, mode)| {
        [false, true]
            .map(|write| (format!("{way:?} {mode:?} {}", if write { "wrote" } else { "read" }), way, mode, write))
    })
}

/// Touches a word, which is to end the process.
pub fn touch(word: *mut u32, write: bool) {
    eprintln!("touching {:#x}", word.addr());
    // SAFETY: inside an allocation; nobody else uses it.
    let seen = unsafe {
        if write {
            word.write_volatile(1);
        }
        word.read_volatile()
    };
    println!("survived, and read {seen}");
}

/// Runs `test` as a child for each touch; each ends by SIGBUS with one line that names the `cause`.
pub fn end_by_sigbus(test: &str, ways: &[Way], cause: &str) {
    let Some(_) = context(test, builder()) else { return };
    let sparse = has_sparse(test);
    for (case, way, _, write) in touches(ways).filter(|(_, way, ..)| sparse || way.view != ViewKind::Sparse) {
        let output = child(test, &case, |_| ());
        let text = told(&output);
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{way:?}: {case}: {text}");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let address = errors.lines().find_map(|line| line.strip_prefix("touching ")).unwrap();
        let said: Vec<_> = errors.lines().filter(|line| line.starts_with("limosa: ")).collect();
        assert_eq!(said.len(), 1, "{case}: {text}");
        let verb = if write { "wrote" } else { "read" };
        assert!(said[0].contains(verb) && said[0].contains(cause), "{case}: {text}");
        // The kernel may tell the address of the page only.
        let told = said[0].split("0x").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        assert_eq!(number(told) / 4096, number(address) / 4096, "{case}: {text}");
    }
}
