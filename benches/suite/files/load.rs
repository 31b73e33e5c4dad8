//! What is asked of a file: in which direction and order, in which requests, and what came of it.

use std::fmt;
use std::time::Duration;

use limosa::Direction;

/// A load, the same for all that take it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) direction: Direction,
    /// Requests at random places, or one after the other.
    pub(crate) random: bool,
    /// Bytes of a request.
    pub(crate) request: usize,
    /// Requests in flight.
    pub(crate) depth: u32,
}

impl Load {
    pub(crate) const fn new(direction: Direction, request: usize, depth: u32) -> Self {
        Self { direction, random: false, request, depth }
    }

    pub(crate) const fn at_random(self) -> Self {
        Self { random: true, ..self }
    }

    /// How much is moved at a time, of a file of so many bytes: less where requests are small.
    pub(crate) fn bytes(&self, file: usize) -> usize {
        if self.request < 64 << 10 { file / 4 } else { file }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.direction == Direction::FromFile { "read" } else { "write" };
        let random = if self.random { "random " } else { "" };
        let (size, unit) = match self.request {
            kib if kib < 1 << 20 => (kib >> 10, "KiB"),
            mib => (mib >> 20, "MiB"),
        };
        write!(f, "{random}{verb}, {size} {unit} × {}", self.depth)
    }
}

/// What came of a load.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) bytes: usize,
    pub(crate) requests: f64,
    pub(crate) time: Duration,
    /// Seconds of all processors that the process had, user and system.
    pub(crate) cpu: f64,
}

impl Figures {
    pub(crate) const COLUMNS: usize = 3;

    /// GB/s, requests a second, CPU ms a GiB.
    pub(crate) fn columns(&self) -> [f64; Self::COLUMNS] {
        let seconds = self.time.as_secs_f64();
        let gib = self.bytes as f64 / f64::from(1 << 30);
        [self.bytes as f64 / seconds / 1e9, self.requests / seconds, self.cpu * 1e3 / gib]
    }
}

/// Seconds of all processors that this process has had.
pub(crate) fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes one timespec.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
