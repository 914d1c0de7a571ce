//! What must hold of the oracle whatever the numbers are. Each property relates two answers, so none needs a second program to
//! be believed. The bounds count roundings: an answer of `t` terms differs from exact by at most some `t` units of its terms.

use ndarray::{Array4, ArrayD, Axis};
use nsa_corpus::{Case, Dtype, Field, InputParts, Inputs, Outputs, Sizes, Values};
use nsa_reference::oracle;

use crate::common::transform::{
    double_slots, drop_last_slot, mask_last_slot, repeated, reverse_slots, reversed, reversed_parts, without_last,
};

/// Cases over groups, partial last blocks, windows and factors; selections of any block, so duplicates too.
fn cases() -> Vec<Inputs> {
    let mut cases = Vec::new();
    for (seed, (kv_heads, groups, seq_len, block_size)) in
        [(1, 1, 7, 4), (2, 2, 13, 4), (2, 3, 16, 8), (3, 1, 21, 5), (1, 4, 9, 1), (2, 2, 3, 8)].into_iter().enumerate()
    {
        let sizes = Sizes {
            batch: 2,
            q_heads: kv_heads * groups,
            kv_heads,
            seq_len,
            dim: 6,
            value_dim: 5,
            block_size,
            num_sel: 3,
            sel_heads: kv_heads,
        };
        let case = Case {
            sel_scale: Some(Values::normal()),
            d_lse: Some(Values::normal()),
            d_sliding: Some(Values::normal()),
            sliding_window: Some(4),
            selection: nsa_corpus::Selection::Any {},
            ..Case::ordinary(sizes, 100 + seed as u64)
        };
        cases.push(case.materialize(Dtype::F64).unwrap());
    }
    cases
}

fn attend(parts: InputParts) -> Outputs {
    oracle::attend(&Inputs::new(parts).unwrap())
}

/// Roundings on the way to one element: every term of a row once in the score, the weight, the sum and the gradient, times the
/// rows that meet in one key; each at most one unit of 2^-53 of values of at most a few tens.
fn bound(inputs: &Inputs) -> f64 {
    let shape = inputs.shape();
    let terms = (shape.num_sel() + 1) * shape.block_size() + shape.dim();
    let rows = shape.groups() * shape.seq_len();
    (terms * rows * 32) as f64 * f64::EPSILON
}

/// The largest difference, infinite for NaN.
fn difference(left: &ArrayD<f64>, right: &ArrayD<f64>) -> f64 {
    assert_eq!(left.shape(), right.shape());
    left.iter().zip(right).fold(0.0, |worst, (left, right)| {
        let error = if left == right { 0.0 } else { (left - right).abs() };
        if error <= worst { worst } else { error }
    })
}

fn assert_same(expected: &Outputs, found: &Outputs, bound: f64) {
    assert_eq!(expected.iter().count(), found.iter().count());
    for (field, expected) in expected.iter() {
        let error = difference(expected, found.get(field).unwrap());
        assert!(error <= bound, "{field}: {error:e} above {bound:e}");
    }
}

#[test]
fn reversing_batches_or_heads_reverses_the_answer() {
    for inputs in cases() {
        let expected = oracle::attend(&inputs);
        for axis in [0, 1] {
            let found = attend(reversed_parts(&inputs, axis));
            for (field, tensor) in expected.iter() {
                // Where the heads of a group are added up, their order is another; everywhere else the bits are the same.
                let summed = axis == 1 && matches!(field, Field::Dk | Field::Dv | Field::DselScale);
                let allowed = if summed { bound(&inputs) } else { 0.0 };
                let error = difference(&reversed(tensor, axis), found.get(field).unwrap());
                assert!(error <= allowed, "{field}, axis {axis}: {error:e}");
            }
        }
    }
}

#[test]
fn the_order_of_the_slots_does_not_matter() {
    for inputs in cases() {
        let mut expected = oracle::attend(&inputs);
        let mut parts = inputs.clone().into_parts();
        reverse_slots(&mut parts);
        expected.set(Field::DselScale, reversed(expected.get(Field::DselScale).unwrap(), 3));
        assert_same(&expected, &attend(parts), bound(&inputs));
    }
}

