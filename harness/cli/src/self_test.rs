//! `nsa-diff self-test`: what only a GPU can show of the checks that watch the CUDA kernels.

use nsa_gpu::{Device, self_test};

use super::console::Console;
use super::output::table;
use super::{Outcome, Refusal};

/// Arguments of `self-test`.
#[derive(clap::Args)]
#[command(after_help = "Example, on a machine with a GPU that nobody else uses meanwhile:
  nsa-diff self-test")]
pub(super) struct Args {
    /// Number of the GPU
    #[arg(long, default_value_t = 0)]
    device: usize,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let refused = |error: nsa_gpu::Error| Refusal::new(error.to_string());
    let device = Device::open(args.device).map_err(refused)?;
    let checks = self_test(&device).map_err(refused)?;
    let word = |passed| if passed { "pass" } else { "FAIL" }.to_owned();
    let rows: Vec<Vec<String>> =
        checks.iter().map(|check| vec![word(check.passed), check.claim.to_owned(), check.found.clone()]).collect();
    console.print(&table(&rows));
    Ok(if checks.iter().all(|check| check.passed) { Outcome::Passed } else { Outcome::Failed })
}
