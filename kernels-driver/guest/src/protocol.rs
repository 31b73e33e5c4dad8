//! What host and guest say to each other: the plan that the host puts beside the tests, and the lines that go over the
//! channel. xtask takes this file as it is, so there is one description of both. It sends and reads nothing itself.

use serde::{Deserialize, Serialize};

/// The name of the virtio port that is the channel.
pub const CHANNEL: &str = "limosa.channel";
/// The serial numbers of the guest's disks, by which it finds them: their order is not stable.
pub const PAYLOAD_SERIAL: &str = "limosa-payload";
/// The disk that the guest swaps to.
pub const SWAP_SERIAL: &str = "limosa-swap";
/// The disk that tests may write to, beside the devices.
pub const DATA_SERIAL: &str = "limosa-data";
/// Its name for [`Ask::Unplug`] and [`Ask::Plug`]. Devices are `gpu0`, `gpu1` and so on, in their order on the bus.
pub const DATA: &str = "data";
/// The number of its name space, which no other disk's has: a trace does not tell controllers apart.
pub const DATA_SPACE: u32 = 1;
/// The number of other disks' name spaces.
pub const OTHER_SPACE: u32 = 2;
/// Where the payload is mounted in the guest, with its plan.
pub const PAYLOAD: &str = "/payload";
/// What a line begins with that is told though its test passed.
pub const FIGURE: &str = "figure: ";
/// The plan's name in the payload.
pub const PLAN: &str = "plan.json";

/// What the guest is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The machine's name. Tests that run on several find it in `LIMOSA_GUEST_MACHINE`.
    pub machine: String,
    /// The modules, in the order of loading.
    pub modules: Vec<Module>,
    /// The programs with tests, in their order.
    pub programs: Vec<Program>,
    /// Only tests whose full name contains one of these run; empty: all.
    pub filters: Vec<String>,
    /// A shell on the console instead of the tests.
    pub shell: bool,
    /// How many times slower than on a real processor this guest may be. Limits are multiplied by it already; tests
    /// find it in `LIMOSA_GUEST_FACTOR`.
    pub factor: u32,
}

/// A kernel module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name, as `rmmod` knows it.
    pub name: String,
    /// Its file in the payload.
    pub file: String,
    /// Its parameters, `name=value` each.
    pub parameters: Vec<String>,
}

/// A program with tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name: what its tests' names begin with.
    pub name: String,
    /// Its file in the payload.
    pub file: String,
    /// How it tells of its tests.
    pub kind: Kind,
    /// Arguments for it.
    pub arguments: Vec<String>,
    /// What each of its tests may take; for a TAP program all of them together. In seconds.
    pub limit: u64,
    /// The user and group that it runs as; root if none.
    pub user: Option<u32>,
    /// Of a TAP program: its tests that may skip, without the program's name. Another that does has failed.
    pub skips: Vec<String>,
}

/// How a program tells of its tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Rust's harness: each test runs in a process of its own.
    Libtest,
    /// One process that runs all and tells of each on standard output, as the kernel's selftests do.
    Tap,
    /// One process, one test: its exit status tells. 4 means skipped, as among the kernel's selftests.
    Plain,
}

/// A line from the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The first: the guest is up, with this kernel.
    Booted {
        /// As `uname -r` says.
        kernel: String,
    },
    /// A test begins, or something else that has a limit.
    Started {
        /// Its full name.
        test: String,
        /// What it may take, in seconds.
        limit: u64,
    },
    /// A test ended.
    Finished(Finished),
    /// A test asks the host for something. The answer is an [`Answer`] and, with it, bytes.
    Ask(Ask),
    /// The last: everything has run and the modules are unloaded.
    Done,
}

/// What became of a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Its full name: the program's and, where it has several, its own.
    pub test: String,
    /// Whether it passed.
    pub outcome: Outcome,
    /// What it took, in milliseconds; 0 where it is not known of the single test.
    pub milliseconds: u64,
    /// What it said, or of a long output the end. Of a test among others that passed only the lines that begin with
    /// [`FIGURE`].
    pub output: String,
}

/// Whether a test passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did.
    Passed,
    /// It did not, and why.
    Failed(String),
    /// It did not run, and why.
    Skipped(String),
}

/// What a test asks of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// Bytes of a device's memory, as the host sees them.
    Vram {
        /// The device, in its order on the bus.
        device: usize,
        /// From where on, in bytes.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
    /// What the disks' controllers are asked to do, and with which memory.
    Trace(Trace),
    /// Takes a device off the machine, as a user does who presses the button of its slot.
    Unplug(String),
    /// Puts a device back where it was.
    Plug(String),
    /// Has requests to the data disk wait, all but the first, or no longer.
    Hold(bool),
    /// Has the data disk fail to read or write what is behind so many bytes; none: no longer.
    Cut(Option<u64>),
}

/// What is to become of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trace {
    /// It begins.
    Begin,
    /// It goes on; the answer is the lines since it began.
    Look,
    /// It ends.
    End,
}

/// What the host answers: a line, and after it as many bytes as it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// So many bytes follow.
    Bytes(u64),
    /// It cannot, and why.
    Refused(String),
}
