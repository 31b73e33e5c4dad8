//! Everything that limosa asks of Linux, and all unsafe code that asking takes.
//!
//! Reservations of address space, memory files in huge pages, fault windows on userfaultfd, fault delivery by signal,
//! futexes, files and queues for them, the kernel module's client, device memory that others reach, and what
//! `limosa doctor` says about a machine. An errno becomes a meaning here
//! and goes no further up. The crate does *not* know block states, policies, or Vulkan.

pub mod copy;
mod error;
mod file;
pub mod futex;
pub mod inject;
pub mod machine;
mod mapping;
mod memfile;
pub mod pagemap;
mod peer_memory;
mod reservation;
mod ring;
pub mod shim;
pub mod signal;
#[cfg(test)]
mod skip;
mod staging;
mod uffd;
mod wakeup;
mod window;

pub use error::OsError;
pub use file::{
    BlockDevice, DataFile, DirectIo, FileError, FileErrorKind, FileFacts, FileKind, IoFailure, NoDirect, OpenHow,
};
pub use mapping::Mapping;
pub use memfile::{Backing, HugePages, MemoryFile};
pub use peer_memory::{PeerChoice, PeerMemory, PeerProvider, Published, published};
pub use reservation::Reservation;
pub use ring::{BufferId, Completion, FileSlot, QueueFull, Request, Ring, RingError, RingFile, RingKind, RingWaker};
pub use staging::Staging;
pub use uffd::{Delivery, Fault};
pub use wakeup::Wakeup;
pub use window::FaultWindow;
