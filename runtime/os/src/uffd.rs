//! One userfaultfd: opening it with what limosa needs, reading faults, and its ioctls by meaning.
//!
//! The layouts and numbers are those of Linux's `include/uapi/linux/userfaultfd.h`; libc has few of them. It does
//! *not* decide what a fault means.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use limosa_model::{Access, HostAddr};

use crate::error::OsError;
use crate::inject::{self, Call};
use crate::machine;

const UFFD_API: u64 = 0xAA;
const IOC_API: u64 = 0xC018_AA3F;
const IOC_REGISTER: u64 = 0xC020_AA00;
const IOC_UNREGISTER: u64 = 0x8010_AA01;
const IOC_WAKE: u64 = 0x8010_AA02;
const IOC_CONTINUE: u64 = 0xC020_AA07;
const IOC_POISON: u64 = 0xC020_AA08;
const IOC_NEW: u64 = 0xAA00;

const MODE_MISSING: u64 = 1;
const MODE_WRITE_PROTECT: u64 = 2;
const MODE_MINOR: u64 = 4;
const CONTINUE_MODE_WP: u64 = 2;
const EVENT_PAGEFAULT: u8 = 0x12;
const FAULT_FLAG_WRITE: u64 = 1;
const FAULT_FLAG_WP: u64 = 2;
const USER_MODE_ONLY: i32 = 1;

const FEATURES: [(u64, &str); 8] = [
    (1, "write-protect faults"),
    (1 << 5, "missing faults on shared memory"),
    (1 << 8, "thread ids"),
    (1 << 10, "minor faults on shared memory"),
    (1 << 11, "exact addresses of faults"),
    (1 << 12, "write-protection of shared memory"),
    (1 << 13, "write-protection of unpopulated pages"),
    (1 << 14, "poison"),
];
const FEATURE_SIGBUS: u64 = 1 << 7;

/// How faults on a window reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The faulting thread sleeps; a handler thread reads the fault.
    Thread,
    /// The faulting thread gets SIGBUS and serves itself. System calls on unserved memory fail with EFAULT.
    Signal,
}

/// A fault as read from the descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The address touched.
    pub address: HostAddr,
    /// What the thread tried.
    pub access: Access,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Message {
    event: u8,
    reserved: [u8; 7],
    flags: u64,
    address: u64,
    thread: u32,
    padding: u32,
}

const _: () = assert!(size_of::<Message>() == 32);

/// What opening a range met.
pub(crate) enum Opened {
    /// All of it is mapped now.
    All,
    /// This many bytes were mapped; ask again for the rest.
    Part(u64),
    /// The first page of the range is mapped already.
    Occupied,
}

#[derive(Debug)]
pub(crate) struct Userfaultfd {
    fd: OwnedFd,
    /// Whether faults taken inside system calls are delivered, too.
    pub(crate) serves_system_calls: bool,
}

