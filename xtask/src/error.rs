//! What can go wrong in xtask, each with what it went wrong on and what to do. It formats nothing for a terminal and
//! chooses only the exit status.

use std::io;

use thiserror::Error;

/// An error of a verb of xtask.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The command line is not understood.
    #[error("{0}\n{usage}", usage = crate::USAGE)]
    Usage(String),
    /// A file or a program of the machine cannot be used.
    #[error("{what}: {cause}")]
    Io { what: String, cause: io::Error },
    /// A command ran and failed; its own output stands above.
    #[error("`{command}` failed ({outcome})")]
    Command { command: String, outcome: String, code: Option<u8> },
    /// A command's output is not what it should be.
    #[error("cannot make sense of {what}: {detail}")]
    Output { what: String, detail: String },
    /// Set-up knows only Debian's packages.
    #[error(
        "this machine is not a Debian system ({found}), and set-up knows only Debian's packages. Install these by \
         your distribution's means: Mesa 24 or newer with lavapipe (the software Vulkan driver), the Vulkan loader \
         (libvulkan.so.1); for the tests also glslangValidator, spirv-val and the Vulkan validation layers. Then run \
         `cargo run --release -p limosa-cli --bin limosa -- demo`, or `cargo test --workspace --features inject`"
    )]
    NotDebian { found: String },
    /// Before Debian 12 nothing fits, the kernel included.
    #[error("this is Debian {found}; limosa needs Debian 12 or newer (Mesa 24, Linux 6.6)")]
    DebianTooOld { found: u32 },
    /// `--no-install`, and something is missing.
    #[error(
        "this is missing, and --no-install forbids installing it:\n{what}To install it, run `cargo xtask setup`, or as root:\n{commands}"
    )]
    NotInstalled { what: String, commands: String },
    /// Neither root nor sudo.
    #[error("installing packages takes root, and there is no sudo here. Run as root:\n{commands}")]
    NoPrivilege { commands: String },
    /// There is no archive from which a backports address could be taken.
    #[error(
        "apt's configuration names no Debian archive for {codename} (main), so there is no address to take \
         {suite} from. Add one to /etc/apt/sources.list.d and run this again"
    )]
    NoArchive { codename: String, suite: String },
    /// apt-get was content and the packages are still not there.
    #[error("apt-get reported success, but this is still missing:\n{what}`apt-cache policy` shows what apt can see")]
    StillMissing { what: String },
    /// The rules of the workspace are broken.
    #[error("{} rule(s) of the workspace broken:\n{}", .0.len(), .0.join("\n"))]
    Rules(Vec<String>),
    /// The package lists that the graph is made from are not there.
    #[error("{0}")]
    NoLists(String),
    /// The graph cannot be written or does not read back.
    #[error("the graph: {0}")]
    Graph(#[from] crate::graph_codec::CodecError),
    /// The guest of the kernel shim's tests cannot be made, or what ran in it failed.
    #[error("the guest: {0}")]
    Guest(String),
    /// A step of the test failed; the summary names it.
    #[error("step \"{step}\" failed: {cause}")]
    Step { step: &'static str, cause: Box<Error> },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |cause| Self::Io { what, cause }
    }

    /// A command's own exit status is passed through, so that `cargo xtask demo` answers as `limosa demo` would.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Command { code: Some(code), .. } => *code,
            _ => 1,
        }
    }
}
