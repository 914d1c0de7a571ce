//! The oracle's budgets against a second program of the same formulas (docs/numerics.md), and against numbers worked out by
//! hand.

mod common;

use common::Draw;
use common::budgets::{Budgets, Tier};
use ndarray::Array4;
use nsa_corpus::{
    Arithmetic, BackwardReads, Cotangents, Delta, Dot, Dtype, Field, InputParts, Inputs, Outputs, RunningSum,
};
use nsa_reference::oracle::{self, Answer, Bounds};

/// Some of all of the kinds below.
const PROBLEMS: u64 = 600;

/// Every option, and numbers of every size: products below the smallest normal value, weights that underflow, keys and
/// values of zero.
fn problem(draw: &mut Draw) -> Inputs {
    let (batch, kv_heads, groups) = (1 + draw.below(2), 1 + draw.below(2), draw.one_of(&[1, 2, 3, 5]));
    let q_heads = kv_heads * groups;
    let block_size = draw.one_of(&[1, 2, 3, 4, 9]);
    let seq_len = 1 + draw.below(2 * block_size + 4);
    let (dim, value_dim) = (draw.one_of(&[1, 2, 5, 9]), draw.one_of(&[1, 3, 4, 9, 17]));
    let sel_heads = draw.one_of(&[kv_heads, q_heads]);
    let slots = (batch, sel_heads, seq_len, draw.below(4));
    let rows = (batch, q_heads, seq_len, value_dim);
    let sliding_window = draw.chance(50).then(|| draw.below(seq_len + 2));
    Inputs::new(InputParts {
        block_size,
        include_block_causal: draw.chance(70),
        sliding_window,
        dtype: Dtype::F64,
        q: sizes(draw, (batch, q_heads, seq_len, dim)),
        k: sizes(draw, (batch, kv_heads, seq_len, dim)),
        v: sizes(draw, (batch, kv_heads, seq_len, value_dim)),
        indices: Array4::from_shape_simple_fn(slots, || draw.below(seq_len.div_ceil(block_size)) as i64),
        mask: Array4::from_shape_simple_fn(slots, || draw.chance(60)),
        sel_scale: draw.chance(70).then(|| sizes(draw, slots)),
        cotangents: Cotangents {
            d_out: draw.chance(80).then(|| sizes(draw, rows)),
            d_lse: draw.chance(50).then(|| draw.tensor((batch, q_heads, seq_len), 1.0)),
            d_sliding: (sliding_window.is_some() && draw.chance(70)).then(|| sizes(draw, rows)),
        },
    })
    .expect("the sizes agree")
}

/// A tensor of one order of magnitude, of which some elements are 0.
fn sizes(draw: &mut Draw, dim: (usize, usize, usize, usize)) -> Array4<f64> {
    let size = draw.one_of(&[1.0, 1.0, 1.0, 12.0, 1e-25]);
    let zeros = draw.one_of(&[0, 20, 90]);
    let mut tensor = draw.tensor(dim, size);
    tensor.iter_mut().filter(|_| draw.chance(zeros)).for_each(|value| *value = 0.0);
    tensor
}

/// Any arithmetic that can be declared, sensible or not.
fn arithmetic(draw: &mut Draw) -> Arithmetic {
    let unit = draw.one_of(&[2f64.powi(-53), 2f64.powi(-24), 2f64.powi(-24), 2f64.powi(-11), 2f64.powi(-4)]);
    let dots = [
        Dot::Fma { unit },
        Dot::Fma { unit },
        Dot::Blocks { block: 16, extra_bits: 0 },
        Dot::Blocks { block: 4, extra_bits: 2 },
        Dot::Tf32 { extra_bits: 1 },
    ];
    // In f64, a budget of errors far above its roundings would rest on differences that are noise in both programs.
    let double = unit < 2f64.powi(-24);
    let exponential = draw.one_of(&[0.0, 2f64.powi(-22), 2f64.powi(-6)]);
    Arithmetic {
        unit,
        exponential: if double { 0.0 } else { exponential },
        scores: draw.one_of(&dots),
        products: draw.one_of(&dots),
        probability: draw.one_of(&Dtype::ALL),
        rescale_every: draw.one_of(&[None, Some(1), Some(3), Some(64)]),
        running_sum: draw.one_of(&[RunningSum::Plain, RunningSum::Plain, RunningSum::Logarithm]),
        value_gradient_products: draw.one_of(&[None, None, Some(Dtype::F16), Some(Dtype::Bf16)]),
        delta: if double { Delta::Output } else { draw.one_of(&[Delta::Output, Delta::Probabilities]) },
        backward_reads: draw.one_of(&[BackwardReads::Stored, BackwardReads::Stored, BackwardReads::Own]),
        output: draw.one_of(&Dtype::ALL),
        lse: draw.one_of(&Dtype::ALL),
        gradient: draw.one_of(&Dtype::ALL),
        sel_scale_gradient: draw.one_of(&Dtype::ALL),
    }
}

