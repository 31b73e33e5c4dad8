//! An address range of this process made usable by kernels: `ImportView`'s Vulkan half.
//!
//! The range is imported in segments, once; what its pages are is up to whoever owns the range. It does *not* promise
//! that the driver sees later changes of the mapping: on real GPUs it does not, and the start-up self-test finds out.

use std::sync::Arc;

use ash::vk;
use limosa_model::{DeviceAddr, HostRange};

use crate::buffer;
use crate::device::Device;
use crate::error::GpuError;
use crate::inject::VulkanCall;

const HOST_ALLOCATION: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;

/// A range of the process's addresses with a device address.
pub struct ImportedRange {
    segments: Vec<Segment>,
    range: HostRange,
    base: DeviceAddr,
    device: Arc<Device>,
}

struct Segment {
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
}

impl ImportedRange {
    /// Imports `range`.
    ///
    /// # Safety
    /// `range` stays reserved until `self` is dropped, and every access by kernels to a page of it is served.
    ///
    /// # Errors
    /// [`GpuError::Import`] where the driver does not import, or scatters the segments; [`GpuError::OutOfMemory`].
    pub unsafe fn new(device: &Arc<Device>, range: HostRange) -> Result<Self, GpuError> {
        let refused =
            |reason: String| GpuError::Import { device: device.adapter.name.clone(), bytes: range.len, reason };
        let limits = device.adapter.limits;
        if limits.import_alignment == 0 {
            return Err(refused("the device has no VK_EXT_external_memory_host".into()));
        }
        let alignment = limits.import_alignment;
        if !range.start.0.is_multiple_of(alignment) || !range.len.is_multiple_of(alignment) {
            return Err(refused(format!("it is not aligned to {alignment} bytes")));
        }
        let mut imported = Self { segments: Vec::new(), range, base: DeviceAddr(0), device: Arc::clone(device) };
        let mut offset = 0;
        while offset < range.len {
            let len = limits.segment_bytes.min(range.len - offset);
            let start = HostRange { start: range.start.offset(offset), len };
            // SAFETY: part of the caller's range.
            let (segment, address) = unsafe { imported.segment(start) }.map_err(|error| match error {
                GpuError::Driver { call, code } => refused(format!("{call} answered {code}")),
                other => other,
            })?;
            imported.segments.push(segment);
            if offset == 0 {
                imported.base = address;
            } else if address.0 != imported.base.0.wrapping_add(offset) {
                return Err(refused(format!("the driver put the segment at {offset:#x} elsewhere")));
            }
            offset += len;
        }
        Ok(imported)
    }

    /// The device address of the first byte; the others follow without a gap.
    #[must_use]
    pub fn base(&self) -> DeviceAddr {
        self.base
    }

    /// The buffer that has `len` bytes of ours from a pointer on, and where they begin in it.
    pub(crate) fn find(&self, pointer: *const u8, len: u64) -> Option<(vk::Buffer, u64)> {
        let at = (pointer.addr() as u64).checked_sub(self.range.start.0)?;
        let each = self.device.adapter.limits.segment_bytes;
        let (segment, offset) = (self.segments.get(usize::try_from(at / each).ok()?)?, at % each);
        (offset + len <= each && at + len <= self.range.len).then_some((segment.buffer, offset))
    }

    /// # Safety
    /// As for [`Self::new`].
    unsafe fn segment(&self, range: HostRange) -> Result<(Segment, DeviceAddr), GpuError> {
        let raw = &self.device.raw;
        let extension = ash::ext::external_memory_host::Device::new(&self.device.instance.raw, raw);
        let pointer = range.start.0 as *mut std::ffi::c_void;
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        let query = extension.fp().get_memory_host_pointer_properties_ext;
        VulkanCall::HostPointerProperties.make(|| {
            // SAFETY: the caller's range is reserved; the structure is ours.
            unsafe { query(raw.handle(), HOST_ALLOCATION, pointer, &mut properties) }.result()
        })?;
        let preferences = [vk::MemoryPropertyFlags::HOST_VISIBLE, vk::MemoryPropertyFlags::empty()];
        let kind = self
            .device
            .memory_type(properties.memory_type_bits, &preferences)
            .ok_or(GpuError::Driver { call: "vkGetMemoryHostPointerPropertiesEXT", code: "no memory type".into() })?;

        let mut import =
            vk::ImportMemoryHostPointerInfoEXT::default().handle_type(HOST_ALLOCATION).host_pointer(pointer);
        let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let allocate = vk::MemoryAllocateInfo::default()
            .allocation_size(range.len)
            .memory_type_index(kind)
            .push_next(&mut import)
            .push_next(&mut flags);
        // SAFETY: the structures live through the call; the caller keeps the range.
        let memory = VulkanCall::AllocateMemory.make(|| unsafe { raw.allocate_memory(&allocate, None) })?;

        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(HOST_ALLOCATION);
        let usage = buffer::REACHED | buffer::COPIED;
        let create = buffer::describe(&self.device, range.len, usage, vk::BufferCreateFlags::empty());
        let create = create.push_next(&mut external);
        // SAFETY: the structures live through the calls; what was made is destroyed if a later step fails.
        unsafe {
            let buffer = match VulkanCall::CreateBuffer.make(|| raw.create_buffer(&create, None)) {
                Ok(buffer) => buffer,
                Err(error) => {
                    raw.free_memory(memory, None);
                    return Err(error);
                }
            };
            let segment = Segment { buffer, memory };
            if let Err(error) = VulkanCall::BindBufferMemory.make(|| raw.bind_buffer_memory(buffer, memory, 0)) {
                self.destroy(&segment);
                return Err(error);
            }
            let address = raw.get_buffer_device_address(&vk::BufferDeviceAddressInfo::default().buffer(buffer));
            Ok((segment, DeviceAddr(address)))
        }
    }

    /// # Safety
    /// No kernel uses the segment any more.
    unsafe fn destroy(&self, segment: &Segment) {
        // SAFETY: made on this device, unused by the caller's promise, and given up here.
        unsafe {
            self.device.raw.destroy_buffer(segment.buffer, None);
            self.device.raw.free_memory(segment.memory, None);
        }
    }
}

impl Drop for ImportedRange {
    fn drop(&mut self) {
        for segment in &self.segments {
            // SAFETY: whoever submits work that uses the range keeps it alive until the work is done.
            unsafe { self.destroy(segment) };
        }
    }
}
