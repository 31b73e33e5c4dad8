//! What a stray address has to do with the allocations around it, by address and in words. For messages: nothing is
//! decided by it.

use std::fmt;
use std::sync::PoisonError;

use limosa_model::{Arena, HostAddr, HostRange, Relation};

use crate::core::Core;

/// Where an address is, seen from the allocation that it has most to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The allocation.
    pub allocation: HostRange,
    /// How the address lies to it.
    pub relation: Relation,
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostRange { start: HostAddr(start), len } = self.allocation;
        match self.relation {
            Relation::Inside(at) => write!(f, "byte {at} of the allocation of {len} bytes at {start:#x}"),
            Relation::Past(by) => write!(f, "{by} bytes past the end of the allocation of {len} bytes at {start:#x}"),
            Relation::Before(by) => write!(f, "{by} bytes before the allocation of {len} bytes at {start:#x}"),
            Relation::Freed(at) => write!(f, "byte {at} of the {len} bytes at {start:#x}, which were freed"),
        }
    }
}

impl Core {
    fn whereabouts_in(&self, arena: &Arena, offset: u64) -> Option<Whereabouts> {
        let nearby = arena.nearby(offset)?;
        let allocation = HostRange { start: self.address(nearby.allocation.start), len: nearby.allocation.len };
        Some(Whereabouts { allocation, relation: nearby.relation })
    }

    /// Where an offset is. For the application's threads.
    pub(crate) fn whereabouts(&self, offset: u64) -> Option<Whereabouts> {
        self.whereabouts_in(&self.arena.lock().unwrap_or_else(PoisonError::into_inner), offset)
    }

    /// The same where nobody may wait, also in signal mode: it is not told while somebody allocates or frees.
    pub(crate) fn whereabouts_at_once(&self, offset: u64) -> Option<Whereabouts> {
        self.whereabouts_in(&*self.arena.try_lock().ok()?, offset)
    }
}
