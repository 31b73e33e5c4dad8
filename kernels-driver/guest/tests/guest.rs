//! The guest itself: that tests run in it as they are meant to, and see what they are to test.

#![allow(clippy::unwrap_used)] // tests

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use std::process::Command;
use std::time::{Duration, Instant};

use limosa_guest::device::Device;
use limosa_guest::protocol::{DATA, DATA_SERIAL};
use limosa_guest::trace::{Tally, tally};
use limosa_guest::{device, host};

#[test]
fn tests_run_as_root_on_a_kernel_of_7_x() {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(kernel.starts_with("7."), "{kernel}");
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
}

#[test]
fn there_are_devices_with_memory() {
    let devices = device::list().unwrap();
    assert!(!devices.is_empty());
    assert!(devices.iter().all(|device| device.size >= 64 << 20), "{devices:?}");
}

#[test]
fn what_is_written_to_a_device_is_in_the_hosts_file() {
    for (number, device) in device::list().unwrap().iter().enumerate() {
        // Only a device without a driver is mapped so.
        let driver = device.driver().inspect(|_| device.unbind().unwrap());
        let last = device.size - 4096;
        let pattern = 0x5a00 + u64::try_from(number).unwrap();
        write_bar(device, last, pattern);
        let bytes = host::vram(number, last, 4096).unwrap();
        assert_eq!(bytes[..8], pattern.to_ne_bytes(), "device {number}");
        if let Some(driver) = driver {
            device.bind(&driver).unwrap();
        }
    }
    let error = host::vram(0, u64::MAX - 1, 4096).unwrap_err();
    assert!(error.to_string().contains("beyond"), "{error}");
}

/// Writes a word into the page at `offset` of a device's memory.
fn write_bar(device: &device::Device, offset: u64, word: u64) {
    let bar = OpenOptions::new().read(true).write(true).open(device.sysfs().join("resource2")).unwrap();
    let (rights, offset) = (libc::PROT_READ | libc::PROT_WRITE, i64::try_from(offset).unwrap());
    // SAFETY: a new mapping, which is written within its length and unmapped; nobody else drives the device.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, rights, libc::MAP_SHARED, bar.as_raw_fd(), offset);
        assert_ne!(page, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        page.cast::<u64>().write_volatile(word);
        assert_eq!(libc::munmap(page, 4096), 0);
    }
}

#[test]
fn there_is_swap_and_a_disk() {
    let swaps = fs::read_to_string("/proc/swaps").unwrap();
    assert_eq!(swaps.lines().count(), 2, "{swaps}");
    let disk = OpenOptions::new().read(true).write(true).open("/run/limosa-data").unwrap();
    disk.write_all_at(&[7; 4096], 1 << 20).unwrap();
}

/// Memory of whole pages in a place that does not move.
struct Pages(*mut libc::c_void, usize);

impl Pages {
    fn new(bytes: usize) -> Self {
        let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, rights, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        Self(at, bytes)
    }

    fn read(&self, disk: &fs::File) -> std::io::Result<usize> {
        // SAFETY: memory of our own, which nobody refers to.
        let got = unsafe { libc::pread(disk.as_raw_fd(), self.0, self.1, 0) };
        usize::try_from(got).map_err(|_| std::io::Error::last_os_error())
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not in a minute: {what}");
        std::thread::yield_now();
    }
}

fn direct(disk: &std::path::Path) -> fs::File {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(disk).unwrap()
}

#[test]
fn what_the_disk_does_is_traced() {
    let disk = direct(&device::disk(DATA_SERIAL).unwrap().unwrap());
    let memory = Pages::new(1 << 20);
    assert_eq!(memory.read(&disk).unwrap(), 1 << 20);
    let tracing = host::Tracing::new().unwrap();
    assert_eq!(tracing.commands().unwrap(), []);
    assert_eq!(memory.read(&disk).unwrap(), 1 << 20);
    let commands = tracing.commands().unwrap();
    assert_eq!(commands.iter().map(|command| command.bytes).sum::<u64>(), 1 << 20, "{commands:?}");
    let bar = device::list().unwrap()[0].memory();
    assert_eq!(tally(&commands, &bar), Tally { inside: 0, outside: 1 << 20 });
    drop(tracing);
    let tracing = host::Tracing::new().unwrap();
    // Other disks are others.
    fs::read(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(tracing.commands().unwrap(), []);
}

#[test]
fn requests_wait_while_the_disk_is_held() {
    let disk = direct(&device::disk(DATA_SERIAL).unwrap().unwrap());
    let tracing = host::Tracing::new().unwrap();
    let hold = host::Hold::new().unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| Pages::new(4 << 20).read(&disk).unwrap());
        until("requests are there", || tracing.commands().unwrap().len() > 2);
        assert!(!reader.is_finished());
        drop(hold);
        assert_eq!(reader.join().unwrap(), 4 << 20);
    });
}

#[test]
fn a_disk_and_a_device_go_and_come_back() {
    let last = device::list().unwrap().len() - 1;
    let gpu = format!("gpu{last}");
    let before: Vec<Device> = device::list().unwrap();
    host::unplug(DATA).unwrap();
    until("the disk is gone", || device::disk(DATA_SERIAL).unwrap().is_none());
    until("the disk is back", || host::plug(DATA).is_ok());
    until("the disk works", || device::disk(DATA_SERIAL).unwrap().is_some_and(|path| fs::File::open(path).is_ok()));
    host::unplug(&gpu).unwrap();
    until("the device is gone", || device::list().unwrap().len() == last);
    until("the device is back", || host::plug(&gpu).is_ok());
    until("the device is as before", || device::list().unwrap() == before);
    assert!(host::unplug("gpu9").is_err());
}

#[test]
fn the_kernels_modules_are_there() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if !std::path::Path::new("/lib/modules").join(release.trim()).exists() {
        // Another kernel than Debian's.
        return;
    }
    let modules =
        ["xfs", "btrfs", "dm-mod", "dm-flakey", "dm-crypt", "loop", "nvmet", "nvme-loop", "nvmet-tcp", "nvme-tcp"];
    for name in modules {
        assert!(Command::new("modprobe").arg(name).status().unwrap().success(), "{name}");
    }
}
