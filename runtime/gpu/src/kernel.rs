//! A compute kernel: a pipeline made from SPIR-V for one way of translating pointers. It does *not* keep arguments.

use std::ffi::CString;
use std::sync::Arc;

use ash::vk;
use limosa_model::DeviceAddr;
use limosa_shaders::translation;

use crate::device::Device;
use crate::error::GpuError;
use crate::inject::VulkanCall;
use crate::interface::{Argument, KernelInterface};
use crate::scalar::{SpecValue, with_article};
use crate::spirv;

/// How kernels turn a CPU pointer into a device address: limosa.glsl's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Both are the same number.
    Identity,
    /// They differ by this constant (wrapping).
    Delta(u64),
    /// They differ by a number for each part of the heap, in the table at this address.
    Table(DeviceAddr),
}

impl Translation {
    fn mode(self) -> u32 {
        match self {
            Self::Identity => translation::Mode::Identity as u32,
            Self::Delta(_) => translation::Mode::Delta as u32,
            Self::Table(_) => translation::Mode::Table as u32,
        }
    }

    /// The word that every argument block begins with.
    #[must_use]
    pub fn word(self) -> u64 {
        match self {
            Self::Identity => 0,
            Self::Delta(delta) => delta,
            Self::Table(table) => table.0,
        }
    }
}

/// What a kernel is made from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// A name for errors and reports.
    pub name: &'a str,
    /// The SPIR-V module.
    pub words: &'a [u32],
    /// The name of its compute entry point.
    pub entry: &'a str,
    /// Values of specialization constants by id; the others keep their defaults. No id twice.
    pub constants: &'a [(u32, SpecValue)],
}

impl Source<'_> {
    fn check_constants(&self, interface: &KernelInterface) -> Result<(), GpuError> {
        let name = || self.name.to_owned();
        for &(id, value) in self.constants {
            if id == translation::CONSTANT_ID {
                return Err(GpuError::ConstantReserved { name: name(), id });
            }
            let constant = interface.constants.iter().find(|constant| constant.id == id).ok_or_else(|| {
                let available = interface.constants.iter().map(ToString::to_string).collect();
                GpuError::NoSuchConstant { name: name(), id, available }
            })?;
            let declared = constant.default.scalar();
            if !declared.takes(value.scalar()) {
                return Err(GpuError::ConstantMismatch {
                    name: name(),
                    constant: constant.to_string(),
                    declared: with_article(&declared),
                    given: with_article(&value.scalar()),
                });
            }
        }
        Ok(())
    }
}

/// A pipeline with what is known of its interface.
pub struct Kernel {
    pub(crate) pipeline: vk::Pipeline,
    pub(crate) layout: vk::PipelineLayout,
    name: String,
    interface: KernelInterface,
    translation: Translation,
    device: Arc<Device>,
}

