//! What a queue has the host do, in its order like launches: prefetches and discards, and nothing at all, to tell that
//! what came before is over. Data moves on the notifier's threads, under no lock but those of the moves.
//!
//! It takes no holds. Like a thread of the application that prefetches, it may wait for launches that run and for moves,
//! and neither waits for it; a launch that waits for it is not admitted and holds nothing. So no cycle goes through it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use limosa_model::{Extent, Side};

use crate::core::Core;
use crate::error::PagerError;
use crate::event::{LaunchEvent, LaunchMark};
use crate::launch::LaunchQueue;
use crate::notifier::Job;
use crate::record::Record;
use crate::scheduler::{Pending, Work};

/// What a marker does to those behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Nothing: on an out-of-order queue they may pass it.
    Passes,
    /// They wait for it.
    Stops,
}

impl LaunchQueue {
    /// An event for when `after` are over; if there are none, or the queue is in order, for when all before it on the queue
    /// is.
    ///
    /// # Errors
    /// [`PagerError::Os`] if an event of another heap is to be waited for and no thread for that can be had;
    /// [`limosa_gpu::GpuError::DeviceLost`].
    pub fn marker(&self, marker: Marker, after: &[LaunchEvent]) -> Result<LaunchEvent, PagerError> {
        let name = if marker == Marker::Stops { "the barrier" } else { "the marker" };
        self.submit_host(Record::of_host(name, self.heap().core().id), Work::Marker(marker), after, Vec::new())
    }

    /// Has `extents` brought to `side`; see [`crate::Heap::prefetch_batch`]. `keep` keeps them allocated until then.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`], [`PagerError::RangeTooLarge`], [`PagerError::OverDeviceLimit`], those of
    /// [`Self::marker`]. What goes wrong later is told by the event.
    pub fn prefetch<K: Send + 'static>(
        &self,
        side: Side,
        extents: Vec<Extent>,
        keep: K,
        after: &[LaunchEvent],
    ) -> Result<LaunchEvent, PagerError> {
        self.heap().check_room(side, &self.heap().whole_blocks(&extents)?)?;
        let heap = Arc::clone(self.heap());
        self.submit_task("the prefetch", after, Vec::new(), move || {
            let _keep = keep;
            heap.prefetch_batch(side, &extents)
        })
    }

    /// Has `extents` discarded, behind all of `behind`; see [`crate::Heap::discard_batch`].
    ///
    /// # Errors
    /// As [`Self::prefetch`].
    pub fn discard<K: Send + 'static>(
        &self,
        extents: Vec<Extent>,
        keep: K,
        after: &[LaunchEvent],
        behind: Vec<LaunchMark>,
    ) -> Result<LaunchEvent, PagerError> {
        self.heap().check_allocated(&extents)?;
        let heap = Arc::clone(self.heap());
        self.submit_task("the discard", after, behind, move || {
            let _keep = keep;
            heap.discard_batch(&extents)
        })
    }

    fn submit_task(
        &self,
        name: &str,
        after: &[LaunchEvent],
        behind: Vec<LaunchMark>,
        task: impl FnOnce() -> Result<(), PagerError> + Send + 'static,
    ) -> Result<LaunchEvent, PagerError> {
        let heap = Arc::clone(self.heap());
        let record = Record::of_host(name, heap.core().id);
        let own = Arc::clone(&record);
        let job: Job = Box::new(move || {
            let panicked = |_| Err(PagerError::NotDone { what: own.name.clone(), reason: "it panicked".into() });
            let result = catch_unwind(AssertUnwindSafe(task)).unwrap_or_else(panicked);
            heap.core().finish(&own, result);
        });
        self.heap().core().notifier.announce()?;
        let submitted = self.submit_host(record, Work::Task(job), after, behind);
        submitted.inspect_err(|_| self.heap().core().notifier.forgo())
    }

    pub(crate) fn submit_host(
        &self,
        record: Arc<Record>,
        work: Work,
        after: &[LaunchEvent],
        behind: Vec<LaunchMark>,
    ) -> Result<LaunchEvent, PagerError> {
        let (heap, queue) = (Arc::clone(self.heap()), Arc::clone(self.queue()));
        let after = heap.wait_list(after)?;
        let behind = behind.into_iter().filter_map(|mark| mark.before(&queue)).collect();
        let (own, line) = (Arc::clone(&record), Arc::clone(&queue));
        heap.core().drop_discarded();
        heap.core().submit(Pending { record: own, queue: line, work, after, behind, everything: false })?;
        Ok(LaunchEvent { record, queue: Some(queue), heap })
    }
}

impl Core {
    /// What the host was to do is done. On a thread of the notifier's.
    fn finish(&self, record: &Arc<Record>, result: Result<(), PagerError>) {
        self.scheduler.finished(record);
        let notices = match result {
            Ok(()) => record.done(),
            Err(error) => record.fail(error),
        };
        self.ended(notices);
    }
}
