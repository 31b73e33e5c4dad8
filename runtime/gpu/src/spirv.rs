//! What a SPIR-V module says of a kernel: entry point, workgroup, argument block.
//!
//! It finds modules that are cut short or garbled, so that a driver need not (drivers crash on some of them). It does
//! *not* validate fully: that is spirv-val's work. The format is section 2.3 of the SPIR-V specification: a header of
//! five words, then instructions whose first word holds their length and opcode. (rspirv's parser was tried: 0.13
//! panics on modules cut inside a string, and refuses OpExecutionModeId, which glslang emits for Vulkan 1.3.)

use std::collections::{HashMap, HashSet};

use spirv::{BuiltIn, Decoration, ExecutionMode, ExecutionModel, Op, StorageClass};

use crate::error::GpuError;

/// How a kernel is to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInterface {
    /// Invocations of a workgroup in each dimension.
    pub workgroup: [u32; 3],
    /// Bytes of its argument block, the translation word included; 0 if it takes none.
    pub argument_bytes: u32,
}

/// One instruction: its opcode and the words behind the first.
#[derive(Clone, Copy)]
struct Instruction<'a> {
    opcode: Op,
    words: &'a [u32],
}

impl Instruction<'_> {
    fn word(&self, index: usize) -> Option<u32> {
        self.words.get(index).copied()
    }

    /// Whether operand `index` is this enumerant.
    fn is(&self, index: usize, value: u32) -> bool {
        self.word(index) == Some(value)
    }

    /// The string that begins at word `index`: little-endian bytes up to a NUL.
    fn text(&self, index: usize) -> String {
        let bytes = self.words.iter().skip(index).flat_map(|word| word.to_le_bytes());
        let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The instructions before the first function, by position.
struct Module<'a> {
    instructions: Vec<Instruction<'a>>,
}

impl<'a> Module<'a> {
    fn parse(words: &'a [u32]) -> Result<Self, String> {
        const HEADER: usize = 5;
        if words.first() != Some(&spirv::MAGIC_NUMBER) {
            return Err("it does not begin with SPIR-V's magic number".into());
        }
        let (mut at, mut instructions, mut open) = (HEADER, Vec::new(), false);
        let (mut functions, mut called) = (HashSet::<u32>::new(), Vec::<u32>::new());
        while at < words.len() {
            let [opcode, length] = [words[at] & 0xFFFF, words[at] >> 16];
            let end = at + length as usize;
            if length == 0 || end > words.len() {
                return Err(format!("the instruction at word {at} is cut short"));
            }
            let opcode = Op::from_u32(opcode).ok_or_else(|| format!("unknown opcode {opcode} at word {at}"))?;
            match opcode {
                Op::Function => {
                    functions.extend(words[at + 1..end].get(1));
                    open = true;
                }
                Op::FunctionEnd => open = false,
                Op::EntryPoint => called.extend(words[at + 1..end].get(1)),
                Op::FunctionCall => called.extend(words[at + 1..end].get(2)),
                _ => {}
            }
            if functions.is_empty() {
                instructions.push(Instruction { opcode, words: &words[at + 1..end] });
            }
            at = end;
        }
        if functions.is_empty() {
            Err("it holds no function".into())
        } else if open {
            Err("its last function is cut short".into())
        } else if called.iter().any(|function| !functions.contains(function)) {
            Err("a function that it calls is not there".into())
        } else {
            Ok(Self { instructions })
        }
    }

    fn all(&self, wanted: &'static [Op]) -> impl Iterator<Item = &Instruction<'a>> {
        self.instructions.iter().filter(move |instruction| wanted.contains(&instruction.opcode))
    }
}

/// Reads `words`, a module, for the compute entry point `entry`; `name` names it in errors.
pub(crate) fn inspect(name: &str, words: &[u32], entry: &str) -> Result<KernelInterface, GpuError> {
    let invalid = |reason: String| GpuError::InvalidSpirv { name: name.to_owned(), reason };
    let module = Module::parse(words).map_err(invalid)?;
    let compute = ExecutionModel::GLCompute as u32;
    let points: Vec<_> = module.all(&[Op::EntryPoint]).filter(|point| point.is(0, compute)).collect();
    let point = points.iter().find(|point| point.text(2) == entry).ok_or_else(|| GpuError::NoEntryPoint {
        name: name.to_owned(),
        wanted: entry.to_owned(),
        available: points.iter().map(|point| point.text(2)).collect(),
    })?;
    let types = Types::of(&module);
    let workgroup = workgroup(&module, &types, point.word(1).unwrap_or(0))
        .ok_or_else(|| invalid("the workgroup's size is not given".into()))?;
    let refused = |reason: &str| GpuError::Interface { name: name.to_owned(), reason: reason.to_owned() };
    let argument_bytes = types.arguments(&module).map_err(refused)?;
    Ok(KernelInterface { workgroup, argument_bytes })
}

fn workgroup(module: &Module<'_>, types: &Types<'_>, function: u32) -> Option<[u32; 3]> {
    // A constant decorated WorkgroupSize takes precedence over the execution mode.
    let built_in = BuiltIn::WorkgroupSize as u32;
    let decorated = module
        .all(&[Op::Decorate])
        .find(|annotation| annotation.is(1, Decoration::BuiltIn as u32) && annotation.is(2, built_in));
    if let Some(constant) = decorated.and_then(|annotation| types.defined.get(&annotation.word(0)?)) {
        let part = |index| types.value(constant.word(index)?);
        return Some([part(2)?, part(3)?, part(4)?]);
    }
    let mut modes = module.all(&[Op::ExecutionMode, Op::ExecutionModeId]).filter(|mode| mode.is(0, function));
    modes.find_map(|mode| {
        let parts = [mode.word(2)?, mode.word(3)?, mode.word(4)?];
        if mode.is(1, ExecutionMode::LocalSize as u32) {
            Some(parts)
        } else if mode.is(1, ExecutionMode::LocalSizeId as u32) {
            Some([types.value(parts[0])?, types.value(parts[1])?, types.value(parts[2])?])
        } else {
            None
        }
    })
}

struct Types<'a> {
    /// Result id → instruction, for types (whose first word is the id), constants and variables (whose second is).
    defined: HashMap<u32, Instruction<'a>>,
    /// (structure, member) → byte offset.
    offsets: HashMap<(u32, u32), u32>,
    /// array → stride in bytes.
    strides: HashMap<u32, u32>,
}

