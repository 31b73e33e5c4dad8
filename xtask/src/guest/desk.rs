//! What the host does for a test that asks: it looks into the memory of devices, traces the disks' controllers, and takes
//! devices off the machine and puts them back. It hears and says nothing itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::machine::{DATA_FILE, DATA_SIZE};
use super::monitor::Monitor;
use super::protocol::{Ask, DATA, Trace};

/// The most bytes that one request gets.
const LENGTH_MAX: u64 = 64 << 20;
/// What is traced: commands, of which name space they are, and where their data is.
const EVENTS: [&str; 5] =
    ["pci_nvme_io_cmd", "pci_nvme_admin_cmd", "pci_nvme_read", "pci_nvme_write", "pci_nvme_map_addr"];

/// A running machine, as far as its tests may ask for it.
pub(super) struct Desk {
    /// The memory of its devices.
    pub(super) vram: Vec<File>,
    /// Where QEMU's monitor listens.
    pub(super) monitor: PathBuf,
    /// Where QEMU writes what it traces, a line at a time.
    pub(super) trace: PathBuf,
    /// The devices that can be taken off, by name, as QEMU's `-device` has them.
    pub(super) pluggable: BTreeMap<String, String>,
    /// Where the trace that is wanted begins.
    pub(super) traced_from: AtomicU64,
    /// How many devices were put back.
    pub(super) plugged: AtomicU64,
}

impl Desk {
    /// What a test asks for, or why it cannot have it.
    pub(super) fn serve(&self, ask: &Ask) -> Result<Vec<u8>, String> {
        match ask {
            Ask::Vram { device, offset, length } => self.memory(*device, *offset, *length),
            Ask::Trace(trace) => self.trace(*trace),
            Ask::Unplug(device) => self.unplug(device).map(|()| Vec::new()),
            Ask::Plug(device) => self.plug(device).map(|()| Vec::new()),
            Ask::Hold(hold) => self.hold(*hold).map(|()| Vec::new()),
            Ask::Cut(behind) => self.cut(*behind).map(|()| Vec::new()),
        }
    }

    fn memory(&self, device: usize, offset: u64, length: u64) -> Result<Vec<u8>, String> {
        let file = self.vram.get(device).ok_or_else(|| format!("there is no device {device}"))?;
        read(file, offset, length)?
            .ok_or_else(|| format!("{length} bytes from {offset} on lie beyond device {device}'s memory"))
    }

    fn trace(&self, trace: Trace) -> Result<Vec<u8>, String> {
        let end = std::fs::metadata(&self.trace).map_err(|error| error.to_string())?.len();
        match trace {
            Trace::Begin => {
                self.traced_from.store(end, Ordering::Relaxed);
                self.set_trace(true)?;
            }
            Trace::End => self.set_trace(false)?,
            Trace::Look => {
                let from = self.traced_from.load(Ordering::Relaxed);
                let file = File::open(&self.trace).map_err(|error| error.to_string())?;
                return Ok(read(&file, from, end - from)?.unwrap_or_default());
            }
        }
        Ok(Vec::new())
    }

    fn set_trace(&self, enable: bool) -> Result<(), String> {
        let mut monitor = self.monitor()?;
        let set = |event| json!({"name": event, "enable": enable});
        EVENTS.iter().try_for_each(|event| monitor.execute("trace-event-set-state", set(event)).map(drop))
    }

    fn unplug(&self, device: &str) -> Result<(), String> {
        self.described(device)?;
        self.monitor()?.execute("device_del", json!({"id": device})).map(drop)
    }

    fn plug(&self, device: &str) -> Result<(), String> {
        let described = self.described(device)?;
        let mut monitor = self.monitor()?;
        if monitor.execute("qom-list", json!({"path": format!("/machine/peripheral/{device}")})).is_ok() {
            return Err(format!("{device} is still there"));
        }
        match device.strip_prefix("gpu").and_then(|number| number.parse().ok()) {
            None => monitor.type_in(&format!("device_add {described}")),
            Some(number) => {
                let again = self.memory_again(number, &mut monitor)?;
                let described = described.replace(&format!("memdev=vram{number}"), &format!("memdev={again}"));
                monitor.type_in(&format!("device_add {described}"))
            }
        }
    }

    /// The object of QEMU's for the memory of a device that is gone serves no second one, and its name is not to be had
    /// again: another for the same file, which has no name any more.
    fn memory_again(&self, number: usize, monitor: &mut Monitor) -> Result<String, String> {
        let file = self.vram.get(number).ok_or_else(|| format!("there is no device {number}"))?;
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let id = format!("vram{number}-{}", self.plugged.fetch_add(1, Ordering::Relaxed));
        let memory =
            json!({"qom-type": "memory-backend-file", "id": id, "mem-path": path, "size": size, "share": true});
        monitor.execute("object-add", memory)?;
        Ok(id)
    }

    /// One byte a second is nothing, but for what the disk gives in advance: a request.
    fn hold(&self, hold: bool) -> Result<(), String> {
        let limits = json!({
            "id": DATA, "bps": i32::from(hold), "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0
        });
        self.monitor()?.execute("block_set_io_throttle", limits).map(drop)
    }

    /// The guest's disk has its size, but QEMU finds an end before.
    fn cut(&self, behind: Option<u64>) -> Result<(), String> {
        let size = behind.unwrap_or(DATA_SIZE);
        let disk = json!({"driver": "raw", "node-name": DATA, "size": size, "file": DATA_FILE});
        self.monitor()?.execute("blockdev-reopen", json!({"options": [disk]})).map(drop)
    }

    fn described(&self, device: &str) -> Result<&str, String> {
        self.pluggable.get(device).map(String::as_str).ok_or_else(|| format!("there is no device `{device}`"))
    }

    fn monitor(&self) -> Result<Monitor, String> {
        Monitor::open(&self.monitor).map_err(|error| error.to_string())
    }
}

/// Bytes of a file; none, if it ends before.
fn read(file: &File, offset: u64, length: u64) -> Result<Option<Vec<u8>>, String> {
    if length > LENGTH_MAX {
        return Err(format!("{length} bytes are more than {LENGTH_MAX}, the most for one request"));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
    Ok(file.read_exact_at(&mut bytes, offset).is_ok().then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::TempDir;

    #[test]
    fn what_is_not_there_is_refused_and_a_trace_is_what_came_since_its_begin() {
        let temp = TempDir::new().unwrap();
        let path = |name: &str| temp.path().join(name);
        std::fs::write(path("vram"), b"0123456789").unwrap();
        std::fs::write(path("trace"), b"before\nafter\n").unwrap();
        let desk = Desk {
            vram: vec![File::open(path("vram")).unwrap()],
            monitor: path("monitor"),
            trace: path("trace"),
            pluggable: BTreeMap::new(),
            traced_from: AtomicU64::new(7),
            plugged: AtomicU64::new(0),
        };
        let memory = |device, offset, length| desk.serve(&Ask::Vram { device, offset, length });
        assert_eq!(memory(0, 7, 3).unwrap(), b"789");
        assert!(memory(0, 8, 3).unwrap_err().contains("beyond"));
        assert!(memory(1, 0, 1).unwrap_err().contains("no device 1"));
        assert!(memory(0, 0, LENGTH_MAX + 1).unwrap_err().contains("the most"));
        assert_eq!(desk.serve(&Ask::Trace(Trace::Look)).unwrap(), b"after\n");
        assert!(desk.serve(&Ask::Unplug("gpu7".to_owned())).unwrap_err().contains("`gpu7`"));
    }
}
