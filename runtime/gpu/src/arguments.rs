//! Whether the arguments of a launch are those that its kernel declares, one after the other as they are given. It
//! keeps no bytes and makes nothing on the heap but errors: launches pay for each check.

use crate::error::GpuError;
use crate::interface::{Argument, KernelInterface};
use crate::kernel::Kernel;
use crate::scalar::{Scalar, with_article};

/// One argument as it is given.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The scalar that it consists of, if it is of one kind; else only its place and size are checked.
    pub scalar: Option<Scalar>,
    /// Bytes between the first argument and this one.
    pub offset: usize,
    /// Its size in bytes.
    pub bytes: usize,
    /// The name that the kernel must know it by, if that is to be checked.
    pub name: Option<&'a str>,
}

impl Given<'_> {
    fn told(&self) -> String {
        match self.scalar {
            Some(scalar) if scalar.bytes() as usize == self.bytes => with_article(&scalar),
            Some(scalar) => format!("a [{scalar}; {}]", self.bytes / scalar.bytes() as usize),
            None => format!("a struct of {} bytes", self.bytes),
        }
    }
}

/// How far a launch's arguments match the kernel's.
///
/// An argument covers one declared argument, or several whole ones: `[u64; 3]` three `uint64_t`, a structure whatever
/// it lies over. Behind the last declared one, up to the next multiple of 8 bytes, anything is taken for the padding
/// that a `repr(C)` structure ends in.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArgumentCheck {
    /// The first declared argument that none covers yet.
    next: usize,
    /// Arguments given so far.
    given: usize,
}

impl ArgumentCheck {
    /// Checks the next argument.
    ///
    /// # Errors
    /// [`GpuError::ArgumentMismatch`], [`GpuError::ArgumentName`], [`GpuError::ArgumentsSurplus`].
    pub fn take(&mut self, kernel: &Kernel, given: Given<'_>) -> Result<(), GpuError> {
        self.take_for(kernel.name(), kernel.interface(), given)
    }

    fn take_for(&mut self, kernel: &str, interface: &KernelInterface, given: Given<'_>) -> Result<(), GpuError> {
        self.given += 1;
        let left = interface.arguments.get(self.next..).unwrap_or_default();
        let end = given.offset.saturating_add(given.bytes);
        let Some(first) = left.first() else { return self.padding(kernel, interface, given, end) };
        let mismatch = |declared: &Argument, wrong: Wrong| self.mismatch(kernel, declared, wrong, given);
        if let Some(name) = given.name
            && first.name.as_deref() != Some(name)
        {
            return Err(GpuError::ArgumentName {
                name: kernel.to_owned(),
                position: self.given,
                declared: first.name.clone(),
                given: name.to_owned(),
            });
        }
        if first.offset as usize != given.offset {
            return Err(mismatch(first, Wrong::Place));
        }
        let mut covered = 0;
        for declared in left.iter().take_while(|declared| (declared.offset as usize) < end) {
            let place = declared.offset as usize - given.offset;
            let fits = match (declared.kind.scalar(), given.scalar) {
                (Some(declared), Some(given)) => declared.takes(given) && place.is_multiple_of(given.bytes() as usize),
                _ => true,
            };
            if !fits || declared.end() as usize > end {
                return Err(mismatch(declared, Wrong::Type));
            }
            covered += 1;
        }
        let last = left.get(..covered).and_then(<[Argument]>::last);
        // Only a structure may end in padding.
        let padded = given.scalar.is_none() && end <= room(interface, left.get(covered));
        if !last.is_some_and(|last| padded || last.end() as usize == end) {
            return Err(mismatch(last.unwrap_or(first), Wrong::Type));
        }
        self.next += covered;
        Ok(())
    }

    /// Checks that nothing is missing; `bytes` were given in all, without the translation word.
    ///
    /// # Errors
    /// [`GpuError::ArgumentsMissing`].
    pub fn finish(&self, kernel: &Kernel, bytes: usize) -> Result<(), GpuError> {
        let Some(missing) = kernel.interface().arguments.get(self.next) else { return Ok(()) };
        Err(kernel.lacks(missing, self.given + 1, bytes))
    }

    fn padding(&self, kernel: &str, interface: &KernelInterface, given: Given<'_>, end: usize) -> Result<(), GpuError> {
        if given.name.is_none() && end <= room(interface, None) {
            return Ok(());
        }
        let told = given.name.map_or_else(|| given.told(), |name| format!("{} named {name}", given.told()));
        Err(GpuError::ArgumentsSurplus {
            name: kernel.to_owned(),
            position: self.given,
            given: told,
            declared: interface.arguments.len(),
        })
    }

