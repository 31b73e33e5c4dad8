//! The scalars that kernels and Rust have in common, and single values of them. Vectors and structures are *not* here.

use std::fmt;

/// A type of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// `u8`, in GLSL `uint8_t`.
    U8,
    /// `u16`, in GLSL `uint16_t`.
    U16,
    /// `u32`, in GLSL `uint`.
    U32,
    /// `u64`, in GLSL `uint64_t`.
    U64,
    /// `i8`, in GLSL `int8_t`.
    I8,
    /// `i16`, in GLSL `int16_t`.
    I16,
    /// `i32`, in GLSL `int`.
    I32,
    /// `i64`, in GLSL `int64_t`.
    I64,
    /// In GLSL `float16_t`; Rust gives its bits, as `u16`.
    F16,
    /// `f32`, in GLSL `float`.
    F32,
    /// `f64`, in GLSL `double`.
    F64,
    /// A pointer of 8 bytes: in Rust a `GpuPtr`, in GLSL a buffer reference.
    Pointer,
    /// `bool`, of 4 bytes: specialization constants only.
    Bool,
}

/// What scalars must have in common, beside their size, to stand for each other.
#[derive(PartialEq, Eq)]
enum Class {
    Integer,
    Float,
    Bool,
}

impl Scalar {
    /// Its size and alignment in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 | Self::Bool => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Pointer => 8,
        }
    }

    /// Whether a value of `given` may stand where a kernel declares `self`: of the same size, and both integers or
    /// both floats. The sign makes no difference (GLSL's `int` is often a count), a pointer is an integer of 8 bytes,
    /// and the bits of an [`Self::F16`] are given as an integer, since Rust has no such type.
    #[must_use]
    pub fn takes(self, given: Self) -> bool {
        let half = self == Self::F16 && given.class() == Class::Integer;
        self.bytes() == given.bytes() && (half || self.class() == given.class())
    }

    fn class(self) -> Class {
        match self {
            Self::F16 | Self::F32 | Self::F64 => Class::Float,
            Self::Bool => Class::Bool,
            _ => Class::Integer,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Pointer => "pointer",
            Self::Bool => "bool",
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `text`, the name of a type, behind its indefinite article.
pub(crate) fn with_article(text: &impl ToString) -> String {
    let text = text.to_string();
    let article = if text.starts_with(['f', 'i']) { "an" } else { "a" };
    format!("{article} {text}")
}

/// A value of a specialization constant: made by `From` from Rust's numbers and `bool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecValue {
    scalar: Scalar,
    bits: u64,
}

impl SpecValue {
    /// A value by its bits, of which the lower [`Scalar::bytes`] count. For what has no type in Rust; else use `From`.
    #[must_use]
    pub const fn from_bits(scalar: Scalar, bits: u64) -> Self {
        Self { scalar, bits: bits & (u64::MAX >> (64 - 8 * scalar.bytes())) }
    }

    /// Its type.
    #[must_use]
    pub const fn scalar(self) -> Scalar {
        self.scalar
    }

    /// Its bits, in the lower [`Scalar::bytes`].
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// As a count, of which the lower 32 bits matter.
    pub(crate) fn word(self) -> u32 {
        let [low, _] = halves(self.bits);
        low
    }
}

/// The lower and the upper 32 bits.
fn halves(bits: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = bits.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

impl fmt::Display for SpecValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, _] = halves(self.bits);
        // Shifted up and down again, the sign fills the upper bits.
        let unused = 64 - 8 * self.scalar.bytes();
        let signed = (self.bits << unused).cast_signed() >> unused;
        match self.scalar {
            Scalar::I8 | Scalar::I16 | Scalar::I32 | Scalar::I64 => write!(f, "{signed}"),
            Scalar::F32 => write!(f, "{}", f32::from_bits(low)),
            Scalar::F64 => write!(f, "{}", f64::from_bits(self.bits)),
            Scalar::Bool => write!(f, "{}", self.bits != 0),
            Scalar::F16 | Scalar::Pointer => write!(f, "{:#x}", self.bits),
            Scalar::U8 | Scalar::U16 | Scalar::U32 | Scalar::U64 => write!(f, "{}", self.bits),
        }
    }
}

macro_rules! values {
    ($($kind:ty: $scalar:ident, $value:ident => $bits:expr;)*) => {
        $(
            impl From<$kind> for SpecValue {
                fn from($value: $kind) -> Self {
                    Self::from_bits(Scalar::$scalar, $bits)
                }
            }
        )*
    };
}
values! {
    u8: U8, value => value.into();
    u16: U16, value => value.into();
    u32: U32, value => value.into();
    u64: U64, value => value;
    i8: I8, value => value.cast_unsigned().into();
    i16: I16, value => value.cast_unsigned().into();
    i32: I32, value => value.cast_unsigned().into();
    i64: I64, value => value.cast_unsigned();
    f32: F32, value => value.to_bits().into();
    f64: F64, value => value.to_bits();
    bool: Bool, value => value.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_as_they_were_given() {
        let told = |value: SpecValue| value.to_string();
        assert_eq!(told((-3i8).into()), "-3");
        assert_eq!(told(i64::MIN.into()), i64::MIN.to_string());
        assert_eq!(told(u64::MAX.into()), u64::MAX.to_string());
        assert_eq!(told((-1.5f32).into()), "-1.5");
        assert_eq!(told(2.25f64.into()), "2.25");
        assert_eq!(told(true.into()), "true");
        assert_eq!(told(SpecValue::from_bits(Scalar::U16, u64::MAX)), "65535");
    }

    #[test]
    fn size_and_class_decide_what_is_taken() {
        assert!(Scalar::I32.takes(Scalar::U32) && Scalar::U64.takes(Scalar::Pointer) && Scalar::F16.takes(Scalar::U16));
        assert!(!Scalar::U32.takes(Scalar::F32) && !Scalar::U32.takes(Scalar::U64) && !Scalar::U32.takes(Scalar::Bool));
        assert!(!Scalar::F64.takes(Scalar::Pointer) && !Scalar::F32.takes(Scalar::F64));
    }
}
