//! `nsa-diff golden`.

use std::path::PathBuf;

use nsa_corpus::Dtype;

use super::console::{Console, Json, Output};
use super::render::golden as render;
use super::select::candidate_name;
use super::{Outcome, Refusal};
use nsa_harness::campaign::golden::files;
use nsa_harness::document::Golden;
use nsa_harness::registry::by_name;

/// Arguments of `golden`.
#[derive(clap::Args)]
#[command(
    after_help = "Every .safetensors file of DIR holds inputs and the answers that PyTorch gave (docs/corpus-format.md). Errors are
relative to the largest magnitude of each tensor. Limits: 1e-11 for files computed in f64, 3e-6 in f32. A candidate that
casts to 16 bits, or that gets its inputs by --dtype, is judged by its error budgets instead.

Examples:
  nsa-diff golden corpus/golden
  nsa-diff golden corpus/golden --candidate regular_attend --json golden.json"
)]
pub(super) struct Args {
    /// Folder of golden files
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The candidate to compare
    #[arg(long, alias = "backend", value_name = "NAME", default_value = "oracle", value_parser = candidate_name)]
    candidate: String,
    /// Give the inputs in this format; files whose inputs it cannot hold exactly are skipped
    #[arg(long, alias = "element", value_name = "f32|f16|bf16")]
    dtype: Option<Dtype>,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let candidate = by_name(&args.candidate)?;
    let files = files(&args.folder)?;
    let golden = Golden::of(&args.candidate, candidate.as_ref(), &files, args.dtype);
    output.text(&render::text(&golden));
    let outcome = conclusion(&golden);
    output.document(&golden);
    outcome
}

fn conclusion(golden: &Golden) -> Result<Outcome, Refusal> {
    match (golden.broken.is_empty(), golden.failed(), golden.tensors.len()) {
        (false, _, _) => Err(Refusal::several(golden.broken.clone())),
        (true, 0, 0) => Err(Refusal::new(nothing_tested(golden))),
        (true, 0, _) => Ok(Outcome::Passed),
        (true, _, _) => Ok(Outcome::Failed),
    }
}

fn nothing_tested(golden: &Golden) -> String {
    let reasons = [("inconclusive", &golden.inconclusive), ("skipped", &golden.skipped)];
    let first = reasons
        .iter()
        .filter_map(|(what, lines)| Some(format!("; {} {what}, the first: {}", lines.len(), lines.first()?)));
    let first: String = first.collect();
    format!("nothing was tested: of {} files no tensor was compared{first}", golden.files)
}
