//! A hardware queue: what takes submissions, one at a time. It does *not* keep what they use: whoever submits does.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ash::vk;

use crate::error::GpuError;
use crate::inject::{self, VulkanCall};
use crate::raw::QueueIndex;
use crate::timeline::{Bound, Ticket, Timeline};

/// One VkQueue with its lock. Queues of a device that are the same VkQueue are the same `HardwareQueue`.
pub(crate) struct HardwareQueue {
    /// Vulkan wants submissions to a queue one at a time.
    raw: Mutex<vk::Queue>,
    pub(crate) family: u32,
}

impl HardwareQueue {
    /// A queue that the device was made with.
    pub(crate) fn new(device: &ash::Device, QueueIndex { family, index }: QueueIndex) -> Self {
        // SAFETY: whoever asks has looked that the device has it.
        let raw = unsafe { device.get_device_queue(family, index) };
        Self { raw: Mutex::new(raw), family }
    }

    /// Waits for all that was submitted to it, by whomever.
    pub(crate) fn settle(&self, device: &ash::Device) {
        let queue = self.lock();
        // SAFETY: the lock makes us the queue's only user. It fails on a lost device, where nothing runs any more.
        let _ = unsafe { device.queue_wait_idle(*queue) };
    }

    /// Submits `commands`: they begin after all of `after`, and reach `done`.
    ///
    /// # Safety
    /// `commands` are recorded and not in flight. They, what they use and both timelines live until they complete.
    pub(crate) unsafe fn submit(
        &self,
        device: &ash::Device,
        commands: vk::CommandBuffer,
        after: &[Bound],
        done: (&Timeline, Ticket),
    ) -> Result<(), GpuError> {
        if inject::device_lost() {
            return Err(GpuError::DeviceLost);
        }
        let buffers = [vk::CommandBufferSubmitInfo::default().command_buffer(commands)];
        let at = |semaphore, ticket: Ticket| {
            let all = vk::PipelineStageFlags2::ALL_COMMANDS;
            vk::SemaphoreSubmitInfo::default().semaphore(semaphore).value(ticket.0).stage_mask(all)
        };
        let waits: Vec<_> = after.iter().map(|(timeline, ticket)| at(timeline.awaited(), *ticket)).collect();
        let signals = [at(done.0.signalled(), done.1)];
        let submit = [vk::SubmitInfo2::default()
            .wait_semaphore_infos(&waits)
            .command_buffer_infos(&buffers)
            .signal_semaphore_infos(&signals)];
        let queue = self.lock();
        // SAFETY: the lock makes us the queue's only user; the structures live through the call; the rest is promised.
        VulkanCall::Submit.make(|| unsafe { device.queue_submit2(*queue, &submit, vk::Fence::null()) })
    }

    /// Binds memory to sparse buffers: after `before` on `timeline`, reaching `done` on it.
    ///
    /// # Safety
    /// The buffers and memories live until it is done; the binds lie within both and do not overlap.
    pub(crate) unsafe fn bind(
        &self,
        device: &ash::Device,
        binds: &[vk::SparseBufferMemoryBindInfo<'_>],
        timeline: &Timeline,
        before: Ticket,
        done: Ticket,
    ) -> Result<(), GpuError> {
        if inject::device_lost() {
            return Err(GpuError::DeviceLost);
        }
        let (awaited, waits) = ([timeline.awaited()], [before.0]);
        let (signalled, signals) = ([timeline.signalled()], [done.0]);
        let mut values =
            vk::TimelineSemaphoreSubmitInfo::default().wait_semaphore_values(&waits).signal_semaphore_values(&signals);
        let bind = [vk::BindSparseInfo::default()
            .wait_semaphores(&awaited)
            .buffer_binds(binds)
            .signal_semaphores(&signalled)
            .push_next(&mut values)];
        let queue = self.lock();
        // SAFETY: the lock makes us the queue's only user; the structures live through the call; the rest is promised.
        VulkanCall::BindSparse.make(|| unsafe { device.queue_bind_sparse(*queue, &bind, vk::Fence::null()) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, vk::Queue> {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
