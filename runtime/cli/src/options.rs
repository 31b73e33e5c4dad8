//! What the command line may say. Values are checked here as far as they can be without a device.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use limosa::{Context, DeviceChoice, FaultMode, Tier, ViewKind};

use crate::device::parse_choice;
use crate::error::CliError;
use crate::pagerank::Settings;
use crate::progress::Spinner;
use crate::units::parse_bytes;

/// What a context is opened with.
#[derive(Args)]
pub(crate) struct Opening {
    /// The device: its index, `best`, its kind (discrete, integrated, virtual, cpu) or a part of its name
    #[arg(long, value_name = "DEVICE", default_value = "best", value_parser = parse_choice)]
    pub(crate) device: DeviceChoice,
    /// The most bytes of device memory, like 512MiB [default: a quarter of the machine's RAM]
    #[arg(long, alias = "device-budget", value_name = "BYTES", value_parser = parse_bytes)]
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
}

impl Opening {
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
}

/// Options of `limosa demo`.
#[derive(Args)]
pub(crate) struct Demo {
    /// An edge list in SNAP's format (one `from to` a line) instead of the bundled Debian dependency graph
    #[arg(long, value_name = "FILE")]
    pub(crate) graph: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) opening: Opening,
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
    /// What the ranking is to do.
    pub(crate) fn settings(&self) -> Settings {
        Settings { damping: self.damping, residual_limit: self.residual, iteration_limit: self.iterations }
    }
}

/// Options of `limosa scan`.
#[derive(Args)]
pub(crate) struct Scan {
    /// Files, and directories to go through: hidden files, too; symbolic links in them are not followed
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Bytes that are compared as a whole: a power of two from 4KiB to 16MiB. The end of a file is a block, too
    #[arg(long, value_name = "BYTES", default_value = "64KiB", value_parser = parse_block)]
    pub(crate) block: u64,
    #[command(flatten)]
    pub(crate) opening: Opening,
    /// Windows of the files in memory at once: while the device goes over one, the others are read
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) depth: u8,
    /// The only way that the files' bytes may take [default: the best of those that serve]
    #[arg(long, value_enum)]
    pub(crate) tier: Option<OnlyTier>,
    /// How many of the largest duplicates are listed
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub(crate) top: usize,
    /// Stay on the file systems of the given paths
    #[arg(long)]
    pub(crate) one_file_system: bool,
    /// Have the CPU read all files anew, compute the same, and compare duplicates byte for byte
    #[arg(long)]
    pub(crate) verify: bool,
    /// Write the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
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

/// A way for bytes between a file and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnlyTier {
    /// From the drive to the device by DMA
    P2p,
    /// By direct I/O into memory that the GPU uses as it is
    Direct,
    /// By direct I/O into a ring, and copied from there
    Staged,
    /// Through the page cache
    Buffered,
}

impl From<OnlyTier> for Tier {
    fn from(tier: OnlyTier) -> Self {
        match tier {
            OnlyTier::P2p => Self::P2p,
            OnlyTier::Direct => Self::Direct,
            OnlyTier::Staged => Self::Staged,
            OnlyTier::Buffered => Self::Buffered,
        }
    }
}

fn parse_block(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    let possible = bytes.is_power_of_two() && (4 << 10..=16 << 20).contains(&bytes);
    if possible { Ok(bytes) } else { Err("expected a power of two from 4KiB to 16MiB".to_owned()) }
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
    fn blocks_are_powers_of_two_in_range() {
        assert_eq!((parse_block("4KiB"), parse_block("16MiB")), (Ok(4096), Ok(16 << 20)));
        for bad in ["2KiB", "32MiB", "96KiB", "0", "x"] {
            assert!(parse_block(bad).is_err(), "{bad}");
        }
    }

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
