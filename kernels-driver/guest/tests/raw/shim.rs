//! Files of /dev/limosaN and views, and their ioctls, one function each. A struct comes back with every error, too.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use super::memory::{self, checked};
use super::uapi;

/// An ioctl with the address of anything, or of nothing.
pub fn raw(fd: RawFd, command: u64, argument: usize) -> io::Result<i32> {
    // SAFETY: the module reads and writes only at the address that it is given, which the callers own or mean as bait.
    checked(unsafe { libc::ioctl(fd, command, argument) })
}

fn call<T>(fd: RawFd, command: u64, arguments: &mut T) -> io::Result<()> {
    raw(fd, command, std::ptr::from_mut(arguments).expose_provenance()).map(drop)
}

fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// An open device.
#[derive(Debug)]
pub struct Device {
    file: File,
    /// N of /dev/limosaN.
    pub index: usize,
}

/// The devices that there are, each opened once. The programs are for a guest that has some: none is an error.
pub fn devices() -> io::Result<Vec<Device>> {
    let mut found = Vec::new();
    for index in 0..8 {
        match Device::open(index) {
            Ok(device) => found.push(device),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is none: is the module loaded?"));
    }
    Ok(found)
}

impl Device {
    /// Opens /dev/limosaN.
    pub fn open(index: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(format!("/dev/limosa{index}"))?;
        Ok(Self { file, index })
    }

    /// LIMOSA_INFO.
    pub fn info(&self) -> io::Result<uapi::Info> {
        let mut arguments = uapi::Info { size: size::<uapi::Info>(), ..Default::default() };
        call(self.as_raw_fd(), uapi::INFO, &mut arguments).map(|()| arguments)
    }

    /// LIMOSA_LIMIT.
    pub fn limit(&self, bytes: u64) -> io::Result<()> {
        call(self.as_raw_fd(), uapi::LIMIT, &mut uapi::Limit { size: size::<uapi::Limit>(), flags: 0, bytes })
    }

    /// LIMOSA_MIGRATE.
    pub fn migrate(&self, addr: usize, len: usize, to: u32) -> (uapi::Migrate, io::Result<()>) {
        let (addr, len) = (addr as u64, len as u64);
        let mut arguments = uapi::Migrate { size: size::<uapi::Migrate>(), addr, len, to, ..Default::default() };
        let result = call(self.as_raw_fd(), uapi::MIGRATE, &mut arguments);
        (arguments, result)
    }

    /// LIMOSA_RESIDENCY, without the array.
    pub fn residency(&self, addr: usize, len: usize) -> (uapi::Residency, io::Result<()>) {
        let (addr, len) = (addr as u64, len as u64);
        let mut arguments = uapi::Residency { size: size::<uapi::Residency>(), addr, len, ..Default::default() };
        let result = call(self.as_raw_fd(), uapi::RESIDENCY, &mut arguments);
        (arguments, result)
    }

    /// LIMOSA_COUNTERS.
    pub fn counters(&self, scope: u32) -> io::Result<[u64; uapi::COUNTERS_TOLD]> {
        let mut arguments = uapi::Counters { size: size::<uapi::Counters>(), scope, ..Default::default() };
        call(self.as_raw_fd(), uapi::COUNTERS, &mut arguments).map(|()| uapi::counts(&arguments))
    }

    /// LIMOSA_PROBE, from the file.
    pub fn probe(&self, fd: RawFd) -> io::Result<uapi::Probe> {
        let mut arguments = uapi::Probe { size: size::<uapi::Probe>(), fd, ..Default::default() };
        call(self.as_raw_fd(), uapi::PROBE, &mut arguments).map(|()| arguments)
    }

    /// LIMOSA_VIEW: its file descriptor.
    pub fn view(&self, addr: usize, len: usize, policy: u32) -> io::Result<OwnedFd> {
        let (addr, len) = (addr as u64, len as u64);
        let mut arguments = uapi::View { size: size::<uapi::View>(), flags: 0, addr, len, policy, fd: -1 };
        call(self.as_raw_fd(), uapi::VIEW, &mut arguments)?;
        // SAFETY: the module has just made it, for us.
        Ok(unsafe { OwnedFd::from_raw_fd(arguments.fd) })
    }

    /// LIMOSA_POOL: its file descriptor.
    pub fn pool(&self, len: usize) -> io::Result<OwnedFd> {
        let mut arguments = uapi::Pool { size: size::<uapi::Pool>(), len: len as u64, fd: -1, ..Default::default() };
        call(self.as_raw_fd(), uapi::POOL, &mut arguments)?;
        // SAFETY: as above.
        Ok(unsafe { OwnedFd::from_raw_fd(arguments.fd) })
    }

    /// LIMOSA_LOAD.
    pub fn load(&self, addr: usize, len: usize, fd: RawFd, offset: u64) -> (uapi::Load, io::Result<()>) {
        let (addr, len) = (addr as u64, len as u64);
        let mut arguments = uapi::Load { size: size::<uapi::Load>(), addr, len, offset, fd, ..Default::default() };
        let result = call(self.as_raw_fd(), uapi::LOAD, &mut arguments);
        (arguments, result)
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// LIMOSA_POLICY.
pub fn policy(view: RawFd, addr: usize, len: usize, policy: u32) -> io::Result<()> {
    let (addr, len) = (addr as u64, len as u64);
    call(
        view,
        uapi::POLICY,
        &mut uapi::Policy { size: size::<uapi::Policy>(), addr, len, policy, ..Default::default() },
    )
}

/// A view that is mapped: `len` bytes at `at`, as the device sees those at `of`.
#[derive(Debug)]
pub struct Mapped {
    /// The view.
    pub fd: OwnedFd,
    /// The mirrored range.
    pub of: usize,
    /// The mapping.
    pub at: usize,
    /// The length of both.
    pub len: usize,
}

impl Mapped {
    /// A view of `len` bytes at `of`, mapped anywhere.
    pub fn new(device: &Device, of: usize, len: usize, policy: u32) -> io::Result<Self> {
        let fd = device.view(of, len, policy)?;
        let at = memory::map(0, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd.as_raw_fd())?;
        Ok(Self { fd, of, at, len })
    }

    /// What the device reads at `offset`.
    pub fn read(&self, offset: usize) -> u64 {
        assert!(offset < self.len);
        // SAFETY: within the mapping, which lives as long as `self`; what its range does not serve is the caller's doing.
        unsafe { memory::word(self.at + offset) }.load(Ordering::Relaxed)
    }

    /// Has the device write at `offset`.
    pub fn write(&self, offset: usize, value: u64) {
        assert!(offset < self.len);
        // SAFETY: as above.
        unsafe { memory::word(self.at + offset) }.store(value, Ordering::Relaxed);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = memory::unmap(self.at, self.len);
    }
}
