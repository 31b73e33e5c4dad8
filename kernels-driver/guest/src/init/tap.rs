//! TAP, as the kernel's selftests write it: results by name from the lines of standard output.

use limosa_guest::protocol::Outcome;

/// What a program told.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Told {
    pub(crate) results: Vec<Result>,
    /// Whether one of them failed.
    pub(crate) failed: bool,
    /// What is wrong with the telling: fewer results than announced, or no announcement.
    pub(crate) missing: Option<String>,
}

/// One test's result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Result {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// The lines since the result before.
    pub(crate) said: String,
}

pub(crate) fn parse(text: &str) -> Told {
    let mut told = Told::default();
    let mut announced = None;
    let mut said = String::new();
    for line in text.lines() {
        if let Some(count) = line.strip_prefix("1..").and_then(|count| count.split(' ').next()?.parse::<usize>().ok()) {
            announced = Some(count);
        } else if let Some((name, outcome)) = result(line) {
            told.failed |= matches!(outcome, Outcome::Failed(_));
            told.results.push(Result { name, outcome, said: std::mem::take(&mut said) });
        } else {
            said.push_str(line);
            said.push('\n');
        }
    }
    told.missing = match announced {
        None => Some("it announced no tests".to_owned()),
        Some(count) if count == told.results.len() => None,
        Some(count) => Some(format!("it announced {count} tests and told of {}", told.results.len())),
    };
    told
}

/// `ok 3 name`, `not ok 3 name # why`, `ok 3 name # SKIP why`; some write a dash before the name.
fn result(line: &str) -> Option<(String, Outcome)> {
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ')?;
    number.parse::<u32>().ok()?;
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let (name, note) = rest.split_once(" # ").unwrap_or((rest, ""));
    let outcome = match note.strip_prefix("SKIP") {
        Some(why) => Outcome::Skipped(why.trim().to_owned()),
        None if passed => Outcome::Passed,
        None => Outcome::Failed(if note.is_empty() { "not ok".to_owned() } else { note.to_owned() }),
    };
    Some((name.trim().to_owned(), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kselftest_harness.h writes it.
    const TEXT: &str = "\
TAP version 13
1..3
# Starting 3 tests from 2 test cases.
#  RUN           hmm.hmm_device_private.open_close ...
#            OK  hmm.hmm_device_private.open_close
ok 1 hmm.hmm_device_private.open_close
#  RUN           hmm.hmm_device_private.anon_read ...
# hmm-tests.c:330:anon_read:Expected ret (-1) == 0 (0)
# anon_read: Test terminated by assertion
#          FAIL  hmm.hmm_device_private.anon_read
not ok 2 hmm.hmm_device_private.anon_read
#  RUN           hmm.hmm_device_private.huge ...
#      SKIP      Huge page could not be allocated
#            OK  hmm.hmm_device_private.huge
ok 3 hmm.hmm_device_private.huge # SKIP Huge page could not be allocated
# FAILED: 2 / 3 tests passed.
# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0
";

    #[test]
    fn results_are_told_by_name_with_what_was_said() {
        let told = parse(TEXT);
        let names: Vec<&str> = told.results.iter().map(|one| one.name.as_str()).collect();
        let prefix = "hmm.hmm_device_private.";
        assert_eq!(names, ["open_close", "anon_read", "huge"].map(|name| format!("{prefix}{name}")));
        assert_eq!(told.results[0].outcome, Outcome::Passed);
        assert_eq!(told.results[1].outcome, Outcome::Failed("not ok".to_owned()));
        assert!(told.results[1].said.contains("Expected ret (-1)"));
        assert_eq!(told.results[2].outcome, Outcome::Skipped("Huge page could not be allocated".to_owned()));
        assert_eq!((told.failed, told.missing), (true, None));
    }

    #[test]
    fn a_program_that_dies_has_told_of_too_few() {
        let text: String = TEXT.lines().take(6).map(|line| format!("{line}\n")).collect();
        assert_eq!(parse(&text).missing.unwrap(), "it announced 3 tests and told of 1");
        assert!(parse("Segmentation fault\n").missing.is_some());
    }
}
