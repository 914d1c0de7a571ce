//! A planted bug on the whole way: found, minimised, stored, replayed.

use std::time::Duration;

use nsa_corpus::{Bundle, Case, Element, Field, Inputs, Outputs};
use nsa_harness::backend::{Backend, BackendError, Declaration, Unsupported, by_name};
use nsa_harness::judge::{judge, verdict};
use nsa_harness::minimize::{Effort, Signature, minimize};
use nsa_harness::run::run_case;
use nsa_harness::store;
use nsa_harness::verdict::Class;
use quickcheck::{Arbitrary, Gen};

/// The tiled candidate, with a fault of the test's choosing on its way out.
struct Faulty(fn(&Inputs, &mut Outputs));

impl Backend for Faulty {
    fn name(&self) -> &str {
        "faulty"
    }

    fn declaration(&self, inputs: &Inputs) -> Declaration {
        Declaration::strict(nsa_reference::tiled::arithmetic(inputs.element()))
    }

    fn supports(&self, _inputs: &Inputs) -> Result<(), Unsupported> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, BackendError> {
        let mut outputs = nsa_reference::tiled::attend(inputs);
        (self.0)(inputs, &mut outputs);
        Ok(outputs)
    }
}

fn first_failure(backend: &dyn Backend) -> (Case, nsa_harness::report::Report) {
    (0..500)
        .map(|seed| Case::arbitrary(&mut Gen::from_size_and_seed(30, seed)))
        .find_map(|case| {
            let report = run_case(&case, Element::F32, backend).unwrap();
            report.verdict.failure().is_some().then_some((case, report))
        })
        .expect("a planted fault is found within 500 cases")
}

#[test]
fn a_negated_gradient_is_found_minimised_stored_and_replayed() {
    let backend = Faulty(|_, outputs| {
        if let Some(dk) = outputs.get_mut(Field::Dk) {
            dk.mapv_inplace(|value| -value);
        }
    });
    let (case, report) = first_failure(&backend);
    let signature = Signature::of(report.verdict.failure().unwrap());
    assert_eq!(signature, Signature { class: Class::OverBudget, field: Some(Field::Dk), kind: String::new() });
    let effort = Effort { calls: 3000, time: Duration::from_secs(60), ..Effort::default() };
    let minimized = minimize(&case, report, Element::F32, &backend, effort);
    assert_eq!(Signature::of(minimized.report.verdict.failure().unwrap()), signature);
    let sizes = minimized.case.sizes;
    assert!(sizes.seq_len <= 4 && sizes.q_heads * sizes.batch <= 2, "{sizes:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = store::store(folder.path(), "found-dk", "a test", &minimized.case, &minimized.report, &backend).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 64 << 10);
    let bundle = Bundle::read(&path).unwrap();
    let comparisons = judge(&bundle.inputs, &store::arithmetic(&bundle).unwrap(), bundle.outputs.as_ref().unwrap());
    assert_eq!(Signature::of(verdict(&comparisons).failure().unwrap()), signature);
    let tiled = by_name("tiled").unwrap();
    assert!(run_case(&bundle.entry.case, Element::F32, tiled.as_ref()).unwrap().verdict.failure().is_none());
}

#[test]
fn each_way_to_be_wrong_has_its_class() {
    type Fault = fn(&Inputs, &mut Outputs);
    let cases: [(Fault, Class); 4] = [
        (|_, outputs| drop(outputs.take(Field::Lse)), Class::Shape),
        (|_, outputs| outputs.get_mut(Field::Out).unwrap().fill(f64::NAN), Class::NonFinite),
        (|_, outputs| outputs.get_mut(Field::Out).unwrap().fill(0.0), Class::OverBudget),
        (|_, _| panic!("a planted panic"), Class::Crash),
    ];
    for (fault, class) in cases {
        let (_, report) = first_failure(&Faulty(fault));
        assert_eq!(report.verdict.failure().unwrap().class, class);
    }
}
