//! What kind of queue is to be made.

use std::sync::Arc;

use limosa_gpu::QueueOptions;
use limosa_pager::{Heap, LaunchQueue};

use crate::Result;
use crate::queue::Queue;

/// A queue to be: [`Context::queue_builder`](crate::Context::queue_builder).
#[must_use = "a queue is made by `build`"]
pub struct QueueBuilder<'a> {
    heap: &'a Arc<Heap>,
    options: QueueOptions,
}

impl<'a> QueueBuilder<'a> {
    pub(crate) fn new(heap: &'a Arc<Heap>) -> Self {
        Self { heap, options: QueueOptions::default() }
    }

    /// What is submitted later may run beside what was before, or overtake it: order is what
    /// [`after`](crate::Launch::after) and [`Queue::barrier`] say. Launches that conflict by what they declare never run
    /// at once, in whichever order. Default: in order.
    pub fn out_of_order(mut self) -> Self {
        self.options.out_of_order = true;
        self
    }

    /// Notes when its launches are submitted, given to the device, begin and end: [`Event::profile`](crate::Event::profile).
    /// Queues that are not profiled pay nothing for it. Default: not profiled.
    pub fn profiled(mut self) -> Self {
        self.options.profiled = true;
        self
    }

    /// Makes the queue.
    ///
    /// # Errors
    /// [`crate::GpuError::NoTimestamps`] if it is to be profiled, and the device has no timestamps;
    /// [`crate::GpuError::OutOfMemory`].
    pub fn build(self) -> Result<Queue> {
        Ok(Queue { inner: LaunchQueue::with(self.heap, self.options)? })
    }
}
