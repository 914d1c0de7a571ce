//! CUDA kernels for native sparse attention, forward and backward, and the code that compiles and launches them.
//!
//! The main path: [`Problem`] says what is to be computed, [`plan`] makes launches of it without knowing CUDA, [`compile`] the
//! kernels (their text is in the binary), and [`Attend`] executes them on a [`Device`], over [`Buffers`] of its own or over somebody
//! else's memory ([`Foreign`]). [`run()`] does all of it for inputs on the host.
//!
//! Nothing CUDA is needed to build: the driver and the compiler library are found when a [`Device`] is opened, and what is missing
//! is an error, never a panic.
//!
//! Axes, everywhere: `b` batch, `h` kv head, `i` query token, `s` selection slot, `j` key, `d` feature.
//!
//! # Examples
//! Where a training program already has its tensors on the device, as PyTorch's `data_ptr()` and `cuda_stream` tell:
//! ```no_run
//! use nsa_corpus::{Dtype, Shape, Sizes};
//! use nsa_gpu::{Attend, Device, Foreign, Problem, Safety, Tensor};
//!
//! # let (stream, theirs) = (std::ptr::null_mut(), std::collections::BTreeMap::<Tensor, u64>::new());
//! let sizes = Sizes {
//!     batch: 1, q_heads: 64, kv_heads: 4, sel_heads: 4, seq_len: 8192, dim: 128, value_dim: 128, block_size: 64, num_sel: 16,
//! };
//! let problem = Problem::new(&Shape::new(sizes)?, Dtype::Bf16);
//! let device = Device::open(0)?;
//! let attend = Attend::new(&device, &problem, Safety::NONE)?;
//! // Tensors and workspaces by name; the plan tells the bytes and the alignment of each.
//! let addresses: Vec<(Tensor, u64)> =
//!     attend.plan().buffers().iter().map(|planned| (planned.tensor, theirs[&planned.tensor])).collect();
//! // SAFETY: the program keeps these tensors, and orders all of its own work on them by this stream.
//! let foreign = unsafe { Foreign::new(stream, &addresses) };
//! let (forward, backward) = (attend.bind_forward(&foreign)?, attend.bind_backward(&foreign)?);
//! forward.launch()?;
//! backward.launch()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod compile;
mod device;
mod driver;
mod error;
pub mod plan;

pub use compile::{Mutant, mutants};
pub use device::{
    Attend, Bound, Buffer, Buffers, Check, Device, DeviceInfo, Measured, Operands, Options, Safety, Timing,
    architectures, availability, bench, device_count, run, self_test,
};
pub use driver::Foreign;
pub use error::{Error, Kind, Unavailable};
pub use plan::{Layout, Problem, Rung, Tensor, Variant};
