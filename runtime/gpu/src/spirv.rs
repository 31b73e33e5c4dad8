//! Reads a SPIR-V module for what it says of a kernel: entry point, workgroup, argument block, specialization constants.
//!
//! It finds modules that are cut short or garbled, so that a driver need not (drivers crash on some of them). It does
//! *not* validate fully: that is spirv-val's work. The format is section 2.3 of the SPIR-V specification: a header of
//! five words, then instructions whose first word holds their length and opcode. (rspirv's parser was tried: 0.13
//! panics on modules cut inside a string, and refuses OpExecutionModeId, which glslang emits for Vulkan 1.3.)

use std::collections::{HashMap, HashSet};

use limosa_shaders::translation;
use spirv::{BuiltIn, Decoration, ExecutionMode, ExecutionModel, Op, StorageClass};

use crate::error::GpuError;
use crate::interface::{Argument, ArgumentType, KernelInterface, SpecConstant};
use crate::scalar::{Scalar, SpecValue};

/// Bytes of limosa's own argument, the first.
const TRANSLATION_BYTES: u32 = 8;

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

    /// The words behind the string that begins at word `index`.
    fn behind_text(&self, index: usize) -> &[u32] {
        let ends = |word: &u32| word.to_le_bytes().contains(&0);
        let strings = self.words.get(index..).unwrap_or_default();
        strings.iter().position(ends).and_then(|last| strings.get(last + 1..)).unwrap_or_default()
    }
}

