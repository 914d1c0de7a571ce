//! A candidate that needs no GPU: attention tile by tile with a running softmax, as flash-attention kernels do it, in
//! the arithmetic that they have. It shares no code with the oracle or the transcription.
//!
//! A tile is the part of one key block that a row attends to. The forward keeps a running maximum `m`, sum `l` and
//! output `o` for each row, and rescales them whenever a tile is added; the backward recomputes
//! `P = exp(s - lse)` from the saved `lse` and takes `delta = <out, d_out>` from the saved `out`, both as they were
//! stored. Masked keys are skipped, never multiplied by 0.
//!
//! With f16 and bf16 inputs, products are exact in f32 and accumulated there; `P` (against the running maximum, not yet
//! divided by `l`) and `dS` are cast to the 16-bit element before their products, which is what feeding them to a
//! tensor core does; `out`, `sliding_out`, `dq`, `dk`, `dv` are stored in the element, `lse` and `dsel_scale` in f32.
//!
//! Every sum has one order and `exp` comes from `libm`, so an answer has the same bits on any machine, at any number of
//! threads.
//!
//! Axes: `i` query token, `j` key within a block, `d` feature; see the crate `nsa-corpus` for the others.

mod backward;
mod forward;
mod head;

use ndarray::{ArrayD, IxDyn};
use nsa_corpus::{Arithmetic, Dot, Dtype, Field, Inputs, Outputs, Shape};
use rayon::prelude::*;

use crate::real::Real;
use head::{Head, Scratch};

/// Every field that `inputs` ask for, in the arithmetic of their element: f64, f32, or 16-bit with f32 accumulation.
/// Formulas and the meaning of each field are those of [`regular_attend`](crate::regular_attend::attend).
///
/// # Examples
/// ```
/// use nsa_reference::ndarray::Array4;
/// use nsa_reference::{Dtype, Field, InputParts, Inputs};
/// let ones = Array4::ones((1, 2, 9, 4));
/// let parts = InputParts::new(4, ones.clone(), ones.clone(), ones, Array4::zeros((1, 2, 9, 1)));
/// let inputs = Inputs::new(InputParts { dtype: Dtype::Bf16, ..parts }).unwrap();
/// let outputs = nsa_reference::tiled::attend(&inputs);
/// assert_eq!(outputs.get(Field::Out).unwrap()[[0, 1, 8, 3]], 1.0);
/// ```
pub fn attend(inputs: &Inputs) -> Outputs {
    match inputs.dtype() {
        Dtype::F64 => attend_in::<f64>(inputs),
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 => attend_in::<f32>(inputs),
    }
}

/// What [`attend`] does with inputs of `dtype`.
///
/// Products and sums are rounded separately, not fused: the first product starts the sum, so `K` of each still make at
/// most `K` roundings of any term, and the bound of [`Dot::Fma`] holds. `libm`'s exponential errs by less than an ulp,
/// `2^-23` in f32; twice that is declared.
pub fn arithmetic(dtype: Dtype) -> Arithmetic {
    match dtype {
        Dtype::F64 => Arithmetic::f64(),
        Dtype::F32 => Arithmetic::f32(),
        Dtype::F16 | Dtype::Bf16 => {
            let dot = Dot::Fma { unit: Dtype::F32.unit_roundoff() };
            Arithmetic { scores: dot, products: dot, ..Arithmetic::tensor_core(dtype) }
        }
    }
}

fn attend_in<R: Real>(inputs: &Inputs) -> Outputs {
    let shape = inputs.shape();
    let heads = shape.batch() * shape.kv_heads();
    let answers: Vec<Answer> = (0..heads)
        .into_par_iter()
        .map(|index| answer::<R>(inputs, index / shape.kv_heads(), index % shape.kv_heads()))
        .collect();
    let mut outputs = Outputs::new();
    for field in Field::ALL.into_iter().filter(|field| field.asked_by(inputs)) {
        outputs.set(field, assemble(shape, field, &answers));
    }
    outputs
}

/// The values of one kv head and its query heads, row-major, in the order of [`Field::ALL`]; empty where not asked.
type Answer = [Vec<f64>; Field::ALL.len()];

/// Heads follow each other in every field, so the parts are simply joined.
fn assemble(shape: &Shape, field: Field, answers: &[Answer]) -> ArrayD<f64> {
    let values: Vec<f64> = answers.iter().flat_map(|answer| &answer[field as usize]).copied().collect();
    ArrayD::from_shape_vec(IxDyn(&field.shape(shape)), values).expect("every head answers all of its rows")
}

fn answer<R: Real>(inputs: &Inputs, batch: usize, kv_head: usize) -> Answer {
    let head = Head::<R>::new(inputs, batch, kv_head);
    let mut scratch = Scratch::new(inputs.shape());
    let mut answer = Answer::default();
    let selected = forward::run(&head, &|group, token, tiles| head.selected_tiles(group, token, tiles), &mut scratch);
    let sliding = inputs.sliding_window().map(|window| {
        let tiles = |_, token, tiles: &mut Vec<_>| head.sliding_tiles(token, window, tiles);
        (window, forward::run(&head, &tiles, &mut scratch))
    });
    if inputs.cotangents().any() {
        let [dq, dk, dv, dsel_scale] = backward::run(&head, inputs, &selected, sliding.as_ref(), &mut scratch);
        answer[Field::Dq as usize] = dq;
        answer[Field::Dk as usize] = dk;
        answer[Field::Dv as usize] = dv;
        answer[Field::DselScale as usize] = dsel_scale;
    }
    if let Some((_, sliding)) = sliding {
        answer[Field::SlidingOut as usize] = widened(&sliding.out);
        answer[Field::SlidingLse as usize] = widened(&sliding.lse);
    }
    answer[Field::Out as usize] = widened(&selected.out);
    answer[Field::Lse as usize] = widened(&selected.lse);
    answer
}

fn widened<R: Real>(values: &[R]) -> Vec<f64> {
    values.iter().map(|value| value.widen()).collect()
}
