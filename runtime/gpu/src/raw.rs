//! Vulkan objects of an application's for limosa to work with, and what limosa asks of them. The one module of this crate
//! that shows ash's types. It does *not* take over what it is lent.

use std::ffi::CStr;
use std::sync::Arc;

use ash::vk;

use crate::adapter::{Instance, Owner};
use crate::device::Device;
use crate::error::GpuError;
use crate::features::{self, Features, Optional};
use crate::timeline::{Bound, Ticket, Timeline};

pub use ash;

/// The Vulkan version that limosa needs, of the instance and of the device.
pub const API_VERSION: u32 = vk::API_VERSION_1_3;

/// What a device must be made with for limosa to work on it.
#[derive(Clone, Debug)]
pub struct Requirements {
    supported: Optional,
    /// Extensions to enable.
    pub extensions: Vec<&'static CStr>,
    /// The families that limosa would choose, of each its first queue. One queue with compute is enough.
    pub queues: Queues,
}

impl Requirements {
    /// What limosa needs of `physical`.
    ///
    /// # Safety
    /// `instance` was made through `entry`, `physical` is of `instance`, and both live through the call.
    ///
    /// # Errors
    /// [`GpuError::Unsuitable`], [`GpuError::Driver`].
    pub unsafe fn of(
        entry: &ash::Entry,
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
    ) -> Result<Self, GpuError> {
        let adapter = Instance::lent(entry, instance).adapter_of(physical)?;
        let first = |family| QueueIndex { family, index: 0 };
        let importable = adapter.limits.import_alignment > 0;
        Ok(Self {
            supported: Optional::supported(instance, physical),
            extensions: importable.then_some(ash::ext::external_memory_host::NAME).into_iter().collect(),
            queues: Queues {
                compute: first(adapter.queue_family),
                transfer: Some(first(adapter.transfer_family)),
                sparse: adapter.sparse_family.map(first),
            },
        })
    }

    /// Enables what is needed, and, where it is supported, what sparse memory uses and what kernels often do (numbers of
    /// 8, 16 and 64 bits, atomics of 64, the memory model). What is enabled already stays so. Kernels of your own may
    /// need more.
    pub fn enable(
        &self,
        basic: &mut vk::PhysicalDeviceFeatures,
        v12: &mut vk::PhysicalDeviceVulkan12Features<'_>,
        v13: &mut vk::PhysicalDeviceVulkan13Features<'_>,
    ) {
        features::enable(&self.supported, basic, v12, v13);
    }
}

/// A queue of a device, which was made without flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueIndex {
    /// Its family.
    pub family: u32,
    /// Its place among the queues of the family that the device was made with.
    pub index: u32,
}

/// The queues that limosa may use. Several may be the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// For kernels.
    pub compute: QueueIndex,
    /// For copies; `None`: that for kernels.
    pub transfer: Option<QueueIndex>,
    /// For binding sparse memory; `None`: there is none, and no sparse view.
    pub sparse: Option<QueueIndex>,
}

impl Queues {
    /// Each that is meant, by what it is for and the flags that it needs.
    fn jobs(&self) -> impl Iterator<Item = (&'static str, QueueIndex, vk::QueueFlags)> {
        let transfer = vk::QueueFlags::TRANSFER | vk::QueueFlags::COMPUTE | vk::QueueFlags::GRAPHICS;
        let compute = Some(("compute", self.compute, vk::QueueFlags::COMPUTE));
        let copies = self.transfer.map(|queue| ("transfer", queue, transfer));
        let binds = self.sparse.map(|queue| ("sparse binding", queue, vk::QueueFlags::SPARSE_BINDING));
        [compute, copies, binds].into_iter().flatten()
    }
}

/// An application's Vulkan objects.
#[derive(Clone)]
pub struct Application<'a> {
    /// What the instance was made through.
    pub entry: ash::Entry,
    /// Its instance.
    pub instance: ash::Instance,
    /// The `apiVersion` that the instance was made with.
    pub api_version: u32,
    /// Its choice of a device.
    pub physical: vk::PhysicalDevice,
    /// The device.
    pub device: ash::Device,
    /// What the device was made with.
    pub create: &'a vk::DeviceCreateInfo<'a>,
    /// The queues that limosa may use.
    pub queues: Queues,
}

