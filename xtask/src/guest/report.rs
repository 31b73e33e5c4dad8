//! The results of all boots: how they are said while they come, the table at the end, and the verdict.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::protocol::{Finished, Outcome};
use crate::error::Error;

/// The results of one boot.
#[derive(Debug, Default)]
pub(super) struct Boot {
    /// The machine's name.
    pub(super) machine: String,
    pub(super) tests: Vec<Finished>,
    /// What went wrong that is no test's: the kernel's reports, a guest that ended too soon.
    pub(super) faults: Vec<String>,
    pub(super) took: Duration,
}

impl Boot {
    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.tests.iter().filter(|test| which(&test.outcome)).count()
    }

    fn passed(&self) -> usize {
        self.count(|outcome| *outcome == Outcome::Passed)
    }

    fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    fn skipped(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Skipped(_)))
    }
}

/// A test's line, and what it said where that is of interest.
pub(super) fn line(test: &Finished) -> String {
    let (word, why) = match &test.outcome {
        Outcome::Passed => ("ok", String::new()),
        Outcome::Failed(why) => ("FAILED", format!(" ({why})")),
        Outcome::Skipped(why) => ("skipped", format!(" ({why})")),
    };
    let seconds = Duration::from_millis(test.milliseconds).as_secs_f64();
    let mut text = format!("  {:<60}{seconds:>8.2} s  {word}{why}", test.test);
    // The runner has left out what nobody wants to know.
    for said in test.output.lines() {
        let _ = write!(text, "\n    | {said}");
    }
    text
}

/// The table of boots, and what failed once more.
pub(super) fn summary(boots: &[Boot]) -> String {
    let mut text = "\nxtask: the guest's summary\n".to_owned();
    for boot in boots {
        let word = if boot.faults.is_empty() && boot.failed() == 0 { "ok" } else { "FAILED" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  {:<32}{:>8.1} s  {word}: {} passed, {} failed, {} skipped",
            boot.machine,
            boot.took.as_secs_f64(),
            boot.passed(),
            boot.failed(),
            boot.skipped()
        );
        for test in boot.tests.iter().filter(|test| matches!(test.outcome, Outcome::Failed(_))) {
            let _ = writeln!(text, "    {}", line(&Finished { output: String::new(), ..test.clone() }).trim_start());
        }
        // A warning that comes a thousand times is one line.
        let mut faults: Vec<&String> = boot.faults.iter().collect();
        faults.dedup();
        for fault in faults {
            let _ = writeln!(text, "    {fault}");
        }
    }
    text
}

/// Appends the skips to the file that the tests' step counts them by.
pub(super) fn write_skips(boots: &[Boot], file: &Path) -> Result<(), Error> {
    let failed = || Error::io(format!("cannot write {}", file.display()));
    let mut file = OpenOptions::new().append(true).open(file).map_err(failed())?;
    for test in boots.iter().flat_map(|boot| &boot.tests) {
        if let Outcome::Skipped(why) = &test.outcome {
            writeln!(file, "SKIP guest {}: {why}", test.test).map_err(failed())?;
        }
    }
    Ok(())
}

/// Whether all is well: no failure, no fault, and at least one test that passed.
pub(super) fn verdict(boots: &[Boot]) -> Result<(), Error> {
    let failed: usize = boots.iter().map(Boot::failed).sum();
    let faults: usize = boots.iter().map(|boot| boot.faults.len()).sum();
    if failed + faults > 0 {
        return Err(Error::Guest(format!("{failed} tests failed and {faults} faults beside them; see above")));
    }
    if boots.iter().map(|boot| boot.passed()).sum::<usize>() == 0 {
        return Err(Error::Guest("no test passed, if any ran: does the filter fit any?".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, outcome: Outcome) -> Finished {
        Finished { test: name.to_owned(), outcome, milliseconds: 1500, output: "it said\nthis".to_owned() }
    }

    fn boot(tests: Vec<Finished>, faults: &[&str]) -> Boot {
        let faults = faults.iter().map(|&fault| fault.to_owned()).collect();
        Boot { machine: "default".to_owned(), tests, faults, took: Duration::from_secs(8) }
    }

    #[test]
    fn a_failed_test_is_told_with_its_output_and_again_in_the_summary() {
        let failed = test("a::b", Outcome::Failed("signal: 9".to_owned()));
        assert!(line(&failed).contains("FAILED (signal: 9)\n    | it said\n    | this"), "{}", line(&failed));
        let skipped = test("a::c", Outcome::Skipped("no KSM".to_owned()));
        let boots = [boot(vec![failed, skipped, test("a::d", Outcome::Passed)], &[])];
        let text = summary(&boots);
        assert!(text.contains("FAILED: 1 passed, 1 failed, 1 skipped") && text.contains("a::b"), "{text}");
        assert!(verdict(&boots).is_err());
    }

    #[test]
    fn faults_fail_a_run_whose_tests_pass_and_so_does_silence() {
        let pass = || vec![test("a", Outcome::Passed)];
        assert!(verdict(&[boot(pass(), &[])]).is_ok());
        assert!(verdict(&[boot(pass(), &["WARNING: at"])]).is_err());
        assert!(verdict(&[boot(vec![], &[])]).is_err());
        assert!(verdict(&[boot(vec![test("a", Outcome::Skipped("no KSM".to_owned()))], &[])]).is_err());
    }

    #[test]
    fn skips_go_where_the_other_tests_skips_are() {
        let temp = crate::command::TempDir::new().unwrap();
        let file = temp.path().join("skips");
        std::fs::write(&file, "").unwrap();
        write_skips(&[boot(vec![test("a", Outcome::Skipped("no KSM".to_owned()))], &[])], &file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "SKIP guest a: no KSM\n");
    }
}
