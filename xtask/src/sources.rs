//! Rules of source files that no lint of rustc or clippy knows: unsafe code is forbidden where there is to be none,
//! tests do not sleep, and long files are noticed. It looks at lines, not at syntax, and changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

const LINES_MAX: usize = 600;
const EXTENSIONS: [&str; 6] = ["rs", "comp", "glsl", "c", "h", "sh"];

/// What the source files of a folder break.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) errors: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Looks at every source file below `root`, and at the `safe_roots` (crate, file) for their promise.
pub(crate) fn check(root: &Path, safe_roots: &[(&str, &str)]) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    for (name, file) in safe_roots {
        if !forbids_unsafe(&read(Path::new(file))?) {
            findings.errors.push(format!("{name}: {file} lacks `#![forbid(unsafe_code)]`"));
        }
    }
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    for file in files {
        let text = read(&file)?;
        let shown = file.strip_prefix(root).unwrap_or(&file);
        check_file(shown, &text, &mut findings);
    }
    Ok(findings)
}

fn check_file(file: &Path, text: &str, findings: &mut Findings) {
    let lines = text.lines().count();
    if lines > LINES_MAX && !text.lines().any(|line| line.trim_start().starts_with("// long-file: ")) {
        let file = file.display();
        findings
            .warnings
            .push(format!("{file}: {lines} lines; split it, or say why not with `// long-file: <reason>`"));
    }
    if file.extension().is_some_and(|extension| extension == "rs") {
        for line in sleeps_in_tests(file, text) {
            let file = file.display();
            findings
                .errors
                .push(format!("{file}:{line}: a test sleeps; wait for the event itself, or with a deadline"));
        }
    }
}

/// The numbers of the lines on which a test sleeps. Tests are files below a folder `tests` or named `tests.rs`, and in
/// other files what follows `#[cfg(test)]`, which stands last in ours.
fn sleeps_in_tests(file: &Path, text: &str) -> Vec<usize> {
    let is_test_file = file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
    let mut in_test = is_test_file;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        in_test |= line.trim() == "#[cfg(test)]";
        let code = line.split("//").next().unwrap_or_default();
        if in_test && code.contains(concat!("thread::", "sleep")) {
            found.push(number);
        }
    }
    found
}

fn forbids_unsafe(text: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with("#![forbid(") && line.contains("unsafe_code"))
}

fn read(file: &Path) -> Result<String, Error> {
    fs::read_to_string(file).map_err(Error::io(format!("cannot read {}", file.display())))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = || format!("cannot read the folder {}", folder.display());
    for entry in fs::read_dir(folder).map_err(Error::io(failed()))? {
        let entry = entry.map_err(Error::io(failed()))?;
        let (name, path) = (entry.file_name(), entry.path());
        let kind = entry.file_type().map_err(Error::io(failed()))?;
        // Hidden folders and build output are not ours to judge. Links are not followed.
        if kind.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            collect(&path, files)?;
        } else if kind.is_file()
            && path.extension().and_then(|end| end.to_str()).is_some_and(|end| EXTENSIONS.contains(&end))
        {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLEEP: &str = concat!("std::thread::", "sleep(TICK);\n");

    #[test]
    fn a_sleep_is_an_error_in_tests_only() {
        let in_code = format!("fn wait() {{\n{SLEEP}}}\n");
        assert!(sleeps_in_tests(Path::new("src/a.rs"), &in_code).is_empty());
        assert_eq!(sleeps_in_tests(Path::new("tests/a.rs"), &in_code), [2]);
        assert_eq!(sleeps_in_tests(Path::new("src/tests.rs"), &in_code), [2]);
        let in_module = format!("{SLEEP}#[cfg(test)]\nmod tests {{\n// {SLEEP}{SLEEP}}}\n");
        assert_eq!(sleeps_in_tests(Path::new("src/a.rs"), &in_module), [5]);
    }

    #[test]
    fn a_long_file_is_a_warning_unless_it_says_why() {
        let long = "// line\n".repeat(LINES_MAX + 1);
        let mut findings = Findings::default();
        check_file(Path::new("a.comp"), &long, &mut findings);
        check_file(Path::new("b.rs"), &format!("{long}// long-file: a table\n"), &mut findings);
        assert!(findings.errors.is_empty());
        assert!(findings.warnings.len() == 1 && findings.warnings[0].starts_with("a.comp: 601 lines"), "{findings:?}");
    }

    #[test]
    fn the_promise_of_no_unsafe_is_found() {
        assert!(forbids_unsafe("//! A crate.\n#![forbid(unsafe_code)]\n"));
        assert!(forbids_unsafe("#![forbid(missing_docs, unsafe_code)]"));
        assert!(!forbids_unsafe("// #![forbid(unsafe_code)]\n#![deny(unsafe_code)]"));
    }
}
