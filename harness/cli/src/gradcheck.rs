//! `nsa-diff gradcheck`.

use nsa_corpus::{Dtype, Entry};
use nsa_reference::{gradcheck, oracle};
use serde_json::json;

use super::console::{Console, Json, Output};
use super::output::{catch_interrupt, interrupted, progress};
use super::select::{candidate_name, select};
use super::{Outcome, Refusal};

/// Entries with more input elements than this are checked only when they are named.
const DEFAULT_ELEMENTS: usize = 4000;

/// Arguments of `gradcheck`.
#[derive(clap::Args)]
#[command(
    after_help = "The gradients that the candidate claims are compared with central differences of the oracle's loss, in f64, every element
of small problems and directions of large ones.

Examples:
  nsa-diff gradcheck
  nsa-diff gradcheck edges/seq_1 --candidate regular_attend"
)]
pub(super) struct Args {
    /// An entry or a glob over names [default: every small one with gradients]
    #[arg(value_name = "CASE")]
    case: Option<String>,
    /// Whose gradients to check
    #[arg(long, value_name = "NAME", default_value = "oracle", value_parser = candidate_name)]
    candidate: String,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let candidate = nsa_harness::registry::by_name(&args.candidate)?;
    let patterns: Vec<String> = args.case.iter().cloned().collect();
    let chosen: Vec<&Entry> =
        select(&patterns)?.into_iter().filter(|entry| args.case.is_some() || small(entry)).collect();
    catch_interrupt();
    let bar = progress(Some(chosen.len() as u64));
    let mut results = Vec::new();
    let mut worst = gradcheck::Verdict::Pass;
    for entry in chosen {
        if interrupted() {
            break;
        }
        let inputs = entry.case.materialize(Dtype::F64)?;
        if !inputs.cotangents().any() {
            output.text(&format!("{}: skipped: no cotangent, so no gradients\n", entry.name));
            continue;
        }
        let claimed = candidate.run(&inputs).map_err(|error| Refusal::new(format!("{}: {error}", entry.name)))?;
        let report = gradcheck::attention(&inputs, oracle::attend, &claimed)
            .map_err(|error| Refusal::new(format!("{}: {error}", entry.name)))?
            .check(&gradcheck::Settings::default());
        output.text(&format!("{}: {report}\n", entry.name));
        worst = worst.max(report.verdict);
        results.push(json!({
            "name": entry.name,
            "verdict": format!("{:?}", report.verdict).to_lowercase(),
            "checks": report.checks,
            "evaluations": report.evaluations,
        }));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let decided = results.iter().any(|result| result["verdict"] != "ambiguous");
    output.json("gradcheck", json!({ "candidate": args.candidate, "results": results }));
    match worst {
        gradcheck::Verdict::Fail => Ok(Outcome::Failed),
        _ if interrupted() => Ok(Outcome::Interrupted),
        _ if decided => Ok(Outcome::Passed),
        _ => Err(Refusal::new("nothing was tested: no case has a gradient that could be checked: see above")),
    }
}

fn small(entry: &Entry) -> bool {
    let sizes = &entry.case.sizes;
    let heads = sizes.batch * sizes.seq_len;
    let elements = heads * (sizes.q_heads * sizes.dim + sizes.kv_heads * (sizes.dim + sizes.value_dim));
    let finite = entry.case.overrides.iter().all(|change| change.value.is_finite());
    elements <= DEFAULT_ELEMENTS && finite && entry.case.values().any(|(tensor, _)| tensor.name().starts_with("d_"))
}
