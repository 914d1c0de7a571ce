//! `nsa-diff cuda-worker`: the child process that the CUDA candidate starts. Nobody types it.

use nsa_harness::candidate::cuda::worker;

use super::{Outcome, Refusal};

/// Arguments of `cuda-worker`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Number of the GPU
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// Rung of every pass
    #[arg(long)]
    rung: Option<String>,
    /// Mutant of a kernel
    #[arg(long)]
    mutant: Option<String>,
    /// Give each tensor and workspace far strides in turn
    #[arg(long)]
    far_strides: bool,
}

pub(super) fn main(args: Args) -> Result<Outcome, Refusal> {
    let Args { device, rung, mutant, far_strides } = args;
    worker::main(&worker::Args { device, rung, mutant, far_strides }).map_err(Refusal::new)?;
    Ok(Outcome::Passed)
}
