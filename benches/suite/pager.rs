//! The pager's own calls, without the public API above them: what the API's overhead is measured against. It compares
//! and reflects nothing, and keeps nothing of the caller's alive.

use std::sync::Arc;

use limosa_gpu::Kernel;
use limosa_model::Extent;
use limosa_pager::{AllocationOptions, Heap, KernelTally, Launch, LaunchEvent, LaunchQueue};
use limosa_shaders::fill;

/// An allocation in a heap, and a kernel that fills none of its words.
pub(crate) struct Pager {
    target: Extent,
    kernel: Arc<Kernel>,
    tally: Arc<KernelTally>,
    queue: LaunchQueue,
    heap: Arc<Heap>,
}

impl Pager {
    /// On a heap that others use as well: on a device of its own, the driver's threads would be others, and what they do
    /// to each other is far more than what is looked for.
    pub(crate) fn new(heap: &Arc<Heap>, bytes: u64) -> Self {
        let kernel = heap.kernel(fill::KERNEL.name, &fill::KERNEL.words(), "main").unwrap();
        let target = heap.allocate(bytes, 4, &AllocationOptions::default()).unwrap();
        let (queue, tally) = (LaunchQueue::new(heap).unwrap(), Arc::default());
        Self { target, kernel, tally, queue, heap: Arc::clone(heap) }
    }

    /// An empty launch that declares that it writes the allocation.
    pub(crate) fn launch(&self) -> LaunchEvent {
        let mut arguments = Vec::with_capacity(24);
        arguments.extend_from_slice(&self.heap.address(self.target.start).0.to_ne_bytes());
        arguments.extend_from_slice(&[0; 16]);
        let launch = Launch {
            kernel: Arc::clone(&self.kernel),
            tally: Arc::clone(&self.tally),
            groups: [1, 1, 1],
            arguments,
            pointers: Vec::new(),
            reads: Vec::new(),
            writes: vec![self.target],
            overwrites: Vec::new(),
            everything: false,
            undeclared: false,
            after: Vec::new(),
            behind: Vec::new(),
            keep: Box::new(()),
        };
        // SAFETY: fill writes none of the allocation's words.
        unsafe { self.queue.launch(launch) }.unwrap()
    }
}
