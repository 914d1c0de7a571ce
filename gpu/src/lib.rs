//! CUDA kernels for native sparse attention, forward and backward, and the code that compiles and launches them.
//!
//! The main path: [`run()`] takes checked inputs, [`Attend`] allocates and launches, [`variant`] says which kernel
//! computes which pass, `kernels/` holds their text. Nothing CUDA is needed to build: the driver and the compiler
//! library are found when a [`Device`] is opened, and what is missing is an error, never a panic.
//!
//! Axes, everywhere: `b` batch, `h` kv head, `i` query token, `s` selection slot, `j` key, `d` feature.

mod attend;
mod bench;
mod checks;
mod compile;
mod device;
mod dims;
mod driver;
mod error;
mod ladder;
mod memory;
mod mutant;
mod places;
mod run;
mod self_test;
pub mod source;
mod tensors;
pub mod variant;
mod views;
mod workspace;

pub use attend::{Attend, Settings};
pub use bench::{Measured, Timing, bench};
pub use compile::{Compiler, Cubin};
pub use device::{Device, DeviceInfo, architectures, availability, device_count};
pub use dims::Lists;
pub use error::{Error, Kind, Unavailable};
pub use memory::{Buffer, Safety};
pub use mutant::{Mutant, mutants};
pub use run::{Options, run};
pub use self_test::{Check, self_test};
pub use tensors::{CotangentTensors, ForwardTensors, GradientTensors, Tensors};
pub use variant::{Rung, Variant};
pub use views::{Axis, Layout, Operand, Strides, Views};
pub use workspace::Workspace;
