//! What a kernel may declare beside the usual arithmetic: budgets that cover it, and that the usual ones do not.

use half::f16;
use ndarray::{Array3, Array4};
use nsa_corpus::{Arithmetic, Cotangents, Dtype, Field, InputParts, Inputs, RunningSum};
use nsa_reference::oracle;

const KEYS: usize = 64;
const SCORE: f32 = 3001.0;

/// The last row of `KEYS` attends to all keys one by one, each of score `SCORE` and value 1.
fn one_long_row() -> Inputs {
    let past = |(_, _, i, s): (usize, usize, usize, usize)| if s < i { s as i64 } else { 0 };
    Inputs::new(InputParts {
        q: Array4::from_elem((1, 1, KEYS, 1), 1.0),
        k: Array4::from_elem((1, 1, KEYS, 1), f64::from(SCORE)),
        v: Array4::from_elem((1, 1, KEYS, 1), 1.0),
        indices: Array4::from_shape_fn((1, 1, KEYS, KEYS - 1), past),
        mask: Array4::from_shape_fn((1, 1, KEYS, KEYS - 1), |(_, _, i, s)| s < i),
        sel_scale: None,
        cotangents: Cotangents::default(),
        block_size: 1,
        include_block_causal: true,
        sliding_window: None,
        dtype: Dtype::F32,
    })
    .unwrap()
}

/// As triton_nsa's forward does in f32: the sum is never kept, only its logarithm. `out` and `lse`.
fn by_logarithms() -> [f64; 2] {
    let (mut lse, mut accumulated) = (f32::NEG_INFINITY, 0.0f32);
    for _ in 0..KEYS {
        accumulated += 1.0;
        lse = SCORE + ((lse - SCORE).exp() + 1.0).ln();
    }
    [accumulated * (SCORE - lse).exp(), lse].map(f64::from)
}

#[test]
fn a_running_logarithm_is_covered_where_it_is_declared() {
    let inputs = one_long_row();
    let plain = Arithmetic { rescale_every: Some(1), ..Arithmetic::f32() };
    let declared = Arithmetic { running_sum: RunningSum::Logarithm, ..plain.clone() };
    let error_to_budget = |arithmetic: &Arithmetic, field: Field, found: f64| {
        let answer = oracle::forward(&inputs, Some(arithmetic));
        let last = |tensor: &ndarray::ArrayD<f64>| tensor.as_slice().unwrap()[KEYS - 1];
        let budget = last(answer.bounds.unwrap().rigorous.get(field).unwrap());
        (found - last(answer.outputs.get(field).unwrap())).abs() / budget
    };
    let [out, lse] = by_logarithms();
    for (field, found) in [(Field::Out, out), (Field::Lse, lse)] {
        let ratio = error_to_budget(&declared, field, found);
        assert!(ratio <= 1.0, "{field}: {ratio}");
    }
    let ratio = error_to_budget(&plain, Field::Out, out);
    assert!(ratio > 1.0, "it is more than the plain sum's budget: {ratio}");
}

#[test]
fn heads_added_in_f16_are_covered_where_they_are_declared() {
    const HEADS: usize = 8;
    // A number of f16 that a sum of 1 in f16 cannot take in.
    let small = f16::from_f64(0.0004).to_f64();
    let inputs = Inputs::new(InputParts {
        q: Array4::zeros((1, HEADS, 1, 1)),
        k: Array4::zeros((1, 1, 1, 1)),
        v: Array4::zeros((1, 1, 1, 1)),
        indices: Array4::zeros((1, 1, 1, 0)),
        mask: Array4::from_elem((1, 1, 1, 0), true),
        sel_scale: None,
        cotangents: Cotangents {
            d_out: Some(Array4::from_shape_fn((1, HEADS, 1, 1), |(_, head, ..)| if head == 0 { 1.0 } else { small })),
            d_lse: None::<Array3<f64>>,
            d_sliding: None,
        },
        block_size: 1,
        include_block_causal: true,
        sliding_window: None,
        dtype: Dtype::F16,
    })
    .unwrap();
    // The only key has weight 1 in every head.
    let d_out = inputs.cotangents().d_out.as_ref().unwrap();
    let found = d_out.iter().fold(f16::ZERO, |sum, value| sum + f16::from_f64(*value)).to_f64();
    let plain = Arithmetic { gradient: Dtype::F32, ..Arithmetic::tensor_core(Dtype::F16) };
    let declared = Arithmetic { value_gradient_products: Some(Dtype::F16), ..plain.clone() };
    let error_to_budget = |arithmetic: &Arithmetic| {
        let saved = oracle::attend(&inputs);
        let answer = oracle::backward(&inputs, &saved, Some(arithmetic));
        let budget = answer.bounds.unwrap().rigorous.get(Field::Dv).unwrap().sum();
        (found - answer.outputs.get(Field::Dv).unwrap().sum()).abs() / budget
    };
    assert!(error_to_budget(&declared) <= 1.0, "{}", error_to_budget(&declared));
    assert!(error_to_budget(&plain) > 1.0, "{}", error_to_budget(&plain));
}
