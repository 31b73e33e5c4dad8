//! Which types may live in unified memory. Implementing the trait by hand promises a layout; deriving it checks one.

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
}

macro_rules! shareable {
    ($($kind:ty),*) => {
        $(
            // SAFETY: a primitive without invalid values, pointers or padding.
            unsafe impl Shareable for $kind {}
        )*
    };
}
shareable!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64);

// SAFETY: an array has its element's properties.
unsafe impl<T: Shareable, const N: usize> Shareable for [T; N] {
    const CHECKED: () = T::CHECKED;
}
// SAFETY: a number; following it is unsafe.
unsafe impl<T: 'static> Shareable for GpuPtr<T> {}
