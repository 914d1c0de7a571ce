//! A candidate with a planted fault is found, minimised, stored and judged again: the loop that users rely on, end to end.

use nsa_corpus::{Bundle, Case, Dtype, Field, Inputs, Outputs};
use nsa_harness::campaign::minimize::{Effort, Signature, minimize};
use nsa_harness::campaign::store::{arithmetic, store};
use nsa_harness::campaign::waiver::Extent;
use nsa_harness::candidate::{Candidate, CandidateError, Declaration, Unsupported};
use nsa_harness::judge::verdict::Class;
use nsa_harness::judge::{judge, verdict};
use nsa_harness::report::Report;
use nsa_harness::run::run_case;
use nsa_reference::tiled;
use quickcheck::{Arbitrary, Gen};

/// The tiled candidate with a fault.
struct Mutated {
    name: &'static str,
    mutation: fn(&Inputs) -> Outputs,
}

impl Candidate for Mutated {
    fn name(&self) -> &str {
        self.name
    }

    fn declaration(&self, inputs: &Inputs) -> Declaration {
        Declaration::strict(tiled::arithmetic(inputs.dtype()))
    }

    fn supports(&self, _: &Inputs) -> Result<(), Unsupported> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
        Ok((self.mutation)(inputs))
    }
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
fn found(candidate: &Mutated) -> (Case, Report) {
    (0..400)
        .map(|index| Case::arbitrary(&mut Gen::from_size_and_seed(4 + index as usize % 24, index)))
        .map(|case| (run_case(&case, Dtype::F32, candidate).unwrap(), case))
        .find(|(report, _)| report.verdict.failure().is_some())
        .map(|(report, case)| (case, report))
        .unwrap_or_else(|| panic!("{} is not found in 400 cases", candidate.name))
}

/// Elements of the inputs' tensors.
fn elements(case: &Case) -> usize {
    let inputs = case.materialize(Dtype::F32).unwrap();
    inputs.q().len() + inputs.k().len() + inputs.v().len() + inputs.indices().len()
}

/// Found, made small without changing what fails, stored as values, and judged again from the file alone.
fn goes_round(candidate: &Mutated, class: Class, elements_max: usize) {
    let (case, report) = found(candidate);
    let signature = Signature::of(report.verdict.failure().unwrap());
    assert_eq!(signature.class, class, "{}", report.verdict);
    let small = minimize(&case, report, Dtype::F32, candidate, Effort::default());
    assert_eq!(Signature::of(small.report.verdict.failure().unwrap()), signature, "it slipped to another fault");
    assert!(elements(&small.case) <= elements_max, "{} elements:\n{}", elements(&small.case), small.case.to_toml());

    let folder = tempfile::tempdir().unwrap();
    let path =
        store(folder.path(), "found", "planted", &small.case, &small.report, &Extent::default(), candidate).unwrap();
    let bundle = Bundle::read(&path).unwrap();
    let again = run_case(&bundle.entry.case, bundle.dtype, candidate).unwrap();
    assert_eq!(again.verdict.failure().map(Signature::of), Some(signature.clone()), "{}", again.verdict);
    if let Some(outputs) = &bundle.outputs {
        let judged = verdict(&judge(&bundle.inputs, &arithmetic(&bundle).unwrap(), outputs));
        assert_eq!(judged.failure().map(Signature::of), Some(signature), "the stored answer, without the candidate");
        let replay =
            std::process::Command::new(env!("CARGO_BIN_EXE_nsa-diff")).arg("replay").arg(&path).output().unwrap();
        assert_eq!(replay.status.code(), Some(1), "{}", String::from_utf8_lossy(&replay.stderr));
    }
    let sound = Mutated { name: "sound", mutation: tiled::attend };
    let passes = run_case(&bundle.entry.case, bundle.dtype, &sound).unwrap();
    assert!(passes.verdict.failure().is_none(), "the case itself is sound: {}", passes.verdict);
}

#[test]
fn a_dropped_partial_block_is_found_and_minimised() {
    goes_round(&Mutated { name: "drops", mutation: drops_the_partial_last_block }, Class::OverBudget, 24);
}

#[test]
fn a_negated_gradient_of_one_head_is_found_and_minimised() {
    goes_round(&Mutated { name: "negates", mutation: negates_the_keys_gradient }, Class::OverBudget, 24);
}

#[test]
fn a_crash_is_found_and_minimised() {
    goes_round(&Mutated { name: "crashes", mutation: crashes_on_three_slots }, Class::Crash, 12);
}
