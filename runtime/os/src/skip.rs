//! How a test says that this machine lacks what it needs. It does *not* find out.

use std::fs::File;
use std::io::Write;

/// Says it, for people and for the list of skipped tests; fails where it is meant to be there.
pub(crate) fn skip(test: &str, what: &str, why: &str) {
    let expected = std::env::var("LIMOSA_EXPECT").unwrap_or_default();
    assert!(!expected.split(',').any(|have| have == what), "{test}: {what} is meant to be there: {why}");
    let line = format!("SKIP {test}: needs {what}: {why}\n");
    print!("{line}");
    if let Ok(path) = std::env::var("LIMOSA_SKIPS") {
        let file = File::options().create(true).append(true).open(path);
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
}
