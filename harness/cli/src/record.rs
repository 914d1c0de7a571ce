//! `nsa-diff record`.

use std::path::PathBuf;

use nsa_corpus::{Dtype, check_folder, entries};
use nsa_gpu::Rung;
use rayon::prelude::*;
use serde_json::json;

use super::console::{Console, Json, Output};
use super::output::progress;
use super::{Outcome, Refusal};
use nsa_harness::calibrate::{Sum, Unmeasured, measure};
use nsa_harness::campaign::records::Recorder;
use nsa_harness::candidate::Candidate;
use nsa_harness::candidate::cuda::Cuda;
use nsa_harness::run::run_entry;

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
    let device = json!({ "name": info.name, "arch": info.arch(), "driver": info.driver, "nvrtc": info.compiler });
    let mut summary = Vec::new();
    let mut failed = false;
    for rung in Rung::ALL {
        let candidate = Cuda::new(Some(rung), None, args.workers)?;
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let counts = record(args, &output, &candidate, rung, dtype, device.clone())?;
            failed |= counts.1 > 0;
            output.text(&format!("{rung} {dtype}: {} cases, {} failed, {} skipped\n", counts.0, counts.1, counts.2));
            summary.push(
                json!({ "rung": rung, "dtype": dtype, "cases": counts.0, "failed": counts.1, "skipped": counts.2 }),
            );
        }
    }
    let recorded = summary.iter().any(|counts| counts["cases"] != 0);
    output.json("record", json!({ "device": device, "records": summary }));
    match (failed, recorded) {
        (true, _) => Ok(Outcome::Failed),
        (false, true) => Ok(Outcome::Passed),
        (false, false) => Err(Refusal::new("nothing was recorded: every case was skipped")),
    }
}

/// Cases recorded, failed and skipped.
fn record(
    args: &Args,
    output: &Output<'_>,
    candidate: &dyn Candidate,
    rung: Rung,
    dtype: Dtype,
    device: serde_json::Value,
) -> Result<(usize, usize, usize), Refusal> {
    let chosen: Vec<_> = entries().iter().filter(|entry| entry.dtypes.contains(&dtype)).collect();
    let bar = progress(Some(chosen.len() as u64));
    let reports = chosen
        .par_iter()
        .map(|entry| {
            let report = run_entry(entry, dtype, candidate)?;
            bar.inc(1);
            Ok((entry.case.materialize(dtype)?, report))
        })
        .collect::<Result<Vec<_>, nsa_corpus::Error>>()?;
    bar.finish_and_clear();
    let unmeasured = |error: Unmeasured| Refusal::new(format!("{rung} {dtype}: {error}"));
    let calibration = match Sum::ALL.map(|sum| measure(candidate, sum, dtype, 1)).into_iter().collect() {
        Err(Unmeasured::Unsupported(_)) => Vec::new(),
        measured => measured.map_err(unmeasured)?,
    };
    let mut recorder = Recorder::new(rung, dtype, device, calibration);
    let (mut cases, mut failed, mut skipped) = (0, 0, 0);
    for (entry, (inputs, report)) in chosen.iter().zip(&reports) {
        match report.verdict.word() {
            "skip" => skipped += 1,
            word => {
                cases += 1;
                failed += usize::from(word == "fail");
                if word == "fail" {
                    output.text(&format!("{} {dtype} {rung}: {}\n", entry.name, report.verdict));
                }
                recorder.add(entry, inputs, report);
            }
        }
    }
    if cases > 0 {
        recorder.write(&args.out)?;
    }
    Ok((cases, failed, skipped))
}
