//! Everything that limosa asks of Vulkan, and all unsafe code that asking takes.
//!
//! Device choice, imported address ranges, sparse ranges with the frames bound to them, copies, kernels from SPIR-V,
//! queues on timeline semaphores. VkResults become meanings here and go no further up. The crate does *not* know block states or move data on its own.

mod adapter;
mod arguments;
mod bind;
mod buffer;
mod device;
mod error;
mod features;
mod frame;
mod hardware;
mod import;
pub mod inject;
mod interface;
mod kernel;
mod queue;
pub mod raw;
mod scalar;
mod slot;
mod sparse;
mod spirv;
mod stager;
mod timeline;
mod timestamps;

pub use adapter::{Adapter, DeviceChoice, DeviceKind, Instance, Limits};
pub use arguments::{ArgumentCheck, Given};
pub use bind::Bind;
pub use device::Device;
pub use error::GpuError;
pub use frame::{Frame, FrameKind, FramePool};
pub use import::ImportedRange;
pub use interface::{Argument, ArgumentType, KernelInterface, SpecConstant};
pub use kernel::{Kernel, Source, Translation};
pub use limosa_shaders::{probe as self_test, repeat};
pub use queue::{Queue, QueueOptions, Refused, SpanCell, Submission};
pub use scalar::{Scalar, SpecValue};
pub use sparse::SparseRange;
pub use stager::Stager;
pub use timeline::{Bound, Doorbell, Ticket, Timeline};
pub use timestamps::DeviceSpan;
