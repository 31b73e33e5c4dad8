//! Opening a device with a heap. One context has one device and one heap; nothing is process-wide.

use std::sync::Arc;

use limosa_gpu::{Adapter, Device, DeviceChoice, DeviceKind, Instance, Translation};
use limosa_model::Edge;
use limosa_pager::{AllocationOptions, DeviceClass, FaultMode, HeapConfig, Machine, PeerChoice, ViewKind};

use crate::Result;
use crate::heap::Heap;
use crate::kernel::{Kernel, KernelBuilder};
use crate::queue::Queue;
use crate::queue_builder::QueueBuilder;
use crate::user_event::UserEvent;

/// A device and its heap, in use. Everything made from it keeps what it needs of it alive.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// use limosa_shaders::fill;
///
/// println!("{}: {:?} through {:?}", context.adapter().name, context.device_class(), context.view());
/// let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
/// let queue = context.queue()?;
/// let words = context.heap().vec_zeroed::<u32>(100)?;
/// # let _ = (kernel, queue, words);
/// # Ok(())
/// # }
/// ```
pub struct Context {
    heap: Heap,
}

impl Context {
    /// A builder with the defaults stated at its methods.
    #[must_use]
    pub fn builder() -> ContextBuilder {
        ContextBuilder::default()
    }

    /// A context with all defaults.
    ///
    /// # Errors
    /// As [`ContextBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// The heap.
    #[must_use]
    pub fn heap(&self) -> &Heap {
        &self.heap
    }

    /// The device.
    #[must_use]
    pub fn adapter(&self) -> &Adapter {
        &self.heap.inner.device().adapter
    }

    /// What a kernel's access to memory that is not on the device does.
    #[must_use]
    pub fn device_class(&self) -> DeviceClass {
        self.heap.inner.device_class()
    }

    /// How the device reaches the heap.
    #[must_use]
    pub fn view(&self) -> ViewKind {
        self.heap.inner.view()
    }

    /// The better views that were tried or ruled out before, with the reason.
    #[must_use]
    pub fn refused_views(&self) -> &[(ViewKind, String)] {
        self.heap.inner.refused_views()
    }

    /// How kernels turn the CPU's pointers into theirs.
    #[must_use]
    pub fn translation(&self) -> Translation {
        self.heap.inner.translation()
    }

    /// Whether launches may leave out what they touch: where kernels can fault, and nobody checks.
    #[must_use]
    pub fn serves_undeclared(&self) -> bool {
        self.device_class() == DeviceClass::Faulting && !self.heap.inner.config().check
    }

    /// A new in-order queue.
    ///
    /// # Errors
    /// [`crate::GpuError::OutOfMemory`].
    pub fn queue(&self) -> Result<Queue> {
        self.queue_builder().build()
    }

    /// Begins a queue, to say what kind it is to be.
    pub fn queue_builder(&self) -> QueueBuilder<'_> {
        QueueBuilder::new(&self.heap.inner)
    }

    /// An event that the application ends itself.
    pub fn user_event(&self) -> UserEvent {
        UserEvent::new(&self.heap.inner)
    }

    /// A kernel from the bytes of a SPIR-V module, with the compute entry point `main`. `name` is for errors.
    ///
    /// # Errors
    /// [`crate::Error::NotWords`], [`crate::GpuError::InvalidSpirv`], [`crate::GpuError::NoEntryPoint`],
    /// [`crate::GpuError::Interface`], [`crate::GpuError::ArgumentsTooLarge`].
    pub fn kernel(&self, name: &str, spirv: &[u8]) -> Result<Kernel> {
        self.kernel_builder(name, spirv).build()
    }

    /// A kernel with another entry point.
    ///
    /// # Errors
    /// As [`Self::kernel`].
    pub fn kernel_with_entry(&self, name: &str, spirv: &[u8], entry: &str) -> Result<Kernel> {
        self.kernel_builder(name, spirv).entry(entry).build()
    }

    /// Begins a kernel from the bytes of a SPIR-V module, to set its entry point and its specialization constants.
    ///
    /// ```no_run
    /// # fn main() -> limosa::Result<()> {
    /// # let (context, spirv) = (limosa::Context::new()?, [0u8; 4]);
    /// let tiled = context.kernel_builder("tiled", &spirv).constant(1, 16u32).constant(2, 0.5f32).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn kernel_builder<'a>(&'a self, name: &'a str, spirv: &'a [u8]) -> KernelBuilder<'a> {
        KernelBuilder::new(&self.heap.inner, name, spirv)
    }
}

