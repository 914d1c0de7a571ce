//! From a candidate's answer to a verdict: a candidate that answers what the test says, run and judged as any other.

use std::time::Duration;

use nsa_corpus::{
    Arithmetic, Case, Dtype, Entry, Expect, Field, Inputs, Mask, Outputs, Override, Selection, Sizes, Tensor, Values,
};
use nsa_harness::candidate::{Candidate, CandidateError, Cause, Declaration, Unsupported};
use nsa_harness::judge::field::Comparison;
use nsa_harness::judge::verdict::{Class, Failure, NotJudged, Verdict};
use nsa_harness::judge::{intervals, judge};
use nsa_harness::report::{FieldsJudged, Report};
use nsa_harness::run::{rerun, run_case, run_entry};
use nsa_reference::{oracle, tiled};

use crate::common::{self, Answer, Scripted};

fn tiled_arithmetic(inputs: &Inputs) -> Declaration {
    Declaration::strict(tiled::arithmetic(inputs.dtype()))
}

/// Which may read what it does not attend to.
fn reads_more(inputs: &Inputs) -> Declaration {
    Declaration { reads_only_what_it_attends_to: false, ..tiled_arithmetic(inputs) }
}

fn without_dv(inputs: &Inputs) -> Declaration {
    let mut declaration = reads_more(inputs);
    declaration.fields.retain(|field| *field != Field::Dv);
    declaration
}

fn not_seven_slots(inputs: &Inputs) -> Result<(), Unsupported> {
    if inputs.shape().num_sel() == 7 { Err(Unsupported("not 7 slots".into())) } else { Ok(()) }
}

/// Answers so, may read what it does not attend to, and takes no 7 slots.
fn scripted<F: Fn(&Inputs, usize) -> Answer + Send + Sync>(answer: F) -> Scripted<F> {
    Scripted { declared: reads_more, supported: not_seven_slots, ..common::scripted(answer) }
}

/// Six tokens in blocks of two, two slots.
fn case() -> Case {
    let sizes = Sizes {
        batch: 1,
        q_heads: 2,
        kv_heads: 1,
        seq_len: 6,
        dim: 4,
        value_dim: 3,
        block_size: 2,
        num_sel: 2,
        sel_heads: 1,
    };
    let sel_scale = Some(Values::normal());
    Case { sel_scale, d_lse: Some(Values::normal()), ..Case::ordinary(sizes, 5) }
}

fn inputs() -> Inputs {
    case().materialize(Dtype::F32).unwrap()
}

fn failed(comparisons: &[Comparison]) -> Vec<Field> {
    let failed = comparisons.iter().filter(|comparison| comparison.failure.is_some());
    failed.map(|comparison| comparison.field).collect()
}

fn class(report: &Report) -> Option<Class> {
    report.verdict.failure().map(|failure| failure.class)
}

#[test]
fn a_right_answer_passes_with_every_field_compared() {
    let report = run_case(&case(), Dtype::F32, &scripted(|inputs, _| Ok(tiled::attend(inputs)))).unwrap();
    assert_eq!(report.verdict, Verdict::Pass);
    let fields: Vec<Field> = report.comparisons.iter().map(|comparison| comparison.field).collect();
    assert_eq!(fields, [Field::Out, Field::Lse, Field::Dq, Field::Dk, Field::Dv, Field::DselScale]);
    assert_eq!(report.elements(), 2 * 6 * (3 + 1 + 4) + 6 * (4 + 3 + 2));
    assert_eq!((report.candidate.as_str(), report.name == case().id()), ("scripted", true));
    assert_eq!(report.outputs, Some(tiled::attend(&inputs())));
    assert!(report.worst_ratio() > 0.0 && report.seconds > 0.0);
}