/// What an implementation might have saved: the oracle's answer with an error of a thousandth.
fn saved(draw: &mut Draw, forward: &Outputs) -> Outputs {
    let mut saved = forward.clone();
    for field in [Field::Out, Field::Lse, Field::SlidingOut, Field::SlidingLse] {
        let tensor = saved.get_mut(field).into_iter().flatten();
        tensor.for_each(|value| *value *= 1.0 + 1e-3 * draw.normal());
    }
    saved
}

/// Both compute in f64, whose rounding scores of up to some 10^3 amplify to less than 1e-8 of a budget. What a forgotten
/// term adds is far more in some problem.
fn assert_same(found: &Outputs, expected: &Outputs, what: &str) {
    let fields = |outputs: &Outputs| outputs.iter().map(|(field, _)| field).collect::<Vec<_>>();
    assert_eq!(fields(found), fields(expected), "{what}");
    for (field, expected) in expected.iter() {
        let found = found.get(field).unwrap();
        assert_eq!(found.shape(), expected.shape(), "{what}: {field}");
        for (index, expected) in expected.indexed_iter() {
            let found = found[&index];
            let close = expected.is_finite() && (found - expected).abs() <= 1e-8 * expected.abs();
            let same = found == *expected || close;
            assert!(same, "{what}: {field}{index:?}: found {found:e}, expected {expected:e}");
        }
    }
}

/// The oracle's own error is far below the budget of any arithmetic from f32 on: `2^29` times for each rounding.
fn assert_values(found: &Outputs, expected: &Outputs, budgets: &Outputs, what: &str) {
    for (field, budgets) in budgets.iter() {
        for (index, budget) in budgets.indexed_iter().filter(|(_, budget)| budget.is_finite()) {
            let [found, expected] = [found, expected].map(|outputs| outputs.get(field).unwrap()[&index]);
            let same = found == expected || (found - expected).abs() <= 1e-6 * budget;
            assert!(same, "{what}: {field}{index:?}: {found:e} and {expected:e}");
        }
    }
}

/// Holds every budget of both tiers, what the order of additions can do, and the values themselves to the second program's.
fn assert_budgets(inputs: &Inputs, saved: &Outputs, arithmetic: &Arithmetic, what: &str) {
    let expected = [Tier::Rigorous, Tier::Likely, Tier::Order].map(|tier| {
        let budgets = Budgets::new(inputs, arithmetic, tier);
        let backward = if inputs.cotangents().any() { budgets.backward(saved, None) } else { Default::default() };
        [budgets.forward(), backward]
    });
    let order = oracle::order_bounds(inputs, saved, arithmetic);
    let answers = [oracle::forward(inputs, Some(arithmetic)), oracle::backward(inputs, saved, Some(arithmetic))];
    for (part, Answer { outputs, bounds }) in answers.iter().enumerate() {
        let what = |tier| format!("{what}, {tier:?}, {arithmetic:?}");
        let [rigorous, likely, spread] = [0, 1, 2].map(|tier| &expected[tier][part][1]);
        let bounds = bounds.as_ref().unwrap();
        assert_same(&bounds.rigorous, rigorous, &what(Tier::Rigorous));
        assert_same(&bounds.likely, &least(likely, rigorous), &what(Tier::Likely));
        if arithmetic.unit >= 2f64.powi(-24) {
            // In f64, what both programs add up here are differences as small as their own rounding.
            assert_same(&of_part(&order, rigorous), spread, &what(Tier::Order));
            assert_values(outputs, &expected[0][part][0], rigorous, &what(Tier::Rigorous));
        }
    }
}

