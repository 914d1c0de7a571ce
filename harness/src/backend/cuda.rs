//! The CUDA kernels as a candidate.

use super::{Backend, Unavailable};

pub(super) fn make() -> Result<Box<dyn Backend>, Unavailable> {
    Err(Unavailable("no CUDA driver was found on this machine".to_owned()))
}
