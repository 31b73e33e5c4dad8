//! What a heap is opened with. No defaults are hidden elsewhere.

use limosa_model::geometry::round_up;
use limosa_model::{CHUNK, Edge};
use limosa_os::{Delivery, PeerChoice};

use crate::error::PagerError;
use crate::view::ViewKind;

/// Who serves the faults of CPU threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultMode {
    /// A handler thread: always correct, also for system calls on unified memory.
    #[default]
    HandlerThread,
    /// The faulting thread itself, by SIGBUS: faster; a system call on memory that is on the GPU fails with EFAULT.
    InThread,
}

impl FaultMode {
    pub(crate) fn delivery(self) -> Delivery {
        match self {
            Self::HandlerThread => Delivery::Thread,
            Self::InThread => Delivery::Signal,
        }
    }
}

/// What a kernel's access to memory that is not on the device does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceClass {
    /// It is a fault, and served: undeclared access just works.
    #[default]
    Faulting,
    /// It cannot be served: launches declare all that they touch.
    Declared,
}

/// Sizes and modes of a heap.
#[derive(Clone, Copy, Debug)]
pub struct HeapConfig {
    /// Bytes of address space.
    pub heap_bytes: u64,
    /// The most bytes of RAM for host frames: allocations beyond are refused. A chunk of 2 MiB in which anything is
    /// allocated counts, also while its frames are given back.
    pub host_limit: u64,
    /// The bytes of RAM that host frames are kept to where they can: above, those of whole chunks whose data is on the
    /// device, or zeros, are given back in the background. `host_limit` or more: never.
    pub host_budget: u64,
    /// The most bytes of VRAM.
    pub device_budget: u64,
    /// Who serves CPU faults.
    pub fault_mode: FaultMode,
    /// How the device reaches the heap; `None`: the best way that passes the self-test.
    pub view: Option<ViewKind>,
    /// The largest buffer to ask of the driver for [`ViewKind::Sparse`], in bytes; `None`: its own limit.
    pub segment_limit: Option<u64>,
    /// Whose memory [`crate::Home::SharedDevice`] is.
    pub peer_memory: PeerChoice,
    /// Copies through the driver, also where the CPU could use device memory itself ([`ViewKind::Sparse`]).
    pub staged_copies: bool,
    /// The most pieces that bindings may lie in; `None`: what the driver takes ([`ViewKind::Sparse`]).
    pub mappings_limit: Option<u64>,
    /// The class of the device, which may be set lower than what it could do; `None`: the best of the view.
    pub device_class: Option<DeviceClass>,
    /// Overwrite copies that are no longer current with 0xA5, so that a use of one shows.
    pub poison_stale: bool,
    /// Check every GPU access against the launch's declared sets; launches then run one at a time.
    pub check: bool,
    /// At which edge of their blocks allocations lie in check mode.
    pub check_edge: Edge,
}

impl HeapConfig {
    /// The heap's length: whole chunks.
    pub(crate) fn len(&self) -> u64 {
        round_up(self.heap_bytes.max(CHUNK), CHUNK)
    }

    pub(crate) fn check(&self) -> Result<(), PagerError> {
        if self.device_budget < DEVICE_BUDGET_MIN {
            return Err(PagerError::BudgetTooSmall { given: self.device_budget, minimum: DEVICE_BUDGET_MIN });
        }
        Ok(())
    }
}

/// The smallest budget: what the self-test needs, which reads across two chunks and writes across two others.
pub const DEVICE_BUDGET_MIN: u64 = 4 * CHUNK;
/// What a stale copy is overwritten with.
pub(crate) const STALE_BYTE: u8 = 0xA5;
