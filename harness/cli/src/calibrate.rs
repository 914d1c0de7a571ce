//! `nsa-diff calibrate`.

use super::console::{Console, Json, Output};
use super::output::{catch_interrupt, interrupted, progress};
use super::render::calibrate as render;
use super::select::{CandidateArg, Dtypes};
use super::{Outcome, Refusal};
use nsa_harness::campaign::calibration::{calibrate, sums};
use nsa_harness::candidate::Declaration;
use nsa_harness::document::Calibrate;
use nsa_harness::watch::Watch;

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
    let sums = sums(&args.dtypes.or_usual());
    let bar = progress(Some(sums.len() as u64));
    let step = || bar.inc(1);
    let watch = Watch::new(&interrupted, &step);
    let found = calibrate(candidate.as_ref(), &sums, usize::from(args.groups), watch)
        .map_err(|error| Refusal::new(error.to_string()))?;
    bar.finish_and_clear();
    let device = Declaration::typical(candidate.as_ref()).environment;
    let document = Calibrate::of(args.candidate.name(), device, found);
    output.text(&render::text(&document));
    let outcome = match (document.fails(), document.left_out) {
        (true, _) => Ok(Outcome::Failed),
        (_, 1..) => Ok(Outcome::Interrupted),
        _ if document.results.is_empty() => Err(Refusal::new("nothing was measured: see the reasons above")),
        _ => Ok(Outcome::Passed),
    };
    output.document(&document);
    outcome
}