#[test]
fn gradients_are_judged_given_the_saved_outputs_of_the_candidate_itself() {
    let inputs = inputs();
    let arithmetic = Arithmetic::f32();
    let exact = oracle::attend(&inputs);
    let with_backward = |forward: &Outputs, saved: &Outputs| {
        let mut answer = forward.clone();
        for (field, tensor) in oracle::backward(&inputs, saved, None).outputs.iter() {
            answer.set(field, tensor.clone());
        }
        answer
    };
    let not_judged =
        |comparisons: &[Comparison]| comparisons.iter().map(|comparison| comparison.not_judged).sum::<usize>();
    let mut shifted = exact.clone();
    shifted.get_mut(Field::Lse).unwrap().mapv_inplace(|lse| lse + 0.5);
    shifted.get_mut(Field::Out).unwrap().mapv_inplace(|out| out * 1.5);
    let found = judge(&inputs, &arithmetic, &with_backward(&shifted, &shifted));
    assert_eq!(failed(&found), [Field::Out, Field::Lse]);
    assert_eq!(failed(&judge(&inputs, &arithmetic, &with_backward(&shifted, &exact))).len(), 6);

    // One saved element that cannot be used is replaced by the oracle's, and nothing else is.
    let mut spoiled = shifted.clone();
    spoiled.get_mut(Field::Lse).unwrap()[[0, 1, 3]] = f64::NAN;
    shifted.get_mut(Field::Lse).unwrap()[[0, 1, 3]] = exact.get(Field::Lse).unwrap()[[0, 1, 3]];
    let found = judge(&inputs, &arithmetic, &with_backward(&spoiled, &shifted));
    assert_eq!((failed(&found), not_judged(&found)), (vec![Field::Out, Field::Lse], 0));

    // A tensor of another shape, or none, is replaced whole.
    let mut answer = with_backward(&exact, &exact);
    answer.set(Field::Lse, ndarray::Array3::<f64>::zeros((1, 2, 5)));
    assert_eq!(failed(&judge(&inputs, &arithmetic, &answer)), [Field::Lse]);
    answer.take(Field::Lse);
    assert_eq!(failed(&judge(&inputs, &arithmetic, &answer)), [Field::Lse]);
}

#[test]
fn an_interval_ends_a_budget_below_and_a_budget_above_the_oracles_value() {
    let (inputs, arithmetic) = (inputs(), Arithmetic::f32());
    let found = tiled::attend(&inputs);
    let [least, greatest] = intervals(&inputs, &arithmetic, &found, &[Field::Out, Field::Dv]);
    let fields: Vec<Field> = least.iter().map(|(field, _)| field).collect();
    assert_eq!(fields, [Field::Out, Field::Dv], "those asked for and no other");
    let forward = oracle::forward(&inputs, Some(&arithmetic));
    // The gradients are those that follow from what was saved.
    let backward = oracle::backward(&inputs, &found, Some(&arithmetic));
    for (field, answer) in [(Field::Out, forward), (Field::Dv, backward)] {
        let (value, budget) = (answer.outputs.get(field).unwrap(), answer.bounds.unwrap().rigorous);
        let budget = budget.get(field).unwrap();
        assert!(budget.iter().all(|budget| *budget > 0.0));
        assert_eq!((least.get(field), greatest.get(field)), (Some(&(value - budget)), Some(&(value + budget))));
    }
}

#[test]
fn what_a_candidate_does_not_compute_is_not_judged() {
    let wrong = |inputs: &Inputs, _| {
        let mut outputs = tiled::attend(inputs);
        outputs.get_mut(Field::Dv).unwrap().fill(9.0);
        Ok(outputs)
    };
    let report = run_case(&case(), Dtype::F32, &scripted(wrong)).unwrap();
    assert_eq!((class(&report), failed(&report.comparisons)), (Some(Class::OverBudget), vec![Field::Dv]));
    let report = run_case(&case(), Dtype::F32, &Scripted { declared: without_dv, ..scripted(wrong) }).unwrap();
    assert_eq!((&report.verdict, report.comparisons.len()), (&Verdict::Pass, 5));
    assert_eq!(report.not_judged, [(Field::Dv, NotJudged::NotComputed)].into());
    let fields = FieldsJudged::of([&report]);
    assert_eq!(fields.never(), [Field::Dv].into());
    let words = "judged: out 1, lse 1, dq 1, dk 1, dsel_scale 1; not judged: dv 1 (the candidate does not compute it)";
    assert_eq!(fields.to_string(), words);
    let mut seven = case();
    seven.sizes.num_sel = 7;
    let report = run_case(&seven, Dtype::F32, &scripted(|_, _| panic!("it is not run"))).unwrap();
    assert_eq!((report.verdict, report.outputs), (Verdict::Skip("not 7 slots".into()), None));
}

