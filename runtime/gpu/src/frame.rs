//! Frames: device memory by the chunk, to be bound to sparse ranges. A frame does *not* know where it is bound, and is
//! not zeroed: memory comes back from the driver as its last user left it.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ash::vk;
use gpu_allocator::vulkan::{Allocation, AllocationCreateDesc, AllocationScheme, Allocator, AllocatorCreateDesc};
use gpu_allocator::{AllocationError, AllocationSizes, AllocatorDebugSettings, MemoryLocation};
use limosa_model::CHUNK;

use crate::buffer;
use crate::device::Device;
use crate::error::GpuError;
use crate::inject::VulkanCall;
use crate::sparse;

/// Bytes of the memory objects that frames are cut from: 32 frames. Some drivers allow 4096 objects in all, which so
/// reach 256 GiB; and the last of them, which may be mostly unused, wastes little of a small card.
const MEMORY_OBJECT: u64 = 64 << 20;

/// Which memory a frame is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// The device's own: VRAM on a card.
    Device,
    /// Memory that the CPU reads and writes too, cached if there is such.
    HostVisible,
}

/// Where frames come from and go back to.
pub struct FramePool {
    /// Before the device, which must go last.
    allocator: Mutex<Allocator>,
    /// What every frame wants: size, alignment, and the memory types that sparse ranges and copies both take.
    requirements: vk::MemoryRequirements,
    device: Arc<Device>,
}

/// [`CHUNK`] bytes of device memory, aligned to as much in their memory object; given back when dropped.
pub struct Frame {
    allocation: Allocation,
    /// Over these bytes, for copies.
    pub(crate) buffer: vk::Buffer,
    pool: Arc<FramePool>,
}

impl FramePool {
    /// A pool without frames. It allocates nothing yet.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], [`GpuError::Driver`].
    pub fn new(device: &Arc<Device>) -> Result<Arc<Self>, GpuError> {
        let allocator = Allocator::new(&AllocatorCreateDesc {
            instance: device.instance.raw.clone(),
            device: device.raw.clone(),
            physical_device: device.adapter.physical,
            debug_settings: AllocatorDebugSettings::default(),
            buffer_device_address: true,
            allocation_sizes: AllocationSizes::new(MEMORY_OBJECT, MEMORY_OBJECT),
        });
        let copied = buffer::requirements(device, &description(device));
        // A device without sparse ranges may still want frames for copies alone; there the flags would be an error.
        let bound = match device.sparse {
            Some(_) => buffer::requirements(device, &sparse::description(device, CHUNK)),
            None => copied,
        };
        Ok(Arc::new(Self {
            allocator: Mutex::new(allocator.map_err(meaning)?),
            requirements: vk::MemoryRequirements {
                size: CHUNK,
                alignment: CHUNK,
                memory_type_bits: copied.memory_type_bits & bound.memory_type_bits,
            },
            device: Arc::clone(device),
        }))
    }

    /// A frame of this kind, with whatever its memory holds.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], [`GpuError::Driver`] where the device has no memory of the kind.
    pub fn allocate(self: &Arc<Self>, kind: FrameKind) -> Result<Arc<Frame>, GpuError> {
        let coherent = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        let preferences = match kind {
            FrameKind::Device => &[vk::MemoryPropertyFlags::DEVICE_LOCAL][..],
            FrameKind::HostVisible => &[coherent | vk::MemoryPropertyFlags::HOST_CACHED, coherent],
        };
        let allowed = self.requirements.memory_type_bits;
        let index = self
            .device
            .memory_type(allowed, preferences)
            .ok_or(GpuError::Driver { call: "vkAllocateMemory", code: format!("no memory type for {kind:?}") })?;
        let wanted = AllocationCreateDesc {
            name: "frame",
            // The one type that was chosen: the allocator has preferences of its own else.
            requirements: vk::MemoryRequirements { memory_type_bits: 1 << index, ..self.requirements },
            location: MemoryLocation::Unknown,
            linear: true,
            allocation_scheme: AllocationScheme::GpuAllocatorManaged,
        };
        // The allocator answers in its own words, so the driver's answer is none here.
        VulkanCall::AllocateMemory.make(|| Ok(()))?;
        let allocation = self.lock().allocate(&wanted).map_err(meaning)?;
        let mut frame = Frame { allocation, buffer: vk::Buffer::null(), pool: Arc::clone(self) };
        frame.buffer = buffer::create(&self.device, &description(&self.device))?;
        let (memory, offset) = frame.memory();
        // SAFETY: the buffer is new, as long as the allocation, and of a memory type that it takes.
        let bind = || unsafe { self.device.raw.bind_buffer_memory(frame.buffer, memory, offset) };
        VulkanCall::BindBufferMemory.make(bind)?;
        Ok(Arc::new(frame))
    }

    fn lock(&self) -> MutexGuard<'_, Allocator> {
        self.allocator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frame {
    /// Where the CPU reads and writes the frame at the speed of memory, if it does. Who does so orders that against
    /// the device's accesses; the pointer is good for [`CHUNK`] bytes, as long as the frame lives.
    #[must_use]
    pub fn mapped(&self) -> Option<NonNull<u8>> {
        // Without a cache each read goes to the device: such a mapping is no good for more than a few words.
        let fast = vk::MemoryPropertyFlags::HOST_VISIBLE
            | vk::MemoryPropertyFlags::HOST_COHERENT
            | vk::MemoryPropertyFlags::HOST_CACHED;
        let pointer = self.allocation.mapped_ptr()?;
        self.allocation.memory_properties().contains(fast).then(|| pointer.cast())
    }

    /// The memory object and the offset of the frame in it.
    pub(crate) fn memory(&self) -> (vk::DeviceMemory, u64) {
        // SAFETY: the handle is used to bind buffers that whoever binds them stops using before the frame goes.
        (unsafe { self.allocation.memory() }, self.allocation.offset())
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: the copies that used the buffer are done: they borrow the frame until then.
        unsafe { self.pool.device.raw.destroy_buffer(self.buffer, None) };
        // It refuses only what it has not given out.
        let _ = self.pool.lock().free(std::mem::take(&mut self.allocation));
    }
}

/// The buffer over a frame.
fn description(device: &Device) -> vk::BufferCreateInfo<'_> {
    buffer::describe(device, CHUNK, buffer::COPIED, vk::BufferCreateFlags::empty())
}

fn meaning(error: AllocationError) -> GpuError {
    match error {
        AllocationError::OutOfMemory => GpuError::OutOfMemory { call: VulkanCall::AllocateMemory.name() },
        AllocationError::FailedToMap(code) => GpuError::Driver { call: VulkanCall::MapMemory.name(), code },
        other => GpuError::Driver { call: VulkanCall::AllocateMemory.name(), code: other.to_string() },
    }
}
