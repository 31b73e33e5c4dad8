//! Judging the kernel's log: what in it means that something went wrong, though every test passed. Pure.

/// What the kernel's reports begin with or have in their first line. Case counts.
const REPORTS: [&str; 34] = [
    "WARNING: ",
    "BUG: ",
    "BUG at ",
    "kernel BUG",
    "Oops",
    "general protection fault",
    "Kernel panic",
    "unable to handle",
    "KASAN",
    "UBSAN",
    "KMSAN",
    "KFENCE",
    "KCSAN",
    "possible circular locking",
    "possible recursive locking",
    "possible irq lock inversion",
    "inconsistent lock state",
    "inconsistent {",
    "bad unlock balance",
    "held lock freed",
    "still held when returning to user space",
    "lock held when returning to user space",
    "suspicious RCU usage",
    "sleeping function called from invalid context",
    "scheduling while atomic",
    "blocked for more than",
    "soft lockup",
    "hard LOCKUP",
    "self-detected stall",
    "detected stalls",
    "ODEBUG:",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
];

/// What has such words and means nothing, with the reason.
const HARMLESS: [(&str, &str); 0] = [];

/// How many lines after its first belong to a report.
const CONTEXT: usize = 40;
/// How many lines before it are shown: what the test did.
const BEFORE: usize = 3;
/// Reports that are shown in full: the first tells most.
const SHOWN: usize = 4;

/// A report in the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// The line that it begins with.
    pub(super) first: String,
    /// That line among its neighbours.
    pub(super) context: String,
}

/// The reports in a log. Lines that belong to a report begin no other.
pub(super) fn judge(log: &str) -> Vec<Report> {
    let lines: Vec<&str> = log.lines().map(|line| line.trim_end_matches('\r')).collect();
    let mut reports = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if !is_report(message(lines[at])) {
            at += 1;
            continue;
        }
        let end = (at + CONTEXT).min(lines.len());
        let end = (at + 1..end).find(|&line| is_end(lines[line])).map_or(end, |line| line + 1);
        let context = lines[at.saturating_sub(BEFORE)..end].join("\n");
        reports.push(Report { first: message(lines[at]).to_owned(), context });
        at = end;
    }
    reports
}

/// The reports in words.
pub(super) fn shown(reports: &[Report]) -> String {
    let shown: Vec<String> = reports.iter().take(SHOWN).map(|report| report.context.clone()).collect();
    let mut text = shown.join("\n  …\n");
    if reports.len() > SHOWN {
        text.push_str(&format!("\n  … and {} more", reports.len() - SHOWN));
    }
    text
}

fn is_report(message: &str) -> bool {
    REPORTS.iter().any(|word| message.contains(word)) && !HARMLESS.iter().any(|(line, _)| message.contains(line))
}

fn is_end(line: &str) -> bool {
    line.contains("---[ end trace") || line.contains("</TASK>")
}

/// A line without its time: `[   12.345678] text`, or with the thread `[   12.345678][  T123] text`.
fn message(line: &str) -> &str {
    let mut rest = line;
    while let Some((inside, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let plain = |c: char| c.is_ascii_digit() || matches!(c, ' ' | '.' | 'T' | 'C');
        if !inside.chars().all(plain) {
            break;
        }
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first lines of reports as kernels wrote them.
    const BAD: [&str; 18] = [
        "[   14.219233] WARNING: CPU: 1 PID: 212 at mm/memremap.c:162 memunmap_pages+0x2a1/0x2c0",
        "[   14.219233] WARNING: mm/memory.c:1234 at do_swap_page+0x12/0x20, CPU#1: stress/212",
        "[    3.112233] BUG: kernel NULL pointer dereference, address: 0000000000000010",
        "[    3.112233] BUG: unable to handle page fault for address: ffffea0040000008",
        "[   33.123456] Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]",
        "[    8.000001] kernel BUG at mm/migrate_device.c:740!",
        "[  242.683712] INFO: task hmm-tests:311 blocked for more than 120 seconds.",
        "[   48.120011] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [stress:377]",
        "[   81.020031] rcu: INFO: rcu_preempt self-detected stall on CPU",
        "[   81.020031] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "[    7.331200] WARNING: possible circular locking dependency detected",
        "[    7.331200] WARNING: inconsistent lock state",
        "[    7.331200] BUG: sleeping function called from invalid context at mm/page_alloc.c:4999",
        "[    9.000100][  T311] BUG: KASAN: slab-use-after-free in limosa_release+0x44/0x90 [limosa]",
        "[    9.000100] UBSAN: shift-out-of-bounds in /limosa/vram.c:12:3",
        "[    9.000100] WARNING: suspicious RCU usage",
        "[    9.000100] refcount_t: underflow; use-after-free.",
        "[   10.100000] BUG: Bad page state in process stress  pfn:380012",
    ];

    /// Lines of a healthy boot and of tests.
    const GOOD: [&str; 7] = [
        "[    0.000000] Command line: console=ttyS0 sysctl.kernel.hung_task_timeout_secs=60 panic=-1",
        "[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable",
        "[    0.264120] rcu: RCU calculated value of scheduler-enlistment delay is 25 jiffies.",
        "[    0.564120] Memory: 2962000K/3145204K available (debugging options enabled)",
        "[    2.100000] limosa: loading out-of-tree module taints kernel.",
        "[    2.100000] limosa 0000:03:00.0: 512 MiB of device memory",
        "[   12.100000] sysrq: Show Blocked State",
    ];

    #[test]
    fn every_kind_of_report_is_found_alone_and_in_a_log() {
        for line in BAD {
            let log = [&GOOD[..], &[line, " Call Trace:", "  <TASK>", "  </TASK>"], &GOOD[..]].concat().join("\r\n");
            let reports = judge(&log);
            assert_eq!(reports.len(), 1, "{line}: {reports:?}");
            assert!(line.ends_with(&reports[0].first), "{reports:?}");
            let context = &reports[0].context;
            assert!(context.contains("Call Trace") && context.contains("512 MiB") && !context.contains("8250"));
        }
    }

    #[test]
    fn a_healthy_log_has_none() {
        assert_eq!(judge(&GOOD.join("\n")), []);
    }

    #[test]
    fn lines_of_a_report_begin_no_other_but_what_follows_its_end_does() {
        let oops = [BAD[2], "#PF: supervisor read access", "Oops: 0000 [#1] SMP", "---[ end trace 0 ]---", BAD[0]];
        let reports = judge(&oops.join("\n"));
        assert_eq!(reports.iter().map(|one| &one.first[..4]).collect::<Vec<_>>(), ["BUG:", "WARN"]);
        assert!(shown(&reports).contains("memremap.c:162"));
    }
}
