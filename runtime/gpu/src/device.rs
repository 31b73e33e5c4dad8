//! A device in use: the logical device with its hardware queues. It runs nothing by itself.

use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;

use crate::adapter::{Adapter, Instance, Owner};
use crate::error::GpuError;
use crate::hardware::HardwareQueue;
use crate::inject::VulkanCall;
use crate::raw::{QueueIndex, Queues};
use crate::timestamps::Calibration;

/// A logical device; kept alive by everything made on it.
pub struct Device {
    pub(crate) raw: ash::Device,
    owner: Owner,
    /// The queue that runs kernels. One queue may do several of these jobs.
    pub(crate) compute: Arc<HardwareQueue>,
    /// The queue that copies.
    pub(crate) transfer: Arc<HardwareQueue>,
    /// The queue that binds sparse memory, where sparse ranges can be tried.
    pub(crate) sparse: Option<Arc<HardwareQueue>>,
    /// The families whose queues use buffers: one, or two that use them together.
    pub(crate) sharing: Vec<u32>,
    /// How its clock is compared with the host's, where it can be.
    pub(crate) calibration: Option<Calibration>,
    /// Semaphores that nobody uses any more, but perhaps a thread of the driver's.
    retired: Mutex<Vec<vk::Semaphore>>,
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
            sparse_binding: there.features.sparse_binding,
            sparse_residency_buffer: there.features.sparse_residency_buffer,
            sparse_residency_aliased: there.features.sparse_residency_aliased,
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
        let mut families: Vec<u32> = [adapter.queue_family, adapter.transfer_family].into();
        families.extend(adapter.sparse_family);
        families.sort_unstable();
        families.dedup();
        let queue = |family: &u32| vk::DeviceQueueCreateInfo::default().queue_family_index(*family);
        let queues: Vec<_> = families.iter().map(|family| queue(family).queue_priorities(&[1.0])).collect();
        let import = (adapter.limits.import_alignment > 0).then_some(ash::ext::external_memory_host::NAME);
        let extensions: Vec<_> = import.into_iter().chain(adapter.calibration).map(CStr::as_ptr).collect();
        let create = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .enabled_features(&basic)
            .push_next(&mut v11)
            .push_next(&mut v12)
            .push_next(&mut v13);
        // SAFETY: the structures live through the call, and only supported features are asked for.
        let raw =
            VulkanCall::CreateDevice.make(|| unsafe { instance.raw.create_device(adapter.physical, &create, None) })?;
        let first = |family| QueueIndex { family, index: 0 };
        let queues = Queues {
            compute: first(adapter.queue_family),
            transfer: Some(first(adapter.transfer_family)),
            sparse: adapter.sparse_family.map(first),
        };
        Ok(Self::with(instance, adapter, raw, Owner::Limosa, queues))
    }

    /// A device of an application's, which has these queues and outlives it.
    pub(crate) fn borrowed(instance: &Arc<Instance>, adapter: Adapter, raw: ash::Device, queues: Queues) -> Arc<Self> {
        let adapter = Adapter {
            queue_family: queues.compute.family,
            transfer_family: queues.transfer.unwrap_or(queues.compute).family,
            sparse_family: queues.sparse.map(|queue| queue.family),
            // Whether the application enabled the extension is not known.
            calibration: None,
            ..adapter
        };
        Self::with(instance, adapter, raw, Owner::Application, queues)
    }

    fn with(instance: &Arc<Instance>, adapter: Adapter, raw: ash::Device, owner: Owner, queues: Queues) -> Arc<Self> {
        // One queue has one lock.
        let mut made: Vec<(QueueIndex, Arc<HardwareQueue>)> = Vec::new();
        let mut queue = |index: QueueIndex| {
            if let Some((_, same)) = made.iter().find(|(other, _)| *other == index) {
                return Arc::clone(same);
            }
            let new = Arc::new(HardwareQueue::new(&raw, index));
            made.push((index, Arc::clone(&new)));
            new
        };
        let compute = queue(queues.compute);
        let transfer = queue(queues.transfer.unwrap_or(queues.compute));
        let sparse = queues.sparse.filter(|_| adapter.sparse_missing.is_empty()).map(queue);
        let mut sharing = vec![adapter.queue_family, adapter.transfer_family];
        sharing.dedup();
        let calibration = Calibration::of(&adapter, &instance.raw, &raw);
        let (retired, instance) = (Mutex::default(), Arc::clone(instance));
        Arc::new(Self { raw, owner, compute, transfer, sparse, sharing, calibration, retired, adapter, instance })
    }

    /// Destroys `semaphore`, of which nobody makes use any more, with the device.
    pub(crate) fn retire(&self, semaphore: vk::Semaphore) {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(semaphore);
    }

    /// Index of a memory type among `allowed` (a bit each): the first that has all flags of the first preference that
    /// any of them has. Types that need a feature which is not enabled are left out.
    pub(crate) fn memory_type(&self, allowed: u32, preferences: &[vk::MemoryPropertyFlags]) -> Option<u32> {
        let special = vk::MemoryPropertyFlags::PROTECTED
            | vk::MemoryPropertyFlags::LAZILY_ALLOCATED
            | vk::MemoryPropertyFlags::DEVICE_COHERENT_AMD;
        // SAFETY: a query on a live instance.
        let memory = unsafe { self.instance.raw.get_physical_device_memory_properties(self.adapter.physical) };
        let types = (0u32..).zip(memory.memory_types_as_slice()).map(|(index, kind)| (index, kind.property_flags));
        let types: Vec<_> =
            types.filter(|(index, flags)| allowed >> index & 1 == 1 && !flags.intersects(special)).collect();
        let first = |wanted: &vk::MemoryPropertyFlags| types.iter().find(|(_, flags)| flags.contains(*wanted));
        preferences.iter().find_map(first).map(|(index, _)| *index)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let retired = std::mem::take(self.retired.get_mut().unwrap_or_else(PoisonError::into_inner));
        match self.owner {
            // SAFETY: everything made on the device holds it by Arc and is gone. A wait that fails means a lost device,
            // which may be destroyed as well.
            Owner::Limosa => unsafe {
                let _ = self.raw.device_wait_idle();
                retired.into_iter().for_each(|semaphore| self.raw.destroy_semaphore(semaphore, None));
                self.raw.destroy_device(None);
            },
            // The application may be at work on other queues: those are not ours to wait for.
            Owner::Application if retired.is_empty() => {}
            Owner::Application => {
                [Some(&self.compute), Some(&self.transfer), self.sparse.as_ref()]
                    .into_iter()
                    .flatten()
                    .for_each(|queue| queue.settle(&self.raw));
                // SAFETY: made on the device, which outlives us; nothing of ours is in flight.
                unsafe { retired.into_iter().for_each(|semaphore| self.raw.destroy_semaphore(semaphore, None)) };
            }
        }
    }
}
