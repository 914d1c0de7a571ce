//! The whole corpus, every candidate of this machine, every format: no failure, nothing left out, and no
//! check that could not have failed without being known for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use nsa_corpus::{Dtype, Entry, Field, entries};
use nsa_harness::judge::sensitivity::{Perturbation, Reason};
use nsa_harness::judge::verdict::{NotJudged, Verdict};
use nsa_harness::registry::by_name;
use nsa_harness::report::Report;
use nsa_harness::run::run_entry;
use rayon::prelude::*;

fn run(candidate: &str, elements: impl Fn(&Entry) -> Vec<Dtype> + Sync) -> Vec<Report> {
    let candidate = by_name(candidate).unwrap();
    entries()
        .par_iter()
        .flat_map_iter(|entry| elements(entry).into_iter().map(move |dtype| (entry, dtype)))
        .map(|(entry, dtype)| run_entry(entry, dtype, candidate.as_ref()).unwrap())
        .collect()
}

/// Every failure at once, with the command that shows it again.
fn assert_none_fails(reports: &[Report]) {
    let failed: Vec<String> = reports
        .iter()
        .filter(|report| matches!(report.verdict, Verdict::Fail(_) | Verdict::Suspect(_)))
        .map(|report| {
            let Report { name, candidate, dtype, verdict, .. } = report;
            format!("{verdict}\n    nsa-diff run {name} --candidate {candidate} --element {dtype}")
        })
        .collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), reports.len(), failed.join("\n"));
}

/// Every element of every field that a case asks for has been compared.
fn assert_nothing_is_left_out(reports: &[Report]) {
    for report in reports.iter().filter(|report| !matches!(report.verdict, Verdict::Skip(_))) {
        let entry = entries().iter().find(|entry| entry.name == report.name).unwrap();
        let inputs = entry.case.materialize(report.dtype).unwrap();
        let asked = Field::ALL.into_iter().filter(|field| field.asked_by(&inputs));
        let expected: usize = asked.map(|field| field.shape(inputs.shape()).iter().product::<usize>()).sum();
        assert_eq!(report.elements(), expected, "{} {}", report.name, report.dtype);
    }
}

/// The whole corpus on the tiled candidate, once for all tests.
fn tiled() -> &'static [Report] {
    static REPORTS: OnceLock<Vec<Report>> = OnceLock::new();
    REPORTS.get_or_init(|| run("tiled", |entry| entry.dtypes.clone()))
}

#[test]
fn the_tiled_candidate_passes_in_every_format() {
    let reports = tiled();
    assert!(reports.len() > 400, "{} cases", reports.len());
    assert_none_fails(reports);
    assert_nothing_is_left_out(reports);
}

/// Zeros, a flipped sign, swapped rows and 1 % too much, in any field, are rejected by many entries: the corpus does not lean on
/// a few cases.
#[test]
fn every_perturbation_is_rejected_in_every_field_by_many_entries() {
    for field in Field::ALL {
        for perturbation in Perturbation::ALL {
            let rejecting = tiled().iter().filter(|report| {
                let mut fields = report.comparisons.iter().filter(|comparison| comparison.field == field);
                fields.any(|comparison| !comparison.sensitivity.vacuous.contains_key(&perturbation))
            });
            let names: BTreeSet<&str> = rejecting.map(|report| report.name.as_str()).collect();
            assert!(names.len() >= 20, "{field} with {perturbation} is rejected by {names:?} only");
        }
    }
}

/// Which checks of the corpus are vacuous, and why; a change is reviewed with `cargo insta review`. Formats are named where the
/// entry's others would have rejected the fault.
#[test]
fn the_vacuous_checks_of_the_corpus_are_what_was_reviewed() {
    type Perturbations = BTreeMap<(Reason, Perturbation), Vec<Dtype>>;
    let mut checks: BTreeMap<(&str, Field), Perturbations> = BTreeMap::new();
    for report in tiled() {
        for comparison in &report.comparisons {
            for (perturbation, reason) in &comparison.sensitivity.vacuous {
                let check = checks.entry((&report.name, comparison.field)).or_default();
                check.entry((*reason, *perturbation)).or_default().push(report.dtype);
            }
        }
    }
    let line = |((name, field), perturbations): (&(&str, Field), &Perturbations)| {
        let all = entries().iter().find(|entry| entry.name == *name).unwrap().dtypes.len();
        let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((reason, perturbation), elements) in perturbations {
            let formats: Vec<&str> = elements.iter().map(|dtype| dtype.name()).collect();
            let formats = if elements.len() == all { String::new() } else { format!(" in {}", formats.join(" and ")) };
            reasons.entry(format!("{reason}{formats}")).or_default().push(perturbation.to_string());
        }
        let reasons: Vec<String> =
            reasons.iter().map(|(reason, perturbations)| format!("{}: {reason}", perturbations.join(", "))).collect();
        format!("{name} {field}: {}", reasons.join("; "))
    };
    let lines: Vec<String> = checks.iter().map(line).collect();
    insta::with_settings!({ prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("vacuous_checks", lines.join("\n"));
    });
}

/// Fields of which the budget is above the signal, in so many formats: dq and dk of rows in which every weight is 0 or 1, or that
/// have a single key, so that the right values are what rounding leaves of 0.
#[test]
fn every_case_of_the_corpus_says_something_and_these_fields_do_not() {
    let mut silent: BTreeMap<(&str, Field, NotJudged), usize> = BTreeMap::new();
    for report in tiled() {
        assert!(!matches!(report.verdict, Verdict::Inconclusive(_)), "{} {}", report.name, report.verdict);
        for (field, reason) in &report.not_judged {
            *silent.entry((&report.name, *field, *reason)).or_default() += 1;
        }
    }
    let lines: Vec<String> = silent
        .iter()
        .map(|((name, field, reason), formats)| format!("{name} {field}: {reason:?} in {formats}"))
        .collect();
    insta::with_settings!({ prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("silent_fields", lines.join("\n"));
    });
}

#[test]
fn the_oracle_passes_its_own_judgement() {
    let reports = run("oracle", |_| vec![Dtype::F64]);
    assert_none_fails(&reports);
    assert_nothing_is_left_out(&reports);
}

#[test]
fn the_transcription_passes_in_f32() {
    let reports = run("regular_attend", |_| vec![Dtype::F32]);
    assert_none_fails(&reports);
    let mut skips: BTreeMap<&str, usize> = BTreeMap::new();
    for report in &reports {
        if let Verdict::Skip(reason) = &report.verdict {
            *skips.entry(reason).or_default() += 1;
        }
    }
    println!("skipped: {skips:?}");
    assert!(skips.values().sum::<usize>() <= 6, "{skips:?}");
}
