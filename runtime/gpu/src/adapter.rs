//! The Vulkan devices of this machine: what they are, what they lack, and choosing one. Nothing is created on them.

use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;

use ash::{Entry, vk};

use crate::error::GpuError;
use crate::features::Features;
use crate::inject::VulkanCall;
use crate::timestamps::DeviceClock;

/// What kind of device it is, as its driver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A card with its own memory.
    Discrete,
    /// A GPU that shares the system's memory.
    Integrated,
    /// A GPU of a virtual machine.
    Virtual,
    /// The CPU: a software driver.
    Cpu,
    /// Anything else.
    Other,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete GPU",
            Self::Integrated => "integrated GPU",
            Self::Virtual => "virtual GPU",
            Self::Cpu => "CPU (software driver)",
            Self::Other => "other device",
        })
    }
}

/// Which device to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first that limosa can use, discrete before integrated before software.
    #[default]
    Best,
    /// By position in [`Instance::adapters`].
    Index(usize),
    /// By a part of the name, upper and lower case alike.
    Name(String),
    /// The first of this kind.
    Kind(DeviceKind),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Best => f.write_str("any device"),
            Self::Index(index) => write!(f, "index {index}"),
            Self::Name(name) => write!(f, "name {name:?}"),
            Self::Kind(kind) => write!(f, "kind {kind}"),
        }
    }
}

/// Limits of a device that matter to a program.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of arguments, the translation word included.
    pub argument_bytes: u32,
    /// Bytes of one buffer or import.
    pub segment_bytes: u64,
    /// Workgroups in each dimension.
    pub workgroups: [u32; 3],
    /// Invocations of one workgroup.
    pub workgroup_size: u32,
    /// Bytes of shared memory.
    pub shared_bytes: u32,
    /// Alignment of an imported range in bytes; 0 where there is no import.
    pub import_alignment: u64,
    /// Bytes of device-local memory.
    pub device_memory: u64,
    /// Bytes of addresses that the driver gives to sparse ranges, as it says; 0 where there are none. A larger range is
    /// not refused for it: lavapipe says 2 GiB and makes far more, so the driver's answer at creation counts.
    pub sparse_address_space: u64,
}

/// A physical device and what limosa found out about it.
#[derive(Clone, Debug)]
pub struct Adapter {
    pub(crate) physical: vk::PhysicalDevice,
    /// That of the compute queue.
    pub(crate) queue_family: u32,
    /// That which binds sparse memory, if there is one.
    pub(crate) sparse_family: Option<u32>,
    /// That which copies.
    pub(crate) transfer_family: u32,
    /// That of the compute queue's timestamps, if it has any.
    pub(crate) clock: Option<DeviceClock>,
    /// The extension by which that is compared with the host's, if there is one.
    pub(crate) calibration: Option<&'static CStr>,
    /// Position among the machine's devices.
    pub index: usize,
    /// As the driver names it.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// The driver's name and version.
    pub driver: String,
    /// Vulkan's version, like `1.4.305`.
    pub api: String,
    /// Its limits.
    pub limits: Limits,
    /// What limosa needs and it lacks; empty if it can be used.
    pub missing: Vec<String>,
    /// What a sparse range needs and it lacks; empty if one can be tried.
    pub sparse_missing: Vec<String>,
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {} ({})", self.index, self.name)
    }
}

impl From<&Adapter> for DeviceChoice {
    fn from(adapter: &Adapter) -> Self {
        Self::Index(adapter.index)
    }
}

/// Whose a Vulkan object is: who destroys it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Limosa,
    Application,
}

/// The Vulkan loader with an instance.
pub struct Instance {
    pub(crate) raw: ash::Instance,
    owner: Owner,
    /// After the instance: the library must stay loaded as long as it.
    _entry: Entry,
}

impl Instance {
    /// Loads Vulkan.
    ///
    /// # Errors
    /// [`GpuError::NoLoader`], [`GpuError::NoDevice`] where there is no driver, [`GpuError::Driver`].
    pub fn new() -> Result<Arc<Self>, GpuError> {
        // SAFETY: loads the system's Vulkan loader, which is trusted like any linked library.
        let entry = unsafe { Entry::load() }.map_err(|error| GpuError::NoLoader(error.to_string()))?;
        let application = vk::ApplicationInfo::default().engine_name(c"limosa").api_version(vk::API_VERSION_1_3);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the structures live through the call.
        let raw = VulkanCall::CreateInstance.make(|| unsafe { entry.create_instance(&create, None) })?;
        Ok(Arc::new(Self { raw, owner: Owner::Limosa, _entry: entry }))
    }

    /// An application's, which must outlive it.
    pub(crate) fn lent(entry: &Entry, raw: &ash::Instance) -> Arc<Self> {
        Arc::new(Self { raw: raw.clone(), owner: Owner::Application, _entry: entry.clone() })
    }