/// The instructions before the first function, by position.
struct Module<'a> {
    version: u32,
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
            Ok(Self { version: words.get(1).copied().unwrap_or(0), instructions })
        }
    }

    /// The variable that holds the arguments of the entry point `point`.
    fn argument_block(&self, point: &Instruction<'a>) -> Option<&Instruction<'a>> {
        /// From this version on, entry points list all variables that they use.
        const LISTED: u32 = 0x0001_0400;
        let listed = point.behind_text(2);
        self.all(&[Op::Variable]).find(|variable| {
            let used = self.version < LISTED || variable.word(1).is_some_and(|id| listed.contains(&id));
            used && variable.is(2, StorageClass::PushConstant as u32)
        })
    }

    fn all(&self, wanted: &'static [Op]) -> impl Iterator<Item = &Instruction<'a>> {
        self.instructions.iter().filter(move |instruction| wanted.contains(&instruction.opcode))
    }
}

/// Reads `words`, a module, for the compute entry point `entry` with these values of specialization constants, of which
/// those that the module does not have are left out; `name` names it in errors.
pub(crate) fn inspect(
    name: &str,
    words: &[u32],
    entry: &str,
    constants: &[(u32, SpecValue)],
) -> Result<KernelInterface, GpuError> {
    let invalid = |reason: String| GpuError::InvalidSpirv { name: name.to_owned(), reason };
    let module = Module::parse(words).map_err(invalid)?;
    let compute = ExecutionModel::GLCompute as u32;
    let points: Vec<_> = module.all(&[Op::EntryPoint]).filter(|point| point.is(0, compute)).collect();
    let point = points.iter().find(|point| point.text(2) == entry).ok_or_else(|| GpuError::NoEntryPoint {
        name: name.to_owned(),
        wanted: entry.to_owned(),
        available: points.iter().map(|point| point.text(2)).collect(),
    })?;
    let types = Types::of(&module, constants);
    let workgroup = workgroup(&module, &types, point.word(1).unwrap_or(0))
        .ok_or_else(|| invalid("the workgroup's size is not given".into()))?;
    let refused = |reason: &str| GpuError::Interface { name: name.to_owned(), reason: reason.to_owned() };
    let block = module.argument_block(point).map(|variable| types.block(variable)).transpose().map_err(refused)?;
    let (argument_bytes, arguments) = block.unwrap_or_default();
    Ok(KernelInterface { workgroup, argument_bytes, arguments, constants: types.constants() })
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

/// How deep types may hold each other: the end of the search in a module whose types contain themselves.
const DEPTH_MAX: u32 = 16;

struct Types<'a> {
    /// Result id → instruction, for types (whose first word is the id), constants and variables (whose second is).
    defined: HashMap<u32, Instruction<'a>>,
    /// (structure, member) → byte offset.
    offsets: HashMap<(u32, u32), u32>,
    /// array → stride in bytes.
    strides: HashMap<u32, u32>,
    /// Result id → name.
    names: HashMap<u32, Instruction<'a>>,
    /// (structure, member) → name.
    member_names: HashMap<(u32, u32), Instruction<'a>>,
    /// Result id of a specialization constant → its `constant_id`.
    spec_ids: HashMap<u32, u32>,
    /// `constant_id` → the value given.
    given: HashMap<u32, SpecValue>,
}

impl<'a> Types<'a> {
    fn of(module: &Module<'a>, constants: &[(u32, SpecValue)]) -> Self {
        let mut types = Self {
            defined: HashMap::new(),
            offsets: HashMap::new(),
            strides: HashMap::new(),
            names: HashMap::new(),
            member_names: HashMap::new(),
            spec_ids: HashMap::new(),
            given: constants.iter().copied().collect(),
        };
        for instruction in &module.instructions {
            types.note(*instruction);
        }
        types
    }

    fn note(&mut self, instruction: Instruction<'a>) {
        let operands = (instruction.word(0), instruction.word(1), instruction.word(2), instruction.word(3));
        match (instruction.opcode, operands) {
            (Op::Decorate, (Some(array), Some(kind), Some(stride), _)) if kind == Decoration::ArrayStride as u32 => {
                self.strides.insert(array, stride);
            }
            (Op::Decorate, (Some(constant), Some(kind), Some(id), _)) if kind == Decoration::SpecId as u32 => {
                self.spec_ids.insert(constant, id);
            }
            (Op::MemberDecorate, (Some(structure), Some(member), Some(kind), Some(offset)))
                if kind == Decoration::Offset as u32 =>
            {
                self.offsets.insert((structure, member), offset);
            }
            (Op::Name, (Some(id), ..)) => {
                self.names.insert(id, instruction);
            }
            (Op::MemberName, (Some(structure), Some(member), ..)) => {
                self.member_names.insert((structure, member), instruction);
            }
            (
                Op::TypeInt
                | Op::TypeFloat
                | Op::TypeBool
                | Op::TypeVector
                | Op::TypeArray
                | Op::TypeStruct
                | Op::TypePointer,
                (Some(id), ..),
            )
            | (
                Op::Constant
                | Op::SpecConstant
                | Op::SpecConstantTrue
                | Op::SpecConstantFalse
                | Op::ConstantComposite
                | Op::SpecConstantComposite,
                (_, Some(id), ..),
            ) => {
                self.defined.insert(id, instruction);
            }
            _ => {}
        }
    }

    /// The lower 32 bits of a constant, as it is with the values given.
    fn value(&self, constant: u32) -> Option<u32> {
        let given = self.spec_ids.get(&constant).and_then(|id| self.given.get(id));
        given.map(|value| value.word()).or_else(|| self.defined.get(&constant)?.word(2))
    }

    /// The specialization constants that can be given, by id.
    fn constants(&self) -> Vec<SpecConstant> {
        let each = self.spec_ids.iter().filter(|(_, id)| **id != translation::CONSTANT_ID);
        let told = each.filter_map(|(constant, id)| Some((*constant, self.constant(*constant, *id)?)));
        let mut constants: Vec<_> = told.collect();
        // glslang gives one id to several, as for a workgroup's size: the one with a name is told.
        constants.sort_by_key(|(constant, told)| (told.id, told.name.is_none(), *constant));
        constants.dedup_by_key(|(_, told)| told.id);
        constants.into_iter().map(|(_, told)| told).collect()
    }

    fn constant(&self, constant: u32, id: u32) -> Option<SpecConstant> {
        let definition = self.defined.get(&constant)?;
        let scalar = self.scalar(definition.word(0)?)?;
        let bits = match definition.opcode {
            Op::SpecConstantTrue => 1,
            Op::SpecConstantFalse => 0,
            Op::SpecConstant => u64::from(definition.word(2)?) | u64::from(definition.word(3).unwrap_or(0)) << 32,
            _ => return None,
        };
        let name = self.names.get(&constant).map(|name| name.text(1)).filter(|name| !name.is_empty());
        Some(SpecConstant { id, name, default: SpecValue::from_bits(scalar, bits) })
    }

    /// The type of one number that `kind` is, if it is.
    fn scalar(&self, kind: u32) -> Option<Scalar> {
        let definition = self.defined.get(&kind)?;
        match (definition.opcode, definition.word(1), definition.word(2)) {
            (Op::TypeBool, ..) => Some(Scalar::Bool),
            (Op::TypePointer, ..) => Some(Scalar::Pointer),
            (Op::TypeInt, Some(8), Some(sign)) => Some(if sign == 0 { Scalar::U8 } else { Scalar::I8 }),
            (Op::TypeInt, Some(16), Some(sign)) => Some(if sign == 0 { Scalar::U16 } else { Scalar::I16 }),
            (Op::TypeInt, Some(32), Some(sign)) => Some(if sign == 0 { Scalar::U32 } else { Scalar::I32 }),
            (Op::TypeInt, Some(64), Some(sign)) => Some(if sign == 0 { Scalar::U64 } else { Scalar::I64 }),
            (Op::TypeFloat, Some(16), _) => Some(Scalar::F16),
            (Op::TypeFloat, Some(32), _) => Some(Scalar::F32),
            (Op::TypeFloat, Some(64), _) => Some(Scalar::F64),
            _ => None,
        }
    }

    /// Bytes of the block of arguments in `variable`, which must begin with limosa's translation word, and what comes
    /// behind that.
    fn block(&self, variable: &Instruction<'_>) -> Result<(u32, Vec<Argument>), &'static str> {
        let unreadable = "its argument block cannot be read";
        let pointer = variable.word(0).and_then(|pointer| self.defined.get(&pointer)).ok_or(unreadable)?;
        let block = pointer.word(2).ok_or(unreadable)?;
        let structure = self.defined.get(&block).ok_or(unreadable)?;
        let first = structure.word(1).and_then(|member| self.size(member, 0));
        if self.offsets.get(&(block, 0)) != Some(&0) || first != Some(TRANSLATION_BYTES) {
            return Err("its arguments do not begin with `uint64_t limosa_view`: declare them by LIMOSA_ARGUMENTS of \
                        limosa.glsl");
        }
        let bytes = self.size(block, 0).ok_or(unreadable)?;
        let members = (1u32..).zip(structure.words.iter().skip(2));
        let arguments = members.map(|(member, kind)| self.argument(block, member, *kind));
        let mut arguments = arguments.collect::<Option<Vec<_>>>().ok_or(unreadable)?;
        // What has no bytes can neither be given nor be missing.
        arguments.retain(|argument| argument.bytes > 0);
        arguments.sort_by_key(|argument| argument.offset);
        Ok((bytes, arguments))
    }

    /// Member `member` of the argument block; `None` if it cannot be read, or lies over the translation word.
    fn argument(&self, block: u32, member: u32, kind: u32) -> Option<Argument> {
        let offset = self.offsets.get(&(block, member))?.checked_sub(TRANSLATION_BYTES)?;
        let bytes = self.size(kind, 0)?;
        offset.checked_add(bytes)?;
        let name = self.member_names.get(&(block, member)).map(|name| name.text(2)).filter(|name| !name.is_empty());
        Some(Argument { name, offset, bytes, kind: self.describe(kind, 0)? })
    }

    fn describe(&self, kind: u32, depth: u32) -> Option<ArgumentType> {
        let definition = self.defined.get(&kind).filter(|_| depth < DEPTH_MAX)?;
        if let Some(scalar) = self.scalar(kind) {
            return Some(ArgumentType::Scalar(scalar));
        }
        let bytes = self.size(kind, depth)?;
        let described = match definition.opcode {
            Op::TypeVector => {
                self.scalar(definition.word(1)?).zip(definition.word(2)).map(|(one, n)| ArgumentType::Vector(one, n))
            }
            Op::TypeArray => {
                let (element, count) = (definition.word(1)?, self.value(definition.word(2)?)?);
                let dense = self.size(element, depth + 1)?.checked_mul(count) == Some(bytes);
                let element = self.describe(element, depth + 1)?;
                dense.then(|| ArgumentType::Array(Box::new(element), count))
            }
            _ => None,
        };
        Some(described.unwrap_or(ArgumentType::Opaque(bytes)))
    }

    /// Bytes of a type, `depth` types deep.
    fn size(&self, kind: u32, depth: u32) -> Option<u32> {
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
            let interface = inspect(kernel.name, &kernel.words(), "main", &[]).unwrap();
            assert_eq!(interface.workgroup, [kernel.workgroup, 1, 1], "{}", kernel.name);
            assert!(interface.argument_bytes >= 16, "{}: {}", kernel.name, interface.argument_bytes);
            assert!(interface.arguments.iter().all(|argument| argument.name.is_some()), "{}", kernel.name);
            assert!(interface.constants.iter().all(|one| one.id > 0), "limosa's own is not told: {}", kernel.name);
        }
    }

    #[test]
    fn tells_the_arguments_of_fill() {
        let interface = inspect("fill", &limosa_shaders::fill::KERNEL.words(), "main", &[]).unwrap();
        let told = interface.arguments.iter().map(|argument| {
            (argument.name.as_deref().unwrap(), argument.offset, argument.bytes, argument.kind.clone())
        });
        let scalar = ArgumentType::Scalar;
        let wanted = [
            ("dst", 0, 8, scalar(Scalar::U64)),
            ("count", 8, 8, scalar(Scalar::U64)),
            ("value", 16, 4, scalar(Scalar::U32)),
        ];
        assert_eq!(told.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_garbled_module_does_not_panic() {
        for kernel in limosa_shaders::ALL {
            let whole = kernel.words();
            for at in 5..whole.len() {
                for garbled in [0, 1, u32::MAX, whole[at] ^ 1 << 3, whole[at].wrapping_add(1)] {
                    let mut words = whole.clone();
                    words[at] = garbled;
                    let _ = inspect(kernel.name, &words, "main", &[(1, 7u64.into())]);
                }
            }
        }
    }

    #[test]
    fn a_cut_module_is_an_error_wherever_it_is_cut() {
        for kernel in limosa_shaders::ALL {
            let words = kernel.words();
            for len in 0..words.len() {
                // Between two functions a cut module looks whole; it must only not panic there.
                let cut = inspect(kernel.name, &words[..len], "main", &[]);
                let whole = words[len - 1.min(len)] == 1 << 16 | Op::FunctionEnd as u32;
                assert!(cut.is_err() || whole, "{} cut at {len}", kernel.name);
            }
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for words in [vec![], vec![0; 8], vec![u32::MAX; 64], vec![0x0723_0203]] {
            assert!(matches!(inspect("garbage", &words, "main", &[]), Err(GpuError::InvalidSpirv { .. })));
        }
    }
}
