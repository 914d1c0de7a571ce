//! `nsa-diff bench`.

use std::time::Instant;

use nsa_corpus::{Cotangents, Dtype, Inputs, Limit, Outputs};
use nsa_gpu::{Device, Options, Rung, Safety, Variant};
use serde_json::{Value, json};

use super::console::{Console, Json, Output};
use super::output::{catch_interrupt, interrupted, table};
use super::select::candidate_name;
use super::shapes::{HELP, flops, shape};
use super::{Outcome, Refusal};
use nsa_harness::candidate::CandidateName;
use nsa_harness::judge::sample::judge_sample;
use nsa_harness::judge::verdict::Verdict;
use nsa_harness::registry::{self, by_name};

/// Arguments of `bench`.
#[derive(clap::Args)]
#[command(after_help = format!("{HELP}
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
    #[arg(long, value_name = "NAME", default_value = "cuda", value_parser = candidate_name)]
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

/// Milliseconds: median and minimum of the forward, of forward and backward.
struct Times {
    forward: [f64; 2],
    both: [f64; 2],
    outputs: Outputs,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let names =
        if args.shapes.is_empty() { ["upstream", "B", "C"].map(str::to_owned).to_vec() } else { args.shapes.clone() };
    // A name that is none ends the command before minutes are spent on the others.
    names.iter().try_for_each(|name| shape(name).map(|_| ()))?;
    let candidate: CandidateName = registry::name(&args.candidate)?;
    catch_interrupt();
    let head = ["shape", "dtype", "forward ms", "min", "TFLOP/s", "forward+backward ms", "min", "TFLOP/s", "checked"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let (mut results, mut failed) = (Vec::new(), false);
    for name in &names {
        if interrupted() {
            break;
        }
        let (row, result, wrong) = bench(args, &candidate, name)?;
        rows.push(row);
        results.push(result);
        failed |= wrong;
    }
    output.text(&table(&rows));
    let device = nsa_gpu::availability().ok().filter(|_| candidate.is_cuda()).map(|info| info.name);
    let left_out = names.len() - results.len();
    output.json(
        "bench",
        json!({ "candidate": args.candidate, "device": device, "left_out": left_out, "results": results }),
    );
    Ok(match (interrupted(), failed) {
        (true, _) => Outcome::Interrupted,
        (false, true) => Outcome::Failed,
        (false, false) => Outcome::Passed,
    })
}

/// A row of the table, a result of the document, and whether what was timed is wrong.
fn bench(args: &Args, candidate: &CandidateName, name: &str) -> Result<(Vec<String>, Value, bool), Refusal> {
    // D has tensors of 2^29 elements.
    let inputs = shape(name)?.materialize_up_to(args.dtype, Limit::LARGE)?;
    let Times { forward, both, outputs } = match candidate {
        CandidateName::Cuda { far: true, .. } => return Err(Refusal::new("far strides are not timed".to_owned())),
        CandidateName::Cuda { rung, far: false } => gpu_times(args, *rung, &inputs)?,
        _ => cpu_times(args, &inputs)?,
    };
    let (mut checked, mut failed) = ("no".to_owned(), false);
    if !args.unchecked {
        let arithmetic = by_name(&args.candidate)?.declaration(&inputs).arithmetic;
        let judged = judge_sample(&inputs, &arithmetic, &outputs);
        failed = matches!(judged.verdict, Verdict::Fail(_));
        checked = format!("{} ({})", judged.verdict, judged.what);
    }
    let flops = flops(&inputs);
    let rates = [flops[0] / forward[0] / 1e9, flops[1] / both[0] / 1e9];
    let row = vec![
        name.to_owned(),
        args.dtype.to_string(),
        format!("{:.4}", forward[0]),
        format!("{:.4}", forward[1]),
        format!("{:.1}", rates[0]),
        format!("{:.4}", both[0]),
        format!("{:.4}", both[1]),
        format!("{:.1}", rates[1]),
        checked.clone(),
    ];
    let result = json!({
        "shape": name, "dtype": args.dtype, "repetitions": args.repetitions,
        "forward_ms": forward[0], "forward_ms_min": forward[1], "forward_tflops": rates[0],
        "both_ms": both[0], "both_ms_min": both[1], "both_tflops": rates[1], "checked": checked,
    });
    Ok((row, result, failed))
}

fn gpu_times(args: &Args, rung: Option<Rung>, inputs: &Inputs) -> Result<Times, Refusal> {
    let refused = |error: nsa_gpu::Error| Refusal::new(error.to_string());
    nsa_gpu::availability().map_err(|reason| Refusal::new(reason.to_string()))?;
    let device = Device::open(0).map_err(refused)?;
    let options = Options { variant: rung.map(Variant::uniform), safety: Safety::NONE, ..Options::default() };
    let measured = nsa_gpu::bench(&device, inputs, &options, args.repetitions as usize).map_err(refused)?;
    let pair = |timing: nsa_gpu::Timing| [f64::from(timing.median), f64::from(timing.min)];
    let both = measured.forward_and_backward.map_or([f64::NAN; 2], pair);
    Ok(Times { forward: pair(measured.forward), both, outputs: measured.outputs })
}

fn cpu_times(args: &Args, inputs: &Inputs) -> Result<Times, Refusal> {
    let candidate = by_name(&args.candidate)?;
    let mut forward_only = inputs.clone().into_parts();
    forward_only.cotangents = Cotangents::default();
    let forward_only = Inputs::new(forward_only)?;
    let time = |inputs: &Inputs| {
        let mut outputs = Outputs::new();
        let mut times = Vec::new();
        for _ in 0..args.repetitions {
            let start = Instant::now();
            outputs = candidate.run(inputs).map_err(|error| Refusal::new(error.to_string()))?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok::<_, Refusal>(([times[times.len() / 2], times[0]], outputs))
    };
    let (forward, _) = time(&forward_only)?;
    let (both, outputs) = time(inputs)?;
    Ok(Times { forward, both, outputs })
}