    /// What there is to know of one of its devices, which limosa can use.
    ///
    /// # Errors
    /// [`GpuError::Unsuitable`], [`GpuError::NoDevice`] if it is not one of them.
    pub(crate) fn adapter_of(&self, physical: vk::PhysicalDevice) -> Result<Adapter, GpuError> {
        let adapter = self.adapters()?.into_iter().find(|one| one.physical == physical).ok_or(GpuError::NoDevice)?;
        if adapter.missing.is_empty() {
            Ok(adapter)
        } else {
            Err(GpuError::Unsuitable { device: adapter.name, missing: adapter.missing })
        }
    }

    /// The machine's devices, usable or not.
    ///
    /// # Errors
    /// [`GpuError::Driver`].
    pub fn adapters(&self) -> Result<Vec<Adapter>, GpuError> {
        // SAFETY: a query on a live instance.
        let devices = VulkanCall::EnumerateDevices.make(|| unsafe { self.raw.enumerate_physical_devices() })?;
        Ok(devices.into_iter().enumerate().map(|(index, physical)| self.inspect(index, physical)).collect())
    }

    /// The device that `choice` means.
    ///
    /// # Errors
    /// [`GpuError::NoDevice`], [`GpuError::NoSuchDevice`], [`GpuError::Unsuitable`].
    pub fn choose(&self, choice: &DeviceChoice) -> Result<Adapter, GpuError> {
        let adapters = self.adapters()?;
        if adapters.is_empty() {
            return Err(GpuError::NoDevice);
        }
        let found = match choice {
            DeviceChoice::Best => {
                let rank = |kind| match kind {
                    DeviceKind::Discrete => 0,
                    DeviceKind::Integrated => 1,
                    DeviceKind::Virtual => 2,
                    DeviceKind::Other => 3,
                    DeviceKind::Cpu => 4,
                };
                adapters.iter().min_by_key(|adapter| (!adapter.missing.is_empty(), rank(adapter.kind)))
            }
            DeviceChoice::Index(index) => adapters.get(*index),
            DeviceChoice::Name(name) => {
                let name = name.to_lowercase();
                adapters.iter().find(|adapter| adapter.name.to_lowercase().contains(&name))
            }
            DeviceChoice::Kind(kind) => adapters.iter().find(|adapter| adapter.kind == *kind),
        };
        let adapter = found.ok_or_else(|| GpuError::NoSuchDevice {
            wanted: choice.to_string(),
            available: adapters.iter().map(|adapter| adapter.name.clone()).collect(),
        })?;
        if adapter.missing.is_empty() {
            Ok(adapter.clone())
        } else {
            Err(GpuError::Unsuitable { device: adapter.name.clone(), missing: adapter.missing.clone() })
        }
    }

