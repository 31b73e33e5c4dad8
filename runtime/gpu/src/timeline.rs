//! Timelines: how far work on the device has come, and waiting for it. They do *not* know what the work is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ash::vk;

use crate::adapter::Owner;
use crate::device::Device;
use crate::error::GpuError;
use crate::inject::{self, VulkanCall};

/// A place in a timeline: reached when the work that was given it, and all before, is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// What to wait for, on the host or on the device.
pub type Bound = (Arc<Timeline>, Ticket);

/// How far a queue has come. It keeps nothing alive but the device, so that anyone may look, also a fault handler.
pub struct Timeline {
    semaphore: vk::Semaphore,
    owner: Owner,
    /// Whether the device has waited for it.
    awaited: AtomicBool,
    device: Arc<Device>,
}

impl Timeline {
    pub(crate) fn new(device: &Arc<Device>) -> Result<Arc<Self>, GpuError> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let create = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the structures live through the call.
        let semaphore = VulkanCall::CreateSemaphore.make(|| unsafe { device.raw.create_semaphore(&create, None) })?;
        Ok(Self::of(device, semaphore, Owner::Limosa))
    }

    /// That of a timeline semaphore, which outlives it where it is not limosa's.
    pub(crate) fn of(device: &Arc<Device>, semaphore: vk::Semaphore, owner: Owner) -> Arc<Self> {
        Arc::new(Self { semaphore, owner, awaited: AtomicBool::new(false), device: Arc::clone(device) })
    }

    /// Whether `ticket` has been reached.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`], [`GpuError::OutOfMemory`].
    pub fn reached(&self, ticket: Ticket) -> Result<bool, GpuError> {
        Ok(self.value()? >= ticket.0)
    }

    /// Waits until `ticket` is reached.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`], [`GpuError::OutOfMemory`]; nothing is known of the work then.
    pub fn wait(&self, ticket: Ticket) -> Result<(), GpuError> {
        VulkanCall::WaitSemaphores.make(|| self.settle(ticket))?;
        if inject::device_lost() { Err(GpuError::DeviceLost) } else { Ok(()) }
    }

    /// Waits until `ticket` is reached, for whoever gives up what the work uses: no injected fault cuts it short. It
    /// fails on a lost device, where nothing runs any more.
    pub(crate) fn settle(&self, ticket: Ticket) -> Result<(), vk::Result> {
        let (semaphores, values) = ([self.semaphore], [ticket.0]);
        let wait = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the semaphore lives as long as `self`.
        unsafe { self.device.raw.wait_semaphores(&wait, u64::MAX) }
    }

    /// Waits until `ticket` is reached, but not much longer than `limit`. Gives whether it is.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`], [`GpuError::OutOfMemory`]; nothing is known of the work then.
    pub fn wait_for(&self, ticket: Ticket, limit: Duration) -> Result<bool, GpuError> {
        let (semaphores, values) = ([self.semaphore], [ticket.0]);
        let wait = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let reached = VulkanCall::WaitSemaphores.make(|| {
            // SAFETY: the semaphore lives as long as `self`.
            match unsafe { self.device.raw.wait_semaphores(&wait, nanos) } {
                Err(vk::Result::TIMEOUT) => Ok(false),
                other => other.map(|()| true),
            }
        })?;
        if inject::device_lost() { Err(GpuError::DeviceLost) } else { Ok(reached) }
    }

    /// Waits until any of these is reached. All are of one device.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`], [`GpuError::OutOfMemory`]; nothing is known of the work then.
    pub fn wait_any(waits: &[(Arc<Self>, Ticket)]) -> Result<(), GpuError> {
        let Some((first, _)) = waits.first() else { return Ok(()) };
        let semaphores: Vec<_> = waits.iter().map(|(timeline, _)| timeline.semaphore).collect();
        let values: Vec<_> = waits.iter().map(|(_, ticket)| ticket.0).collect();
        let wait =
            vk::SemaphoreWaitInfo::default().flags(vk::SemaphoreWaitFlags::ANY).semaphores(&semaphores).values(&values);
        // SAFETY: the semaphores live as long as `waits`.
        VulkanCall::WaitSemaphores.make(|| unsafe { first.device.raw.wait_semaphores(&wait, u64::MAX) })?;
        if inject::device_lost() { Err(GpuError::DeviceLost) } else { Ok(()) }
    }

    pub(crate) fn value(&self) -> Result<u64, GpuError> {
        if inject::device_lost() {
            return Err(GpuError::DeviceLost);
        }
        // SAFETY: the semaphore lives as long as `self`.
        VulkanCall::ReadSemaphore.make(|| unsafe { self.device.raw.get_semaphore_counter_value(self.semaphore) })
    }

    /// For a submission that reaches a ticket.
    pub(crate) fn signalled(&self) -> vk::Semaphore {
        self.semaphore
    }

    /// For a submission that waits for a ticket.
    pub(crate) fn awaited(&self) -> vk::Semaphore {
        self.awaited.store(true, Ordering::Relaxed);
        self.semaphore
    }
}

/// A timeline that the host moves on: for waking a thread that waits for the device.
pub struct Doorbell {
    timeline: Arc<Timeline>,
    rung: Mutex<u64>,
}

impl Doorbell {
    /// A bell not yet rung.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`].
    pub fn new(device: &Arc<Device>) -> Result<Self, GpuError> {
        Ok(Self { timeline: Timeline::new(device)?, rung: Mutex::new(0) })
    }

    /// Rings. Not for signal mode.
    pub fn ring(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        *rung += 1;
        let signal = vk::SemaphoreSignalInfo::default().semaphore(self.timeline.semaphore).value(*rung);
        // SAFETY: the semaphore lives as long as `self`, and the lock makes its values ascend. It fails only on a
        // lost device, where nobody waits.
        let _ = unsafe { self.timeline.device.raw.signal_semaphore(&signal) };
    }

    /// What to wait for to be woken by the next ring.
    #[must_use]
    pub fn next(&self) -> (Arc<Timeline>, Ticket) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&self.timeline), Ticket(*rung + 1))
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        // Whoever signals it waits for the last signal before it lets go of it, and who waits for it keeps it. Still,
        // Mesa 25.0's submission thread may look at what it waited for after it has said that the work is done: such a
        // semaphore goes with the device.
        match self.owner {
            Owner::Application => {}
            Owner::Limosa if *self.awaited.get_mut() => self.device.retire(self.semaphore),
            // SAFETY: nobody uses it, as said.
            Owner::Limosa => unsafe { self.device.raw.destroy_semaphore(self.semaphore, None) },
        }
    }
}
