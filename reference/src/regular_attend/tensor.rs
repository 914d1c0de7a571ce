//! The few tensor operations that the original borrows from torch, einops and einx, each beside its adjoint.

use ndarray::{ArrayD, Axis, IxDyn, Slice, Zip, concatenate};
use ndarray_einsum::{ArrayLike, einsum};

use super::Scalar;

/// Einstein summation over named axes, `"bhid,bhjd->bhij"`.
pub(super) fn contract<A: Scalar>(axes: &str, left: &ArrayD<A>, right: &ArrayD<A>) -> ArrayD<A> {
    let operands: [&dyn ArrayLike<A>; 2] = [left, right];
    einsum(axes, &operands).expect("the axes fit shapes that were checked when the inputs were built")
}

/// Axes split or merged, the row-major order kept: einops' `rearrange` without a transposition.
pub(super) fn reshape<T: Clone>(tensor: &ArrayD<T>, shape: &[usize]) -> ArrayD<T> {
    tensor.to_shape(IxDyn(shape)).expect("splitting and merging axes keeps their product").into_owned()
}

/// Lengthens the token axis (2) to `tokens` with `fill`: `pad_to_multiple(t, block_size, dim = -2)`.
pub(super) fn pad<T: Clone>(tensor: &ArrayD<T>, tokens: usize, fill: T) -> ArrayD<T> {
    let mut shape = tensor.shape().to_vec();
    shape[2] = tokens - shape[2];
    let padding = ArrayD::from_elem(IxDyn(&shape), fill);
    concatenate(Axis(2), &[tensor.view(), padding.view()]).expect("only the token axis differs")
}

/// The first `tokens` of the token axis (2): `t[..., :seq_len, :]`, and the adjoint of [`pad`].
pub(super) fn cut<A: Clone>(tensor: &ArrayD<A>, tokens: usize) -> ArrayD<A> {
    tensor.slice_axis(Axis(2), Slice::from(..tokens)).to_owned()
}

/// `b h n d -> b (h times) n d`, each head repeated beside itself.
pub(super) fn repeat_heads<A: Clone>(tensor: &ArrayD<A>, times: usize) -> ArrayD<A> {
    let heads: Vec<usize> = (0..tensor.len_of(Axis(1)) * times).map(|head| head / times).collect();
    tensor.select(Axis(1), &heads)
}

/// Adjoint of [`repeat_heads`]: the copies' gradients add up.
pub(super) fn sum_repeated_heads<A: Scalar>(tensor: &ArrayD<A>, times: usize) -> ArrayD<A> {
    let mut shape = tensor.shape().to_vec();
    shape[1] /= times;
    shape.insert(2, times);
    reshape(tensor, &shape).sum_axis(Axis(2))
}

/// einx's `get_at('b h [w] n d, b h i sel -> b h i (sel n) d')`: every query gets its own copy of every block that it
/// selects. `blocks [b, h, w, n, d]`, `indices [b, h, i, sel]`.
pub(super) fn get_at<A: Scalar>(blocks: &ArrayD<A>, indices: &ArrayD<usize>) -> ArrayD<A> {
    let mut gathered = ArrayD::zeros(IxDyn(&gathered_shape(blocks.shape(), indices.shape())));
    for_each_selected(indices, blocks.len_of(Axis(3)), |head, row, keys, block| {
        let source = blocks.index_axis(Axis(0), head.0);
        let source = source.index_axis(Axis(0), head.1);
        let mut target = gathered.index_axis_mut(Axis(0), head.0);
        let mut target = target.index_axis_mut(Axis(0), head.1);
        let mut target = target.index_axis_mut(Axis(0), row);
        target.slice_axis_mut(Axis(0), keys).assign(&source.index_axis(Axis(0), block));
    });
    gathered
}

/// Adjoint of [`get_at`]: every copy's gradient is added to the block it was copied from.
pub(super) fn add_at<A: Scalar>(blocks: &mut ArrayD<A>, indices: &ArrayD<usize>, gathered: &ArrayD<A>) {
    for_each_selected(indices, blocks.len_of(Axis(3)), |head, row, keys, block| {
        let source = gathered.index_axis(Axis(0), head.0);
        let source = source.index_axis(Axis(0), head.1);
        let source = source.index_axis(Axis(0), row);
        let mut target = blocks.index_axis_mut(Axis(0), head.0);
        let mut target = target.index_axis_mut(Axis(0), head.1);
        let mut target = target.index_axis_mut(Axis(0), block);
        Zip::from(&mut target).and(&source.slice_axis(Axis(0), keys)).for_each(|sum, part| *sum = *sum + *part);
    });
}

fn gathered_shape(blocks: &[usize], indices: &[usize]) -> Vec<usize> {
    vec![indices[0], indices[1], indices[2], indices[3] * blocks[3], blocks[4]]
}

/// Calls `visit((b, h), i, keys of the slot among the gathered ones, selected block)` for every slot in order.
fn for_each_selected(indices: &ArrayD<usize>, keys: usize, mut visit: impl FnMut((usize, usize), usize, Slice, usize)) {
    for (at, &block) in indices.indexed_iter() {
        let slot = at[3];
        visit((at[0], at[1]), at[2], Slice::from(slot * keys..(slot + 1) * keys), block);
    }
}

/// Softmax over the last axis. The row's maximum is subtracted first, as torch does.
pub(super) fn softmax<A: Scalar>(sim: &ArrayD<A>) -> ArrayD<A> {
    let mut attn = sim.clone();
    let last = Axis(sim.ndim() - 1);
    for mut row in attn.lanes_mut(last) {
        let max = row.iter().copied().fold(A::neg_infinity(), larger);
        row.mapv_inplace(|score| (score - max).exp());
        let sum = row.sum();
        row.mapv_inplace(|weight| weight / sum);
    }
    attn
}

/// Adjoint of [`softmax`], given its result: `d_sim = attn (d_attn - sum_j attn d_attn)`.
pub(super) fn softmax_adjoint<A: Scalar>(attn: &ArrayD<A>, d_attn: &ArrayD<A>) -> ArrayD<A> {
    let mut d_sim = d_attn.clone();
    let last = Axis(attn.ndim() - 1);
    for (mut row, weights) in d_sim.lanes_mut(last).into_iter().zip(attn.lanes(last)) {
        let mean = Zip::from(&row).and(&weights).fold(A::zero(), |sum, d, weight| sum + *d * *weight);
        Zip::from(&mut row).and(&weights).for_each(|d, weight| *d = *weight * (*d - mean));
    }
    d_sim
}

/// `ln sum exp` over the last axis. An infinite maximum is not subtracted, as in torch, so it is also the answer.
pub(super) fn logsumexp<A: Scalar>(sim: &ArrayD<A>) -> ArrayD<A> {
    sim.map_axis(Axis(sim.ndim() - 1), |row| {
        let max = row.iter().copied().fold(A::neg_infinity(), larger);
        let shift = if max.is_infinite() { A::zero() } else { max };
        row.fold(A::zero(), |sum, score| sum + (*score - shift).exp()).ln() + shift
    })
}

/// `sum += part`, elementwise.
pub(super) fn accumulate<A: Scalar>(sum: &mut ArrayD<A>, part: &ArrayD<A>) {
    Zip::from(sum).and(part).for_each(|sum, part| *sum = *sum + *part);
}

/// The larger of two, NaN if either is: torch's maximum does not step over NaN as [`f64::max`] does.
fn larger<A: Scalar>(left: A, right: A) -> A {
    if left.is_nan() || left > right { left } else { right }
}
