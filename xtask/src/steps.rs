//! The steps of `cargo xtask test`, `check`, `demo`, `shaders` and `bindings`: what runs in which order, and what is said
//! of it. The tests themselves are in the crates; this file knows only how they are run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::command::{TempDir, cargo, is_root, output, root, run, say, set_mode};
use crate::error::Error;
use crate::setup::{Purpose, setup};
use crate::{benches, guest, layering, sources};

/// What the machine is meant to have: a test that misses one of these fails instead of skipping.
pub(crate) const EXPECTED: &str = "lavapipe,userfaultfd,glslang,libclang,fio";
/// The uid and gid of "nobody" on every Debian.
const UNPRIVILEGED: &str = "65534";

/// One step: its name, and what it does given the folder for temporary files.
struct Step {
    name: &'static str,
    action: fn(&Path) -> Result<(), Error>,
}

const LINTS: [Step; 4] = [
    Step { name: "layering and source rules", action: |_| rules() },
    Step { name: "format", action: |_| run(&mut cargo(&["fmt", "--all", "--check"])) },
    Step {
        name: "clippy",
        action: |_| {
            run(&mut cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--features",
                "limosa/inject,limosa-guest/guest",
                "--",
                "-D",
                "warnings",
            ]))
        },
    },
    Step { name: "documentation", action: |_| documentation() },
];

// The comparison of the SPIR-V with its sources is one of limosa-shaders' tests, that of the bindings with the header one of
// limosa-os'.
const TESTS: [Step; 6] = [
    Step { name: "tests, SPIR-V and bindings included", action: tests },
    Step { name: "tests as an unprivileged user", action: unprivileged },
    Step { name: "examples", action: |_| examples() },
    Step { name: "benches, as little as shows they run", action: |temp| benches::smoke(temp, &skips_file(temp)) },
    Step { name: "demo", action: |_| demo_run(&[]) },
    Step {
        name: "the kernel shim, in its guest",
        action: |temp| guest::test(&guest::Options::default(), Some(&skips_file(temp))),
    },
];

/// `cargo xtask test`: everything, in the order of how soon it fails.
pub(crate) fn test(no_install: bool, no_guest: bool) -> Result<(), Error> {
    if !no_guest {
        // What would else fail after all the other steps fails before them.
        guest::ready()?;
    }
    setup(Purpose::Test, no_install)?;
    if !no_guest {
        setup(Purpose::Guest, no_install)?;
    }
    let [rules, format, clippy, documentation] = &LINTS;
    let [tests, unprivileged, examples, benches, demo, guest] = &TESTS;
    let mut steps = vec![rules, format, clippy, tests, unprivileged, examples, benches, documentation, demo];
    if !no_guest {
        steps.push(guest);
    }
    run_steps(&steps)
}

/// `cargo xtask check`: the lints alone. Nothing is installed for it.
pub(crate) fn check() -> Result<(), Error> {
    run_steps(&LINTS.each_ref())
}

/// `cargo xtask bench --check`: the benches' step of the tests alone.
pub(crate) fn check_benches() -> Result<(), Error> {
    let [_, _, _, benches, ..] = &TESTS;
    run_steps(&[benches])
}

/// `cargo xtask demo`: sets the machine up and runs the demo with `arguments`.
pub(crate) fn demo(no_install: bool, arguments: &[String]) -> Result<(), Error> {
    say("1/2 set-up: the software Vulkan driver");
    setup(Purpose::Run, no_install)?;
    say("2/2 demo: built on first use, then run");
    demo_run(arguments)
}

/// `cargo xtask shaders`: makes the checked-in SPIR-V anew, or with `check` compares it with its sources.
pub(crate) fn shaders(check: bool) -> Result<(), Error> {
    let (name, value) = if check { ("LIMOSA_EXPECT", "glslang") } else { ("LIMOSA_REGENERATE", "1") };
    run(cargo(&["test", "--package", "limosa-shaders", "--test", "spirv"]).env(name, value))
}

/// `cargo xtask bindings`: makes the checked-in bindings of the kernel module's header anew, or with `check` compares them
/// with it.
pub(crate) fn bindings(check: bool) -> Result<(), Error> {
    let (name, value) = if check { ("LIMOSA_EXPECT", "libclang") } else { ("LIMOSA_REGENERATE", "1") };
    run(cargo(&["test", "--package", "limosa-os", "--test", "bindings"]).env(name, value))
}

fn demo_run(arguments: &[String]) -> Result<(), Error> {
    run(cargo(&["run", "--release", "--package", "limosa-cli", "--bin", "limosa", "--", "demo"]).args(arguments))
}

fn rules() -> Result<(), Error> {
    let crates = layering::workspace()?;
    let mut broken = layering::violations(&crates);
    let findings = sources::check(&root(), &layering::safe_roots(&crates))?;
    for warning in findings.warnings {
        say(&format!("warning: {warning}"));
    }
    broken.extend(findings.errors);
    if broken.is_empty() { Ok(()) } else { Err(Error::Rules(broken)) }
}

