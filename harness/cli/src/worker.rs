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
    /// Set each tensor and workspace far apart in turn
    #[arg(long)]
    apart: bool,
}

pub(super) fn main(args: Args) -> Result<Outcome, Refusal> {
    let Args { device, rung, mutant, apart } = args;
    worker::main(&worker::Args { device, rung, mutant, apart }).map_err(Refusal::new)?;
    Ok(Outcome::Passed)
}
