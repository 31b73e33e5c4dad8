//! The pager's own calls, without the public API above them: what the API's overhead is measured against. It compares
//! and reflects nothing, and keeps nothing of the caller's alive.

use std::sync::Arc;

use limosa::{FaultMode, ViewKind};
use limosa_gpu::{Device, DeviceChoice, Instance, Kernel};
use limosa_model::Extent;
use limosa_pager::{Heap, HeapConfig, Launch, LaunchEvent, LaunchQueue, Machine};
use limosa_shaders::fill;

use crate::resident::DEVICE_BUDGET;

/// A heap, an allocation in it, and a kernel that fills none of its words.
pub(crate) struct Pager {
    target: Extent,
    kernel: Arc<Kernel>,
    queue: LaunchQueue,
    heap: Arc<Heap>,
}

impl Pager {
    /// On the device of this name, opened as [`crate::resident::context_by`] opens its own.
    pub(crate) fn new(name: &str, view: ViewKind, heap_bytes: usize, bytes: u64) -> Self {
        let instance = Instance::new().unwrap();
        let adapter = instance.choose(&DeviceChoice::Name(name.to_owned())).unwrap();
        let host_limit = Machine::memory_total() / 4 * 3;
        let config = HeapConfig {
            heap_bytes: heap_bytes as u64,
            host_limit,
            host_budget: host_limit,
            device_budget: DEVICE_BUDGET,
            fault_mode: FaultMode::HandlerThread,
            view: Some(view),
            segment_limit: None,
            staged_copies: false,
            mappings_limit: None,
            device_class: None,
            poison_stale: false,
            check: false,
            check_edge: limosa::Edge::End,
        };
        let heap = Heap::open(&Device::open(&instance, adapter).unwrap(), config).unwrap();
        let kernel = heap.kernel(fill::KERNEL.name, &fill::KERNEL.words(), "main").unwrap();
        let target = heap.allocate(bytes, 4).unwrap();
        Self { target, kernel, queue: LaunchQueue::new(&heap).unwrap(), heap }
    }

    /// An empty launch that declares that it writes the allocation.
    pub(crate) fn launch(&self) -> LaunchEvent {
        let mut arguments = Vec::with_capacity(24);
        arguments.extend_from_slice(&self.heap.address(self.target.start).0.to_ne_bytes());
        arguments.extend_from_slice(&[0; 16]);
        let launch = Launch {
            kernel: Arc::clone(&self.kernel),
            groups: [1, 1, 1],
            arguments,
            pointers: Vec::new(),
            reads: Vec::new(),
            writes: vec![self.target],
            overwrites: Vec::new(),
            everything: false,
            undeclared: false,
            after: Vec::new(),
            keep: Box::new(()),
        };
        // SAFETY: fill writes none of the allocation's words.
        unsafe { self.queue.launch(launch) }.unwrap()
    }
}
