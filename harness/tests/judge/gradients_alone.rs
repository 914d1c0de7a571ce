//! A candidate that declares gradients and nothing else: what it saved of its forward is not known, and its budgets say so.

use std::collections::BTreeMap;

use nsa_corpus::{Dtype, Field, Inputs, Outputs, entries};
use nsa_harness::candidate::{Declaration, Unsupported};
use nsa_harness::judge::verdict::Verdict;
use nsa_harness::report::Report;
use nsa_harness::run::run_entry;
use nsa_reference::tiled;
use rayon::prelude::*;

use crate::common::{Answer, Scripted, changed};

/// The tiled candidate, which shows its gradients alone, after a change.
fn gradients_alone(
    change: impl Fn(&mut Outputs) + Send + Sync,
) -> Scripted<impl Fn(&Inputs, usize) -> Answer + Send + Sync> {
    let declared = |inputs: &Inputs| {
        let fields = Field::ALL.into_iter().filter(|field| field.is_gradient()).collect();
        Declaration { fields, ..Declaration::strict(tiled::arithmetic(inputs.dtype())) }
    };
    let supported = |inputs: &Inputs| {
        if inputs.cotangents().any() { Ok(()) } else { Err(Unsupported("no gradient is asked for".into())) }
    };
    Scripted { declared, supported, ..changed(move |_, _, outputs| change(outputs)) }
}

/// Every entry in every format of 16 bits, and in f32, that asks for gradients.
fn reports(change: impl Fn(&mut Outputs) + Send + Sync) -> Vec<Report> {
    let candidate = gradients_alone(change);
    let cases = entries().par_iter().flat_map_iter(|entry| entry.dtypes.iter().map(move |dtype| (entry, *dtype)));
    let wanted = cases.filter(|(_, dtype)| *dtype != Dtype::F64);
    let reports = wanted.map(|(entry, dtype)| run_entry(entry, dtype, &candidate).unwrap());
    reports.filter(|report| !matches!(report.verdict, Verdict::Skip(_))).collect()
}

#[test]
fn a_right_candidate_passes_the_whole_corpus() {
    // The forward that it hides is no part of the judgement, whatever stands in its place.
    let hidden = |outputs: &mut Outputs| outputs.get_mut(Field::Out).unwrap().fill(1e3);
    let reports = reports(hidden);
    assert!(reports.len() > 300, "{} cases", reports.len());
    let wrong = reports.iter().filter(|report| !matches!(report.verdict, Verdict::Pass | Verdict::Inconclusive(_)));
    let wrong: Vec<String> =
        wrong.map(|report| format!("{} {}: {}", report.name, report.dtype, report.verdict)).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), reports.len(), wrong.join("\n"));
    let judged: usize =
        reports.iter().flat_map(|report| &report.comparisons).filter(|c| !c.field.is_gradient()).count();
    assert_eq!(judged, 0);
}

#[test]
fn gradients_a_tenth_too_large_fail_there_as_well() {
    let too_large = |outputs: &mut Outputs| {
        for field in Field::ALL.into_iter().filter(|field| field.is_gradient()) {
            outputs.get_mut(field).into_iter().for_each(|tensor| tensor.mapv_inplace(|value| 1.1 * value));
        }
    };
    let mut counts: BTreeMap<Field, [usize; 2]> = BTreeMap::new();
    for comparison in reports(too_large).iter().flat_map(|report| &report.comparisons) {
        let [failed, all] = counts.entry(comparison.field).or_default();
        *failed += usize::from(comparison.failure.is_some());
        *all += 1;
    }
    assert_eq!(counts.len(), 4);
    for (field, [failed, all]) in counts {
        println!("{field}: {failed} of {all}");
        // Where all of a gradient is 0, or its budget is infinite, nothing can fail.
        assert!(failed * 10 >= all * 7, "{field}: {failed} of {all}");
    }
}

#[test]
fn what_an_entry_says_is_exact_does_not_hold_for_a_field_that_is_hidden() {
    let candidate = gradients_alone(|outputs| outputs.get_mut(Field::Out).unwrap().fill(1e3));
    let mut held = 0;
    for entry in entries().iter().filter(|entry| !entry.exact.is_empty() && entry.case.sizes.seq_len <= 100) {
        let report = run_entry(entry, Dtype::F32, &candidate).unwrap();
        assert!(report.verdict.failure().is_none(), "{}: {}", entry.name, report.verdict);
        held += usize::from(entry.exact.contains(&Field::Out));
    }
    assert!(held >= 2, "{held}");
}