#[test]
fn a_masked_slot_is_a_slot_that_is_not_there() {
    for inputs in cases() {
        let mut masked = inputs.clone().into_parts();
        mask_last_slot(&mut masked);
        let mut removed = inputs.clone().into_parts();
        drop_last_slot(&mut removed);
        let (mut masked, mut removed) = (attend(masked), attend(removed));
        let gradient = masked.take(Field::DselScale).unwrap();
        assert!(gradient.index_axis(Axis(3), 2).iter().all(|value| *value == 0.0), "exactly 0");
        let rest = without_last(&gradient, 3);
        assert!(difference(&removed.take(Field::DselScale).unwrap(), &rest) <= bound(&inputs));
        assert_same(&removed, &masked, bound(&inputs));
    }
}

#[test]
fn all_keys_twice_add_ln_2_and_change_no_weight() {
    for inputs in cases() {
        let mut once = inputs.clone().into_parts();
        once.include_block_causal = false;
        let mut doubled = once.clone();
        double_slots(&mut doubled);
        let (once, doubled) = (attend(once), attend(doubled));
        let more = once.get(Field::Lse).unwrap().mapv(|lse| lse + std::f64::consts::LN_2);
        assert!(difference(&more, doubled.get(Field::Lse).unwrap()) <= bound(&inputs));
        for field in [Field::Out, Field::Dq, Field::Dk, Field::Dv] {
            let error = difference(once.get(field).unwrap(), doubled.get(field).unwrap());
            assert!(error <= 2.0 * bound(&inputs), "{field}: {error:e}");
        }
    }
}

#[test]
fn out_is_linear_in_the_values_and_lse_ignores_them() {
    for inputs in cases() {
        let mut scaled = inputs.clone().into_parts();
        scaled.v.mapv_inplace(|value| -4.0 * value);
        let (plain, scaled) = (oracle::attend(&inputs), attend(scaled));
        // A power of two scales without rounding: the same bits.
        for field in [Field::Out, Field::SlidingOut] {
            assert_eq!(plain.get(field).unwrap().mapv(|value| -4.0 * value), *scaled.get(field).unwrap(), "{field}");
        }
        assert_eq!(plain.get(Field::Lse), scaled.get(Field::Lse));
        assert_eq!(plain.get(Field::Dv), scaled.get(Field::Dv), "the weights alone decide dv");
    }
}

#[test]
fn gradients_are_linear_in_the_cotangents() {
    for inputs in cases() {
        let scaled = |factor: f64| {
            let mut parts = inputs.clone().into_parts();
            let cotangents = &mut parts.cotangents;
            for tensor in [&mut cotangents.d_out, &mut cotangents.d_sliding].into_iter().flatten() {
                tensor.mapv_inplace(|value| value * factor);
            }
            cotangents.d_lse.iter_mut().for_each(|tensor| tensor.mapv_inplace(|value| value * factor));
            attend(parts)
        };
        let (plain, eight, none) = (scaled(1.0), scaled(8.0), scaled(0.0));
        for field in Field::ALL.into_iter().filter(|field| field.is_gradient()) {
            assert_eq!(plain.get(field).unwrap().mapv(|value| 8.0 * value), *eight.get(field).unwrap(), "{field}");
            assert!(none.get(field).unwrap().iter().all(|value| *value == 0.0), "{field}");
        }
    }
}

#[test]
fn the_parts_of_the_loss_add_up() {
    for inputs in cases() {
        let only = |part: usize| {
            let mut parts = inputs.clone().into_parts();
            let cotangents = &mut parts.cotangents;
            cotangents.d_out = cotangents.d_out.take().filter(|_| part == 0);
            cotangents.d_lse = cotangents.d_lse.take().filter(|_| part == 1);
            cotangents.d_sliding = cotangents.d_sliding.take().filter(|_| part == 2);
            attend(parts)
        };
        let (whole, parts) = (oracle::attend(&inputs), [only(0), only(1), only(2)]);
        for field in Field::ALL.into_iter().filter(|field| field.is_gradient()) {
            let [first, second, third] = parts.each_ref().map(|part| part.get(field).unwrap());
            let sum = &(first + second) + third;
            let error = difference(&sum, whole.get(field).unwrap());
            assert!(error <= bound(&inputs), "{field}: {error:e}");
        }
    }
}

