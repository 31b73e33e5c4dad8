//! Raw Vulkan, the peer: what a careful program without limosa does, with the same kind of submission and wait
//! (vkQueueSubmit2, timeline semaphore). One thread uses it.

use std::cell::Cell;
use std::ffi::CStr;

use ash::vk;
use limosa_shaders::translation;

use crate::buffer::Buffer;

const HOST_ALLOCATION: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;

/// Recorded commands, or room for them. They live as long as their device.
pub(crate) type Commands = vk::CommandBuffer;

/// A device with one queue.
pub(crate) struct Device {
    raw: ash::Device,
    physical: vk::PhysicalDevice,
    queue: vk::Queue,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    semaphore: vk::Semaphore,
    reached: Cell<u64>,
    instance: ash::Instance,
    _entry: ash::Entry,
}

/// A compute pipeline for pointers that are device addresses.
pub(crate) struct Pipeline {
    raw: vk::Pipeline,
    layout: vk::PipelineLayout,
    device: ash::Device,
}

/// A buffer with its memory and its two addresses.
pub(crate) struct Memory {
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    address: u64,
    host: *mut u8,
    /// Of imported memory, which must outlive the import.
    _buffer: Option<Buffer>,
    device: ash::Device,
}

impl Device {
    /// Opens the device of this name.
    pub(crate) fn open(name: &str) -> Self {
        // SAFETY: loads the system's Vulkan loader; structures live through the calls they are given to; only what
        // was made here is used.
        unsafe {
            let entry = ash::Entry::load().unwrap();
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let create = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&create, None).unwrap();
            let named = |physical: &vk::PhysicalDevice| {
                let properties = instance.get_physical_device_properties(*physical);
                properties.device_name_as_c_str().is_ok_and(|found| found.to_bytes() == name.as_bytes())
            };
            let physical = instance.enumerate_physical_devices().unwrap().into_iter().find(named).unwrap();
            let (raw, family) = logical(&instance, physical);
            let queue = raw.get_device_queue(family, 0);
            let flags = vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER;
            let create = vk::CommandPoolCreateInfo::default().queue_family_index(family).flags(flags);
            let pool = raw.create_command_pool(&create, None).unwrap();
            let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
            let create = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
            let semaphore = raw.create_semaphore(&create, None).unwrap();
            let commands = commands(&raw, pool);
            let reached = Cell::new(0);
            Self { raw, physical, queue, pool, commands, semaphore, reached, instance, _entry: entry }
        }
    }

    /// With values of specialization constants by id.
    pub(crate) fn pipeline(&self, words: &[u32], constants: &[(u32, u32)]) -> Pipeline {
        let stage = vk::ShaderStageFlags::COMPUTE;
        let range = [vk::PushConstantRange::default().stage_flags(stage).size(128)];
        let create = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(&range);
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        for (id, value) in [(translation::CONSTANT_ID, translation::Mode::Identity as u32)].iter().chain(constants) {
            let offset = u32::try_from(data.len()).unwrap();
            entries.push(vk::SpecializationMapEntry::default().constant_id(*id).offset(offset).size(4));
            data.extend_from_slice(&value.to_ne_bytes());
        }
        let constants = vk::SpecializationInfo::default().map_entries(&entries).data(&data);
        // SAFETY: the structures live through the calls; the module is valid and gone after its only use.
        unsafe {
            let layout = self.raw.create_pipeline_layout(&create, None).unwrap();
            let create = vk::ShaderModuleCreateInfo::default().code(words);
            let module = self.raw.create_shader_module(&create, None).unwrap();
            let stage = vk::PipelineShaderStageCreateInfo::default().stage(stage).module(module);
            let stage = stage.name(c"main").specialization_info(&constants);
            let create = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout)];
            let made = self.raw.create_compute_pipelines(vk::PipelineCache::null(), &create, None);
            self.raw.destroy_shader_module(module, None);
            Pipeline { raw: made.map_err(|(_, error)| error).unwrap()[0], layout, device: self.raw.clone() }
        }
    }

    /// The driver's own memory, device-local and visible to the host.
    pub(crate) fn allocate(&self, len: usize) -> Memory {
        let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let buffer = self.buffer(len, vk::ExternalMemoryHandleTypeFlags::empty());
        // SAFETY: the structures live through the calls.
        unsafe {
            let requirements = self.raw.get_buffer_memory_requirements(buffer);
            let create = vk::MemoryAllocateInfo::default()
                .allocation_size(requirements.size)
                .memory_type_index(self.memory_type(requirements.memory_type_bits))
                .push_next(&mut flags);
            let memory = self.raw.allocate_memory(&create, None).unwrap();
            let host = self.raw.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()).unwrap();
            self.bind(buffer, memory, host.cast(), None)
        }
    }

    /// Memory of ours.
    pub(crate) fn import(&self, ours: Buffer) -> Memory {
        // SAFETY: the memory lives as long as what is made of it.
        unsafe { self.import_range(ours.as_ptr(), ours.len(), Some(ours)) }
    }

    /// Memory at an address, kept alive by `ours` if given.
    ///
    /// # Safety
    /// The range stays mapped as long as what is made of it.
    pub(crate) unsafe fn import_range(&self, host: *mut u8, len: usize, ours: Option<Buffer>) -> Memory {
        let extension = ash::ext::external_memory_host::Device::new(&self.instance, &self.raw);
        let query = extension.fp().get_memory_host_pointer_properties_ext;
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        let mut import =
            vk::ImportMemoryHostPointerInfoEXT::default().handle_type(HOST_ALLOCATION).host_pointer(host.cast());
        let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let buffer = self.buffer(len, HOST_ALLOCATION);
        // SAFETY: the structures live through the calls; the memory does by the caller's promise.
        unsafe {
            query(self.raw.handle(), HOST_ALLOCATION, host.cast(), &mut properties).result().unwrap();
            let create = vk::MemoryAllocateInfo::default()
                .allocation_size(len as u64)
                .memory_type_index(self.memory_type(properties.memory_type_bits))
                .push_next(&mut import)
                .push_next(&mut flags);
            let memory = self.raw.allocate_memory(&create, None).unwrap();
            self.bind(buffer, memory, host, ours)
        }
    }

    fn buffer(&self, len: usize, handles: vk::ExternalMemoryHandleTypeFlags) -> vk::Buffer {
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(handles);
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        let create = vk::BufferCreateInfo::default().size(len as u64).usage(usage).push_next(&mut external);
        // SAFETY: the structures live through the call.
        unsafe { self.raw.create_buffer(&create, None) }.unwrap()
    }

    /// # Safety
    /// `memory` suits `buffer`, has its contents at `host`, and both were just made on this device.
    unsafe fn bind(&self, buffer: vk::Buffer, memory: vk::DeviceMemory, host: *mut u8, ours: Option<Buffer>) -> Memory {
        // SAFETY: the caller's promise.
        unsafe {
            self.raw.bind_buffer_memory(buffer, memory, 0).unwrap();
            let info = vk::BufferDeviceAddressInfo::default().buffer(buffer);
            let address = self.raw.get_buffer_device_address(&info);
            Memory { buffer, memory, address, host, _buffer: ours, device: self.raw.clone() }
        }
    }

    /// The first type that is local to the device and visible to the host.
    fn memory_type(&self, allowed: u32) -> u32 {
        use vk::MemoryPropertyFlags as Flags;
        // SAFETY: a query on a live instance.
        let memory = unsafe { self.instance.get_physical_device_memory_properties(self.physical) };
        let wanted = Flags::DEVICE_LOCAL | Flags::HOST_VISIBLE | Flags::HOST_COHERENT;
        let suits =
            |(index, kind): &(u32, &vk::MemoryType)| allowed >> index & 1 == 1 && kind.property_flags.contains(wanted);
        (0..).zip(memory.memory_types_as_slice()).find(suits).map(|(index, _)| index).unwrap()
    }

    /// Room for commands.
    pub(crate) fn commands(&self) -> Commands {
        // SAFETY: the pool is used by one thread only.
        unsafe { commands(&self.raw, self.pool) }
    }

    /// Records a launch once, for [`Self::submit`].
    pub(crate) fn record<T: Copy>(&self, pipeline: &Pipeline, groups: u32, arguments: &T) -> Commands {
        let commands = self.commands();
        let flags = vk::CommandBufferUsageFlags::empty();
        // SAFETY: just made, so not in flight.
        unsafe { self.record_into(commands, flags, pipeline, groups, arguments) };
        commands
    }

    /// Records a launch into `commands` and submits them.
    ///
    /// # Safety
    /// `commands` are not in flight. What the kernel reaches through `arguments`, which have no padding, is valid until
    /// a wait.
    pub(crate) unsafe fn enqueue<T: Copy>(&self, commands: Commands, pipeline: &Pipeline, groups: u32, arguments: &T) {
        let flags = vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT;
        // SAFETY: the caller's promise.
        unsafe {
            self.record_into(commands, flags, pipeline, groups, arguments);
            self.submit(commands);
        }
    }

    /// Records a launch, submits it and waits for it.
    ///
    /// # Safety
    /// What the kernel reaches through `arguments`, which have no padding, is valid.
    pub(crate) unsafe fn launch<T: Copy>(&self, pipeline: &Pipeline, groups: u32, arguments: &T) {
        // SAFETY: each of these is waited for, so the commands are not in flight; the rest is the caller's promise.
        unsafe { self.enqueue(self.commands, pipeline, groups, arguments) };
        self.wait();
    }

    /// # Safety
    /// `commands` is not in flight; `arguments` have no padding.
    unsafe fn record_into<T: Copy>(
        &self,
        commands: vk::CommandBuffer,
        flags: vk::CommandBufferUsageFlags,
        pipeline: &Pipeline,
        groups: u32,
        arguments: &T,
    ) {
        let (shader, host) = (vk::PipelineStageFlags2::COMPUTE_SHADER, vk::PipelineStageFlags2::HOST);
        // What comes behind it on the queue, and the host, see what it wrote: launches in order, as limosa's are.
        let (reads, writes) = (vk::AccessFlags2::SHADER_READ, vk::AccessFlags2::SHADER_WRITE);
        let after = [vk::MemoryBarrier2::default()
            .src_stage_mask(shader)
            .src_access_mask(writes)
            .dst_stage_mask(shader | host)
            .dst_access_mask(reads | writes | vk::AccessFlags2::HOST_READ | vk::AccessFlags2::HOST_WRITE)];
        // SAFETY: no padding, by the caller's promise; the structures live through the calls.
        unsafe {
            let bytes = std::slice::from_raw_parts(std::ptr::from_ref(arguments).cast::<u8>(), size_of::<T>());
            let begin = vk::CommandBufferBeginInfo::default().flags(flags);
            self.raw.begin_command_buffer(commands, &begin).unwrap();
            self.raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, pipeline.raw);
            let stage = vk::ShaderStageFlags::COMPUTE;
            self.raw.cmd_push_constants(commands, pipeline.layout, stage, 0, &[0; 8]);
            self.raw.cmd_push_constants(commands, pipeline.layout, stage, 8, bytes);
            self.raw.cmd_dispatch(commands, groups, 1, 1);
            self.raw.cmd_pipeline_barrier2(commands, &vk::DependencyInfo::default().memory_barriers(&after));
            self.raw.end_command_buffer(commands).unwrap();
        }
    }

    /// Submits `commands`.
    ///
    /// # Safety
    /// `commands` are recorded and not in flight, and what their kernel reaches is valid until a wait.
    pub(crate) unsafe fn submit(&self, commands: Commands) {
        let value = self.reached.get() + 1;
        self.reached.set(value);
        let buffers = [vk::CommandBufferSubmitInfo::default().command_buffer(commands)];
        let everything = vk::PipelineStageFlags2::ALL_COMMANDS;
        let signals =
            [vk::SemaphoreSubmitInfo::default().semaphore(self.semaphore).value(value).stage_mask(everything)];
        let submit = [vk::SubmitInfo2::default().command_buffer_infos(&buffers).signal_semaphore_infos(&signals)];
        // SAFETY: the structures live through the call; one thread uses the queue.
        unsafe { self.raw.queue_submit2(self.queue, &submit, vk::Fence::null()) }.unwrap();
    }

    /// Waits for all that was submitted.
    pub(crate) fn wait(&self) {
        let (semaphores, values) = ([self.semaphore], [self.reached.get()]);
        let wait = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the structures live through the call.
        unsafe { self.raw.wait_semaphores(&wait, u64::MAX) }.unwrap();
    }
}

