//! A kernel made from SPIR-V for one context. What it does with its arguments is its author's promise, given at the
//! launch.

use std::sync::Arc;

use limosa_gpu::{Argument, Source, SpecConstant, SpecValue};
use limosa_pager::{Heap, KernelCounters, KernelTally};

use crate::{Error, Result};

/// A compute kernel; cheap to clone.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// use limosa_shaders::fill;
///
/// let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
/// assert_eq!((kernel.name(), kernel.workgroup()), ("fill", [256, 1, 1]));
/// let names: Vec<_> = kernel.arguments().iter().filter_map(|argument| argument.name.as_deref()).collect();
/// assert_eq!(names, ["dst", "count", "value"]);
/// assert_eq!(kernel.argument_bytes(), 20);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Kernel {
    pub(crate) inner: Arc<limosa_gpu::Kernel>,
    pub(crate) tally: Arc<KernelTally>,
}

impl Kernel {
    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// What its launches came to since it was made, those by its clones included.
    #[must_use]
    pub fn counters(&self) -> KernelCounters {
        self.tally.counters()
    }

    /// Invocations of a workgroup in each dimension.
    #[must_use]
    pub fn workgroup(&self) -> [u32; 3] {
        self.inner.interface().workgroup
    }

    /// Bytes of arguments that a launch must give, in scalar layout.
    #[must_use]
    pub fn argument_bytes(&self) -> usize {
        self.inner.interface().argument_bytes.saturating_sub(8) as usize
    }

    /// The arguments that it declares, in the order in which a launch gives them; offsets in bytes from the first.
    #[must_use]
    pub fn arguments(&self) -> &[Argument] {
        &self.inner.interface().arguments
    }

    /// The specialization constants that its module has, by id, without limosa's own: what
    /// [`KernelBuilder::constant`] can set.
    #[must_use]
    pub fn constants(&self) -> &[SpecConstant] {
        &self.inner.interface().constants
    }
}

/// What a kernel is to be made with: [`crate::Context::kernel_builder`].
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// use limosa_shaders::fill;
///
/// let fill = context.kernel_builder("fill", fill::KERNEL.spirv);
/// // It has no constant of this id, so this is an error that says so.
/// assert!(fill.constant(7, 1u32).build().is_err());
/// let fill = context.kernel_builder("fill", fill::KERNEL.spirv).entry("main").build()?;
/// assert!(fill.constants().is_empty());
/// # Ok(())
/// # }
/// ```
#[must_use = "a kernel is made by `build`"]
pub struct KernelBuilder<'a> {
    heap: &'a Arc<Heap>,
    name: &'a str,
    spirv: &'a [u8],
    entry: &'a str,
    constants: Vec<(u32, SpecValue)>,
}

impl<'a> KernelBuilder<'a> {
    pub(crate) fn new(heap: &'a Arc<Heap>, name: &'a str, spirv: &'a [u8]) -> Self {
        Self { heap, name, spirv, entry: "main", constants: Vec::new() }
    }

    /// The compute entry point. Default: `main`.
    pub fn entry(mut self, entry: &'a str) -> Self {
        self.entry = entry;
        self
    }

    /// Sets the specialization constant with this `constant_id`; set twice, the last counts. Its type must be that
    /// which the module declares, as for arguments: the sign makes no difference. 0 is limosa's own. Constants that are
    /// not set keep the module's defaults.
    pub fn constant(mut self, id: u32, value: impl Into<SpecValue>) -> Self {
        self.constants.retain(|(other, _)| *other != id);
        self.constants.push((id, value.into()));
        self
    }

    /// Makes the kernel.
    ///
    /// # Errors
    /// [`Error::NotWords`], [`crate::GpuError::InvalidSpirv`], [`crate::GpuError::NoEntryPoint`],
    /// [`crate::GpuError::Interface`], [`crate::GpuError::ArgumentsTooLarge`], [`crate::GpuError::ConstantReserved`],
    /// [`crate::GpuError::NoSuchConstant`], [`crate::GpuError::ConstantMismatch`].
    pub fn build(self) -> Result<Kernel> {
        let words = self.spirv.chunks_exact(4);
        if !words.remainder().is_empty() || self.spirv.is_empty() {
            return Err(Error::NotWords { name: self.name.to_owned(), bytes: self.spirv.len() });
        }
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).unwrap_or(0);
        let words: Vec<u32> = words.map(word).collect();
        let source = Source { name: self.name, words: &words, entry: self.entry, constants: &self.constants };
        Ok(Kernel { inner: self.heap.kernel_of(&source)?, tally: Arc::default() })
    }
}
