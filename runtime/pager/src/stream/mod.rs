//! Streaming: bytes between files and unified memory, asynchronously, by the best path there is, and told which.
//!
//! A queue takes a [`Transfer`] of one or many parts in like a launch (`seats`): the device's memory that is read into is
//! held as if a launch wrote it, what is written from is held as read, and what stays on the host is pinned. A thread of
//! its own (`pump`) then keeps requests in flight, of all transfers at once, and the application's threads wait for events
//! as of anything else. Which way a part takes is `tier`'s to say, once for each file, direction and kind of memory, and
//! `proof` tries it before it is believed. It does *not* cache files, and it does not order transfers against other
//! processes' use of a file.
//!
//! What did not arrive when a read fails or is cancelled is as it was before, or what the file has there; never zeros in
//! the place of data.

mod arrivals;
mod end;
mod flight;
mod landing;
mod now;
mod pace;
mod proof;
mod pump;
mod report;
mod seats;
mod submit;
mod tier;
mod trials;

pub use report::{Progress, TierReason, TierShare, TransferReport};
pub use submit::{Part, Transfer, TransferOptions, Transfers};
pub use tier::{Tier, TierVerdict};

pub(crate) use flight::Boarded;
pub(crate) use pump::Pumps;
pub(crate) use seats::Seat;
pub(crate) use submit::Streaming;
