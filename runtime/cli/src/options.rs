//! What the command line may say. Values are checked here as far as they can be without a device.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use limosa::{Context, DeviceChoice, FaultMode, ViewKind};

use crate::device::parse_choice;
use crate::error::CliError;
use crate::pagerank::Settings;
use crate::progress::Spinner;
use crate::units::parse_bytes;

/// Options of `limosa demo`.
#[derive(Args)]
pub(crate) struct Demo {
    /// An edge list in SNAP's format (one `from to` a line) instead of the bundled Debian dependency graph
    #[arg(long, value_name = "FILE")]
    pub(crate) graph: Option<PathBuf>,
    /// The device: its index, `best`, its kind (discrete, integrated, virtual, cpu) or a part of its name
    #[arg(long, value_name = "DEVICE", default_value = "best", value_parser = parse_choice)]
    pub(crate) device: DeviceChoice,
    /// The most bytes of device memory, like 512MiB [default: a quarter of the machine's RAM]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) budget: Option<u64>,
    /// Who serves the faults of the CPU's threads
    #[arg(long, value_enum, default_value_t = Mode::Handler)]
    pub(crate) fault_mode: Mode,
    /// How the device reaches the heap [default: the best way that passes the self-test]
    #[arg(long, value_enum)]
    pub(crate) view: Option<View>,
    /// Check each GPU access against what its launch declared (slower)
    #[arg(long)]
    pub(crate) check: bool,
    /// The share of a rank that follows the edges
    #[arg(long, value_name = "SHARE", default_value = "0.85", value_parser = parse_damping)]
    pub(crate) damping: f32,
    /// Stop when the ranks move by this much in sum, or less
    #[arg(long, value_name = "SUM", default_value = "1e-6", value_parser = parse_residual)]
    pub(crate) residual: f64,
    /// Fail when the ranks still move after so many iterations
    #[arg(long, value_name = "COUNT", default_value_t = 500)]
    pub(crate) iterations: u32,
    /// The array that is moved to measure rates: so many bytes, or fewer if the budget is small; 0: none
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = parse_bytes)]
    pub(crate) transfer: u64,
    /// The file of the second part [default: the largest file of the Rust toolchain]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The most that is read of the file, from its start; 0 leaves the second part out
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = parse_bytes)]
    pub(crate) file_limit: u64,
}

impl Demo {
    /// Opens the context that was asked for.
    pub(crate) fn open(&self) -> Result<Context, CliError> {
        self.open_with(self.budget)
    }

    /// Opens a context with this device budget, whatever was asked for.
    pub(crate) fn open_with(&self, budget: Option<u64>) -> Result<Context, CliError> {
        let _progress = Spinner::start("opening the device");
        let builder = Context::builder().device(self.device.clone()).fault_mode(self.fault_mode.into());
        let builder = self.view.iter().fold(builder, |builder, view| builder.view((*view).into()));
        let builder = budget.iter().fold(builder.check(self.check), |builder, bytes| builder.device_budget(*bytes));
        builder.build().map_err(CliError::Open)
    }

    /// What the ranking is to do.
    pub(crate) fn settings(&self) -> Settings {
        Settings { damping: self.damping, residual_limit: self.residual, iteration_limit: self.iterations }
    }
}

/// Options of `limosa compile`.
#[derive(Args)]
pub(crate) struct Compile {
    /// The shader, in GLSL; `#include "limosa.glsl"` finds the one of this version
    #[arg(value_name = "SOURCE")]
    pub(crate) source: PathBuf,
    /// The module [default: beside the source, with the extension spv]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Options of `limosa doctor`.
#[derive(Args)]
pub(crate) struct Doctor {
    /// Say of these files which ways their data can take to the device and back, and why no better ones
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Write the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Who serves the faults of the CPU's threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// A handler thread: always correct
    Handler,
    /// The faulting thread itself, by SIGBUS: faster
    InThread,
}

impl From<Mode> for FaultMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Handler => Self::HandlerThread,
            Mode::InThread => Self::InThread,
        }
    }
}

/// How the device reaches the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum View {
    /// By an imported range, whose accesses fault: software devices
    Import,
    /// By sparse buffers, to which what launches declare is bound
    Sparse,
}

impl From<View> for ViewKind {
    fn from(view: View) -> Self {
        match view {
            View::Import => Self::Import,
            View::Sparse => Self::Sparse,
        }
    }
}

fn parse_damping(text: &str) -> Result<f32, String> {
    // At 1 the ranks need not converge.
    let share = text.parse().ok().filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to below 1".to_owned())
}

fn parse_residual(text: &str) -> Result<f64, String> {
    let sum = text.parse().ok().filter(|sum: &f64| sum.is_finite() && *sum > 0.0);
    sum.ok_or_else(|| "expected a number above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damping_and_residual_are_in_range() {
        assert_eq!(parse_damping("0.5"), Ok(0.5));
        assert_eq!(parse_residual("1e-4"), Ok(1e-4));
        for bad in ["1", "-0.1", "NaN", "x"] {
            assert!(parse_damping(bad).is_err(), "{bad}");
        }
        for bad in ["0", "-1", "inf", "NaN", ""] {
            assert!(parse_residual(bad).is_err(), "{bad}");
        }
    }
}