impl<'a> Types<'a> {
    fn of(module: &Module<'a>) -> Self {
        let mut types = Self { defined: HashMap::new(), offsets: HashMap::new(), strides: HashMap::new() };
        for instruction in &module.instructions {
            let operands = (instruction.word(0), instruction.word(1), instruction.word(2), instruction.word(3));
            match (instruction.opcode, operands) {
                (Op::Decorate, (Some(array), Some(kind), Some(stride), _))
                    if kind == Decoration::ArrayStride as u32 =>
                {
                    types.strides.insert(array, stride);
                }
                (Op::MemberDecorate, (Some(structure), Some(member), Some(kind), Some(offset)))
                    if kind == Decoration::Offset as u32 =>
                {
                    types.offsets.insert((structure, member), offset);
                }
                (
                    Op::TypeInt | Op::TypeFloat | Op::TypeVector | Op::TypeArray | Op::TypeStruct | Op::TypePointer,
                    (Some(id), ..),
                )
                | (Op::Constant | Op::SpecConstant, (_, Some(id), ..))
                | (Op::ConstantComposite | Op::SpecConstantComposite, (_, Some(id), ..)) => {
                    types.defined.insert(id, *instruction);
                }
                _ => {}
            }
        }
        types
    }

    fn value(&self, constant: u32) -> Option<u32> {
        self.defined.get(&constant)?.word(2)
    }

    /// Bytes of the push-constant block, which must begin with limosa's translation word.
    fn arguments(&self, module: &Module<'_>) -> Result<u32, &'static str> {
        let class = StorageClass::PushConstant as u32;
        let Some(variable) = module.all(&[Op::Variable]).find(|variable| variable.is(2, class)) else { return Ok(0) };
        let unreadable = "its argument block cannot be read";
        let pointer = variable.word(0).and_then(|pointer| self.defined.get(&pointer)).ok_or(unreadable)?;
        let block = pointer.word(2).ok_or(unreadable)?;
        let structure = self.defined.get(&block).ok_or(unreadable)?;
        let first = structure.word(1).and_then(|member| self.size(member, 0));
        if self.offsets.get(&(block, 0)) != Some(&0) || first != Some(8) {
            return Err("its arguments do not begin with `uint64_t limosa_view`: declare them by LIMOSA_ARGUMENTS of \
                        limosa.glsl");
        }
        self.size(block, 0).ok_or(unreadable)
    }

    /// Bytes of a type; `depth` ends the search in a module whose types contain themselves.
    fn size(&self, kind: u32, depth: u32) -> Option<u32> {
        const DEPTH_MAX: u32 = 16;
        let definition = self.defined.get(&kind).filter(|_| depth < DEPTH_MAX)?;
        match definition.opcode {
            Op::TypeInt | Op::TypeFloat => Some(definition.word(1)? / 8),
            Op::TypePointer => Some(8),
            Op::TypeVector => self.size(definition.word(1)?, depth + 1)?.checked_mul(definition.word(2)?),
            Op::TypeArray => {
                let count = self.value(definition.word(2)?)?;
                let stride = match self.strides.get(&kind) {
                    Some(stride) => *stride,
                    None => self.size(definition.word(1)?, depth + 1)?,
                };
                count.checked_mul(stride)
            }
            Op::TypeStruct => {
                let mut bytes = 0;
                for (member, kind) in (0u32..).zip(definition.words.get(1..)?) {
                    let offset = self.offsets.get(&(definition.word(0)?, member)).copied().unwrap_or(0);
                    bytes = bytes.max(offset.checked_add(self.size(*kind, depth + 1)?)?);
                }
                Some(bytes)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kernel_of_ours() {
        for kernel in limosa_shaders::ALL {
            let interface = inspect(kernel.name, &kernel.words(), "main").unwrap();
            assert_eq!(interface.workgroup, [kernel.workgroup, 1, 1], "{}", kernel.name);
            assert!(interface.argument_bytes >= 16, "{}: {}", kernel.name, interface.argument_bytes);
        }
    }

    #[test]
    fn a_cut_module_is_an_error_wherever_it_is_cut() {
        for kernel in limosa_shaders::ALL {
            let words = kernel.words();
            for len in 0..words.len() {
                // Between two functions a cut module looks whole; it must only not panic there.
                let cut = inspect(kernel.name, &words[..len], "main");
                let whole = words[len - 1.min(len)] == 1 << 16 | Op::FunctionEnd as u32;
                assert!(cut.is_err() || whole, "{} cut at {len}", kernel.name);
            }
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for words in [vec![], vec![0; 8], vec![u32::MAX; 64], vec![0x0723_0203]] {
            assert!(matches!(inspect("garbage", &words, "main"), Err(GpuError::InvalidSpirv { .. })));
        }
    }
}
