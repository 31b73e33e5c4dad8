//! The machine and the versions that the figures are of.

use std::fs;
use std::process::Command;

use limosa::{Backing, Context};
use serde_json::{Value, json};

/// What figures depend on, as it was before the first of them.
pub(crate) struct Machine {
    processors: usize,
    processor: String,
    memory_bytes: u64,
    kernel: String,
    device: String,
    driver: String,
    pages: String,
    /// How busy the machine was with other things.
    load: String,
    /// Of the sources that this was built from, if git is there and knows.
    commit: Option<String>,
}

impl Machine {
    /// Looks.
    pub(crate) fn probe(context: &Context) -> Self {
        let machine = limosa::Machine::probe();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            processors: machine.processors,
            processor: processor.unwrap_or(std::env::consts::ARCH).to_owned(),
            memory_bytes: machine.memory_total,
            kernel: machine.kernel,
            device: context.adapter().name.clone(),
            driver: context.adapter().driver.clone(),
            pages: match context.heap().backing() {
                Backing::Huge => "huge pages".into(),
                Backing::Small(reason) => format!("4 KiB pages: {reason}"),
            },
            load: load.split_whitespace().next().unwrap_or("unknown").to_owned(),
            commit: commit(),
        }
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "machine: {} × {}, {:.0} GiB RAM, Linux {}, {} ({}), {}; load {}; limosa {} {}",
            self.processors,
            self.processor,
            self.memory_bytes as f64 / f64::from(1 << 30),
            self.kernel,
            self.device,
            self.driver,
            self.pages,
            self.load,
            env!("CARGO_PKG_VERSION"),
            self.commit.as_deref().unwrap_or("of no known commit"),
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "processors": self.processors,
            "processor": self.processor,
            "memory_bytes": self.memory_bytes,
            "kernel": self.kernel,
            "device": self.device,
            "driver": self.driver,
            "pages": self.pages,
            "load": self.load,
            "limosa": env!("CARGO_PKG_VERSION"),
            "commit": self.commit,
        })
    }
}

fn commit() -> Option<String> {
    let describe = ["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12"];
    let output = Command::new("git").args(describe).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
