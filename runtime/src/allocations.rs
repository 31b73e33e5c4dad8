//! Allocations as a program knows them: named, limited and ranked when they are made, and listed with what became of
//! them. The settings belong to handles of the heap and compose; they move nothing.
//!
//! ```
//! use limosa::{Context, Priority};
//! # fn main() -> limosa::Result<()> {
//! # let context = Context::builder().heap_size(64 << 20).build()?;
//! let heap = context.heap();
//! let weights = heap.named("weights").with_priority(Priority::High).vec_zeroed::<f32>(1 << 18)?;
//! let stream = heap.named("stream").with_device_limit(4 << 20).vec_zeroed::<f32>(4 << 20)?;
//! weights.prefetch_to_device()?;
//! for one in heap.allocations() {
//!     println!("{:?} at {:#x}: {}", one.name, one.range.start.0, one.residency);
//! }
//! // "weights" at 0x7f…: 1 MiB on the device
//! // "stream" at 0x7f…: 16 MiB zero
//! assert_eq!(weights.counters().blocks_prefetched, 16);
//! # drop(stream);
//! # Ok(())
//! # }
//! ```

use limosa_model::Priority;
use limosa_pager::{Allocation, AllocationCounters, Home};

use crate::Result;
use crate::allocation::RawAllocation;
use crate::heap::Heap;
use crate::shareable::Shareable;
use crate::vec::UnifiedVec;

impl Heap {
    /// This heap, for allocations in `home`.
    ///
    /// ```
    /// # fn main() -> limosa::Result<()> {
    /// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
    /// use limosa::Home;
    ///
    /// let shared = context.heap().in_home(Home::Shared);
    /// let mut flags = shared.vec_zeroed::<u32>(16)?;
    /// flags.write()?[0] = 1;
    /// // It is where it is.
    /// flags.prefetch_to_device()?;
    /// assert_eq!(flags.residency_summary().shared, 65536);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn in_home(&self, home: Home) -> Self {
        let mut heap = self.clone();
        heap.options.home = home;
        heap
    }

    /// This heap, for allocations that errors and [`Self::allocations`] call `name`. Names need not be unique.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        let mut heap = self.clone();
        heap.options.name = Some(name.into());
        heap
    }

    /// This heap, for allocations of this priority: what must leave the device to make room is chosen from those of
    /// [`Priority::Low`] before [`Priority::Normal`] before [`Priority::High`].
    ///
    /// Within a priority it is as without: first what no launch in the queue has declared, the least recently used first,
    /// then what is needed last. Before priorities comes [`Advice`](crate::Advice): what prefers the host leaves first,
    /// what prefers the device last. Nothing is kept for good: where there is no other room, High leaves for Low, too.
    /// What the next launch in the queue has declared is spared as long as there is something else in its turn; what the
    /// CPU uses or launches in flight hold is no matter of priorities. Blocks beside some that a launch holds, in one
    /// huge page, may leave later than their priority says.
    ///
    /// It changes no result. Allocations that share a block of 64 KiB with others, and those of [`Home::Shared`], have
    /// none.
    #[must_use]
    pub fn with_priority(&self, priority: Priority) -> Self {
        let mut heap = self.clone();
        heap.options.priority = priority;
        heap
    }

    /// This heap, for allocations of which at most `bytes` each are on the device at a time: rounded up to whole blocks of
    /// 64 KiB; at least one, or 2 MiB where kernels fault ([`crate::DeviceClass::Faulting`]).
    ///
    /// What a fault or a prefetch brings beyond that makes the allocation's own blocks leave, those that came first first,
    /// and nobody else's; where launches in flight hold these, others wait for them as for the device budget. A launch or
    /// a prefetch that asks for more of it than that is [`crate::PagerError::OverDeviceLimit`], before anything moves.
    /// (So it is for a launch that declares the whole heap on a device that cannot fault, if the allocation is longer
    /// than its limit.) It changes no result, and nothing in [`Home::Shared`]. Such memory is never mapped by huge pages
    /// on software devices.
    #[must_use]
    pub fn with_device_limit(&self, bytes: u64) -> Self {
        let mut heap = self.clone();
        heap.options.device_limit = Some(bytes);
        heap
    }

    /// What is allocated now, by address: names, where it is, and what happened to it since it was made. Each allocation
    /// is shown as it was at some instant of the call.
    #[must_use]
    pub fn allocations(&self) -> Vec<Allocation> {
        self.inner.allocations()
    }
}

impl RawAllocation {
    /// The name that it was given.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.options.name.as_deref()
    }

    /// Its priority; see [`Heap::with_priority`].
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.heap().priority_at(self.extent().start)
    }

    /// Changes its priority, from the next eviction on.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn set_priority(&self, priority: Priority) -> Result<()> {
        Ok(self.heap().set_priority(self.extent(), priority)?)
    }

    /// The most bytes of it on the device at a time, in whole blocks; see [`Heap::with_device_limit`].
    #[must_use]
    pub fn device_limit(&self) -> Option<u64> {
        self.heap().device_limit_at(self.extent().start)
    }

    /// What happened to its blocks since it was made. Allocations that share a block of 64 KiB have the counts of their
    /// block, since that came into use.
    #[must_use]
    pub fn counters(&self) -> AllocationCounters {
        self.heap().counters_at(self.extent().start)
    }
}

impl<T: Shareable> UnifiedVec<T> {
    /// Its priority; see [`Heap::with_priority`].
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.raw().priority()
    }

    /// Changes its priority, from the next eviction on.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn set_priority(&self, priority: Priority) -> Result<()> {
        self.raw().set_priority(priority)
    }

    /// What happened to its blocks since it was made; see [`RawAllocation::counters`].
    #[must_use]
    pub fn counters(&self) -> AllocationCounters {
        self.raw().counters()
    }
}
