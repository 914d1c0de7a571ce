//! `nsa-diff bench`.

use nsa_corpus::Dtype;

use super::console::{Console, Json, Output};
use super::output::{catch_interrupt, interrupted};
use super::render::bench as render;
use super::select::candidate_name;
use super::{Outcome, Refusal};
use nsa_harness::bench::{Bench, NAMES, Timed, shape};
use nsa_harness::document::Benchmarks;

/// Arguments of `bench`.
#[derive(clap::Args)]
#[command(after_help = format!("{NAMES}
On a GPU: CUDA events, the second-level cache flushed before each call, warm-up, median and minimum; outputs are allocated
once. What was timed is judged: whole where it is small, else some rows and the gradients of some blocks of keys, each
element by its budget, and all of it is finite.

Examples:
  nsa-diff bench upstream B B-local --candidate cuda:tensor --dtype bf16
  nsa-diff bench upstream --candidate tiled --dtype f32"))]
pub(super) struct Args {
    /// Named shapes [default: upstream B C]
    #[arg(value_name = "SHAPE")]
    shapes: Vec<String>,
    /// The implementation to time
    #[arg(long, alias = "backend", value_name = "NAME", default_value = "cuda", value_parser = candidate_name)]
    candidate: String,
    /// Format of the inputs
    #[arg(long, alias = "element", default_value = "bf16")]
    dtype: Dtype,
    /// Timed calls of each kind
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Leave out the judgement of what was timed
    #[arg(long)]
    unchecked: bool,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let names =
        if args.shapes.is_empty() { ["upstream", "B", "C"].map(str::to_owned).to_vec() } else { args.shapes.clone() };
    let refused = |error: &dyn std::fmt::Display| Refusal::new(error.to_string());
    // A name that is none ends the command before minutes are spent on the others.
    names.iter().try_for_each(|name| shape(name).map(|_| ())).map_err(|error| refused(&error))?;
    catch_interrupt();
    let (candidate, dtype, repetitions) = (args.candidate.clone(), args.dtype, args.repetitions);
    let bench = Bench { candidate, dtype, repetitions, judged: !args.unchecked };
    let mut results = Vec::new();
    for name in names.iter().take_while(|_| !interrupted()) {
        results.push(bench.time(name).map_err(|error| refused(&error))?);
    }
    let (device, left_out) = (bench.device(), names.len() - results.len());
    let document = Benchmarks { candidate: bench.candidate, device, left_out, results };
    output.text(&render::text(&document));
    let failed = document.results.iter().any(Timed::fails);
    output.document(&document);
    Ok(match (interrupted(), failed) {
        (true, _) => Outcome::Interrupted,
        (false, true) => Outcome::Failed,
        (false, false) => Outcome::Passed,
    })
}
