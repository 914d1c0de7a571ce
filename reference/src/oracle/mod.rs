//! The oracle: every output and gradient of the contract in f64, and the error budget of each element.
//!
//! It streams over blocks instead of gathering copies of keys and values, so its memory is linear in the sequence
//! length, and gives the same bits on any x86-64 processor and any number of threads: fixed order of additions, no
//! contraction, an exponential of its own, one task for each tile of outputs.
//!
//! Axes: `b` batch, `h` kv head, `g` query head within its group (query head = `h * groups + g`), `i` query token, `t` term:
//! one key of one span of keys that a row attends to, with multiplicity.
//!
//! ```
//! use nsa_corpus::{Cotangents, Dtype, Field, InputParts, Inputs};
//! use ndarray::Array4;
//!
//! let inputs = Inputs::new(InputParts {
//!     block_size: 2,
//!     include_block_causal: true,
//!     sliding_window: None,
//!     dtype: Dtype::F32,
//!     q: Array4::zeros((1, 1, 3, 4)),
//!     k: Array4::zeros((1, 1, 3, 4)),
//!     v: Array4::ones((1, 1, 3, 4)),
//!     indices: Array4::zeros((1, 1, 3, 1)),
//!     mask: Array4::from_elem((1, 1, 3, 1), true),
//!     sel_scale: None,
//!     cotangents: Cotangents::default(),
//! })?;
//! let outputs = nsa_reference::oracle::attend(&inputs);
//! // Token 2 attends to itself and to both keys of block 0: lse = ln 3.
//! assert!((outputs.get(Field::Lse).unwrap()[[0, 0, 2]] - 3f64.ln()).abs() < 1e-15);
//! # Ok::<(), nsa_corpus::Error>(())
//! ```

mod backward;
mod backward_bounds;
mod backward_rows;
mod columns;
mod delta_bounds;
mod exp;
mod forward;
mod forward_bounds;
mod kernels;
mod model;
mod packed;
mod rows;
mod sampled;
mod saved;
mod spans;
mod tiles;

use std::borrow::Cow;

use ndarray::{ArrayD, IxDyn};
use nsa_corpus::{Arithmetic, BackwardReads, Field, Inputs, Outputs};
use rayon::prelude::*;

pub use sampled::{Sample, SampledField, sampled_backward, sampled_forward, sampled_order_bounds};

use backward::{Region, backward as backward_regions};
use forward::{Forward, forward as forward_part};
use model::{DEVIATIONS, LIKELY, Model, RIGOROUS, TIERS, cap};
use packed::Head;
use saved::{Off, Saved, Sums};
use spans::Part;

/// An answer of the oracle, with the budget of each element where an arithmetic was given.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The exact answer, up to rounding in f64.
    pub outputs: Outputs,
    /// What an implementation of the given arithmetic may be off by.
    pub bounds: Option<Bounds>,
}

/// Absolute error budgets, of the same shapes as the outputs. An infinite budget promises nothing for its element.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// Tier B: above it, failure to compute as declared is certain.
    pub rigorous: Outputs,
    /// Tier H: roundings that do not conspire stay below it.
    pub likely: Outputs,
}

/// Every field that `inputs` ask for.
pub fn attend(inputs: &Inputs) -> Outputs {
    let heads = heads(inputs);
    let forwards: Vec<(Part, Forward)> =
        parts(inputs).into_iter().map(|part| (part, forward_part(inputs, &heads, part, None))).collect();
    let mut outputs = Outputs::new();
    if inputs.cotangents().any() {
        let saved: Vec<Saved<'_>> = forwards
            .iter()
            .map(|(part, forward)| saved_part(inputs, *part, [&forward.out, &forward.center, &forward.offset], None))
            .collect();
        let regions = backward_regions(inputs, &heads, &saved, None);
        outputs = gradients(inputs, regions, None).outputs;
    }
    for (part, forward) in forwards {
        store_forward(inputs, part, forward, &mut outputs, None);
    }
    outputs
}

