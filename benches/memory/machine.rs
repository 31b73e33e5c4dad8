//! The machine that the figures are of, in a few lines.

use std::fs;

use limosa::{Backing, Context, Machine};

/// CPU, memory, kernel, driver, pages, and how busy the machine is with other things.
pub(crate) fn line(context: &Context) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let (machine, adapter) = (Machine::probe(), context.adapter());
    let pages = match context.heap().backing() {
        Backing::Huge => "huge pages".into(),
        Backing::Small(reason) => format!("4 KiB pages: {reason}"),
    };
    format!(
        "machine: {} × {}, {:.0} GiB RAM, Linux {}, {} ({}), {pages}; load {}",
        machine.processors,
        model.unwrap_or(std::env::consts::ARCH),
        machine.memory_total as f64 / f64::from(1 << 30),
        machine.kernel,
        adapter.name,
        adapter.driver,
        load.split_whitespace().next().unwrap_or("unknown"),
    )
}