/// What is known of an implementation's forward: the oracle's own, off by its budgets, or of some elements what it saved.
fn partly_known(draw: &mut Draw, inputs: &Inputs, saved: &Outputs, arithmetic: &Arithmetic) -> (Outputs, Bounds) {
    let Answer { mut outputs, bounds } = oracle::forward(inputs, Some(arithmetic));
    let mut off = bounds.unwrap();
    let known = draw.one_of(&[0, 0, 30, 100]);
    for (field, saved) in saved.iter() {
        for (at, saved) in saved.indexed_iter().filter(|_| draw.chance(known)) {
            outputs.get_mut(field).unwrap()[&at] = *saved;
            off.rigorous.get_mut(field).unwrap()[&at] = 0.0;
            off.likely.get_mut(field).unwrap()[&at] = 0.0;
        }
    }
    (outputs, off)
}

/// Holds the gradients' budgets to the second program's where it is not known what an implementation saved.
fn assert_budgets_near(inputs: &Inputs, saved: &Outputs, off: &Bounds, arithmetic: &Arithmetic, what: &str) {
    if !inputs.cotangents().any() {
        return;
    }
    let tiers = [&off.rigorous, &off.likely];
    let [[_, rigorous], [_, likely]] =
        [Tier::Rigorous, Tier::Likely].map(|tier| Budgets::new(inputs, arithmetic, tier).backward(saved, Some(tiers)));
    let bounds = oracle::backward_near(inputs, saved, off, arithmetic).bounds.unwrap();
    let what = |tier| format!("{what}, not known what was saved, {tier:?}, {arithmetic:?}");
    assert_same(&bounds.rigorous, &rigorous, &what(Tier::Rigorous));
    assert_same(&bounds.likely, &least(&likely, &rigorous), &what(Tier::Likely));
}

/// The smaller of two budgets, element by element.
fn least(likely: &Outputs, rigorous: &Outputs) -> Outputs {
    let mut least = likely.clone();
    for (field, rigorous) in rigorous.iter() {
        least.get_mut(field).unwrap().zip_mut_with(rigorous, |least, rigorous| *least = least.min(*rigorous));
    }
    least
}

/// Of `outputs` the fields that `part` has.
fn of_part(outputs: &Outputs, part: &Outputs) -> Outputs {
    let mut found = Outputs::new();
    part.iter().for_each(|(field, _)| found.set(field, outputs.get(field).unwrap().clone()));
    found
}

/// Values of which some are spoiled.
fn spoil<'a>(draw: &mut Draw, values: impl ExactSizeIterator<Item = &'a mut f64>, count: usize) {
    let chosen: Vec<usize> = (0..count).map(|_| draw.below(values.len())).collect();
    let spoiled = values.enumerate().filter(|(index, _)| chosen.contains(index));
    spoiled.for_each(|(_, value)| *value = draw.one_of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e200]));
}

#[test]
fn every_budget_follows_from_the_documented_formulas() {
    for seed in 0..PROBLEMS {
        let mut draw = Draw::new(seed);
        // Half of the problems have inputs and saved outputs that are not finite.
        let spoiled = seed % 2 == 1;
        let mut parts = problem(&mut draw).into_parts();
        for tensor in [&mut parts.q, &mut parts.k, &mut parts.v].into_iter().filter(|_| spoiled) {
            let count = draw.below(3);
            spoil(&mut draw, tensor.iter_mut(), count);
        }
        let inputs = Inputs::new(parts).unwrap();
        let mut saved = saved(&mut draw, &oracle::forward(&inputs, None).outputs);
        for field in Field::ALL.into_iter().filter(|_| spoiled) {
            let count = draw.below(2);
            saved.get_mut(field).into_iter().for_each(|tensor| spoil(&mut draw, tensor.iter_mut(), count));
        }
        let (arithmetic, what) = (arithmetic(&mut draw), format!("problem {seed}"));
        assert_budgets(&inputs, &saved, &arithmetic, &what);
        let (near, off) = partly_known(&mut draw, &inputs, &saved, &arithmetic);
        assert_budgets_near(&inputs, &near, &off, &arithmetic, &what);
    }
}

