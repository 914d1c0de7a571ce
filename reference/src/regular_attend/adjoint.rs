//! The adjoint of the forward: its lines reversed, last line first, each by its own local rule. An einsum's adjoint
//! is two einsums, a gather's is a scatter-add, a concatenation's a split, a padding's a slice, a repetition's a sum.

use ndarray::{ArrayD, Axis, IxDyn, Slice};

use super::forward::{Selected, Tape, add_logsumexp_adjoint, is_later, zero_masked};
use super::tensor::{accumulate, add_at, contract, cut, pad, reshape, softmax_adjoint, sum_repeated_heads};
use super::{Gradients, Operands, Scalar};

/// Gradients of `<out, d_out> + <lse, d_lse>`, `d_out [b, q_heads, n, d_v]`, `d_lse [b, q_heads, n]`; `None` is zero.
pub(super) fn run<A: Scalar>(
    operands: &Operands<A>,
    tape: &Tape<A>,
    d_out: Option<ArrayD<A>>,
    d_lse: Option<ArrayD<A>>,
) -> Gradients<A> {
    let shape = &operands.shape;
    let (b, h, g, w, n) = (shape.batch(), operands.heads, operands.groups, shape.blocks(), shape.block_size());
    let padded = shape.padded_len();

    // The cut to seq_len, and the merge of heads and of blocks.
    let d_out = d_out.unwrap_or_else(|| ArrayD::zeros(tape.out.raw_dim()));
    let d_out = reshape(&pad(&d_out, padded, A::zero()), &[b, h, g, w, n, shape.value_dim()]);

    // out = einsum(attn, v), then attn = softmax(sim).
    let d_attn = contract("bhgwid,bhwijd->bhgwij", &d_out, &tape.values);
    let d_values = contract("bhgwij,bhgwid->bhwijd", &tape.attn, &d_out);
    let mut d_sim = softmax_adjoint(&tape.attn, &d_attn);
    if let Some(d_lse) = d_lse {
        let d_lse = reshape(&pad(&d_lse, padded, A::zero()), &[b, h, g, w, n]);
        add_logsumexp_adjoint(&mut d_sim, &tape.attn, &d_lse);
    }
    // sim = sim * scale.
    let scale = A::narrow(shape.dim() as f64).sqrt().recip();
    let d_sim = d_sim.mapv(|d| d * scale);

    let mut d_q = ArrayD::zeros(tape.q.raw_dim());
    let mut d_k = ArrayD::zeros(tape.k.raw_dim());
    let mut d_v = ArrayD::zeros(IxDyn(&[b, h, w, n, shape.value_dim()]));
    // The two concatenations: the diagonal's keys come first, the slots' after them.
    let diagonal = if operands.include_block_causal { n } else { 0 };
    let d_sel_scale = tape.selected.as_ref().and_then(|selected| {
        let d_sel_bv = keys_from(&d_values, 4, diagonal);
        let d_sel_bv = reshape(&d_sel_bv, &[b, h, padded, shape.num_sel() * n, shape.value_dim()]);
        add_at(&mut d_v, &selected.indices, &d_sel_bv);
        selected_scores(operands, tape, selected, keys_from(&d_sim, 5, diagonal), &mut d_q, &mut d_k)
    });
    if operands.include_block_causal {
        // v was repeated over the block's queries.
        accumulate(&mut d_v, &keys_until(&d_values, 4, n).sum_axis(Axis(3)));
        diagonal_scores(tape, keys_until(&d_sim, 5, n), &mut d_q, &mut d_k);
    }

    // Padding, splitting of blocks and groups, and the repetition of k and v for a selection of each query head.
    let repeats = h / shape.kv_heads();
    let whole =
        |t: &ArrayD<A>, heads: usize, features: usize| cut(&reshape(t, &[b, heads, padded, features]), shape.seq_len());
    Gradients {
        q: whole(&d_q, shape.q_heads(), shape.dim()),
        k: sum_repeated_heads(&whole(&d_k, h, shape.dim()), repeats),
        v: sum_repeated_heads(&whole(&d_v, h, shape.value_dim()), repeats),
        // A factor given for no slot at all has an empty gradient.
        sel_scale: d_sel_scale.or_else(|| operands.sel_scale.as_ref().map(|t| ArrayD::zeros(t.raw_dim()))),
    }
}

/// Back through the slots' scores to q, k and sel_scale, whose gradient is returned where it was given.
fn selected_scores<A: Scalar>(
    operands: &Operands<A>,
    tape: &Tape<A>,
    selected: &Selected<A>,
    d_bsim: ArrayD<A>,
    d_q: &mut ArrayD<A>,
    d_k: &mut ArrayD<A>,
) -> Option<ArrayD<A>> {
    let shape = &operands.shape;
    let (b, h, g, w, n, sel) =
        (shape.batch(), operands.heads, operands.groups, shape.blocks(), shape.block_size(), shape.num_sel());
    let padded = shape.padded_len();

    // where(mask, bsim, -max), then bsim = bsim * sel_scale.
    let mut d_bsim = reshape(&d_bsim, &[b, h, g, w, n, sel, n]);
    zero_masked(&mut d_bsim, &selected.mask);
    let mut d_sel_scale = None;
    if let Some(sel_scale) = &selected.sel_scale {
        let d = contract("bhgwisj,bhgwisj->bhwis", &d_bsim, &selected.unscaled);
        d_sel_scale = Some(cut(&reshape(&d, &[b, h, padded, sel]), shape.seq_len()));
        d_bsim = contract("bhgwisj,bhwis->bhgwisj", &d_bsim, sel_scale);
    }
    // bsim = einsum(q, sel_bk), and sel_bk = get_at(k, indices).
    let d_bsim = reshape(&d_bsim, &[b, h, g, padded, sel * n]);
    let q = reshape(&tape.q, &[b, h, g, padded, shape.dim()]);
    let part = contract("bhgij,bhijd->bhgid", &d_bsim, &selected.keys);
    accumulate(d_q, &reshape(&part, d_q.shape()));
    let d_sel_bk = contract("bhgij,bhgid->bhijd", &d_bsim, &q);
    add_at(d_k, &selected.indices, &d_sel_bk);
    d_sel_scale
}

/// Back through the diagonal's `masked_fill` and einsum.
fn diagonal_scores<A: Scalar>(tape: &Tape<A>, mut d_sim: ArrayD<A>, d_q: &mut ArrayD<A>, d_k: &mut ArrayD<A>) {
    for (at, d) in d_sim.indexed_iter_mut() {
        if is_later(at[4], at[5]) {
            *d = A::zero();
        }
    }
    accumulate(d_q, &contract("bhgwij,bhwjd->bhgwid", &d_sim, &tape.k));
    accumulate(d_k, &contract("bhgwij,bhgwid->bhwjd", &d_sim, &tape.q));
}

fn keys_from<A: Scalar>(tensor: &ArrayD<A>, axis: usize, first: usize) -> ArrayD<A> {
    tensor.slice_axis(Axis(axis), Slice::from(first..)).to_owned()
}

fn keys_until<A: Scalar>(tensor: &ArrayD<A>, axis: usize, end: usize) -> ArrayD<A> {
    tensor.slice_axis(Axis(axis), Slice::from(..end)).to_owned()
}
