//! Kernels of which what they do with their arguments has been promised once, so that launching them is safe. The promise
//! is *not* checked: SPIR-V with pointers cannot be.

use std::sync::Arc;

use limosa_gpu::{ArgumentCheck, Given};

use crate::argument::Parameters;
use crate::kernel::Kernel;
use crate::launch::Launchable;
use crate::{Error, Result};

/// Whether a kernel may be given these arguments.
type Allows<P> = dyn for<'a> Fn(&<P as Parameters>::Given<'a>) -> bool + Send + Sync;

/// A [`Kernel`] with the types of its arguments: made by [`Kernel::promise`], cheap to clone.
pub struct SafeKernel<P: Parameters> {
    kernel: Kernel,
    requirement: Arc<str>,
    allows: Arc<Allows<P>>,
}

impl<P: Parameters> Clone for SafeKernel<P> {
    fn clone(&self) -> Self {
        let (requirement, allows) = (Arc::clone(&self.requirement), Arc::clone(&self.allows));
        Self { kernel: self.kernel.clone(), requirement, allows }
    }
}

impl<P: Parameters> Launchable for SafeKernel<P> {
    fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}

impl Launchable for Kernel {
    fn kernel(&self) -> &Kernel {
        self
    }
}

impl<P: Parameters> SafeKernel<P> {
    /// The kernel without the promise.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    pub(crate) fn allow(&self, arguments: &P::Given<'_>) -> Result<()> {
        let (kernel, requirement) = (self.kernel.name().to_owned(), self.requirement.to_string());
        if (self.allows)(arguments) { Ok(()) } else { Err(Error::Requirement { kernel, requirement }) }
    }
}

impl Kernel {
    /// Promises once what the kernel does with its arguments, so that launches of it need no `unsafe`.
    ///
    /// `P` is a tuple of what it takes: [`Reads`](crate::Reads), [`Writes`](crate::Writes) and
    /// [`Overwrites`](crate::Overwrites) of a type for vectors and slices, and types of values. `allows` tells of
    /// arguments whether they may be given, most often by their lengths; `requirement` says the same in words, for the
    /// error that a launch gets which is not allowed.
    ///
    /// ```
    /// # fn main() -> limosa::Result<()> {
    /// use limosa::{Context, Reads, Writes};
    /// use limosa_shaders::saxpy;
    ///
    /// # let context = Context::builder().heap_size(1 << 30).build()?;
    /// let kernel = context.kernel("saxpy", saxpy::KERNEL.spirv)?;
    /// // SAFETY: saxpy reads the first `count` elements of `x`, writes those of `y`, and touches nothing else.
    /// let saxpy = unsafe {
    ///     kernel.promise::<(Writes<f32>, Reads<f32>, u64, f32)>(
    ///         "x and y have `count` elements or more",
    ///         |(y, x, count, _)| *count <= x.len().min(y.len()) as u64,
    ///     )?
    /// };
    /// let queue = context.queue()?;
    /// let x = context.heap().vec_from(&[1.0f32, 2.0, 3.0])?;
    /// let mut y = context.heap().vec_from(&[10.0f32, 20.0, 30.0])?;
    /// queue.launch(&saxpy, 3).args((y.writes(), x.reads(), 3, 2.0)).submit()?.wait()?;
    /// assert_eq!(y.to_vec()?, [12.0, 24.0, 36.0]);
    /// // Longer than the vectors: an error, and nothing was launched.
    /// assert!(queue.launch(&saxpy, 3).args((y.writes(), x.reads(), 4, 2.0)).submit().is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Safety
    /// Given any arguments that `allows` allows, on a grid of any size, the kernel touches nothing but the elements that
    /// it is given, and those only as `P` says: what it overwrites, it overwrites whole. Pointers among values and in
    /// memory it does not follow.
    ///
    /// # Errors
    /// [`crate::GpuError::ArgumentMismatch`], [`crate::GpuError::ArgumentsSurplus`],
    /// [`crate::GpuError::ArgumentsMissing`]: the module's arguments are others.
    pub unsafe fn promise<P: Parameters>(
        &self,
        requirement: &str,
        allows: impl for<'a> Fn(&P::Given<'a>) -> bool + Send + Sync + 'static,
    ) -> Result<SafeKernel<P>> {
        let (mut check, mut end) = (ArgumentCheck::default(), 0usize);
        for (scalar, bytes, align) in P::LAYOUT {
            let offset = end.next_multiple_of(*align);
            check.take(&self.inner, Given { scalar: *scalar, offset, bytes: *bytes, name: None })?;
            end = offset + bytes;
        }
        check.finish(&self.inner, end)?;
        Ok(SafeKernel { kernel: self.clone(), requirement: requirement.into(), allows: Arc::new(allows) })
    }
}
