//! Which types may live in unified memory. Implementing the trait by hand promises a layout; deriving it checks one.

use limosa_gpu::Scalar;

use crate::pointer::GpuPtr;

/// A type that kernels may read and write. Derive it for structures:
///
/// ```
/// use limosa::{GpuPtr, Shareable};
///
/// #[derive(Clone, Copy, Shareable)]
/// #[repr(C)]
/// struct Node {
///     key: u64,
///     value: f32,
///     weight: u32,
///     next: GpuPtr<Node>,
/// }
/// ```
///
/// Padding is refused, since its bytes would reach kernels uninitialised, and so are fields of which some bit patterns
/// are no values (`bool`, `char`, enumerations) or that hold references.
///
/// # Safety
/// Every bit pattern of its size is a valid value, all zeros included; it holds no references and no pointers but
/// [`GpuPtr`]; its layout is fixed (`repr(C)`, `repr(transparent)` or a primitive) and has no padding.
pub unsafe trait Shareable: Copy + Send + Sync + 'static {
    /// What the derive macro has the compiler check.
    #[doc(hidden)]
    const CHECKED: () = ();
    /// The scalar that it consists of, one or several of it and nothing else; `None`, the default, for structures. A
    /// launch compares it with what the kernel declares, so that a float for a count is an error; of structures it
    /// compares place and size. A type that wraps one number may name that number's.
    const SCALAR: Option<Scalar> = None;
}

macro_rules! shareable {
    ($($kind:ty: $scalar:ident),*) => {
        $(
            // SAFETY: a primitive without invalid values, pointers or padding.
            unsafe impl Shareable for $kind {
                const SCALAR: Option<Scalar> = Some(Scalar::$scalar);
            }
        )*
    };
}
shareable!(u8: U8, u16: U16, u32: U32, u64: U64, i8: I8, i16: I16, i32: I32, i64: I64, f32: F32, f64: F64);
// Unified memory needs an address space of 64 bits.
shareable!(usize: U64, isize: I64);

// SAFETY: an array has its element's properties.
unsafe impl<T: Shareable, const N: usize> Shareable for [T; N] {
    const CHECKED: () = T::CHECKED;
    const SCALAR: Option<Scalar> = T::SCALAR;
}
// SAFETY: a number; following it is unsafe.
unsafe impl<T: 'static> Shareable for GpuPtr<T> {
    const SCALAR: Option<Scalar> = Some(Scalar::Pointer);
}
