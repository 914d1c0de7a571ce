//! `nsa-diff run --large`.

use nsa_corpus::Dtype;
use nsa_harness::document::Large;
use nsa_harness::relations::{LargeCase, cases, run_large};
use nsa_harness::tally::{Fields, Tally};

use super::console::Output;
use super::output::{catch_interrupt, interrupted};
use super::select::{CandidateArg, Dtypes, chosen};
use super::{Outcome, Refusal, concluded, render};

pub(super) fn main(
    patterns: &[String],
    candidate: &CandidateArg,
    dtypes: &Dtypes,
    output: &Output<'_>,
) -> Result<Outcome, Refusal> {
    let cases = cases();
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    let chosen: Vec<&LargeCase> = chosen(patterns, &names)?.into_iter().map(|index| &cases[index]).collect();
    let dtypes = dtypes.or(&[Dtype::F32, Dtype::Bf16]);
    let candidate = candidate.make()?;
    catch_interrupt();
    let mut reports = Vec::new();
    let jobs = chosen.iter().flat_map(|case| dtypes.iter().map(move |dtype| (*case, *dtype)));
    for (case, dtype) in jobs {
        if interrupted() {
            break;
        }
        let report = run_large(case.name, &case.case, dtype, candidate.as_ref())?;
        output.text(&render::large::case(&report, case.why));
        reports.push(report);
    }
    let left_out = chosen.len() * dtypes.len() - reports.len();
    let fields = Fields::of(candidate.as_ref());
    let document = Large { candidate: candidate.name().to_owned(), fields, left_out, reports };
    output.text(&render::large::summary(&document));
    output.document(&document);
    concluded(&Tally::of(document.reports.iter().map(|report| &report.verdict)), left_out)
}
