//! Reruns are held to what a candidate declares: any bit where it says bitwise, the order of additions and nothing more where it
//! says bounded.

use nsa_corpus::{Arithmetic, BackwardReads, Case, Dtype, Field, Inputs, Outputs, Random, Sizes, Values};
use nsa_harness::candidate::{Candidate, Declaration};
use nsa_harness::judge::verdict::{Class, Failure};
use nsa_harness::run::{rerun, run_case};
use nsa_reference::{oracle, tiled};

use crate::common::{Answer, Scripted, changed};

fn case() -> Case {
    let sizes = Sizes {
        batch: 1,
        q_heads: 4,
        kv_heads: 2,
        seq_len: 48,
        dim: 8,
        value_dim: 8,
        block_size: 8,
        num_sel: 2,
        sel_heads: 2,
    };
    Case { d_lse: Some(Values::normal()), ..Case::ordinary(sizes, 77) }
}

fn bitwise(inputs: &Inputs) -> Declaration {
    Declaration::strict(tiled::arithmetic(inputs.dtype()))
}

fn gradients_bounded(inputs: &Inputs) -> Declaration {
    let bounded = Field::ALL.into_iter().filter(|field| field.is_gradient()).collect();
    Declaration { bounded, ..bitwise(inputs) }
}

fn all_bounded(inputs: &Inputs) -> Declaration {
    Declaration { bounded: Field::ALL.into_iter().collect(), ..bitwise(inputs) }
}

/// The tiled candidate, with a change to its answer that depends on the number of the run.
fn wavering(
    declared: fn(&Inputs) -> Declaration,
    change: impl Fn(usize, &Inputs, &mut Outputs) + Send + Sync,
) -> Scripted<impl Fn(&Inputs, usize) -> Answer + Send + Sync> {
    let wavers = changed(move |inputs, run, outputs| change(run, inputs, outputs));
    Scripted { declared, ..wavers }
}

/// Runs the case once, holds it to its budgets, and reruns it.
fn reruns(candidate: &dyn Candidate, dtype: Dtype, times: usize) -> Option<Failure> {
    let report = run_case(&case(), dtype, candidate).unwrap();
    assert!(report.verdict.failure().is_none(), "{}", report.verdict);
    rerun(&case(), dtype, candidate, report.outputs.as_ref().unwrap(), times, &|| false).unwrap().failure()
}

fn assert_race(failure: Option<Failure>, field: Field) {
    let failure = failure.expect("a race is noticed");
    assert_eq!((failure.class, failure.field), (Class::Nondeterministic, Some(field)), "{}", failure.message);
    assert!(failure.message.contains("a race: "), "{}", failure.message);
}

#[test]
fn one_other_bit_breaks_a_bitwise_contract() {
    let one_bit = |run: usize, _: &Inputs, outputs: &mut Outputs| {
        let value = &mut outputs.get_mut(Field::Dk).unwrap()[[0, 1, 20, 3]];
        *value = f64::from(f32::from_bits((*value as f32).to_bits() + u32::from(run == 2)));
    };
    let failure = reruns(&wavering(bitwise, one_bit), Dtype::F32, 3).unwrap();
    assert_eq!((failure.class, failure.field), (Class::Nondeterministic, Some(Field::Dk)));
    for words in ["rerun 2 of 3", "dk is declared bitwise", "1 of 768", "batch 0, kv_head 1, key 20, feature 3"] {
        assert!(failure.message.contains(words), "{words}: {}", failure.message);
    }
    assert_eq!(reruns(&wavering(gradients_bounded, one_bit), Dtype::F32, 3), None, "one bit is order");
    assert_eq!(reruns(&wavering(bitwise, |_, _, _| ()), Dtype::F32, 2), None);
}

