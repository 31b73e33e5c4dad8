//! What a module says of a kernel: workgroup, arguments, specialization constants. How it is read is *not* here.

use std::fmt;

use crate::scalar::{Scalar, SpecValue};

/// How a kernel is to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInterface {
    /// Invocations of a workgroup in each dimension.
    pub workgroup: [u32; 3],
    /// Bytes of its argument block, the translation word included; 0 if it takes none.
    pub argument_bytes: u32,
    /// What is in the argument block behind the translation word, by offset.
    pub arguments: Vec<Argument>,
    /// The module's specialization constants but limosa's own, by id.
    pub constants: Vec<SpecConstant>,
}

/// One argument that a kernel declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name in the source; `None` if the module was stripped of names (glslang does that by `-g0`).
    pub name: Option<String>,
    /// Bytes between the first argument and this one.
    pub offset: u32,
    /// Its size in bytes.
    pub bytes: u32,
    /// Its type.
    pub kind: ArgumentType,
}

impl Argument {
    /// One past its last byte. The reader checks that this does not overflow.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.offset + self.bytes
    }
}

/// The type of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentType {
    /// One number or pointer.
    Scalar(Scalar),
    /// So many numbers of a GLSL vector.
    Vector(Scalar, u32),
    /// So many elements, one behind the other.
    Array(Box<ArgumentType>, u32),
    /// Anything else, known by its size in bytes only: structures, and arrays with gaps between their elements.
    Opaque(u32),
}

impl ArgumentType {
    /// The scalar that it consists of, if it is of one kind without gaps.
    #[must_use]
    pub fn scalar(&self) -> Option<Scalar> {
        match self {
            Self::Scalar(scalar) | Self::Vector(scalar, _) => Some(*scalar),
            Self::Array(element, _) => element.scalar(),
            Self::Opaque(_) => None,
        }
    }
}

impl fmt::Display for ArgumentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(scalar) => write!(f, "{scalar}"),
            Self::Vector(scalar, count) => write!(f, "{scalar}x{count}"),
            Self::Array(element, count) => write!(f, "[{element}; {count}]"),
            Self::Opaque(bytes) => write!(f, "struct of {bytes} bytes"),
        }
    }
}

/// A specialization constant: a value that the kernel's code leaves open until the kernel is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecConstant {
    /// Its `constant_id`.
    pub id: u32,
    /// Its name in the source; `None` if the module was stripped of names.
    pub name: Option<String>,
    /// What it is if nothing is given, with its type.
    pub default: SpecValue,
}

impl fmt::Display for SpecConstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({name})", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}
