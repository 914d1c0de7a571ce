//! A candidate that launders: its forward is off by a share of its budgets, all in the direction that does the most harm, and its
//! gradients follow from that forward exactly. Each is within its own budget; the second look at the gradients sees the conspiracy.

use nsa_corpus::{Arithmetic, Case, Element, Field, Inputs, Outputs, Sizes};
use nsa_harness::compare::Comparison;
use nsa_harness::judge::{judge, verdict};
use nsa_harness::verdict::Verdict;
use nsa_reference::{
    oracle::{self, Bounds},
    tiled,
};

/// 256 tokens, four heads a group, up to 80 keys a row and some hundred rows a key.
fn inputs(element: Element) -> Inputs {
    let sizes = Sizes {
        batch: 1,
        q_heads: 4,
        kv_heads: 1,
        seq_len: 256,
        dim: 64,
        value_dim: 64,
        block_size: 16,
        num_sel: 4,
        sel_heads: 1,
    };
    let sel_scale = Some(nsa_corpus::Values::normal());
    Case { sel_scale, ..Case::ordinary(sizes, 3) }.materialize(element).unwrap()
}

/// The largest step of the format, towards `direction`, that stays within `most` of `value`.
fn moved(element: Element, value: f64, direction: f64, most: f64) -> f64 {
    let steps = (0..=20).rev().map(|step| element.round(value + direction * most * f64::from(step) / 20.0));
    steps.into_iter().find(|moved| (moved - value).abs() <= most).unwrap_or(element.round(value))
}

/// A forward off by `share` of its budgets. Every row's `<out, d_out>` moves the way in which the first feature of its query adds
/// up over the rows of a key.
fn conspiring(inputs: &Inputs, arithmetic: &Arithmetic, exact: &Outputs, budgets: &Bounds, share: f64) -> Outputs {
    let mut saved = exact.clone();
    let (d_out, q) = (inputs.cotangents().d_out.as_ref().unwrap(), inputs.q());
    let budget = budgets.rigorous.get(Field::Out).unwrap();
    for (at, value) in saved.get_mut(Field::Out).unwrap().indexed_iter_mut() {
        let row = [at[0], at[1], at[2]];
        let direction = d_out[[row[0], row[1], row[2], at[3]]].signum() * q[[row[0], row[1], row[2], 0]].signum();
        *value = moved(arithmetic.output, *value, direction, share * budget[&at]);
    }
    let budget = budgets.rigorous.get(Field::Lse).unwrap();
    for (at, value) in saved.get_mut(Field::Lse).unwrap().indexed_iter_mut() {
        *value = moved(arithmetic.lse, *value, -1.0, share * budget[&at]);
    }
    saved
}

/// The conspiring forward, and the gradients that follow from it, as stored.
fn laundered(inputs: &Inputs, arithmetic: &Arithmetic, share: f64) -> Outputs {
    let forward = oracle::forward(inputs, Some(arithmetic));
    let mut answer = conspiring(inputs, arithmetic, &forward.outputs, &forward.bounds.unwrap(), share);
    for (field, values) in oracle::backward(inputs, &answer, None).outputs.iter() {
        let stored = arithmetic.stored(field);
        answer.set(field, values.mapv(|value| stored.round(value)));
    }
    answer
}

fn of(comparisons: &[Comparison], field: Field) -> &Comparison {
    comparisons.iter().find(|comparison| comparison.field == field).unwrap()
}

/// The smallest share, in twentieths, at which a field is suspect for its distance from the oracle's own gradient, and the largest
/// relative error of its largest elements at a share of 1.
fn seen(element: Element) -> Vec<(Field, Option<u32>, f64)> {
    let inputs = inputs(element);
    let arithmetic = tiled::arithmetic(element);
    let exact = oracle::attend(&inputs);
    let shares: Vec<(u32, Outputs, Vec<Comparison>)> = (1..=20)
        .map(|share| {
            let answer = laundered(&inputs, &arithmetic, f64::from(share) / 20.0);
            let comparisons = judge(&inputs, &arithmetic, &answer);
            (share, answer, comparisons)
        })
        .collect();
    let gradients = Field::ALL.into_iter().filter(|field| field.is_gradient());
    gradients
        .map(|field| {
            let judged = shares.iter().map(|(share, _, comparisons)| (*share, of(comparisons, field)));
            for (share, comparison) in judged.clone() {
                assert!(comparison.failure.is_none(), "{element} {field}, {share} of 20: the first look sees nothing");
            }
            let first = judged.clone().find(|(_, comparison)| comparison.unconditional.is_some());
            let (exact, most) = (exact.get(field).unwrap(), shares[19].1.get(field).unwrap());
            let size = exact.iter().fold(0.0f64, |size, value| size.max(value.abs()));
            let error = exact.iter().zip(most).fold(0.0f64, |error, (exact, most)| error.max((exact - most).abs()));
            (field, first.map(|(share, _)| share), error / size)
        })
        .collect()
}

#[test]
fn a_conspiracy_of_forward_and_gradients_is_suspect() {
    for element in [Element::F32, Element::F16, Element::Bf16] {
        for (field, share, error) in seen(element) {
            println!("{element} {field}: seen from {share:?} twentieths on; all of it is {error:.2e} of the largest");
        }
    }
}

#[test]
fn the_message_names_both_distances() {
    let element = Element::Bf16;
    let (inputs, arithmetic) = (inputs(element), tiled::arithmetic(element));
    let comparisons = judge(&inputs, &arithmetic, &laundered(&inputs, &arithmetic, 0.99));
    let Verdict::Suspect(message) = verdict(&comparisons) else { panic!("{:?}", verdict(&comparisons)) };
    for part in ["follows from the candidate's own out and lse, at a distance of", "from the exact ones, at a distance of"] {
        assert!(message.contains(part), "{message}");
    }
    let dk = of(&comparisons, Field::Dk);
    let far = dk.unconditional.as_ref().unwrap();
    assert_eq!(far.elements, dk.suspect);
    assert!(far.worst.given_saved.error <= far.worst.given_saved.likely && far.worst.own.error > far.worst.own.likely);
    // The rigorous budget allows for it: that is why it is no failure.
    let forward = oracle::forward(&inputs, Some(&arithmetic));
    let own = oracle::backward_near(&inputs, &forward.outputs, &forward.bounds.unwrap(), &arithmetic);
    let rigorous = own.bounds.unwrap().rigorous;
    assert!(far.worst.own.error <= rigorous.get(Field::Dk).unwrap()[far.worst.index.as_slice()]);
    assert_eq!(far.worst.own.expected, own.outputs.get(Field::Dk).unwrap()[far.worst.index.as_slice()]);
}

#[test]
fn a_right_candidate_is_not_suspect() {
    for element in [Element::F32, Element::F16, Element::Bf16] {
        let inputs = inputs(element);
        let comparisons = judge(&inputs, &tiled::arithmetic(element), &tiled::attend(&inputs));
        assert_eq!(verdict(&comparisons), Verdict::Pass, "{element}");
    }
}
