//! An application with Vulkan objects of its own, as `raw` takes them: it makes a device, dispatches, and destroys.

#![allow(unreachable_pub, clippy::unwrap_used)] // helpers of tests are tests

use std::ffi::CString;

use ash::vk;
use limosa::raw::{Application, QueueIndex, Queues, Requirements, Vulkan};
use limosa_shaders::{copy, translation};

/// What the application leaves out of what limosa requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    Nothing,
    TimelineSemaphore,
    BufferDeviceAddress,
    ShaderInt64,
    Synchronization2,
    Extensions,
    Sparse,
    /// It says that its instance is for Vulkan 1.1.
    ApiVersion,
    /// It names a queue that it did not ask for.
    TheQueue,
}

/// The application's own instance and device; destroyed when dropped.
pub struct Own {
    /// Keeps the loader loaded.
    _entry: ash::Entry,
    pub instance: ash::Instance,
    pub physical: vk::PhysicalDevice,
    pub device: ash::Device,
    pub family: u32,
}

impl Own {
    /// A device as `raw::Requirements` says, but for what it leaves out, and what limosa says to it; `None` where there is
    /// no software device.
    pub fn with(test: &str, leaves: Leaves) -> Option<(Self, limosa::Result<Vulkan>)> {
        // SAFETY: an ordinary use of Vulkan: what is made here lives as long as `Own`.
        unsafe {
            let Ok(entry) = ash::Entry::load() else {
                crate::common::skip(test, "lavapipe", "no Vulkan loader");
                return None;
            };
            let about = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let create = vk::InstanceCreateInfo::default().application_info(&about);
            let instance = entry.create_instance(&create, None).unwrap();
            let software = |one: &vk::PhysicalDevice| {
                instance.get_physical_device_properties(*one).device_type == vk::PhysicalDeviceType::CPU
            };
            let Some(physical) = instance.enumerate_physical_devices().unwrap_or_default().into_iter().find(software)
            else {
                crate::common::skip(test, "lavapipe", "no software device");
                instance.destroy_instance(None);
                return None;
            };
            Some(Self::made(entry, instance, physical, leaves))
        }
    }

    /// # Safety
    /// All is live, and of each other.
    unsafe fn made(
        entry: ash::Entry,
        instance: ash::Instance,
        physical: vk::PhysicalDevice,
        leaves: Leaves,
    ) -> (Self, limosa::Result<Vulkan>) {
        // SAFETY: as promised, and as in `with`.
        let required = unsafe { Requirements::of(&entry, &instance, physical) }.unwrap();
        let mut basic = vk::PhysicalDeviceFeatures::default();
        let (mut v12, mut v13) =
            (vk::PhysicalDeviceVulkan12Features::default(), vk::PhysicalDeviceVulkan13Features::default());
        required.enable(&mut basic, &mut v12, &mut v13);
        match leaves {
            Leaves::TimelineSemaphore => v12.timeline_semaphore = vk::FALSE,
            Leaves::BufferDeviceAddress => v12.buffer_device_address = vk::FALSE,
            Leaves::ShaderInt64 => basic.shader_int64 = vk::FALSE,
            Leaves::Synchronization2 => v13.synchronization2 = vk::FALSE,
            Leaves::Sparse => basic.sparse_binding = vk::FALSE,
            _ => {}
        }
        let family = required.queues.compute.family;
        let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
        let names: Vec<_> = required.extensions.iter().map(|name| name.as_ptr()).collect();
        let names = if leaves == Leaves::Extensions { &[] } else { &names[..] };
        let create = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(names)
            .enabled_features(&basic)
            .push_next(&mut v12)
            .push_next(&mut v13);
        let index = if leaves == Leaves::TheQueue { 1 } else { 0 };
        let queue = QueueIndex { family, index };
        // SAFETY: as above.
        let device = unsafe { instance.create_device(physical, &create, None) }.unwrap();
        let application = Application {
            entry: entry.clone(),
            instance: instance.clone(),
            api_version: if leaves == Leaves::ApiVersion { vk::API_VERSION_1_1 } else { vk::API_VERSION_1_3 },
            physical,
            device: device.clone(),
            create: &create,
            queues: Queues { compute: queue, transfer: None, sparse: Some(queue) },
        };
        // SAFETY: all of it is so, and each test drops what limosa made before `Own`.
        let vulkan = unsafe { Vulkan::new(&application) };
        (Self { _entry: entry, instance, physical, device, family }, vulkan)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: each test drops what was made on them before.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// A dispatch of the application's that copies words from a device address into a buffer of its own.
pub struct Copier<'a> {
    device: &'a ash::Device,
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    address: u64,
    mapped: *const u32,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
    pool: vk::CommandPool,
    fence: vk::Fence,
    words: u64,
}

impl<'a> Copier<'a> {
    pub fn new(vulkan: &'a Vulkan, words: u64) -> Self {
        let device = vulkan.device();
        // SAFETY: an ordinary use of Vulkan, as all that follows; what is made lives as long as `self`.
        unsafe {
            let usage = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
            let buffer =
                device.create_buffer(&vk::BufferCreateInfo::default().size(words * 4).usage(usage), None).unwrap();
            let needs = device.get_buffer_memory_requirements(buffer);
            let types = vulkan.instance().get_physical_device_memory_properties(vulkan.physical_device());
            let wanted = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
            let fits = |(index, kind): &(u32, &vk::MemoryType)| {
                needs.memory_type_bits >> index & 1 == 1 && kind.property_flags.contains(wanted)
            };
            let (index, _) = (0u32..).zip(types.memory_types_as_slice()).find(fits).unwrap();
            let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
            let allocate = vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(index);
            let memory = device.allocate_memory(&allocate.push_next(&mut flags), None).unwrap();
            device.bind_buffer_memory(buffer, memory, 0).unwrap();
            let mapped = device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()).unwrap();
            let address = device.get_buffer_device_address(&vk::BufferDeviceAddressInfo::default().buffer(buffer));
            let (layout, pipeline) = pipeline(device);
            let create = vk::CommandPoolCreateInfo::default().queue_family_index(vulkan.queue_family());
            let pool = device.create_command_pool(&create, None).unwrap();
            let fence = device.create_fence(&vk::FenceCreateInfo::default(), None).unwrap();
            let mapped = mapped.cast_const().cast();
            Self { device, buffer, memory, address, mapped, layout, pipeline, pool, fence, words }
        }
    }