#[test]
fn each_way_to_give_no_answer_has_its_verdict() {
    let text = || "why".to_owned();
    let fails = |class, message: &str| Verdict::Fail(Failure::new(class, None, message.into()));
    let called = |cause, verdict: Verdict| match verdict {
        Verdict::Fail(failure) => Verdict::Fail(Failure { cause, ..failure }),
        other => other,
    };
    let cases = [
        (
            CandidateError::Crash(Cause::Signal(11), text()),
            called(Cause::Signal(11), fails(Class::Crash, "crashed: why")),
        ),
        (
            CandidateError::Broken(text()),
            called(Cause::named("broken answer"), fails(Class::Crash, "broken answer: why")),
        ),
        (CandidateError::Timeout(Duration::from_secs(3)), fails(Class::Timeout, "no answer within 3 s")),
        (CandidateError::Compile(Cause::Unnamed, text()), fails(Class::Compile, "does not compile: why")),
        (CandidateError::OutOfBounds(Cause::Unnamed, text()), fails(Class::OutOfBounds, "wrote out of bounds: why")),
        (CandidateError::Nondeterministic(text()), fails(Class::Nondeterministic, "not deterministic: why")),
        (CandidateError::Unsupported(text()), Verdict::Skip(text())),
        (CandidateError::Environment(text()), Verdict::Inconclusive(text())),
    ];
    for (error, expected) in cases {
        let report = run_case(&case(), Dtype::F32, &scripted(move |_, _| Err(error.clone()))).unwrap();
        assert_eq!(report.verdict, expected);
        assert!(report.comparisons.is_empty() && report.outputs.is_none());
    }
    let panics = |message| called(Cause::Panic, fails(Class::Crash, message));
    let message = |candidate: &dyn Candidate| run_case(&case(), Dtype::F32, candidate).unwrap().verdict;
    let number = 7;
    assert_eq!(message(&scripted(|_, _| panic!("a str"))), panics("crashed: panicked: a str"));
    assert_eq!(message(&scripted(|_, _| panic!("a String, {number}"))), panics("crashed: panicked: a String, 7"));
}

/// The oracle's answer, with NaN in row 2 of `out` of every head and `error` in row 1.
fn leaking(error: f64) -> Scripted<impl Fn(&Inputs, usize) -> Answer + Send + Sync> {
    scripted(move |inputs: &Inputs, _| {
        let mut outputs = oracle::attend(inputs);
        outputs.get_mut(Field::Out).unwrap()[[0, 0, 2, 0]] = f64::NAN;
        outputs.get_mut(Field::Out).unwrap()[[0, 0, 1, 0]] += error;
        Ok(outputs)
    })
}

/// Nothing is selected, and one number of a tensor is NaN.
fn with_nan(tensor: Tensor, index: &[usize]) -> Case {
    let sound = Case { mask: Mask::None {}, selection: Selection::Fixed { block: 0 }, ..case() };
    Case { overrides: vec![Override::new(tensor, index, f64::NAN)], ..sound }
}

