//! A staging slot: commands of its own, and how far the device has come with them. It does *not* know what it copies.

use std::sync::Arc;

use ash::vk;

use crate::device::Device;
use crate::error::GpuError;
use crate::inject::VulkanCall;
use crate::timeline::{Ticket, Timeline};

/// What one copy at a time uses. Whoever has it has it alone, so it needs no lock.
pub(crate) struct Slot {
    /// Where its bytes begin in the staging memory.
    pub(crate) offset: u64,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    timeline: Arc<Timeline>,
    last: Ticket,
    device: Arc<Device>,
}

impl Slot {
    pub(crate) fn new(device: &Arc<Device>, offset: u64) -> Result<Self, GpuError> {
        let timeline = Timeline::new(device)?;
        let create = vk::CommandPoolCreateInfo::default()
            .queue_family_index(device.transfer.family)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
        // SAFETY: the structures live through the call.
        let pool = VulkanCall::CreateCommandPool.make(|| unsafe { device.raw.create_command_pool(&create, None) })?;
        // From here on dropping it cleans up.
        let commands = vk::CommandBuffer::null();
        let mut slot = Self { offset, pool, commands, timeline, last: Ticket(0), device: Arc::clone(device) };
        let allocate = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool is ours alone.
        let made =
            VulkanCall::AllocateCommandBuffers.make(|| unsafe { device.raw.allocate_command_buffers(&allocate) })?;
        let none = GpuError::OutOfMemory { call: VulkanCall::AllocateCommandBuffers.name() };
        slot.commands = made.first().copied().ok_or(none)?;
        Ok(slot)
    }

    /// Lets the device do what `record` records: after what has been submitted and waited for, visible to the CPU
    /// and to everyone who waits for it.
    pub(crate) fn submit(
        &mut self,
        device: &Device,
        record: impl FnOnce(&ash::Device, vk::CommandBuffer),
    ) -> Result<(), GpuError> {
        // It has been waited for already; only a wait that failed leaves something to wait for here.
        self.wait()?;
        let (raw, commands) = (&device.raw, self.commands);
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        let before = [vk::MemoryBarrier2::default()
            .src_stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
            .src_access_mask(vk::AccessFlags2::MEMORY_WRITE)
            .dst_stage_mask(vk::PipelineStageFlags2::ALL_TRANSFER)
            .dst_access_mask(vk::AccessFlags2::TRANSFER_READ | vk::AccessFlags2::TRANSFER_WRITE)];
        let after = [vk::MemoryBarrier2::default()
            .src_stage_mask(vk::PipelineStageFlags2::ALL_TRANSFER)
            .src_access_mask(vk::AccessFlags2::TRANSFER_WRITE)
            .dst_stage_mask(vk::PipelineStageFlags2::HOST)
            .dst_access_mask(vk::AccessFlags2::HOST_READ | vk::AccessFlags2::HOST_WRITE)];
        // SAFETY: the command buffer is ours, and not in flight.
        VulkanCall::RecordCommands.make(|| unsafe {
            raw.begin_command_buffer(commands, &begin)?;
            raw.cmd_pipeline_barrier2(commands, &vk::DependencyInfo::default().memory_barriers(&before));
            record(raw, commands);
            raw.cmd_pipeline_barrier2(commands, &vk::DependencyInfo::default().memory_barriers(&after));
            raw.end_command_buffer(commands)
        })?;
        let done = Ticket(self.last.0 + 1);
        // SAFETY: the commands are recorded; whoever holds the slot keeps what they use until they are done.
        unsafe { device.transfer.submit(raw, commands, &[], (&self.timeline, done)) }?;
        self.last = done;
        Ok(())
    }

    /// Waits for what was submitted last.
    pub(crate) fn wait(&self) -> Result<(), GpuError> {
        self.timeline.wait(self.last)
    }

    /// Waits for what was submitted last, where nobody would hear of an error.
    pub(crate) fn settle(&self) {
        // Fails on a lost device, where nothing runs any more.
        let _ = self.timeline.settle(self.last);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.settle();
        // SAFETY: nothing of its is in use.
        unsafe { self.device.raw.destroy_command_pool(self.pool, None) };
    }
}
