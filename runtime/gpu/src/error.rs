//! What can go wrong on the Vulkan side, by meaning. Nothing above this crate sees a VkResult.

use ash::vk;

/// A failure of the device or its driver.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GpuError {
    /// No Vulkan loader on this machine.
    #[error("the Vulkan loader cannot be opened ({0}): install libvulkan1")]
    NoLoader(String),
    /// The loader found no driver, or no driver a device.
    #[error(
        "no Vulkan device: install a driver (mesa-vulkan-drivers has the software one), and check that \
         VK_DRIVER_FILES and VK_ICD_FILENAMES, if set, name existing files"
    )]
    NoDevice,
    /// None matches what was asked for.
    #[error("no Vulkan device matches {wanted}; there are: {}", available.join(", "))]
    NoSuchDevice {
        /// What was asked for.
        wanted: String,
        /// The devices' names.
        available: Vec<String>,
    },
    /// The device or its driver lacks what limosa needs.
    #[error("{device} cannot be used: it lacks {}; a newer driver may have it", missing.join(", "))]
    Unsuitable {
        /// The device's name.
        device: String,
        /// What is missing.
        missing: Vec<String>,
    },
    /// An application's device was made without what limosa needs.
    #[error(
        "the application's device on {device} cannot be used: it was made without {}; `raw::Requirements` says what to \
         make it with",
        missing.join(", ")
    )]
    MadeWithout {
        /// The device's name.
        device: String,
        /// What is missing.
        missing: Vec<String>,
    },
    /// The driver would not take an address range of ours, or put it where kernels cannot use it.
    #[error("{device} cannot use a range of {bytes} bytes of the process's memory: {reason}")]
    Import {
        /// The device's name.
        device: String,
        /// Bytes of the range.
        bytes: u64,
        /// What happened.
        reason: String,
    },
    /// The device cannot make a sparse range.
    #[error("{device} cannot make a sparse range of {bytes} bytes: {reason}")]
    Sparse {
        /// The device's name.
        device: String,
        /// Bytes of the range.
        bytes: u64,
        /// What happened.
        reason: String,
    },
    /// Bytes of a sparse range or of a frame that cannot be used so.
    #[error("{what} of {len} bytes at offset {start}: {reason}")]
    Extent {
        /// What was to be done.
        what: &'static str,
        /// The first byte's offset.
        start: u64,
        /// Length in bytes.
        len: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The SPIR-V is not valid.
    #[error("{name}: not a valid SPIR-V module: {reason}")]
    InvalidSpirv {
        /// The kernel's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No such compute entry point.
    #[error("{name}: no compute entry point {wanted:?}; the module has: {}", list(available))]
    NoEntryPoint {
        /// The kernel's name.
        name: String,
        /// The entry point asked for.
        wanted: String,
        /// Those there are.
        available: Vec<String>,
    },
    /// The kernel cannot be used with limosa.
    #[error("{name}: {reason}")]
    Interface {
        /// The kernel's name.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// More argument bytes than the device or the kernel takes.
    #[error(
        "{name}: {given} bytes of arguments, but {taker} takes at most {limit}: pass a pointer to a structure instead"
    )]
    ArgumentsTooLarge {
        /// The kernel's name.
        name: String,
        /// Bytes given, the translation word included.
        given: u64,
        /// Bytes possible.
        limit: u64,
        /// Who sets the limit.
        taker: &'static str,
    },
    /// Fewer arguments than the kernel declares.
    #[error("{name}: {missing}, is missing: {given} bytes of arguments were given, but the kernel reads {needed}")]
    ArgumentsMissing {
        /// The kernel's name.
        name: String,
        /// Bytes given, without limosa's own.
        given: u64,
        /// Bytes the kernel declares, without limosa's own.
        needed: u64,
        /// The first that is missing: its position (from 1), its name if the module has it, its type.
        missing: String,
    },
    /// More arguments than the kernel declares.
    #[error("{name}: argument {position}, {given}, is one too many: the module declares {declared}")]
    ArgumentsSurplus {
        /// The kernel's name.
        name: String,
        /// The argument's position among those given, from 1.
        position: usize,
        /// What was given.
        given: String,
        /// How many arguments the module declares.
        declared: usize,
    },
    /// An argument of another type, size or place than the kernel declares.
    #[error("{name}: argument {position}{argument} is {declared} in the module, but {given} was given")]
    ArgumentMismatch {
        /// The kernel's name.
        name: String,
        /// The argument's position among those given, from 1.
        position: usize,
        /// Its name in the module, in brackets behind a space; empty if the module has no names.
        argument: String,
        /// What the module declares.
        declared: String,
        /// What was given.
        given: String,
    },
    /// An argument was given by another name than the kernel declares, or the kernel has no names.
    #[error("{name}: argument {position} {}, but was given as `{given}`", named(declared.as_deref()))]
    ArgumentName {
        /// The kernel's name.
        name: String,
        /// The argument's position among those given, from 1.
        position: usize,
        /// Its name in the module, which may have none.
        declared: Option<String>,
        /// Its name at the launch.
        given: String,
    },
    /// The module has no such specialization constant.
    #[error("{name}: no specialization constant {id}; the module has: {}", list(available))]
    NoSuchConstant {
        /// The kernel's name.
        name: String,
        /// The id asked for.
        id: u32,
        /// Those there are, by id and name.
        available: Vec<String>,
    },
    /// A value of another type than the specialization constant has.
    #[error("{name}: specialization constant {constant} is {declared} in the module, but {given} was given")]
    ConstantMismatch {
        /// The kernel's name.
        name: String,
        /// The constant's id, and its name if the module has it.
        constant: String,
        /// The type that the module declares.
        declared: String,
        /// The type that was given.
        given: String,
    },
    /// A value for a specialization constant that is limosa's own.
    #[error(
        "{name}: specialization constant {id} is limosa's own (LIMOSA_TRANSLATION, how pointers are translated): number \
         yours from 1 on"
    )]
    ConstantReserved {
        /// The kernel's name.
        name: String,
        /// The id.
        id: u32,
    },
    /// More workgroups than the device runs at once.
    #[error("{name}: {groups:?} workgroups, but the device takes at most {limit:?}: launch in parts")]
    GridTooLarge {
        /// The kernel's name.
        name: String,
        /// Workgroups asked for.
        groups: [u32; 3],
        /// The device's limit.
        limit: [u32; 3],
    },
    /// The device cannot tell when launches began and ended.
    #[error("{device} has no timestamps on its compute queue: make the queue without `profiled`")]
    NoTimestamps {
        /// The device's name.
        device: String,
    },
    /// The driver is out of host memory or of device memory.
    #[error("{call}: the driver is out of memory")]
    OutOfMemory {
        /// The Vulkan call.
        call: &'static str,
    },
    /// The device is lost: what only its memory held is gone.
    #[error("the device was lost: make a new context; ranges that only its memory held are poisoned")]
    DeviceLost,
    /// Anything else that a driver may say.
    #[error("{call} failed: {code}")]
    Driver {
        /// The Vulkan call.
        call: &'static str,
        /// The driver's answer.
        code: String,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn named(declared: Option<&str>) -> String {
    match declared {
        Some(name) => format!("is named `{name}` in the module"),
        None => "has no name in the module (keep names: glslang strips them with -g0), so give it by `value`".into(),
    }
}

impl GpuError {
    /// The meaning of what `call` answered.
    pub(crate) fn of(call: &'static str, result: vk::Result) -> Self {
        match result {
            vk::Result::ERROR_OUT_OF_HOST_MEMORY | vk::Result::ERROR_OUT_OF_DEVICE_MEMORY => Self::OutOfMemory { call },
            vk::Result::ERROR_DEVICE_LOST => Self::DeviceLost,
            vk::Result::ERROR_INCOMPATIBLE_DRIVER => Self::NoDevice,
            other => Self::Driver { call, code: other.to_string() },
        }
    }
}
