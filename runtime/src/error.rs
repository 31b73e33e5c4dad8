//! The error of the public API: one type, each case naming what, on what, and what to do.

pub use limosa_gpu::GpuError;
pub use limosa_pager::{LaunchFailure, OsError, PagerError, TouchCause};

/// Whatever can go wrong in limosa.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// use limosa::Context;
///
/// let context = Context::builder().heap_size(1 << 30).device_budget(8 << 20).build()?;
/// let vec = context.heap().vec_zeroed::<u8>(16 << 20)?;
/// let error = vec.prefetch_to_device().unwrap_err();
/// assert!(error.is_out_of_memory() && !error.is_device_lost());
/// println!("{error}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The heap, the operating system or the device.
    #[error(transparent)]
    Pager(#[from] PagerError),
    /// An index or a range beyond the end.
    #[error("elements {start}..{end} of a vector of {len}")]
    OutOfRange {
        /// First element.
        start: usize,
        /// One past the last.
        end: usize,
        /// Elements there are.
        len: usize,
    },
    /// A copy between ranges of different lengths.
    #[error("a copy of {source_len} elements to {target_len}: both ranges must have as many")]
    LengthsDiffer {
        /// Elements to copy from.
        source_len: usize,
        /// Elements to copy to.
        target_len: usize,
    },
    /// More bytes than an address can count.
    #[error("{elements} elements of {size} bytes do not fit the address space")]
    TooLarge {
        /// Elements asked for.
        elements: usize,
        /// Bytes of one.
        size: usize,
    },
    /// Arguments that a [`crate::SafeKernel`] must not be given.
    #[error("{kernel} must not be given these arguments: {requirement}")]
    Requirement {
        /// The kernel's name.
        kernel: String,
        /// What it asks for.
        requirement: String,
    },
    /// A module whose length is no multiple of four bytes.
    #[error("{name}: {bytes} bytes are not a SPIR-V module: its length must be a multiple of 4")]
    NotWords {
        /// The kernel's name.
        name: String,
        /// Bytes given.
        bytes: usize,
    },
}

impl From<limosa_pager::FileError> for Error {
    fn from(error: limosa_pager::FileError) -> Self {
        Self::Pager(error.into())
    }
}

impl From<GpuError> for Error {
    fn from(error: GpuError) -> Self {
        Self::Pager(error.into())
    }
}

impl Error {
    /// Whether the device is lost. What to do: [`crate::Heap::poisoned`] names what was only there.
    #[must_use]
    pub fn is_device_lost(&self) -> bool {
        matches!(self, Self::Pager(PagerError::Gpu(GpuError::DeviceLost)))
    }

    /// Whether it is a lack of room (RAM, VRAM, address space) that a smaller request may not meet.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(
            self,
            Self::Pager(
                PagerError::HeapFull { .. }
                    | PagerError::DeviceMemoryFull { .. }
                    | PagerError::RangeTooLarge { .. }
                    | PagerError::SetTooLarge { .. }
                    | PagerError::DeviceLimitFull { .. }
                    | PagerError::OverDeviceLimit { .. }
                    | PagerError::Os(OsError::OutOfMemory { .. } | OsError::NoPeerMemory { .. })
                    | PagerError::Gpu(GpuError::OutOfMemory { .. })
            )
        )
    }

    /// The failed access, if a launch had one.
    #[must_use]
    pub fn launch_failure(&self) -> Option<&LaunchFailure> {
        match self {
            Self::Pager(PagerError::Launch(failure)) => Some(failure),
            _ => None,
        }
    }
}
