//! A planted fault on the whole way, which users rely on: found, minimised, stored, judged again, waived.

#[path = "common/mod.rs"]
mod common;

use std::time::Duration;

use nsa_corpus::{Bundle, Case, Dtype, Field, Inputs, Outputs};
use nsa_harness::campaign::known::{KnownFailure, stored};
use nsa_harness::campaign::minimize::{Effort, Signature, minimize};
use nsa_harness::campaign::store;
use nsa_harness::campaign::waiver::Extent;
use nsa_harness::candidate::{Candidate, Cause};
use nsa_harness::judge::verdict::Class;
use nsa_harness::judge::{judge, verdict};
use nsa_harness::registry::by_name;
use nsa_harness::report::Report;
use nsa_harness::run::run_case;
use nsa_reference::tiled;

use common::{Answer, Scripted, changed, scripted};

/// The tiled candidate, with a fault of the test's choosing on its way out.
fn mutated(
    mutation: impl Fn(&Inputs, &mut Outputs) + Send + Sync,
) -> Scripted<impl Fn(&Inputs, usize) -> Answer + Send + Sync> {
    Scripted { name: "faulty", ..changed(move |inputs, _, outputs| mutation(inputs, outputs)) }
}

fn first_failure(candidate: &dyn Candidate) -> (Case, Report) {
    first_failure_of(|_| true, candidate)
}

fn first_failure_of(kind: fn(&Case) -> bool, candidate: &dyn Candidate) -> (Case, Report) {
    (0..500)
        .map(|seed| Case::generate(30, seed))
        .filter(kind)
        .find_map(|case| {
            let report = run_case(&case, Dtype::F32, candidate).unwrap();
            report.verdict.failure().is_some().then_some((case, report))
        })
        .expect("a planted fault is found within 500 cases")
}

#[test]
fn a_negated_gradient_is_found_minimised_stored_and_replayed() {
    let candidate = mutated(|_, outputs| {
        if let Some(dk) = outputs.get_mut(Field::Dk) {
            dk.mapv_inplace(|value| -value);
        }
    });
    let (case, report) = first_failure(&candidate);
    let signature = Signature::of(report.verdict.failure().unwrap());
    assert_eq!(signature, Signature { class: Class::OverBudget, field: Some(Field::Dk), kind: Cause::Unnamed });
    let effort = Effort { calls: 3000, time: Duration::from_secs(60), ..Effort::default() };
    let minimized = minimize(&case, report, Dtype::F32, &candidate, effort);
    assert_eq!(Signature::of(minimized.report.verdict.failure().unwrap()), signature);
    let sizes = minimized.case.sizes;
    assert!(sizes.seq_len <= 4 && sizes.q_heads * sizes.batch <= 2, "{sizes:?}");

    let folder = tempfile::tempdir().unwrap();
    let seen = Extent::of_report(&minimized.case, &minimized.report, &candidate).unwrap();
    assert!((seen.errors[&Field::Dk][0] - 2.0).abs() < 0.01, "a sign is twice the magnitude: {seen:?}");
    let path = store::store(folder.path(), "found-dk", "a test", &minimized.case, &minimized.report, &seen, &candidate)
        .unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 64 << 10);
    let bundle = Bundle::read(&path).unwrap();
    let comparisons = judge(&bundle.inputs, &store::arithmetic(&bundle).unwrap(), bundle.outputs.as_ref().unwrap());
    assert_eq!(Signature::of(verdict(&comparisons).failure().unwrap()), signature);
    let tiled = by_name("tiled").unwrap();
    assert!(run_case(&bundle.entry.case, Dtype::F32, tiled.as_ref()).unwrap().verdict.failure().is_none());
}

#[test]
fn each_way_to_be_wrong_has_its_class() {
    type Mutation = fn(&Inputs, &mut Outputs);
    let cases: [(Mutation, Class); 4] = [
        (|_, outputs| drop(outputs.take(Field::Lse)), Class::Shape),
        (|_, outputs| outputs.get_mut(Field::Out).unwrap().fill(f64::NAN), Class::NonFinite),
        (|_, outputs| outputs.get_mut(Field::Out).unwrap().fill(0.0), Class::OverBudget),
        (|_, _| panic!("a planted panic"), Class::Crash),
    ];
    for (mutation, class) in cases {
        let (_, report) = first_failure(&mutated(mutation));
        assert_eq!(report.verdict.failure().unwrap().class, class);
    }
}

