//! How often each ioctl ended with each errno: counted in memory that a worker shares with its children, printed as one
//! line, and added up. It also knows what must have come up, so that a fuzzer that only ever hears EINVAL fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::raw::memory;
use crate::shape::SHAPES;

/// Above all errnos that Linux has.
const ERRNOS: usize = 136;
/// The row of ioctls that there are not.
pub const UNKNOWN: usize = SHAPES.len();
const ROWS: usize = UNKNOWN + 1;

/// What each ioctl of a device must have ended with at least once; in addition [`must`].
const ALL: &[i32] = &[0, libc::EINVAL, libc::E2BIG, libc::EOPNOTSUPP, libc::EFAULT, libc::EPERM, libc::ENOTTY];

/// The counts.
#[derive(Clone, Copy)]
pub struct Tally(usize);

impl Tally {
    /// All zero, shared with children to be.
    pub fn new() -> Self {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let at = memory::map(0, ROWS * ERRNOS * 8, libc::PROT_READ | libc::PROT_WRITE, flags, -1);
        Self(at.unwrap_or_else(|error| panic!("mmap: {error}")))
    }

    /// Counts one.
    pub fn count(&self, row: usize, errno: i32) {
        self.at(row, usize::try_from(errno).map_or(ERRNOS - 1, |errno| errno.min(ERRNOS - 1)))
            .fetch_add(1, Ordering::Relaxed);
    }

    /// A line for [`Sum::add`].
    pub fn line(&self) -> String {
        let all = (0..ROWS).flat_map(|row| (0..ERRNOS).map(move |errno| (row, errno)));
        let some = all.filter(|(row, errno)| self.get(*row, *errno) > 0);
        let words = some.map(|(row, errno)| format!("{row}:{errno}:{}", self.get(row, errno)));
        format!("TALLY {}", words.collect::<Vec<_>>().join(" "))
    }

    fn get(&self, row: usize, errno: usize) -> u64 {
        self.at(row, errno).load(Ordering::Relaxed)
    }

    fn at(&self, row: usize, errno: usize) -> &AtomicU64 {
        assert!(row < ROWS && errno < ERRNOS);
        // SAFETY: within the mapping, which stays.
        unsafe { memory::word(self.0 + 8 * (row * ERRNOS + errno)) }
    }
}

/// The counts of all workers.
#[derive(Default)]
pub struct Sum(BTreeMap<(usize, i32), u64>);

impl Sum {
    /// Adds a worker's line. Whether it was one.
    pub fn add(&mut self, line: &str) -> bool {
        let Some(words) = line.strip_prefix("TALLY ") else { return false };
        for word in words.split_whitespace() {
            let mut numbers = word.split(':').filter_map(|number| number.parse::<u64>().ok());
            if let (Some(row), Some(errno), Some(count)) = (numbers.next(), numbers.next(), numbers.next()) {
                let key = (usize::try_from(row).unwrap_or(UNKNOWN), i32::try_from(errno).unwrap_or(-1));
                *self.0.entry(key).or_default() += count;
            }
        }
        true
    }

    /// All calls.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Prints all, and gives what never came up but must.
    pub fn print(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for row in 0..ROWS {
            let name = SHAPES.get(row).map_or("unknown", |shape| shape.name);
            let had = self.0.iter().filter(|((of, _), _)| *of == row);
            let had: Vec<_> = had.map(|((_, errno), count)| format!("{} {count}", text(*errno))).collect();
            println!("  {name:10} {}", had.join(", "));
            for errno in must(row) {
                if !self.0.contains_key(&(row, errno)) {
                    missing.push(format!("{name} never ended with {}", text(errno)));
                }
            }
        }
        missing
    }
}

/// What a row must have ended with.
fn must(row: usize) -> Vec<i32> {
    match SHAPES.get(row) {
        None => vec![libc::ENOTTY],
        Some(shape) => ALL.iter().chain(shape.must).copied().collect(),
    }
}

/// The name of an errno.
pub fn text(errno: i32) -> String {
    let names = [
        (0, "success"),
        (libc::EINVAL, "EINVAL"),
        (libc::E2BIG, "E2BIG"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EFAULT, "EFAULT"),
        (libc::EPERM, "EPERM"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::EBADF, "EBADF"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EDQUOT, "EDQUOT"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EINTR, "EINTR"),
        (libc::EBUSY, "EBUSY"),
        (libc::ENODEV, "ENODEV"),
        (libc::EMFILE, "EMFILE"),
        (libc::EIO, "EIO"),
    ];
    names.iter().find(|(of, _)| *of == errno).map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).into())
}
