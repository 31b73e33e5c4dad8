//! What tests of the kernel shim need beside the shim: the devices of the guest that they run in, and the host's own view
//! of their memory. Its binary is PID 1 of that guest, and runs them. It knows nothing of the shim itself.
//!
//! `cargo xtask guest` builds the tests (they are behind the feature `guest`, so that nothing else runs them), boots the
//! guest and judges what it says and what its kernel logs.
#![forbid(unsafe_code)]

pub mod device;
pub mod host;
pub mod protocol;
pub mod trace;
