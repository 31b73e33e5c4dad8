//! The Vulkan features that limosa has to do with: what a device supports, or was made with. It does *not* enable any.

use ash::vk;

/// Features that are there, of those that matter.
#[derive(Clone, Copy, Default)]
pub(crate) struct Features {
    basic: vk::PhysicalDeviceFeatures,
    buffer_device_address: vk::Bool32,
    timeline_semaphore: vk::Bool32,
    scalar_block_layout: vk::Bool32,
    synchronization2: vk::Bool32,
    maintenance4: vk::Bool32,
}

impl Features {
    /// What a device supports, which has Vulkan 1.3.
    pub(crate) fn supported(instance: &ash::Instance, physical: vk::PhysicalDevice) -> Self {
        let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
        let mut v13 = vk::PhysicalDeviceVulkan13Features::default();
        let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut v12).push_next(&mut v13);
        // SAFETY: a query on a live instance that fills structures of ours.
        unsafe { instance.get_physical_device_features2(physical, &mut features) };
        let mut there = Self { basic: features.features, ..Self::default() };
        there.add_12(&v12);
        there.add_13(&v13);
        there
    }

    /// What a device was made with.
    ///
    /// # Safety
    /// `create` is valid, with all that it points to.
    pub(crate) unsafe fn enabled(create: &vk::DeviceCreateInfo<'_>) -> Self {
        // SAFETY: null, or valid as promised.
        let basic = unsafe { create.p_enabled_features.as_ref() }.copied().unwrap_or_default();
        let mut there = Self { basic, ..Self::default() };
        let mut next = create.p_next.cast::<vk::BaseInStructure<'_>>();
        // SAFETY: the chain's structures begin so, and the last one's pointer is null.
        while let Some(one) = unsafe { next.as_ref() } {
            // SAFETY: a structure is of the type that it says.
            unsafe { there.add(one) };
            next = one.p_next;
        }
        there
    }

    /// # Safety
    /// `one` begins a valid structure of the type that it says.
    unsafe fn add(&mut self, one: &vk::BaseInStructure<'_>) {
        use vk::StructureType as Type;
        let this = std::ptr::from_ref(one);
        // SAFETY: the type says what it is.
        unsafe {
            match one.s_type {
                Type::PHYSICAL_DEVICE_FEATURES_2 => {
                    self.basic = (*this.cast::<vk::PhysicalDeviceFeatures2<'_>>()).features;
                }
                Type::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES => self.add_12(&*this.cast()),
                Type::PHYSICAL_DEVICE_VULKAN_1_3_FEATURES => self.add_13(&*this.cast()),
                Type::PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES => {
                    let feature = &*this.cast::<vk::PhysicalDeviceBufferDeviceAddressFeatures<'_>>();
                    self.buffer_device_address |= feature.buffer_device_address;
                }
                Type::PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES => {
                    let feature = &*this.cast::<vk::PhysicalDeviceTimelineSemaphoreFeatures<'_>>();
                    self.timeline_semaphore |= feature.timeline_semaphore;
                }
                Type::PHYSICAL_DEVICE_SCALAR_BLOCK_LAYOUT_FEATURES => {
                    let feature = &*this.cast::<vk::PhysicalDeviceScalarBlockLayoutFeatures<'_>>();
                    self.scalar_block_layout |= feature.scalar_block_layout;
                }
                Type::PHYSICAL_DEVICE_SYNCHRONIZATION_2_FEATURES => {
                    let feature = &*this.cast::<vk::PhysicalDeviceSynchronization2Features<'_>>();
                    self.synchronization2 |= feature.synchronization2;
                }
                Type::PHYSICAL_DEVICE_MAINTENANCE_4_FEATURES => {
                    self.maintenance4 |= (*this.cast::<vk::PhysicalDeviceMaintenance4Features<'_>>()).maintenance4;
                }
                _ => {}
            }
        }
    }

    fn add_12(&mut self, v12: &vk::PhysicalDeviceVulkan12Features<'_>) {
        self.buffer_device_address |= v12.buffer_device_address;
        self.timeline_semaphore |= v12.timeline_semaphore;
        self.scalar_block_layout |= v12.scalar_block_layout;
    }

    fn add_13(&mut self, v13: &vk::PhysicalDeviceVulkan13Features<'_>) {
        self.synchronization2 |= v13.synchronization2;
        self.maintenance4 |= v13.maintenance4;
    }

    /// What limosa needs, and is not there.
    pub(crate) fn missing(&self) -> Vec<String> {
        absent(&[
            (self.basic.shader_int64, "shaderInt64"),
            (self.buffer_device_address, "bufferDeviceAddress"),
            (self.timeline_semaphore, "timelineSemaphore"),
            (self.scalar_block_layout, "scalarBlockLayout"),
            (self.synchronization2, "synchronization2"),
            (self.maintenance4, "maintenance4"),
        ])
    }

    /// What sparse ranges need, and is not there.
    pub(crate) fn missing_sparse(&self) -> Vec<String> {
        absent(&[
            (self.basic.sparse_binding, "sparseBinding"),
            (self.basic.sparse_residency_buffer, "sparseResidencyBuffer"),
            // A frame is reached through a sparse range by kernels, and through a buffer of its own by copies.
            (self.basic.sparse_residency_aliased, "sparseResidencyAliased"),
        ])
    }
}

/// What a device supports of what is not needed, but made use of: by sparse ranges and by kernels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Optional {
    basic: vk::PhysicalDeviceFeatures,
    v12: vk::PhysicalDeviceVulkan12Features<'static>,
}

