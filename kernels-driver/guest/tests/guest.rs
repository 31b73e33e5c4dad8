//! The guest itself: that tests run in it as they are meant to, and see what they are to test.

#![allow(clippy::unwrap_used)] // tests

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

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