#[test]
fn whatever_was_saved_within_the_forwards_budgets_is_allowed_for() {
    let mut compared = 0;
    for seed in 0..PROBLEMS / 3 {
        let mut draw = Draw::new(7000 + seed);
        // A delta from the probabilities does not follow from what was saved at all; nor do gradients of a backward that reads its own.
        let inputs = problem(&mut draw);
        let (delta, backward_reads) = (Delta::Output, BackwardReads::Stored);
        let arithmetic = Arithmetic { delta, backward_reads, ..arithmetic(&mut draw) };
        let Answer { outputs, bounds } = oracle::forward(&inputs, Some(&arithmetic));
        let off = bounds.unwrap();
        let finite = off.rigorous.iter().all(|(_, tensor)| tensor.iter().all(|off| off.is_finite()));
        // In f64 the differences are as small as our own rounding.
        if !inputs.cotangents().any() || !finite || arithmetic.unit < 2f64.powi(-24) {
            continue;
        }
        let mut saved = outputs.clone();
        // What no loss contains is multiplied by zeros.
        let cotangents = inputs.cotangents();
        let sliding = |field| matches!(field, Field::SlidingOut | Field::SlidingLse);
        let present = [cotangents.d_out.is_some() || cotangents.d_lse.is_some(), cotangents.d_sliding.is_some()];
        for (field, off) in off.rigorous.iter().filter(|(field, _)| present[usize::from(sliding(*field))]) {
            let signs = off.mapv(|off| off * draw.one_of(&[-1.0, 1.0, 1.0]));
            *saved.get_mut(field).unwrap() += &signs;
        }
        let near = oracle::backward_near(&inputs, &outputs, &off, &arithmetic);
        let given = oracle::backward(&inputs, &saved, Some(&arithmetic));
        let [near_budgets, budgets] = [near.bounds.unwrap().rigorous, given.bounds.unwrap().rigorous];
        for (field, near_budgets) in near_budgets.iter() {
            let of = |outputs: &Outputs| outputs.get(field).unwrap().clone();
            let farthest = (of(&near.outputs) - of(&given.outputs)).mapv(f64::abs) + of(&budgets);
            for (at, limit) in near_budgets.indexed_iter().filter(|(_, limit)| limit.is_finite()) {
                // What is left out is a rounding of the error itself; and the sum is in f64.
                let limit = limit * (1.0 + 4.0 * arithmetic.unit + 1e-8) + f64::MIN_POSITIVE;
                assert!(farthest[&at] <= limit, "problem {seed}: {field}{at:?}: {:e} above {limit:e}", farthest[&at]);
                compared += 1;
            }
        }
    }
    assert!(compared > 10_000, "{compared}");
}

#[test]
fn what_is_known_adds_nothing_to_a_budget() {
    for seed in 0..100 {
        let mut draw = Draw::new(8000 + seed);
        let (inputs, arithmetic) = (problem(&mut draw), arithmetic(&mut draw));
        let saved = saved(&mut draw, &oracle::forward(&inputs, None).outputs);
        let mut none = saved.clone();
        for field in Field::ALL {
            none.get_mut(field).into_iter().for_each(|tensor| tensor.fill(0.0));
        }
        let off = Bounds { rigorous: none.clone(), likely: none };
        let near = oracle::backward_near(&inputs, &saved, &off, &arithmetic).bounds.unwrap();
        let given = oracle::backward(&inputs, &saved, Some(&arithmetic)).bounds.unwrap();
        assert_eq!((near.rigorous, near.likely), (given.rigorous, given.likely), "problem {seed}");
    }
}

/// Some three hundred terms of a row and of a key, of like size.
fn crowded(draw: &mut Draw) -> Inputs {
    let (rows, keys, slots) = ((1, 2, 64, 2), (1, 1, 64, 2), (1, 1, 64, 3));
    Inputs::new(InputParts {
        block_size: 64,
        include_block_causal: true,
        sliding_window: Some(64),
        dtype: Dtype::F64,
        q: draw.tensor(rows, 0.5),
        k: draw.tensor(keys, 0.5),
        v: draw.tensor(keys, 1.0),
        indices: Array4::zeros(slots),
        mask: Array4::from_elem(slots, true),
        sel_scale: Some(draw.tensor(slots, 1.0)),
        cotangents: Cotangents {
            d_out: Some(draw.tensor(rows, 1.0)),
            d_lse: Some(draw.tensor((1, 2, 64), 1.0)),
            d_sliding: Some(draw.tensor(rows, 1.0)),
        },
    })
    .unwrap()
}

