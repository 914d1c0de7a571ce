//! `nsa-diff calibrate`.

use nsa_corpus::{Dot, foreign};
use serde_json::json;

use super::console::{Console, Json, Output};
use super::output::{catch_interrupt, interrupted, progress, table};
use super::select::{CandidateArg, Dtypes};
use super::{Outcome, Refusal};
use nsa_harness::calibrate::{Measured, PRODUCTS, Sum, Unmeasured, measure, units};
use nsa_harness::candidate::{CandidateError, Declaration};

/// Arguments of `calibrate`.
#[derive(clap::Args)]
#[command(
    after_help = "Sums of 64 products are planted in ordinary problems and read back from lse and out: how many products are added at once, \
what is kept beside a large one, and the largest error found, in units of 2^-24 of the sum of magnitudes. An error above what \
the candidate declares refutes its declaration, and sums that keep 2^4 times more beside a 1 than is declared show it to be too loose \
(exit code 1 both times). One that gives no answer fails too.

Examples:
  nsa-diff calibrate --candidate cuda:tensor
  nsa-diff calibrate --candidate guest:mine.py --dtype f16 --groups 16"
)]
pub(super) struct Args {
    #[command(flatten)]
    candidate: CandidateArg,
    #[command(flatten)]
    dtypes: Dtypes,
    /// Query heads that share a kv head, for candidates that need several
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    groups: u16,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let candidate = args.candidate.make()?;
    catch_interrupt();
    let elements = args.dtypes.or_usual();
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    let (mut results, mut skipped, mut failed) = (Vec::new(), Vec::new(), false);
    let sums: Vec<_> = elements.iter().flat_map(|dtype| Sum::ALL.map(|sum| (*dtype, sum))).collect();
    let bar = progress(Some(sums.len() as u64));
    for &(dtype, sum) in &sums {
        if interrupted() {
            break;
        }
        match measure(candidate.as_ref(), sum, dtype, usize::from(args.groups)) {
            Ok(found) => {
                failed |= found.refuted() || found.looser().is_some();
                rows.push(row(&found));
                results.push(json!({ "measured": found, "tiles": found.tiles(), "refuted": found.refuted(), "looser": found.looser() }));
            }
            Err(Unmeasured::Problem(error)) => return Err(error.into()),
            Err(Unmeasured::Candidate(CandidateError::Environment(reason))) => return Err(Refusal::new(reason)),
            Err(reason) => {
                failed |= matches!(reason, Unmeasured::Candidate(_));
                let reason = reason.to_string();
                let mut row = vec![String::new(); HEAD.len()];
                (row[0], row[1]) = (sum.name().to_owned(), dtype.to_string());
                row[HEAD.len() - 1] = format!("not measured: {}", foreign::line(&reason));
                rows.push(row);
                skipped.push(json!({ "sum": sum, "dtype": dtype, "reason": reason }));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    output.text(&table(&rows));
    let content = json!({
        "candidate": args.candidate.name(), "device": Declaration::typical(candidate.as_ref()).environment, "products": PRODUCTS, "results": results,
        "skipped": skipped, "left_out": sums.len() - results.len() - skipped.len(),
    });
    output.json("calibrate", content);
    match (failed, interrupted()) {
        (true, _) => Ok(Outcome::Failed),
        (_, true) => Ok(Outcome::Interrupted),
        _ if results.is_empty() => Err(Refusal::new("nothing was measured: see the reasons above")),
        _ => Ok(Outcome::Passed),
    }
}

const HEAD: [&str; 7] = ["sum", "dtype", "declared", "added at once", "kept beside 1", "error found", "verdict"];

fn row(found: &Measured) -> Vec<String> {
    let verdict = match (found.looser(), found.tiles()) {
        _ if found.refuted() => "REFUTED: a larger error than is declared".to_owned(),
        (Some(bits), _) => format!("LOOSE: sums keep 2^{bits} times more than is declared"),
        (None, Some(tiles)) if !matches!(found.declared, Dot::Fma { .. }) => {
            format!("covered; found {}", described(tiles))
        }
        _ => "covered".to_owned(),
    };
    vec![
        found.sum.name().to_owned(),
        found.dtype.to_string(),
        described(found.declared),
        found.together.to_string(),
        found.kept.map_or_else(|| "everything".to_owned(), |depth| format!("2^-{depth}")),
        format!("{:.1} u", found.attained_units),
        verdict,
    ]
}

/// A dot product's arithmetic in words, with its constant.
fn described(dot: Dot) -> String {
    let units = units(dot);
    match dot {
        Dot::Fma { .. } => format!("one by one: {units:.1} u"),
        Dot::Blocks { block, extra_bits } => format!("tiles of {block}, {extra_bits} extra bits: {units:.0} u"),
        Dot::Tf32 { extra_bits } => format!("tf32, {extra_bits} extra bits: {units:.0} u"),
    }
}
