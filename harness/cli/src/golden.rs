//! `nsa-diff golden`.

use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use nsa_corpus::{Dtype, Field, GoldenCase, InputParts, Inputs, foreign};
use serde_json::{Value, json};

use super::console::{Console, Json, Output};
use super::output::{not_judged, table};
use super::select::candidate_name;
use super::{Outcome, Refusal};
use nsa_harness::candidate::{Candidate, CandidateError};
use nsa_harness::judge::{judge_declared, verdict};
use nsa_harness::registry::by_name;
use nsa_harness::tally::Fields;

/// Arguments of `golden`.
#[derive(clap::Args)]
#[command(
    after_help = "Every .safetensors file of DIR holds inputs and the answers that PyTorch gave (docs/corpus-format.md). Errors are
relative to the largest magnitude of each tensor. Limits: 1e-11 for files computed in f64, 3e-6 in f32. A candidate that
casts to 16 bits, or that gets its inputs by --dtype, is judged by its error budgets instead.

Examples:
  nsa-diff golden corpus/golden
  nsa-diff golden corpus/golden --candidate regular_attend --json golden.json"
)]
pub(super) struct Args {
    /// Folder of golden files
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The candidate to compare
    #[arg(long, alias = "backend", value_name = "NAME", default_value = "oracle", value_parser = candidate_name)]
    candidate: String,
    /// Give the inputs in this format; files whose inputs it cannot hold exactly are skipped
    #[arg(long, alias = "element", value_name = "f32|f16|bf16")]
    dtype: Option<Dtype>,
    #[command(flatten)]
    json: Json,
}

/// One tensor of one file.
struct Line {
    file: String,
    field: String,
    error: f64,
    limit: f64,
    detail: Option<String>,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let candidate = by_name(&args.candidate)?;
    let files = files(&args.folder)?;
    let (mut lines, mut broken, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for path in &files {
        match GoldenCase::read(path) {
            Ok(case) => match convert(case, args.dtype).and_then(|case| {
                candidate.supports(&case.inputs).map_err(|reason| reason.to_string())?;
                Ok(case)
            }) {
                Ok(case) => match compare_file(&case, candidate.as_ref(), args.dtype) {
                    Err(reason) => {
                        skipped.push(format!("{}: {}", foreign::path(path), foreign::line(&reason)));
                    }
                    Ok(found) if found.is_empty() => {
                        skipped.push(format!("{}: holds no answer to compare", foreign::path(path)))
                    }
                    Ok(found) => lines.extend(found),
                },
                Err(reason) => skipped.push(format!("{}: {}", foreign::path(path), foreign::line(&reason))),
            },
            Err(error) => broken.push(error.to_string()),
        }
    }
    let failed = lines.iter().filter(|line| line.failed()).count();
    output.text(&render(&lines));
    skipped.iter().for_each(|line| output.text(&format!("skipped {line}\n")));
    output.text(&format!(
        "{} files, {} tensors compared with {}, {failed} beyond their limit, {} files skipped, {} broken\n",
        files.len(),
        lines.len(),
        args.candidate,
        skipped.len(),
        broken.len()
    ));
    let fields = Fields::of(candidate.as_ref());
    output.text(&not_judged(&fields));
    let tensors: Vec<Value> = lines.iter().map(Line::json).collect();
    output.json(
        "golden",
        json!({ "candidate": args.candidate, "fields": fields, "tensors": tensors, "skipped": skipped, "broken": broken }),
    );
    match (broken.is_empty(), failed, lines.len()) {
        (false, _, _) => Err(Refusal::several(broken)),
        (true, 0, 0) => {
            Err(Refusal::new(format!("nothing was tested: of {} files no tensor was compared", files.len())))
        }
        (true, 0, _) => Ok(Outcome::Passed),
        (true, _, _) => Ok(Outcome::Failed),
    }
}

/// The case with its inputs in `element`.
fn convert(mut case: GoldenCase, dtype: Option<Dtype>) -> Result<GoldenCase, String> {
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

/// The .safetensors files of `folder`, by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Refusal> {
    let unreadable =
        |error: std::io::Error| Refusal::new(format!("{}: cannot be read: {error}", foreign::path(folder)));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Refusal::new(format!("{}: holds no .safetensors file", foreign::path(folder))));
    }
    files.sort();
    Ok(files)
}

/// # Errors
/// The candidate does not do this problem after all, or the machine cannot run it.
fn compare_file(
    case: &GoldenCase,
    candidate: &dyn Candidate,
    converted_to: Option<Dtype>,
) -> Result<Vec<Line>, String> {
    let dtype = case.inputs.dtype();
    let declaration = candidate.declaration(&case.inputs);
    let arithmetic = &declaration.arithmetic;
    let line = |field: &str, error, detail| Line {
        file: case.name.clone(),
        field: field.to_owned(),
        error,
        limit: limit(dtype),
        detail,
    };
    let found = match candidate.run(&case.inputs) {
        Ok(found) => found,
        Err(CandidateError::Unsupported(reason) | CandidateError::Environment(reason)) => return Err(reason),
        Err(error) => return Ok(vec![line("-", f64::INFINITY, Some(error.to_string()))]),
    };
    let coarser = arithmetic.unit > 4.0 * dtype.unit_roundoff();
    if converted_to.is_some() || arithmetic.probability_roundoff() > 0.0 || coarser {
        let comparisons = judge_declared(&case.inputs, &declaration, &found);
        let mut lines: Vec<Line> = Vec::new();
        for comparison in &comparisons {
            let ratio = comparison.worst.as_ref().map_or(0.0, |worst| worst.ratio);
            let detail = verdict(std::slice::from_ref(comparison)).failure().map(|failure| failure.message.clone());
            lines.push(Line { limit: 1.0, ..line(comparison.field.name(), ratio, detail) });
        }
        return Ok(lines);
    }
    let judged = case.outputs.iter().filter(|(field, _)| declaration.computes(*field));
    let lines = judged.map(|(field, expected)| match relative_error(expected, found.get(field)) {
        Ok(error) => line(field.name(), error, None),
        Err(detail) => line(field.name(), f64::INFINITY, Some(describe(field, &detail))),
    });
    Ok(lines.collect())
}

fn describe(field: Field, detail: &str) -> String {
    format!("{field}: {detail}")
}

/// What PyTorch's own rounding and ours may add up to (docs/numerics.md): 50 units of the format that the file was computed
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

impl Line {
    fn failed(&self) -> bool {
        !(self.error <= self.limit) || self.detail.is_some()
    }

    fn json(&self) -> Value {
        json!({
            "file": self.file,
            "field": self.field,
            "error": if self.error.is_finite() { json!(self.error) } else { json!("inf") },
            "limit": self.limit,
            "failed": self.failed(),
            "detail": self.detail,
        })
    }
}

fn render(lines: &[Line]) -> String {
    let mut rows = vec![["file", "tensor", "error", "limit", ""].map(str::to_owned).to_vec()];
    for line in lines {
        let state = match (&line.detail, line.failed()) {
            (Some(detail), _) => format!("FAIL {}", foreign::line(detail)),
            (None, true) => "FAIL".to_owned(),
            (None, false) => String::new(),
        };
        rows.push(vec![
            foreign::line(&line.file),
            line.field.clone(),
            format!("{:.2e}", line.error),
            format!("{:.0e}", line.limit),
            state,
        ]);
    }
    table(&rows)
}
