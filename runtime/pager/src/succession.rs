//! Succession: launches of one in-order queue come one after the other on the device, so that what one holds need not
//! keep the next from being admitted; both hold it then, and it is given up when both are done. So a queue of launches on
//! the same data goes to the device without waits between them. Only where all of a launch's set is on the device: what
//! must move waits for its turn, since to bring it early would take the room of what is used before. It does *not* let
//! anybody else in: not the CPU, nor launches of other queues, nor of queues that are out of order.
//!
//! Where a thread of the CPU's is parked, or one waits to pin, prefetch or discard, nobody succeeds: what runs ends, and
//! its holds with it. (Who is quicker then, that thread or the next launch, is open, as without succession.) Who was
//! submitted before on another queue is looked at first, as ever.

use std::collections::HashMap;
use std::sync::Arc;

use limosa_gpu::Queue;
use limosa_model::{BlockSet, ChunkIndex};

use crate::scheduler::State;

/// The holds that a launch comes after anyhow.
pub(crate) enum Succession {
    /// None that count.
    Nothing,
    /// All but these, which launches of other queues have.
    AllBut(HashMap<ChunkIndex, BlockSet>),
}

impl Succession {
    /// Of a launch that is to come behind what `queue` has on the device.
    pub(crate) fn on(queue: &Arc<Queue>, state: &State) -> Self {
        let own = |timeline| Arc::ptr_eq(timeline, queue.timeline());
        if !queue.is_ordered() || !state.running.iter().any(|one| own(&one.timeline)) {
            return Self::Nothing;
        }
        let mut others: HashMap<ChunkIndex, BlockSet> = HashMap::new();
        let launches = state.running.iter().filter(|one| !own(&one.timeline)).map(|one| &one.record);
        // Transfers may hold what they move; on this queue nothing succeeds them, either.
        for other in launches.chain(state.tasks.iter().map(|task| &task.record)) {
            for (chunk, sets) in other.sets().chunks() {
                *others.entry(chunk).or_default() |= sets.all();
            }
        }
        Self::AllBut(others)
    }

    /// The blocks of `chunk` of which no hold counts.
    pub(crate) fn own(&self, chunk: ChunkIndex) -> BlockSet {
        match self {
            Self::Nothing => BlockSet::EMPTY,
            Self::AllBut(others) => BlockSet::ALL - others.get(&chunk).copied().unwrap_or(BlockSet::EMPTY),
        }
    }
}
