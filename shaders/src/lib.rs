//! limosa's own compute kernels as SPIR-V, the arguments of each, and a *twin* of each: the same
//! computation on the CPU, which is the oracle of every test on a device. This crate knows no GPU: it
//! neither launches kernels nor translates GLSL.
//!
//! # Arguments
//! A kernel's push constants are a `u64` that the runtime fills (`limosa_view`), then the kernel's `Args`.
//! Every pointer in them, and in memory, is a CPU address. No `Args` has implicit padding, so its bytes
//! may be read as they are; with the leading `u64` it takes at most [`ARGUMENT_BYTES`].
//!
//! # What a device must enable
//! Vulkan 1.3 with `shaderInt64`, `bufferDeviceAddress`, `scalarBlockLayout`, `maintenance4` (for
//! `LocalSizeId`), and `shaderBufferInt64Atomics` for [`histogram`], [`pagerank`], [`reduce`] and [`stress`].
//!
//! # Regenerating
//! The SPIR-V is checked in. For each `NAME.comp`, in the folder `shaders/`:
//! ```text
//! glslangValidator -V --target-env vulkan1.3 -o spirv/NAME.spv glsl/NAME.comp
//! ```
//! `LIMOSA_REGENERATE=1 cargo test -p limosa-shaders --test spirv` does so for all of them; without the
//! variable the same test compares.
#![forbid(unsafe_code)]

/// Asserts, when compiled, that a struct has the layout that its GLSL counterpart has, and no padding.
macro_rules! assert_layout {
    ($type:ty, $size:expr, { $($field:ident: $offset:expr),* $(,)? }) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(std::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}

/// A kernel under `spirv/` by its name.
macro_rules! kernel {
    ($name:literal) => {
        $crate::Kernel { name: $name, spirv: include_bytes!(concat!("../spirv/", $name, ".spv")), workgroup: 256 }
    };
}

pub mod bfs;
pub mod copy;
pub mod digest;
pub mod fill;
pub mod fingerprint;
mod hash;
pub mod hash_enter;
pub mod hash_find;
pub mod histogram;
pub mod lookup;
pub mod map_find;
pub mod pagerank;
pub mod probe;
pub mod reduce;
pub mod repeat;
pub mod saxpy;
pub mod stencil;
pub mod stream;
pub mod stress;
pub mod translation;
pub mod triad;

/// The include file for kernels of one's own: save it as `limosa.glsl`. Its head says how it is used.
pub const LIMOSA_GLSL: &str = include_str!("../glsl/limosa.glsl");

/// The most bytes of push constants that every Vulkan device has, `limosa_view` included.
pub const ARGUMENT_BYTES: usize = 128;

/// A compute kernel. Its entry point is `main`.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// The name of its source, without an extension.
    pub name: &'static str,
    /// The module, in words of the little-endian order that glslang writes.
    pub spirv: &'static [u8],
    /// Invocations in a workgroup, all in x.
    pub workgroup: u32,
}

impl Kernel {
    /// The module as the words that Vulkan wants.
    pub fn words(&self) -> Vec<u32> {
        let (words, _) = self.spirv.as_chunks::<4>();
        words.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }
}

/// All kernels of this crate.
pub const ALL: &[Kernel] = &[
    bfs::KERNEL,
    copy::KERNEL,
    digest::KERNEL,
    fill::KERNEL,
    fingerprint::KERNEL,
    hash_enter::KERNEL,
    hash_find::KERNEL,
    histogram::KERNEL,
    lookup::KERNEL,
    map_find::KERNEL,
    pagerank::KERNEL,
    probe::KERNEL,
    reduce::KERNEL,
    repeat::KERNEL,
    saxpy::KERNEL,
    stencil::KERNEL,
    stream::KERNEL,
    stress::KERNEL,
    triad::KERNEL,
];

#[cfg(test)]
mod tests {
    use super::*;

    const OP_CONSTANT: u32 = 43;
    const OP_EXECUTION_MODE: u32 = 16;
    const OP_EXECUTION_MODE_ID: u32 = 331;
    const LOCAL_SIZE: u32 = 17;
    const LOCAL_SIZE_ID: u32 = 38;

    /// The x size of the module's workgroup, given by value or by the id of a constant.
    fn local_size(words: &[u32]) -> Option<u32> {
        let mut size_id = None;
        let mut at = 5;
        while at < words.len() {
            let (length, op) = ((words[at] >> 16) as usize, words[at] & 0xffff);
            let operands = &words[at + 1..at + length];
            match op {
                OP_EXECUTION_MODE if operands[1] == LOCAL_SIZE => return Some(operands[2]),
                OP_EXECUTION_MODE_ID if operands[1] == LOCAL_SIZE_ID => size_id = Some(operands[2]),
                OP_CONSTANT if size_id == Some(operands[1]) => return Some(operands[2]),
                _ => {}
            }
            at += length;
        }
        None
    }

    #[test]
    fn modules_have_the_workgroup_that_is_stated() {
        for kernel in ALL {
            let words = kernel.words();
            assert_eq!(words[0], 0x0723_0203, "{}", kernel.name);
            assert_eq!(local_size(&words), Some(kernel.workgroup), "{}", kernel.name);
        }
    }

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(ALL.is_sorted_by(|a, b| a.name < b.name));
    }
}
