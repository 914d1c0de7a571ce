//! The forward of the selected part, in the order of the original's lines. Each intermediate that the adjoint reads is
//! kept on the [`Tape`].

use ndarray::{ArrayD, Axis, IxDyn, Zip, concatenate};

use super::tensor::{contract, cut, get_at, logsumexp, pad, reshape, softmax};
use super::{Operands, Scalar};

/// What the forward computed.
pub(super) struct Tape<A> {
    /// `[b, h, g, w, n, d]`.
    pub q: ArrayD<A>,
    /// `[b, h, w, n, d]`.
    pub k: ArrayD<A>,
    /// The selected blocks, absent where there is no slot.
    pub selected: Option<Selected<A>>,
    /// `[b, h, g, w, i, j]` over all keys of the row.
    pub attn: ArrayD<A>,
    /// `[b, h, w, i, j, d]` over the same keys.
    pub values: ArrayD<A>,
    /// `[b, q_heads, n, d_v]`.
    pub out: ArrayD<A>,
    /// `[b, q_heads, n]`.
    pub lse: ArrayD<A>,
}

/// The selected blocks' part of the tape.
pub(super) struct Selected<A> {
    /// `[b, h, i, sel]` over padded tokens.
    pub indices: ArrayD<usize>,
    /// `[b, h, i, (sel n), d]`.
    pub keys: ArrayD<A>,
    /// `[b, h, g, w, i, sel, j]` before the factor.
    pub unscaled: ArrayD<A>,
    /// `[b, h, w, i, sel]`.
    pub sel_scale: Option<ArrayD<A>>,
    /// `[b, h, w, i, sel]`.
    pub mask: ArrayD<bool>,
}

/// The score of a masked key: `-torch.finfo(dtype).max`. It is put in place *before* the multiplication by `scale`, so
/// a masked score stays finite, and its weight underflows to exactly 0 beside any live one.
fn masked_score<A: Scalar>() -> A {
    -A::max_value()
}

/// Positions above the diagonal of one block: `torch.ones(...).triu(1)`.
pub(super) fn is_later(query: usize, key: usize) -> bool {
    key > query
}

pub(super) fn run<A: Scalar>(operands: &Operands<A>) -> Tape<A> {
    let shape = &operands.shape;
    let (b, h, g, w, n) = (shape.batch(), operands.heads, operands.groups, shape.blocks(), shape.block_size());

    // Padding with zeros is not neutral: a selected last block brings its padded keys along, score 0 and value 0.
    let [q, k, v] = [&operands.q, &operands.k, &operands.v].map(|t| pad(t, shape.padded_len(), A::zero()));
    let q = reshape(&q, &[b, h, g, w, n, shape.dim()]);
    let k = reshape(&k, &[b, h, w, n, shape.dim()]);
    let v = reshape(&v, &[b, h, w, n, shape.value_dim()]);
    let scale = A::narrow(shape.dim() as f64).sqrt().recip();

    // Scores and values are collected in parts of one block each, then concatenated: the diagonal, then the slots.
    let mut scores = Vec::new();
    let mut values = Vec::new();
    if operands.include_block_causal {
        scores.push(diagonal_scores(&q, &k));
        // The original repeats v over the block's queries, because the selected values differ from query to query.
        values.push(repeat_over_queries(&v));
    }
    let selected = (shape.num_sel() > 0).then(|| {
        let (selected, bsim) = select(operands, &q, &k);
        scores.push(reshape(&bsim, &[b, h, g, w, n, shape.num_sel() * n]));
        // No causality on selected blocks: all their keys count, also those later than the query.
        let sel_bv = get_at(&v, &selected.indices);
        values.push(reshape(&sel_bv, &[b, h, w, n, shape.num_sel() * n, shape.value_dim()]));
        selected
    });
    let sim = join(&scores, 5, &[b, h, g, w, n, 0]);
    let values = join(&values, 4, &[b, h, w, n, 0, shape.value_dim()]);

    let sim = sim.mapv(|score| score * scale);
    let mut attn = softmax(&sim);
    let mut lse = logsumexp(&sim);
    clear_rows_without_keys(operands, selected.as_ref(), &mut attn, &mut lse);
    let out = contract("bhgwij,bhwijd->bhgwid", &attn, &values);
    let out = reshape(&out, &[b, shape.q_heads(), shape.padded_len(), shape.value_dim()]);
    // The original writes 'b g h w n -> b (g h) (w n)' here, with h and g swapped. The axes are h, then g, all the same,
    // and merging neighbours does not depend on their names: the head order is (h g), as in `out`.
    let lse = reshape(&lse, &[b, shape.q_heads(), shape.padded_len()]);
    let (out, lse) = (cut(&out, shape.seq_len()), cut(&lse, shape.seq_len()));
    Tape { q, k, selected, attn, values, out, lse }
}

