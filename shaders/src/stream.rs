//! BabelStream's five kernels on `f32`: copy, mul, add, triad and dot, one by a specialization constant. Bandwidth is
//! what they measure, so they do *not* care for arrays of odd lengths or alignments.
//!
//! All but dot give the twin's bits on a device that rounds to nearest and keeps denormal numbers; dot adds in another
//! order, and leaves a part of the sum of each workgroup.

use crate::Kernel;

/// How many elements an invocation had best handle.
pub const ITEMS: u64 = 16;
/// The id of the specialization constant that says which [`Operation`] it is.
pub const CONSTANT_ID: u32 = 1;

/// What the kernel computes of its arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// `result = first`
    Copy = 0,
    /// `result = scale * first`
    Mul = 1,
    /// `result = first + second`
    Add = 2,
    /// `result = first + scale * second`
    Triad = 3,
    /// `result[workgroup] = Σ first * second`, over the elements that the workgroup handles
    Dot = 4,
}

impl Operation {
    /// All of them, in BabelStream's order.
    pub const ALL: [Self; 5] = [Self::Copy, Self::Mul, Self::Add, Self::Triad, Self::Dot];

    /// As BabelStream calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Mul => "mul",
            Self::Add => "add",
            Self::Triad => "triad",
            Self::Dot => "dot",
        }
    }

    /// How many whole arrays it reads and writes: what BabelStream counts.
    pub fn arrays(self) -> usize {
        match self {
            Self::Copy | Self::Mul | Self::Dot => 2,
            Self::Add | Self::Triad => 3,
        }
    }

    /// Of one element.
    pub fn of(self, first: f32, second: f32, scale: f32) -> f32 {
        match self {
            Self::Copy => first,
            Self::Mul => scale * first,
            Self::Add => first + second,
            // Not mul_add: it would round once.
            Self::Triad => first + scale * second,
            Self::Dot => first * second,
        }
    }
}

/// The kernel's arguments. Any number of invocations shares the elements; [`ITEMS`] each is fast.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The address of `count` `f32`, for dot of one for each workgroup; a multiple of 16.
    pub result: u64,
    /// The address of `count` `f32`, a multiple of 16.
    pub first: u64,
    /// The address of `count` `f32`, a multiple of 16. Copy and mul do not read it.
    pub second: u64,
    /// How many elements: a multiple of 4.
    pub count: u64,
    /// What mul and triad multiply by.
    pub scale: f32,
    /// Not read: it fills the struct to a multiple of 8 bytes.
    pub reserved: u32,
}
assert_layout!(Args, 40, { result: 0, first: 8, second: 16, count: 24, scale: 32, reserved: 36 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("stream");

/// What the kernel does, for the elements that all slices have; of dot, the products before they are added.
pub fn twin(operation: Operation, result: &mut [f32], first: &[f32], second: &[f32], scale: f32) {
    for ((result, first), second) in result.iter_mut().zip(first).zip(second) {
        *result = operation.of(*first, *second, scale);
    }
}

/// The sum that dot's parts add up to.
pub fn dot(first: &[f32], second: &[f32]) -> f64 {
    first.iter().zip(second).map(|(first, second)| f64::from(*first) * f64::from(*second)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_is_babelstreams() {
        let (first, second) = ([1.0, 2.0], [10.0, 20.0]);
        let results = Operation::ALL.map(|operation| {
            let mut result = [0.0; 2];
            twin(operation, &mut result, &first, &second, 0.5);
            result
        });
        assert_eq!(results, [[1.0, 2.0], [0.5, 1.0], [11.0, 22.0], [6.0, 12.0], [10.0, 40.0]]);
        assert_eq!(dot(&first, &second), 50.0);
    }

    #[test]
    fn operations_have_the_numbers_of_the_shader() {
        assert_eq!(Operation::ALL.map(|operation| operation as u32), [0, 1, 2, 3, 4]);
    }
}
