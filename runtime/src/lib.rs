//! GPU compute with unified memory on stock Vulkan drivers: one address space for CPU and GPU, in which pages migrate
//! as they are used.
//!
//! A [`Context`] opens a device and a [`Heap`]. What is allocated from the heap ([`UnifiedVec`], [`UnifiedBox`]) has
//! one address, good on both sides, also inside data structures ([`GpuPtr`]). A [`Kernel`] made from SPIR-V runs on a
//! [`Queue`]; its accesses bring pages to the device, the CPU's bring them back. [`Residency`] says where data is.
//!
//! # Ordering
//! CPU and GPU see each other's writes at the submission and at the completion of a launch. Launches on one queue run
//! in order, those on different queues in any. A guard ([`UnifiedVec::read`], [`UnifiedVec::write`]) waits for the
//! launches that could conflict with it.
//!
//! # Sets and holds
//! A launch declares what it touches; from its admission to its completion it holds that, and CPU touches that conflict
//! wait. It is admitted when no launch in flight holds against it and its set fits the device budget beside theirs.
//!
//! # Views and classes
//! On software devices a kernel's access to memory that is elsewhere is a fault, and served ([`DeviceClass::Faulting`],
//! through [`ViewKind::Import`]). On cards it cannot be: launches declare all that they touch
//! ([`DeviceClass::Declared`], through [`ViewKind::Sparse`]), and what they do not declare they find stale.
//!
//! # Several devices
//! [`devices`] lists them, and each [`Context`] is one of its own: nothing is process-wide. Memory, kernels and events
//! are of one context; a launch that is given another's is refused. `heap.vec_from(&other.read()?)` copies.
//! # Ordinary collections
//! [`UnifiedAllocator`] has them live in unified memory; launches are lent them ([`Launch::lend`], [`scope()`]).
//!
//! # What it does not do yet
//! Read files, or use the kernel's own page tables. No card could be had yet to try it on.

extern crate self as limosa;

mod allocation;
mod allocations;
mod allocator;
mod argument;
mod boxed;
mod commands;
mod context;
mod data_file;
mod error;
mod event;
mod future;
mod guard;
pub mod guide;
mod heap;
mod kernel;
mod launch;
mod lend;
mod pin;
mod pointer;
mod queue;
mod queue_builder;
pub mod raw;
mod safe_kernel;
mod scope;
mod shareable;
mod slabs;
mod slice;
pub mod soundness;
mod streaming;
mod thrashing;
mod user_event;
mod uses;
mod vec;
mod watch;

pub use allocation::RawAllocation;
pub use allocator::UnifiedAllocator;
pub use argument::{LaunchArgument, LaunchArguments, Loan, Overwrites, Parameter, Parameters, Reads, Usage, Writes};
pub use boxed::{BoxReadGuard, BoxWriteGuard, UnifiedBox};
pub use commands::Command;
pub use context::{Context, ContextBuilder, HEAP_SIZE_DEFAULT, devices};
pub use data_file::{DataFile, DataFileOptions};
pub use error::{Error, GpuError, LaunchFailure, OsError, PagerError, TouchCause};
pub use event::Event;
pub use future::EventFuture;
pub use guard::{ReadGuard, WriteGuard};
pub use heap::Heap;
pub use kernel::{Kernel, KernelBuilder};
pub use launch::{Launch, Launchable};
pub use lend::{Lending, Lent, Unreturned};
pub use limosa_derive::Shareable;
pub use limosa_gpu::{Adapter, DeviceChoice, DeviceKind, Instance, Limits, Translation};
pub use limosa_gpu::{Argument, ArgumentType, Scalar, SpecConstant, SpecValue};
pub use limosa_model::policy::fewest_loads;
pub use limosa_model::{
    Access, Advice, BLOCK, BlockState, CHUNK, Cause, ChunkIndex, Copies, Edge, Hold, HostAddr, HostRange, Priority,
    Relation, Side,
};
#[cfg(feature = "inject")]
pub use limosa_pager::inject;
pub use limosa_pager::{
    Allocation, AllocationCounters, Backing, Counters, DEVICE_BUDGET_MIN, DeviceClass, DeviceMemory, FaultMode, Faults,
    Home, KernelCounters, KernelShim, Machine, PeerChoice, PeerProvider, Profile, Residency, ResidencySummary, Share,
    ShimDevice, ShimError, ShimInfo, ViewKind, WATCHES_MAX, Whereabouts,
};
pub use limosa_pager::{Direction, FileError, FileErrorKind, FileFacts, FileKind, Progress, Tier};
pub use pin::HostPin;
pub use pointer::GpuPtr;
pub use queue::Queue;
pub use queue_builder::QueueBuilder;
pub use safe_kernel::SafeKernel;
pub use scope::{Scope, scope};
pub use shareable::Shareable;
pub use slice::{UnifiedSlice, UnifiedSliceMut};
pub use streaming::{TierReason, TierShare, TierVerdict, Transfer, TransferReport, Transfers};
pub use thrashing::Thrashing;
pub use user_event::UserEvent;
pub use vec::UnifiedVec;
pub use watch::{ResidencyWatch, WatchEvent};

/// The result of limosa's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The README's program, compiled by the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
