//! A candidate beside the answers that PyTorch gave: files of inputs and outputs (docs/corpus-format.md).
//!
//! Errors are relative to the largest magnitude of each tensor. A candidate that computes in a coarser arithmetic than the file's,
//! or gets its inputs in another dtype, is judged by its own error budgets instead.

use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use nsa_corpus::{Dtype, Error, Field, GoldenCase, InputParts, Inputs, foreign};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidate::{Candidate, CandidateError, Declaration};
use crate::judge::{judge_declared, verdict};

/// One tensor of one file, compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tensor {
    /// The file's name.
    pub file: String,
    /// The field; nothing where the candidate gave no answer at all.
    pub field: Option<Field>,
    /// The error, as a multiple of what `limit` limits.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub error: f64,
    /// The largest error that passes.
    pub limit: f64,
    /// Whether it fails.
    pub failed: bool,
    /// What is wrong, where the error does not say it.
    pub detail: Option<String>,
}

impl Tensor {
    fn new(case: &GoldenCase, field: Option<Field>, error: f64, limit: f64, detail: Option<String>) -> Self {
        let failed = !(error <= limit) || detail.is_some();
        Tensor { file: case.name.clone(), field, error, limit, failed, detail }
    }
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Compared {
    /// Its tensors were compared.
    Tensors(Vec<Tensor>),
    /// It was not, and why.
    Skipped(String),
    /// It is no golden file, and why.
    Broken(String),
}

/// The .safetensors files of `folder`, by name.
///
/// # Errors
/// The folder cannot be read, or holds none.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |error: std::io::Error| Error::invalid(format!("cannot be read: {error}")).in_file(folder);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::invalid("holds no .safetensors file").in_file(folder));
    }
    files.sort();
    Ok(files)
}

/// Compares `candidate` with the file at `path`, whose inputs it is given in `dtype` where one is named.
pub fn compare(path: &Path, candidate: &dyn Candidate, dtype: Option<Dtype>) -> Compared {
    let case = match GoldenCase::read(path) {
        Ok(case) => case,
        Err(error) => return Compared::Broken(error.to_string()),
    };
    let compared = converted(case, dtype).and_then(|case| {
        candidate.supports(&case.inputs).map_err(|reason| reason.to_string())?;
        compare_case(&case, candidate, dtype.is_some())
    });
    let skipped = |reason: &str| Compared::Skipped(format!("{}: {reason}", foreign::path(path)));
    match compared {
        Ok(tensors) if tensors.is_empty() => skipped("holds no answer to compare"),
        Ok(tensors) => Compared::Tensors(tensors),
        Err(reason) => skipped(&foreign::line(&reason)),
    }
}

/// The case with its inputs in `dtype`.
fn converted(mut case: GoldenCase, dtype: Option<Dtype>) -> Result<GoldenCase, String> {
    let Some(dtype) = dtype else { return Ok(case) };
    let given = case.inputs.dtype();
    let rounded = InputParts { dtype, ..case.inputs.clone().into_parts() };
    let rounded = Inputs::new(rounded).map_err(|error| error.to_string())?;
    let back = InputParts { dtype: given, ..rounded.clone().into_parts() };
    if Inputs::new(back).map_err(|error| error.to_string())? != case.inputs {
        return Err(format!("its inputs are not exact in {dtype}"));
    }
    case.inputs = rounded;
    Ok(case)
}

/// # Errors
/// The candidate does not do this problem after all, or the machine cannot run it.
fn compare_case(case: &GoldenCase, candidate: &dyn Candidate, converted: bool) -> Result<Vec<Tensor>, String> {
    let dtype = case.inputs.dtype();
    let declaration = candidate.declaration(&case.inputs);
    let limit = limit(dtype);
    let found = match candidate.run(&case.inputs) {
        Ok(found) => found,
        Err(CandidateError::Unsupported(reason) | CandidateError::Environment(reason)) => return Err(reason),
        Err(error) => return Ok(vec![Tensor::new(case, None, f64::INFINITY, limit, Some(error.to_string()))]),
    };
    let arithmetic = &declaration.arithmetic;
    let coarser = arithmetic.unit > 4.0 * dtype.unit_roundoff();
    if converted || arithmetic.probability_roundoff() > 0.0 || coarser {
        return Ok(judged(case, &declaration, &found));
    }
    let fields = case.outputs.iter().filter(|(field, _)| declaration.computes(*field));
    let tensors = fields.map(|(field, expected)| match relative_error(expected, found.get(field)) {
        Ok(error) => Tensor::new(case, Some(field), error, limit, None),
        Err(detail) => Tensor::new(case, Some(field), f64::INFINITY, limit, Some(format!("{field}: {detail}"))),
    });
    Ok(tensors.collect())
}

