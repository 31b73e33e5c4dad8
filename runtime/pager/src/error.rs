//! What can go wrong above the system calls: errors of heaps and launches.

use std::fmt;
use std::path::PathBuf;

use limosa_gpu::GpuError;
use limosa_model::{Access, HostAddr};
use limosa_os::FileError;
use limosa_os::{OsError, RingError};

use crate::stream::Tier;
use crate::whereabouts::Whereabouts;

/// A failure of a heap operation.
#[derive(Debug, thiserror::Error)]
pub enum PagerError {
    /// The operating system.
    #[error(transparent)]
    Os(#[from] OsError),
    /// The device or its driver.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The heap has no room.
    #[error(
        "the heap of {heap} bytes has no room for {asked} bytes (longest free stretch: {largest}): open a larger \
         heap; address space costs nothing"
    )]
    HeapFull {
        /// Size of the heap in bytes.
        heap: u64,
        /// Bytes asked for, rounded up.
        asked: u64,
        /// The longest free stretch in bytes.
        largest: u64,
    },
    /// An alignment that cannot be had.
    #[error("alignment of {0} bytes: it must be a power of two of at most 2 MiB")]
    Alignment(u64),
    /// The device budget is too small to work with.
    #[error("a device budget of {given} bytes: the minimum is {minimum}")]
    BudgetTooSmall {
        /// Bytes given.
        given: u64,
        /// Bytes needed.
        minimum: u64,
    },
    /// VRAM is full.
    #[error(
        "device memory is full: the budget is {budget} bytes, all of it in use; raise the budget, or bring data \
         back with prefetch_to_host, or free it"
    )]
    DeviceMemoryFull {
        /// The budget in bytes.
        budget: u64,
    },
    /// VRAM is full of blocks that are under a move: it can be tried again at once. Never leaves the pager.
    #[error("device memory is full of blocks under a move")]
    DeviceMemoryBusy,
    /// The room that an allocation may have on the device is full of blocks that launches in flight hold.
    #[error(
        "{allocation} may have {limit} bytes on the device, and launches in flight hold them: wait for these, or allocate \
         it with a larger device limit"
    )]
    DeviceLimitFull {
        /// What the allocation is called.
        allocation: String,
        /// Its limit in bytes: whole blocks.
        limit: u64,
    },
    /// More of an allocation is to be on the device than its limit allows.
    #[error(
        "{what}: {asked} bytes of {allocation} are to be on the device at a time, its limit is {limit}: ask for less at a \
         time, or allocate it with a larger device limit"
    )]
    OverDeviceLimit {
        /// Who asks: a kernel, or a prefetch.
        what: String,
        /// What the allocation is called.
        allocation: String,
        /// Bytes of its blocks that are asked for.
        asked: u64,
        /// Its limit in bytes: whole blocks.
        limit: u64,
    },
    /// Memory of a shared home cannot be had.
    #[error("{device} has no memory that both sides can see at one address: {reason}; let it migrate instead")]
    NoSharedHome {
        /// The device's name.
        device: String,
        /// Why.
        reason: String,
    },
    /// Device memory lies in more pieces than the driver can map.
    #[error(
        "device memory would lie in {needed} pieces, but the driver can map {limit}: declare larger ranges at a time, or \
         raise vm.max_map_count"
    )]
    TooManyBindings {
        /// Pieces there would be.
        needed: u64,
        /// Pieces there may be.
        limit: u64,
    },
    /// Blocks that must have device memory have none.
    #[error(
        "the block at heap offset {offset:#x} has no device memory though it must: nothing was copied there; this is a \
         defect of limosa's, please report it"
    )]
    NoFrame {
        /// Where the block begins, from the heap's start.
        offset: u64,
    },
    /// The device cannot back a heap.
    #[error("{device} cannot back a unified heap: {reason}")]
    NoView {
        /// The device's name.
        device: String,
        /// Why.
        reason: String,
    },
    /// The start-up self-test read something else than was written.
    #[error("self-test on {device} failed: {reason}; this driver cannot be trusted with unified memory")]
    SelfTest {
        /// The device's name.
        device: String,
        /// What was seen.
        reason: String,
    },
    /// A range of which the only copy was lost.
    #[error(
        "{len} bytes at {start:#x} are lost with the device{}; `repair` makes them usable again, as zeros", told(place.as_ref())
    )]
    Poisoned {
        /// First address.
        start: u64,
        /// Bytes.
        len: u64,
        /// Where in which allocation its first allocated byte is.
        place: Option<Whereabouts>,
    },
    /// An address range that is not part of the heap's allocations.
    #[error("{len} bytes at {start:#x} are not allocated from this heap")]
    NotAllocated {
        /// First address.
        start: u64,
        /// Bytes.
        len: u64,
    },
    /// A range is larger than the device budget.
    #[error("{asked} bytes do not fit the device budget of {budget}: prefetch in parts, or raise the budget")]
    RangeTooLarge {
        /// Bytes of the range's blocks.
        asked: u64,
        /// The budget in bytes.
        budget: u64,
    },
    /// A launch's set is larger than the device budget.
    #[error(
        "kernel {kernel}: the launch declares {asked} bytes, the device budget is {budget}: split the launch, raise the \
         budget, or declare less{}",
        of_these(largest)
    )]
    SetTooLarge {
        /// The kernel's name.
        kernel: String,
        /// Bytes of the blocks that the launch declares.
        asked: u64,
        /// The budget in bytes.
        budget: u64,
        /// The allocations that have most of them, the largest part first.
        largest: Vec<Share>,
    },
    /// Memory that shares its block with others was to be pinned.
    #[error(
        "{len} bytes cannot be pinned: smaller allocations than 64 KiB share their block with others; allocate more"
    )]
    PinTooSmall {
        /// Bytes of the allocation.
        len: u64,
    },
    /// As many watches as a heap can have.
    #[error("the heap has {limit} residency watches already: drop one, or watch a longer range with one")]
    TooManyWatches {
        /// The most at a time.
        limit: usize,
    },
    /// The semaphore was asked for of something that the device has no part in.
    #[error("{what} is nothing that the device does, so it has no semaphore: wait for the event on the host")]
    NotOnDevice {
        /// What it is.
        what: String,
    },
    /// A pointer among a launch's arguments that the kernel cannot follow (check mode).
    #[error(
        "kernel {kernel}: argument {argument} points to {:#x}, {cause}{}: nothing was launched", address.0, told(place.as_deref())
    )]
    StrayPointer {
        /// The kernel's name.
        kernel: String,
        /// The argument's position, from 1, and its name in brackets if the module has it.
        argument: String,
        /// Where it points.
        address: HostAddr,
        /// [`TouchCause::NotAllocated`] or [`TouchCause::Undeclared`].
        cause: TouchCause,
        /// What is there or nearby.
        place: Option<Box<Whereabouts>>,
    },
    /// A kernel was to be launched on another context's queue.
    #[error(
        "kernel {kernel} was made for another context, on {made_for}, than the queue's, on {queue}: make it for each context"
    )]
    ForeignKernel {
        /// The kernel's name.
        kernel: String,
        /// The device of the context that it was made for.
        made_for: String,
        /// The device of the queue's context.
        queue: String,
    },
    /// A launch was given memory of another context.
    #[error(
        "{kernel}: the {len} bytes at {:#x} are of another context, on {owner}, than the queue's, on {queue}: copy \
         them, as in `heap.vec_from(&other.read()?)`",
        start.0
    )]
    ForeignMemory {
        /// The kernel's name.
        kernel: String,
        /// Where the memory begins.
        start: HostAddr,
        /// Bytes.
        len: u64,
        /// The device of the context that it is of.
        owner: String,
        /// The device of the queue's context.
        queue: String,
    },
    /// A launch never ran; whoever asked first was given the error itself.
    #[error("kernel {kernel} was not launched: {reason}")]
    NotLaunched {
        /// The kernel's name.
        kernel: String,
        /// Why.
        reason: String,
    },
    /// There is nothing to tell of when something ran.
    #[error("{what} has no profile: {reason}")]
    NotProfiled {
        /// What was asked for.
        what: String,
        /// Why.
        reason: String,
    },
    /// What a queue had the host do failed; whoever asked first was given the error itself.
    #[error("{what} failed: {reason}")]
    NotDone {
        /// What it was.
        what: String,
        /// Why.
        reason: String,
    },
    /// What was to run after something that failed.
    #[error("{what} did not run: it was to run after {dependency}, which failed: {reason}")]
    AfterFailed {
        /// What did not run.
        what: String,
        /// What it was to wait for.
        dependency: String,
        /// Why that failed; of several, one after the other, the first.
        reason: String,
    },
    /// A user event was failed by the application, or dropped.
    #[error("the user event failed: {reason}")]
    UserEvent {
        /// What the application said.
        reason: String,
    },
    /// A file could not be opened or asked.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file failed while it was transferred.
    #[error("{error}; {arrived} of {total} bytes had arrived, from the start on")]
    FileFailed {
        /// What failed.
        #[source]
        error: FileError,
        /// Bytes of the transfer that arrived, from its start on without a gap.
        arrived: u64,
        /// Bytes of the transfer.
        total: u64,
    },
    /// A file ended before all that was to be read of it.
    #[error(
        "{} ends at byte {offset}; {arrived} of {total} bytes had arrived, from the start on: read no more than there is, or \
         see who made it shorter",
        file.display()
    )]
    FileEnded {
        /// The file's name.
        file: PathBuf,
        /// Where it ended.
        offset: u64,
        /// Bytes of the transfer that arrived, from its start on without a gap.
        arrived: u64,
        /// Bytes of the transfer.
        total: u64,
    },
    /// A transfer was cancelled.
    #[error("{what} was cancelled; {arrived} of {total} bytes had arrived, from the start on")]
    Cancelled {
        /// What it was.
        what: String,
        /// Bytes of it that arrived, from its start on without a gap.
        arrived: u64,
        /// Bytes of it.
        total: u64,
    },
    /// The one tier that was asked for does not serve.
    #[error("{tier} was asked for, and does not serve {}: {reason}", file.display())]
    TierUnusable {
        /// The tier.
        tier: Tier,
        /// The file's name.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// Files cannot be streamed.
    #[error(transparent)]
    NoStreaming(#[from] RingError),
    /// A launch went wrong.
    #[error(transparent)]
    Launch(#[from] LaunchFailure),
}

impl PagerError {
    /// The same once more, where that can be had.
    pub(crate) fn copied(&self) -> Option<Self> {
        match self {
            Self::Gpu(error) => Some(Self::Gpu(error.clone())),
            Self::NotDone { what, reason } => Some(Self::NotDone { what: what.clone(), reason: reason.clone() }),
            Self::UserEvent { reason } => Some(Self::UserEvent { reason: reason.clone() }),
            Self::AfterFailed { what, dependency, reason } => {
                Some(Self::AfterFailed { what: what.clone(), dependency: dependency.clone(), reason: reason.clone() })
            }
            Self::FileEnded { file, offset, arrived, total } => {
                Some(Self::FileEnded { file: file.clone(), offset: *offset, arrived: *arrived, total: *total })
            }
            Self::Cancelled { what, arrived, total } => {
                Some(Self::Cancelled { what: what.clone(), arrived: *arrived, total: *total })
            }
            _ => None,
        }
    }
}

/// How much of a launch's set is of one allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// What the allocation is called.
    pub allocation: String,
    /// Bytes of its blocks.
    pub bytes: u64,
}

impl PagerError {
    /// Whether there is no room on the device at this moment, in all or for one allocation.
    pub(crate) fn is_device_full(&self) -> bool {
        matches!(self, Self::DeviceMemoryFull { .. } | Self::DeviceLimitFull { .. })
    }
}

impl TouchCause {
    /// What it is for a kernel's access that the device is full.
    pub(crate) fn of_full(error: &PagerError) -> Self {
        if matches!(error, PagerError::DeviceLimitFull { .. }) { Self::DeviceLimitFull } else { Self::DeviceMemoryFull }
    }
}

/// Why a kernel's access could not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TouchCause {
    /// The address belongs to no allocation: freed, or never allocated.
    NotAllocated,
    /// Outside of the sets that the launch declared (check mode).
    Undeclared,
    /// Its only copy was lost with a device.
    Poisoned,
    /// No device memory was left to bring it to.
    DeviceMemoryFull,
    /// Launches in flight hold all that its allocation may have on the device.
    DeviceLimitFull,
    /// No RAM was left for host frames that had been given back, or put off.
    HostMemoryFull,
    /// The operating system would not map it.
    NotMapped,
    /// It was memory of a device whose driver has been unbound.
    DeviceGone,
}

