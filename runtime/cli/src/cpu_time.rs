//! How long the CPU has worked for this process so far, by the kernel's account. It counts in hundredths of a second,
//! and on a software device the kernels' work is among it.

use std::time::Duration;

/// The kernel's unit in /proc, on all architectures that limosa runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Time in user and in system mode, of all threads; zero where /proc does not tell.
pub(crate) fn now() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    parse(&text).unwrap_or_default()
}

fn parse(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses, and may have any characters.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_modes_are_added_up_whatever_the_name() {
        let stat = "7 (a) b) R 1 7 7 0 -1 4194304 97 0 0 0 123 45 6 7 20 0 1 0 5 6 7";
        assert_eq!(parse(stat), Some(Duration::from_millis(1680)));
        assert_eq!(parse("7 (a) R 1"), None);
        // However little it was, it does not go back.
        let before = now();
        assert!(now() >= before);
    }
}