/// A logical device with a compute queue, and the queue's family.
///
/// # Safety
/// `physical` is the instance's.
unsafe fn logical(instance: &ash::Instance, physical: vk::PhysicalDevice) -> (ash::Device, u32) {
    // SAFETY: the caller's promise; the structures live through the calls.
    unsafe {
        let families = instance.get_physical_device_queue_family_properties(physical);
        let computes =
            |(_, family): &(u32, &vk::QueueFamilyProperties)| family.queue_flags.contains(vk::QueueFlags::COMPUTE);
        let (family, _) = (0..).zip(&families).find(computes).unwrap();
        let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
        let extensions: [&CStr; 1] = [ash::ext::external_memory_host::NAME];
        let names = extensions.map(CStr::as_ptr);
        let features = vk::PhysicalDeviceFeatures::default().shader_int64(true);
        let mut v12 = vk::PhysicalDeviceVulkan12Features::default()
            .buffer_device_address(true)
            .timeline_semaphore(true)
            .scalar_block_layout(true)
            .shader_buffer_int64_atomics(true);
        let mut v13 = vk::PhysicalDeviceVulkan13Features::default().synchronization2(true).maintenance4(true);
        let create = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&names)
            .enabled_features(&features)
            .push_next(&mut v12)
            .push_next(&mut v13);
        (instance.create_device(physical, &create, None).unwrap(), family)
    }
}

/// # Safety
/// The pool is the device's, and nobody else uses it meanwhile.
unsafe fn commands(raw: &ash::Device, pool: vk::CommandPool) -> vk::CommandBuffer {
    let allocate = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
    // SAFETY: the caller's promise.
    unsafe { raw.allocate_command_buffers(&allocate) }.unwrap()[0]
}

impl Memory {
    /// The device's address of the first byte.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// The CPU's.
    pub(crate) fn host(&self) -> *mut u8 {
        self.host
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: every launch was waited for.
        unsafe {
            self.device.destroy_buffer(self.buffer, None);
            self.device.free_memory(self.memory, None);
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // SAFETY: every launch was waited for.
        unsafe {
            self.device.destroy_pipeline(self.raw, None);
            self.device.destroy_pipeline_layout(self.layout, None);
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: every launch was waited for, and what was made on the device was declared after it, so is gone.
        unsafe {
            self.raw.destroy_semaphore(self.semaphore, None);
            self.raw.destroy_command_pool(self.pool, None);
            self.raw.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}