impl Kernel {
    /// Makes a kernel.
    ///
    /// # Errors
    /// [`GpuError::InvalidSpirv`], [`GpuError::NoEntryPoint`], [`GpuError::Interface`],
    /// [`GpuError::ArgumentsTooLarge`], [`GpuError::ConstantReserved`], [`GpuError::NoSuchConstant`],
    /// [`GpuError::ConstantMismatch`], [`GpuError::OutOfMemory`], [`GpuError::Driver`].
    pub fn new(device: &Arc<Device>, source: &Source<'_>, translation: Translation) -> Result<Arc<Self>, GpuError> {
        let name = source.name;
        let interface = spirv::inspect(name, source.words, source.entry, source.constants)?;
        source.check_constants(&interface)?;
        let limits = device.adapter.limits;
        if interface.argument_bytes > limits.argument_bytes {
            return Err(GpuError::ArgumentsTooLarge {
                name: name.to_owned(),
                given: interface.argument_bytes.into(),
                limit: limits.argument_bytes.into(),
                taker: "the device",
            });
        }
        let [x, y, z] = interface.workgroup;
        if [x, y, z].iter().map(|size| u128::from(*size)).product::<u128>() > limits.workgroup_size.into() {
            let reason =
                format!("workgroups of {x}×{y}×{z}, but the device takes {} invocations", limits.workgroup_size);
            return Err(GpuError::Interface { name: name.to_owned(), reason });
        }
        let entry = CString::new(source.entry).map_err(|_| GpuError::InvalidSpirv {
            name: name.to_owned(),
            reason: "the entry point's name holds a NUL".into(),
        })?;
        let layout = layout(device, interface.argument_bytes)?;
        let mut kernel = Self {
            pipeline: vk::Pipeline::null(),
            layout,
            name: name.to_owned(),
            interface,
            translation,
            device: Arc::clone(device),
        };
        kernel.pipeline = pipeline(device, layout, source, &entry, translation).map_err(|error| match error {
            GpuError::Driver { call, code } => GpuError::Interface {
                name: name.to_owned(),
                reason: format!("the driver refuses it ({call}: {code}): spirv-val may say why"),
            },
            other => other,
        })?;
        Ok(Arc::new(kernel))
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it translates pointers.
    #[must_use]
    pub fn translation(&self) -> Translation {
        self.translation
    }

    /// The device that it is for.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Its workgroup and argument block.
    #[must_use]
    pub fn interface(&self) -> &KernelInterface {
        &self.interface
    }

    /// Workgroups that give at least `invocations` in x, folded into y where the device's limit for x is passed.
    ///
    /// # Errors
    /// [`GpuError::GridTooLarge`].
    pub fn groups_for(&self, invocations: u64) -> Result<[u32; 3], GpuError> {
        let limit = self.device.adapter.limits.workgroups;
        let groups = invocations.div_ceil(u64::from(self.interface.workgroup[0].max(1)));
        let rows = groups.div_ceil(u64::from(limit[0])).max(1);
        let fit = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let grid = [fit(groups.div_ceil(rows)), fit(rows), 1];
        if grid[1] > limit[1] {
            return Err(GpuError::GridTooLarge { name: self.name.clone(), groups: grid, limit });
        }
        Ok(grid)
    }

    /// Workgroups that give at least so many invocations in each dimension.
    ///
    /// # Errors
    /// [`GpuError::GridTooLarge`], whose workgroups are cut to 32 bits.
    pub fn groups_for_each(&self, invocations: [u64; 3]) -> Result<[u32; 3], GpuError> {
        let limit = self.device.adapter.limits.workgroups;
        let mut grid = [0; 3];
        let mut fits = true;
        for (dimension, groups) in grid.iter_mut().enumerate() {
            let wanted = invocations[dimension].div_ceil(u64::from(self.interface.workgroup[dimension].max(1)));
            *groups = u32::try_from(wanted).unwrap_or(u32::MAX);
            fits &= wanted <= u64::from(limit[dimension]);
        }
        if fits { Ok(grid) } else { Err(GpuError::GridTooLarge { name: self.name.clone(), groups: grid, limit }) }
    }

    /// The error for `missing`, which would be the argument at `position`, where only `bytes` were given.
    #[cold]
    pub(crate) fn lacks(&self, missing: &Argument, position: usize, bytes: usize) -> GpuError {
        let name = missing.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
        GpuError::ArgumentsMissing {
            name: self.name.clone(),
            given: bytes as u64,
            needed: u64::from(self.interface.argument_bytes).saturating_sub(8),
            missing: format!("argument {position}{name}, {}", with_article(&missing.kind)),
        }
    }

    /// Bytes of the pipeline's push-constant range.
    pub(crate) fn pushed_bytes(&self) -> usize {
        self.interface.argument_bytes.next_multiple_of(4) as usize
    }

    pub(crate) fn check(&self, groups: [u32; 3], argument_bytes: usize) -> Result<(), GpuError> {
        let (given, needed) = (argument_bytes as u64, u64::from(self.interface.argument_bytes));
        let name = || self.name.clone();
        // A structure of C's ends in padding up to its alignment, which a block of GLSL's does not have.
        if given > needed.next_multiple_of(8) {
            return Err(GpuError::ArgumentsTooLarge { name: name(), given, limit: needed, taker: "the kernel" });
        }
        if given < needed {
            let own = argument_bytes.saturating_sub(8);
            let mut arguments = self.interface.arguments.iter().enumerate();
            return Err(match arguments.find(|(_, argument)| argument.end() as usize > own) {
                Some((index, argument)) => self.lacks(argument, index + 1, own),
                None => {
                    GpuError::ArgumentsMissing { name: name(), given, needed, missing: "the translation word".into() }
                }
            });
        }
        let limit = self.device.adapter.limits.workgroups;
        if groups.iter().zip(limit).any(|(asked, limit)| *asked > limit) {
            return Err(GpuError::GridTooLarge { name: name(), groups, limit });
        }
        Ok(())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // SAFETY: work in flight keeps its kernel by Arc, so none uses it. Null handles are allowed.
        unsafe {
            self.device.raw.destroy_pipeline(self.pipeline, None);
            self.device.raw.destroy_pipeline_layout(self.layout, None);
        }
    }
}

fn layout(device: &Device, argument_bytes: u32) -> Result<vk::PipelineLayout, GpuError> {
    let range = [vk::PushConstantRange::default()
        .stage_flags(vk::ShaderStageFlags::COMPUTE)
        .size(argument_bytes.next_multiple_of(4))];
    let ranges = if argument_bytes == 0 { &[] } else { &range[..] };
    let create = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(ranges);
    // SAFETY: the structures live through the call.
    VulkanCall::CreatePipelineLayout.make(|| unsafe { device.raw.create_pipeline_layout(&create, None) })
}

fn pipeline(
    device: &Device,
    layout: vk::PipelineLayout,
    source: &Source<'_>,
    entry: &std::ffi::CStr,
    translation: Translation,
) -> Result<vk::Pipeline, GpuError> {
    let create = vk::ShaderModuleCreateInfo::default().code(source.words);
    // SAFETY: the words were parsed as a module; the structures live through the call.
    let module = VulkanCall::CreateShaderModule.make(|| unsafe { device.raw.create_shader_module(&create, None) })?;
    let own = [(translation::CONSTANT_ID, SpecValue::from(translation.mode()))];
    let (mut entries, mut data) = (Vec::new(), Vec::<u8>::new());
    for (id, value) in own.iter().chain(source.constants) {
        let offset = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let size = value.scalar().bytes() as usize;
        entries.push(vk::SpecializationMapEntry::default().constant_id(*id).offset(offset).size(size));
        // The lower bytes come first, and each value lies at a multiple of its own alignment.
        data.extend_from_slice(&value.bits().to_le_bytes());
    }
    let specialization = vk::SpecializationInfo::default().map_entries(&entries).data(&data);
    let stage = vk::PipelineShaderStageCreateInfo::default()
        .stage(vk::ShaderStageFlags::COMPUTE)
        .module(module)
        .name(entry)
        .specialization_info(&specialization);
    let create = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout)];
    // SAFETY: the structures live through the call; the module may go as soon as the pipeline is made.
    let made = unsafe {
        let made = VulkanCall::CreatePipeline.make(|| {
            let made = device.raw.create_compute_pipelines(vk::PipelineCache::null(), &create, None);
            made.map_err(|(_, error)| error)
        });
        device.raw.destroy_shader_module(module, None);
        made?
    };
    let none = || GpuError::Driver { call: VulkanCall::CreatePipeline.name(), code: "no pipeline".into() };
    made.first().copied().ok_or_else(none)
}
