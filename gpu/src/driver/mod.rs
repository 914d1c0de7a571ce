//! The only folder with `unsafe`: calls into the CUDA driver and into NVRTC, each wrapped so that the rest of the crate
//! cannot misuse it. Handles are owned and released on drop; every slice handed over carries its length.
//!
//! What stays the kernels' own responsibility: a kernel reads and writes device memory through the addresses it is
//! given. It cannot reach the host's memory, and [`crate::device`] checks what it wrote outside its buffers.
#![allow(unsafe_code)]

mod context;
mod launch;
mod memory;
mod nvrtc;
mod stream;

pub(crate) use context::Context;
pub(crate) use launch::{Call, Function, Parameter};
pub use memory::Foreign;
pub(crate) use memory::{Address, Allocation};
pub(crate) use nvrtc::CompilerLibrary;
pub(crate) use stream::{Event, OwnStream, Stream};