    fn inspect(&self, index: usize, physical: vk::PhysicalDevice) -> Adapter {
        let mut host = vk::PhysicalDeviceExternalMemoryHostPropertiesEXT::default();
        let mut v12 = vk::PhysicalDeviceVulkan12Properties::default();
        let mut v13 = vk::PhysicalDeviceVulkan13Properties::default();
        let mut properties =
            vk::PhysicalDeviceProperties2::default().push_next(&mut host).push_next(&mut v12).push_next(&mut v13);
        // SAFETY: queries on a live instance that fill structures of ours.
        let (queues, memory, extensions) = unsafe {
            self.raw.get_physical_device_properties2(physical, &mut properties);
            (
                self.raw.get_physical_device_queue_family_properties(physical),
                self.raw.get_physical_device_memory_properties(physical),
                self.raw.enumerate_device_extension_properties(physical).unwrap_or_default(),
            )
        };
        let basic = properties.properties;
        let families = Families::of(&queues);
        let version = (vk::api_version_major(basic.api_version), vk::api_version_minor(basic.api_version));
        let importable = has(&extensions, ash::ext::external_memory_host::NAME);
        let family = families.compute.and_then(|index| queues.get(index as usize));
        let calibrations = [ash::khr::calibrated_timestamps::NAME, ash::ext::calibrated_timestamps::NAME];
        let mut missing = Vec::new();
        if version < (1, 3) {
            missing.push(format!("Vulkan 1.3 (it has {}.{})", version.0, version.1));
        } else {
            missing.extend(Features::supported(&self.raw, physical).missing());
        }
        if families.compute.is_none() {
            missing.push("a compute queue".into());
        }
        let mut sparse_missing = Features::supported(&self.raw, physical).missing_sparse();
        if families.sparse.is_none() {
            sparse_missing.push("a queue that binds sparse memory".into());
        }
        let local = memory.memory_heaps_as_slice().iter();
        let local = local.filter(|heap| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
        Adapter {
            physical,
            queue_family: families.compute.unwrap_or(0),
            sparse_family: families.sparse,
            transfer_family: families.transfer.or(families.compute).unwrap_or(0),
            clock: family
                .and_then(|family| DeviceClock::of(family.timestamp_valid_bits, basic.limits.timestamp_period)),
            calibration: calibrations.into_iter().find(|name| has(&extensions, name)),
            index,
            name: text(basic.device_name_as_c_str()),
            kind: kind(basic.device_type),
            driver: format!("{} {}", text(v12.driver_name_as_c_str()), text(v12.driver_info_as_c_str())),
            api: format!("{}.{}.{}", version.0, version.1, vk::api_version_patch(basic.api_version)),
            limits: Limits {
                argument_bytes: basic.limits.max_push_constants_size,
                // A power of two below 4 GiB, so that drivers with 32-bit sizes are not asked for more.
                segment_bytes: v13.max_buffer_size.clamp(1, 1 << 31).next_power_of_two().min(1 << 31),
                workgroups: basic.limits.max_compute_work_group_count,
                workgroup_size: basic.limits.max_compute_work_group_invocations,
                shared_bytes: basic.limits.max_compute_shared_memory_size,
                import_alignment: if importable { host.min_imported_host_pointer_alignment } else { 0 },
                device_memory: local.map(|heap| heap.size).sum(),
                sparse_address_space: basic.limits.sparse_address_space_size,
            },
            missing,
            sparse_missing,
        }
    }
}

/// The queue families that limosa uses, each by its index.
struct Families {
    compute: Option<u32>,
    sparse: Option<u32>,
    /// One that does nothing but copy: its work runs beside kernels.
    transfer: Option<u32>,
}

impl Families {
    fn of(queues: &[vk::QueueFamilyProperties]) -> Self {
        let find = |wanted: &dyn Fn(vk::QueueFlags) -> bool| {
            let mut families = (0u32..).zip(queues).filter(|(_, family)| family.queue_count > 0);
            families.find(|(_, family)| wanted(family.queue_flags)).map(|(index, _)| index)
        };
        let compute = find(&|flags| flags.contains(vk::QueueFlags::COMPUTE));
        let both = vk::QueueFlags::SPARSE_BINDING | vk::QueueFlags::COMPUTE;
        let binds = compute.and_then(|index| queues.get(index as usize)).is_some_and(|f| f.queue_flags.contains(both));
        let sparse = if binds { compute } else { find(&|flags| flags.contains(vk::QueueFlags::SPARSE_BINDING)) };
        let besides = vk::QueueFlags::SPARSE_BINDING | vk::QueueFlags::PROTECTED;
        let transfer = find(&|flags| flags & !besides == vk::QueueFlags::TRANSFER);
        Self { compute, sparse, transfer }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.owner == Owner::Limosa {
            // SAFETY: every device holds the instance by Arc, so none is left.
            unsafe { self.raw.destroy_instance(None) };
        }
    }
}

fn kind(kind: vk::PhysicalDeviceType) -> DeviceKind {
    match kind {
        vk::PhysicalDeviceType::DISCRETE_GPU => DeviceKind::Discrete,
        vk::PhysicalDeviceType::INTEGRATED_GPU => DeviceKind::Integrated,
        vk::PhysicalDeviceType::VIRTUAL_GPU => DeviceKind::Virtual,
        vk::PhysicalDeviceType::CPU => DeviceKind::Cpu,
        _ => DeviceKind::Other,
    }
}

fn text(bytes: Result<&CStr, std::ffi::FromBytesUntilNulError>) -> String {
    bytes.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

fn has(extensions: &[vk::ExtensionProperties], name: &CStr) -> bool {
    extensions.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_gets_the_family_that_does_it_best() {
        const C: vk::QueueFlags = vk::QueueFlags::COMPUTE;
        const G: vk::QueueFlags = vk::QueueFlags::GRAPHICS;
        const S: vk::QueueFlags = vk::QueueFlags::SPARSE_BINDING;
        const T: vk::QueueFlags = vk::QueueFlags::TRANSFER;
        const V: vk::QueueFlags = vk::QueueFlags::VIDEO_DECODE_KHR;
        let of = |flags: &[vk::QueueFlags]| {
            let family = |flags: &vk::QueueFlags| vk::QueueFamilyProperties {
                queue_flags: *flags,
                queue_count: 1,
                ..Default::default()
            };
            let families = Families::of(&flags.iter().map(family).collect::<Vec<_>>());
            (families.compute, families.sparse, families.transfer)
        };
        assert_eq!(of(&[G | C | T | S]), (Some(0), Some(0), None), "one family for all, as lavapipe has it");
        assert_eq!(of(&[G | C | T | S, T | S, C | T | S, V | T]), (Some(0), Some(0), Some(1)), "as NVIDIA has it");
        assert_eq!(of(&[G | C | T, C | T, V | T, S]), (Some(0), Some(3), None), "as radv has it");
        assert_eq!(of(&[G | T, C | T]), (Some(1), None, None));
        assert_eq!(of(&[T]), (None, None, Some(0)));
    }
}