/// `dk` and `dv` as a kernel with atomics adds them: rounded terms, added in f32 in an order that differs from run to run. In run
/// `lost` the largest term of key 3 is lost.
fn any_order(run: usize, lost: Option<usize>, inputs: &Inputs, outputs: &mut Outputs) {
    let (shape, dtype) = (*inputs.shape(), inputs.dtype());
    let cast = |value: f64| if dtype == Dtype::F32 { value as f32 } else { dtype.round(value) as f32 };
    let scale = shape.scale() as f32;
    let (d_out, d_lse) = (inputs.cotangents().d_out.as_ref().unwrap(), inputs.cotangents().d_lse.as_ref().unwrap());
    for h in 0..shape.kv_heads() {
        for key in 0..shape.seq_len() {
            // Each term: P, dS, and the row it comes from.
            let mut terms: Vec<(f32, f32, [usize; 2])> = Vec::new();
            for (head, i) in (0..shape.groups()).flat_map(|g| (0..shape.seq_len()).map(move |i| (h * 2 + g, i))) {
                let diagonal = key / 8 == i / 8 && key <= i;
                let slots = (0..2)
                    .filter(|&s| inputs.mask()[[0, h, i, s]] && inputs.indices()[[0, h, i, s]] as usize == key / 8);
                for _ in 0..slots.count() + usize::from(diagonal) {
                    let dot = |a: &ndarray::Array4<f64>, b: &ndarray::Array4<f64>| -> f64 {
                        (0..8).map(|d| a[[0, head, i, d]] * b[[0, h, key, d]]).sum()
                    };
                    let at = [0, head, i];
                    let weight =
                        (dot(inputs.q(), inputs.k()) * shape.scale() - outputs.get(Field::Lse).unwrap()[at]).exp();
                    let out = outputs.get(Field::Out).unwrap();
                    let delta: f64 = (0..8).map(|d| out[[0, head, i, d]] * d_out[[0, head, i, d]]).sum();
                    let gradient = weight * (dot(d_out, inputs.v()) - delta + d_lse[at]);
                    terms.push((cast(weight), cast(gradient), [head, i]));
                }
            }
            if lost == Some(run) && key == 3 {
                let largest = (0..terms.len()).max_by(|a, b| terms[*a].0.total_cmp(&terms[*b].0)).unwrap();
                terms.swap_remove(largest);
            }
            Random::new(run as u64).shuffle(&mut terms);
            for d in 0..8 {
                let (mut dk, mut dv) = (0.0f32, 0.0f32);
                for (weight, gradient, [head, i]) in &terms {
                    dv += weight * d_out[[0, *head, *i, d]] as f32;
                    dk += gradient * inputs.q()[[0, *head, *i, d]] as f32;
                }
                outputs.get_mut(Field::Dk).unwrap()[[0, h, key, d]] = dtype.round(f64::from(dk * scale));
                outputs.get_mut(Field::Dv).unwrap()[[0, h, key, d]] = dtype.round(f64::from(dv));
            }
        }
    }
}

#[test]
fn additions_in_any_order_hold_a_bounded_contract_and_a_lost_one_is_a_race() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let right = wavering(gradients_bounded, |run, inputs, outputs| any_order(run, None, inputs, outputs));
        assert_eq!(reruns(&right, dtype, 20), None, "{dtype}");
        let again = wavering(bitwise, |run, inputs, outputs| any_order(run, None, inputs, outputs));
        if dtype == Dtype::F32 {
            assert!(reruns(&again, dtype, 5).is_some(), "the order does change bits");
        }
        let losing = wavering(gradients_bounded, |run, inputs, outputs| any_order(run, Some(4), inputs, outputs));
        let failure = reruns(&losing, dtype, 6);
        assert!(failure.as_ref().is_some_and(|failure| failure.message.contains("rerun 4 of 6")), "{failure:?}");
        assert_race(failure, Field::Dk);
    }
}

/// A change of `parts` of the order-only budget, at one element of `field`, in runs after the first.
fn shifted(field: Field, parts: f64) -> impl Fn(usize, &Inputs, &mut Outputs) + Send + Sync {
    move |run, inputs, outputs| {
        let order = oracle::order_bounds(inputs, outputs, &tiled::arithmetic(inputs.dtype()));
        let index = match field {
            Field::Lse => vec![0, 2, 30],
            _ => vec![0, 1, 30, 5],
        };
        let unit = Dtype::F32.unit_roundoff();
        let value = &mut outputs.get_mut(field).unwrap()[index.as_slice()];
        if run > 0 {
            *value += parts * (2.0 * order.get(field).unwrap()[index.as_slice()] + 2.0 * unit * value.abs());
        }
    }
}

