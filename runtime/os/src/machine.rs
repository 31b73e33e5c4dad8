//! What this machine allows: the facts behind `limosa doctor` and the defaults of limits. It changes nothing.

use std::fs;
use std::path::Path;

use limosa_model::CHUNK;

use crate::error::OsError;
use crate::memfile::{Backing, HugePages, MemoryFile};
use crate::ring::Ring;
use crate::shim::{self, Info, Shim, ShimError};
use crate::uffd::{Delivery, Userfaultfd};

/// How userfaultfd can be used here.
#[derive(Debug)]
pub enum Faults {
    /// Also faults inside system calls.
    Full,
    /// Only faults in user mode; with the remedy.
    UserModeOnly(String),
    /// Not at all.
    None(OsError),
}

/// A device of the kernel module's, `/dev/limosaN`.
#[derive(Debug)]
pub struct ShimDevice {
    /// Its number.
    pub number: u32,
    /// What it offers, or why this user cannot use it.
    pub offers: Result<Info, ShimError>,
}

/// The kernel module, as far as this machine has it.
#[derive(Debug)]
pub enum KernelShim {
    /// Its devices, of which there is at least one.
    Devices(Vec<ShimDevice>),
    /// None; why, with the remedy.
    None(String),
}

impl KernelShim {
    fn probe() -> Self {
        let look = |number| ShimDevice { number, offers: Shim::open(number).and_then(|shim| shim.info()) };
        let devices: Vec<ShimDevice> = shim::devices().into_iter().map(look).collect();
        if !devices.is_empty() {
            return Self::Devices(devices);
        }
        let why = if Path::new("/sys/module/limosa").exists() {
            "the kernel module limosa is loaded, but bound to no device; remedy: bind it to a PCI function with a memory \
             BAR, see kernels-driver/README.md"
        } else {
            "the kernel module limosa is not loaded; remedy: build and load it, see kernels-driver/README.md"
        };
        Self::None(why.into())
    }
}

/// What there is.
#[derive(Debug)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// userfaultfd.
    pub faults: Faults,
    /// The pages that heaps get.
    pub backing: Result<Backing, OsError>,
    /// The kernel module.
    pub shim: KernelShim,
    /// RAM in bytes.
    pub memory_total: u64,
    /// RAM that can be had without swapping, in bytes.
    pub memory_available: u64,
    /// vm.max_map_count.
    pub map_count_max: u64,
    /// Why files are streamed by threads, and not by io_uring; `None` if they are not.
    pub no_io_uring: Option<String>,
    /// Processors this process may use.
    pub processors: usize,
}

impl Machine {
    /// RAM in bytes; 0 if /proc is not there.
    #[must_use]
    pub fn memory_total() -> u64 {
        meminfo("MemTotal:")
    }

    /// vm.max_map_count: mappings that a process may have; 0 if /proc is not there.
    #[must_use]
    pub fn map_count_max() -> u64 {
        number("/proc/sys/vm/max_map_count")
    }

    /// Looks.
    #[must_use]
    pub fn probe() -> Self {
        let faults = match Userfaultfd::open(Delivery::Thread) {
            Ok(uffd) if uffd.serves_system_calls => Faults::Full,
            Ok(_) => Faults::UserModeOnly(
                "read(2) and write(2) on memory that is on the GPU fail with EFAULT; remedy: give the user access to \
                 /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd=1"
                    .into(),
            ),
            Err(error) => Faults::None(error),
        };
        Self {
            kernel: kernel_release(),
            faults,
            backing: MemoryFile::create("the probe", CHUNK, CHUNK, HugePages::Always)
                .map(|file| file.backing().clone()),
            shim: KernelShim::probe(),
            memory_total: meminfo("MemTotal:"),
            memory_available: meminfo("MemAvailable:"),
            map_count_max: Self::map_count_max(),
            no_io_uring: match Ring::new(1) {
                Ok(ring) => ring.why_not_uring().map(ToString::to_string),
                Err(error) => Some(error.to_string()),
            },
            processors: std::thread::available_parallelism().map_or(1, Into::into),
        }
    }
}

/// The kernel's release, like `6.18.44`.
#[must_use]
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// Writes a line to standard error by one system call: allowed in signal mode and on fault threads.
pub fn complain(line: &[u8]) {
    // SAFETY: a system call on memory of the caller. Nothing can be done where it fails.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

fn meminfo(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn number(path: &str) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