impl fmt::Display for TouchCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllocated => "which is not allocated (freed, or never allocated)",
            Self::Undeclared => "which the launch did not declare for that access",
            Self::Poisoned => "whose only copy was lost with a device",
            Self::DeviceMemoryFull => "for which the device budget has no room left: raise it, or use less at a time",
            Self::DeviceLimitFull => {
                "for which its allocation's device limit has no room left: raise it, or have less of it held at a time"
            }
            Self::HostMemoryFull => {
                "for which the system has no memory left: free some, or raise the host budget to keep it reserved"
            }
            Self::NotMapped => "which the operating system would not map",
            Self::DeviceGone => "which was memory of a device that is gone: its driver was unbound",
        })
    }
}

/// The first access of a launch that could not be served. The kernel ran on with a page of arbitrary contents, and
/// what it wrote is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel} {} {:#x}, {cause}{}{}", verb(*access), address.0, told(place.as_ref()), others(*count))]
pub struct LaunchFailure {
    /// The kernel's name.
    pub kernel: String,
    /// The address as the CPU knows it.
    pub address: HostAddr,
    /// What the kernel tried.
    pub access: Access,
    /// Why it could not be served.
    pub cause: TouchCause,
    /// What is there or nearby, if that is known.
    pub place: Option<Whereabouts>,
    /// Accesses of the launch that failed, this one included.
    pub count: u64,
}

fn of_these(shares: &[Share]) -> String {
    let each: Vec<_> = shares.iter().map(|share| format!("{} of {}", share.bytes, share.allocation)).collect();
    if each.is_empty() { String::new() } else { format!(" ({})", each.join(", ")) }
}

fn verb(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "wrote",
    }
}

fn told(place: Option<&Whereabouts>) -> String {
    place.map_or_else(String::new, |place| format!(": {place}"))
}

fn others(count: u64) -> String {
    if count > 1 { format!(" (and {} more such accesses)", count - 1) } else { String::new() }
}