    /// Copies from `source` on, behind `after` on the device, and gives what came.
    pub fn copy(&self, vulkan: &Vulkan, source: u64, after: Option<(vk::Semaphore, u64)>) -> &[u32] {
        let device = self.device;
        // SAFETY: as above; the queue is used under its lock, and the fence waited for.
        unsafe {
            let allocate = vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
            let commands = device.allocate_command_buffers(&allocate).unwrap()[0];
            let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
            device.begin_command_buffer(commands, &begin).unwrap();
            device.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, self.pipeline);
            // No translation: device addresses are given.
            let words = [0, self.address, source, self.words];
            let arguments: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            device.cmd_push_constants(commands, self.layout, vk::ShaderStageFlags::COMPUTE, 0, &arguments);
            device.cmd_dispatch(commands, 16, 1, 1);
            let after_it = [vk::MemoryBarrier2::default()
                .src_stage_mask(vk::PipelineStageFlags2::COMPUTE_SHADER)
                .src_access_mask(vk::AccessFlags2::SHADER_WRITE)
                .dst_stage_mask(vk::PipelineStageFlags2::HOST)
                .dst_access_mask(vk::AccessFlags2::HOST_READ)];
            device.cmd_pipeline_barrier2(commands, &vk::DependencyInfo::default().memory_barriers(&after_it));
            device.end_command_buffer(commands).unwrap();
            let buffers = [vk::CommandBufferSubmitInfo::default().command_buffer(commands)];
            let wait = |(semaphore, value)| {
                let all = vk::PipelineStageFlags2::ALL_COMMANDS;
                vk::SemaphoreSubmitInfo::default().semaphore(semaphore).value(value).stage_mask(all)
            };
            let waits: Vec<_> = after.into_iter().map(wait).collect();
            let submit = [vk::SubmitInfo2::default().wait_semaphore_infos(&waits).command_buffer_infos(&buffers)];
            vulkan.with_queue(|queue| device.queue_submit2(queue, &submit, self.fence)).unwrap();
            device.wait_for_fences(&[self.fence], true, u64::MAX).unwrap();
            device.reset_fences(&[self.fence]).unwrap();
            device.free_command_buffers(self.pool, &[commands]);
            std::slice::from_raw_parts(self.mapped, usize::try_from(self.words).unwrap())
        }
    }
}

fn pipeline(device: &ash::Device) -> (vk::PipelineLayout, vk::Pipeline) {
    let words = copy::KERNEL.words();
    let range = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(32)];
    let mode = (translation::Mode::Identity as u32).to_ne_bytes();
    let entries = [vk::SpecializationMapEntry::default().constant_id(translation::CONSTANT_ID).size(4)];
    let values = vk::SpecializationInfo::default().map_entries(&entries).data(&mode);
    let main = CString::new("main").unwrap();
    // SAFETY: the structures live through the calls.
    unsafe {
        let layout = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(&range);
        let layout = device.create_pipeline_layout(&layout, None).unwrap();
        let module = device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&words), None).unwrap();
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(&main)
            .specialization_info(&values);
        let create = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout)];
        let made = device.create_compute_pipelines(vk::PipelineCache::null(), &create, None).unwrap();
        device.destroy_shader_module(module, None);
        (layout, made[0])
    }
}

impl Drop for Copier<'_> {
    fn drop(&mut self) {
        // SAFETY: nothing is in flight: `copy` waits.
        unsafe {
            self.device.destroy_fence(self.fence, None);
            self.device.destroy_command_pool(self.pool, None);
            self.device.destroy_pipeline(self.pipeline, None);
            self.device.destroy_pipeline_layout(self.layout, None);
            self.device.destroy_buffer(self.buffer, None);
            self.device.free_memory(self.memory, None);
        }
    }
}
