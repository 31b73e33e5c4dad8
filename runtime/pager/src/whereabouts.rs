//! What an address has to do with the allocations around it, by address, name and in words. For messages: nothing is
//! decided by it.

use std::fmt;
use std::sync::{Arc, PoisonError};

use limosa_model::{Extent, HostAddr, HostRange, Nearby, Relation};

use crate::core::Core;

/// Where an address is, seen from the allocation that it has most to do with: its `Display` is a phrase such as
/// `byte 4096 of "weights", 65536 bytes at 0x7f…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The allocation.
    pub allocation: HostRange,
    /// Its name, if it has one: what was freed has none any more.
    pub name: Option<Arc<str>>,
    /// How the address lies to it.
    pub relation: Relation,
}

/// The same, borrowed.
struct Phrase<'a> {
    allocation: HostRange,
    name: Option<&'a Arc<str>>,
    relation: Relation,
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Phrase { allocation: self.allocation, name: self.name.as_ref(), relation: self.relation }.fmt(f)
    }
}

impl fmt::Display for Phrase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostRange { start: HostAddr(start), len } = self.allocation;
        match self.relation {
            Relation::Inside(at) => write!(f, "byte {at} of ")?,
            Relation::Past(by) => write!(f, "{by} bytes past the end of ")?,
            Relation::Before(by) => write!(f, "{by} bytes before ")?,
            Relation::Freed(at) => return write!(f, "byte {at} of the {len} bytes at {start:#x}, which were freed"),
        }
        match self.name {
            Some(name) => write!(f, "\"{name}\", {len} bytes at {start:#x}"),
            None => write!(f, "the allocation of {len} bytes at {start:#x}"),
        }
    }
}

impl Core {
    /// Calls `tell` with what is near, and its name. Allocates nothing, so it is allowed in signal mode.
    fn phrase<T>(&self, Nearby { allocation, relation }: Nearby, tell: impl FnOnce(Phrase<'_>) -> T) -> T {
        let Extent { start, len } = allocation;
        let allocation = HostRange { start: self.address(start), len };
        self.allocations.with_name(start, |name| tell(Phrase { allocation, name, relation }))
    }

    fn whereabouts_of(&self, nearby: Nearby) -> Whereabouts {
        self.phrase(nearby, |Phrase { allocation, name, relation }| Whereabouts {
            allocation,
            name: name.map(Arc::clone),
            relation,
        })
    }

    fn inside(&self, offset: u64) -> Option<Nearby> {
        let allocation = self.allocations.extent_at(offset)?;
        Some(Nearby { allocation, relation: Relation::Inside(offset - allocation.start) })
    }

    /// What is near where nobody may wait, also in signal mode: outside of all allocations, it is not known while
    /// somebody allocates or frees.
    fn nearby_at_once(&self, offset: u64) -> Option<Nearby> {
        self.inside(offset).or_else(|| self.arena.try_lock().ok()?.nearby(offset))
    }

    /// Where an offset is. For the application's threads.
    pub(crate) fn whereabouts(&self, offset: u64) -> Option<Whereabouts> {
        let nearby = self.arena.lock().unwrap_or_else(PoisonError::into_inner).nearby(offset);
        nearby.map(|nearby| self.whereabouts_of(nearby))
    }

    /// The same for threads that must not wait.
    pub(crate) fn whereabouts_at_once(&self, offset: u64) -> Option<Whereabouts> {
        self.nearby_at_once(offset).map(|nearby| self.whereabouts_of(nearby))
    }

    /// Writes the same behind a colon. Allowed in signal mode.
    pub(crate) fn write_whereabouts(&self, offset: u64, line: &mut impl fmt::Write) {
        if let Some(nearby) = self.nearby_at_once(offset) {
            // Cut short where it is too long.
            let _ = self.phrase(nearby, |phrase| write!(line, ": {phrase}"));
        }
    }

    /// Where the first allocated byte of `extent` is.
    pub(crate) fn first_whereabouts(&self, extent: Extent) -> Option<Whereabouts> {
        let nearby = self.inside(self.allocations.first_in(extent)?)?;
        Some(self.whereabouts_of(nearby))
    }
}
