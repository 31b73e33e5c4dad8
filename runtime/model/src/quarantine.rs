//! Stretches that were freed and rest before they are used again, so that whoever still points there is caught.
//! It does *not* know what is allocated.

use std::collections::{BTreeMap, VecDeque};

use crate::geometry::Extent;

/// A freed allocation at rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resting {
    /// What cannot be used meanwhile.
    pub(crate) stretch: Extent,
    /// What the allocation was.
    pub(crate) was: Extent,
}

/// Freed stretches, oldest first, up to a number of bytes.
#[derive(Debug)]
pub(crate) struct Quarantine {
    by_start: BTreeMap<u64, Resting>,
    /// Their starts in the order in which they came; those that left out of turn are skipped.
    order: VecDeque<u64>,
    bytes: u64,
    limit: u64,
}

impl Quarantine {
    pub(crate) fn new(limit: u64) -> Self {
        Self { by_start: BTreeMap::new(), order: VecDeque::new(), bytes: 0, limit }
    }

    pub(crate) fn enter(&mut self, resting: Resting) {
        self.bytes += resting.stretch.len;
        self.order.push_back(resting.stretch.start);
        self.by_start.insert(resting.stretch.start, resting);
    }

    /// The oldest, if there are more bytes than may rest: it is free from now on.
    pub(crate) fn surplus(&mut self) -> Option<Extent> {
        if self.bytes > self.limit { self.release() } else { None }
    }

    /// The oldest: it is free from now on.
    pub(crate) fn release(&mut self) -> Option<Extent> {
        while let Some(start) = self.order.pop_front() {
            if let Some(resting) = self.by_start.remove(&start) {
                self.bytes -= resting.stretch.len;
                return Some(resting.stretch);
            }
        }
        None
    }

    /// Takes the stretch that contains `offset` out for good: it will not be free.
    pub(crate) fn withhold(&mut self, offset: u64) {
        if let Some(resting) = self.containing(offset) {
            self.by_start.remove(&resting.stretch.start);
            self.bytes -= resting.stretch.len;
        }
    }

    pub(crate) fn containing(&self, offset: u64) -> Option<Resting> {
        let (_, resting) = self.by_start.range(..=offset).next_back()?;
        (offset < resting.stretch.end()).then_some(*resting)
    }
}
