//! The pure half of limosa: addresses, block states, growth, plans, and the heap's address space.
//!
//! The model decides, the pager does: it takes an event and returns a bounded list of actions, so that it can be
//! replayed and property-tested with no GPU and no kernel. It does *not* do I/O, read clocks, start threads, or know
//! which mechanism carries an action out.

#![forbid(unsafe_code)]

pub mod address;
pub mod advice;
pub mod arena;
mod cause;
pub mod chunk;
pub mod extents;
pub mod geometry;
pub mod growth;
mod host_frames;
mod nearby;
pub mod order;
pub mod plan;
pub mod policy;
mod priority;
mod quarantine;
pub mod sets;
pub mod stream;
pub mod thrash;
mod transition;

pub use address::{Access, DeviceAddr, HostAddr, HostRange, Side};
pub use advice::{Advice, AdviceSets};
pub use arena::{Arena, ArenaError, Edge, Placement, Resized};
pub use cause::Cause;
pub use chunk::{BlockState, Chunk, Copies, Hold};
pub use geometry::{BLOCK, BLOCKS_PER_CHUNK, Block, BlockSet, CHUNK, ChunkIndex, Extent, PAGE};
pub use nearby::{Nearby, Relation};
pub use plan::{Action, Plan, Refusal, Verdict};
pub use priority::{Priority, PrioritySets};
pub use sets::{ChunkSets, DeclaredSets};