#[test]
fn nan_through_zero_weights_is_excused_where_it_can_be_reached_and_nothing_else_is() {
    let verdict = |case: &Case, candidate: &dyn Candidate| run_case(case, Dtype::F32, candidate).unwrap().verdict;
    let fails = |verdict: Verdict| verdict.failure().map(|failure| failure.class);
    // Row 2 touches the keys of its own block, 2 and 3, and those of block 0, which every masked slot selects.
    for key in [3, 0, 1] {
        let Verdict::Inconclusive(message) = verdict(&with_nan(Tensor::V, &[0, 0, key, 0]), &leaking(0.0)) else {
            panic!("NaN in key {key} is not excused")
        };
        let words = "NaN through 0 * NaN, as in the PyTorch function: out is NaN in 1 of 36 elements that it can reach";
        // Rows that attend to the key are NaN in the oracle too; the one leak is counted.
        assert_eq!(message, words);
    }
    let reached = with_nan(Tensor::V, &[0, 0, 3, 0]);
    for (case, why) in [
        (with_nan(Tensor::V, &[0, 0, 5, 0]), "it touches no key of block 2"),
        (with_nan(Tensor::V, &[0, 0, 3, 1]), "another feature of v"),
        (with_nan(Tensor::DLse, &[0, 0, 2]), "a cotangent reaches no output"),
        (with_nan(Tensor::Q, &[0, 0, 3, 0]), "another row"),
        (Case { overrides: Vec::new(), ..reached.clone() }, "the inputs are finite"),
    ] {
        assert_eq!(fails(verdict(&case, &leaking(0.0))), Some(Class::NonFinite), "{why}");
    }
    assert_eq!(fails(verdict(&reached, &leaking(0.5))), Some(Class::OverBudget), "row 1 is wrong as well");
    let strict = Scripted { declared: tiled_arithmetic, ..leaking(0.0) };
    assert_eq!(fails(verdict(&reached, &strict)), Some(Class::NonFinite), "it declares better");
    assert_eq!(verdict(&reached, &scripted(|inputs, _| Ok(oracle::attend(inputs)))), Verdict::Pass);
}

#[test]
fn a_rerun_that_differs_or_fails_is_named() {
    let wavers_in = |bad: usize| {
        scripted(move |inputs: &Inputs, run| {
            let mut outputs = tiled::attend(inputs);
            let lse = &mut outputs.get_mut(Field::Lse).unwrap()[[0, 0, 2]];
            *lse = if run == bad { f64::from_bits(lse.to_bits() + 1) } else { *lse };
            Ok(outputs)
        })
    };
    let first = tiled::attend(&inputs());
    let again = |candidate: &dyn Candidate, times| {
        rerun(&case(), Dtype::F32, candidate, &first, times, &|| false).unwrap().failure()
    };
    assert_eq!(again(&wavers_in(9), 3), None);
    let failure = again(&wavers_in(1), 3).unwrap();
    assert_eq!((failure.class, failure.field), (Class::Nondeterministic, Some(Field::Lse)));
    assert!(failure.message.starts_with("rerun 2 of 3: lse is declared bitwise"), "{}", failure.message);
    let crashes = scripted(|_, _| Err(CandidateError::Crash(Cause::Unnamed, "why".into())));
    assert_eq!(again(&crashes, 2).unwrap().class, Class::Crash);
    assert_eq!(again(&crashes, 0), None);
}

#[test]
fn an_entry_gives_its_name_and_excuses_no_number_and_no_missing_answer() {
    let mut entry = Entry::new("group/name", "to be judged", case());
    entry.expect = Expect::Acceptable;
    let report = |candidate: &dyn Candidate| run_entry(&entry, Dtype::F32, candidate).unwrap();
    let wrong = report(&scripted(|inputs: &Inputs, _| Ok(Outputs::filled(inputs, 9.0))));
    assert_eq!((wrong.name.as_str(), class(&wrong)), ("group/name", Some(Class::OverBudget)));
    let crash = report(&scripted(|_, _| Err(CandidateError::Crash(Cause::Unnamed, "why".into()))));
    assert_eq!(class(&crash), Some(Class::Crash));
    assert_eq!(report(&scripted(|inputs, _| Ok(tiled::attend(inputs)))).verdict, Verdict::Pass);
}
