//! `limosa doctor`: what this machine allows, and for each thing missing the reason and the remedy. It opens contexts
//! to find out, and changes nothing.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use limosa::{Adapter, Context, DeviceChoice, Error, Home, Instance, Machine, ViewKind};

use crate::error::{CliError, with_causes};
use crate::options;
use crate::progress::Spinner;

mod files;
mod remedy;
mod report;
mod text;

use files::FileReport;
use report::{
    Defaults, Device, HostEngine, HugePages, Limits, MachineFacts, NotBuilt, Problem, Report, Shim, Translation, View,
};

/// Looks, and writes the report. The exit status is 0 if a context can be opened, and each file that was named.
pub(crate) fn run(options: &options::Doctor, out: &mut impl Write) -> Result<ExitCode, CliError> {
    let report = {
        let _progress = Spinner::start("looking at devices and kernel");
        Report { files: examine_files(&options.files), ..examine() }
    };
    if options.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        text::write(&report, out)?;
    }
    let opened = report.files.iter().all(|file| file.facts.is_some());
    Ok(if report.usable && opened { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// On the device that a program would get.
fn examine_files(files: &[PathBuf]) -> Vec<FileReport> {
    let context = if files.is_empty() { None } else { Context::new().ok() };
    files::examine(context.as_ref(), files)
}

fn examine() -> Report {
    let machine = Machine::probe();
    let mut defaults = Defaults {
        // What `ContextBuilder` says of its defaults; those of a context that opened replace them.
        heap_bytes: limosa::HEAP_SIZE_DEFAULT,
        host_limit_bytes: machine.memory_total / 4 * 3,
        device_budget_bytes: machine.memory_total / 4,
        device_budget_min_bytes: limosa::DEVICE_BUDGET_MIN,
    };
    let (devices, device_problem) = match Instance::new().and_then(|instance| instance.adapters()) {
        Ok(adapters) => (adapters.into_iter().map(|adapter| examine_device(adapter, &mut defaults)).collect(), None),
        Err(error) => (Vec::new(), Some(problem(&error.into()))),
    };
    let devices: Vec<Device> = devices;
    let device_problem =
        device_problem.or_else(|| devices.is_empty().then(|| problem(&limosa::GpuError::NoDevice.into())));
    Report {
        limosa_version: env!("CARGO_PKG_VERSION"),
        usable: devices.iter().any(|device| device.usable),
        devices,
        device_problem,
        host_engine: HostEngine::of(&machine.faults),
        huge_pages: HugePages::of(&machine.backing),
        kernel_shim: Shim::of(machine.shim),
        machine: MachineFacts {
            kernel: machine.kernel,
            processors: machine.processors,
            memory_total_bytes: machine.memory_total,
            memory_available_bytes: machine.memory_available,
            max_map_count: machine.map_count_max,
            no_io_uring: machine.no_io_uring,
        },
        defaults,
        files: Vec::new(),
        not_built_yet: NotBuilt::ALL,
    }
}

/// Tries each view by itself.
fn examine_views(adapter: &Adapter) -> Vec<View> {
    let examine = |kind: ViewKind| {
        let opened = Context::builder().device(DeviceChoice::Index(adapter.index)).view(kind).build();
        let view = kind.to_string();
        match opened {
            Ok(context) => View {
                view,
                class: Some(format!("{:?}", context.device_class())),
                self_test: "passed",
                reason: None,
                no_shared_home: shared_home_problem(&context),
            },
            Err(error) => View {
                view,
                class: None,
                self_test: self_test_of(&error),
                reason: Some(with_causes(&error)),
                no_shared_home: None,
            },
        }
    };
    [ViewKind::Import, ViewKind::Sparse].into_iter().map(examine).collect()
}

fn shared_home_problem(context: &Context) -> Option<String> {
    let tried = context.heap().in_home(Home::Shared).allocate(1, 1);
    tried.err().map(|error| with_causes(&error))
}

fn self_test_of(error: &Error) -> &'static str {
    if matches!(error, Error::Pager(limosa::PagerError::SelfTest { .. })) { "failed" } else { "not_run" }
}

/// What a device can do is found out by opening a context with all defaults, as a program would.
fn examine_device(adapter: Adapter, defaults: &mut Defaults) -> Device {
    let opened = if adapter.missing.is_empty() {
        Context::builder().device(DeviceChoice::Index(adapter.index)).build()
    } else {
        let (device, missing) = (adapter.name.clone(), adapter.missing.clone());
        Err(limosa::GpuError::Unsuitable { device, missing }.into())
    };
    let views = if adapter.missing.is_empty() { examine_views(&adapter) } else { Vec::new() };
    let mut device = Device { views, ..Device::unexamined(adapter) };
    match opened {
        Ok(context) => {
            let heap = context.heap();
            defaults.heap_bytes = heap.range().len;
            defaults.device_budget_bytes = heap.device_budget();
            device.usable = true;
            device.class = Some(format!("{:?}", context.device_class()));
            device.view = Some(context.view().to_string());
            device.self_test = "passed";
            device.translation = Some(Translation::of(context.translation()));
        }
        Err(error) => {
            device.self_test = self_test_of(&error);
            device.problem = Some(problem(&error));
        }
    }
    device
}

fn problem(error: &Error) -> Problem {
    Problem { reason: with_causes(error), remedy: remedy::of(error).to_owned() }
}

impl Limits {
    fn of(limits: limosa::Limits) -> Self {
        Self {
            argument_bytes: limits.argument_bytes,
            segment_bytes: limits.segment_bytes,
            workgroups: limits.workgroups,
            workgroup_size: limits.workgroup_size,
            shared_bytes: limits.shared_bytes,
            import_alignment: limits.import_alignment,
            device_memory_bytes: limits.device_memory,
        }
    }
}
