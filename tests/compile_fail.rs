//! Misuse that the compiler refuses, each program of tests/compile_fail for the reason that its second line names: a
//! code of the compiler's, or a part of the message. The messages themselves are the compiler's business.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// A package with each program as a binary, beside this one's dependencies.
fn package(programs: &BTreeMap<String, String>, root: &Path, at: &Path) {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let mut manifest = format!(
        "[package]\nname = \"misuse\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n[workspace]\n\n\
         [dependencies]\nlimosa = {{ path = '{}' }}\nlimosa-shaders = {{ path = '{}' }}\n\
         allocator-api2 = {{ version = \"0.2\", default-features = false }}\n",
        path(root),
        path(&root.join("shaders"))
    );
    for name in programs.keys() {
        let file = root.join("tests/compile_fail").join(format!("{name}.rs"));
        write!(manifest, "\n[[bin]]\nname = \"{name}\"\npath = '{}'\n", path(&file)).unwrap();
    }
    std::fs::create_dir_all(at).unwrap();
    std::fs::write(at.join("Cargo.toml"), manifest).unwrap();
    std::fs::copy(root.join("Cargo.lock"), at.join("Cargo.lock")).unwrap();
}

/// What the compiler says of each program: codes and messages of its errors.
fn errors(at: &Path) -> BTreeMap<String, Vec<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(at).args(["build", "--bins", "--keep-going", "--offline", "--message-format=json"]);
    // Built, not checked: some constants are evaluated only then. In a folder of its own, whatever the caller's is.
    cargo.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages"));
    let output = cargo.output().unwrap();
    let mut errors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let (target, told) = (&message["target"]["name"], &message["message"]);
        if told["level"] == "error" {
            let text =
                format!("{} {}", told["code"]["code"].as_str().unwrap_or(""), told["rendered"].as_str().unwrap());
            errors.entry(target.as_str().unwrap().to_owned()).or_default().push(text);
        }
    }
    assert!(!errors.is_empty(), "nothing failed: {}", String::from_utf8_lossy(&output.stderr));
    errors
}

#[test]
fn misuse_does_not_compile() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = std::fs::read_dir(root.join("tests/compile_fail")).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())
    });
    let programs: BTreeMap<_, _> = programs.collect();
    assert!(programs.len() >= 15);
    let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    package(&programs, root, &at);
    let errors = errors(&at);
    for (name, source) in &programs {
        let expected = source.lines().find_map(|line| line.strip_prefix("//! expect: ")).unwrap();
        let told = errors.get(name).cloned().unwrap_or_default();
        if expected == "nothing" {
            assert!(told.is_empty(), "{name}: {told:#?}");
        } else {
            assert!(told.iter().any(|text| text.contains(expected)), "{name}: {expected} is not in {told:#?}");
        }
    }
}
