//! Candidates that answer nonsense, declare anything, or give no answer: none of them passes, on no case.

use std::time::Duration;

use nsa_corpus::{Arithmetic, Delta, Dot, Dtype, Entry, Field, Inputs, Outputs, RunningSum, entries};
use nsa_harness::candidate::{CandidateError, Cause, Declaration};
use nsa_harness::judge::field::Comparison;
use nsa_harness::judge::verdict::{Class, NotJudged, Verdict};
use nsa_harness::mutants::{mutants, mutated};
use nsa_harness::registry::by_name;
use nsa_harness::report::FieldsJudged;
use nsa_harness::run::run_entry;
use nsa_reference::{oracle, tiled};
use rayon::prelude::*;

use crate::common::{Answer, Scripted, scripted};

type AnswerOf = fn(&Inputs) -> Answer;

/// Declares what it likes and answers what it likes.
fn hostile(
    declared: fn(&Inputs) -> Declaration,
    answer: AnswerOf,
) -> Scripted<impl Fn(&Inputs, usize) -> Answer + Send + Sync> {
    Scripted { declared, ..scripted(move |inputs: &Inputs, _| answer(inputs)) }
}

/// As a tensor-core kernel declares, which may let NaN through `0 * NaN`.
fn kernel(inputs: &Inputs) -> Declaration {
    let arithmetic = Arithmetic::tensor_core(inputs.dtype());
    Declaration { reads_only_what_it_attends_to: false, ..Declaration::strict(arithmetic) }
}

fn filled(inputs: &Inputs, value: f64) -> Answer {
    Ok(Outputs::filled(inputs, value))
}