impl Application<'_> {
    /// What limosa needs that the device was made without.
    ///
    /// # Safety
    /// All that it holds is valid.
    unsafe fn missing(&self, enabled: &Features) -> Vec<String> {
        let mut missing: Vec<_> = enabled.missing().into_iter().map(|name| format!("the feature {name}")).collect();
        if self.api_version < API_VERSION {
            missing.push("an instance for Vulkan 1.3 (apiVersion)".into());
        }
        // SAFETY: promised; a query on a live instance.
        let (made, families) = unsafe {
            let made = slice(self.create.p_queue_create_infos, self.create.queue_create_info_count);
            (made, self.instance.get_physical_device_queue_family_properties(self.physical))
        };
        for (job, QueueIndex { family, index }, flags) in self.queues.jobs() {
            let there =
                |one: &vk::DeviceQueueCreateInfo<'_>| one.queue_family_index == family && index < one.queue_count;
            let plain = |one: &vk::DeviceQueueCreateInfo<'_>| one.flags.is_empty();
            if !made.iter().any(|one| there(one) && plain(one)) {
                missing.push(format!("queue {index} of family {family} without flags, for {job}"));
            } else if !families.get(family as usize).is_some_and(|one| one.queue_flags.intersects(flags)) {
                missing.push(format!("{job} in queue family {family}"));
            }
        }
        missing
    }

    /// # Safety
    /// All that it holds is valid.
    unsafe fn has_extension(&self, name: &CStr) -> bool {
        // SAFETY: promised; names end in NUL.
        unsafe {
            let names = slice(self.create.pp_enabled_extension_names, self.create.enabled_extension_count);
            names.iter().any(|one| CStr::from_ptr(*one) == name)
        }
    }
}

/// # Safety
/// `count` valid elements are at `first`, if it is not null, for as long as the caller uses them.
unsafe fn slice<'a, T>(first: *const T, count: u32) -> &'a [T] {
    // SAFETY: promised.
    if first.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(first, count as usize) } }
}

impl Device {
    /// A device of an application's, which stays the application's.
    ///
    /// # Safety
    /// All of `application` is valid, belongs together, and is truly said. The device lives, with its instance, until
    /// everything made on it here is gone. Until then the application's own use of the queues goes through
    /// [`Self::with_queue`], or does not happen: Vulkan wants one user of a queue at a time. That goes for calls that
    /// concern all queues of the device, such as vkDeviceWaitIdle.
    ///
    /// # Errors
    /// [`GpuError::Unsuitable`]: the driver cannot; [`GpuError::MadeWithout`]: the device was made without what limosa
    /// needs.
    pub unsafe fn lent(application: &Application<'_>) -> Result<Arc<Self>, GpuError> {
        let instance = Instance::lent(&application.entry, &application.instance);
        let mut adapter = instance.adapter_of(application.physical)?;
        // SAFETY: promised.
        let enabled = unsafe { Features::enabled(application.create) };
        // SAFETY: promised.
        let missing = unsafe { application.missing(&enabled) };
        if !missing.is_empty() {
            return Err(GpuError::MadeWithout { device: adapter.name, missing });
        }
        // SAFETY: promised.
        if !unsafe { application.has_extension(ash::ext::external_memory_host::NAME) } {
            adapter.limits.import_alignment = 0;
        }
        adapter.sparse_missing = enabled.missing_sparse();
        if application.queues.sparse.is_none() {
            adapter.sparse_missing.push("a queue that binds sparse memory".into());
        }
        Ok(Self::borrowed(&instance, adapter, application.device.clone(), application.queues))
    }

    /// The instance that it is of.
    #[must_use]
    pub fn raw_instance(&self) -> &ash::Instance {
        &self.instance.raw
    }

    /// The device.
    #[must_use]
    pub fn raw(&self) -> &ash::Device {
        &self.raw
    }

    /// What it is a device of.
    #[must_use]
    pub fn physical(&self) -> vk::PhysicalDevice {
        self.adapter.physical
    }

    /// The family of the queue that kernels run on.
    #[must_use]
    pub fn family(&self) -> u32 {
        self.compute.family
    }

    /// A value of an application's timeline semaphore.
    ///
    /// # Safety
    /// `semaphore` is a timeline semaphore of this device, and lives as long as the answer.
    #[must_use]
    pub unsafe fn lent_point(self: &Arc<Self>, semaphore: vk::Semaphore, value: u64) -> Bound {
        (Timeline::of(self, semaphore, Owner::Application), Ticket(value))
    }

    /// The queue that kernels run on, for nobody else meanwhile.
    pub fn with_queue<R>(&self, use_it: impl FnOnce(vk::Queue) -> R) -> R {
        use_it(*self.compute.lock())
    }
}

/// What to wait for on the device, as Vulkan names it. The semaphore lives as long as `bound` and the device's last wait
/// for it.
#[must_use]
pub fn semaphore((timeline, ticket): &Bound) -> (vk::Semaphore, u64) {
    (Timeline::awaited(timeline), ticket.0)
}
