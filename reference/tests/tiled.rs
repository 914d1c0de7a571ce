//! The tiled candidate against the transcription, element type by element type, and its promises of its own.

mod common;

use common::{Draw, assert_close, distance, problem};
use ndarray::Array4;
use nsa_corpus::{Cotangents, Dot, Dtype, Field, InputParts, Inputs, Outputs};
use nsa_reference::{regular_attend, tiled};

#[test]
fn the_candidate_in_f64_equals_the_transcription() {
    for seed in 0..600 {
        let inputs = problem(seed, Dtype::F64);
        let expected = regular_attend::attend::<f64>(&inputs);
        assert_close(&inputs, &tiled::attend(&inputs), &expected, 2e-13, &format!("problem {seed}"));
    }
}

#[test]
fn the_candidate_in_f32_is_as_good_as_the_transcription_in_f32() {
    // Logits here reach 60, so that a score errs by up to 60 * 4u and a weight by 240u = 1.4e-5 of itself; what is
    // linear in the weights stays within a few times that. Budgets element by element are the harness's work.
    for seed in 0..600 {
        let inputs = problem(seed, Dtype::F32);
        let expected = regular_attend::attend::<f64>(&inputs);
        assert_close(&inputs, &tiled::attend(&inputs), &expected, 6e-5, &format!("problem {seed}"));
    }
}

#[test]
fn sixteen_bit_candidates_err_by_their_casts_and_no_more() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        // One cast of P or dS, one of the stored value; dS, and with it a gradient, carries the error of the stored
        // `out` through delta as well. Against the largest magnitude of the tensor a few units remain, more only where
        // terms larger than the answer cancel.
        let allowed = 60.0 * dtype.unit_roundoff();
        for seed in 0..400 {
            let inputs = problem(seed, dtype);
            let expected = regular_attend::attend::<f64>(&inputs);
            assert_close(&inputs, &tiled::attend(&inputs), &expected, allowed, &format!("problem {seed} {dtype}"));
        }
    }
}

#[test]
fn stored_values_are_exact_in_the_declared_formats() {
    for dtype in Dtype::ALL {
        let arithmetic = tiled::arithmetic(dtype);
        for seed in 0..40 {
            for (field, values) in tiled::attend(&problem(seed, dtype)).iter() {
                let stored = arithmetic.stored(field);
                assert!(values.iter().all(|value| stored.round(*value) == *value), "{field} is not stored in {stored}");
            }
        }
    }
}

#[test]
fn no_more_than_the_error_of_f32_multiply_adds_is_declared() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let declared = tiled::arithmetic(dtype);
        let dot = Dot::Fma { unit: 2f64.powi(-24) };
        assert_eq!((declared.scores, declared.products, declared.probability), (dot, dot, dtype));
    }
}

#[test]
fn f16_inputs_are_not_answered_in_plain_f32() {
    let differs = (0..40).any(|seed| {
        let inputs = problem(seed, Dtype::F16);
        let plain = Inputs::new(InputParts { dtype: Dtype::F32, ..inputs.clone().into_parts() }).unwrap();
        let cast = |outputs: &Outputs| outputs.get(Field::Out).unwrap().mapv(|value| Dtype::F16.round(value));
        *tiled::attend(&inputs).get(Field::Out).unwrap() != cast(&tiled::attend(&plain))
    });
    assert!(differs, "P is cast to f16 before its product with v");
}

#[test]
fn the_same_bits_come_from_any_number_of_threads() {
    let inputs: Vec<Inputs> = (0..60).map(|seed| problem(seed, Dtype::ALL[seed as usize % 4])).collect();
    let answer = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| inputs.iter().map(|inputs| bits(&tiled::attend(inputs))).collect::<Vec<_>>())
    };
    let alone = answer(1);
    assert_eq!(alone, answer(7));
    assert_eq!(alone, answer(2));
}

fn bits(outputs: &Outputs) -> Vec<u64> {
    outputs.iter().flat_map(|(_, values)| values.iter().map(|value| value.to_bits())).collect()
}

/// Two blocks of 4 over 8 tokens, nothing selected but block 1 by query 1; block 0 holds token 0 to 3.
fn two_blocks() -> InputParts {
    let mut draw = Draw::new(7);
    let mut mask = Array4::from_elem((1, 1, 8, 1), false);
    mask[[0, 0, 1, 0]] = true;
    InputParts {
        block_size: 4,
        include_block_causal: true,
        sliding_window: None,
        dtype: Dtype::F32,
        q: draw.tensor((1, 1, 8, 3), 1.0),
        k: draw.tensor((1, 1, 8, 3), 1.0),
        v: draw.tensor((1, 1, 8, 3), 1.0),
        indices: Array4::from_elem((1, 1, 8, 1), 1),
        mask,
        sel_scale: None,
        cotangents: Cotangents { d_out: Some(Array4::ones((1, 1, 8, 3))), ..Cotangents::default() },
    }
}

#[test]
fn nan_in_a_block_that_a_row_does_not_attend_never_reaches_it() {
    let mut parts = two_blocks();
    for d in 0..3 {
        parts.k[[0, 0, 6, d]] = f64::NAN;
        parts.v[[0, 0, 6, d]] = f64::INFINITY;
    }
    let outputs = tiled::attend(&Inputs::new(parts).unwrap());
    for token in 0..8 {
        let reached = token == 1 || token >= 6;
        let out = outputs.get(Field::Out).unwrap()[[0, 0, token, 0]];
        let dq = outputs.get(Field::Dq).unwrap()[[0, 0, token, 0]];
        assert_eq!((!out.is_finite(), !dq.is_finite()), (reached, reached), "row {token}");
    }
}

#[test]
fn a_first_tile_of_minus_infinity_does_not_poison_the_row() {
    let mut parts = two_blocks();
    parts.q.fill(1.0);
    for token in 0..4 {
        parts.k[[0, 0, token, 0]] = f64::NEG_INFINITY;
    }
    let inputs = Inputs::new(parts).unwrap();
    let (found, expected) = (tiled::attend(&inputs), regular_attend::attend::<f32>(&inputs));
    let row = |outputs: &Outputs, field| outputs.get(field).unwrap().index_axis(ndarray::Axis(2), 1).to_owned();
    assert!(row(&found, Field::Out).iter().all(|value| value.is_finite()));
    assert!(distance(&row(&found, Field::Out), &row(&expected, Field::Out)) < 1e-6);
    assert!(distance(&row(&found, Field::Lse), &row(&expected, Field::Lse)) < 1e-6);
}