#[test]
fn over_many_terms_the_likely_budget_is_below_the_rigorous_one_and_as_documented() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        let mut draw = Draw::new(1);
        let inputs = crowded(&mut draw);
        let arithmetic = Arithmetic::tensor_core(dtype);
        let saved = saved(&mut draw, &oracle::forward(&inputs, None).outputs);
        assert_budgets(&inputs, &saved, &arithmetic, "many terms");
        let backward = oracle::backward(&inputs, &saved, Some(&arithmetic)).bounds.unwrap();
        for field in [Field::Dq, Field::Dk, Field::Dv] {
            let [rigorous, likely] = [&backward.rigorous, &backward.likely].map(|tier| tier.get(field).unwrap().sum());
            assert!(likely < 0.95 * rigorous, "{dtype} {field}: {likely} of {rigorous}");
        }
    }
}

/// One head, two tokens in one block, `q = 2`, `k = 1`, `v = (1, 3)`, `d_out = 1`: token 0 has one term, token 1 two equal ones.
fn two_terms(dtype: Dtype) -> Inputs {
    let column = |values: [f64; 2]| Array4::from_shape_vec((1, 1, 2, 1), values.to_vec()).unwrap();
    Inputs::new(InputParts {
        block_size: 2,
        include_block_causal: true,
        sliding_window: None,
        dtype,
        q: column([2.0, 2.0]),
        k: column([1.0, 1.0]),
        v: column([1.0, 3.0]),
        indices: Array4::zeros((1, 1, 2, 0)),
        mask: Array4::from_elem((1, 1, 2, 0), false),
        sel_scale: None,
        cotangents: Cotangents { d_out: Some(column([1.0, 1.0])), ..Cotangents::default() },
    })
    .unwrap()
}

/// Budgets of tier B, flattened, in the order of fields.
fn rigorous(inputs: &Inputs, arithmetic: &Arithmetic, field: Field) -> Vec<f64> {
    let Answer { outputs, bounds } = oracle::forward(inputs, Some(arithmetic));
    let answer = if field.is_gradient() { oracle::backward(inputs, &outputs, Some(arithmetic)).bounds } else { bounds };
    answer.unwrap().rigorous.get(field).unwrap().iter().copied().collect()
}

#[test]
fn the_budgets_of_two_equal_terms_in_f32_are_these_numbers() {
    // To the first order in u = 2^-24, with e_x = 2^-22 = 4u; the second order is below 1e-4 of it.
    let inputs = two_terms(Dtype::F32);
    let ln_2 = 2f64.ln();
    let assert_units = |field, at: usize, units: f64| {
        let found = rigorous(&inputs, &Arithmetic::f32(), field)[at] * 2f64.powi(24);
        assert!((found - units).abs() <= 1e-4 * units, "{field} {at}: {found} u, by hand {units} u");
    };
    // E = 2u + 8u; eps = S = E + 3u (2 + 2) + 2 e_x = 30u. Centred: 1/2 30u |1 - 2| + 1/2 30u |3 - 2| = 30u. Products: W = 2 and
    // C_2 + N_b u = 3u. Carried: (5 + 3) u |2|. Stored: 2u.
    assert_units(Field::Out, 1, 30.0 + 6.0 + 16.0 + 2.0);
    // S, gamma_5, 4u (2 + ln 2 + 2 + ln 2), e_x ln 2, 2u, stored.
    assert_units(Field::Lse, 1, 30.0 + 5.0 + 16.0 + 8.0 * ln_2 + 4.0 * ln_2 + 2.0 + 2.0 + ln_2);
    // eps = 10u + 4u (ln 2 + 2 + 2 + ln 2) + 4u = (30 + 8 ln 2) u, D = 3u |2|, dP - delta = -1 and 1,
    // F = 1/2 (A + 6 + 3 + 30 + 8 ln 2) u with A = 1 and 3; F' = F + u/2; then (C_2 + 5u) |dS| for each; dq itself is 0.
    assert_units(Field::Dq, 1, 0.5 * (40.0 + 42.0 + 16.0 * ln_2) + 1.0 + 7.0);
    // One row attends to key 1: (F' + (1 + 6) u / 2) |q|, and 1u to store dk = 1.
    assert_units(Field::Dk, 1, 2.0 * (21.0 + 4.0 * ln_2 + 0.5 + 3.5) + 1.0);
    // P eps + (C_1 + 2u) P, and u/2 to store dv = 1/2.
    assert_units(Field::Dv, 1, 15.0 + 4.0 * ln_2 + 1.5 + 0.5);
}

