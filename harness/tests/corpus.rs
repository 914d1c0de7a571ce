//! The whole corpus, every backend of this machine, every format: no failure, nothing left out.

use std::collections::BTreeMap;

use nsa_corpus::{Element, Entry, Field, entries};
use nsa_harness::backend::by_name;
use nsa_harness::report::Report;
use nsa_harness::run::run_entry;
use nsa_harness::verdict::Verdict;
use rayon::prelude::*;

fn run(backend: &str, elements: impl Fn(&Entry) -> Vec<Element> + Sync) -> Vec<Report> {
    let backend = by_name(backend).unwrap();
    entries()
        .par_iter()
        .flat_map_iter(|entry| elements(entry).into_iter().map(move |element| (entry, element)))
        .map(|(entry, element)| run_entry(entry, element, backend.as_ref()).unwrap())
        .collect()
}

/// Every failure at once, with the command that shows it again.
fn assert_none_fails(reports: &[Report]) {
    let failed: Vec<String> = reports
        .iter()
        .filter(|report| matches!(report.verdict, Verdict::Fail(_) | Verdict::Suspect(_)))
        .map(|report| {
            let Report { name, candidate, element, verdict, .. } = report;
            format!("{verdict}\n    nsa-diff run {name} --candidate {candidate} --element {element}")
        })
        .collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), reports.len(), failed.join("\n"));
}

/// Every element of every field that a case asks for has been compared.
fn assert_nothing_is_left_out(reports: &[Report]) {
    for report in reports.iter().filter(|report| !matches!(report.verdict, Verdict::Skip(_))) {
        let entry = entries().iter().find(|entry| entry.name == report.name).unwrap();
        let inputs = entry.case.materialize(report.element).unwrap();
        let asked = Field::ALL.into_iter().filter(|field| field.asked_by(&inputs));
        let expected: usize = asked.map(|field| field.shape(inputs.shape()).iter().product::<usize>()).sum();
        assert_eq!(report.elements(), expected, "{} {}", report.name, report.element);
    }
}

#[test]
fn the_tiled_candidate_passes_in_every_format() {
    let reports = run("tiled", |entry| entry.elements.clone());
    assert!(reports.len() > 400, "{} cases", reports.len());
    assert_none_fails(&reports);
    assert_nothing_is_left_out(&reports);
}

#[test]
fn the_oracle_passes_its_own_judgement() {
    let reports = run("oracle", |_| vec![Element::F64]);
    assert_none_fails(&reports);
    assert_nothing_is_left_out(&reports);
}

#[test]
fn the_transcription_passes_in_f32() {
    let reports = run("regular_attend", |_| vec![Element::F32]);
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
