//! One problem in another arrangement: axes reversed, slots doubled or left out, heads repeated.

use ndarray::{Array, Array4, Axis, Dimension, RemoveAxis, Slice, concatenate};
use nsa_corpus::{InputParts, Inputs};

/// The tensor with axis `axis` in reverse order.
pub(crate) fn reversed<A: Clone, D: Dimension>(tensor: &Array<A, D>, axis: usize) -> Array<A, D> {
    let mut view = tensor.view();
    view.invert_axis(Axis(axis));
    view.as_standard_layout().into_owned()
}

/// Every tensor with axis 0 (batch) or 1 (head) reversed.
pub(crate) fn reversed_parts(inputs: &Inputs, axis: usize) -> InputParts {
    let mut parts = inputs.clone().into_parts();
    let cotangents = &mut parts.cotangents;
    for tensor in [&mut parts.q, &mut parts.k, &mut parts.v] {
        *tensor = reversed(tensor, axis);
    }
    for tensor in [&mut parts.sel_scale, &mut cotangents.d_out, &mut cotangents.d_sliding].into_iter().flatten() {
        *tensor = reversed(tensor, axis);
    }
    cotangents.d_lse = cotangents.d_lse.as_ref().map(|tensor| reversed(tensor, axis));
    parts.indices = reversed(&parts.indices, axis);
    parts.mask = reversed(&parts.mask, axis);
    parts
}

/// Writes the slots in reverse order.
pub(crate) fn reverse_slots(parts: &mut InputParts) {
    parts.indices = reversed(&parts.indices, 3);
    parts.mask = reversed(&parts.mask, 3);
    parts.sel_scale = parts.sel_scale.as_ref().map(|tensor| reversed(tensor, 3));
}

/// Masks the last slot.
pub(crate) fn mask_last_slot(parts: &mut InputParts) {
    let last = parts.mask.dim().3 - 1;
    parts.mask.index_axis_mut(Axis(3), last).fill(false);
}

/// Leaves the last slot out.
pub(crate) fn drop_last_slot(parts: &mut InputParts) {
    parts.indices = without_last(&parts.indices, 3);
    parts.mask = without_last(&parts.mask, 3);
    parts.sel_scale = parts.sel_scale.as_ref().map(|tensor| without_last(tensor, 3));
}

/// The tensor without the last index of axis `axis`.
pub(crate) fn without_last<A: Clone, D: Dimension>(tensor: &Array<A, D>, axis: usize) -> Array<A, D> {
    let last = tensor.shape()[axis] - 1;
    tensor.slice_axis(Axis(axis), Slice::from(..last)).to_owned()
}

/// Writes every slot twice.
pub(crate) fn double_slots(parts: &mut InputParts) {
    parts.indices = twice(&parts.indices);
    parts.mask = twice(&parts.mask);
    parts.sel_scale = parts.sel_scale.as_ref().map(twice);
}

fn twice<A: Clone, D: RemoveAxis>(tensor: &Array<A, D>) -> Array<A, D> {
    concatenate(Axis(3), &[tensor.view(), tensor.view()]).expect("the same shape twice")
}

/// The tensor with each head `groups` times in a row.
pub(crate) fn repeated<A: Clone>(tensor: &Array4<A>, groups: usize) -> Array4<A> {
    let heads: Vec<usize> = (0..tensor.dim().1 * groups).map(|head| head / groups).collect();
    tensor.select(Axis(1), &heads)
}
