//! What a SPIR-V module says of a kernel: entry point, workgroup, argument block.
//!
//! It finds modules that are cut short or garbled, so that a driver need not (drivers crash on some of them). It does
//! *not* validate fully: that is spirv-val's work.

use std::collections::HashMap;

use rspirv::binary::ParseState;
use rspirv::dr::{Instruction, Module, Operand};
use rspirv::spirv::{BuiltIn, Decoration, ExecutionMode, ExecutionModel, Op, StorageClass, Word};

use crate::error::GpuError;

/// How a kernel is to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInterface {
    /// Invocations of a workgroup in each dimension.
    pub workgroup: [u32; 3],
    /// Bytes of its argument block, the translation word included; 0 if it takes none.
    pub argument_bytes: u32,
}

/// Reads `spirv`, a module of 32-bit words, for the compute entry point `entry`; `name` names it in errors.
pub(crate) fn inspect(name: &str, spirv: &[u32], entry: &str) -> Result<KernelInterface, GpuError> {
    let invalid = |reason: String| GpuError::InvalidSpirv { name: name.to_owned(), reason };
    let mut loader = rspirv::dr::Loader::new();
    rspirv::binary::parse_words(spirv, &mut loader).map_err(|state: ParseState| invalid(state.to_string()))?;
    let module = loader.module();
    let compute = |point: &&Instruction| {
        matches!(point.operands.first(), Some(Operand::ExecutionModel(ExecutionModel::GLCompute)))
    };
    let names = |point: &Instruction| match point.operands.get(2) {
        Some(Operand::LiteralString(text)) => text.clone(),
        _ => String::new(),
    };
    let points: Vec<_> = module.entry_points.iter().filter(compute).collect();
    let point = points.iter().find(|point| names(point) == entry).ok_or_else(|| GpuError::NoEntryPoint {
        name: name.to_owned(),
        wanted: entry.to_owned(),
        available: points.iter().map(|point| names(point)).collect(),
    })?;
    let types = Types::of(&module);
    let workgroup = workgroup(&module, &types, id(point, 1).unwrap_or(0))
        .ok_or_else(|| invalid("the workgroup's size is not given".into()))?;
    let argument_bytes = types
        .arguments(&module)
        .map_err(|reason| GpuError::Interface { name: name.to_owned(), reason: reason.to_owned() })?;
    Ok(KernelInterface { workgroup, argument_bytes })
}

fn id(instruction: &Instruction, operand: usize) -> Option<Word> {
    match instruction.operands.get(operand) {
        Some(Operand::IdRef(id)) => Some(*id),
        _ => None,
    }
}

fn literal(instruction: &Instruction, operand: usize) -> Option<u32> {
    match instruction.operands.get(operand) {
        Some(Operand::LiteralBit32(value)) => Some(*value),
        _ => None,
    }
}

fn workgroup(module: &Module, types: &Types<'_>, function: Word) -> Option<[u32; 3]> {
    // A constant decorated WorkgroupSize takes precedence over the execution mode.
    let decorated = module
        .annotations
        .iter()
        .find(|annotation| matches!(annotation.operands.get(2), Some(Operand::BuiltIn(BuiltIn::WorkgroupSize))));
    if let Some(constant) = decorated.and_then(|annotation| types.defined.get(&id(annotation, 0)?)) {
        return Some([types.value(id(constant, 0)?)?, types.value(id(constant, 1)?)?, types.value(id(constant, 2)?)?]);
    }
    let modes = module.execution_modes.iter().filter(|mode| id(mode, 0) == Some(function));
    modes.into_iter().find_map(|mode| match mode.operands.get(1) {
        Some(Operand::ExecutionMode(ExecutionMode::LocalSize)) => {
            Some([literal(mode, 2)?, literal(mode, 3)?, literal(mode, 4)?])
        }
        Some(Operand::ExecutionMode(ExecutionMode::LocalSizeId)) => {
            Some([types.value(id(mode, 2)?)?, types.value(id(mode, 3)?)?, types.value(id(mode, 4)?)?])
        }
        _ => None,
    })
}

struct Types<'a> {
    defined: HashMap<Word, &'a Instruction>,
    /// (structure, member) → byte offset.
    offsets: HashMap<(Word, u32), u32>,
    /// array → stride in bytes.
    strides: HashMap<Word, u32>,
}

impl<'a> Types<'a> {
    fn of(module: &'a Module) -> Self {
        let all = module.types_global_values.iter();
        let defined = all.filter_map(|instruction| Some((instruction.result_id?, instruction))).collect();
        let (mut offsets, mut strides) = (HashMap::new(), HashMap::new());
        for annotation in &module.annotations {
            let Some(target) = id(annotation, 0) else { continue };
            match (annotation.class.opcode, annotation.operands.get(1), annotation.operands.get(2)) {
                (Op::MemberDecorate, Some(Operand::LiteralBit32(member)), Some(Operand::Decoration(kind)))
                    if *kind == Decoration::Offset =>
                {
                    offsets.insert((target, *member), literal(annotation, 3).unwrap_or(0));
                }
                (Op::Decorate, Some(Operand::Decoration(Decoration::ArrayStride)), Some(Operand::LiteralBit32(n))) => {
                    strides.insert(target, *n);
                }
                _ => {}
            }
        }
        Self { defined, offsets, strides }
    }

    fn value(&self, constant: Word) -> Option<u32> {
        literal(self.defined.get(&constant)?, 0)
    }

    /// Bytes of the push-constant block, which must begin with limosa's translation word.
    fn arguments(&self, module: &Module) -> Result<u32, &'static str> {
        let is_block = |instruction: &&Instruction| {
            instruction.class.opcode == Op::Variable
                && matches!(instruction.operands.first(), Some(Operand::StorageClass(StorageClass::PushConstant)))
        };
        let Some(variable) = module.types_global_values.iter().find(is_block) else { return Ok(0) };
        let unreadable = "its argument block cannot be read";
        let pointer = variable.result_type.and_then(|pointer| self.defined.get(&pointer)).ok_or(unreadable)?;
        let block = id(pointer, 1).ok_or(unreadable)?;
        let structure = self.defined.get(&block).ok_or(unreadable)?;
        let first = id(structure, 0).and_then(|member| self.size(member));
        if self.offsets.get(&(block, 0)) != Some(&0) || first != Some(8) {
            return Err("its arguments do not begin with `uint64_t limosa_view`: declare them by LIMOSA_ARGUMENTS of \
                        limosa.glsl");
        }
        self.size(block).ok_or(unreadable)
    }

    fn size(&self, kind: Word) -> Option<u32> {
        let definition = self.defined.get(&kind)?;
        match definition.class.opcode {
            Op::TypeInt | Op::TypeFloat => Some(literal(definition, 0)? / 8),
            Op::TypePointer => Some(8),
            Op::TypeVector => Some(self.size(id(definition, 0)?)? * literal(definition, 1)?),
            Op::TypeArray => {
                let count = self.value(id(definition, 1)?)?;
                let stride = match self.strides.get(&kind) {
                    Some(stride) => *stride,
                    None => self.size(id(definition, 0)?)?,
                };
                Some(count * stride)
            }
            Op::TypeStruct => {
                let members = 0u32..u32::try_from(definition.operands.len()).ok()?;
                let ends = members.map(|member| {
                    let size = self.size(id(definition, member as usize)?)?;
                    Some(self.offsets.get(&(kind, member)).copied().unwrap_or(0) + size)
                });
                ends.collect::<Option<Vec<_>>>()?.into_iter().max().or(Some(0))
            }
            _ => None,
        }
    }
}
