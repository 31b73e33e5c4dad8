//! Counters of what the heap did, what happened to each allocation, and what each kernel's launches met. They only
//! grow; they are *not* consistent with each other at one instant.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($(#[$about:meta])* $snapshot:ident, $live:ident { $($(#[$doc:meta])* $name:ident),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $snapshot { $($(#[$doc])* pub $name: u64,)* }

        #[derive(Debug, Default)]
        pub(crate) struct $live { $(pub(crate) $name: AtomicU64,)* }

        impl $live {
            pub(crate) fn snapshot(&self) -> $snapshot {
                $snapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl $snapshot {
            /// What was counted after `earlier` was taken.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.wrapping_sub(earlier.$name),)* }
            }
        }
    };
}

counters! {
    /// A snapshot of a heap's counters, since it was opened.
    Counters, LiveCounters {
        /// Faults of CPU threads that read.
        cpu_read_faults,
        /// Faults of CPU threads that wrote.
        cpu_write_faults,
        /// Faults of kernels that read.
        gpu_read_faults,
        /// Faults of kernels that wrote.
        gpu_write_faults,
        /// Faults that had to wait for a move under way.
        faults_parked,
        /// Blocks found to thrash: the CPU and kernels use them at the same time.
        blocks_thrashing,
        /// Faults that had to leave a thrashing block to the other side for a while.
        faults_throttled,
        /// Touches that could not be served.
        faults_refused,
        /// Blocks copied to the device.
        blocks_to_device,
        /// Blocks copied to the host.
        blocks_to_host,
        /// Blocks taken out of device memory to make room, with or without a copy.
        blocks_evicted,
        /// Times the driver had less memory than the device budget, which shrank for a while.
        device_budget_cuts,
        /// Blocks zeroed, on either side.
        blocks_zeroed,
        /// Chunks opened as one huge mapping, on either side.
        chunks_opened,
        /// Chunks read ahead of a stream of CPU reads.
        chunks_read_ahead,
        /// Chunks whose host frames were given back.
        chunks_host_given_back,
        /// Times that giving a chunk's host frames back failed; they are kept, and it is tried again later.
        host_give_backs_failed,
        /// Chunks whose host frames were made because something needed them, after they had been given back or put off.
        chunks_host_brought_back,
        /// Launches submitted.
        launches,
        /// Callbacks and wakers of the application that panicked.
        callbacks_panicked,
    }
}

counters! {
    /// A snapshot of an allocation's counters, since it was made.
    AllocationCounters, LiveAllocationCounters {
        /// Faults of CPU threads that read.
        cpu_read_faults,
        /// Faults of CPU threads that wrote.
        cpu_write_faults,
        /// Faults of kernels that read.
        gpu_read_faults,
        /// Faults of kernels that wrote.
        gpu_write_faults,
        /// Faults that had to leave a thrashing block to the other side for a while.
        faults_throttled,
        /// Blocks copied to the device.
        blocks_to_device,
        /// Blocks copied to the host.
        blocks_to_host,
        /// Blocks taken out of device memory to make room, with or without a copy.
        blocks_evicted,
        /// Blocks that prefetches brought to either side, as copies or as zeros.
        blocks_prefetched,
    }
}

counters! {
    /// A snapshot of a kernel's counters, since it was made.
    KernelCounters, LiveKernelCounters {
        /// Launches that went to the device.
        launches,
        /// Workgroups of these.
        workgroups,
        /// Blocks that were not on the device and that admissions of its launches took there, with or without a copy.
        blocks_brought,
        /// Faults while a launch of it was the oldest on the device. Where kernels of several queues run at the same time,
        /// nobody can tell whose a fault is.
        faults,
        /// Launches that were queued and never ran, and those of which an access could not be served.
        launches_failed,
        /// Nanoseconds that its launches waited from their submission to their going to the device, added up.
        admission_nanos,
    }
}

pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
