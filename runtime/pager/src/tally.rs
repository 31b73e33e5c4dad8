//! What a kernel's launches came to, added up over all of them. It does *not* know the kernel: whoever launches it
//! gives the tally with each launch.

use std::sync::Arc;
use std::time::Instant;

use crate::counters::{KernelCounters, LiveKernelCounters, add};

/// The counters of one kernel.
#[derive(Debug, Default)]
pub struct KernelTally(LiveKernelCounters);

impl KernelTally {
    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> KernelCounters {
        self.0.snapshot()
    }
}

/// What one launch adds to its kernel's tally.
#[derive(Debug)]
pub(crate) struct Tallied {
    kernel: Arc<KernelTally>,
    workgroups: u64,
    submitted: Instant,
}

impl Tallied {
    /// A launch that is submitted now.
    pub(crate) fn new(kernel: Arc<KernelTally>, groups: [u32; 3]) -> Self {
        // A grid that is too large is refused later.
        let workgroups = groups.into_iter().map(u64::from).fold(1, u64::saturating_mul);
        Self { kernel, workgroups, submitted: Instant::now() }
    }

    /// It goes to the device.
    pub(crate) fn admitted(&self) {
        let LiveKernelCounters { launches, workgroups, admission_nanos, .. } = &self.kernel.0;
        add(launches, 1);
        add(workgroups, self.workgroups);
        add(admission_nanos, u64::try_from(self.submitted.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// Its admission took so many blocks to the device.
    pub(crate) fn brought(&self, blocks: u32) {
        add(&self.kernel.0.blocks_brought, blocks.into());
    }

    pub(crate) fn met_a_fault(&self) {
        add(&self.kernel.0.faults, 1);
    }

    /// It will never run, or has gone wrong for the first time.
    pub(crate) fn failed(&self) {
        add(&self.kernel.0.launches_failed, 1);
    }
}
