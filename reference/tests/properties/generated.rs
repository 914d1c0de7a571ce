//! What must hold of any right answer, whatever its numbers: the oracle on generated cases, with no other program beside it.

use ndarray::{Array, ArrayD, Axis, Dimension, Slice};
use nsa_corpus::{Arithmetic, Case, Cotangents, Dtype, Field, InputParts, Inputs, Outputs};
use nsa_reference::oracle;

use crate::common::transform::{
    double_slots, drop_last_slot, mask_last_slot, repeated, reverse_slots, reversed, reversed_parts, without_last,
};

/// Generated problems with finite inputs that `wanted` takes.
fn problems(count: usize, wanted: impl Fn(&Inputs) -> bool) -> Vec<Inputs> {
    let drawn = (0..20_000).map(|seed| Case::generate(24, seed));
    let finite = |case: &Case| case.overrides.iter().all(|change| change.value.is_finite());
    let inputs = drawn.filter(finite).map(|case| case.materialize(Dtype::F32).unwrap());
    let found: Vec<Inputs> = inputs.filter(wanted).take(count).collect();
    assert_eq!(found.len(), count, "the generator reaches what this property needs");
    found
}

fn changed(inputs: &Inputs, change: impl FnOnce(&mut InputParts)) -> Inputs {
    let mut parts = inputs.clone().into_parts();
    parts.dtype = Dtype::F64;
    change(&mut parts);
    Inputs::new(parts).unwrap()
}

/// Holds `found` to the budgets of f64 for `inputs`: what two orders of additions can make of one sum, however its terms cancel.
fn assert_same(inputs: &Inputs, found: &Outputs, what: &str) {
    let arithmetic = Some(&Arithmetic::f64());
    for answer in [oracle::forward(inputs, arithmetic), oracle::backward(inputs, found, arithmetic)] {
        let budgets = answer.bounds.expect("asked for with an arithmetic").rigorous;
        for (field, expected) in answer.outputs.iter() {
            let (found, budgets) = (found.get(field).unwrap(), budgets.get(field).unwrap());
            assert_eq!(expected.shape(), found.shape(), "{what}, {field}");
            for (at, expected) in expected.indexed_iter() {
                let (found, budget) = (found[&at], budgets[&at]);
                assert!(budget.is_finite(), "{what}, {field} {at:?}: nothing is promised");
                let same = *expected == found || (expected - found).abs() <= budget;
                assert!(same, "{what}, {field} {at:?}: {expected:e} and {found:e}, budget {budget:e}");
            }
        }
    }
}

/// Sums of at most some 10^4 terms, whose scores are off by as much as their size times `2^-53`: relative to the largest
/// element, 1e-9 features both for every generated size.
fn assert_field(expected: &ArrayD<f64>, found: &ArrayD<f64>, what: &str) {
    assert_eq!(expected.shape(), found.shape(), "{what}");
    let largest =
        expected.iter().filter(|value| value.is_finite()).fold(1e-300f64, |largest, value| largest.max(value.abs()));
    for (expected, found) in expected.iter().zip(found) {
        let error = (expected - found).abs();
        assert!(
            expected == found || error <= 1e-9 * largest,
            "{what}: {expected:e} and {found:e}, largest {largest:e}"
        );
    }
}

#[test]
fn the_order_of_slots_changes_nothing_but_their_own_gradient() {
    for inputs in problems(60, |inputs| inputs.shape().num_sel() > 1) {
        let turned = changed(&inputs, reverse_slots);
        let mut found = oracle::attend(&turned);
        if let Some(tensor) = found.take(Field::DselScale) {
            found.set(Field::DselScale, reversed(&tensor, 3));
        }
        assert_same(&inputs, &found, "slots reversed");
    }
}

#[test]
fn batch_entries_and_heads_do_not_see_each_other() {
    for axis in [0, 1] {
        for inputs in problems(60, |inputs| inputs.q().shape()[axis] > 1) {
            let turned = changed(&inputs, |parts| *parts = reversed_parts(&inputs, axis));
            let mut found = Outputs::new();
            for (field, tensor) in oracle::attend(&turned).iter() {
                found.set(field, reversed(tensor, axis));
            }
            assert_same(&inputs, &found, if axis == 0 { "batch" } else { "heads" });
        }
    }
}

#[test]
fn a_masked_slot_is_an_absent_one() {
    for inputs in problems(60, |inputs| inputs.shape().num_sel() > 0) {
        let last = inputs.shape().num_sel() - 1;
        let masked = changed(&inputs, mask_last_slot);
        let absent = changed(&inputs, drop_last_slot);
        let mut found = oracle::attend(&masked);
        if let Some(tensor) = found.take(Field::DselScale) {
            assert!(
                tensor.index_axis(Axis(3), last).iter().all(|value| *value == 0.0),
                "a masked slot has no gradient"
            );
            found.set(Field::DselScale, without_last(&tensor, 3));
        }
        assert_same(&absent, &found, "masked");
    }
}

