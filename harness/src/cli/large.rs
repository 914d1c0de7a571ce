//! `nsa-diff run --large`.

use nsa_corpus::Element;
use serde_json::json;

use super::output::{Json, catch_interrupt, interrupted, table};
use super::select::{Candidate, Elements, chosen};
use super::{Outcome, Refusal};
use crate::large::{Check, LargeCase, LargeReport, cases, run_large};
use crate::verdict::Verdict;

pub(super) fn main(
    patterns: &[String],
    candidate: &Candidate,
    elements: &Elements,
    json: &Json,
) -> Result<Outcome, Refusal> {
    let cases = cases();
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    let chosen: Vec<&LargeCase> = chosen(patterns, &names)?.into_iter().map(|index| &cases[index]).collect();
    let elements = elements.or(&[Element::F32, Element::Bf16]);
    let backend = candidate.make()?;
    catch_interrupt();
    let mut reports: Vec<LargeReport> = Vec::new();
    let jobs = chosen.iter().flat_map(|case| elements.iter().map(move |element| (*case, *element)));
    let left_out = chosen.len() * elements.len();
    for (case, element) in jobs {
        if interrupted() {
            break;
        }
        let report = run_large(case.name, &case.case, element, backend.as_ref())?;
        json.text(&render(&report, case));
        reports.push(report);
    }
    let left_out = left_out - reports.len();
    let failed = reports.iter().filter(|report| report.verdict.failure().is_some()).count();
    let skipped = reports.iter().filter(|report| matches!(report.verdict, Verdict::Skip(_))).count();
    json.text(&format!("\n{} large cases: {failed} failed, {skipped} skipped, {left_out} not run\n", reports.len()));
    json.write("large", json!({ "candidate": candidate.name(), "left_out": left_out, "reports": reports }))?;
    Ok(match (left_out, failed) {
        (1.., _) => Outcome::Interrupted,
        (0, 0) => Outcome::Passed,
        _ => Outcome::Failed,
    })
}

fn render(report: &LargeReport, case: &LargeCase) -> String {
    let mut text = format!("\n{} {}: {}\n  {}\n", report.name, report.element, report.verdict.word(), case.why);
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
