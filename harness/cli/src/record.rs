//! `nsa-diff record`.

use std::path::PathBuf;

use nsa_corpus::{Entry, check_folder};
use nsa_gpu::Rung;

use super::console::{Console, Json, Output};
use super::output::progress;
use super::{Outcome, Refusal};
use nsa_harness::campaign::recorder::{self, Machine};
use nsa_harness::candidate::cuda::Cuda;
use nsa_harness::document::Record;
use nsa_harness::watch::Watch;

/// Arguments of `record`.
#[derive(clap::Args)]
#[command(
    after_help = "Runs the corpus on every rung of the CUDA kernels and writes what they answered. Tests judge it again without a GPU, and
fail once a kernel has changed.

Example, on a machine with a GPU:
  nsa-diff record --out corpus/records"
)]
pub(super) struct Args {
    /// Folder to write to
    #[arg(long, value_name = "DIR", default_value = "corpus/records")]
    out: PathBuf,
    /// Worker processes for each GPU
    #[arg(long, value_name = "N", default_value_t = 4)]
    workers: usize,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    check_folder(&args.out)?;
    let info = nsa_gpu::availability().map_err(|reason| Refusal::new(reason.to_string()))?;
    let mut document = Record { device: Machine::from(&info), records: Vec::new() };
    for rung in Rung::ALL {
        let candidate = Cuda::new(Some(rung), None, args.workers)?;
        for dtype in Entry::DTYPES {
            let chosen = recorder::chosen(dtype);
            let bar = progress(Some(chosen.len() as u64));
            let step = || bar.inc(1);
            let watch = Watch::new(&|| false, &step);
            let of = (rung, dtype);
            let (counts, failures) = recorder::record(&args.out, &document.device, of, &candidate, &chosen, watch)
                .map_err(|error| Refusal::new(error.to_string()))?;
            bar.finish_and_clear();
            failures.iter().for_each(|line| output.text(&format!("{line}\n")));
            let (cases, failed, skipped) = (counts.cases, counts.failed, counts.skipped);
            output.text(&format!("{rung} {dtype}: {cases} cases, {failed} failed, {skipped} skipped\n"));
            document.records.push(counts);
        }
    }
    let (failed, recorded) = (document.fails(), document.holds_any());
    output.document(&document);
    match (failed, recorded) {
        (true, _) => Ok(Outcome::Failed),
        (false, true) => Ok(Outcome::Passed),
        (false, false) => Err(Refusal::new("nothing was recorded: every case was skipped")),
    }
}
