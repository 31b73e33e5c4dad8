//! What an address that should not have been touched has to do with the allocations around it: for messages.

use crate::arena::Arena;
use crate::geometry::{BLOCK, Extent};

/// Where an offset is, seen from an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// In it, so many bytes from its start.
    Inside(u64),
    /// So many bytes behind its last.
    Past(u64),
    /// So many bytes before its first.
    Before(u64),
    /// So many bytes from the start of one that was freed.
    Freed(u64),
}

/// The allocation that an offset has most to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nearby {
    /// Its bytes.
    pub allocation: Extent,
    /// Where the offset is.
    pub relation: Relation,
}

/// How far away an allocation is still told of, in bytes.
const NEAR: u64 = 16 * BLOCK;

impl Arena {
    /// The allocation that contains `offset`, or did before it was freed (only those in quarantine are remembered), or
    /// is nearest to it, up to 1 MiB away.
    #[must_use]
    pub fn nearby(&self, offset: u64) -> Option<Nearby> {
        if let Some(allocation) = self.containing(offset) {
            return Some(Nearby { allocation, relation: Relation::Inside(offset - allocation.start) });
        }
        let freed = self.freed(offset);
        if let Some(allocation) = freed.filter(|one| (one.start..one.end()).contains(&offset)) {
            return Some(Nearby { allocation, relation: Relation::Freed(offset - allocation.start) });
        }
        let past = self.last_before(offset).map(|one| (offset - (one.end() - 1), one, true));
        let before = self.first_after(offset).map(|one| (one.start - offset, one, false));
        let nearest = [past, before].into_iter().flatten().min_by_key(|(distance, ..)| *distance);
        let (distance, allocation, is_past) = nearest.filter(|(distance, ..)| *distance <= NEAR)?;
        let relation = if is_past { Relation::Past(distance) } else { Relation::Before(distance) };
        Some(Nearby { allocation, relation })
    }
}
