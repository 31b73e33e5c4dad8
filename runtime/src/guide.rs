//! A guide of a few pages: the model and a first program, then what is good to know. There is nothing to use here.
//!
//! 1. [The model, and a first program](first_program)
//! 2. [Writing kernels](writing_kernels)
//! 3. [Choosing homes and advice](placement)
//! 4. [What is slow, and how to see it](performance)
//! 5. [What each device class does](devices)
//! 6. [Streaming files](streaming)
//! 7. [Coming from CUDA managed memory or OpenCL SVM](comparison)
//!
//! Why safe programs cannot race with kernels is on a page of its own: [`crate::soundness`].

#[doc = include_str!("guide/first_program.md")]
pub mod first_program {}

#[doc = include_str!("guide/writing_kernels.md")]
pub mod writing_kernels {}

#[doc = include_str!("guide/placement.md")]
pub mod placement {}

#[doc = include_str!("guide/performance.md")]
pub mod performance {}

#[doc = include_str!("guide/devices.md")]
pub mod devices {}

#[doc = include_str!("guide/streaming.md")]
pub mod streaming {}

#[doc = include_str!("guide/comparison.md")]
pub mod comparison {}
