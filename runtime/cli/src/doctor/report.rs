//! What doctor found, in the form of its JSON: names of fields are names of keys, and stay. Keys may be added.

use limosa::{Adapter, Backing, DeviceMemory, Faults, KernelShim, OsError};
use serde::Serialize;

use super::files::FileReport;

use crate::device::kind_word;
use crate::error::with_causes;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) limosa_version: &'static str,
    /// Whether a context can be opened on some device.
    pub(super) usable: bool,
    pub(super) devices: Vec<Device>,
    /// Why there are no devices.
    pub(super) device_problem: Option<Problem>,
    pub(super) host_engine: HostEngine,
    pub(super) huge_pages: HugePages,
    pub(super) kernel_shim: Shim,
    pub(super) machine: MachineFacts,
    pub(super) defaults: Defaults,
    /// Those that were named.
    pub(super) files: Vec<FileReport>,
    pub(super) not_built_yet: &'static [NotBuilt],
}

/// A thing missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    pub(super) reason: String,
    pub(super) remedy: String,
}

/// A Vulkan device.
#[derive(Debug, Serialize)]
pub(super) struct Device {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) driver: String,
    pub(super) api: String,
    pub(super) limits: Limits,
    /// Each way in which a device can reach a heap, tried.
    pub(super) views: Vec<View>,
    /// What limosa needs and the driver lacks.
    pub(super) missing: Vec<String>,
    pub(super) usable: bool,
    pub(super) class: Option<String>,
    pub(super) view: Option<String>,
    /// `passed`, `failed` or `not_run`.
    pub(super) self_test: &'static str,
    pub(super) translation: Option<Translation>,
    pub(super) problem: Option<Problem>,
}

/// A way in which the device can reach a heap.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) view: String,
    /// The class that a context has by it.
    pub(super) class: Option<String>,
    /// `passed`, `failed` or `not_run`.
    pub(super) self_test: &'static str,
    /// Why not.
    pub(super) reason: Option<String>,
    /// Why there are no shared homes, if so.
    pub(super) no_shared_home: Option<String>,
}

/// See `limosa::Limits`.
#[derive(Debug, Serialize)]
pub(super) struct Limits {
    pub(super) argument_bytes: u32,
    pub(super) segment_bytes: u64,
    pub(super) workgroups: [u32; 3],
    pub(super) workgroup_size: u32,
    pub(super) shared_bytes: u32,
    pub(super) import_alignment: u64,
    pub(super) device_memory_bytes: u64,
}

/// How kernels turn the CPU's pointers into theirs.
#[derive(Debug, Serialize)]
pub(super) struct Translation {
    /// `identity`, `delta` or `table`.
    pub(super) kind: &'static str,
    /// What is added, modulo 2⁶⁴, as a hexadecimal number; of a table, its address.
    pub(super) delta: String,
}

/// How faults of the CPU are caught.
#[derive(Debug, Serialize)]
pub(super) struct HostEngine {
    /// `userfaultfd`, `userfaultfd_user_mode_only` or `none`.
    pub(super) kind: &'static str,
    pub(super) problem: Option<Problem>,
}

/// The pages that heaps get.
#[derive(Debug, Serialize)]
pub(super) struct HugePages {
    pub(super) available: bool,
    pub(super) problem: Option<Problem>,
}

/// The kernel module.
#[derive(Debug, Serialize)]
pub(super) struct Shim {
    pub(super) devices: Vec<ShimDevice>,
    /// Why there are none.
    pub(super) problem: Option<Problem>,
}

/// A device of the kernel module's.
#[derive(Debug, Serialize)]
pub(super) struct ShimDevice {
    pub(super) path: String,
    /// What it offers, if it can be used.
    pub(super) offers: Option<ShimOffer>,
    pub(super) problem: Option<Problem>,
}

