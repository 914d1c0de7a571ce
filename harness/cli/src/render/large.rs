//! The text of `run --large`.

use nsa_harness::document::Large;
use nsa_harness::judge::verdict::Verdict;
use nsa_harness::relations::{Check, LargeReport};
use nsa_harness::tally::Tally;

use crate::output::{not_judged, table};

/// One case, which exists because of `why`.
pub(crate) fn case(report: &LargeReport, why: &str) -> String {
    let mut text = format!("\n{} {}: {}\n  {why}\n", report.name, report.dtype, report.verdict.word());
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

/// What all cases came to.
pub(crate) fn summary(large: &Large) -> String {
    let tally = Tally::of(large.reports.iter().map(|report| &report.verdict));
    let (failed, skipped) = (tally.count("fail"), tally.count("skip"));
    let (cases, left_out) = (large.reports.len(), large.left_out);
    let text = format!("\n{cases} large cases: {failed} failed, {skipped} skipped, {left_out} not run\n");
    text + &not_judged(&large.fields)
}