/// Each field by its error budgets: errors in units of the budget, which 1 limits.
fn judged(case: &GoldenCase, declaration: &Declaration, found: &nsa_corpus::Outputs) -> Vec<Tensor> {
    let comparisons = judge_declared(&case.inputs, declaration, found);
    let tensors = comparisons.iter().map(|comparison| {
        let ratio = comparison.worst.as_ref().map_or(0.0, |worst| worst.ratio);
        let detail = verdict(std::slice::from_ref(comparison)).failure().map(|failure| failure.message.clone());
        Tensor::new(case, Some(comparison.field), ratio, 1.0, detail)
    });
    tensors.collect()
}

/// What PyTorch's own rounding and ours may add up to (docs/numerics.md): 50 units of the dtype that the file was computed
/// in, and for f64 as much as logits of some 10^4 take.
fn limit(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F64 => 1e-11,
        Dtype::F32 => 3e-6,
        Dtype::F16 | Dtype::Bf16 => 50.0 * dtype.unit_roundoff(),
    }
}

/// The largest error relative to the largest finite magnitude of `expected`.
fn relative_error(expected: &ArrayD<f64>, found: Option<&ArrayD<f64>>) -> Result<f64, String> {
    let found = found.ok_or_else(|| "the candidate gave no such tensor".to_owned())?;
    if found.shape() != expected.shape() {
        return Err(format!("shape {:?}, the file has {:?}", found.shape(), expected.shape()));
    }
    let largest =
        expected.iter().filter(|value| value.is_finite()).fold(0.0f64, |largest, value| largest.max(value.abs()));
    let mut worst = 0.0f64;
    for (index, &expected) in expected.indexed_iter() {
        let found = found[&index];
        let same = found == expected || (!found.is_finite() && !expected.is_finite());
        let error = if same { 0.0 } else { (found - expected).abs() / largest };
        if !error.is_finite() {
            return Err(format!("at {index:?}: found {found:e}, the file has {expected:e}"));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::by_name;
    use ndarray::arr1;

    fn golden() -> Vec<PathBuf> {
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/golden")).unwrap()
    }

    #[test]
    fn an_error_is_relative_to_the_largest_magnitude_and_nan_for_a_number_is_none() {
        let array = |values: &[f64]| arr1(values).into_dyn();
        let expected = array(&[1.0, -4.0, f64::NEG_INFINITY]);
        let error = |found: &[f64]| relative_error(&expected, Some(&array(found)));
        assert_eq!(error(&[1.0, -4.0, f64::NEG_INFINITY]), Ok(0.0));
        assert_eq!(error(&[1.5, -4.0, f64::NEG_INFINITY]), Ok(0.125));
        assert!(error(&[f64::NAN, -4.0, f64::NEG_INFINITY]).unwrap_err().contains("found NaN, the file has 1e0"));
        assert!(error(&[1.0, -4.0, 0.0]).unwrap_err().contains("the file has -inf"));
        assert!(error(&[1.0, -4.0]).unwrap_err().contains("shape [2], the file has [3]"));
        assert!(relative_error(&expected, None).unwrap_err().contains("no such tensor"));
    }

    #[test]
    fn a_file_passes_is_skipped_or_is_broken() {
        let oracle = by_name("oracle").unwrap();
        let file = golden().into_iter().find(|file| file.ends_with("seed_small.safetensors")).unwrap();
        let Compared::Tensors(tensors) = compare(&file, oracle.as_ref(), None) else { panic!("not compared") };
        assert!(tensors.len() > 3 && tensors.iter().all(|tensor| !tensor.failed), "{tensors:?}");
        let folder = tempfile::tempdir().unwrap();
        let tenth = folder.path().join("tenth.safetensors");
        let case = GoldenCase::read(&file).unwrap();
        let mut parts = case.inputs.into_parts();
        parts.q[[0, 0, 0, 0]] = 0.1;
        GoldenCase::new("tenth", Inputs::new(parts).unwrap(), case.outputs).write(&tenth).unwrap();
        let Compared::Skipped(reason) = compare(&tenth, oracle.as_ref(), Some(Dtype::Bf16)) else { panic!("compared") };
        assert!(reason.contains("tenth.safetensors: its inputs are not exact in bf16"), "{reason}");
        let broken = folder.path().join("broken.safetensors");
        std::fs::write(&broken, b"no tensors").unwrap();
        assert!(matches!(compare(&broken, oracle.as_ref(), None), Compared::Broken(_)));
    }

    #[test]
    fn a_wrong_answer_fails_by_its_own_field() {
        let wrong = by_name("rowwise+dk_zeros").unwrap();
        let failed = golden().iter().any(|file| match compare(file, wrong.as_ref(), None) {
            Compared::Tensors(tensors) => {
                let failed: Vec<_> = tensors.iter().filter(|tensor| tensor.failed).map(|tensor| tensor.field).collect();
                assert!(failed.iter().all(|field| *field == Some(Field::Dk)), "{tensors:?}");
                !failed.is_empty()
            }
            _ => false,
        });
        assert!(failed, "dk is 0 in no answer of these files");
    }
}