/// Numbers that have nothing to do with the problem, of size 1000.
fn random(inputs: &Inputs) -> Answer {
    let mut outputs = Outputs::filled(inputs, 0.0);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for field in Field::ALL {
        let Some(tensor) = outputs.get_mut(field) else { continue };
        tensor.mapv_inplace(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            1000.0 * ((state >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
        });
    }
    Ok(outputs)
}

fn non_finite() -> impl Iterator<Item = (&'static Entry, Dtype)> {
    let entries = entries().iter().filter(|entry| entry.name.starts_with("non_finite/"));
    entries.flat_map(|entry| entry.dtypes.iter().map(move |dtype| (entry, *dtype)))
}

#[test]
fn nothing_but_nan_in_its_place_is_excused_in_any_case_that_is_not_finite() {
    let answers: [(&str, AnswerOf); 8] = [
        ("7 everywhere", |inputs| filled(inputs, 7.0)),
        ("NaN everywhere", |inputs| filled(inputs, f64::NAN)),
        ("infinity everywhere", |inputs| filled(inputs, f64::INFINITY)),
        ("the oracle's answer and 7 for whatever is not finite", |inputs| {
            let mut outputs = oracle::attend(inputs);
            let finite = |value: f64| if value.is_finite() { value } else { 7.0 };
            Field::ALL
                .into_iter()
                .for_each(|field| outputs.get_mut(field).into_iter().for_each(|t| t.mapv_inplace(finite)));
            Ok(outputs)
        }),
        ("a crash", |_| Err(CandidateError::Crash(Cause::Unnamed, "why".to_owned()))),
        ("no answer in time", |_| Err(CandidateError::Timeout(Duration::from_secs(1)))),
        ("a kernel that does not compile", |_| Err(CandidateError::Compile(Cause::Unnamed, "why".to_owned()))),
        ("no out", |inputs| {
            let mut outputs = oracle::attend(inputs);
            outputs.take(Field::Out);
            Ok(outputs)
        }),
    ];
    let mut judged = 0;
    for (entry, dtype) in non_finite() {
        for (name, answer) in answers {
            let report = run_entry(entry, dtype, &hostile(kernel, answer)).unwrap();
            // Where a NaN stands in a slot that takes no part, all of the right answer is finite.
            let right = oracle::attend(&entry.case.materialize(dtype).unwrap());
            let is_right = name.starts_with("the oracle") && report.outputs.as_ref() == Some(&right);
            assert!(
                is_right || report.verdict.failure().is_some(),
                "{name}: {} {dtype}: {}",
                entry.name,
                report.verdict
            );
            judged += 1;
        }
    }
    assert_eq!(judged, 10 * 3 * 8);
}

#[test]
fn what_the_pytorch_function_lets_through_is_excused_and_a_strict_program_is_not() {
    let mut excused = 0;
    for (entry, dtype) in non_finite() {
        let inputs = entry.case.materialize(dtype).unwrap();
        let transcription = by_name("regular_attend").unwrap();
        let report = run_entry(entry, dtype, transcription.as_ref()).unwrap();
        assert!(report.verdict.failure().is_none(), "{} {dtype}: {}", entry.name, report.verdict);
        let leaks = matches!(report.verdict, Verdict::Inconclusive(_));
        excused += usize::from(leaks);
        // The same answer of a program that says that it reads nothing else.
        let strict = |inputs: &Inputs| {
            let transcription = by_name("regular_attend").unwrap();
            Declaration::strict(transcription.declaration(inputs).arithmetic)
        };
        let answer = |inputs: &Inputs| by_name("regular_attend").unwrap().run(inputs);
        let report = run_entry(entry, dtype, &hostile(strict, answer)).unwrap();
        assert_eq!(report.verdict.failure().is_some(), leaks, "{} {dtype}: {}", entry.name, report.verdict);
        assert_eq!(run_entry(entry, dtype, by_name("tiled").unwrap().as_ref()).unwrap().verdict, Verdict::Pass);
        drop(inputs);
    }
    assert!(excused >= 12, "{excused}");
}

/// Half of all is rounding, or all bits are cut off: what no check lets in, put past it here.
fn anything(inputs: &Inputs) -> Declaration {
    let dot = Dot::Blocks { block: 16, extra_bits: -64 };
    Declaration::strict(Arithmetic { scores: dot, products: dot, ..Arithmetic::tensor_core(inputs.dtype()) })
}

fn half(_: &Inputs) -> Declaration {
    let dot = Dot::Fma { unit: 0.5 };
    Declaration::strict(Arithmetic { unit: 0.5, scores: dot, products: dot, ..Arithmetic::f32() })
}

/// The loosest that may be declared.
fn loosest(inputs: &Inputs) -> Declaration {
    let dtype = inputs.dtype();
    let unit = 4.0 * dtype.unit_roundoff().max(Dtype::F32.unit_roundoff());
    let dot = Dot::Fma { unit };
    let exponential = unit.max(2f64.powi(-16));
    let arithmetic = Arithmetic { unit, exponential, scores: dot, products: dot, ..Arithmetic::tensor_core(dtype) };
    arithmetic.check(dtype).unwrap();
    Declaration::strict(arithmetic)
}

/// Every part at its limit: the coarsest unit, exponential and sums, every cast and result in the inputs' dtype.
fn every_part_at_its_limit(inputs: &Inputs, dot: Dot) -> Declaration {
    let dtype = inputs.dtype();
    let coarser = if dtype.unit_roundoff() > Dtype::F32.unit_roundoff() { dtype } else { Dtype::F32 };
    let arithmetic = Arithmetic {
        scores: dot,
        products: dot,
        probability: coarser,
        rescale_every: Some(1),
        running_sum: RunningSum::Logarithm,
        delta: Delta::Probabilities,
        value_gradient_products: Some(coarser),
        output: coarser,
        lse: coarser,
        gradient: coarser,
        sel_scale_gradient: coarser,
        ..loosest(inputs).arithmetic
    };
    arithmetic.check(dtype).unwrap();
    Declaration::strict(arithmetic)
}

fn limits_of_blocks(inputs: &Inputs) -> Declaration {
    every_part_at_its_limit(inputs, Dot::Blocks { block: 1, extra_bits: -1 })
}

fn limits_of_multiply_adds(inputs: &Inputs) -> Declaration {
    every_part_at_its_limit(inputs, loosest(inputs).arithmetic.scores)
}

/// Every fourth small entry, in every format.
fn sample() -> Vec<(&'static Entry, Dtype)> {
    let small = entries().iter().filter(|entry| entry.case.sizes.seq_len * entry.case.sizes.q_heads <= 200);
    small.step_by(4).flat_map(|entry| entry.dtypes.iter().map(move |dtype| (entry, *dtype))).collect()
}

#[test]
fn random_numbers_pass_under_no_declaration() {
    for (name, declared) in [("anything", anything as fn(&Inputs) -> Declaration), ("half", half), ("loosest", loosest)]
    {
        let cases = sample();
        let failed: usize = cases
            .par_iter()
            .map(|(entry, dtype)| {
                let report = run_entry(entry, *dtype, &hostile(declared, random)).unwrap();
                let passed = matches!(report.verdict, Verdict::Pass | Verdict::Suspect(_));
                assert!(!passed, "{name}: {} {dtype}: {}", entry.name, report.verdict);
                usize::from(report.verdict.failure().is_some())
            })
            .sum();
        assert!(
            cases.len() > 60 && (name != "loosest" || failed == cases.len()),
            "{name}: {failed} of {}",
            cases.len()
        );
    }
}

/// Zeros are an answer only where every right value is 0.
#[test]
fn zeros_pass_under_no_declaration() {
    let named = ["edges/block_64", "boundaries/block_65"];
    let known: Vec<&Entry> = entries().iter().filter(|entry| named.contains(&entry.name.as_str())).collect();
    assert_eq!(known.len(), named.len());
    let cases: Vec<(&Entry, Dtype)> = known.into_iter().map(|entry| (entry, Dtype::F16)).chain(sample()).collect();
    for declared in [loosest as fn(&Inputs) -> Declaration, limits_of_blocks, limits_of_multiply_adds] {
        cases.par_iter().for_each(|(entry, dtype)| {
            let report = run_entry(entry, *dtype, &hostile(declared, |inputs| filled(inputs, 0.0))).unwrap();
            let passed = matches!(report.verdict, Verdict::Pass | Verdict::Suspect(_));
            let zero = report.comparisons.iter().all(Comparison::all_zero);
            assert!(!passed || zero, "{} {dtype}: {}", entry.name, report.verdict);
        });
    }
}

#[test]
fn a_right_answer_under_a_declaration_that_promises_nothing_is_inconclusive_by_name() {
    let entry = entries().iter().find(|entry| entry.name == "upstream/small").unwrap();
    let vacuous = hostile(half, |inputs| Ok(tiled::attend(inputs)));
    let report = run_entry(entry, Dtype::F32, &vacuous).unwrap();
    let Verdict::Inconclusive(message) = &report.verdict else { panic!("{}", report.verdict) };
    assert!(message.contains("out: the declared arithmetic promises nothing of it"), "{message}");
    assert_eq!(report.judged().count(), 0);
    assert_eq!(report.not_judged[&Field::Out], NotJudged::Excluded);
    for comparison in report.comparisons.iter().filter(|comparison| !comparison.field.is_gradient()) {
        assert_eq!(comparison.not_judged, comparison.elements, "all of them, and not only those that differ");
    }
    let fields = FieldsJudged::of([&report]);
    assert!(
        fields.judged.is_empty() && fields.to_string().starts_with("judged: nothing; not judged: out 1"),
        "{fields}"
    );
}

#[test]
fn what_an_entry_says_is_exact_is_held_to_that_under_any_declaration() {
    let mut held = 0;
    for entry in entries().iter().filter(|entry| !entry.exact.is_empty()) {
        let answer: AnswerOf = |inputs| filled(inputs, 0.75);
        let report = run_entry(entry, Dtype::F32, &hostile(half, answer)).unwrap();
        assert!(report.verdict.failure().is_some(), "{}: {}", entry.name, report.verdict);
        held += 1;
    }
    assert!(held >= 4, "{held}");
}

#[test]
fn nan_is_wrong_where_nothing_is_promised_unless_something_may_overflow() {
    let entry = entries().iter().find(|entry| entry.name == "upstream/small").unwrap();
    let nan = hostile(half, |inputs| filled(inputs, f64::NAN));
    let report = run_entry(entry, Dtype::F32, &nan).unwrap();
    assert_eq!(report.verdict.failure().map(|failure| failure.class), Some(Class::NonFinite), "{}", report.verdict);
}

/// Computes `lse`, and may differ by the order of additions.
fn only_lse(inputs: &Inputs) -> Declaration {
    let mut declaration = Declaration::strict(tiled::arithmetic(inputs.dtype()));
    declaration.fields = [Field::Lse].into();
    declaration.bounded = declaration.fields.clone();
    declaration.environment = serde_json::json!({ "device": "a test" });
    declaration
}

#[test]
fn a_mutant_round_a_candidate_keeps_all_that_it_declares() {
    let inner = hostile(only_lse, |inputs| {
        let mut lse = Outputs::new();
        lse.set(Field::Lse, tiled::attend(inputs).take(Field::Lse).unwrap());
        Ok(lse)
    });
    let entry = entries().iter().find(|entry| entry.name == "upstream/small").unwrap();
    let inputs = entry.case.materialize(Dtype::F32).unwrap();
    for mutant in mutants().iter().filter(|mutant| mutant.decorates()) {
        let decorated = mutated(mutant, &inner);
        assert_eq!(decorated.declaration(&inputs), only_lse(&inputs), "{}", mutant.name);
    }
    let verdict = |name: &str| {
        let mutant = mutants().iter().find(|mutant| mutant.name == name).unwrap();
        run_entry(entry, Dtype::F32, mutated(mutant, &inner).as_ref()).unwrap().verdict
    };
    // A mistake in a field that it does not compute shows nothing: it is not "killed" for want of that field.
    assert_eq!(verdict("dk_zeros"), Verdict::Pass);
    let dk_zeros = mutants().iter().find(|mutant| mutant.name == "dk_zeros").unwrap();
    assert!(!dk_zeros.shows_in(&only_lse(&inputs).fields) && dk_zeros.shows_in(&[Field::Dk].into()));
}
