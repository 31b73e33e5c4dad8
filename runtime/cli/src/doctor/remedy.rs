//! What to do about an error that keeps a context from opening. The reason is the error's own text.

use limosa::{Error, GpuError, OsError, PagerError, ShimError};

/// The remedy, for people.
pub(super) fn of(error: &Error) -> &'static str {
    match error {
        Error::Pager(PagerError::Gpu(error)) => of_gpu(error),
        Error::Pager(PagerError::Os(error)) => of_os(error),
        Error::Pager(PagerError::NoView { .. }) => {
            "use the software device meanwhile: install mesa-vulkan-drivers, and choose --device cpu"
        }
        Error::Pager(PagerError::SelfTest { .. }) => "install another version of the device's driver, and report this",
        _ => "report this: doctor knows no remedy for it",
    }
}

fn of_gpu(error: &GpuError) -> &'static str {
    match error {
        GpuError::NoLoader(_) => "install libvulkan1 and mesa-vulkan-drivers (24 or newer)",
        GpuError::NoDevice => {
            "install mesa-vulkan-drivers (24 or newer; Debian 12 has it in its backports), and see that \
             VK_DRIVER_FILES and VK_ICD_FILENAMES, if set, name existing files"
        }
        GpuError::Unsuitable { .. } => "install a newer driver: Mesa 24 or newer for the software device",
        GpuError::Import { .. } => "use a device whose driver has VK_EXT_external_memory_host, as Mesa's has",
        GpuError::OutOfMemory { .. } => "free memory",
        _ => "install another version of the device's driver",
    }
}

pub(super) fn of_shim(error: &ShimError) -> &'static str {
    match error {
        ShimError::Forbidden { .. } => "give the user access to the device file: its group, or a udev rule",
        ShimError::Absent { .. } | ShimError::DeviceGone => "bind the module to the device again",
        ShimError::NoShim { .. } => "remove what has taken the name, and mount /sys where it is missing",
        ShimError::TooManyFiles => "close files, or raise `ulimit -n` or the sysctl fs.file-max",
        _ => "report this: doctor knows no remedy for it",
    }
}

pub(super) fn of_os(error: &OsError) -> &'static str {
    match error {
        OsError::AddressSpace { .. } => "raise `ulimit -v`, or open a smaller heap",
        OsError::OutOfMemory { .. } | OsError::MemoryFile { .. } => "free memory, or raise the limit of the container",
        OsError::NoUserfaultfd { .. } => {
            "run a kernel with CONFIG_USERFAULTFD; in a container, allow the system call or pass /dev/userfaultfd in"
        }
        OsError::KernelTooOld { .. } => "run Linux 6.6 or newer",
        OsError::Mapping { .. } => "sysctl vm.max_map_count=1048576, or free memory",
        _ => "report this: doctor knows no remedy for it",
    }
}
