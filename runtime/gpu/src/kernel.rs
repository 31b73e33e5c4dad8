//! A compute kernel: a pipeline made from SPIR-V for one way of translating pointers. It does *not* keep arguments.

use std::ffi::CString;
use std::sync::Arc;

use ash::vk;
use limosa_model::DeviceAddr;
use limosa_shaders::translation;

use crate::device::Device;
use crate::error::GpuError;
use crate::inject::VulkanCall;
use crate::spirv::{self, KernelInterface};

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

/// A pipeline with what is known of its interface.
pub struct Kernel {
    pub(crate) pipeline: vk::Pipeline,
    pub(crate) layout: vk::PipelineLayout,
    name: String,
    interface: KernelInterface,
    device: Arc<Device>,
}

impl Kernel {
    /// Makes a kernel of the compute entry point `entry` of `spirv` (32-bit words); `name` is for errors and reports.
    ///
    /// # Errors
    /// [`GpuError::InvalidSpirv`], [`GpuError::NoEntryPoint`], [`GpuError::Interface`],
    /// [`GpuError::ArgumentsTooLarge`], [`GpuError::OutOfMemory`], [`GpuError::Driver`].
    pub fn new(
        device: &Arc<Device>,
        name: &str,
        spirv: &[u32],
        entry: &str,
        translation: Translation,
    ) -> Result<Arc<Self>, GpuError> {
        let interface = spirv::inspect(name, spirv, entry)?;
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
        let entry = CString::new(entry).map_err(|_| GpuError::InvalidSpirv {
            name: name.to_owned(),
            reason: "the entry point's name holds a NUL".into(),
        })?;
        let layout = layout(device, interface.argument_bytes)?;
        let mut kernel = Self {
            pipeline: vk::Pipeline::null(),
            layout,
            name: name.to_owned(),
            interface,
            device: Arc::clone(device),
        };
        kernel.pipeline = pipeline(device, layout, spirv, &entry, translation).map_err(|error| match error {
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
            return Err(GpuError::ArgumentsMissing { name: name(), given, needed });
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
    spirv: &[u32],
    entry: &std::ffi::CStr,
    translation: Translation,
) -> Result<vk::Pipeline, GpuError> {
    let create = vk::ShaderModuleCreateInfo::default().code(spirv);
    // SAFETY: the words were parsed as a module; the structures live through the call.
    let module = VulkanCall::CreateShaderModule.make(|| unsafe { device.raw.create_shader_module(&create, None) })?;
    let mode = translation.mode().to_ne_bytes();
    let entries = [vk::SpecializationMapEntry::default().constant_id(translation::CONSTANT_ID).size(mode.len())];
    let specialization = vk::SpecializationInfo::default().map_entries(&entries).data(&mode);
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