/// `out` and `lse`, and `sliding_out` and `sliding_lse` beside a sliding window; budgets under `arithmetic` if given.
pub fn forward(inputs: &Inputs, arithmetic: Option<&Arithmetic>) -> Answer {
    forward_with(inputs, arithmetic.map(|arithmetic| Model::new(arithmetic, inputs.shape())).as_ref())
}

fn forward_with(inputs: &Inputs, model: Option<&Model>) -> Answer {
    let heads = heads(inputs);
    let mut answer = Answer { outputs: Outputs::new(), bounds: model.map(|_| Bounds::default()) };
    for part in parts(inputs) {
        let forward = forward_part(inputs, &heads, part, model);
        store_forward(inputs, part, forward, &mut answer.outputs, answer.bounds.as_mut());
    }
    answer
}

/// `dq`, `dk`, `dv` and `dsel_scale` as they follow from the `out`, `lse`, `sliding_out` and `sliding_lse` that an implementation
/// saved for its own backward: `P = exp(s - lse)`, `delta = <out, d_out>`. Budgets under `arithmetic` if given; where its backward
/// reads values of its own, they allow for all that `saved` may have been rounded from.
///
/// With no cotangent in `inputs` there is nothing to compute: the answer holds no field.
///
/// # Panics
/// `saved` lacks a forward field that `inputs` ask for, or has it in another shape.
pub fn backward(inputs: &Inputs, saved: &Outputs, arithmetic: Option<&Arithmetic>) -> Answer {
    backward_with(inputs, saved, None, arithmetic.map(|arithmetic| Model::new(arithmetic, inputs.shape())).as_ref())
}

/// As [`backward`], for an implementation that saved something else than `saved`: each element of what it saved is at most
/// the element of `off` away, tier by tier (0: that element is known). The answer is the one that follows from `saved`; its
/// budgets allow for everything that may have been saved instead.
///
/// With the exact forward in `saved` and its budgets in `off`, nothing is taken from the implementation at all.
///
/// # Panics
/// As [`backward`], for `saved` and for both tiers of `off`.
pub fn backward_near(inputs: &Inputs, saved: &Outputs, off: &Bounds, arithmetic: &Arithmetic) -> Answer {
    backward_with(inputs, saved, Some(off), Some(&Model::new(arithmetic, inputs.shape())))
}

fn backward_with(inputs: &Inputs, saved: &Outputs, off: Option<&Bounds>, model: Option<&Model>) -> Answer {
    let bounds = model.map(|_| Bounds::default());
    if !inputs.cotangents().any() {
        return Answer { outputs: Outputs::new(), bounds };
    }
    let heads = heads(inputs);
    let parts = parts(inputs);
    let fields = saved_fields(inputs, &parts, saved);
    let own = model.and_then(|model| unrounded(model, saved, off));
    let off =
        own.as_ref().or(off).map(|off| [&off.rigorous, &off.likely].map(|tier| saved_fields(inputs, &parts, tier)));
    let zeros = vec![0.0; fields[0][1].len()];
    let saved = saved_parts(inputs, &parts, &fields, off.as_ref(), &zeros);
    let regions = backward_regions(inputs, &heads, &saved, model);
    gradients(inputs, regions, model)
}

/// How far the values that a backward starts from may be from `saved`, where it reads its own: by what storing them changed, or by
/// `off` where that is more. `None` where it reads what was stored.
fn unrounded(model: &Model, saved: &Outputs, off: Option<&Bounds>) -> Option<Bounds> {
    if model.order_only || model.arithmetic.backward_reads == BackwardReads::Stored {
        return None;
    }
    let tier = |off: Option<&Outputs>| {
        let mut bounds = Outputs::new();
        for (field, values) in saved.iter().filter(|(field, _)| !field.is_gradient()) {
            let format = model.arithmetic.stored(field);
            let storing = |value: &f64| if value.is_finite() { model.storing(format, *value, 0.0) } else { 0.0 };
            let mut bound = values.map(storing);
            if let Some(off) = off.and_then(|off| off.get(field)) {
                bound.zip_mut_with(off, |bound, off| *bound = bound.max(*off));
            }
            bounds.set(field, bound);
        }
        bounds
    };
    Some(Bounds { rigorous: tier(off.map(|off| &off.rigorous)), likely: tier(off.map(|off| &off.likely)) })
}

