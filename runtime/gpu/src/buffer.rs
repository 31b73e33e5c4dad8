//! Buffers: how they are described, made and put on memory, and small ones that the CPU writes. It does *not* share
//! memory among buffers: see `frame`.

use std::ptr::NonNull;
use std::sync::Arc;

use ash::vk;
use limosa_model::DeviceAddr;

use crate::device::Device;
use crate::error::GpuError;
use crate::inject::VulkanCall;

/// What the copies of this crate need of a buffer.
pub(crate) const COPIED: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::TRANSFER_SRC.as_raw() | vk::BufferUsageFlags::TRANSFER_DST.as_raw(),
);
/// What kernels need of a buffer.
pub(crate) const REACHED: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::STORAGE_BUFFER.as_raw() | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS.as_raw(),
);

/// A buffer of `len` bytes that every queue of `device` may use, unless `flags` say more.
pub(crate) fn describe(
    device: &Device,
    len: u64,
    usage: vk::BufferUsageFlags,
    flags: vk::BufferCreateFlags,
) -> vk::BufferCreateInfo<'_> {
    let mode = if device.sharing.len() > 1 { vk::SharingMode::CONCURRENT } else { vk::SharingMode::EXCLUSIVE };
    vk::BufferCreateInfo::default()
        .size(len)
        .usage(usage)
        .flags(flags)
        .sharing_mode(mode)
        .queue_family_indices(&device.sharing)
}

/// Makes the buffer that is described. It has no memory yet.
pub(crate) fn create(device: &Device, description: &vk::BufferCreateInfo<'_>) -> Result<vk::Buffer, GpuError> {
    // SAFETY: the description is whole, and lives through the call.
    VulkanCall::CreateBuffer.make(|| unsafe { device.raw.create_buffer(description, None) })
}

/// What a buffer so described wants of its memory.
pub(crate) fn requirements(device: &Device, description: &vk::BufferCreateInfo<'_>) -> vk::MemoryRequirements {
    let query = vk::DeviceBufferMemoryRequirements::default().create_info(description);
    let mut requirements = vk::MemoryRequirements2::default();
    // SAFETY: a query that fills a structure of ours.
    unsafe { device.raw.get_device_buffer_memory_requirements(&query, &mut requirements) };
    requirements.memory_requirements
}

/// Where kernels find a buffer.
///
/// # Safety
/// `buffer` lives, was made with [`REACHED`], and has memory or is sparse.
pub(crate) unsafe fn address(device: &Device, buffer: vk::Buffer) -> DeviceAddr {
    // SAFETY: promised.
    DeviceAddr(unsafe { device.raw.get_buffer_device_address(&vk::BufferDeviceAddressInfo::default().buffer(buffer)) })
}

/// A buffer with memory of its own that the CPU reads and writes, mapped as long as it lives.
pub(crate) struct HostBuffer {
    pub(crate) buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    mapped: NonNull<u8>,
    device: Arc<Device>,
}

// SAFETY: the mapping is the process's, not a thread's. Whoever reads or writes through it orders that themselves.
unsafe impl Send for HostBuffer {}
// SAFETY: as above.
unsafe impl Sync for HostBuffer {}

impl HostBuffer {
    pub(crate) fn new(device: &Arc<Device>, len: u64, usage: vk::BufferUsageFlags) -> Result<Self, GpuError> {
        let buffer = create(device, &describe(device, len, usage, vk::BufferCreateFlags::empty()))?;
        // From here on dropping it cleans up: null handles may be destroyed.
        let mut made =
            Self { buffer, memory: vk::DeviceMemory::null(), mapped: NonNull::dangling(), device: Arc::clone(device) };
        // SAFETY: the buffer is alive.
        let wanted = unsafe { device.raw.get_buffer_memory_requirements(buffer) };
        let coherent = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        // The CPU reads memory that it does not cache at a crawl.
        let kind = device
            .memory_type(wanted.memory_type_bits, &[coherent | vk::MemoryPropertyFlags::HOST_CACHED, coherent])
            .ok_or(GpuError::Driver { call: "vkAllocateMemory", code: "no memory that the CPU can write".into() })?;
        let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let allocate = vk::MemoryAllocateInfo::default()
            .allocation_size(wanted.size)
            .memory_type_index(kind)
            .push_next(&mut flags);
        // SAFETY: the structures live through the calls; the buffer is new, and the memory as large as it wants.
        unsafe {
            made.memory = VulkanCall::AllocateMemory.make(|| device.raw.allocate_memory(&allocate, None))?;
            VulkanCall::BindBufferMemory.make(|| device.raw.bind_buffer_memory(buffer, made.memory, 0))?;
            let map = || device.raw.map_memory(made.memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty());
            let mapped = VulkanCall::MapMemory.make(map)?;
            made.mapped = NonNull::new(mapped.cast())
                .ok_or(GpuError::Driver { call: "vkMapMemory", code: "a null pointer".into() })?;
        }
        Ok(made)
    }

    /// Its first byte.
    pub(crate) fn mapped(&self) -> NonNull<u8> {
        self.mapped
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        // SAFETY: its owner has waited for what uses it. Freeing the memory ends its mapping.
        unsafe {
            self.device.raw.destroy_buffer(self.buffer, None);
            self.device.raw.free_memory(self.memory, None);
        }
    }
}
