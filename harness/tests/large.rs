//! Relations between answers, and sampled rows: what needs no whole oracle rejects what is wrong, and no right answer.

#[path = "common/mod.rs"]
mod common;

use ndarray::Axis;
use nsa_corpus::{Case, Dtype, Field, InputParts, Inputs, Outputs, Selection, Sizes, Values};
use nsa_harness::candidate::Candidate;
use nsa_harness::judge::sample::draw;
use nsa_harness::judge::verdict::{Class, Failure, Verdict};
use nsa_harness::judge::{judge, judge_sampled};
use nsa_harness::relations::relation::{Relation, hold};
use nsa_harness::relations::{cases, run_large};
use nsa_reference::oracle::Sample;
use nsa_reference::tiled;

use common::{Answer, Scripted, scripted};

/// Generated cases for each relation.
const CASES: u64 = 150;

/// A candidate that answers by a function.
fn by(attend: impl Fn(&Inputs) -> Outputs + Send + Sync) -> Scripted<impl Fn(&Inputs, usize) -> Answer + Send + Sync> {
    scripted(move |inputs: &Inputs, _| Ok(attend(inputs)))
}

fn case() -> Case {
    let sizes = Sizes {
        batch: 2,
        q_heads: 4,
        kv_heads: 2,
        seq_len: 70,
        dim: 8,
        value_dim: 6,
        block_size: 8,
        num_sel: 3,
        sel_heads: 2,
    };
    Case {
        selection: Selection::Distinct {},
        sel_scale: Some(Values::normal()),
        sliding_window: Some(10),
        d_lse: Some(Values::normal()),
        d_sliding: Some(Values::normal()),
        ..Case::ordinary(sizes, 5)
    }
}

/// What holding `relation` on `candidate` finds.
fn failure(relation: Relation, dtype: Dtype, candidate: &dyn Candidate) -> Option<Failure> {
    let inputs = case().materialize(dtype).unwrap();
    let first = candidate.run(&inputs).unwrap();
    match hold(relation, &inputs, candidate, &first, &Sample::default())
        .expect("the problem has batches, heads and slots")
    {
        Ok(fields) => {
            assert_eq!(fields.len(), 8, "every field is held");
            fields.into_iter().find_map(|field| field.failure)
        }
        Err(Verdict::Fail(failure)) => Some(failure),
        Err(other) => panic!("{relation}: {other}"),
    }
}

/// Each of `relations` and the rearrangement of everything reject what `wrong` answers.
fn assert_rejected(relations: &[Relation], wrong: impl Fn(&Inputs) -> Outputs + Send + Sync) {
    let candidate = by(wrong);
    for relation in relations {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let failure = failure(*relation, dtype, &candidate);
            let failure = failure.unwrap_or_else(|| panic!("{relation} in {dtype} does not notice"));
            assert_eq!(failure.class, Class::Relation);
            assert!(failure.message.starts_with(&relation.to_string()), "{}", failure.message);
        }
    }
}

/// Generated cases, every element held: large logits, outliers, duplicates, rows without keys. Inputs that are not finite, and
/// answers that overflow, are not what the relations speak of.
#[test]
fn no_right_answer_to_a_generated_case_breaks_a_relation() {
    let mut held = 0;
    for seed in 0..CASES {
        let case = Case::generate(6, seed);
        let dtype = [Dtype::F32, Dtype::F16, Dtype::Bf16][seed as usize % 3];
        let inputs = case.materialize(dtype).unwrap();
        let first = tiled::attend(&inputs);
        if first.iter().any(|(_, tensor)| tensor.iter().any(|value| !value.is_finite())) {
            continue;
        }
        let shape = inputs.shape();
        let all = || (0..shape.batch()).flat_map(|b| (0..shape.kv_heads()).map(move |h| (b, h)));
        let all = || all().flat_map(|(b, h)| (0..shape.seq_len()).map(move |i| [b, h, i])).collect();
        let sample = Sample { tokens: all(), keys: all() };
        for relation in [Relation::SlotOrder, Relation::Rearranged] {
            let Some(outcome) = hold(relation, &inputs, &by(tiled::attend), &first, &sample) else { continue };
            for field in outcome.unwrap() {
                assert_eq!(field.failure, None, "seed {seed} in {dtype}: {}", case.to_toml());
                held += field.held;
            }
        }
    }
    assert!(held > 100_000, "{held}");
}

