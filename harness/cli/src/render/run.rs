//! The text of `run`.

use nsa_corpus::foreign;
use nsa_harness::document::Run;
use nsa_harness::explain::Localization;
use nsa_harness::judge::sensitivity::Perturbation;
use nsa_harness::judge::verdict::Verdict;
use nsa_harness::judge::verdict::VerdictKind;
use nsa_harness::report::Report;
use nsa_harness::tally::Tally;

use crate::output::{budget_use_table, not_judged, quoted, table};

/// The whole document; `vacuous` lists every vacuous check.
pub(crate) fn text(run: &Run, vacuous: bool) -> String {
    let mut rows =
        vec![["case", "dtype", "verdict", "elements", "error/budget", "worst field"].map(str::to_owned).to_vec()];
    rows.extend(run.reports.iter().map(row));
    let mut text = table(&rows);
    let wrong = run.reports.iter().filter(|report| report.verdict != Verdict::Pass);
    wrong.for_each(|report| text.push_str(&details(report)));
    text.push_str(&budget_use_table(&run.budget_use));
    text.push_str(&summary(&run.reports));
    text.push_str(&vacuous_checks(run, vacuous));
    if let Some(Report { name, dtype, .. }) = run.reports.iter().find(|report| report.verdict.failure().is_some()) {
        let candidate = &run.candidate;
        text.push_str(&format!("run one again: nsa-diff run {name} --candidate {candidate} --dtype {dtype}\n"));
    }
    if run.left_out > 0 {
        let (left_out, all) = (run.left_out, run.left_out + run.reports.len());
        text.push_str(&format!("interrupted: {left_out} of {all} cases were not run\n"));
    }
    text + &not_judged(&run.fields)
}

/// Of a case that did not simply pass.
fn details(report: &Report) -> String {
    let mut text = format!("\n{} {}\n", report.name, report.dtype);
    match &report.verdict {
        Verdict::Fail(failure) if report.comparisons.is_empty() => text.push_str(&quoted(&failure.message)),
        Verdict::Fail(_) => {
            let failed =
                report.comparisons.iter().filter_map(|comparison| Some((comparison, comparison.failure.as_ref()?)));
            for (comparison, failure) in failed {
                let (failed, elements) = (comparison.failed, comparison.elements);
                // Of a tensor that is not there, none were looked at.
                let share = if elements == 0 { String::new() } else { format!(" [{failed} of {elements} elements]") };
                text.push_str(&format!("  {}: {}{share}\n", failure.class, failure.message));
            }
        }
        other => text.push_str(&format!("  {other}\n")),
    }
    let positions = report.localization.iter().flat_map(Localization::lines);
    positions.for_each(|line| text.push_str(&format!("  {line}\n")));
    text
}

fn row(report: &Report) -> Vec<String> {
    let worst =
        report.comparisons.iter().filter_map(|comparison| Some((comparison.field, comparison.worst.as_ref()?.ratio)));
    let worst = worst.max_by(|(_, left), (_, right)| left.total_cmp(right));
    vec![
        report.name.clone(),
        report.dtype.to_string(),
        report.verdict.word().to_owned(),
        report.elements().to_string(),
        worst.map_or_else(|| "0".to_owned(), |(_, ratio)| format!("{ratio:.3}")),
        worst.map_or_else(|| "exact".to_owned(), |(field, _)| field.to_string()),
    ]
}

/// The counts by verdict, and every reason to skip with its count.
fn summary(reports: &[Report]) -> String {
    let tally = Tally::of(reports.iter().map(|report| &report.verdict));
    let elements: usize = reports.iter().map(Report::elements).sum();
    let not_judged: usize =
        reports.iter().flat_map(|report| &report.comparisons).map(|comparison| comparison.not_judged).sum();
    let counts: Vec<String> = VerdictKind::ALL.iter().map(|kind| format!("{} {kind}", tally.count(*kind))).collect();
    let mut text =
        format!("\n{}; {elements} elements judged, {not_judged} without a finite budget\n", counts.join(", "));
    for (reason, count) in &tally.skips {
        text.push_str(&format!("skipped {count}: {}\n", foreign::line(reason)));
    }
    if let Some(first) = &tally.inconclusive {
        let count = tally.count(VerdictKind::Inconclusive);
        text.push_str(&format!("inconclusive {count}, the first: {}\n", foreign::line(first)));
    }
    text
}

fn vacuous_checks(run: &Run, list: bool) -> String {
    let checks: usize = run.reports.iter().map(|report| report.comparisons.len()).sum();
    let each: Vec<String> = run.vacuous.iter().map(|(perturbation, count)| format!("{perturbation} {count}")).collect();
    let total: usize = run.vacuous.values().sum();
    let mut text = format!(
        "{total} of {} checks are vacuous: of {checks} fields, so many would have passed with {}\n",
        checks * Perturbation::ALL.len(),
        each.join(", ")
    );
    if !list {
        if total > 0 {
            text.push_str("  --vacuous lists them with reasons\n");
        }
        return text;
    }
    for report in &run.reports {
        for comparison in &report.comparisons {
            for (perturbation, reason) in &comparison.sensitivity.vacuous {
                text.push_str(&format!(
                    "  {} {} {}: {perturbation}: {reason}\n",
                    report.name, report.dtype, comparison.field
                ));
            }
        }
    }
    text
}