/// How far the order of its additions alone can take an answer, before it is stored, from what exact sums over the same
/// rounded terms give: two runs of one problem differ by twice this at most, and by the rounding of each to its stored format.
///
/// The gradients' terms are those that follow from `saved`, which must be the same in both runs.
///
/// # Panics
/// As [`backward`].
pub fn order_bounds(inputs: &Inputs, saved: &Outputs, arithmetic: &Arithmetic) -> Outputs {
    let model = Model::order_only(arithmetic, inputs.shape());
    let forward = forward_with(inputs, Some(&model));
    let backward = backward_with(inputs, saved, None, Some(&model));
    let mut bounds = Outputs::new();
    for answer in [forward, backward] {
        for (field, tensor) in answer.bounds.expect("there is a model").rigorous.iter() {
            bounds.set(field, tensor.clone());
        }
    }
    bounds
}

fn heads(inputs: &Inputs) -> Vec<Head> {
    let kv_heads = inputs.shape().kv_heads();
    let regions = 0..inputs.shape().batch() * kv_heads;
    regions.into_par_iter().map(|region| Head::new(inputs, region / kv_heads, region % kv_heads)).collect()
}

fn parts(inputs: &Inputs) -> Vec<Part> {
    std::iter::once(Part::Selected).chain(inputs.sliding_window().map(Part::Sliding)).collect()
}

/// The fields that a part's output and log-sum-exp are stored in.
fn fields_of(part: Part) -> [Field; 2] {
    match part {
        Part::Selected => [Field::Out, Field::Lse],
        Part::Sliding(_) => [Field::SlidingOut, Field::SlidingLse],
    }
}

/// `out` and `lse` of each part.
type SavedFields<'a> = Vec<[Cow<'a, [f64]>; 2]>;

fn saved_fields<'a>(inputs: &Inputs, parts: &[Part], saved: &'a Outputs) -> SavedFields<'a> {
    parts.iter().map(|part| fields_of(*part).map(|field| saved_field(inputs, saved, field))).collect()
}

fn saved_field<'a>(inputs: &Inputs, saved: &'a Outputs, field: Field) -> Cow<'a, [f64]> {
    let expected = field.shape(inputs.shape());
    let tensor = saved.get(field).unwrap_or_else(|| panic!("saved outputs lack {field}"));
    assert_eq!(tensor.shape(), expected, "shape of the saved {field}");
    tensor.as_slice().map_or_else(|| tensor.iter().copied().collect(), Cow::Borrowed)
}

/// The parts with what was saved of them, and how far off it may be; `zeros` are as many as rows.
fn saved_parts<'a>(
    inputs: &'a Inputs,
    parts: &[Part],
    fields: &'a SavedFields<'a>,
    off: Option<&'a [SavedFields<'a>; TIERS]>,
    zeros: &'a [f64],
) -> Vec<Saved<'a>> {
    let part = |(index, part): (usize, &Part)| {
        let [out, lse] = &fields[index];
        let off = off.map(|tiers| {
            let field = |field: usize| std::array::from_fn(|tier| tiers[tier][index][field].as_ref());
            Off { out: field(0), lse: field(1) }
        });
        saved_part(inputs, *part, [out, lse, zeros], off)
    };
    parts.iter().enumerate().map(part).collect()
}

fn saved_part<'a>(
    inputs: &'a Inputs,
    part: Part,
    [out, center, offset]: [&'a [f64]; 3],
    off: Option<Off<'a>>,
) -> Saved<'a> {
    let cotangents = inputs.cotangents();
    let (d_out, d_lse) = match part {
        Part::Selected => (cotangents.d_out.as_ref(), cotangents.d_lse.as_ref()),
        Part::Sliding(_) => (cotangents.d_sliding.as_ref(), None),
    };
    Saved { part, out, center, offset, off, d_out, d_lse }
}

