//! Vulkan below limosa: contexts on an application's own VkInstance and VkDevice, and the objects under any context. The
//! only module with ash's types; the rest of the API does without.
//!
//! # Queues
//! Vulkan wants one user of a VkQueue at a time. A queue that the application gives to limosa alone needs no care; of one
//! that both use, the application's submissions go through [`Vulkan::with_queue`]. Calls that concern all queues of a
//! device (vkDeviceWaitIdle) must not meet a use of limosa's either: have its contexts idle, or wait for a queue instead.
//!
//! # What may be touched when
//! Unified memory has a device address ([`device_address`]), and the application's own submissions may use it by the rules
//! of a launch: not beside launches that write it, nor beside CPU threads, if they write. They wait for a launch by its
//! [`Point`], and a launch for them by an [`event()`] on their semaphore. limosa does not know of them, and holds nothing for them: where kernels can fault
//! ([`crate::DeviceClass::Faulting`]), what they touch is brought as it is for a launch that keeps it; elsewhere it must be
//! on the device already (prefetch it), and nothing may make it leave until they are done: no access of the CPU's, and no
//! launch or prefetch on that context that could need its room. Memory of [`crate::Home::Shared`] is always there.
//!
//! ```
//! use limosa::raw::{Vulkan, device_address};
//!
//! # fn main() -> limosa::Result<()> {
//! let context = limosa::Context::new()?;
//! let vec = context.heap().vec_with(1000, |i| i as u32)?;
//! let vulkan = Vulkan::of(&context);
//! let family = vulkan.queue_family();
//! println!("{:?}, family {family}: {:?}", vulkan.physical_device(), device_address(&context, vec.ptr(0)));
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

use limosa_gpu::{Bound, Device};
use limosa_model::HostAddr;

use crate::context::{Context, ContextBuilder};
use crate::event::Event;
use crate::pointer::GpuPtr;
use crate::queue::Queue;
use crate::{Error, Result};

pub use limosa_gpu::raw::{API_VERSION, Application, QueueIndex, Queues, Requirements, ash};

use ash::vk;

/// A VkDevice that limosa works on, its own or an application's; cheap to clone. As long as one exists, the objects live
/// that limosa owns.
#[derive(Clone)]
pub struct Vulkan {
    device: Arc<Device>,
}

impl Vulkan {
    /// An application's device, which stays the application's: limosa destroys nothing of it. [`Requirements`] says what
    /// it must be made with. Dropping the last use of it may wait for what the given queues still hold.
    ///
    /// # Safety
    /// All of `application` is valid, belongs together, and is truly said. Instance and device live until this, all
    /// contexts on it, and all that was made from those, are dropped. The application uses the given queues through
    /// [`Self::with_queue`] only, or not at all; see the module's page.
    ///
    /// # Errors
    /// [`crate::GpuError::Unsuitable`] if the driver lacks what limosa needs, [`crate::GpuError::MadeWithout`] if the
    /// device was made without it.
    pub unsafe fn new(application: &Application<'_>) -> Result<Self> {
        // SAFETY: the caller's promise.
        let device = unsafe { Device::lent(application) }?;
        Ok(Self { device })
    }

    /// The device under a context.
    #[must_use]
    pub fn of(context: &Context) -> Self {
        Self { device: Arc::clone(context.heap().inner.device()) }
    }

    /// A context on this device, whatever device `builder` would choose. There may be several; memory and kernels are of
    /// one of them.
    ///
    /// # Errors
    /// As [`ContextBuilder::build`].
    pub fn context(&self, builder: ContextBuilder) -> Result<Context> {
        builder.build_on(&self.device)
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &ash::Instance {
        self.device.raw_instance()
    }

    /// The physical device.
    #[must_use]
    pub fn physical_device(&self) -> vk::PhysicalDevice {
        self.device.physical()
    }

    /// The device. What is made on it goes before the last of limosa's objects if limosa owns it.
    #[must_use]
    pub fn device(&self) -> &ash::Device {
        self.device.raw()
    }

    /// The family of the queue that kernels run on.
    #[must_use]
    pub fn queue_family(&self) -> u32 {
        self.device.family()
    }

    /// Calls `use_it` with the queue that kernels run on, which nobody else uses meanwhile. Launches and CPU faults may
    /// wait for its end: `use_it` only submits, and neither touches unified memory nor calls limosa.
    pub fn with_queue<R>(&self, use_it: impl FnOnce(vk::Queue) -> R) -> R {
        self.device.with_queue(use_it)
    }
}

/// The device address of a unified pointer; `None` if it does not point into the heap of `context`. It stays the same as
/// long as the allocation lives, whatever moves. When what is there may be used is said on the module's page.
#[must_use]
pub fn device_address<T>(context: &Context, pointer: GpuPtr<T>) -> Option<vk::DeviceAddress> {
    context.heap().inner.device_address(HostAddr(pointer.address())).map(|address| address.0)
}

/// An event that is complete when an application's timeline semaphore has reached `value`: what is launched
/// [`after`](crate::Launch::after) it, on any queue of the context of `queue`, begins then. The launch waits before it is
/// admitted and holds nothing meanwhile.
///
/// # Safety
/// `semaphore` is a timeline semaphore of the context's device. It lives until the context's last object is dropped.
/// Somebody signals the value, or who waits for it waits for ever.
#[must_use]
pub unsafe fn event(queue: &Queue, semaphore: vk::Semaphore, value: u64) -> Event {
    // SAFETY: the caller's promise.
    let bound = unsafe { queue.inner.heap().device().lent_point(semaphore, value) };
    Event { inner: queue.inner.reached_elsewhere("(the application's semaphore)", bound) }
}

/// A value of a timeline semaphore, reached when a launch has completed. Keep it until the last wait for it is over: the
/// semaphore is limosa's.
pub struct Point {
    bound: Bound,
}

impl Point {
    /// That of a launch. Waits until the launch has been admitted.
    ///
    /// # Errors
    /// Why the launch will not run; [`crate::PagerError::NotOnDevice`] of a marker, a prefetch or a user event.
    pub fn of(event: &Event) -> Result<Self> {
        Ok(Self { bound: event.inner.on_device().map_err(Error::from)? })
    }

    /// The semaphore, to be waited for only.
    #[must_use]
    pub fn semaphore(&self) -> vk::Semaphore {
        limosa_gpu::raw::semaphore(&self.bound).0
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> u64 {
        limosa_gpu::raw::semaphore(&self.bound).1
    }
}