/// What the tiled candidate answers to changed inputs.
fn changed(inputs: &Inputs, change: impl Fn(&mut InputParts)) -> Outputs {
    let mut parts = inputs.clone().into_parts();
    change(&mut parts);
    tiled::attend(&Inputs::new(parts).unwrap())
}

#[test]
fn a_right_answer_holds_every_relation() {
    for relation in Relation::ALL {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            assert_eq!(failure(relation, dtype, &by(tiled::attend)), None, "{relation} in {dtype}");
        }
    }
}

#[test]
fn an_answer_that_depends_on_the_order_of_slots_is_rejected() {
    assert_rejected(&[Relation::SlotOrder, Relation::Rearranged], |inputs| {
        changed(inputs, |parts| parts.mask.index_axis_mut(Axis(3), 0).fill(false))
    });
    // A slot whose factor is forgotten.
    assert_rejected(&[Relation::SlotOrder, Relation::Rearranged], |inputs| {
        changed(inputs, |parts| parts.sel_scale.as_mut().unwrap().index_axis_mut(Axis(3), 0).fill(1.0))
    });
}

#[test]
fn a_masked_slot_that_takes_part_is_rejected() {
    assert_rejected(&[Relation::MaskedSlot, Relation::Rearranged], |inputs| {
        changed(inputs, |parts| parts.mask.fill(true))
    });
    // Right in every field but for the gradient of the masked slot.
    assert_rejected(&[Relation::MaskedSlot, Relation::Rearranged], |inputs| {
        let mut outputs = tiled::attend(inputs);
        let gradient = outputs.get_mut(Field::DselScale).unwrap();
        for (index, value) in gradient.indexed_iter_mut() {
            if !inputs.mask()[[index[0], index[1], index[2], index[3]]] {
                *value = 1e-30;
            }
        }
        outputs
    });
}

#[test]
fn an_answer_that_depends_on_the_order_of_heads_is_rejected() {
    assert_rejected(&[Relation::HeadOrder, Relation::Rearranged], |inputs| {
        changed(inputs, |parts| {
            let first = parts.k.index_axis(Axis(1), 0).to_owned();
            parts.k.index_axis_mut(Axis(1), 1).assign(&first);
        })
    });
    // Within a group: the second query head asks what the first one asks.
    assert_rejected(&[Relation::HeadOrder, Relation::Rearranged], |inputs| {
        changed(inputs, |parts| {
            let first = parts.q.index_axis(Axis(1), 0).to_owned();
            parts.q.index_axis_mut(Axis(1), 1).assign(&first);
        })
    });
}

#[test]
fn an_answer_that_mixes_batch_entries_is_rejected() {
    assert_rejected(&[Relation::BatchOrder, Relation::SplitBatch, Relation::Rearranged], |inputs| {
        changed(inputs, |parts| {
            let last = parts.v.dim().0 - 1;
            let first = parts.v.index_axis(Axis(0), 0).to_owned();
            parts.v.index_axis_mut(Axis(0), last).assign(&first);
        })
    });
}

/// Nothing of this row is sampled: it is found because it differs most. One part in a thousand is far above f32 rounding.
#[test]
fn one_wrong_row_is_found_without_being_sampled() {
    for field in Field::ALL {
        let wrong = move |inputs: &Inputs| {
            let mut outputs = tiled::attend(inputs);
            let tensor = outputs.get_mut(field).unwrap();
            let mut row = tensor.index_axis_mut(Axis(0), 0).index_axis_move(Axis(0), 1).index_axis_move(Axis(0), 47);
            row.mapv_inplace(|value| value * 1.001);
            outputs
        };
        let failure = failure(Relation::BatchOrder, Dtype::F32, &by(wrong)).unwrap_or_else(|| panic!("{field}"));
        assert_eq!(failure.field, Some(field));
        for words in ["47", "spread", "allowed"] {
            assert!(failure.message.contains(words), "{}", failure.message);
        }
    }
}

