//! Executing a plan: devices, memory, what is launched over whose tensors, and what watches it.

mod attend;
mod bench;
mod bound;
mod buffers;
mod checks;
mod encoding;
mod memory;
mod open;
mod operands;
mod run;
mod self_test;

pub use attend::Attend;
pub use bench::{Measured, Timing, bench};
pub use bound::Bound;
pub use buffers::Buffers;
pub use memory::{Buffer, Safety};
pub use open::{Device, DeviceInfo, architectures, availability, device_count};
pub use operands::Operands;
pub use run::{Options, run};
pub use self_test::{Check, self_test};
