//! `nsa-diff run --large`.

use nsa_corpus::Dtype;
use serde_json::json;

use super::console::Output;
use super::output::{catch_interrupt, interrupted, not_judged, table};
use super::select::{CandidateArg, Dtypes, chosen};
use super::{Outcome, Refusal, concluded};
use nsa_harness::judge::verdict::{Verdict, VerdictKind};
use nsa_harness::relations::{Check, LargeCase, LargeReport, cases, run_large};
use nsa_harness::tally::{Fields, Tally};

pub(super) fn main(
    patterns: &[String],
    candidate: &CandidateArg,
    elements: &Dtypes,
    output: &Output<'_>,
) -> Result<Outcome, Refusal> {
    let cases = cases();
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    let chosen: Vec<&LargeCase> = chosen(patterns, &names)?.into_iter().map(|index| &cases[index]).collect();
    let elements = elements.or(&[Dtype::F32, Dtype::Bf16]);
    let candidate = candidate.make()?;
    catch_interrupt();
    let mut reports: Vec<LargeReport> = Vec::new();
    let jobs = chosen.iter().flat_map(|case| elements.iter().map(move |dtype| (*case, *dtype)));
    let left_out = chosen.len() * elements.len();
    for (case, dtype) in jobs {
        if interrupted() {
            break;
        }
        let report = run_large(case.name, &case.case, dtype, candidate.as_ref())?;
        output.text(&render(&report, case));
        reports.push(report);
    }
    let left_out = left_out - reports.len();
    let tally = Tally::of(reports.iter().map(|report| &report.verdict));
    let (failed, skipped) = (tally.count(VerdictKind::Fail), tally.count(VerdictKind::Skip));
    output.text(&format!("\n{} large cases: {failed} failed, {skipped} skipped, {left_out} not run\n", reports.len()));
    let fields = Fields::of(candidate.as_ref());
    output.text(&not_judged(&fields));
    let content = json!({ "candidate": candidate.name(), "fields": fields, "left_out": left_out, "reports": reports });
    output.json("large", content);
    concluded(&tally, left_out)
}

fn render(report: &LargeReport, case: &LargeCase) -> String {
    let mut text = format!("\n{} {}: {}\n  {}\n", report.name, report.dtype, report.verdict.word(), case.why);
    let head = ["check", "verdict", "elements", "held to a budget", "largest / allowed", "seconds"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(report.checks.iter().map(row));
    if !report.checks.is_empty() {
        table(&rows).lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    let words = [&report.verdict].into_iter().chain(report.checks.iter().map(|check| &check.verdict));
    let mut words: Vec<String> = words.filter(|verdict| **verdict != Verdict::Pass).map(Verdict::to_string).collect();
    words.dedup();
    words.iter().for_each(|words| text.push_str(&format!("  {words}\n")));
    text
}

fn row(check: &Check) -> Vec<String> {
    vec![
        check.name.clone(),
        check.verdict.word().to_owned(),
        check.elements.to_string(),
        check.held.to_string(),
        format!("{:.3}", check.ratio),
        format!("{:.1}", check.seconds),
    ]
}