#[test]
fn a_relation_that_says_nothing_about_a_problem_is_not_held() {
    let sizes = Sizes { batch: 1, q_heads: 1, kv_heads: 1, num_sel: 1, sel_heads: 1, ..case().sizes };
    let inputs = Case { sizes, ..case() }.materialize(Dtype::F32).unwrap();
    let first = tiled::attend(&inputs);
    for relation in [Relation::SlotOrder, Relation::HeadOrder, Relation::BatchOrder, Relation::SplitBatch] {
        assert!(hold(relation, &inputs, &by(tiled::attend), &first, &Sample::default()).is_none(), "{relation}");
    }
}

#[test]
fn sampled_rows_are_judged_as_the_whole_answer_judges_them() {
    let inputs = case().materialize(Dtype::F32).unwrap();
    let arithmetic = tiled::arithmetic(Dtype::F32);
    let sample = Sample { tokens: [[1, 0, 30], [0, 1, 7]].into(), keys: [[1, 1, 12], [0, 0, 69]].into() };
    for field in Field::ALL {
        let mut found = tiled::attend(&inputs);
        assert!(judge_sampled(&inputs, &arithmetic, &found, &sample).iter().all(|field| field.failure.is_none()));
        let index: &[usize] = match field {
            Field::Lse | Field::SlidingLse => &[1, 1, 30],
            Field::Dk | Field::Dv => &[1, 1, 12, 3],
            Field::DselScale => &[1, 0, 30, 2],
            _ => &[1, 1, 30, 4],
        };
        found.get_mut(field).unwrap()[index] += 0.125;
        let failed = |comparisons: Vec<nsa_harness::judge::field::Comparison>| {
            let mut of_field = comparisons.into_iter().filter(|comparison| comparison.field == field);
            of_field.find_map(|comparison| comparison.failure).unwrap_or_else(|| panic!("{field}"))
        };
        let whole = failed(judge(&inputs, &arithmetic, &found));
        assert_eq!(whole, failed(judge_sampled(&inputs, &arithmetic, &found, &sample)));
        found.take(field);
        let missing = failed(judge_sampled(&inputs, &arithmetic, &found, &sample));
        assert!(missing.class == Class::Shape && missing.message.contains("is missing"), "{}", missing.message);
    }
}

#[test]
fn a_large_run_says_which_relation_does_not_hold() {
    let right = run_large("small", &case(), Dtype::F32, &by(tiled::attend)).unwrap();
    let names: Vec<&str> = right.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!((&right.verdict, names), (&Verdict::Pass, vec!["finite", "sampled rows", "rearranged", "split batch"]));
    let elements: usize = tiled::attend(&case().materialize(Dtype::F32).unwrap()).iter().map(|(_, t)| t.len()).sum();
    assert!(right.checks.iter().all(|check| check.name == "sampled rows" || check.elements == elements));
    // The first slot of a token that is not sampled.
    let sample = draw(case().materialize(Dtype::F32).unwrap().shape());
    let token = (20..70).find(|token| sample.tokens.iter().all(|[_, _, i]| i != token)).unwrap();
    let wrong = by(move |inputs: &Inputs| {
        changed(inputs, |parts| parts.mask.index_axis_mut(Axis(2), token).index_axis_mut(Axis(2), 0).fill(false))
    });
    let report = run_large("small", &case(), Dtype::F32, &wrong).unwrap();
    let failing: Vec<&str> =
        report.checks.iter().filter(|check| check.verdict != Verdict::Pass).map(|check| check.name.as_str()).collect();
    assert!(failing.contains(&"rearranged") && failing.contains(&"slot order"), "{failing:?}");
    assert!(!failing.contains(&"batch order") && !failing.contains(&"head order"), "{failing:?}");
    let nan = by(|inputs: &Inputs| {
        let mut outputs = tiled::attend(inputs);
        outputs.get_mut(Field::Dq).unwrap()[[0, 3, 33, 1]] = f64::NAN;
        outputs
    });
    let report = run_large("small", &case(), Dtype::F32, &nan).unwrap();
    let failure = report.verdict.failure().unwrap();
    assert_eq!((failure.class, failure.field), (Class::NonFinite, Some(Field::Dq)));
    assert!(failure.message.contains("q_head 3, token 33"), "{}", failure.message);
}

#[test]
fn the_large_cases_are_valid_and_large() {
    let all = cases();
    assert!(all.iter().any(|large| large.case.sizes.seq_len >= 65_536));
    for large in &all {
        large.case.check().unwrap();
        assert_eq!(all.iter().filter(|other| other.name == large.name).count(), 1, "{}", large.name);
    }
}