#[test]
fn the_spread_may_take_the_order_only_budget_and_no_more() {
    for field in [Field::Out, Field::Lse, Field::Dq, Field::Dk, Field::Dv] {
        assert_eq!(reruns(&wavering(all_bounded, shifted(field, 0.98)), Dtype::F32, 2), None, "{field}");
        assert_race(reruns(&wavering(all_bounded, shifted(field, 1.02)), Dtype::F32, 2), field);
    }
}

/// Its own forward, which it rounded to f16 for the harness alone, wavers; what became of it does not.
fn reads_its_own(inputs: &Inputs) -> Declaration {
    let declared = all_bounded(inputs);
    let arithmetic = Arithmetic { backward_reads: BackwardReads::Own, ..declared.arithmetic };
    Declaration { arithmetic, ..declared }
}

#[test]
fn gradients_of_an_own_forward_may_waver_with_it_and_are_right_in_each_run() {
    let own_forward = |run: usize, inputs: &Inputs, outputs: &mut Outputs| {
        let answer = if run == 0 { oracle::backward(inputs, outputs, None).outputs } else { oracle::attend(inputs) };
        let stored = inputs.dtype();
        outputs.set(Field::Dk, answer.get(Field::Dk).unwrap().mapv(|value| stored.round(value)));
    };
    assert_eq!(reruns(&wavering(reads_its_own, own_forward), Dtype::F16, 2), None);
    let wrong = |run: usize, inputs: &Inputs, outputs: &mut Outputs| {
        own_forward(run, inputs, outputs);
        outputs.get_mut(Field::Dk).unwrap()[[0, 1, 30, 5]] *= if run == 2 { 3.0 } else { 1.0 };
    };
    assert_race(reruns(&wavering(reads_its_own, wrong), Dtype::F16, 3), Field::Dk);
    // A forward that is the same to the bit is taken to be the same inside: then only the order of additions may differ.
    let steady = |inputs: &Inputs| Declaration { bounded: gradients_bounded(inputs).bounded, ..reads_its_own(inputs) };
    assert_race(reruns(&wavering(steady, own_forward), Dtype::F16, 2), Field::Dk);
}

#[test]
fn order_alone_explains_less_than_the_whole_budget() {
    let inputs = case().materialize(Dtype::F32).unwrap();
    let arithmetic = tiled::arithmetic(Dtype::F32);
    let forward = oracle::forward(&inputs, Some(&arithmetic));
    let backward = oracle::backward(&inputs, &forward.outputs, Some(&arithmetic));
    let order = oracle::order_bounds(&inputs, &forward.outputs, &arithmetic);
    for bounds in [forward.bounds.unwrap(), backward.bounds.unwrap()] {
        for (field, whole) in bounds.rigorous.iter() {
            let part = order.get(field).unwrap();
            assert!(whole.iter().zip(part).all(|(whole, part)| part < whole && *part > 0.0), "{field}");
        }
    }
}

#[test]
fn where_the_forward_wavers_the_gradients_are_judged_anew() {
    let wrong = |run: usize, inputs: &Inputs, outputs: &mut Outputs| {
        shifted(Field::Out, 0.5)(run, inputs, outputs);
        if run == 1 {
            outputs.get_mut(Field::Dv).unwrap()[[0, 0, 9, 1]] += 0.01;
        }
    };
    assert_race(reruns(&wavering(all_bounded, wrong), Dtype::F32, 2), Field::Dv);
}

#[test]
fn nan_in_a_rerun_is_a_race() {
    let nan = |run: usize, _: &Inputs, outputs: &mut Outputs| {
        if run == 1 {
            outputs.get_mut(Field::Dq).unwrap()[[0, 0, 9, 1]] = f64::NAN;
        }
    };
    assert_race(reruns(&wavering(all_bounded, nan), Dtype::Bf16, 1), Field::Dq);
}
