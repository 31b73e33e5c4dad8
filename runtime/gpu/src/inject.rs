//! Faults of our own making, for the tests that must survive them: loss of the device, and failing Vulkan calls.
//!
//! With the feature `inject`, a test can make every call of a kind answer that memory is out, or lose the device.
//! Without it all of this is constant and costs nothing. It is process-wide: tests that use it run one at a time. It
//! does *not* fail calls of the driver's own, nor those that have no answer.

use crate::error::GpuError;

/// A kind of Vulkan call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VulkanCall {
    /// Making an instance.
    CreateInstance,
    /// Listing the machine's devices.
    EnumerateDevices,
    /// Opening a device.
    CreateDevice,
    /// Allocating device memory, also when the allocator has some left.
    AllocateMemory,
    /// Mapping device memory for the CPU.
    MapMemory,
    /// Asking which memory a range of the process's can be imported as.
    HostPointerProperties,
    /// Creating a buffer, sparse or not.
    CreateBuffer,
    /// Putting a buffer on its memory, once and for all.
    BindBufferMemory,
    /// Binding frames to a sparse range.
    BindSparse,
    /// Submitting commands to a queue.
    Submit,
    /// Creating a semaphore.
    CreateSemaphore,
    /// Waiting for semaphores.
    WaitSemaphores,
    /// Reading a semaphore.
    ReadSemaphore,
    /// Creating a pipeline's layout.
    CreatePipelineLayout,
    /// Creating a shader module.
    CreateShaderModule,
    /// Creating a pipeline.
    CreatePipeline,
    /// Creating a command pool.
    CreateCommandPool,
    /// Allocating command buffers.
    AllocateCommandBuffers,
    /// Recording commands.
    RecordCommands,
    /// Creating queries for timestamps.
    CreateQueryPool,
    /// Reading timestamps.
    QueryResults,
    /// Comparing the device's clock with the host's.
    CalibrateTimestamps,
}

impl VulkanCall {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::CreateInstance,
        Self::EnumerateDevices,
        Self::CreateDevice,
        Self::AllocateMemory,
        Self::MapMemory,
        Self::HostPointerProperties,
        Self::CreateBuffer,
        Self::BindBufferMemory,
        Self::BindSparse,
        Self::Submit,
        Self::CreateSemaphore,
        Self::WaitSemaphores,
        Self::ReadSemaphore,
        Self::CreatePipelineLayout,
        Self::CreateShaderModule,
        Self::CreatePipeline,
        Self::CreateCommandPool,
        Self::AllocateCommandBuffers,
        Self::RecordCommands,
        Self::CreateQueryPool,
        Self::QueryResults,
        Self::CalibrateTimestamps,
    ];

    /// The function's name, as errors give it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateInstance => "vkCreateInstance",
            Self::EnumerateDevices => "vkEnumeratePhysicalDevices",
            Self::CreateDevice => "vkCreateDevice",
            Self::AllocateMemory => "vkAllocateMemory",
            Self::MapMemory => "vkMapMemory",
            Self::HostPointerProperties => "vkGetMemoryHostPointerPropertiesEXT",
            Self::CreateBuffer => "vkCreateBuffer",
            Self::BindBufferMemory => "vkBindBufferMemory",
            Self::BindSparse => "vkQueueBindSparse",
            Self::Submit => "vkQueueSubmit2",
            Self::CreateSemaphore => "vkCreateSemaphore",
            Self::WaitSemaphores => "vkWaitSemaphores",
            Self::ReadSemaphore => "vkGetSemaphoreCounterValue",
            Self::CreatePipelineLayout => "vkCreatePipelineLayout",
            Self::CreateShaderModule => "vkCreateShaderModule",
            Self::CreatePipeline => "vkCreateComputePipelines",
            Self::CreateCommandPool => "vkCreateCommandPool",
            Self::AllocateCommandBuffers => "vkAllocateCommandBuffers",
            Self::RecordCommands => "recording commands",
            Self::CreateQueryPool => "vkCreateQueryPool",
            Self::QueryResults => "vkGetQueryPoolResults",
            Self::CalibrateTimestamps => "vkGetCalibratedTimestamps",
        }
    }

    /// Makes the call, unless a test wants it to fail; what the driver answers becomes its meaning.
    #[inline]
    pub(crate) fn make<T>(self, call: impl FnOnce() -> Result<T, ash::vk::Result>) -> Result<T, GpuError> {
        if fails(self) {
            return Err(GpuError::OutOfMemory { call: self.name() });
        }
        call().map_err(|error| GpuError::of(self.name(), error))
    }
}

#[cfg(feature = "inject")]
mod armed {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::VulkanCall;

    static LOST: AtomicBool = AtomicBool::new(false);
    static CALLS: AtomicU32 = AtomicU32::new(0);

    /// Every call that can report a lost device does, until [`clear`].
    pub fn lose_device() {
        LOST.store(true, Ordering::SeqCst);
    }

    /// Makes every call of this kind fail with [`GpuError::OutOfMemory`](crate::GpuError) until [`clear`].
    pub fn fail(call: VulkanCall) {
        CALLS.fetch_or(1 << call as u32, Ordering::SeqCst);
    }

    /// Ends all injection. A context that has met the loss stays lost.
    pub fn clear() {
        LOST.store(false, Ordering::SeqCst);
        CALLS.store(0, Ordering::SeqCst);
    }

    pub(crate) fn device_lost() -> bool {
        LOST.load(Ordering::Relaxed)
    }

    pub(super) fn fails(call: VulkanCall) -> bool {
        CALLS.load(Ordering::Relaxed) >> call as u32 & 1 == 1
    }
}

#[cfg(feature = "inject")]
pub(crate) use armed::device_lost;
#[cfg(feature = "inject")]
use armed::fails;
#[cfg(feature = "inject")]
pub use armed::{clear, fail, lose_device};

#[cfg(not(feature = "inject"))]
pub(crate) const fn device_lost() -> bool {
    false
}

#[cfg(not(feature = "inject"))]
const fn fails(_: VulkanCall) -> bool {
    false
}
