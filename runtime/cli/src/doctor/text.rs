//! The report as people read it. It says nothing that the JSON form does not have.

use std::io::{self, Write};

use super::files::FileReport;
use super::report::{Device, Problem, Report, Shim, ShimOffer};
use crate::table::Table;
use crate::units::{bytes, count};

/// Writes the report.
pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "limosa {}: {}\n", report.limosa_version, verdict(report))?;
    if !report.files.is_empty() {
        // Who asks about files wants to read about files.
        return report.files.iter().try_for_each(|file| writeln!(out, "{}", file_table(file)));
    }
    if let Some(problem) = &report.device_problem {
        writeln!(out, "Devices: none\n{}", problem_lines(problem))?;
    }
    for device in &report.devices {
        writeln!(out, "{}", device_table(device))?;
        if let Some(problem) = &device.problem {
            writeln!(out, "{}", problem_lines(problem))?;
        }
    }
    writeln!(out, "{}", machine_table(report))?;
    for problem in [&report.host_engine.problem, &report.huge_pages.problem].into_iter().flatten() {
        writeln!(out, "{}", problem_lines(problem))?;
    }
    writeln!(out, "{}", shim_table(&report.kernel_shim))?;
    let of_devices = report.kernel_shim.devices.iter().filter_map(|device| device.problem.as_ref());
    for problem in report.kernel_shim.problem.iter().chain(of_devices) {
        writeln!(out, "{}", problem_lines(problem))?;
    }
    let mut table = Table::of_text("Not built yet");
    for part in report.not_built_yet {
        table.row(part.part, [part.meaning.to_owned()]);
    }
    write!(out, "{table}")
}

fn file_table(file: &FileReport) -> Table {
    let mut table = Table::of_text(format!("File {}", file.file.display()));
    if let Some(problem) = &file.problem {
        table.row("problem", [problem.clone()]);
    }
    if let Some(facts) = &file.facts {
        let size = facts.bytes.map_or_else(|| "of unknown length".to_owned(), bytes);
        let checksums = if facts.checksums { ", with checksums that the CPU computes" } else { "" };
        let disk = facts.disk.as_ref().map_or_else(|| "no disk".to_owned(), |disk| format!("disk {disk}"));
        let kind = facts.kind.replace('_', " ");
        table.row("file", [format!("{kind}, {size}, on {} ({disk}){checksums}", facts.file_system)]);
        let direct = match (&facts.direct_alignment, &facts.no_direct) {
            (Some([memory, offset]), _) => format!("memory by {memory} bytes, offsets and lengths by {offset}"),
            (None, why) => format!("none: {}", why.as_deref().unwrap_or("unknown")),
        };
        table.row("direct I/O", [direct]);
        if let Some(cached) = facts.cached_bytes.filter(|cached| *cached > 0) {
            let told = format!("{}; what it has wholly is read from there, if that is faster", bytes(cached));
            table.row("page cache", [told]);
        }
    }
    for (way, tiers) in [("read", &file.reading), ("write", &file.writing)] {
        let best = tiers.iter().position(|tier| tier.serves);
        for (place, tier) in tiers.iter().enumerate() {
            let tried =
                if tier.tried_bytes > 0 { format!(", tried with {}", bytes(tier.tried_bytes)) } else { String::new() };
            let serves = if Some(place) == best { "is taken" } else { "serves" };
            let told = tier.obstacle.as_ref().map_or_else(|| format!("{serves}{tried}"), |why| format!("no: {why}"));
            table.row(&format!("{way} {}", tier.tier), [told]);
        }
    }
    table
}

fn verdict(report: &Report) -> String {
    match report.devices.iter().filter(|device| device.usable).count() {
        0 => "no device of this machine can be used".to_owned(),
        1 => "a context can be opened, on one device".to_owned(),
        usable => format!("a context can be opened, on {usable} devices"),
    }
}

fn problem_lines(problem: &Problem) -> String {
    if problem.remedy.is_empty() {
        format!("  reason: {}\n", problem.reason)
    } else {
        format!("  reason: {}\n  remedy: {}\n", problem.reason, problem.remedy)
    }
}