fn documentation() -> Result<(), Error> {
    run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Where tests append a line for each test that they skip: `SKIP <test>: <why>`.
fn skips_file(temp: &Path) -> PathBuf {
    temp.join("skips")
}

fn tests(temp: &Path) -> Result<(), Error> {
    let mut command = cargo(&["test", "--workspace", "--features", "inject"]);
    run(command.env("LIMOSA_EXPECT", EXPECTED).env("LIMOSA_SKIPS", skips_file(temp)))
}

/// The test targets that run as nobody, too: the end-to-end tests, the coherence oracle's clean histories, and transfers.
const UNPRIVILEGED_TARGETS: [(&str, &[&str]); 3] =
    [("unprivileged", &[]), ("oracle", &["coherent"]), ("streaming", &["failures", "file_systems", "cancelled"])];

/// Runs some test targets as nobody, from a folder that nobody can reach: a checkout of root's often cannot be.
fn unprivileged(temp: &Path) -> Result<(), Error> {
    let home = temp.join("nobody");
    std::fs::create_dir(&home).map_err(Error::io(format!("cannot make the folder {}", home.display())))?;
    set_mode(&home, 0o1777)?;
    let skips = skips_file(temp);
    UNPRIVILEGED_TARGETS.iter().try_for_each(|(target, arguments)| as_nobody(&home, &skips, target, arguments))
}

fn as_nobody(home: &Path, skips: &Path, target: &str, arguments: &[&str]) -> Result<(), Error> {
    // Of the whole workspace, as the tests before: other features of the dependencies would have them built anew.
    let mut build = cargo(&["test", "--workspace", "--features", "inject", "--no-run"]);
    let built = output(build.args(["--test", target, "--message-format=json-render-diagnostics"]))?;
    let built = executables(&String::from_utf8_lossy(&built), "test").remove(target);
    let executable = built.ok_or_else(|| Error::Output {
        what: "cargo's messages".to_owned(),
        detail: format!("no executable for the test target `{target}` of limosa"),
    })?;
    let copy = home.join(target);
    std::fs::copy(&executable, &copy).map_err(Error::io(format!("cannot copy {executable} to {}", copy.display())))?;
    set_mode(&copy, 0o755)?;

    let mut command = if is_root() {
        let mut setpriv = Command::new("setpriv");
        setpriv.args([&format!("--reuid={UNPRIVILEGED}"), &format!("--regid={UNPRIVILEGED}")]);
        setpriv.arg("--clear-groups").arg(&copy);
        setpriv
    } else {
        Command::new(&copy)
    };
    command.args(arguments).current_dir(home).env("TMPDIR", home).env("HOME", home);
    // Root's folders, where Mesa would look for its cache.
    command.env_remove("XDG_CACHE_HOME").env_remove("XDG_RUNTIME_DIR");
    run(command.env("LIMOSA_EXPECT", EXPECTED).env("LIMOSA_SKIPS", skips))
}

/// Runs every example: each verifies what it computed, and its exit status tells. The tests have built them already, as
/// they are asked for here.
fn examples() -> Result<(), Error> {
    let mut build = cargo(&["build", "--workspace", "--examples", "--features", "inject"]);
    let built = output(build.arg("--message-format=json-render-diagnostics"))?;
    let examples = executables(&String::from_utf8_lossy(&built), "example");
    if examples.is_empty() {
        let detail = "no executable of an example".to_owned();
        return Err(Error::Output { what: "cargo's messages".to_owned(), detail });
    }
    examples.iter().try_for_each(|(_, executable)| run(&mut Command::new(executable)))
}

/// The targets of a kind in cargo's messages, one JSON object a line, with their executables, by name.
pub(crate) fn executables(messages: &str, kind: &str) -> BTreeMap<String, String> {
    executables_in("", messages, kind)
}

/// The same of the packages in a folder of the workspace: names of targets are a package's own.
pub(crate) fn executables_in(folder: &str, messages: &str, kind: &str) -> BTreeMap<String, String> {
    let folder = root().join(folder);
    let within =
        |message: &Value| message["manifest_path"].as_str().is_some_and(|path| Path::new(path).starts_with(&folder));
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(within);
    let artifacts = messages.filter(|message| message["reason"] == "compiler-artifact");
    let of_kind = artifacts.filter(|message| message["target"]["kind"] == serde_json::json!([kind]));
    let named = |message: Value| {
        Some((message["target"]["name"].as_str()?.to_owned(), message["executable"].as_str()?.to_owned()))
    };
    of_kind.filter_map(named).collect()
}

/// What became of a step.
struct Outcome {
    name: &'static str,
    /// None where an earlier step failed.
    ran: Option<(Duration, bool)>,
}

fn run_steps(steps: &[&Step]) -> Result<(), Error> {
    let temp = TempDir::new()?;
    let skips = skips_file(temp.path());
    std::fs::write(&skips, "").map_err(Error::io(format!("cannot write {}", skips.display())))?;
    // The unprivileged tests append to it too.
    set_mode(&skips, 0o666)?;

    let start = Instant::now();
    let mut outcomes = Vec::new();
    let mut failure = None;
    for (number, step) in (1..).zip(steps) {
        let mut outcome = Outcome { name: step.name, ran: None };
        if failure.is_none() {
            let elapsed = start.elapsed().as_secs_f64();
            say(&format!("step {number}/{}: {} (after {elapsed:.1} s)", steps.len(), step.name));
            let step_start = Instant::now();
            let result = (step.action)(temp.path());
            outcome.ran = Some((step_start.elapsed(), result.is_ok()));
            failure = result.err().map(|cause| Error::Step { step: step.name, cause: Box::new(cause) });
        }
        outcomes.push(outcome);
    }
    let skipped = std::fs::read(&skips).map_err(Error::io(format!("cannot read {}", skips.display())))?;
    print!("{}", summary(&outcomes, &String::from_utf8_lossy(&skipped), start.elapsed()));
    failure.map_or(Ok(()), Err)
}

fn summary(outcomes: &[Outcome], skipped: &str, total: Duration) -> String {
    let mut text = "\nxtask: summary\n".to_owned();
    for outcome in outcomes {
        // Writing to a String cannot fail.
        let _ = match outcome.ran {
            Some((took, passed)) => {
                let word = if passed { "ok" } else { "FAILED" };
                writeln!(text, "  {:<32}{:>8.1} s  {word}", outcome.name, took.as_secs_f64())
            }
            None => writeln!(text, "  {:<32}{:>8} s  not run", outcome.name, "-"),
        };
    }
    // Harness threads append whole lines, so the order is theirs; the same test may skip in two steps.
    let skips: Vec<&str> = skipped.lines().filter(|line| line.starts_with("SKIP ")).collect();
    for line in &skips {
        let _ = writeln!(text, "  {line}");
    }
    let passed = outcomes.iter().filter(|outcome| matches!(outcome.ran, Some((_, true)))).count();
    let (all, skips, seconds) = (outcomes.len(), skips.len(), total.as_secs_f64());
    let _ = writeln!(text, "xtask: {passed} of {all} steps passed, {skips} tests skipped, {seconds:.1} s");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_cargos_messages() {
        let artifact_of = |folder: &str, kind: &str, name: &str, executable: &str| {
            let manifest = root().join(folder).join("Cargo.toml");
            let manifest = manifest.display();
            format!(
                "{{\"reason\":\"compiler-artifact\",\"manifest_path\":\"{manifest}\",\
                 \"target\":{{\"kind\":[\"{kind}\"],\"name\":\"{name}\"}},\"executable\":{executable}}}\n"
            )
        };
        let artifact = |kind: &str, name: &str, executable: &str| artifact_of("runtime", kind, name, executable);
        let messages = [
            artifact("lib", "limosa", "null"),
            "not json\n".to_owned(),
            artifact("test", "unprivileged", "\"/t/u-1\""),
            artifact("example", "tree", "\"/e/tree\""),
            artifact("example", "bfs", "\"/e/bfs\""),
            "{\"reason\":\"build-finished\",\"success\":true}\n".to_owned(),
        ];
        let found = |kind| executables(&messages.concat(), kind).into_iter().collect::<Vec<_>>();
        let pair = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        assert_eq!(found("test"), [pair("unprivileged", "/t/u-1")]);
        assert_eq!(found("example"), [pair("bfs", "/e/bfs"), pair("tree", "/e/tree")]);
        assert_eq!(found("lib"), []);

        let namesakes = [
            artifact_of("kernels-driver/guest", "test", "limits", "\"/t/ours\""),
            artifact("test", "limits", "\"/t/theirs\""),
        ];
        let ours = executables_in("kernels-driver/guest", &namesakes.concat(), "test");
        assert_eq!(ours.into_iter().collect::<Vec<_>>(), [pair("limits", "/t/ours")]);
    }

    #[test]
    fn the_summary_tells_every_step_and_every_skip() {
        let outcomes = [
            Outcome { name: "format", ran: Some((Duration::from_millis(1500), true)) },
            Outcome { name: "tests", ran: Some((Duration::from_secs(61), false)) },
            Outcome { name: "demo", ran: None },
        ];
        let text = summary(&outcomes, "SKIP hugepages: none\nnoise\n", Duration::from_secs(63));
        for part in
            ["1.5 s  ok", "61.0 s  FAILED", "not run", "  SKIP hugepages: none", "1 of 3 steps", "1 tests skipped"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
