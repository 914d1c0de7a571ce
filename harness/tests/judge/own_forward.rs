//! A candidate whose backward starts from its own `out` and `lse`, which it rounded for the harness alone: automatic differentiation
//! in f64 that stores what it answers in the format of its inputs, for one. It passes if it says so, and not for whatever reason.

use nsa_corpus::{Arithmetic, BackwardReads, Dtype, Entry, Field, Inputs, Outputs, entries};
use nsa_harness::candidate::Declaration;
use nsa_harness::judge::field::Comparison;
use nsa_harness::judge::verdict::{Class, Verdict};
use nsa_harness::report::Report;
use nsa_harness::run::run_entry;
use nsa_reference::oracle;
use rayon::prelude::*;

use crate::common::{Answer, Scripted, scripted};

/// f64 inside, everything stored in the format of the inputs.
fn stored(inputs: &Inputs, backward_reads: BackwardReads) -> Declaration {
    let (output, lse) = (inputs.dtype(), inputs.dtype());
    let (gradient, sel_scale_gradient) = (output, output);
    // The oracle's own roundings are a few units: what its candidate declares of f64.
    let unit = 2f64.powi(-52);
    Declaration::strict(Arithmetic {
        unit,
        backward_reads,
        output,
        lse,
        gradient,
        sel_scale_gradient,
        ..Arithmetic::f64()
    })
}

fn own(inputs: &Inputs) -> Declaration {
    stored(inputs, BackwardReads::Own)
}

fn not_said(inputs: &Inputs) -> Declaration {
    stored(inputs, BackwardReads::Stored)
}

fn attend(inputs: &Inputs) -> Outputs {
    let mut outputs = oracle::attend(inputs);
    for field in Field::ALL {
        if let Some(values) = outputs.get_mut(field) {
            values.mapv_inplace(|value| inputs.dtype().round(value));
        }
    }
    outputs
}

fn candidate(declared: fn(&Inputs) -> Declaration) -> Scripted<impl Fn(&Inputs, usize) -> Answer + Send + Sync> {
    Scripted { declared, ..scripted(|inputs: &Inputs, _| Ok(attend(inputs))) }
}

/// Every small entry of the corpus, in every format.
fn reports(declared: fn(&Inputs) -> Declaration) -> Vec<Report> {
    let small = |entry: &&Entry| entry.case.sizes.seq_len * entry.case.sizes.q_heads <= 2_000;
    let cases: Vec<(&Entry, Dtype)> = entries()
        .iter()
        .filter(small)
        .flat_map(|entry| entry.dtypes.iter().map(move |dtype| (entry, *dtype)))
        .filter(|(_, dtype)| *dtype != Dtype::F64)
        .collect();
    cases.par_iter().map(|(entry, dtype)| run_entry(entry, *dtype, &candidate(declared)).unwrap()).collect()
}

#[test]
fn a_backward_that_reads_its_own_forward_passes_if_it_says_so() {
    let wrong = |report: &&Report| !matches!(report.verdict, Verdict::Pass);
    let said = reports(own);
    let failed: Vec<String> =
        said.iter().filter(wrong).map(|it| format!("{} {}: {}", it.name, it.dtype, it.verdict)).collect();
    assert!(said.len() > 300 && failed.is_empty(), "{} of {}:\n{}", failed.len(), said.len(), failed.join("\n"));
    // What it says means something, in every format; and nothing else than gradients is wrong without it.
    let without = reports(not_said);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let of_dtype: Vec<&Report> = without.iter().filter(|report| report.dtype == dtype).collect();
        let failures: Vec<_> = of_dtype.iter().filter_map(|report| report.verdict.failure()).collect();
        println!("{dtype}: {} of {} fail if it is not said", failures.len(), of_dtype.len());
        assert!(!failures.is_empty(), "{dtype}");
        assert!(failures.iter().all(|failure| failure.field.is_some_and(Field::is_gradient)), "{failures:?}");
    }
}

#[test]
fn a_wrong_gradient_fails_all_the_same() {
    let entry = entries().iter().find(|entry| entry.name == "upstream/small").unwrap();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        for field in [Field::Dq, Field::Dk, Field::Dv] {
            let wrong = Scripted {
                declared: own,
                ..scripted(move |inputs: &Inputs, _| {
                    let mut outputs = attend(inputs);
                    outputs.get_mut(field).unwrap().mapv_inplace(|value| inputs.dtype().round(1.1 * value));
                    Ok(outputs)
                })
            };
            let report = run_entry(entry, dtype, &wrong).unwrap();
            let failure = report.verdict.failure().unwrap_or_else(|| panic!("{dtype} {field}: {}", report.verdict));
            assert_eq!((failure.class, failure.field), (Class::OverBudget, Some(field)));
            let right = |comparison: &Comparison| comparison.field == field || comparison.failure.is_none();
            assert!(report.comparisons.iter().all(right), "{dtype} {field}: nothing else is wrong");
        }
    }
}
