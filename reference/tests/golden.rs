//! Three independent programs against the answers that PyTorch's `regular_attend` gave (corpus/golden).

use ndarray::ArrayD;
use nsa_corpus::{Dtype, Field, GoldenCase, Inputs, Outputs, golden};
use nsa_reference::{oracle, regular_attend, tiled};

/// Relative to the tensor's largest magnitude; docs/numerics.md says why.
fn limit(case: &GoldenCase) -> f64 {
    if case.inputs.dtype() == Dtype::F64 { 1e-11 } else { 3e-6 }
}

fn relative_error(expected: &ArrayD<f64>, found: &ArrayD<f64>) -> f64 {
    assert_eq!(expected.shape(), found.shape());
    let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let error = expected.iter().zip(found).map(|(expected, found)| (expected - found).abs());
    let worst = error.fold(0.0f64, |worst, error| if error > worst || error.is_nan() { error } else { worst });
    if worst == 0.0 { 0.0 } else { worst / largest }
}

fn agree(name: &str, attend: impl Fn(&Inputs) -> Outputs) {
    let mut tensors = 0;
    for case in golden::embedded() {
        let found = attend(&case.inputs);
        for (field, expected) in case.outputs.iter() {
            let error = relative_error(expected, found.get(field).expect("every field of the file is computed"));
            assert!(error <= limit(&case), "{name}, {}, {field}: {error:e} above {:e}", case.name, limit(&case));
            tensors += 1;
        }
    }
    assert!(tensors >= 170, "only {tensors} tensors were compared");
}

#[test]
fn the_oracle_gives_what_pytorch_gave() {
    agree("oracle", oracle::attend);
}

#[test]
fn the_transcription_gives_what_pytorch_gave_in_the_same_arithmetic() {
    agree("regular_attend", |inputs| match inputs.dtype() {
        Dtype::F64 => regular_attend::attend::<f64>(inputs),
        _ => regular_attend::attend::<f32>(inputs),
    });
}

#[test]
fn the_tiled_candidate_gives_what_pytorch_gave() {
    agree("tiled", tiled::attend);
}

#[test]
fn a_wrong_element_would_be_seen() {
    let case = golden::embedded().into_iter().next().unwrap();
    let mut found = oracle::attend(&case.inputs);
    let out = found.get_mut(Field::Out).unwrap();
    *out.iter_mut().last().unwrap() += 1e-9;
    assert!(relative_error(case.outputs.get(Field::Out).unwrap(), found.get(Field::Out).unwrap()) > limit(&case));
}
