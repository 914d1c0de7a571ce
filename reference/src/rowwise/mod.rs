//! A plain implementation of the contract with a switch for one mistake: what the harness plants to find out whether it sees,
//! and what it compares a wrong answer with to say which mistake it looks like.
//!
//! Row by row, term by term, no blocking beyond the running softmax. It shares no code with the oracle or the
//! transcription. Without a fault it is one more candidate, in the same arithmetic as [`tiled`](crate::tiled): products
//! and sums in f32, with 16-bit inputs P and dS cast to the element before their products.

mod backward;
mod forward;
mod mutation;
mod numbers;
mod terms;

use ndarray::{ArrayD, IxDyn};
use nsa_corpus::{Arithmetic, Dtype, Field, Inputs, Outputs};

use crate::real::Real;
use numbers::{Formats, Machine};
use terms::{Lister, Row, Term};

pub use mutation::{
    Act, BlockIs, FactorFrom, Gradient, HeadFrom, HeadIs, KeyIs, Mutation, Numbers, PartIs, Pass, ReadFrom,
    SelectionPart, SlotIs, TokenIs, When,
};
pub use terms::Touched;

/// Every field that `inputs` ask for, in the arithmetic of their element, with `fault` if any.
pub fn attend(inputs: &Inputs, mutation: Option<&Mutation>) -> Outputs {
    let formats = Formats::of(&arithmetic(inputs.dtype()));
    match inputs.dtype() {
        Dtype::F64 => run::<f64>(inputs, mutation, formats, None),
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 => run::<f32>(inputs, mutation, formats, None),
    }
}

/// What [`attend`] does with inputs of `element`, without a fault: that of [`tiled`](crate::tiled).
pub fn arithmetic(dtype: Dtype) -> Arithmetic {
    crate::tiled::arithmetic(dtype)
}

/// What an implementation that has `fault`, and no rounding errors, answers. The gradients follow from the forward fields
/// of `saved`, where they are given there.
pub fn attend_exactly(inputs: &Inputs, mutation: Option<&Mutation>, saved: Option<&Outputs>) -> Outputs {
    run::<f64>(inputs, mutation, Formats::exact(), saved)
}

/// The terms of row (`b`, query head, `i`) that `fault` adds, leaves out or changes, in the forward or in the backward; of
/// the sliding part with `sliding`. None for a fault that leaves terms as they are.
pub fn touched(inputs: &Inputs, mutation: &Mutation, [b, q_head, i]: [usize; 3], sliding: bool) -> Vec<Touched> {
    let row = Row { b, q_head, i };
    let list = |mutation, pass| {
        let lister = Lister { inputs, mutation, pass };
        let mut terms = Vec::new();
        match (sliding, inputs.sliding_window()) {
            (false, _) => lister.selected(row, &mut terms),
            (true, Some(window)) => lister.sliding(row, window, &mut terms),
            (true, None) => {}
        }
        terms
    };
    let mut touched: Vec<Touched> = Vec::new();
    for pass in [Pass::Forward, Pass::Backward] {
        let (right, wrong) = (list(None, pass), list(Some(mutation), pass));
        let only = |these: &[Term], those: &[Term]| -> Vec<Touched> {
            let missing = these.iter().filter(|term| !those.contains(term));
            missing.map(|term| Touched { slot: term.slot, token: term.token }).collect()
        };
        touched.extend(only(&right, &wrong));
        touched.extend(only(&wrong, &right));
    }
    touched.sort();
    touched.dedup();
    touched
}

fn run<R: Real>(inputs: &Inputs, mutation: Option<&Mutation>, formats: Formats, saved: Option<&Outputs>) -> Outputs {
    let machine = Machine::<R>::new(inputs, mutation, formats);
    let selected = forward::run(&machine, None);
    let sliding = inputs.sliding_window().map(|window| forward::run(&machine, Some(window)));
    let mut outputs = Outputs::new();
    outputs.set(Field::Out, tensor(inputs, Field::Out, &selected.out));
    outputs.set(Field::Lse, tensor(inputs, Field::Lse, &selected.lse));
    if let Some(sliding) = &sliding {
        outputs.set(Field::SlidingOut, tensor(inputs, Field::SlidingOut, &sliding.out));
        outputs.set(Field::SlidingLse, tensor(inputs, Field::SlidingLse, &sliding.lse));
    }
    if inputs.cotangents().any() {
        let selected = selected.replaced(saved, [Field::Out, Field::Lse]);
        let sliding = sliding.map(|sliding| sliding.replaced(saved, [Field::SlidingOut, Field::SlidingLse]));
        let sums = backward::run(&machine, &selected, sliding.as_ref());
        for (field, values) in sums.fields() {
            if field.asked_by(inputs) {
                outputs.set(field, tensor(inputs, field, values));
            }
        }
    }
    outputs
}

fn tensor<R: Real>(inputs: &Inputs, field: Field, values: &[R]) -> ArrayD<f64> {
    let values = values.iter().map(|value| value.widen()).collect();
    ArrayD::from_shape_vec(IxDyn(&field.shape(inputs.shape())), values).expect("a buffer is made for its field")
}

#[cfg(test)]
mod tests {
    use nsa_corpus::entries;

    use super::*;

    #[test]
    fn without_rounding_and_mutation_it_answers_as_the_oracle_does() {
        let mut compared = 0;
        for entry in entries().iter().filter(|entry| entry.case.sizes.seq_len <= 64 && !entry.name.contains("finite")) {
            let inputs = entry.case.materialize(Dtype::F32).unwrap();
            let (found, expected) = (attend_exactly(&inputs, None, None), crate::oracle::attend(&inputs));
            for (field, expected) in expected.iter() {
                let found = found.get(field).unwrap_or_else(|| panic!("{}: {field} is missing", entry.name));
                let largest = expected.iter().filter(|v| v.is_finite()).fold(1e-300f64, |max, v| max.max(v.abs()));
                for (index, expected) in expected.indexed_iter() {
                    let found = found[&index];
                    let same = found == *expected || (found - expected).abs() <= 1e-11 * largest;
                    assert!(same, "{} {field} at {index:?}: {found:e}, expected {expected:e}", entry.name);
                    compared += 1;
                }
            }
        }
        assert!(compared > 100_000, "{compared}");
    }

    #[test]
    fn a_mutation_of_terms_says_which_it_touches() {
        let entry = entries().iter().find(|entry| entry.name == "probes/zero_queries").unwrap();
        let inputs = entry.case.materialize(Dtype::F32).unwrap();
        let when = When { part: Some(PartIs::Diagonal), key: Some(KeyIs::Own), ..When::default() };
        let mutation = Mutation::Terms { pass: Pass::Both, when, act: Act::Drop };
        assert_eq!(touched(&inputs, &mutation, [0, 1, 7], false), [Touched { slot: None, token: 7 }]);
        let lse = |mutation| attend_exactly(&inputs, mutation, None).take(Field::Lse).unwrap()[[0, 1, 7]].exp().round();
        assert_eq!(lse(None) - lse(Some(&mutation)), 1.0);
    }
}