/// Bytes of each kind of device memory, of what other devices reach, and of what is moved as one (0: pages only).
#[derive(Debug, Serialize)]
pub(super) struct ShimOffer {
    pub(super) private_bytes: u64,
    pub(super) private_free_bytes: u64,
    pub(super) coherent_bytes: u64,
    pub(super) coherent_free_bytes: u64,
    pub(super) p2p_bytes: u64,
    pub(super) limit_bytes: u64,
    pub(super) huge_bytes: u64,
}

/// The machine itself.
#[derive(Debug, Serialize)]
pub(super) struct MachineFacts {
    pub(super) kernel: String,
    pub(super) processors: usize,
    pub(super) memory_total_bytes: u64,
    pub(super) memory_available_bytes: u64,
    pub(super) max_map_count: u64,
    /// Why files are streamed by threads, and not by io_uring.
    pub(super) no_io_uring: Option<String>,
}

/// What a context gets that asks for nothing.
#[derive(Debug, Serialize)]
pub(super) struct Defaults {
    pub(super) heap_bytes: u64,
    pub(super) host_limit_bytes: u64,
    pub(super) device_budget_bytes: u64,
    pub(super) device_budget_min_bytes: u64,
}

/// A part of limosa that is still to come.
#[derive(Debug, Serialize)]
pub(super) struct NotBuilt {
    pub(super) part: &'static str,
    pub(super) meaning: &'static str,
}

impl NotBuilt {
    pub(super) const ALL: &[Self] = &[
        Self { part: "streaming", meaning: "file data straight into unified memory" },
        Self {
            part: "shim",
            meaning: "contexts on the kernel module: any malloc'ed pointer, on the kernel's own page tables",
        },
        Self { part: "p2p", meaning: "DMA from NVMe to device memory without a copy in RAM" },
    ];
}

impl Device {
    /// A device of which only Vulkan's own word is known.
    pub(super) fn unexamined(adapter: Adapter) -> Self {
        Self {
            index: adapter.index,
            name: adapter.name,
            kind: kind_word(adapter.kind),
            driver: adapter.driver.trim_end().to_owned(),
            api: adapter.api,
            limits: Limits::of(adapter.limits),
            views: Vec::new(),
            missing: adapter.missing,
            usable: false,
            class: None,
            view: None,
            self_test: "not_run",
            translation: None,
            problem: None,
        }
    }
}

impl Translation {
    pub(super) fn of(translation: limosa::Translation) -> Self {
        match translation {
            limosa::Translation::Identity => Self { kind: "identity", delta: "0x0".into() },
            limosa::Translation::Delta(delta) => Self { kind: "delta", delta: format!("{delta:#x}") },
            limosa::Translation::Table(address) => Self { kind: "table", delta: format!("{:#x}", address.0) },
        }
    }
}

impl HostEngine {
    pub(super) fn of(faults: &Faults) -> Self {
        match faults {
            Faults::Full => Self { kind: "userfaultfd", problem: None },
            Faults::UserModeOnly(text) => {
                Self { kind: "userfaultfd_user_mode_only", problem: Some(Problem::split(text)) }
            }
            Faults::None(error) => {
                let remedy = super::remedy::of_os(error).to_owned();
                Self { kind: "none", problem: Some(Problem { reason: with_causes(error), remedy }) }
            }
        }
    }
}

impl HugePages {
    pub(super) fn of(backing: &Result<Backing, OsError>) -> Self {
        let problem = match backing {
            Ok(Backing::Huge) => None,
            Ok(Backing::Small(text)) => Some(Problem::split(text)),
            Err(error) => {
                let remedy = super::remedy::of_os(error).to_owned();
                Some(Problem { reason: with_causes(error), remedy })
            }
        };
        Self { available: problem.is_none(), problem }
    }
}