#[test]
fn a_batch_element_alone_gets_the_same_bits() {
    for inputs in cases() {
        let whole = oracle::attend(&inputs);
        for batch in 0..inputs.shape().batch() {
            let one = batch..batch + 1;
            let cut = |tensor: &Array4<f64>| tensor.slice_axis(Axis(0), one.clone().into()).to_owned();
            let mut parts = inputs.clone().into_parts();
            parts.indices = parts.indices.slice_axis(Axis(0), one.clone().into()).to_owned();
            parts.mask = parts.mask.slice_axis(Axis(0), one.clone().into()).to_owned();
            for tensor in [&mut parts.q, &mut parts.k, &mut parts.v] {
                *tensor = cut(tensor);
            }
            let cotangents = &mut parts.cotangents;
            for tensor in [&mut parts.sel_scale, &mut cotangents.d_out, &mut cotangents.d_sliding] {
                *tensor = tensor.as_ref().map(cut);
            }
            let lse = cotangents.d_lse.take();
            cotangents.d_lse = lse.map(|tensor| tensor.slice_axis(Axis(0), one.clone().into()).to_owned());
            for (field, tensor) in attend(parts).iter() {
                let expected = whole.get(field).unwrap().slice_axis(Axis(0), one.clone().into()).to_owned();
                assert_eq!(expected, *tensor, "{field}");
            }
        }
    }
}

#[test]
fn a_selection_of_each_query_head_is_repeated_keys() {
    for inputs in cases() {
        let groups = inputs.shape().groups();
        let mut each = inputs.clone().into_parts();
        each.indices = repeated(&each.indices, groups);
        each.mask = repeated(&each.mask, groups);
        each.sel_scale = each.sel_scale.as_ref().map(|tensor| repeated(tensor, groups));
        let mut own = each.clone();
        own.k = repeated(&own.k, groups);
        own.v = repeated(&own.v, groups);
        let (each, own) = (attend(each), attend(own));
        for field in [Field::Out, Field::Lse, Field::SlidingOut, Field::Dq, Field::DselScale] {
            assert!(difference(own.get(field).unwrap(), each.get(field).unwrap()) <= bound(&inputs), "{field}");
        }
        for field in [Field::Dk, Field::Dv] {
            let parts = own.get(field).unwrap();
            let (mut shape, sum) = (parts.shape().to_vec(), each.get(field).unwrap());
            shape.splice(1..2, [shape[1] / groups, groups]);
            let summed = parts.to_shape(shape).unwrap().sum_axis(Axis(2));
            assert!(difference(&summed, sum) <= bound(&inputs), "{field}");
        }
    }
}

#[test]
fn a_shift_of_every_logit_shifts_lse_alone() {
    for inputs in cases() {
        // One more feature, 1 in every query and 7 in every key, adds 7 to every live score before the scale; padded keys and
        // factors would not shift alike, so both are left out.
        let mut parts = inputs.clone().into_parts();
        if inputs.shape().padded_len() != inputs.shape().seq_len() {
            parts.mask.fill(false);
        }
        parts.sel_scale = None;
        // The feature is there before the shift too: dim, and with it the scale, stay.
        let shifted = |key: f64| {
            let mut parts = parts.clone();
            parts.q.index_axis_mut(Axis(3), 0).fill(1.0);
            parts.k.index_axis_mut(Axis(3), 0).fill(key);
            attend(parts)
        };
        let (plain, moved) = (shifted(0.0), shifted(7.0));
        let shift = 7.0 * inputs.shape().scale();
        let more = plain.get(Field::Lse).unwrap().mapv(|lse| lse + shift);
        assert!(difference(&more, moved.get(Field::Lse).unwrap()) <= bound(&inputs));
        for field in [Field::Out, Field::SlidingOut, Field::Dv] {
            assert!(difference(plain.get(field).unwrap(), moved.get(field).unwrap()) <= bound(&inputs), "{field}");
        }
    }
}

#[test]
fn the_properties_would_notice_a_wrong_answer() {
    let inputs = &cases()[1];
    let right = oracle::attend(inputs);
    for field in Field::ALL {
        let mut wrong = right.clone();
        *wrong.get_mut(field).unwrap().iter_mut().last().unwrap() += 1e-9;
        assert!(!(difference(right.get(field).unwrap(), wrong.get(field).unwrap()) <= bound(inputs)), "{field}");
    }
}
