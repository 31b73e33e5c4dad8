//! Everything that limosa asks of Vulkan, and all unsafe code that asking takes.
//!
//! Device choice, imported address ranges, kernels from SPIR-V, queues on timeline semaphores. VkResults become
//! meanings here and go no further up. The crate does *not* know block states or move data on its own.

mod adapter;
mod device;
mod error;
mod import;
pub mod inject;
mod kernel;
mod queue;
mod spirv;

pub use adapter::{Adapter, DeviceChoice, DeviceKind, Instance, Limits};
pub use device::Device;
pub use error::GpuError;
pub use import::ImportedRange;
pub use kernel::{Kernel, Translation};
pub use limosa_shaders::probe as self_test;
pub use queue::{Doorbell, Queue, Refused, Submission, Ticket, Timeline};
pub use spirv::KernelInterface;