/// `[b, h, g, w, i, j]`: every query against its own block, later keys masked.
fn diagonal_scores<A: Scalar>(q: &ArrayD<A>, k: &ArrayD<A>) -> ArrayD<A> {
    let mut sim = contract("bhgwid,bhwjd->bhgwij", q, k);
    for (at, score) in sim.indexed_iter_mut() {
        if is_later(at[4], at[5]) {
            *score = masked_score();
        }
    }
    sim
}

/// `[b, h, w, j, d] -> [b, h, w, i, j, d]`.
fn repeat_over_queries<A: Scalar>(v: &ArrayD<A>) -> ArrayD<A> {
    let mut shape = v.shape().to_vec();
    shape.insert(3, v.shape()[3]);
    let repeated = v.view().insert_axis(Axis(3));
    repeated.broadcast(IxDyn(&shape)).expect("an axis of length 1 repeats").to_owned()
}

/// The selected blocks and their scores `[b, h, g, w, i, sel, j]`, masked.
///
/// The original splits the token axis by the *global* `fine_block_size` here (`i = fine_block_size`, four times), not by
/// its parameter: a slip that shows only when the two differ. This one reads the parameter.
fn select<A: Scalar>(operands: &Operands<A>, q: &ArrayD<A>, k: &ArrayD<A>) -> (Selected<A>, ArrayD<A>) {
    let shape = &operands.shape;
    let (b, h, g, w, n, sel) =
        (shape.batch(), operands.heads, operands.groups, shape.blocks(), shape.block_size(), shape.num_sel());
    let tokens = shape.padded_len();
    let indices = pad(&operands.indices, tokens, 0);
    let mask = pad(&operands.mask, tokens, false);

    let keys = get_at(k, &indices);
    let q = reshape(q, &[b, h, g, tokens, shape.dim()]);
    let unscaled = contract("bhgid,bhijd->bhgij", &q, &keys);
    let unscaled = reshape(&unscaled, &[b, h, g, w, n, sel, n]);

    let sel_scale = operands.sel_scale.as_ref().map(|t| reshape(&pad(t, tokens, A::zero()), &[b, h, w, n, sel]));
    let mut bsim = match &sel_scale {
        // A factor of 0 does not remove the block: it makes its keys live ones of score 0.
        Some(sel_scale) => contract("bhgwisj,bhwis->bhgwisj", &unscaled, sel_scale),
        None => unscaled.clone(),
    };
    let mask = reshape(&mask, &[b, h, w, n, sel]);
    for (at, score) in bsim.indexed_iter_mut() {
        if !mask[[at[0], at[1], at[3], at[4], at[5]]] {
            *score = masked_score();
        }
    }
    (Selected { indices, keys, unscaled, sel_scale, mask }, bsim)
}

/// The parts side by side along `axis`, or an empty tensor of shape `empty` where there are none.
fn join<A: Scalar>(parts: &[ArrayD<A>], axis: usize, empty: &[usize]) -> ArrayD<A> {
    if parts.is_empty() {
        return ArrayD::zeros(IxDyn(empty));
    }
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    concatenate(Axis(axis), &views).expect("parts differ only in their keys")
}

/// Without the diagonal a row may have no live key. The original never meets that (and its arithmetic would answer
/// with the mean of the masked values); here such a row has weights 0 and `lse = -inf`.
fn clear_rows_without_keys<A: Scalar>(
    operands: &Operands<A>,
    selected: Option<&Selected<A>>,
    attn: &mut ArrayD<A>,
    lse: &mut ArrayD<A>,
) {
    if operands.include_block_causal {
        return;
    }
    let last = Axis(attn.ndim() - 1);
    for ((at, lse), mut weights) in lse.indexed_iter_mut().zip(attn.lanes_mut(last)) {
        let slots = 0..operands.shape.num_sel();
        let live = |selected: &Selected<A>| slots.clone().any(|s| selected.mask[[at[0], at[1], at[3], at[4], s]]);
        if !selected.is_some_and(live) {
            *lse = A::neg_infinity();
            weights.fill(A::zero());
        }
    }
}

/// `[b, h, g, w, i, sel, j]` with zeros where the slot is masked: the adjoint of the `where` above.
pub(super) fn zero_masked<A: Scalar>(d_bsim: &mut ArrayD<A>, mask: &ArrayD<bool>) {
    for (at, d) in d_bsim.indexed_iter_mut() {
        if !mask[[at[0], at[1], at[3], at[4], at[5]]] {
            *d = A::zero();
        }
    }
}

/// Adds `row[..]` (one value for each query) times the weights: the adjoint of `logsumexp`, whose slope is the softmax.
pub(super) fn add_logsumexp_adjoint<A: Scalar>(d_sim: &mut ArrayD<A>, attn: &ArrayD<A>, d_lse: &ArrayD<A>) {
    let last = Axis(attn.ndim() - 1);
    for ((mut row, weights), d_lse) in d_sim.lanes_mut(last).into_iter().zip(attn.lanes(last)).zip(d_lse) {
        Zip::from(&mut row).and(&weights).for_each(|d, weight| *d = *d + *weight * *d_lse);
    }
}