/// The Vulkan devices of this machine, usable or not ([`Adapter::missing`] says what one lacks), in the order of their
/// indices. Each may have a context of its own, or several:
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// let usable = limosa::devices()?.into_iter().filter(|device| device.missing.is_empty());
/// for device in usable {
///     let context = limosa::Context::builder().device(&device).build()?;
///     let squares = context.heap().vec_with(1000, |i| (i * i) as u64)?;
///     println!("{device}: {:?}", squares.residency_summary());
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`crate::GpuError::NoLoader`], [`crate::GpuError::NoDevice`].
pub fn devices() -> Result<Vec<Adapter>> {
    Ok(Instance::new()?.adapters()?)
}

/// Bytes of address space of a heap, unless asked otherwise: 64 GiB.
pub const HEAP_SIZE_DEFAULT: u64 = 64 << 30;

/// What a context is made with.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// use limosa::{Context, DeviceChoice, FaultMode};
///
/// let context = Context::builder()
///     .device(DeviceChoice::Best)
///     .heap_size(1 << 30)
///     .device_budget(64 << 20)
///     .fault_mode(FaultMode::HandlerThread)
///     .build()?;
/// assert_eq!(context.heap().device_budget(), 64 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ContextBuilder {
    device: DeviceChoice,
    heap_bytes: u64,
    host_limit: Option<u64>,
    host_budget: Option<u64>,
    device_budget: Option<u64>,
    fault_mode: FaultMode,
    view: Option<ViewKind>,
    segment_limit: Option<u64>,
    staged_copies: bool,
    mappings_limit: Option<u64>,
    device_class: Option<DeviceClass>,
    peer_memory: PeerChoice,
    poison_stale: bool,
    check: bool,
    check_edge: Edge,
}

impl Default for ContextBuilder {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Best,
            heap_bytes: HEAP_SIZE_DEFAULT,
            host_limit: None,
            host_budget: None,
            device_budget: None,
            fault_mode: FaultMode::HandlerThread,
            view: None,
            segment_limit: None,
            staged_copies: false,
            mappings_limit: None,
            device_class: None,
            peer_memory: PeerChoice::First,
            poison_stale: cfg!(debug_assertions),
            check: false,
            check_edge: Edge::End,
        }
    }
}

impl ContextBuilder {
    /// Which device: a choice, or one of [`devices`]. Default: the best that there is.
    #[must_use]
    pub fn device(mut self, choice: impl Into<DeviceChoice>) -> Self {
        self.device = choice.into();
        self
    }

    /// Bytes of address space of the heap. Default: 64 GiB; it costs memory only for what is used.
    #[must_use]
    pub fn heap_size(mut self, bytes: u64) -> Self {
        self.heap_bytes = bytes;
        self
    }

    /// The most bytes of RAM for host frames. Allocations that could come to need more are refused, also while their
    /// data is on the device and their frames are given back. Default: three quarters of the machine's.
    #[must_use]
    pub fn host_limit(mut self, bytes: u64) -> Self {
        self.host_limit = Some(bytes);
        self
    }

    /// Bytes of RAM to keep host frames to: a target, while the limit is hard. Each chunk of 2 MiB has frames on the
    /// host also while its data is on the device, so that bringing it back is fast and cannot fail. Above the budget,
    /// frames of whole chunks whose data is on the device, or zeros, are given back in the background, and made again
    /// when the data is to come back: should the system have no memory left then, a call fails with
    /// [`crate::OsError::OutOfMemory`], a plain access gets SIGBUS, and the data stays where it is. What the CPU has now
    /// is never given back. Default: the limit, so that frames are always kept.
    #[must_use]
    pub fn host_budget(mut self, bytes: u64) -> Self {
        self.host_budget = Some(bytes);
        self
    }

    /// The most bytes of VRAM; at least [`crate::DEVICE_BUDGET_MIN`]. Default: three
    /// quarters of the device's memory; on software devices a quarter of the machine's RAM.
    #[must_use]
    pub fn device_budget(mut self, bytes: u64) -> Self {
        self.device_budget = Some(bytes);
        self
    }

    /// Who serves CPU faults. Default: a handler thread.
    #[must_use]
    pub fn fault_mode(mut self, mode: FaultMode) -> Self {
        self.fault_mode = mode;
        self
    }

    /// How the device is to reach the heap. Default: the best way that passes the self-test.
    #[must_use]
    pub fn view(mut self, view: ViewKind) -> Self {
        self.view = Some(view);
        self
    }

    /// The largest buffer to ask of the driver for a [`ViewKind::Sparse`], in bytes; a larger heap is made of several,
    /// and kernels translate pointers by a table. Default: the driver's own limit.
    #[must_use]
    pub fn segment_limit(mut self, bytes: u64) -> Self {
        self.segment_limit = Some(bytes);
        self
    }

    /// Copies to and from device memory by the device through buffers, also where the CPU could do it: to try on a
    /// software device what happens on a GPU with memory that the CPU cannot map. Only for [`ViewKind::Sparse`].
    /// Default: only where it must be.
    #[must_use]
    pub fn staged_copies(mut self, staged: bool) -> Self {
        self.staged_copies = staged;
        self
    }

