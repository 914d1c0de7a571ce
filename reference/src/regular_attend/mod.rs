//! `regular_attend`, line by line after its PyTorch original (`test_triton_nsa.py` of native-sparse-attention-pytorch),
//! in ndarray and einsum: what a reader of that function recognises, its oddities named where they happen.
//!
//! It is the slow witness. It gathers every selected block for every query as the original does, so its memory is
//! `n * num_sel * block_size * dim`: meant for small shapes. Its gradients reverse the forward's lines one
//! at a time and know nothing of the closed formulas that the oracle uses, so the two can only agree by being right.
//!
//! Beyond the original it takes what the Triton kernel beside it takes: a selection for each *query* head, and no
//! block-causal diagonal. Unlike the oracle it lets NaN through `0 * NaN`, as the original does: a NaN value under a
//! weight of exactly 0 reaches the row.
//!
//! Axes: `b` batch, `h` head (kv head, or query head where each has its own selection), `g` query head within its
//! group, `w` block, `n` or `i` query token, within its block or over all, `s` slot, `j` key, `d` feature.

mod adjoint;
mod forward;
mod sliding;
mod tensor;

use ndarray::{Array, ArrayD, Dimension, LinalgScalar};
use nsa_corpus::{Field, Inputs, Outputs, Shape};
use num_traits::Float;

/// The arithmetic that the transcription runs in: `f32` or `f64`.
pub trait Scalar: LinalgScalar + Float + Send + Sync {
    /// `value` rounded to nearest.
    fn narrow(value: f64) -> Self;
    /// The same number as `f64`.
    fn widen(self) -> f64;
}

impl Scalar for f32 {
    fn narrow(value: f64) -> Self {
        value as f32
    }

    fn widen(self) -> f64 {
        f64::from(self)
    }
}

impl Scalar for f64 {
    fn narrow(value: f64) -> Self {
        value
    }

    fn widen(self) -> f64 {
        self
    }
}

/// Every field that `inputs` ask for ([`Field::asked_by`]), computed in `A` throughout.
///
/// For each row the terms `t` are the keys of its own block up to itself and all keys of every live slot's block,
/// each occurrence counted: `out = sum_t p_t v_t` and `lse = ln sum_t exp(s_t)` with `s_t = dim^(-1/2) c_t <q, k_t>`,
/// `p = softmax(s)`, `c_t` the slot's `sel_scale` or 1. A row with no terms (only without the diagonal) has `out = 0`,
/// `lse = -inf` and zero gradients.
///
/// Gradients are those of `L = <out, d_out> + <lse, d_lse> + <sliding_out, d_sliding>`, an absent cotangent being zero.
///
/// # Examples
/// ```
/// use ndarray::{Array3, Array4};
/// use nsa_corpus::{Cotangents, Dtype, Field, InputParts, Inputs};
/// let ones = Array4::ones((1, 1, 5, 2));
/// let inputs = Inputs::new(InputParts {
///     block_size: 4, include_block_causal: true, sliding_window: None, dtype: Dtype::F64,
///     q: ones.clone(), k: ones.clone(), v: ones, indices: Array4::zeros((1, 1, 5, 0)),
///     mask: Array4::from_elem((1, 1, 5, 0), true), sel_scale: None,
///     cotangents: Cotangents { d_lse: Some(Array3::ones((1, 1, 5))), ..Cotangents::default() },
/// }).unwrap();
/// let outputs = nsa_reference::regular_attend::attend::<f64>(&inputs);
/// let lse = outputs.get(Field::Lse).unwrap();
/// assert!((lse[[0, 0, 3]] - (2f64.sqrt() + 4f64.ln())).abs() < 1e-15); // four keys of score 2 / sqrt 2
/// assert!(outputs.get(Field::Dq).is_some());
/// ```
pub fn attend<A: Scalar>(inputs: &Inputs) -> Outputs {
    let mut outputs = Outputs::new();
    let operands = Operands::<A>::new(inputs);
    let tape = forward::run(&operands);
    outputs.set(Field::Out, widened(&tape.out));
    outputs.set(Field::Lse, widened(&tape.lse));

    let cotangents = inputs.cotangents();
    let mut gradients = cotangents.any().then(|| {
        let d_out = cotangents.d_out.as_ref().map(narrowed);
        let d_lse = cotangents.d_lse.as_ref().map(narrowed);
        adjoint::run(&operands, &tape, d_out, d_lse)
    });
    if let Some(window) = inputs.sliding_window() {
        let (q, k, v) = (narrowed(inputs.q()), narrowed(inputs.k()), narrowed(inputs.v()));
        let tape = sliding::run(inputs.shape(), &q, &k, &v, window);
        outputs.set(Field::SlidingOut, widened(&tape.out));
        outputs.set(Field::SlidingLse, widened(&tape.lse));
        if let (Some(gradients), Some(d_sliding)) = (gradients.as_mut(), &cotangents.d_sliding) {
            let sliding = sliding::adjoint(inputs.shape(), &tape, narrowed(d_sliding));
            for (sum, part) in
                [(&mut gradients.q, sliding.q), (&mut gradients.k, sliding.k), (&mut gradients.v, sliding.v)]
            {
                tensor::accumulate(sum, &part);
            }
        }
    }
    if let Some(gradients) = gradients {
        outputs.set(Field::Dq, widened(&gradients.q));
        outputs.set(Field::Dk, widened(&gradients.k));
        outputs.set(Field::Dv, widened(&gradients.v));
        if let Some(sel_scale) = gradients.sel_scale {
            outputs.set(Field::DselScale, widened(&sel_scale));
        }
    }
    outputs
}

/// The arguments of the original function.
struct Operands<A> {
    shape: Shape,
    /// Heads that the selected part runs over: kv heads, or query heads where each has a selection of its own.
    heads: usize,
    /// Query heads for each of those.
    groups: usize,
    q: ArrayD<A>,
    /// `[b, heads, n, d]`: with a selection for each query head, k repeated so that every query head is a kv head.
    k: ArrayD<A>,
    /// Like `k`.
    v: ArrayD<A>,
    indices: ArrayD<usize>,
    mask: ArrayD<bool>,
    sel_scale: Option<ArrayD<A>>,
    include_block_causal: bool,
}

impl<A: Scalar> Operands<A> {
    fn new(inputs: &Inputs) -> Self {
        let shape = *inputs.shape();
        let heads = shape.sel_heads();
        let repeats = heads / shape.kv_heads();
        Operands {
            shape,
            heads,
            groups: shape.sel_groups(),
            q: narrowed(inputs.q()),
            k: tensor::repeat_heads(&narrowed(inputs.k()), repeats),
            v: tensor::repeat_heads(&narrowed(inputs.v()), repeats),
            indices: inputs.indices().mapv(|index| index as usize).into_dyn(),
            mask: inputs.mask().clone().into_dyn(),
            sel_scale: inputs.sel_scale().map(narrowed),
            include_block_causal: inputs.include_block_causal(),
        }
    }
}

/// Gradients in the shapes of the inputs; `sel_scale` where one was given.
struct Gradients<A> {
    q: ArrayD<A>,
    k: ArrayD<A>,
    v: ArrayD<A>,
    sel_scale: Option<ArrayD<A>>,
}

fn narrowed<A: Scalar, D: Dimension>(tensor: &Array<f64, D>) -> ArrayD<A> {
    tensor.mapv(A::narrow).into_dyn()
}

fn widened<A: Scalar>(tensor: &ArrayD<A>) -> ArrayD<f64> {
    tensor.mapv(A::widen)
}