impl Optional {
    pub(crate) fn supported(instance: &ash::Instance, physical: vk::PhysicalDevice) -> Self {
        let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
        let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut v12);
        // SAFETY: a query on a live instance that fills structures of ours.
        unsafe { instance.get_physical_device_features2(physical, &mut features) };
        let basic = features.features;
        Self { basic, v12 }
    }
}

/// Has a device that is to be made the features that limosa needs, and those that it makes use of where `supported`.
/// What is enabled already stays so.
pub(crate) fn enable(
    Optional { basic: supported, v12: supported_12 }: &Optional,
    basic: &mut vk::PhysicalDeviceFeatures,
    v12: &mut vk::PhysicalDeviceVulkan12Features<'_>,
    v13: &mut vk::PhysicalDeviceVulkan13Features<'_>,
) {
    basic.shader_int64 = vk::TRUE;
    // What kernels may want, and what sparse ranges need.
    basic.shader_int16 |= supported.shader_int16;
    basic.shader_float64 |= supported.shader_float64;
    basic.sparse_binding |= supported.sparse_binding;
    basic.sparse_residency_buffer |= supported.sparse_residency_buffer;
    basic.sparse_residency_aliased |= supported.sparse_residency_aliased;
    v12.shader_buffer_int64_atomics |= supported_12.shader_buffer_int64_atomics;
    v12.shader_int8 |= supported_12.shader_int8;
    v12.shader_float16 |= supported_12.shader_float16;
    v12.storage_buffer8_bit_access |= supported_12.storage_buffer8_bit_access;
    v12.vulkan_memory_model |= supported_12.vulkan_memory_model;
    v12.vulkan_memory_model_device_scope |= supported_12.vulkan_memory_model_device_scope;
    v12.buffer_device_address = vk::TRUE;
    v12.timeline_semaphore = vk::TRUE;
    v12.scalar_block_layout = vk::TRUE;
    v13.synchronization2 = vk::TRUE;
    v13.maintenance4 = vk::TRUE;
}

fn absent(features: &[(vk::Bool32, &str)]) -> Vec<String> {
    features.iter().filter(|(there, _)| *there == vk::FALSE).map(|(_, name)| (*name).to_owned()).collect()
}