impl Userfaultfd {
    pub(crate) fn open(delivery: Delivery) -> Result<Self, OsError> {
        let (fd, serves_system_calls) = open_descriptor()?;
        let wanted = FEATURES.iter().fold(0, |all, (bit, _)| all | bit);
        let extra = if delivery == Delivery::Signal { FEATURE_SIGBUS } else { 0 };
        let mut api = [UFFD_API, wanted | extra, 0];
        // SAFETY: the structure has the layout of `uffdio_api`.
        if unsafe { libc::ioctl(fd.as_raw_fd(), IOC_API, api.as_mut_ptr()) } != 0 {
            return Err(missing_features(wanted));
        }
        Ok(Self { fd, serves_system_calls: serves_system_calls && delivery == Delivery::Thread })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Registers a range for all three kinds of fault.
    ///
    /// # Safety
    /// From now on threads that touch the range sleep until it is opened: whoever registers must serve it.
    pub(crate) unsafe fn register(&self, start: usize, len: usize) -> io::Result<()> {
        inject::fails(Call::Register)?;
        let modes = MODE_MISSING | MODE_WRITE_PROTECT | MODE_MINOR;
        let mut register = [start as u64, len as u64, modes, 0];
        // SAFETY: the structure has the layout of `uffdio_register`; the caller serves the faults.
        check(unsafe { libc::ioctl(self.raw(), IOC_REGISTER, register.as_mut_ptr()) })
    }

    pub(crate) fn unregister(&self, start: usize, len: usize) -> io::Result<()> {
        inject::fails(Call::Unregister)?;
        let mut range = Range { start: start as u64, len: len as u64 };
        // SAFETY: the structure has the layout of `uffdio_range`.
        check(unsafe { libc::ioctl(self.raw(), IOC_UNREGISTER, &raw mut range) })
    }

    pub(crate) fn wake(&self, start: usize, len: usize) -> io::Result<()> {
        let mut range = Range { start: start as u64, len: len as u64 };
        // SAFETY: the structure has the layout of `uffdio_range`.
        check(unsafe { libc::ioctl(self.raw(), IOC_WAKE, &raw mut range) })
    }

    /// Maps the file's pages in the range and wakes who waits for them.
    pub(crate) fn open_range(&self, start: usize, len: usize, access: Access) -> io::Result<Opened> {
        let mode = if access == Access::Read { CONTINUE_MODE_WP } else { 0 };
        let mut call = [start as u64, len as u64, mode, 0];
        // SAFETY: the structure has the layout of `uffdio_continue`.
        let result = unsafe { libc::ioctl(self.raw(), IOC_CONTINUE, call.as_mut_ptr()) };
        if result == 0 {
            return Ok(Opened::All);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The last field is the bytes mapped, or a negative errno if none were.
            Some(libc::EAGAIN) => Ok(Opened::Part(if call[3] <= len as u64 { call[3] } else { 0 })),
            Some(libc::EEXIST) => Ok(Opened::Occupied),
            _ => Err(error),
        }
    }

    /// Makes every touch of the range raise SIGBUS.
    pub(crate) fn poison(&self, start: usize, len: usize) -> io::Result<()> {
        inject::fails(Call::Poison)?;
        let mut call = [start as u64, len as u64, 0, 0];
        // SAFETY: the structure has the layout of `uffdio_poison`.
        check(unsafe { libc::ioctl(self.raw(), IOC_POISON, call.as_mut_ptr()) })
    }

    /// Reads what faults are pending, without waiting: as many as fit.
    pub(crate) fn read(&self, messages: &mut [Message]) -> usize {
        let bytes = size_of_val(messages);
        // SAFETY: the buffer is ours and holds `bytes` bytes; any contents are valid messages.
        let got = unsafe { libc::read(self.raw(), messages.as_mut_ptr().cast(), bytes) };
        usize::try_from(got).unwrap_or(0) / size_of::<Message>()
    }
}

impl Message {
    pub(crate) fn fault(&self) -> Option<Fault> {
        if self.event != EVENT_PAGEFAULT {
            return None;
        }
        let writes = self.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_WP) != 0;
        let access = if writes { Access::Write } else { Access::Read };
        Some(Fault { address: HostAddr(self.address), access })
    }
}

/// The descriptor, and whether it sees faults taken inside system calls.
fn open_descriptor() -> Result<(OwnedFd, bool), OsError> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let own = |fd: i64| match RawFd::try_from(fd) {
        // SAFETY: called with what the kernel has just made, which nobody else owns.
        Ok(fd) if fd >= 0 => Some(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => None,
    };
    if let Ok(device) = OpenOptions::new().read(true).write(true).open("/dev/userfaultfd") {
        // SAFETY: an ioctl without memory that makes a descriptor.
        if let Some(fd) = own(unsafe { libc::ioctl(device.as_raw_fd(), IOC_NEW, flags) }.into()) {
            return Ok((fd, true));
        }
    }
    // SAFETY: a system call without memory that makes a descriptor.
    if let Some(fd) = own(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) }) {
        return Ok((fd, true));
    }
    // SAFETY: as above.
    if let Some(fd) = own(unsafe { libc::syscall(libc::SYS_userfaultfd, flags | USER_MODE_ONLY) }) {
        return Ok((fd, false));
    }
    Err(OsError::NoUserfaultfd { source: io::Error::last_os_error() })
}

fn missing_features(wanted: u64) -> OsError {
    let mut api = [UFFD_API, 0, 0];
    if let Ok((fd, _)) = open_descriptor() {
        // SAFETY: the structure has the layout of `uffdio_api`.
        unsafe { libc::ioctl(fd.as_raw_fd(), IOC_API, api.as_mut_ptr()) };
    }
    let lacking = FEATURES.iter().filter(|(bit, _)| wanted & bit & !api[1] != 0).map(|(_, name)| *name);
    OsError::KernelTooOld { missing: lacking.collect::<Vec<_>>().join(", "), release: machine::kernel_release() }
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
