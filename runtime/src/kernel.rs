//! A kernel made from SPIR-V for one context. What it does with its arguments is its author's promise, given at the
//! launch.

use std::sync::Arc;

use limosa_pager::Heap;

use crate::{Error, Result};

/// A compute kernel; cheap to clone.
#[derive(Clone)]
pub struct Kernel {
    pub(crate) inner: Arc<limosa_gpu::Kernel>,
}

impl Kernel {
    pub(crate) fn new(heap: &Arc<Heap>, name: &str, spirv: &[u8], entry: &str) -> Result<Self> {
        let words = spirv.chunks_exact(4);
        if !words.remainder().is_empty() || spirv.is_empty() {
            return Err(Error::NotWords { name: name.to_owned(), bytes: spirv.len() });
        }
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).unwrap_or(0);
        let words: Vec<u32> = words.map(word).collect();
        Ok(Self { inner: heap.kernel(name, &words, entry)? })
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.name()
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
}
