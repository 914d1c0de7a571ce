//! `nsa-diff confirm`: stored failures against witnesses.

use std::path::{Path, PathBuf};

use nsa_corpus::{Bundle, Case, Dtype, Field, Outputs, foreign};
use serde_json::{Value, json};

use super::console::{Console, Json, Output};
use super::select::candidate_name;
use super::{Outcome, Refusal};
use nsa_harness::campaign::store::{declaration, judge_again};
use nsa_harness::candidate::Candidate;
use nsa_harness::explain::{Localization, localize_alone};
use nsa_harness::judge::verdict::Verdict;
use nsa_harness::registry::by_name;
use nsa_harness::report::Report;
use nsa_harness::run::run_case;

/// Arguments of `confirm`.
#[derive(clap::Args)]
#[command(
    after_help = "The stored answer is judged again by the oracle, and each witness computes the same problem in f64, or in f32 where it
has no f64: it must pass the oracle's judgement, and where the stored answer is worst its value is shown beside it. A failure
is confirmed when it fails again (or was none of numbers: a crash), no witness fails and one at least passes.
Exit code 1: a failure is not confirmed.

Examples:
  nsa-diff confirm corpus/bugs/*.safetensors
  nsa-diff confirm found.safetensors --witness regular_attend --witness guest:torch_regular_attend"
)]
pub(super) struct Args {
    /// Stored failures
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// An implementation that the candidate owes nothing to; may be given several times [default: regular_attend and
    /// tiled]
    #[arg(long = "witness", value_name = "NAME", value_parser = candidate_name)]
    witnesses: Vec<String>,
    #[command(flatten)]
    json: Json,
}

/// What a witness said of one failure.
struct Testimony {
    witness: String,
    dtype: Dtype,
    report: Report,
    /// Its value where the stored answer is worst.
    value: Option<f64>,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    // Two, because the transcription does not take every size.
    let usual = || ["regular_attend", "tiled"].map(str::to_owned).to_vec();
    let names = if args.witnesses.is_empty() { usual() } else { args.witnesses.clone() };
    let witnesses = names.iter().map(|name| by_name(name)).collect::<Result<Vec<_>, _>>()?;
    let (mut results, mut all) = (Vec::new(), true);
    for path in &args.files {
        let result = confirm(path, &witnesses, &output)?;
        all &= result["confirmed"] == json!(true);
        results.push(result);
    }
    output.json("confirm", json!({ "results": results }));
    Ok(if all { Outcome::Passed } else { Outcome::Failed })
}

fn confirm(path: &Path, witnesses: &[Box<dyn Candidate>], output: &Output<'_>) -> Result<Value, Refusal> {
    let (bundle, shown) = (Bundle::read(path)?, foreign::path(path));
    let again = judge_again(&bundle).map_err(|error| Refusal::new(format!("{shown}: {error}")))?;
    let worst = again.as_ref().and_then(|report| worst(report, &bundle));
    let position = worst.as_ref().map(|worst| (worst.0, worst.1.as_slice()));
    let testimonies =
        witnesses.iter().map(|witness| testify(&bundle, witness.as_ref(), position)).collect::<Result<Vec<_>, _>>()?;
    let fails = again.as_ref().is_none_or(|report| report.verdict.failure().is_some());
    let passes = |word: &str| testimonies.iter().filter(|each| each.report.verdict.word() == word).count();
    let confirmed = fails && passes("fail") == 0 && passes("pass") + passes("suspect") > 0;
    output.text(&format!("{shown}: {}\n", if confirmed { "confirmed" } else { "NOT confirmed" }));
    let own = again.as_ref().map_or_else(|| "no answer was stored: a crash".to_owned(), |r| r.verdict.to_string());
    output.text(&format!("  the oracle, of the stored answer: {own}\n"));
    if let Some((field, index, values)) = &worst {
        output.text(&format!("  {field} {index:?}: expected {} to {}, found {}\n", values[0], values[1], values[2]));
    }
    let position = located(&bundle);
    position.iter().flat_map(Localization::lines).for_each(|line| output.text(&format!("  {line}\n")));
    for Testimony { witness, dtype, report, value } in &testimonies {
        let value = value.map(|value| format!("; there {value}")).unwrap_or_default();
        output.text(&format!("  {witness} in {dtype}: {}{value}\n", report.verdict));
    }
    Ok(json!({
        "file": shown,
        "confirmed": confirmed,
        "report": again,
        "where": position,
        "worst": worst.map(|(field, index, values)| json!({
            "field": field, "index": index, "lowest": values[0], "highest": values[1], "found": values[2],
        })),
        "witnesses": testimonies.iter().map(|each| json!({
            "witness": each.witness, "dtype": each.dtype, "report": each.report, "value": each.value,
        })).collect::<Vec<_>>(),
    }))
}

/// Where the stored answer is wrong, and what that looks like.
fn located(bundle: &Bundle) -> Option<Localization> {
    localize_alone(&bundle.inputs, &declaration(bundle).ok()?, bundle.outputs.as_ref()?)
}

/// The worst element of the field at fault, with the ends of its interval as stored and the candidate's value.
fn worst(report: &Report, bundle: &Bundle) -> Option<(Field, Vec<usize>, [f64; 3])> {
    let field = report.verdict.failure()?.field?;
    let worst = report.comparisons.iter().find(|comparison| comparison.field == field)?.worst.clone()?;
    let at = |outputs: &Outputs| outputs.get(field)?.get(worst.index.as_slice()).copied();
    let ends = [worst.expected - worst.budget, worst.expected + worst.budget];
    let [lowest, highest] = [0, 1].map(|end| at(&bundle.intervals[end]).unwrap_or(ends[end]));
    Some((field, worst.index, [lowest, highest, worst.found]))
}

/// The stored problem, its values unchanged, computed by a witness in the widest format that it takes.
fn testify(
    bundle: &Bundle,
    witness: &dyn Candidate,
    position: Option<(Field, &[usize])>,
) -> Result<Testimony, nsa_corpus::Error> {
    let case = Case::from_inputs(&bundle.inputs);
    let mut told = None;
    for dtype in [Dtype::F64, Dtype::F32, bundle.dtype] {
        let report = run_case(&case, dtype, witness)?;
        let skips = matches!(report.verdict, Verdict::Skip(_));
        // Of several reasons to skip, that of the widest format says most.
        if !skips || told.is_none() {
            told = Some((dtype, report));
        }
        if !skips {
            break;
        }
    }
    let (dtype, report) = told.expect("three formats were tried");
    let value = position.and_then(|(field, index)| report.outputs.as_ref()?.get(field)?.get(index).copied());
    Ok(Testimony { witness: witness.name().to_owned(), dtype, report, value })
}
