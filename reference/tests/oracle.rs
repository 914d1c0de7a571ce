//! The oracle against the transcription, and against itself on other thread counts.

mod common;

use std::collections::BTreeSet;

use common::Draw;
use ndarray::{Array3, Array4};
use nsa_corpus::{Arithmetic, BackwardReads, Cotangents, Delta, Dtype, Field, InputParts, Inputs, Outputs};
use nsa_reference::oracle::{Sample, SampledField};
use nsa_reference::{oracle, regular_attend};

/// A small problem over every option of the contract.
fn problem(seed: u64) -> Inputs {
    let mut draw = Draw::new(seed);
    let (b, kv_heads, groups) = (1 + draw.below(2), 1 + draw.below(2), 1 + draw.below(6));
    let (n, dim, value_dim, block_size) =
        (1 + draw.below(40), 1 + draw.below(20), 1 + draw.below(20), 1 + draw.below(18));
    let q_heads = kv_heads * groups;
    let num_sel = draw.below(4);
    let sel_heads = if draw.below(2) == 0 { kv_heads } else { q_heads };
    let blocks = n.div_ceil(block_size);
    let slots = (b, sel_heads, n, num_sel);
    let sliding_window = (draw.below(2) == 0).then(|| draw.below(2 * n));
    let d_out = (draw.below(4) > 0).then(|| draw.tensor((b, q_heads, n, value_dim), 1.7));
    let d_lse = (draw.below(2) > 0).then(|| Array3::from_shape_simple_fn((b, q_heads, n), || draw.normal()));
    let d_sliding = sliding_window.filter(|_| draw.below(4) > 0).map(|_| draw.tensor((b, q_heads, n, value_dim), 1.7));
    Inputs::new(InputParts {
        block_size,
        include_block_causal: draw.below(4) > 0,
        sliding_window,
        dtype: Dtype::F64,
        q: draw.tensor((b, q_heads, n, dim), 1.7),
        k: draw.tensor((b, kv_heads, n, dim), 1.7),
        v: draw.tensor((b, kv_heads, n, value_dim), 1.7),
        indices: Array4::from_shape_simple_fn(slots, || draw.below(blocks) as i64),
        mask: Array4::from_shape_simple_fn(slots, || draw.below(3) > 0),
        sel_scale: (draw.below(2) > 0).then(|| draw.tensor(slots, 1.7)),
        cotangents: Cotangents { d_out, d_lse, d_sliding },
    })
    .unwrap()
}

/// The same problem with every tensor made of magnitudes bounds each sum's terms; here the largest element serves.
fn assert_close(expected: &Outputs, found: &Outputs, seed: u64) {
    for field in Field::ALL {
        let (Some(expected), Some(found)) = (expected.get(field), found.get(field)) else {
            assert_eq!(expected.get(field).is_some(), found.get(field).is_some(), "{field} of {seed}");
            continue;
        };
        let finite = expected.iter().filter(|value| value.is_finite());
        let largest = finite.fold(1.0f64, |largest, value| largest.max(value.abs()));
        for (index, expected) in expected.indexed_iter() {
            let found = found[&index];
            let same = *expected == found || (expected - found).abs() <= 1e-13 * largest;
            assert!(same, "seed {seed} {field}{index:?}: {expected} and {found}, largest {largest}");
        }
    }
}

#[test]
fn it_agrees_with_the_transcription_over_every_option() {
    for seed in 0..600 {
        let inputs = problem(seed);
        assert_close(&regular_attend::attend::<f64>(&inputs), &oracle::attend(&inputs), seed);
    }
}

#[test]
fn more_tokens_than_one_chunk_make_no_difference() {
    // The backward takes at most 512 tokens at a time.
    let (mut draw, n) = (Draw::new(41), 1100);
    let inputs = Inputs::new(InputParts {
        block_size: 5,
        include_block_causal: true,
        sliding_window: Some(7),
        dtype: Dtype::F64,
        q: draw.tensor((1, 2, n, 3), 1.7),
        k: draw.tensor((1, 1, n, 3), 1.7),
        v: draw.tensor((1, 1, n, 2), 1.7),
        indices: Array4::from_shape_simple_fn((1, 1, n, 1), || draw.below(n / 5) as i64),
        mask: Array4::from_shape_simple_fn((1, 1, n, 1), || draw.below(3) > 0),
        sel_scale: Some(draw.tensor((1, 1, n, 1), 1.7)),
        cotangents: Cotangents {
            d_out: Some(draw.tensor((1, 2, n, 2), 1.7)),
            d_lse: None,
            d_sliding: Some(draw.tensor((1, 2, n, 2), 1.7)),
        },
    })
    .unwrap();
    assert_close(&regular_attend::attend::<f64>(&inputs), &oracle::attend(&inputs), 41);
}