    #[cold]
    fn mismatch(&self, kernel: &str, declared: &Argument, wrong: Wrong, given: Given<'_>) -> GpuError {
        let (declares, gives) = match wrong {
            Wrong::Type => (with_article(&declared.kind), given.told()),
            Wrong::Place => (
                format!("{} at byte {}", with_article(&declared.kind), declared.offset),
                format!("{} at byte {}", given.told(), given.offset),
            ),
        };
        GpuError::ArgumentMismatch {
            name: kernel.to_owned(),
            position: self.given,
            argument: called(declared),
            declared: declares,
            given: gives,
        }
    }
}

/// What a declared argument and a given one differ in.
#[derive(Clone, Copy)]
enum Wrong {
    Type,
    Place,
}

/// The argument's name in brackets, if it has one.
fn called(argument: &Argument) -> String {
    argument.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"))
}

/// Where the room ends that a structure may fill: at the next argument, or at the padded end of the block.
fn room(interface: &KernelInterface, next: Option<&Argument>) -> usize {
    let end = interface.argument_bytes.saturating_sub(8);
    next.map_or_else(|| end.next_multiple_of(8), |next| next.offset) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::ArgumentType;

    fn interface(kinds: &[(u32, u32, ArgumentType)]) -> KernelInterface {
        let argument = |(offset, bytes, kind): &(u32, u32, ArgumentType)| Argument {
            name: None,
            offset: *offset,
            bytes: *bytes,
            kind: kind.clone(),
        };
        let arguments: Vec<_> = kinds.iter().map(argument).collect();
        let argument_bytes = arguments.last().map_or(0, |last| last.end() + 8);
        KernelInterface { workgroup: [1; 3], argument_bytes, arguments, constants: Vec::new() }
    }

    /// Gives these (scalar, offset, bytes), and tells the error, if any.
    fn told(interface: &KernelInterface, given: &[(Option<Scalar>, usize, usize)]) -> Option<String> {
        let mut check = ArgumentCheck::default();
        let mut each = given.iter().map(|(scalar, offset, bytes)| Given {
            scalar: *scalar,
            offset: *offset,
            bytes: *bytes,
            name: None,
        });
        each.find_map(|given| check.take_for("k", interface, given).err()).map(|error| error.to_string())
    }

    #[test]
    fn vectors_arrays_and_structures_are_covered_whole() {
        let float = || ArgumentType::Scalar(Scalar::F32);
        let kinds = [
            (0, 12, ArgumentType::Vector(Scalar::F32, 3)),
            (12, 16, ArgumentType::Array(Box::new(float()), 4)),
            (28, 12, ArgumentType::Opaque(12)),
        ];
        let interface = interface(&kinds);
        let (float, bytes) = (Some(Scalar::F32), None);
        assert_eq!(told(&interface, &[(float, 0, 12), (float, 12, 16), (bytes, 28, 12)]), None);
        assert_eq!(told(&interface, &[(float, 0, 28), (float, 28, 12)]), None);
        assert_eq!(told(&interface, &[(bytes, 0, 40)]), None);
        let text = told(&interface, &[(float, 0, 4)]).unwrap();
        assert_eq!(text, "k: argument 1 is an f32x3 in the module, but an f32 was given");
        let text = told(&interface, &[(float, 0, 12), (float, 12, 12)]).unwrap();
        assert_eq!(text, "k: argument 2 is a [f32; 4] in the module, but a [f32; 3] was given");
        let text = told(&interface, &[(bytes, 0, 28), (bytes, 28, 16)]).unwrap();
        assert_eq!(text, "k: argument 2 is a struct of 12 bytes in the module, but a struct of 16 bytes was given");
    }

    #[test]
    fn gaps_of_another_layout_and_nothing_at_all_are_errors() {
        let interface =
            interface(&[(0, 4, ArgumentType::Scalar(Scalar::U32)), (16, 4, ArgumentType::Scalar(Scalar::U32))]);
        let word = Some(Scalar::U32);
        let text = told(&interface, &[(word, 0, 4), (word, 4, 4)]).unwrap();
        assert_eq!(text, "k: argument 2 is a u32 at byte 16 in the module, but a u32 at byte 4 was given");
        assert!(told(&interface, &[(word, 0, 0)]).is_some());
        assert!(told(&interface, &[(word, 0, usize::MAX)]).is_some());
        assert_eq!(told(&interface, &[(None, 0, 16), (None, 16, 8)]), None);
    }
}
