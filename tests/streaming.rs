//! Transfers between files and unified memory: what arrives, what is told, and that nothing else changes; whatever fails,
//! is cancelled, or comes at the same time.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "streaming/cancelled.rs"]
mod cancelled;
mod common;
#[path = "streaming/failures.rs"]
mod failures;
#[path = "streaming/file_systems.rs"]
mod file_systems;
#[path = "streaming/files.rs"]
mod files;
#[path = "streaming/injected.rs"]
mod injected;
#[path = "streaming/killed.rs"]
mod killed;
#[path = "streaming/neighbours.rs"]
mod neighbours;
#[path = "streaming/oracle.rs"]
mod oracle;
#[path = "streaming/served.rs"]
mod served;
#[path = "streaming/traffic.rs"]
mod traffic;