/// `dk` is 2 % too large everywhere; the other one is wrong by much more beside `d_lse`, and as wrong without it.
fn two_percent(_: &Inputs, outputs: &mut Outputs) {
    if let Some(dk) = outputs.get_mut(Field::Dk) {
        dk.mapv_inplace(|value| 1.02 * value);
    }
}

fn worse(inputs: &Inputs, outputs: &mut Outputs) {
    if let Some(dk) = outputs.get_mut(Field::Dk) {
        let worse = inputs.cotangents().d_lse.is_some();
        dk.mapv_inplace(|value| if worse { 3.0 - 7.0 * value } else { 1.02 * value });
    }
}

#[test]
fn a_waived_error_of_two_percent_excuses_no_other_error_of_its_field() {
    let (two_percent, worse_beside_d_lse) = (mutated(two_percent), mutated(worse));
    // Of `d_out` and `d_lse` either may be what is left of a case; with the latter, the failure would be said to need it.
    let (case, report) = first_failure_of(|case| case.d_lse.is_none(), &two_percent);
    let seen = Extent::of_report(&case, &report, &two_percent).unwrap();
    let minimized = minimize(&case, report, Dtype::F32, &two_percent, Effort::default());
    let folder = tempfile::tempdir().unwrap();
    let (small, report) = (&minimized.case, &minimized.report);
    let path = store::store(folder.path(), "two", "a test", small, report, &seen, &two_percent).unwrap();
    let waived = |more: &str| {
        let text = format!("[[waiver]]\nfile = \"two.safetensors\"\nreason = \"a test\"\n{more}");
        std::fs::write(folder.path().join("waivers.toml"), text).unwrap();
        stored(folder.path(), "faulty").map_err(|error| error.to_string())
    };
    let lines = Extent::of_bundle(&Bundle::read(&path).unwrap()).to_toml();
    for (more, named) in [
        ("", "without `errors`"),
        ("", lines.as_str()),
        ("errors = { dk = [0.5, 0.1] }", "no interval"),
        ("errors = { dk = [0.01, inf] }", "no interval"),
        ("errors = { dk = [1.0, 2.0] }", "not covered"),
        ("errors = { dv = [0.01, 1.0] }", "not covered"),
        ("errors = { dk = [0.0, 1e308] }", "0e0 to 1e308"),
        ("error = 3", "unknown field"),
    ] {
        let error = waived(more).map(|_| ()).unwrap_err();
        assert!(error.contains(named) && error.contains("waivers.toml"), "{more}: {error}");
    }

    let failure = waived(&lines).unwrap().remove(0);
    assert_eq!(failure.waived_no_more(report, &two_percent), None);
    let nine = mutated(|_, outputs| outputs.get_mut(Field::Dk).unwrap().fill(9.0));
    let wrong = run_case(small, Dtype::F32, &nine).unwrap();
    let more = failure.waived_no_more(&wrong, &nine).expect("it is wrong by more than is waived");
    assert!(more.contains("dk errs by"), "{more}");

    let known = KnownFailure::new(failure.file, Dtype::F32, failure.signature.unwrap(), &failure.bundle.entry.case);
    let known = KnownFailure { waiver: failure.waiver, ..known };
    let (mut excused, mut others, mut worse) = (0, 0, 0);
    for seed in 0..400 {
        let case = Case::generate(20, seed);
        let report = run_case(&case, Dtype::F32, &worse_beside_d_lse).unwrap();
        if report.verdict.failure().is_none() {
            continue;
        }
        let is_excused = known.excuses(&case, &report, &worse_beside_d_lse);
        if case.d_lse.is_some() {
            worse += 1;
            assert!(!is_excused, "another bug is excused:\n{}", case.to_toml());
        } else if is_excused {
            excused += 1;
        } else {
            others += 1;
        }
    }
    assert!(worse > 50 && excused > 50, "{worse} {excused} {others}, needs {:?}", known.required_features);
    assert!(others * 10 <= excused, "the waived bug itself is seldom excused: {others} not, {excused}");
}