#[test]
fn the_backward_from_its_own_saved_outputs_is_the_whole_backward() {
    for seed in 0..200 {
        let inputs = problem(seed);
        let whole = oracle::attend(&inputs);
        let gradients = oracle::backward(&inputs, &whole, None).outputs;
        let mut expected = whole.clone();
        Field::ALL.into_iter().filter(|field| !field.is_gradient()).for_each(|field| drop(expected.take(field)));
        assert_close(&expected, &gradients, seed);
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let bits = |threads: usize| -> Vec<Vec<u64>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let inputs = problem(11);
            let arithmetic = Arithmetic::f32();
            let forward = oracle::forward(&inputs, Some(&arithmetic));
            let backward = oracle::backward(&inputs, &forward.outputs, Some(&arithmetic));
            let (forward_bounds, backward_bounds) = (forward.bounds.unwrap(), backward.bounds.unwrap());
            let answers = [
                oracle::attend(&inputs),
                forward.outputs,
                backward.outputs,
                forward_bounds.rigorous,
                backward_bounds.rigorous,
                backward_bounds.likely,
            ];
            let tensors = answers.iter().flat_map(Outputs::iter);
            tensors.map(|(_, tensor)| tensor.iter().map(|value| value.to_bits()).collect()).collect()
        })
    };
    let one = bits(1);
    assert!(one.len() > 8);
    assert_eq!(one, bits(2));
    assert_eq!(one, bits(7));
}

#[test]
fn the_likely_budget_is_never_above_the_rigorous_one() {
    let mut tighter = 0;
    for seed in 0..100 {
        let inputs = problem(seed);
        for arithmetic in [Arithmetic::f32(), Arithmetic::tensor_core(Dtype::Bf16)] {
            let forward = oracle::forward(&inputs, Some(&arithmetic));
            let backward = oracle::backward(&inputs, &forward.outputs, Some(&arithmetic));
            for bounds in [forward.bounds.unwrap(), backward.bounds.unwrap()] {
                for (field, rigorous) in bounds.rigorous.iter() {
                    for (likely, rigorous) in bounds.likely.get(field).unwrap().iter().zip(rigorous) {
                        assert!(likely <= rigorous, "seed {seed} {field}: {likely:e} above {rigorous:e}");
                        tighter += usize::from(likely < rigorous);
                    }
                }
            }
        }
    }
    assert!(tighter > 1000, "{tighter}");
}

/// Some tokens and keys of a problem.
fn sample(inputs: &Inputs, seed: u64) -> Sample {
    let mut draw = Draw::new(seed + 1000);
    let shape = inputs.shape();
    let mut some = || -> BTreeSet<[usize; 3]> {
        (0..5).map(|_| [draw.below(shape.batch()), draw.below(shape.kv_heads()), draw.below(shape.seq_len())]).collect()
    };
    Sample { tokens: some(), keys: some() }
}

/// Every sampled row is, to the bit, the row of the whole answer. Returns the fields that were compared.
fn assert_rows(sampled: &[SampledField], values: &Outputs, rigorous: &Outputs, likely: Option<&Outputs>) -> usize {
    for rows in sampled {
        let shape = values.get(rows.field).unwrap().shape();
        let width = if shape.len() == 3 { 1 } else { shape[3] };
        assert_eq!(rows.values.dim(), (rows.positions.len(), width), "{}", rows.field);
        for (row, position) in rows.positions.iter().enumerate() {
            let whole = |outputs: &Outputs, column: usize| {
                let tensor = outputs.get(rows.field).unwrap();
                tensor[&[&position[..], &[column]].concat()[..tensor.ndim()]].to_bits()
            };
            for column in 0..rows.values.dim().1 {
                let (at, what) = ([row, column], format!("{} {position:?} {column}", rows.field));
                assert_eq!(rows.values[at].to_bits(), whole(values, column), "{what}");
                assert_eq!(rows.rigorous[at].to_bits(), whole(rigorous, column), "{what}");
                assert!(likely.is_none_or(|likely| rows.likely[at].to_bits() == whole(likely, column)), "{what}");
            }
        }
    }
    sampled.len()
}

