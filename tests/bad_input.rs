//! Bad input of every kind gets a named error that says what, on what and what to do; the context then still works.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;
#[path = "bad_input/devices.rs"]
mod devices;
#[path = "bad_input/launches.rs"]
mod launches;
#[path = "bad_input/modules.rs"]
mod modules;
#[path = "bad_input/sizes.rs"]
mod sizes;
