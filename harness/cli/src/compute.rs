//! `nsa-diff compute`: the kernels alone, in this very process, for tools that watch a process.

use std::time::Instant;

use nsa_corpus::{Dtype, foreign};
use nsa_gpu::{Options, Rung, Safety, Variant};

use super::console::Console;
use super::output::table;
use super::select::select;
use super::{Outcome, Refusal};
use nsa_harness::candidate::cuda::worker;

/// Arguments of `compute`.
#[derive(clap::Args)]
#[command(
    after_help = "Nothing is judged: a kernel that faults, or that writes outside its buffers, is all that fails here.
lists/every_scan_full is the smallest entry in which every scan goes round more than once and every
list has several parts: what one part must wait for in another is there and nowhere else.

Examples, on a machine with a GPU:
  compute-sanitizer --tool racecheck --error-exitcode 1 nsa-diff compute lists/every_scan_full --rung tensor --dtype bf16
  compute-sanitizer --tool initcheck --error-exitcode 1 nsa-diff compute 'edges/*' --bare"
)]
pub(super) struct Args {
    /// Entries, or patterns such as 'edges/*'
    #[arg(value_name = "ENTRY", required = true)]
    entries: Vec<String>,
    /// Number of the GPU
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// Rung of every pass
    #[arg(long, default_value = "plain")]
    rung: String,
    /// Format of the inputs
    #[arg(long, alias = "element", default_value = "f32")]
    dtype: Dtype,
    /// Fault to plant in the kernels
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// No guard zones, and no NaN written into outputs and shared memory first: what a kernel reads before it was written stays uninitialised
    #[arg(long)]
    bare: bool,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let refused = |error: nsa_gpu::Error| Refusal::new(error.to_string());
    let chosen = select(&args.entries)?;
    let variant = Variant::uniform(args.rung.parse::<Rung>().map_err(refused)?);
    let device = worker::open(args.device, args.mutant.as_deref()).map_err(Refusal::new)?;
    let safety = if args.bare { Safety::NONE } else { Safety::CHECKED };
    let mut rows = Vec::new();
    let (mut computed, mut failed) = (false, false);
    for entry in chosen {
        let inputs = entry.case.materialize(args.dtype)?;
        let layout = worker::layout(&inputs);
        let options = Options { variant: Some(variant), layout, safety, ..Options::default() };
        let start = Instant::now();
        let outcome = match variant.supports(inputs.shape(), args.dtype, &device.info().arch()) {
            Err(reason) => format!("skip: {reason}"),
            Ok(()) => match nsa_gpu::run(&device, &inputs, &options) {
                Ok(_) => {
                    computed = true;
                    format!("computed in {:.2} s", start.elapsed().as_secs_f64())
                }
                Err(error) => {
                    failed = true;
                    format!("failed: {}", foreign::line(&error.to_string()))
                }
            },
        };
        rows.push(vec![entry.name.clone(), args.dtype.to_string(), args.rung.clone(), outcome]);
    }
    console.print(&table(&rows));
    match (failed, computed) {
        (true, _) => Ok(Outcome::Failed),
        (false, true) => Ok(Outcome::Passed),
        (false, false) => Err(Refusal::new("nothing was computed: every entry was skipped")),
    }
}
