//! What `nsa-diff matrix` found, as text, Markdown and JSON.

use std::collections::BTreeMap;

use nsa_corpus::{Dtype, Entry, Error, Field, foreign};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::output::table;
use nsa_harness::candidate::Candidate;
use nsa_harness::judge::field::Worst;
use nsa_harness::judge::verdict::Verdict;
use nsa_harness::report::Report;
use nsa_harness::run::run_entry;

/// One case in one format, on every candidate.
pub(super) struct Row {
    name: String,
    dtype: Dtype,
    /// In the order of candidates.
    reports: Vec<Report>,
    blames: Vec<Blame>,
}

/// A candidate that is wrong where another is right: its worst element, and everyone's value there.
struct Blame {
    candidate: usize,
    field: Option<Field>,
    worst: Option<Worst>,
    /// In the order of candidates; `None` where there is no answer.
    values: Vec<Option<f64>>,
}

impl Row {
    /// Runs the case on all candidates at once. Of their answers only the values at failing elements are kept.
    pub(super) fn run(entry: &Entry, dtype: Dtype, candidates: &[Box<dyn Candidate>]) -> Result<Self, Error> {
        let mut reports = candidates
            .par_iter()
            .map(|candidate| run_entry(entry, dtype, candidate.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let blames = blames(&reports);
        reports.iter_mut().for_each(|report| report.outputs = None);
        Ok(Row { name: entry.name.clone(), dtype, reports, blames })
    }

    /// Of the candidate number `at`.
    pub(super) fn verdict(&self, at: usize) -> &Verdict {
        &self.reports[at].verdict
    }

    pub(super) fn fails(&self) -> bool {
        self.reports.iter().any(|report| report.verdict.failure().is_some())
    }

    fn right(&self) -> Vec<usize> {
        let right = |report: &Report| matches!(report.verdict, Verdict::Pass | Verdict::Suspect(_));
        (0..self.reports.len()).filter(|candidate| right(&self.reports[*candidate])).collect()
    }
}

fn blames(reports: &[Report]) -> Vec<Blame> {
    let failing = reports.iter().enumerate().filter_map(|(candidate, r)| Some((candidate, r, r.verdict.failure()?)));
    failing
        .map(|(candidate, report, failure)| {
            let compared = report.comparisons.iter().find(|comparison| Some(comparison.field) == failure.field);
            let worst = compared.and_then(|comparison| comparison.worst.clone());
            let at = |report: &Report| {
                let index = worst.as_ref()?.index.as_slice();
                report.outputs.as_ref()?.get(failure.field?)?.get(index).copied()
            };
            Blame { candidate, field: failure.field, values: reports.iter().map(at).collect(), worst }
        })
        .collect()
}

/// The letters of a candidate's cell.
fn letter(verdict: &Verdict) -> char {
    match verdict {
        Verdict::Pass => '.',
        Verdict::Suspect(_) => 's',
        Verdict::Fail(_) => 'F',
        Verdict::Skip(_) => '-',
        Verdict::Inconclusive(_) => '?',
    }
}

const WORDS: [&str; 5] = ["pass", "suspect", "fail", "skip", "inconclusive"];

/// For each candidate: its name, counts by verdict, elements judged, seconds.
fn totals(names: &[&str], rows: &[Row]) -> Vec<Vec<String>> {
    let mut table =
        vec![["candidate"].iter().chain(&WORDS).chain(&["elements", "seconds"]).map(|w| w.to_string()).collect()];
    for (at, name) in names.iter().enumerate() {
        let reports = || rows.iter().map(|row| &row.reports[at]);
        let count = |word: &str| reports().filter(|report| report.verdict.word() == word).count().to_string();
        let mut line = vec![(*name).to_owned()];
        line.extend(WORDS.map(count));
        line.push(reports().map(Report::elements).sum::<usize>().to_string());
        line.push(format!("{:.1}", reports().map(|report| report.seconds).sum::<f64>()));
        table.push(line);
    }
    table
}

/// A line for each entry: its name, its formats, a cell for each candidate. Entries that every candidate skips are left
/// out and counted.
fn cells(names: &[&str], rows: &[Row]) -> (Vec<Vec<String>>, usize) {
    let mut lines = vec![["case", "formats"].iter().chain(names).map(|text| (*text).to_owned()).collect::<Vec<_>>()];
    let mut skipped = 0;
    for same in rows.chunk_by(|left, right| left.name == right.name) {
        let formats: Vec<&str> = same.iter().map(|row| row.dtype.name()).collect();
        let cell = |at: usize| same.iter().map(|row| letter(&row.reports[at].verdict)).collect::<String>();
        let cells: Vec<String> = (0..names.len()).map(cell).collect();
        if cells.iter().all(|cell| cell.chars().all(|letter| letter == '-')) {
            skipped += 1;
            continue;
        }
        lines.push([vec![same[0].name.clone(), formats.join(" ")], cells].concat());
    }
    (lines, skipped)
}

/// Where candidates disagree: the case, who passes, who fails and how.
fn disagreements(names: &[&str], rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows {
        for blame in &row.blames {
            let report = &row.reports[blame.candidate];
            let right: Vec<&str> = row.right().into_iter().map(|at| names[at]).collect();
            let beside = if right.is_empty() { "none passes".to_owned() } else { format!("{} pass", right.join(", ")) };
            let mut line = format!(
                "{} {}: {} is wrong ({beside}): {}",
                row.name, row.dtype, names[blame.candidate], report.verdict
            );
            let others = blame.values.iter().enumerate().filter(|(at, _)| *at != blame.candidate);
            let others: Vec<String> =
                others.filter_map(|(at, value)| Some(format!("{} {:e}", names[at], (*value)?))).collect();
            if let (Some(worst), false) = (&blame.worst, others.is_empty()) {
                let ends = [worst.expected - worst.budget, worst.expected + worst.budget];
                line.push_str(&format!("; there within {:e} to {:e}: {}", ends[0], ends[1], others.join(", ")));
            }
            lines.push(line);
        }
    }
    lines
}

/// For each candidate, every reason to skip with its count.
fn skips(names: &[&str], rows: &[Row]) -> Vec<(String, BTreeMap<String, usize>)> {
    let of = |at: usize| {
        let mut counts = BTreeMap::new();
        for row in rows {
            if let Verdict::Skip(reason) = &row.reports[at].verdict {
                *counts.entry(reason.clone()).or_default() += 1;
            }
        }
        counts
    };
    names.iter().enumerate().map(|(at, name)| ((*name).to_owned(), of(at))).collect()
}

pub(super) fn text(names: &[&str], missing: &[(String, String)], rows: &[Row]) -> String {
    let (cells, skipped) = cells(names, rows);
    let mut text = table(&cells);
    if skipped > 0 {
        text.push_str(&format!("{skipped} cases are skipped by every candidate\n"));
    }
    let lines = disagreements(names, rows);
    if !lines.is_empty() {
        text.push_str("\nwrong, by the oracle:\n");
        lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    for (name, reasons) in skips(names, rows) {
        reasons
            .iter()
            .for_each(|(reason, count)| text.push_str(&format!("{name} skipped {count}: {}\n", foreign::line(reason))));
    }
    text.push('\n');
    text.push_str(&table(&totals(names, rows)));
    missing.iter().for_each(|(_, reason)| text.push_str(&format!("left out: {}\n", foreign::line(reason))));
    text
}

pub(super) fn markdown(names: &[&str], missing: &[(String, String)], rows: &[Row]) -> String {
    let (cells, skipped) = cells(names, rows);
    let mut text = format!("{}\n", markdown_table(&totals(names, rows)));
    missing
        .iter()
        .for_each(|(_, reason)| text.push_str(&format!("Left out: {}\n\n", cell_text(&foreign::line(reason)))));
    text.push_str("`.` pass, `s` suspect, `F` fail, `-` skip, `?` inconclusive: one for each format.\n\n");
    text.push_str(&markdown_table(&cells));
    if skipped > 0 {
        text.push_str(&format!("\n{skipped} cases are skipped by every candidate.\n"));
    }
    text.push_str("\nWrong, by the oracle:\n\n");
    disagreements(names, rows).iter().for_each(|line| text.push_str(&format!("- {}\n", cell_text(line))));
    text.push_str("\nSkipped:\n\n");
    for (name, reasons) in skips(names, rows) {
        reasons
            .iter()
            .for_each(|(reason, count)| text.push_str(&format!("- {name}, {count}: {}\n", cell_text(reason))));
    }
    text
}

fn markdown_table(lines: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().map(|cell| cell_text(cell)).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
        if at == 0 {
            text.push_str(&format!("|{}\n", "---|".repeat(line.len())));
        }
    }
    text
}

/// Text of a guest or a file, on one line and without what Markdown would take for a column.
fn cell_text(text: &str) -> String {
    foreign::line(text).replace('|', "\\|").replace('<', "&lt;")
}

pub(super) fn json(names: &[&str], missing: &[(String, String)], rows: &[Row]) -> Value {
    let skips = skips(names, rows);
    let candidates: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let count = |word: &str| rows.iter().filter(|row| row.reports[at].verdict.word() == word).count();
            let verdicts: BTreeMap<&str, usize> = WORDS.map(|word| (word, count(word))).into_iter().collect();
            json!({ "candidate": name, "verdicts": verdicts, "skips": skips[at].1 })
        })
        .collect();
    let missing: Vec<Value> =
        missing.iter().map(|(name, reason)| json!({ "candidate": name, "reason": reason })).collect();
    json!({ "candidates": candidates, "missing": missing, "cases": rows.iter().map(case).collect::<Vec<_>>() })
}

fn case(row: &Row) -> Value {
    let blames: Vec<Value> = row
        .blames
        .iter()
        .map(|blame| {
            let number = |value: &Option<f64>| match value {
                Some(value) if !value.is_finite() => json!(value.to_string()),
                other => json!(other),
            };
            json!({
                "candidate": row.reports[blame.candidate].candidate,
                "field": blame.field,
                "worst": blame.worst,
                "values": blame.values.iter().map(number).collect::<Vec<_>>(),
            })
        })
        .collect();
    let reports: Vec<Value> = row.reports.iter().map(summary).collect();
    json!({ "name": row.name, "dtype": row.dtype, "reports": reports, "wrong": blames })
}

/// A failure's report whole; of another what a table needs.
fn summary(report: &Report) -> Value {
    if report.verdict.failure().is_some() {
        return json!(report);
    }
    let mut summary = json!(report.verdict);
    let ratio = report.worst_ratio();
    let more = json!({
        "candidate": report.candidate,
        "elements": report.elements(),
        "ratio": if ratio.is_finite() { json!(ratio) } else { json!("inf") },
        "seconds": report.seconds,
    });
    if let (Value::Object(summary), Value::Object(more)) = (&mut summary, more) {
        summary.extend(more);
    }
    summary
}