#[test]
fn the_budgets_of_two_equal_terms_are_these_numbers_where_it_is_not_known_what_was_saved() {
    // As above, token 1 having saved any `out` within 54u and any `lse` within (55 + 13 ln 2) u.
    let (inputs, arithmetic) = (two_terms(Dtype::F32), Arithmetic::f32());
    let ln_2 = 2f64.ln();
    let Answer { outputs, bounds } = oracle::forward(&inputs, Some(&arithmetic));
    let near = oracle::backward_near(&inputs, &outputs, &bounds.unwrap(), &arithmetic).bounds.unwrap();
    let assert_units = |field, at: usize, units: f64| {
        let found = near.rigorous.get(field).unwrap().as_slice().unwrap()[at] * 2f64.powi(24);
        assert!((found - units).abs() <= 1e-4 * units, "{field} {at}: {found} u, by hand {units} u");
    };
    // eps = (30 + 8 ln 2 + 55 + 13 ln 2) u, D = 3u |2| + 54u; F = 1/2 (A + 60 + 3 + 85 + 21 ln 2) u with A = 1 and 3.
    assert_units(Field::Dq, 1, 0.5 * (149.0 + 151.0 + 42.0 * ln_2) + 1.0 + 7.0);
    assert_units(Field::Dk, 1, 2.0 * (75.5 + 10.5 * ln_2 + 0.5 + 3.5) + 1.0);
    assert_units(Field::Dv, 1, 42.5 + 10.5 * ln_2 + 1.5 + 0.5);
}

/// 64 features of `out` and two tokens in one block; nothing rounds but `out`, which is stored in bf16. `q = (1, 0)`, and `k = (0, 1)`
/// and `(0, -1)`: all scores are 0. `v` is `value(d)` for token 0 and `later` times that for token 1.
fn only_out_rounds(value: impl Fn(usize) -> f64, later: f64) -> (Inputs, Bounds) {
    let parts = two_terms(Dtype::F64).into_parts();
    let rows = |row: [f64; 2], other: [f64; 2]| Array4::from_shape_vec((1, 1, 2, 2), [row, other].concat()).unwrap();
    let inputs = Inputs::new(InputParts {
        q: rows([1.0, 0.0], [1.0, 0.0]),
        k: rows([0.0, 1.0], [0.0, -1.0]),
        v: Array4::from_shape_fn((1, 1, 2, 64), |(_, _, token, d)| value(d) * if token == 0 { 1.0 } else { later }),
        cotangents: Cotangents { d_out: Some(Array4::ones((1, 1, 2, 64))), ..Cotangents::default() },
        ..parts
    })
    .unwrap();
    let exact = Dot::Fma { unit: 0.0 };
    let double = Arithmetic { unit: 0.0, exponential: 0.0, scores: exact, products: exact, ..Arithmetic::f64() };
    let arithmetic = Arithmetic { output: Dtype::Bf16, ..double };
    let Answer { outputs, bounds } = oracle::forward(&inputs, Some(&arithmetic));
    let near = oracle::backward_near(&inputs, &outputs, &bounds.unwrap(), &arithmetic).bounds.unwrap();
    (inputs, near)
}