#[test]
fn out_is_linear_in_v_and_gradients_in_their_cotangents() {
    for inputs in problems(60, |inputs| inputs.cotangents().any()) {
        let doubled = changed(&inputs, |parts| {
            parts.cotangents.d_out.iter_mut().for_each(|tensor| *tensor *= 2.0);
            parts.cotangents.d_lse.iter_mut().for_each(|tensor| *tensor *= 2.0);
            parts.cotangents.d_sliding.iter_mut().for_each(|tensor| *tensor *= 2.0);
        });
        let (once, twice) = (oracle::attend(&inputs), oracle::attend(&doubled));
        for (field, tensor) in once.iter().filter(|(field, _)| field.is_gradient()) {
            assert_field(&(tensor * 2.0), twice.get(field).unwrap(), "twice the cotangents");
        }
        let tripled = oracle::attend(&changed(&inputs, |parts| parts.v *= -3.0));
        assert_field(&(once.get(Field::Out).unwrap() * -3.0), tripled.get(Field::Out).unwrap(), "-3 v");
        assert_eq!(once.get(Field::Lse), tripled.get(Field::Lse), "lse does not depend on v");
    }
}

#[test]
fn every_term_twice_adds_ln_2_to_lse_and_nothing_to_out() {
    // Without the diagonal, every slot written twice doubles each term of the sum.
    for inputs in problems(60, |inputs| inputs.shape().num_sel() > 0) {
        let once = changed(&inputs, |parts| parts.include_block_causal = false);
        let twice = changed(&once, double_slots);
        let (once, twice) = (oracle::forward(&once, None).outputs, oracle::forward(&twice, None).outputs);
        assert_field(once.get(Field::Out).unwrap(), twice.get(Field::Out).unwrap(), "out");
        assert_field(&(once.get(Field::Lse).unwrap() + 2f64.ln()), twice.get(Field::Lse).unwrap(), "lse");
    }
}

#[test]
fn a_selection_for_each_query_head_is_k_and_v_repeated() {
    for inputs in problems(40, |inputs| inputs.shape().sel_groups() == 1 && inputs.shape().groups() > 1) {
        let groups = inputs.shape().groups();
        let own = changed(&inputs, |parts| {
            parts.k = repeated(&parts.k, groups);
            parts.v = repeated(&parts.v, groups);
        });
        let (expected, found) = (oracle::attend(&inputs), oracle::attend(&own));
        for field in [Field::Out, Field::Lse, Field::Dq, Field::DselScale] {
            if let Some(expected) = expected.get(field) {
                assert_field(expected, found.get(field).unwrap(), field.name());
            }
        }
    }
}

/// `tensor` with zeros (or false) behind its tokens, up to `tokens` of them.
fn padded<A: Clone + Default, D: Dimension>(tensor: &Array<A, D>, tokens: usize) -> Array<A, D> {
    let mut dim = tensor.raw_dim();
    dim[2] = tokens;
    let mut wide = Array::from_elem(dim, A::default());
    wide.slice_axis_mut(Axis(2), Slice::from(..tensor.shape()[2])).assign(tensor);
    wide
}

#[test]
fn zeros_up_to_a_whole_block_and_slicing_back_change_nothing() {
    for inputs in problems(60, |inputs| !inputs.shape().seq_len().is_multiple_of(inputs.shape().block_size())) {
        let (seq_len, tokens) = (inputs.shape().seq_len(), inputs.shape().padded_len());
        let wide = changed(&inputs, |parts| {
            for tensor in [&mut parts.q, &mut parts.k, &mut parts.v] {
                *tensor = padded(tensor, tokens);
            }
            parts.indices = padded(&parts.indices, tokens);
            parts.mask = padded(&parts.mask, tokens);
            parts.sel_scale = parts.sel_scale.as_ref().map(|tensor| padded(tensor, tokens));
            let Cotangents { d_out, d_lse, d_sliding } = &mut parts.cotangents;
            *d_out = d_out.as_ref().map(|tensor| padded(tensor, tokens));
            *d_lse = d_lse.as_ref().map(|tensor| padded(tensor, tokens));
            *d_sliding = d_sliding.as_ref().map(|tensor| padded(tensor, tokens));
        });
        let mut found = Outputs::new();
        for (field, tensor) in oracle::attend(&wide).iter() {
            found.set(field, tensor.slice_axis(Axis(2), Slice::from(..seq_len)).to_owned());
        }
        assert_same(&inputs, &found, "padded");
    }
}
