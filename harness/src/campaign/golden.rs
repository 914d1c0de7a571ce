//! A candidate beside the answers that PyTorch gave: files of inputs and outputs (docs/corpus-format.md).
//!
//! Errors are relative to the largest magnitude of each tensor. A candidate that computes in a coarser arithmetic than the file's,
//! or gets its inputs in another dtype, is judged by its own error budgets instead, and the file's answers are held to the
//! oracle beside it: who changes the file is found out either way.

use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use nsa_corpus::{Dtype, Error, Field, GoldenCase, InputParts, Inputs, Outputs, foreign};
use nsa_reference::oracle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidate::{Candidate, CandidateError, Declaration};
use crate::judge::element::{Held, Outcome};
use crate::judge::field::Comparison;
use crate::judge::verdict::{NotJudged, Verdict};
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

/// What became of the answers of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// Those that were compared.
    pub tensors: Vec<Tensor>,
    /// Those of which nothing can be said, each with the reason: what is wrong with them could not have been seen, or the
    /// machine could not run the candidate.
    pub inconclusive: Vec<String>,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Compared {
    /// Its answers were looked at.
    Answers(Answers),
    /// It was not compared, and why.
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
    let computed_in = case.inputs.dtype();
    let compared = converted(case, dtype).and_then(|case| {
        candidate.supports(&case.inputs).map_err(|reason| reason.to_string())?;
        File { case, computed_in }.compare(candidate)
    });
    match compared {
        Ok(answers) => Compared::Answers(answers),
        Err(reason) => Compared::Skipped(format!("{}: {}", foreign::path(path), foreign::line(&reason))),
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

/// A file's case, perhaps with its inputs in another dtype.
struct File {
    case: GoldenCase,
    /// The dtype of the file, in which its answers were computed.
    computed_in: Dtype,
}

impl File {
    /// # Errors
    /// The file holds no answer that the candidate computes too, or the candidate does not do this problem after all.
    fn compare(&self, candidate: &dyn Candidate) -> Result<Answers, String> {
        let (case, dtype) = (&self.case, self.case.inputs.dtype());
        let declaration = candidate.declaration(&case.inputs);
        if !case.outputs.iter().any(|(field, _)| declaration.computes(field)) {
            return Err("holds no answer to compare".to_owned());
        }
        let found = match candidate.run(&case.inputs) {
            Ok(found) => found,
            Err(CandidateError::Unsupported(reason)) => return Err(reason),
            Err(CandidateError::Environment(reason)) => {
                let reason = format!("{}: {}", case.name, foreign::line(&reason));
                return Ok(Answers { tensors: Vec::new(), inconclusive: vec![reason] });
            }
            Err(error) => {
                let crashed = Tensor::new(case, None, f64::INFINITY, limit(dtype), Some(error.to_string()));
                return Ok(Answers { tensors: vec![crashed], inconclusive: Vec::new() });
            }
        };
        let arithmetic = &declaration.arithmetic;
        let coarser = arithmetic.unit > 4.0 * dtype.unit_roundoff();
        if self.computed_in != dtype || arithmetic.probability_roundoff() > 0.0 || coarser {
            return Ok(self.judged(&declaration, &found));
        }
        let fields = case.outputs.iter().filter(|(field, _)| declaration.computes(*field));
        Ok(self.sorted(fields.map(|(field, expected)| {
            if expected.is_empty() && found.get(field).is_some_and(|found| found.shape() == expected.shape()) {
                return Err(format!("{field}: {}", NotJudged::Empty));
            }
            Ok(self.beside(field, expected, found.get(field), "the file has"))
        })))
    }

    /// Each field of the file by the error budgets of the candidate: errors in units of the budget, which 1 limits.
    fn judged(&self, declaration: &Declaration, found: &Outputs) -> Answers {
        let right = oracle::attend(&self.case.inputs);
        let comparisons = judge_declared(&self.case.inputs, declaration, found);
        let theirs = comparisons.iter().filter_map(|one| Some((one, self.case.outputs.get(one.field)?)));
        self.sorted(theirs.map(|(comparison, answer)| {
            let field = comparison.field;
            let right = right.get(field).expect("the oracle answers every field that is judged");
            let mut own = self.beside(field, right, Some(answer), "the oracle has");
            if own.failed {
                own.detail = Some(format!("the file's own answer: {}", own.detail.unwrap_or_default()));
                return Ok(own);
            }
            self.by_budgets(comparison)
        }))
    }

    fn by_budgets(&self, comparison: &Comparison) -> Result<Tensor, String> {
        let ratio = comparison.worst.as_ref().map_or(0.0, |worst| worst.ratio);
        let tensor = |detail| Tensor::new(&self.case, Some(comparison.field), ratio, 1.0, detail);
        match verdict(std::slice::from_ref(comparison)) {
            Verdict::Pass | Verdict::Suspect(_) => Ok(tensor(None)),
            Verdict::Fail(failure) => Ok(tensor(Some(failure.message))),
            Verdict::Inconclusive(reason) | Verdict::Skip(reason) => Err(reason),
        }
    }

    /// `found` beside `expected`, of which `whose` says whose it is, in the limits of the file's dtype.
    fn beside(&self, field: Field, expected: &ArrayD<f64>, found: Option<&ArrayD<f64>>, whose: &str) -> Tensor {
        let limit = limit(self.computed_in);
        let (error, detail) = match relative_error(field, self.computed_in, expected, found, whose) {
            Ok(error) => (error, None),
            Err(detail) => (f64::INFINITY, Some(format!("{field}: {detail}"))),
        };
        Tensor::new(&self.case, Some(field), error, limit, detail)
    }

    /// What was compared, and the reasons of what could not be.
    fn sorted(&self, tensors: impl Iterator<Item = Result<Tensor, String>>) -> Answers {
        let mut answers = Answers::default();
        for tensor in tensors {
            match tensor {
                Ok(tensor) => answers.tensors.push(tensor),
                Err(reason) => answers.inconclusive.push(format!("{}: {reason}", self.case.name)),
            }
        }
        answers
    }
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

/// The largest error of `found` relative to the largest finite magnitude of `expected`.
///
/// # Errors
/// `found` is missing, has another shape, or is NaN or infinite where it must not be (or the reverse).
fn relative_error(
    field: Field,
    stored: Dtype,
    expected: &ArrayD<f64>,
    found: Option<&ArrayD<f64>>,
    whose: &str,
) -> Result<f64, String> {
    let found = found.ok_or_else(|| "the candidate gave no such tensor".to_owned())?;
    if found.shape() != expected.shape() {
        return Err(format!("shape {:?}, {whose} {:?}", found.shape(), expected.shape()));
    }
    let largest =
        expected.iter().filter(|value| value.is_finite()).fold(0.0f64, |largest, value| largest.max(value.abs()));
    let mut worst = 0.0f64;
    for (index, &expected) in expected.indexed_iter() {
        let found = found[&index];
        let error = match Held::exactly(field, expected, stored).judge(found) {
            Outcome::OverBudget => (found - expected).abs() / largest,
            Outcome::NonFinite => f64::INFINITY,
            _ => 0.0,
        };
        if !error.is_finite() {
            return Err(format!("at {index:?}: found {found:e}, {whose} {expected:e}"));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::Unsupported;
    use crate::registry::by_name;
    use ndarray::arr1;
    use nsa_corpus::Arithmetic;
    use nsa_reference::tiled;

    /// Declares this unit roundoff, and answers so.
    struct Scripted {
        unit: f64,
        answer: fn(&Inputs) -> Result<Outputs, CandidateError>,
    }

    impl Candidate for Scripted {
        fn name(&self) -> &str {
            "scripted"
        }

        fn declaration(&self, inputs: &Inputs) -> Declaration {
            Declaration::strict(Arithmetic { unit: self.unit, ..tiled::arithmetic(inputs.dtype()) })
        }

        fn supports(&self, _: &Inputs) -> Result<(), Unsupported> {
            Ok(())
        }

        fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
            (self.answer)(inputs)
        }
    }

    fn right(inputs: &Inputs) -> Result<Outputs, CandidateError> {
        Ok(oracle::attend(inputs))
    }

    fn zeros(inputs: &Inputs) -> Result<Outputs, CandidateError> {
        let mut outputs = oracle::attend(inputs);
        for field in Field::ALL {
            outputs.get_mut(field).into_iter().for_each(|tensor| tensor.fill(0.0));
        }
        Ok(outputs)
    }

    fn golden() -> Vec<PathBuf> {
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/golden")).unwrap()
    }

    #[test]
    fn an_error_is_relative_to_the_largest_magnitude_and_nan_for_a_number_is_none() {
        let array = |values: &[f64]| arr1(values).into_dyn();
        let expected = array(&[1.0, -4.0, f64::NEG_INFINITY]);
        let beside =
            |found: Option<&ArrayD<f64>>| relative_error(Field::Lse, Dtype::F64, &expected, found, "the file has");
        let error = |found: &[f64]| beside(Some(&array(found)));
        assert_eq!(error(&[1.0, -4.0, f64::NEG_INFINITY]), Ok(0.0));
        assert_eq!(error(&[1.5, -4.0, f64::NEG_INFINITY]), Ok(0.125));
        assert!(error(&[f64::NAN, -4.0, f64::NEG_INFINITY]).unwrap_err().contains("found NaN, the file has 1e0"));
        assert!(error(&[1.0, -4.0, 0.0]).unwrap_err().contains("the file has -inf"));
        assert!(error(&[1.0, -4.0]).unwrap_err().contains("shape [2], the file has [3]"));
        assert!(error(&[1.0, -4.0, f64::NAN]).unwrap_err().contains("found NaN, the file has -inf"));
        assert!(error(&[1.0, -4.0, f64::INFINITY]).unwrap_err().contains("found inf, the file has -inf"));
        assert!(beside(None).unwrap_err().contains("no such tensor"));
    }

    #[test]
    fn a_file_passes_is_skipped_or_is_broken() {
        let oracle = by_name("oracle").unwrap();
        let file = golden().into_iter().find(|file| file.ends_with("seed_small.safetensors")).unwrap();
        let Compared::Answers(Answers { tensors, .. }) = compare(&file, oracle.as_ref(), None) else { panic!() };
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
            Compared::Answers(Answers { tensors, .. }) => {
                let failed: Vec<_> = tensors.iter().filter(|tensor| tensor.failed).map(|tensor| tensor.field).collect();
                assert!(failed.iter().all(|field| *field == Some(Field::Dk)), "{tensors:?}");
                !failed.is_empty()
            }
            _ => false,
        });
        assert!(failed, "dk is 0 in no answer of these files");
    }

    /// The small file, with its answers changed by `change`, in a folder of its own.
    fn changed(change: impl Fn(&mut GoldenCase)) -> (tempfile::TempDir, PathBuf) {
        let file = golden().into_iter().find(|file| file.ends_with("seed_small.safetensors")).unwrap();
        let mut case = GoldenCase::read(&file).unwrap();
        change(&mut case);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("changed.safetensors");
        case.write(&path).unwrap();
        (folder, path)
    }

    fn answers(path: &Path, candidate: &dyn Candidate, dtype: Option<Dtype>) -> Answers {
        match compare(path, candidate, dtype) {
            Compared::Answers(answers) => answers,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_of_the_file_that_is_wrong_fails_whatever_the_candidate_is_judged_by() {
        let (_folder, path) = changed(|case| case.outputs.get_mut(Field::Out).unwrap().fill(7.0));
        let (coarse, oracle) = (Scripted { unit: 1e-6, answer: right }, by_name("oracle").unwrap());
        for (candidate, dtype) in [(&coarse as &dyn Candidate, None), (oracle.as_ref(), Some(Dtype::F32))] {
            let answers = answers(&path, candidate, dtype);
            let failed: Vec<_> = answers.tensors.iter().filter(|tensor| tensor.failed).collect();
            assert_eq!(failed.iter().map(|tensor| tensor.field).collect::<Vec<_>>(), [Some(Field::Out)], "{answers:?}");
            assert!(failed[0].detail.as_ref().unwrap().contains("the file's own answer"), "{failed:?}");
            assert!(answers.tensors.len() > 3, "the others are compared, and pass");
        }
    }

    #[test]
    fn only_what_the_file_holds_is_compared() {
        let oracle = by_name("oracle").unwrap();
        let (_folder, path) = changed(|case| case.outputs = Outputs::new());
        for dtype in [None, Some(Dtype::F32)] {
            let Compared::Skipped(reason) = compare(&path, oracle.as_ref(), dtype) else { panic!("compared") };
            assert!(reason.contains("holds no answer"), "{reason}");
        }
        let (_folder, path) = changed(|case| {
            let out = case.outputs.take(Field::Out).unwrap();
            case.outputs = Outputs::new();
            case.outputs.set(Field::Out, out);
        });
        let answers = answers(&path, oracle.as_ref(), Some(Dtype::F32));
        assert_eq!(answers.tensors.iter().map(|tensor| tensor.field).collect::<Vec<_>>(), [Some(Field::Out)]);
    }

    #[test]
    fn what_no_wrong_answer_could_have_failed_is_inconclusive_and_named() {
        let (_folder, path) = changed(|_| ());
        let zeros = Scripted { unit: 0.5, answer: zeros };
        let answers = answers(&path, &zeros, None);
        assert_eq!(answers.tensors, [], "nothing was compared");
        assert!(answers.inconclusive.iter().any(|reason| reason.contains("out: ")), "{answers:?}");
    }

    #[test]
    fn what_the_machine_cannot_run_is_inconclusive() {
        let (_folder, path) = changed(|_| ());
        let none = Scripted { unit: 1e-6, answer: |_| Err(CandidateError::Environment("no device".to_owned())) };
        let answers = answers(&path, &none, None);
        assert_eq!((answers.tensors.len(), answers.inconclusive.len()), (0, 1));
        assert!(answers.inconclusive[0].contains("no device"));
    }
}