#[test]
fn stored_features_that_do_not_conspire_move_a_gradient_by_these_numbers() {
    let value = |d: usize| 1.0 + d as f64 / 64.0;
    let (inputs, near) = only_out_rounds(value, 1.5);
    let scale = inputs.shape().scale();
    let assert_is = |tier: &Outputs, field, at: [usize; 2], expected: f64| {
        let found = tier.get(field).unwrap()[[0, 0, at[0], at[1]].as_slice()];
        assert!((found - expected).abs() <= 1e-4 * expected + 1e-13, "{field} {at:?}: {found:e}, by hand {expected:e}");
    };
    let u_o = 2f64.powi(-8);
    // Of token 0: Delta = u_o sum |out|, r = u_o (1 + u_o) (sum out^2)^(1/2), for `out` is u_o |out| off when it is rounded.
    let worst = u_o * (0..64).map(value).sum::<f64>();
    let root = u_o * (1.0 + u_o) * (0..64).map(|d| value(d).powi(2)).sum::<f64>().sqrt();
    // Token 0 has key 0 alone; token 1 has both, with weights of 1/2 and 5/4 of the output, and what it adds to dq cancels.
    assert_is(&near.rigorous, Field::Dq, [0, 1], scale * worst);
    assert_is(&near.likely, Field::Dq, [0, 1], scale * 6.0 * root);
    assert_is(&near.rigorous, Field::Dq, [1, 1], scale * 1.25 * worst);
    assert_is(&near.likely, Field::Dq, [1, 1], 0.0);
    // Key 0 takes 1 of token 0 and 1/2 of token 1, which round apart.
    assert_is(&near.rigorous, Field::Dk, [0, 0], scale * 1.625 * worst);
    assert_is(&near.likely, Field::Dk, [0, 0], scale * 6.0 * root * (1.0 + 0.625f64.powi(2)).sqrt());
    assert_is(&near.likely, Field::Dk, [1, 0], scale * 6.0 * root * 0.625);

    // Both tokens have the same output: they round alike.
    let (_, near) = only_out_rounds(value, 1.0);
    assert_is(&near.likely, Field::Dk, [0, 0], scale * 6.0 * root * 2.5f64.sqrt());

    // Features of one value round alike: then the likely is the worst.
    let (_, near) = only_out_rounds(|_| 1.5, 1.0);
    assert_is(&near.rigorous, Field::Dq, [0, 1], scale * u_o * 96.0);
    assert_is(&near.likely, Field::Dq, [0, 1], scale * u_o * 96.0);
}

#[test]
fn the_budget_of_one_term_in_f16_is_two_casts_and_little_more() {
    // C_1 = 36u + 1u; E = 72u + 8u, S = E + 12u + 8u = 100u. core = 2^-11 (1 + 2 S) + C_1 + u + 2^-25 + (4 + 3) u.
    let u = 2f64.powi(-24);
    let casts = 2f64.powi(-11);
    let core = casts * (1.0 + 200.0 * u) + 37.0 * u + u + 0.5 * u + 7.0 * u;
    let by_hand = core + casts * (1.0 + core) + casts * 2f64.powi(-14);
    let found = rigorous(&two_terms(Dtype::F16), &Arithmetic::tensor_core(Dtype::F16), Field::Out)[0];
    // What is left out is of the order of 100u times 45u.
    assert!((found - by_hand).abs() <= 1e4 * u * u, "{found:e}, by hand {by_hand:e}");
}

#[test]
fn without_any_rounding_the_budget_is_what_underflow_loses() {
    // One term of score 0 over 4 features: E = dim^(-1/2) 4 flush + flush; lse = 0, and storing it adds a flush.
    let zeros = || Array4::zeros((1, 1, 1, 4));
    let (q, k, v) = (zeros(), zeros(), zeros());
    let parts = InputParts { q, k, v, dtype: Dtype::F64, ..two_terms(Dtype::F64).into_parts() };
    let (indices, mask) = (Array4::zeros((1, 1, 1, 0)), Array4::from_elem((1, 1, 1, 0), false));
    let inputs = Inputs::new(InputParts { indices, mask, cotangents: Cotangents::default(), ..parts }).unwrap();
    let exact = Dot::Fma { unit: 0.0 };
    let arithmetic = Arithmetic { unit: 0.0, exponential: 0.0, scores: exact, products: exact, ..Arithmetic::f64() };
    assert_eq!(rigorous(&inputs, &arithmetic, Field::Lse), [4.0 * f64::MIN_POSITIVE]);
}