/// Slots that select the partial last block take no part: what comes of cutting keys at the sequence's end, and more.
fn drops_the_partial_last_block(inputs: &Inputs) -> Outputs {
    let (shape, mut parts) = (*inputs.shape(), inputs.clone().into_parts());
    if shape.padded_len() != shape.seq_len() {
        let last = shape.blocks() as i64 - 1;
        parts.mask.zip_mut_with(&parts.indices, |live, index| *live &= *index != last);
    }
    tiled::attend(&Inputs::new(parts).unwrap())
}

/// The gradient of the keys of the last head has the wrong sign.
fn negates_the_keys_gradient(inputs: &Inputs) -> Outputs {
    let mut outputs = tiled::attend(inputs);
    let head = inputs.shape().kv_heads() - 1;
    if let Some(dk) = outputs.get_mut(Field::Dk) {
        dk.index_axis_mut(ndarray::Axis(1), head).mapv_inplace(|value| -value);
    }
    outputs
}

fn crashes_on_three_slots(inputs: &Inputs) -> Outputs {
    assert!(inputs.shape().num_sel() < 3, "no room for a third slot");
    tiled::attend(inputs)
}

/// The first generated case that fails, as `nsa-diff fuzz` draws them.
fn found(candidate: &dyn Candidate) -> (Case, Report) {
    (0..400)
        .map(|index| Case::generate(4 + index as usize % 24, index))
        .map(|case| (run_case(&case, Dtype::F32, candidate).unwrap(), case))
        .find(|(report, _)| report.verdict.failure().is_some())
        .map(|(report, case)| (case, report))
        .unwrap_or_else(|| panic!("{} is not found in 400 cases", candidate.name()))
}

/// Elements of the inputs' tensors.
fn elements(case: &Case) -> usize {
    let inputs = case.materialize(Dtype::F32).unwrap();
    inputs.q().len() + inputs.k().len() + inputs.v().len() + inputs.indices().len()
}

/// Found, made small without changing what fails, stored as values, and judged again from the file alone.
fn goes_round(attend: fn(&Inputs) -> Outputs, class: Class, elements_max: usize) {
    let candidate = &scripted(move |inputs: &Inputs, _| Ok(attend(inputs)));
    let (case, report) = found(candidate);
    let signature = Signature::of(report.verdict.failure().unwrap());
    assert_eq!(signature.class, class, "{}", report.verdict);
    let small = minimize(&case, report, Dtype::F32, candidate, Effort::default());
    assert_eq!(Signature::of(small.report.verdict.failure().unwrap()), signature, "it slipped to another fault");
    assert!(elements(&small.case) <= elements_max, "{} elements:\n{}", elements(&small.case), small.case.to_toml());

    let folder = tempfile::tempdir().unwrap();
    let path =
        store::store(folder.path(), "found", "planted", &small.case, &small.report, &Extent::default(), candidate)
            .unwrap();
    let bundle = Bundle::read(&path).unwrap();
    let again = run_case(&bundle.entry.case, bundle.dtype, candidate).unwrap();
    assert_eq!(again.verdict.failure().map(Signature::of), Some(signature.clone()), "{}", again.verdict);
    if let Some(outputs) = &bundle.outputs {
        let judged = verdict(&judge(&bundle.inputs, &store::arithmetic(&bundle).unwrap(), outputs));
        assert_eq!(judged.failure().map(Signature::of), Some(signature.clone()), "the stored answer");
        let replayed = store::judge_again(&bundle).unwrap().unwrap();
        assert_eq!(replayed.verdict.failure().map(Signature::of), Some(signature), "as `nsa-diff replay` has it");
    }
    let sound = by_name("tiled").unwrap();
    let passes = run_case(&bundle.entry.case, bundle.dtype, sound.as_ref()).unwrap();
    assert!(passes.verdict.failure().is_none(), "the case itself is sound: {}", passes.verdict);
}

#[test]
fn a_dropped_partial_block_is_found_and_minimised() {
    goes_round(drops_the_partial_last_block, Class::OverBudget, 24);
}

#[test]
fn a_negated_gradient_of_one_head_is_found_and_minimised() {
    goes_round(negates_the_keys_gradient, Class::OverBudget, 24);
}

#[test]
fn a_crash_is_found_and_minimised() {
    goes_round(crashes_on_three_slots, Class::Crash, 12);
}