impl Shim {
    pub(super) fn of(shim: KernelShim) -> Self {
        match shim {
            KernelShim::Devices(devices) => {
                Self { devices: devices.into_iter().map(ShimDevice::of).collect(), problem: None }
            }
            KernelShim::None(text) => Self { devices: Vec::new(), problem: Some(Problem::split(&text)) },
        }
    }
}

impl ShimDevice {
    fn of(device: limosa::ShimDevice) -> Self {
        let path = format!("/dev/limosa{}", device.number);
        match device.offers {
            Ok(limosa::ShimInfo {
                huge_size,
                private: DeviceMemory { bytes: private_bytes, free: private_free_bytes },
                coherent: DeviceMemory { bytes: coherent_bytes, free: coherent_free_bytes },
                p2p_bytes,
                limit: limit_bytes,
                ..
            }) => {
                let huge_bytes = huge_size.unwrap_or(0);
                let offers = ShimOffer {
                    private_bytes,
                    private_free_bytes,
                    coherent_bytes,
                    coherent_free_bytes,
                    p2p_bytes,
                    limit_bytes,
                    huge_bytes,
                };
                Self { path, offers: Some(offers), problem: None }
            }
            Err(error) => {
                let remedy = super::remedy::of_shim(&error).to_owned();
                Self { path, offers: None, problem: Some(Problem { reason: with_causes(&error), remedy }) }
            }
        }
    }
}

impl Problem {
    /// From the library's text, which has the remedy at its end.
    fn split(text: &str) -> Self {
        let (reason, remedy) = text.split_once("; remedy: ").unwrap_or((text, ""));
        Self { reason: reason.to_owned(), remedy: remedy.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_the_shim_say_what_they_offer_or_why_not() {
        let info = limosa::ShimInfo {
            page_size: 4096,
            huge_size: Some(2 << 20),
            private: DeviceMemory { bytes: 512, free: 256 },
            coherent: DeviceMemory { bytes: 0, free: 0 },
            limit: 128,
            used: 0,
            p2p_bytes: 512,
            published_bytes: 0,
        };
        let path = "/dev/limosa1".into();
        let offers = [Ok(info), Err(limosa::ShimError::Forbidden { path })];
        let devices = (0..).zip(offers).map(|(number, offers)| limosa::ShimDevice { number, offers });
        let shim = Shim::of(KernelShim::Devices(devices.collect()));
        let offer = shim.devices[0].offers.as_ref().unwrap();
        assert_eq!((offer.private_bytes, offer.private_free_bytes, offer.huge_bytes), (512, 256, 2 << 20));
        let problem = shim.devices[1].problem.as_ref().unwrap();
        assert!(problem.reason.contains("/dev/limosa1") && problem.remedy.contains("access"), "{problem:?}");
        let none = Shim::of(KernelShim::None("it is not there; remedy: load it".into()));
        assert_eq!(none.problem.unwrap().remedy, "load it");
    }

    #[test]
    fn remedies_are_split_from_reasons() {
        let engine = HostEngine::of(&Faults::UserModeOnly("it fails; remedy: do this".into()));
        assert_eq!(engine.problem, Some(Problem { reason: "it fails".into(), remedy: "do this".into() }));
        let pages = HugePages::of(&Ok(Backing::Small("small; remedy: that".into())));
        assert!(!pages.available && pages.problem.is_some_and(|problem| problem.remedy == "that"));
        assert_eq!(Problem::split("odd"), Problem { reason: "odd".into(), remedy: String::new() });
    }

    #[test]
    fn every_key_of_the_machine_is_named_as_promised() {
        let machine = MachineFacts {
            kernel: "6.6.0".into(),
            processors: 2,
            memory_total_bytes: 1,
            memory_available_bytes: 1,
            max_map_count: 65_530,
            no_io_uring: None,
        };
        let json = serde_json::to_value(machine).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        let promised =
            ["kernel", "max_map_count", "memory_available_bytes", "memory_total_bytes", "no_io_uring", "processors"];
        assert_eq!(keys, promised);
    }
}
