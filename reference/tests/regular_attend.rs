//! The transcription against a row-by-row program, and its own oddities.

mod common;

use common::{assert_close, naive, problem};
use ndarray::{Array3, Array4};
use nsa_corpus::{Cotangents, Dtype, Field, InputParts, Inputs};
use nsa_reference::regular_attend::attend;

#[test]
fn the_transcription_in_f64_equals_the_row_by_row_program() {
    for seed in 0..600 {
        let inputs = problem(seed, Dtype::F64);
        assert_close(&inputs, &attend::<f64>(&inputs), &naive::attend(&inputs), 2e-13, &format!("problem {seed}"));
    }
}

#[test]
fn the_transcription_in_f32_keeps_single_precision() {
    for seed in 0..200 {
        let inputs = problem(seed, Dtype::F32);
        assert_close(&inputs, &attend::<f32>(&inputs), &naive::attend(&inputs), 3e-5, &format!("problem {seed}"));
    }
}

/// One head, two blocks of 2 over 3 tokens; query 0 selects the partial block 1.
fn partial_block() -> InputParts {
    let ones = |tokens| Array4::ones((1, 1, tokens, 1));
    let mut mask = Array4::from_elem((1, 1, 3, 1), false);
    mask[[0, 0, 0, 0]] = true;
    InputParts {
        block_size: 2,
        include_block_causal: true,
        sliding_window: None,
        dtype: Dtype::F64,
        q: ones(3),
        k: ones(3),
        v: ones(3),
        indices: Array4::from_elem((1, 1, 3, 1), 1),
        mask,
        sel_scale: None,
        cotangents: Cotangents { d_lse: Some(Array3::ones((1, 1, 3))), ..Cotangents::default() },
    }
}

#[test]
fn padded_keys_of_a_selected_partial_block_count_in_the_denominator() {
    let outputs = attend::<f64>(&Inputs::new(partial_block()).unwrap());
    let e = 1f64.exp();
    let lse = outputs.get(Field::Lse).unwrap()[[0, 0, 0]];
    assert!((lse - (2.0 * e + 1.0).ln()).abs() < 1e-15, "itself, token 2 and one padded key: {lse}");
    let out = outputs.get(Field::Out).unwrap()[[0, 0, 0, 0]];
    assert!((out - 2.0 * e / (2.0 * e + 1.0)).abs() < 1e-15, "{out}");
}

#[test]
fn a_factor_of_zero_keeps_the_keys_as_live_ones_of_score_zero() {
    let parts = InputParts { sel_scale: Some(Array4::zeros((1, 1, 3, 1))), ..partial_block() };
    let outputs = attend::<f64>(&Inputs::new(parts).unwrap());
    let lse = outputs.get(Field::Lse).unwrap()[[0, 0, 0]];
    assert!((lse - (1f64.exp() + 2.0).ln()).abs() < 1e-15, "{lse}");
    assert!(outputs.get(Field::DselScale).unwrap()[[0, 0, 0, 0]] != 0.0);
}

#[test]
fn a_row_without_keys_answers_zero_and_minus_infinity() {
    let parts = InputParts { include_block_causal: false, ..partial_block() };
    let outputs = attend::<f64>(&Inputs::new(parts).unwrap());
    assert_eq!(outputs.get(Field::Out).unwrap()[[0, 0, 1, 0]], 0.0);
    assert_eq!(outputs.get(Field::Lse).unwrap()[[0, 0, 1]], f64::NEG_INFINITY);
    assert_eq!(outputs.get(Field::Dq).unwrap()[[0, 0, 1, 0]], 0.0);
    assert!(outputs.get(Field::Lse).unwrap()[[0, 0, 0]].is_finite());
}

#[test]
fn nan_under_a_weight_of_zero_reaches_the_row_as_in_the_original() {
    let mut parts = partial_block();
    parts.v[[0, 0, 1, 0]] = f64::NAN;
    let outputs = attend::<f64>(&Inputs::new(parts).unwrap());
    // Token 1 is later than query 0: its score is masked, its NaN value is not.
    assert!(outputs.get(Field::Out).unwrap()[[0, 0, 0, 0]].is_nan());
    assert!(outputs.get(Field::Lse).unwrap()[[0, 0, 0]].is_finite());
}

#[test]
fn a_masked_slot_has_no_gradient_even_beside_nan() {
    let mut parts = partial_block();
    (parts.mask, parts.sel_scale) = (Array4::from_elem((1, 1, 3, 1), false), Some(Array4::ones((1, 1, 3, 1))));
    parts.v[[0, 0, 2, 0]] = f64::NAN;
    parts.cotangents = Cotangents { d_out: Some(Array4::ones((1, 1, 3, 1))), ..Cotangents::default() };
    let outputs = attend::<f64>(&Inputs::new(parts).unwrap());
    // The NaN has weight 0 in row 0, and 0 * NaN spreads over that row; the slot's own score was replaced, and owes nothing.
    assert!(outputs.get(Field::Dq).unwrap()[[0, 0, 0, 0]].is_nan());
    assert!(outputs.get(Field::DselScale).unwrap().iter().all(|gradient| *gradient == 0.0));
}