fn tensor(inputs: &Inputs, field: Field, values: Vec<f64>) -> ArrayD<f64> {
    ArrayD::from_shape_vec(IxDyn(&field.shape(inputs.shape())), values).expect("a buffer is made for its field")
}

fn store_forward(inputs: &Inputs, part: Part, forward: Forward, outputs: &mut Outputs, bounds: Option<&mut Bounds>) {
    let [out, lse] = fields_of(part);
    outputs.set(out, tensor(inputs, out, forward.out));
    outputs.set(lse, tensor(inputs, lse, forward.lse));
    if let Some(Bounds { rigorous, likely }) = bounds {
        for (tier, (out_bounds, lse_bounds)) in
            [rigorous, likely].into_iter().zip(forward.out_bounds.into_iter().zip(forward.lse_bounds))
        {
            tier.set(out, tensor(inputs, out, out_bounds));
            tier.set(lse, tensor(inputs, lse, lse_bounds));
        }
    }
}

/// Puts the gradients of all (batch, kv head) together and finishes their budgets.
fn gradients(inputs: &Inputs, regions: Vec<Region>, model: Option<&Model>) -> Answer {
    let shape = inputs.shape();
    let mut answer = Answer { outputs: Outputs::new(), bounds: model.map(|_| Bounds::default()) };
    type SumsOf = fn(&mut Region) -> &mut Sums;
    let fields: [(Field, SumsOf, usize); 4] = [
        (Field::Dq, |region| &mut region.dq, usize::MAX),
        (Field::Dk, |region| &mut region.dk, shape.seq_len() * shape.dim()),
        (Field::Dv, |region| &mut region.dv, shape.seq_len() * shape.value_dim()),
        (Field::DselScale, |region| &mut region.dsel_scale, usize::MAX),
    ];
    let mut regions = regions;
    for (field, sums, kept) in fields.into_iter().filter(|(field, ..)| field.asked_by(inputs)) {
        let mut values = Vec::new();
        let mut bounds: [Vec<f64>; TIERS] = Default::default();
        for region in &mut regions {
            let sums = std::mem::replace(sums(region), Sums::zeros(0, false));
            let kept = kept.min(sums.values.len());
            values.extend_from_slice(&sums.values[..kept]);
            if let Some(model) = model {
                finish(model, field, &sums, kept, &mut bounds);
            }
        }
        answer.outputs.set(field, tensor(inputs, field, values));
        if let Some(Bounds { rigorous, likely }) = &mut answer.bounds {
            let [rigorous_values, likely_values] = bounds;
            rigorous.set(field, tensor(inputs, field, rigorous_values));
            likely.set(field, tensor(inputs, field, likely_values));
        }
    }
    answer
}

/// Adds what does not conspire in the likely tier (`6 (sum of squares)^(1/2)`) and the rounding to the stored format. An element that no term reaches is exactly
/// zero in any arithmetic and has no budget.
fn finish(model: &Model, field: Field, sums: &Sums, kept: usize, bounds: &mut [Vec<f64>; TIERS]) {
    if model.order_only {
        let order =
            sums.errors[RIGOROUS][..kept].iter().map(|error| if error.is_nan() { f64::INFINITY } else { *error });
        bounds[RIGOROUS].extend(order.clone());
        bounds[LIKELY].extend(order);
        return;
    }
    let stored = model.arithmetic.stored(field);
    let underflow = if field == Field::Dv { model.value_gradient_underflow } else { 0.0 };
    for tier in [RIGOROUS, LIKELY] {
        bounds[tier].extend((0..kept).map(|index| {
            let root = if tier == LIKELY { sums.squares.get(index).map_or(0.0, |square| square.sqrt()) } else { 0.0 };
            let error = sums.errors[tier][index] + DEVIATIONS * root;
            if error == 0.0 { 0.0 } else { model.stored(stored, sums.values[index], error + underflow) }
        }));
    }
    let [rigorous, likely] = bounds;
    let first = rigorous.len() - kept;
    cap(&mut likely[first..], &rigorous[first..]);
}
