//! `nsa-diff bench`.

use std::time::Instant;

use ndarray::{Array, Axis, Dimension, Slice};
use nsa_corpus::{Case, Cotangents, Element, Field, InputParts, Inputs, Mask, Outputs, Selection, Sizes, Values};
use nsa_gpu::{Device, Layout, Options, Rung, Safety, Variant};
use serde_json::json;

use super::output::{Json, table};
use super::{Outcome, Refusal};
use crate::backend::by_name;
use crate::judge::{judge, verdict};

/// Arguments of `bench`.
#[derive(clap::Args)]
#[command(
    after_help = "Shapes: seed (b4 n507 hq4 hkv2 d64 N32 sel6), and with blocks of 64, d 128 and 15 slots (first, previous, 13 past ones):
B n8192 hq64 hkv4, C n32768 hq64 hkv4, D n65536 hq64 hkv4, E n16384 hq32 hkv8, F n16384 hq16 hkv16.
On a GPU: CUDA events, the second-level cache flushed before each call, warm-up, median and minimum. Of what was timed,
one (batch, kv head) is judged whole.

Examples:
  nsa-diff bench seed B --candidate cuda:tensor --element bf16
  nsa-diff bench seed --candidate tiled --element f32"
)]
pub(super) struct Args {
    /// Named shapes [default: seed B C]
    #[arg(value_name = "SHAPE")]
    shapes: Vec<String>,
    /// The implementation to time
    #[arg(long, value_name = "NAME", default_value = "cuda")]
    candidate: String,
    /// Format of the inputs
    #[arg(long, default_value = "bf16")]
    element: Element,
    /// Timed calls of each kind
    #[arg(long, value_name = "N", default_value_t = 20)]
    repetitions: usize,
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

pub(super) fn main(args: &Args) -> Result<Outcome, Refusal> {
    let names =
        if args.shapes.is_empty() { ["seed", "B", "C"].map(str::to_owned).to_vec() } else { args.shapes.clone() };
    let head = ["shape", "element", "forward ms", "min", "TFLOP/s", "forward+backward ms", "min", "TFLOP/s", "checked"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let (mut results, mut failed) = (Vec::new(), false);
    for name in &names {
        let inputs = shape(name)?.materialize(args.element)?;
        let times =
            if args.candidate.starts_with("cuda") { gpu_times(args, &inputs)? } else { cpu_times(args, &inputs)? };
        let checked = if args.unchecked { "no".to_owned() } else { check(args, &inputs, &times.outputs)? };
        failed |= checked.starts_with("fail");
        let flops = flops(&inputs);
        let rate = |flops: f64, milliseconds: f64| format!("{:.1}", flops / milliseconds / 1e9);
        let [forward, both] = [times.forward, times.both];
        rows.push(vec![
            name.clone(),
            args.element.to_string(),
            format!("{:.4}", forward[0]),
            format!("{:.4}", forward[1]),
            rate(flops[0], forward[0]),
            format!("{:.4}", both[0]),
            format!("{:.4}", both[1]),
            rate(flops[1], both[0]),
            checked.clone(),
        ]);
        results.push(json!({
            "shape": name, "element": args.element, "forward_ms": forward[0], "forward_ms_min": forward[1],
            "both_ms": both[0], "both_ms_min": both[1], "checked": checked,
        }));
    }
    args.json.text(&table(&rows));
    args.json.write("bench", json!({ "candidate": args.candidate, "results": results }))?;
    Ok(if failed { Outcome::Failed } else { Outcome::Passed })
}

/// The case of a named shape.
fn shape(name: &str) -> Result<Case, Refusal> {
    let wide = |seq_len, q_heads, kv_heads| Sizes {
        batch: 1,
        q_heads,
        kv_heads,
        seq_len,
        dim: 128,
        value_dim: 128,
        block_size: 64,
        num_sel: 15,
        sel_heads: kv_heads,
    };
    let seed = Sizes {
        batch: 4,
        q_heads: 4,
        kv_heads: 2,
        seq_len: 507,
        dim: 64,
        value_dim: 64,
        block_size: 32,
        num_sel: 6,
        sel_heads: 2,
    };
    let sizes = match name {
        "seed" | "A" => seed,
        "B" => wide(8192, 64, 4),
        "C" => wide(32_768, 64, 4),
        "D" => wide(65_536, 64, 4),
        "E" => wide(16_384, 32, 8),
        "F" => wide(16_384, 16, 16),
        _ => return Err(Refusal::new(format!("no shape is called `{name}`: there are seed, B, C, D, E, F"))),
    };
    let case = Case::ordinary(sizes, 1);
    Ok(if sizes == seed {
        Case { selection: Selection::ZeroOrOne {}, mask: Mask::Random {}, sel_scale: Some(Values::ones()), ..case }
    } else {
        Case { selection: Selection::FirstPreviousPast {}, ..case }
    })
}

/// Useful floating-point operations of the forward, and of forward and backward: two for each multiply-add of live terms.
fn flops(inputs: &Inputs) -> [f64; 2] {
    let shape = inputs.shape();
    let live = inputs.mask().iter().filter(|live| **live).count() * shape.block_size() * shape.sel_groups();
    let diagonal: usize = (0..shape.seq_len()).map(|i| i % shape.block_size() + 1).sum();
    let terms = (live + diagonal * shape.batch() * shape.q_heads()) as f64;
    let (dim, value_dim) = (shape.dim() as f64, shape.value_dim() as f64);
    let forward = 2.0 * terms * (dim + value_dim);
    [forward, forward + 2.0 * terms * (3.0 * dim + 2.0 * value_dim)]
}

fn gpu_times(args: &Args, inputs: &Inputs) -> Result<Times, Refusal> {
    let refused = |error: nsa_gpu::Error| Refusal::new(error.to_string());
    nsa_gpu::availability().map_err(|reason| Refusal::new(reason.to_string()))?;
    let rung = args.candidate.split_once(':').map(|(_, rung)| rung.parse::<Rung>()).transpose().map_err(refused)?;
    let device = Device::open(0).map_err(refused)?;
    let options = Options { variant: rung.map(Variant::uniform), layout: Layout::HeadMajor, safety: Safety::NONE };
    let measured = nsa_gpu::bench(&device, inputs, &options, args.repetitions).map_err(refused)?;
    let pair = |timing: nsa_gpu::Timing| [f64::from(timing.median), f64::from(timing.min)];
    let both = measured.forward_and_backward.map_or([f64::NAN; 2], pair);
    Ok(Times { forward: pair(measured.forward), both, outputs: measured.outputs })
}

fn cpu_times(args: &Args, inputs: &Inputs) -> Result<Times, Refusal> {
    let backend = by_name(&args.candidate)?;
    let mut forward_only = inputs.clone().into_parts();
    forward_only.cotangents = Cotangents::default();
    let forward_only = Inputs::new(forward_only)?;
    let time = |inputs: &Inputs| {
        let mut outputs = Outputs::new();
        let mut times = Vec::new();
        for _ in 0..args.repetitions.max(1) {
            let start = Instant::now();
            outputs = backend.run(inputs).map_err(|error| Refusal::new(error.to_string()))?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok::<_, Refusal>(([times[times.len() / 2], times[0]], outputs))
    };
    let (forward, _) = time(&forward_only)?;
    let (both, outputs) = time(inputs)?;
    Ok(Times { forward, both, outputs })
}

/// Judges the outputs of the last (batch, kv head), every element of every field.
fn check(args: &Args, inputs: &Inputs, outputs: &Outputs) -> Result<String, Refusal> {
    let backend = by_name(&args.candidate)?;
    let arithmetic = backend.arithmetic(inputs);
    let part = last_head(inputs)?;
    let mut found = Outputs::new();
    for (field, tensor) in outputs.iter() {
        let heads = field.shape(part.shape())[1];
        found.set(field, last(tensor, heads));
    }
    for field in Field::ALL.into_iter().filter(|field| field.asked_by(&part)) {
        if found.get(field).is_none() {
            return Ok(format!("fail: {field} is missing"));
        }
    }
    Ok(verdict(&judge(&part, &arithmetic, &found)).to_string())
}

/// The problem of the last batch entry and kv head alone.
fn last_head(inputs: &Inputs) -> Result<Inputs, Refusal> {
    let shape = *inputs.shape();
    let (groups, sel_heads) = (shape.groups(), shape.sel_heads() / shape.kv_heads());
    let parts = inputs.clone().into_parts();
    let cotangents = parts.cotangents;
    Ok(Inputs::new(InputParts {
        q: last(&parts.q, groups),
        k: last(&parts.k, 1),
        v: last(&parts.v, 1),
        indices: last(&parts.indices, sel_heads),
        mask: last(&parts.mask, sel_heads),
        sel_scale: parts.sel_scale.map(|tensor| last(&tensor, sel_heads)),
        cotangents: Cotangents {
            d_out: cotangents.d_out.map(|tensor| last(&tensor, groups)),
            d_lse: cotangents.d_lse.map(|tensor| last(&tensor, groups)),
            d_sliding: cotangents.d_sliding.map(|tensor| last(&tensor, groups)),
        },
        ..parts
    })?)
}

/// The last batch entry and the last `heads` heads.
fn last<A: Clone, D: Dimension>(tensor: &Array<A, D>, heads: usize) -> Array<A, D> {
    let mut view = tensor.view();
    view.slice_axis_inplace(Axis(0), Slice::from(-1..));
    view.slice_axis_inplace(Axis(1), Slice::from(-(heads as isize)..));
    view.to_owned()
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use super::*;

    #[test]
    fn the_last_head_alone_computes_what_it_computes_among_others() {
        let mut case = shape("seed").unwrap();
        case.sizes.seq_len = 40;
        let inputs = case.materialize(Element::F32).unwrap();
        let whole: Outputs = nsa_reference::oracle::attend(&inputs);
        let part = last_head(&inputs).unwrap();
        for (field, tensor) in nsa_reference::oracle::attend(&part).iter() {
            let expected: ArrayD<f64> = last(whole.get(field).unwrap(), tensor.shape()[1]);
            assert_eq!(&expected, tensor, "{field}");
        }
    }
}
