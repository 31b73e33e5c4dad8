//! Running the plan's programs: what each kind of them says becomes outcomes of tests by name.

use std::io;
use std::path::Path;
use std::time::Duration;

use limosa_guest::protocol::{Event, FIGURE, Finished, Kind, Outcome, PAYLOAD, Plan, Program};

use crate::channel::Channel;
use crate::process::{self, Ending, Report};
use crate::tap;

/// The exit status by which the kernel's selftests say that they skipped.
const SKIPPED: i32 = 4;

/// Runs everything that the plan's filters leave.
///
/// # Errors
/// If the host cannot be told, or a process is stuck in the kernel: then nothing after it would mean anything.
pub(crate) fn run_all(plan: &Plan, channel: &Channel) -> io::Result<()> {
    plan.programs.iter().try_for_each(|program| Runner { plan, channel, program }.run())
}

struct Runner<'a> {
    plan: &'a Plan,
    channel: &'a Channel,
    program: &'a Program,
}

impl Runner<'_> {
    fn run(&self) -> io::Result<()> {
        match self.program.kind {
            Kind::Libtest => self.libtest(),
            Kind::Tap => self.tap(),
            Kind::Plain => self.plain(),
        }
    }

    fn libtest(&self) -> io::Result<()> {
        let all = self.list(&[])?;
        let ignored = self.list(&["--ignored"])?;
        for test in all.iter().filter(|test| self.wanted(&self.name(test))) {
            let name = self.name(test);
            if ignored.contains(test) {
                self.tell(&name, Outcome::Skipped("ignored".to_owned()), Duration::ZERO, "")?;
                continue;
            }
            let mut arguments: Vec<&str> = self.program.arguments.iter().map(String::as_str).collect();
            arguments.extend(["--exact", test, "--nocapture", "--test-threads=1"]);
            self.one(&name, &arguments)?;
        }
        Ok(())
    }

    /// The names of a Rust program's tests.
    fn list(&self, which: &[&str]) -> io::Result<Vec<String>> {
        let arguments = [&["--list", "--format", "terse"], which].concat();
        let report = self.process(&arguments)?;
        if !matches!(report.ending, Ending::Exited(status) if status.success()) {
            let name = self.program.name.as_str();
            self.tell(name, Outcome::Failed("it does not list its tests".to_owned()), report.took, &report.output)?;
        }
        Ok(report.output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }

    fn plain(&self) -> io::Result<()> {
        if !self.wanted(&self.program.name) {
            return Ok(());
        }
        let arguments: Vec<&str> = self.program.arguments.iter().map(String::as_str).collect();
        self.one(&self.program.name, &arguments)
    }

    /// One process that is one test.
    fn one(&self, name: &str, arguments: &[&str]) -> io::Result<()> {
        self.start(name)?;
        let report = self.process(arguments)?;
        let outcome = match failure(&report.ending) {
            Some(_) if self.program.kind == Kind::Plain && code(&report.ending) == Some(SKIPPED) => {
                Outcome::Skipped(report.output.lines().last().unwrap_or_default().to_owned())
            }
            Some(why) => Outcome::Failed(why),
            // "SKIP name: why" of the tests' own skipping aloud.
            None => match report.skips.first().and_then(|line| line.split_once(": ")) {
                Some((_, why)) => Outcome::Skipped(why.to_owned()),
                None => Outcome::Passed,
            },
        };
        self.tell(name, outcome, report.took, &report.output)?;
        unless_stuck(name, &report.ending)
    }

    fn tap(&self) -> io::Result<()> {
        let program = self.program.name.as_str();
        // Its own names are known only when they have run: a filter that names none of them may still mean them.
        let begins = |filter: &String| program.contains(filter.as_str()) || filter.starts_with(program);
        if !self.plan.filters.is_empty() && !self.plan.filters.iter().any(begins) {
            return Ok(());
        }
        self.start(program)?;
        let arguments: Vec<&str> = self.program.arguments.iter().map(String::as_str).collect();
        let report = self.process(&arguments)?;
        let told = tap::parse(&report.output);
        for result in told.results {
            let output = if matches!(result.outcome, Outcome::Failed(_)) { result.said.as_str() } else { "" };
            let outcome = permitted(result.outcome, &result.name, &self.program.skips);
            self.tell(&self.name(&result.name), outcome, Duration::ZERO, output)?;
        }
        // A test that failed makes the program fail: that is told already.
        let outcome = match (told.missing, failure(&report.ending)) {
            (None, None) => None,
            (None, Some(_)) if told.failed && code(&report.ending).is_some() => None,
            (Some(missing), None) => Some(missing),
            (missing, Some(why)) => {
                Some(format!("{why}{}", missing.map_or_else(String::new, |more| format!("; {more}"))))
            }
        };
        let outcome = outcome.map_or(Outcome::Passed, Outcome::Failed);
        self.tell(program, outcome, report.took, &report.output)?;
        unless_stuck(program, &report.ending)
    }

    fn process(&self, arguments: &[&str]) -> io::Result<Report> {
        let Program { file, user, limit, .. } = self.program;
        let limit = Duration::from_secs(*limit);
        process::run(&Path::new(PAYLOAD).join(file), arguments, *user, limit, self.plan)
    }

    fn name(&self, test: &str) -> String {
        format!("{}::{test}", self.program.name)
    }

    fn wanted(&self, name: &str) -> bool {
        self.plan.filters.is_empty() || self.plan.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    fn start(&self, test: &str) -> io::Result<()> {
        self.channel.say(&Event::Started { test: test.to_owned(), limit: self.program.limit })
    }

    fn tell(&self, test: &str, outcome: Outcome, took: Duration, output: &str) -> io::Result<()> {
        let output = match (&outcome, self.program.kind) {
            (Outcome::Passed, Kind::Libtest | Kind::Tap) => figures(output),
            (Outcome::Passed, Kind::Plain) | (Outcome::Failed(_) | Outcome::Skipped(_), _) => output.to_owned(),
        };
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.channel.say(&Event::Finished(Finished { test: test.to_owned(), outcome, milliseconds, output }))
    }
}

/// A skip is a failure, but for the tests that may: the guest is made such that the others have what they need.
fn permitted(outcome: Outcome, test: &str, skips: &[String]) -> Outcome {
    match outcome {
        Outcome::Skipped(why) if !skips.iter().any(|may| may == test) => {
            Outcome::Failed(format!("it skipped, which it must not here: {why}"))
        }
        other => other,
    }
}

fn code(ending: &Ending) -> Option<i32> {
    match ending {
        Ending::Exited(status) => status.code(),
        Ending::TimedOut | Ending::Stuck => None,
    }
}

/// The lines of an output that are to be told though all is well.
fn figures(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|line| line.starts_with(FIGURE)).collect();
    lines.join("\n")
}

/// Why it failed, if it did.
fn failure(ending: &Ending) -> Option<String> {
    match ending {
        Ending::Exited(status) if status.success() => None,
        Ending::Exited(status) => Some(status.to_string()),
        Ending::TimedOut => Some("it exceeded its limit and was killed".to_owned()),
        Ending::Stuck => Some("it could not be killed: it is stuck in the kernel".to_owned()),
    }
}

fn unless_stuck(name: &str, ending: &Ending) -> io::Result<()> {
    match ending {
        Ending::Stuck => Err(io::Error::other(format!("{name} is stuck in the kernel; nothing after it was run"))),
        Ending::Exited(_) | Ending::TimedOut => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_may_skips() {
        let (skips, skipped) = (["gup".to_owned()], || Outcome::Skipped("no driver".to_owned()));
        assert_eq!(permitted(skipped(), "gup", &skips), skipped());
        assert!(matches!(permitted(skipped(), "huge", &skips), Outcome::Failed(why) if why.contains("no driver")));
        assert_eq!(permitted(Outcome::Passed, "huge", &skips), Outcome::Passed);
    }
}