#[test]
fn a_sampled_position_outside_the_problem_is_refused() {
    let inputs = problem(3);
    let shape = inputs.shape();
    let (last, none) = ([shape.batch() - 1, shape.kv_heads() - 1, shape.seq_len() - 1], BTreeSet::new);
    for axis in 0..3 {
        let mut outside = last;
        outside[axis] += 1;
        for sample in
            [Sample { tokens: [outside].into(), keys: none() }, Sample { tokens: none(), keys: [last, outside].into() }]
        {
            let refused = std::panic::catch_unwind(|| oracle::sampled_forward(&inputs, &sample, &Arithmetic::f32()));
            let message = *refused.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains(&format!("{outside:?} is outside the problem")), "{message}");
        }
    }
    let inside = Sample { tokens: [last].into(), keys: [last].into() };
    assert!(!oracle::sampled_forward(&inputs, &inside, &Arithmetic::f32()).is_empty());
}

#[test]
fn a_part_that_the_loss_does_not_contain_reaches_no_gradient() {
    // An infinite key that tokens of the next block see in their window alone.
    let n = 10;
    let parts = |window| InputParts {
        block_size: 5,
        include_block_causal: true,
        sliding_window: window,
        dtype: Dtype::F64,
        q: Array4::ones((1, 1, n, 2)),
        k: Array4::from_shape_fn((1, 1, n, 2), |(_, _, token, _)| if token == 4 { f64::INFINITY } else { 0.5 }),
        v: Array4::from_shape_fn((1, 1, n, 2), |(_, _, token, feature)| (token + feature) as f64),
        indices: Array4::zeros((1, 1, n, 1)),
        mask: Array4::from_elem((1, 1, n, 1), false),
        sel_scale: None,
        cotangents: Cotangents { d_out: Some(Array4::ones((1, 1, n, 2))), ..Cotangents::default() },
    };
    let [without, with] = [None, Some(4)].map(|window| oracle::attend(&Inputs::new(parts(window)).unwrap()));
    assert!(with.get(Field::SlidingLse).unwrap().iter().any(|lse| !lse.is_finite()));
    for field in [Field::Dq, Field::Dk, Field::Dv] {
        let [without, with] = [&without, &with].map(|answer| answer.get(field).unwrap());
        for (at, expected) in without.indexed_iter().filter(|(at, _)| at[2] >= 5) {
            assert!(expected.is_finite() && with[&at] == *expected, "{field} {at:?}: {} and {expected}", with[&at]);
        }
    }
}

#[test]
fn a_sampled_row_is_the_row_of_the_whole_answer_to_the_bit() {
    let mut compared = 0;
    for seed in 0..150 {
        let inputs = problem(seed);
        let sample = sample(&inputs, seed);
        let arithmetic = match seed % 4 {
            0 => Arithmetic::f32(),
            3 => Arithmetic { backward_reads: BackwardReads::Own, ..Arithmetic::tensor_core(Dtype::F16) },
            1 => Arithmetic { delta: Delta::Probabilities, ..Arithmetic::f32() },
            _ => Arithmetic::tensor_core(Dtype::Bf16),
        };
        let forward = oracle::forward(&inputs, Some(&arithmetic));
        let saved = &forward.outputs;
        let backward = oracle::backward(&inputs, saved, Some(&arithmetic));
        let order = oracle::order_bounds(&inputs, saved, &arithmetic);
        let [forward_bounds, backward_bounds] = [&forward, &backward].map(|answer| answer.bounds.as_ref().unwrap());
        let rows = oracle::sampled_forward(&inputs, &sample, &arithmetic);
        compared += assert_rows(&rows, saved, &forward_bounds.rigorous, Some(&forward_bounds.likely));
        let rows = oracle::sampled_backward(&inputs, saved, &sample, &arithmetic);
        compared += assert_rows(&rows, &backward.outputs, &backward_bounds.rigorous, Some(&backward_bounds.likely));
        let rows = oracle::sampled_order_bounds(&inputs, Some(saved), &sample, &arithmetic);
        let mut both = backward.outputs.clone();
        saved.iter().for_each(|(field, tensor)| both.set(field, tensor.clone()));
        let fields = Field::ALL.into_iter().filter(|field| field.asked_by(&inputs));
        let empty = usize::from(Field::DselScale.asked_by(&inputs) && inputs.shape().num_sel() == 0);
        assert_eq!(
            assert_rows(&rows, &both, &order, None),
            fields.count() - empty,
            "seed {seed}: every field is there"
        );
    }
    assert!(compared > 600, "{compared}");
}
