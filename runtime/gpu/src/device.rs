//! A device in use: the logical device with its one compute queue. It runs nothing by itself.

use std::sync::{Arc, Mutex};

use ash::vk;

use crate::adapter::{Adapter, Instance};
use crate::error::GpuError;

/// A logical device; kept alive by everything made on it.
pub struct Device {
    pub(crate) raw: ash::Device,
    /// The one hardware queue. Vulkan wants submissions to it one at a time.
    pub(crate) queue: Mutex<vk::Queue>,
    /// What it is.
    pub adapter: Adapter,
    /// After the device, which must go first.
    pub(crate) instance: Arc<Instance>,
}

impl Device {
    /// Opens `adapter`.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], [`GpuError::Driver`].
    pub fn open(instance: &Arc<Instance>, adapter: Adapter) -> Result<Arc<Self>, GpuError> {
        let mut v11 = vk::PhysicalDeviceVulkan11Features::default();
        let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
        let mut v13 = vk::PhysicalDeviceVulkan13Features::default();
        let mut there =
            vk::PhysicalDeviceFeatures2::default().push_next(&mut v11).push_next(&mut v12).push_next(&mut v13);
        // SAFETY: a query on a live instance that fills structures of ours.
        unsafe { instance.raw.get_physical_device_features2(adapter.physical, &mut there) };
        // Whatever kernels may want to use and the device has; robustness is left out, since it costs checks.
        let basic = vk::PhysicalDeviceFeatures {
            shader_int64: there.features.shader_int64,
            shader_int16: there.features.shader_int16,
            shader_float64: there.features.shader_float64,
            ..Default::default()
        };
        // The queried structures are passed back as they are: everything that is supported is enabled.
        v12.p_next = std::ptr::null_mut();
        v11.p_next = std::ptr::null_mut();
        v13.p_next = std::ptr::null_mut();
        v12.buffer_device_address_capture_replay = vk::FALSE;
        v12.buffer_device_address_multi_device = vk::FALSE;
        v11.protected_memory = vk::FALSE;
        v13.robust_image_access = vk::FALSE;
        let queues =
            [vk::DeviceQueueCreateInfo::default().queue_family_index(adapter.queue_family).queue_priorities(&[1.0])];
        let names = [ash::ext::external_memory_host::NAME.as_ptr()];
        let extensions = if adapter.limits.import_alignment > 0 { &names[..] } else { &[] };
        let create = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(extensions)
            .enabled_features(&basic)
            .push_next(&mut v11)
            .push_next(&mut v12)
            .push_next(&mut v13);
        // SAFETY: the structures live through the call, and only supported features are asked for.
        let raw = unsafe { instance.raw.create_device(adapter.physical, &create, None) };
        let raw = raw.map_err(|error| GpuError::of("vkCreateDevice", error))?;
        // SAFETY: the queue was asked for above.
        let queue = unsafe { raw.get_device_queue(adapter.queue_family, 0) };
        Ok(Arc::new(Self { raw, queue: Mutex::new(queue), adapter, instance: Arc::clone(instance) }))
    }

    /// Index of a memory type among `allowed` (a bit each), host-visible if there is one.
    pub(crate) fn memory_type(&self, allowed: u32) -> Option<u32> {
        // SAFETY: a query on a live instance.
        let memory = unsafe { self.instance.raw.get_physical_device_memory_properties(self.adapter.physical) };
        let visible = |index: &u32| {
            let properties = memory.memory_types_as_slice().get(*index as usize).map(|kind| kind.property_flags);
            properties.is_some_and(|flags| flags.contains(vk::MemoryPropertyFlags::HOST_VISIBLE))
        };
        let mut candidates = (0..memory.memory_type_count).filter(|index| allowed >> index & 1 == 1);
        candidates.clone().find(visible).or_else(|| candidates.next())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: everything made on the device holds it by Arc and is gone. A wait that fails means a lost device,
        // which may be destroyed as well.
        unsafe {
            let _ = self.raw.device_wait_idle();
            self.raw.destroy_device(None);
        }
    }
}
