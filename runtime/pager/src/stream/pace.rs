//! How fast files came, by the drive and from the page cache, so that the faster is chosen where both can be had. It does
//! *not* measure anything: the pump tells it of whole transfers.

use std::collections::HashMap;
use std::time::Duration;

/// Shorter transfers say little.
const BYTES_MIN: u64 = 4 << 20;

/// Bytes a second; of the last transfers that say something.
#[derive(Debug, Default)]
pub(super) struct Pace {
    cached: Option<u64>,
    /// By the file's number.
    drive: HashMap<u64, u64>,
}

impl Pace {
    /// A transfer of one file alone was done.
    pub(super) fn note(&mut self, file: u64, cached: bool, bytes: u64, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        if bytes < BYTES_MIN {
            return;
        }
        let rate = bytes.saturating_mul(1_000_000) / micros;
        if cached {
            self.cached = Some(rate);
        } else {
            self.drive.insert(file, rate);
        }
    }

    /// Whether what the page cache has is to come from there: always, until the drive was seen to be faster.
    pub(super) fn prefers_cache(&self, file: u64) -> bool {
        match (self.cached, self.drive.get(&file)) {
            (Some(cached), Some(drive)) => cached >= *drive,
            _ => true,
        }
    }

    /// A file is closed.
    pub(super) fn forget(&mut self, file: u64) {
        self.drive.remove(&file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_preferred_until_the_drive_was_faster() {
        let mut pace = Pace::default();
        let second = Duration::from_secs(1);
        assert!(pace.prefers_cache(1));
        pace.note(1, false, 8 << 30, second);
        assert!(pace.prefers_cache(1), "the cache was never tried");
        pace.note(2, true, 4 << 30, second);
        assert!(!pace.prefers_cache(1));
        assert!(pace.prefers_cache(2), "its drive was never tried");
        pace.note(1, false, 100, second);
        assert!(!pace.prefers_cache(1), "a short one says nothing");
        pace.forget(1);
        assert!(pace.prefers_cache(1));
    }
}
