//! `nsa-diff calibrate`.

use nsa_corpus::{Dot, Element};
use serde_json::json;

use super::output::{Json, catch_interrupt, interrupted, progress, table};
use super::select::{Candidate, Elements};
use super::{Outcome, Refusal};
use crate::backend::Backend;
use crate::calibrate::{Measured, PRODUCTS, Sum, Unmeasured, measure};

/// Arguments of `calibrate`.
#[derive(clap::Args)]
#[command(
    after_help = "Sums of 64 products are planted in ordinary problems and read back from lse and out: how many products are added at once, \
what is kept beside a large one, and the largest error found, in units of 2^-24 of the sum of magnitudes. An error above what \
the candidate declares refutes its declaration (exit code 1).

Examples:
  nsa-diff calibrate --candidate cuda:tensor
  nsa-diff calibrate --candidate guest:mine.py --element f16 --groups 16"
)]
pub(super) struct Args {
    #[command(flatten)]
    candidate: Candidate,
    #[command(flatten)]
    elements: Elements,
    /// Query heads that share a kv head, for candidates that need several
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    groups: u16,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args) -> Result<Outcome, Refusal> {
    let backend = args.candidate.make()?;
    catch_interrupt();
    let elements = args.elements.or_usual();
    let bar = progress(Some(2 * elements.len() as u64));
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    let (mut results, mut left_out, mut outcome) = (Vec::new(), Vec::new(), Outcome::Passed);
    for (element, sum) in elements.iter().flat_map(|element| Sum::ALL.map(|sum| (*element, sum))) {
        if interrupted() {
            outcome = Outcome::Interrupted;
            break;
        }
        match measured(backend.as_ref(), sum, element, usize::from(args.groups))? {
            Ok(found) => {
                if found.refuted() {
                    outcome = Outcome::Failed;
                }
                rows.push(row(&found));
                results.push(json!({ "measured": found, "tiles": found.tiles(), "refuted": found.refuted() }));
            }
            Err(reason) => {
                left_out.push(json!({ "sum": sum, "element": element, "reason": reason }));
                rows.push(vec![sum.name().to_owned(), element.to_string(), format!("not measured: {reason}")]);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    args.json.text(&table(&rows));
    let content = json!({
        "candidate": args.candidate.name(), "device": backend.environment(), "products": PRODUCTS, "results": results,
        "left_out": left_out,
    });
    args.json.write("calibrate", content)?;
    if results.is_empty() && outcome == Outcome::Passed {
        return Err(Refusal::new("nothing was measured: see the reasons above"));
    }
    Ok(outcome)
}

/// What was measured, or why the candidate does not do it.
fn measured(
    backend: &dyn Backend,
    sum: Sum,
    element: Element,
    groups: usize,
) -> Result<Result<Measured, String>, Refusal> {
    match measure(backend, sum, element, groups) {
        Ok(found) => Ok(Ok(found)),
        Err(Unmeasured::Unsupported(reason)) => Ok(Err(reason)),
        Err(other) => Err(Refusal::new(format!("{} {element}: {other}", sum.name()))),
    }
}

const HEAD: [&str; 7] = ["sum", "element", "declared", "added at once", "kept beside 1", "error found", "verdict"];

fn row(found: &Measured) -> Vec<String> {
    let verdict = match found.tiles() {
        _ if found.refuted() => "REFUTED: a larger error than is declared".to_owned(),
        Some(tiles) if !matches!(found.declared, Dot::Fma { .. }) => format!("covered; found {}", described(tiles)),
        _ => "covered".to_owned(),
    };
    vec![
        found.sum.name().to_owned(),
        found.element.to_string(),
        described(found.declared),
        found.together.to_string(),
        found.kept.map_or_else(|| "everything".to_owned(), |depth| format!("2^-{depth}")),
        format!("{:.1} u", found.attained_units),
        verdict,
    ]
}

/// A dot product's arithmetic in words, with its constant.
fn described(dot: Dot) -> String {
    let units = dot.constant(PRODUCTS) * 16_777_216.0;
    match dot {
        Dot::Fma { .. } => format!("one by one: {units:.1} u"),
        Dot::Blocks { block, extra_bits } => format!("tiles of {block}, {extra_bits} extra bits: {units:.0} u"),
        Dot::Tf32 { extra_bits } => format!("tf32, {extra_bits} extra bits: {units:.0} u"),
    }
}