fn device_table(device: &Device) -> Table {
    let mut table = Table::of_text(format!("Device {}: {}", device.index, device.name));
    table.row("kind", [device.kind.to_owned()]);
    table.row("driver", [format!("{}, Vulkan {}", device.driver, device.api)]);
    table.row("class", [device.class.clone().unwrap_or_else(|| "none".to_owned())]);
    table.row("view", [device.view.clone().unwrap_or_else(|| "none".to_owned())]);
    table.row("self-test", [device.self_test.replace('_', " ")]);
    for view in &device.views {
        let shared =
            view.no_shared_home.as_ref().map_or("shared homes".to_owned(), |why| format!("no shared homes: {why}"));
        let class = view.class.as_ref().map(|class| format!("class {class}, {shared}"));
        table.row(&view.view, [view.reason.clone().or(class).unwrap_or_default()]);
    }
    if let Some(translation) = &device.translation {
        table.row("translation", [format!("{} ({})", translation.kind, translation.delta)]);
    }
    if !device.missing.is_empty() {
        table.row("lacks", [device.missing.join(", ")]);
    }
    let limits = &device.limits;
    table.row("memory", [bytes(limits.device_memory_bytes)]);
    table.row("arguments", [bytes(limits.argument_bytes.into())]);
    let [x, y, z] = limits.workgroups.map(|groups| count(groups.into()));
    let size = count(limits.workgroup_size.into());
    table.row("workgroups", [format!("{x} × {y} × {z} of up to {size} invocations")]);
    table.row("shared memory", [bytes(limits.shared_bytes.into())]);
    let alignment = match limits.import_alignment {
        0 => "no import of host memory".to_owned(),
        alignment => format!("by {}, in segments of {}", bytes(alignment), bytes(limits.segment_bytes)),
    };
    table.row("import", [alignment]);
    table
}

fn shim_table(shim: &Shim) -> Table {
    let mut table = Table::of_text("Kernel shim");
    if shim.devices.is_empty() {
        table.row("devices", ["none: everything else works without".to_owned()]);
    }
    for device in &shim.devices {
        let offers = device.offers.as_ref().map_or_else(|| "cannot be used".to_owned(), offers);
        table.row(&device.path, [offers]);
    }
    table
}

fn offers(offer: &ShimOffer) -> String {
    let kind = |name: &str, all, free| format!("{} {name} ({} free)", bytes(all), bytes(free));
    let private = kind("private", offer.private_bytes, offer.private_free_bytes);
    let coherent = kind("coherent", offer.coherent_bytes, offer.coherent_free_bytes);
    let at_once = if offer.huge_bytes == 0 {
        "pages only".to_owned()
    } else {
        format!("up to {} at once", bytes(offer.huge_bytes))
    };
    let p2p = if offer.p2p_bytes == 0 { "not reached" } else { "reached" };
    let limit = bytes(offer.limit_bytes);
    format!("{private}, {coherent}; at most {limit} a file; moves {at_once}; {p2p} by other devices' DMA")
}

fn machine_table(report: &Report) -> Table {
    let (machine, defaults) = (&report.machine, &report.defaults);
    let mut table = Table::of_text("Machine");
    table.row("kernel", [machine.kernel.clone()]);
    table.row("processors", [machine.processors.to_string()]);
    let (total, available) = (bytes(machine.memory_total_bytes), bytes(machine.memory_available_bytes));
    table.row("RAM", [format!("{total}, {available} available")]);
    table.row("vm.max_map_count", [count(machine.max_map_count)]);
    let requests = machine.no_io_uring.as_ref();
    table.row(
        "files",
        [requests.map_or("streamed by io_uring".to_owned(), |why| format!("streamed by threads, slower: {why}"))],
    );
    table.row("host engine", [report.host_engine.kind.replace('_', " ")]);
    table.row("huge pages", [if report.huge_pages.available { "yes" } else { "no: 4 KiB pages" }.to_owned()]);
    table.row("heap", [format!("{} of addresses by default", bytes(defaults.heap_bytes))]);
    table.row("host frames", [format!("at most {} by default", bytes(defaults.host_limit_bytes))]);
    let (budget, least) = (bytes(defaults.device_budget_bytes), bytes(defaults.device_budget_min_bytes));
    table.row("device budget", [format!("{budget} by default, at least {least}")]);
    table
}