    /// The most pieces that bound device memory may lie in: more of it is evicted then. Only for [`ViewKind::Sparse`].
    /// Default: half of vm.max_map_count on software devices, whose drivers make a mapping for each piece and lose
    /// those beyond that limit in silence; else none.
    #[must_use]
    pub fn mappings_limit(mut self, pieces: u64) -> Self {
        self.mappings_limit = Some(pieces);
        self
    }

    /// Treats the device as of this class, also if it could do more: to try on a software device what a program does
    /// where kernels cannot fault. Default: the best that it has with its view.
    #[must_use]
    pub fn device_class(mut self, class: DeviceClass) -> Self {
        self.device_class = Some(class);
        self
    }

    /// Whose memory [`crate::Home::SharedDevice`] is. Default: that of the first device of the kernel module's that has
    /// enough.
    #[must_use]
    pub fn peer_memory(mut self, choice: PeerChoice) -> Self {
        self.peer_memory = choice;
        self
    }

    /// Overwrites copies that are no longer current with 0xA5, so that a defect of limosa's shows. Default: in debug
    /// builds.
    #[must_use]
    pub fn poison_stale(mut self, poison: bool) -> Self {
        self.poison_stale = poison;
        self
    }

    /// Check mode: misuse of raw pointers is caught, and told with what the address is ("120 bytes past the end of the
    /// allocation of …", "freed"). Only on [`ViewKind::Import`]. Default: off.
    ///
    /// - A kernel's access to what its launch did not declare, for reading or for writing, fails the launch, by blocks of
    ///   64 KiB. Launches run one at a time.
    /// - Each allocation has blocks of its own, and at least one block of nobody's before and behind it: who runs over an
    ///   end is caught there, a kernel by a failed launch, a CPU thread by SIGBUS. See [`Self::check_edge`].
    /// - What is freed is not used again until half of the heap's address space rests so, or there is no other room: a
    ///   pointer to it is caught.
    /// - A pointer argument ([`crate::GpuPtr`], also in an array; not in a structure) must be null, or point into an
    ///   allocation that the launch declares (be it an empty part) or keeps, or right behind its end; else the launch is refused.
    ///
    /// An allocation costs at least 64 KiB of memory and 128 KiB of address space then. What it does *not* catch: misuse
    /// within the blocks of one allocation (a stale index, the rest of the block at the other edge, the undeclared part
    /// of a block of which a part is declared); pointers to memory that was freed long ago and is in use again; a wrong
    /// pointer to what the launch declared; and CPU accesses by raw pointers to what a launch in flight holds, which wait
    /// for it instead of failing. Memory of shared homes is checked at its ends only.
    #[must_use]
    pub fn check(mut self, check: bool) -> Self {
        self.check = check;
        self
    }

    /// At which edge of their blocks allocations lie in check mode, and so where running over is caught at once: up to
    /// the bytes that their alignment leaves, and beyond the rest of the block at the other. Default: the end.
    #[must_use]
    pub fn check_edge(mut self, edge: Edge) -> Self {
        self.check_edge = edge;
        self
    }

    /// Opens the device and the heap, and runs the self-test.
    ///
    /// # Errors
    /// [`crate::GpuError::NoLoader`], [`crate::GpuError::NoDevice`], [`crate::GpuError::NoSuchDevice`],
    /// [`crate::GpuError::Unsuitable`], [`crate::PagerError::NoView`], [`crate::PagerError::SelfTest`],
    /// [`crate::PagerError::BudgetTooSmall`], [`crate::OsError`].
    pub fn build(self) -> Result<Context> {
        let instance = Instance::new()?;
        let adapter = instance.choose(&self.device)?;
        self.build_on(&Device::open(&instance, adapter)?)
    }

    /// Opens the heap on `device`, whatever device was chosen.
    pub(crate) fn build_on(self, device: &Arc<Device>) -> Result<Context> {
        let memory = Machine::memory_total();
        let ample = match device.adapter.kind {
            DeviceKind::Cpu => memory / 4,
            _ => device.adapter.limits.device_memory / 4 * 3,
        };
        let host_limit = self.host_limit.unwrap_or(memory / 4 * 3);
        let config = HeapConfig {
            heap_bytes: self.heap_bytes,
            host_limit,
            host_budget: self.host_budget.unwrap_or(host_limit),
            device_budget: self.device_budget.unwrap_or(ample),
            fault_mode: self.fault_mode,
            view: self.view,
            segment_limit: self.segment_limit,
            staged_copies: self.staged_copies,
            mappings_limit: self.mappings_limit,
            device_class: self.device_class,
            peer_memory: self.peer_memory,
            poison_stale: self.poison_stale,
            check: self.check,
            check_edge: self.check_edge,
        };
        Ok(Context {
            heap: Heap { inner: limosa_pager::Heap::open(device, config)?, options: AllocationOptions::default() },
        })
    }
}
