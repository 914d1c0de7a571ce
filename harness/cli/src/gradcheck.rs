//! `nsa-diff gradcheck`.

use nsa_corpus::Entry;

use super::console::{Console, Json, Output};
use super::output::{catch_interrupt, interrupted, progress};
use super::select::{candidate_name, select};
use super::{Outcome, Refusal};
use nsa_harness::campaign::gradients::{Decision, check, is_small};
use nsa_harness::document::Gradcheck;
use nsa_harness::registry::by_name;

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
    #[arg(long, alias = "backend", value_name = "NAME", default_value = "oracle", value_parser = candidate_name)]
    candidate: String,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let candidate = by_name(&args.candidate)?;
    let patterns: Vec<String> = args.case.iter().cloned().collect();
    let chosen: Vec<&Entry> =
        select(&patterns)?.into_iter().filter(|entry| args.case.is_some() || is_small(entry)).collect();
    catch_interrupt();
    let bar = progress(Some(chosen.len() as u64));
    let (mut results, mut skipped) = (Vec::new(), Vec::new());
    for entry in chosen.iter().take_while(|_| !interrupted()) {
        match check(entry, candidate.as_ref()).map_err(Refusal::new)? {
            None => {
                output.text(&format!("{}: skipped: no cotangent, so no gradients\n", entry.name));
                skipped.push(entry.name.clone());
            }
            Some(checked) => {
                output.text(&format!("{}: {}\n", checked.name, checked.detail));
                results.push(checked);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let left_out = chosen.len() - results.len() - skipped.len();
    let document = Gradcheck { candidate: args.candidate.clone(), results, skipped, left_out };
    let (worst, decided) = (document.worst(), document.decided());
    output.document(&document);
    match worst {
        Some(Decision::Fail) => Ok(Outcome::Failed),
        _ if interrupted() => Ok(Outcome::Interrupted),
        _ if decided => Ok(Outcome::Passed),
        _ => Err(Refusal::new("nothing was tested: no case has a gradient that could be checked: see above")),
    }
}
