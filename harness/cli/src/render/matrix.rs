//! What `matrix` found, as text and Markdown.

use nsa_corpus::foreign;
use nsa_harness::campaign::matrix::{Blame, Row};
use nsa_harness::document::Matrix;
use nsa_harness::judge::verdict::{Verdict, VerdictKind};

use crate::output::{not_judged, table};

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

/// For each candidate: its name, counts by verdict, elements judged, seconds.
fn totals(matrix: &Matrix) -> Vec<Vec<String>> {
    let head = ["candidate"].into_iter().chain(VerdictKind::ALL.map(VerdictKind::word)).chain(["elements", "seconds"]);
    let mut lines = vec![head.map(str::to_owned).collect::<Vec<String>>()];
    for total in &matrix.candidates {
        let mut line = vec![total.candidate.clone()];
        line.extend(VerdictKind::ALL.map(|kind| total.verdicts.get(kind.word()).copied().unwrap_or(0).to_string()));
        line.push(total.elements.to_string());
        line.push(format!("{:.1}", total.seconds));
        lines.push(line);
    }
    lines
}

/// A line for each entry: its name, its dtypes, a cell for each candidate. Entries that every candidate skips are left
/// out and counted.
fn cells(matrix: &Matrix) -> (Vec<Vec<String>>, usize) {
    let names = matrix.names();
    let head = ["case", "formats"].iter().chain(&names).map(|text| (*text).to_owned());
    let mut lines = vec![head.collect::<Vec<_>>()];
    let mut skipped = 0;
    for same in matrix.cases.chunk_by(|left, right| left.name == right.name) {
        let dtypes: Vec<&str> = same.iter().map(|row| row.dtype.name()).collect();
        let cell = |at: usize| same.iter().map(|row| letter(&row.cells[at].verdict)).collect::<String>();
        let cells: Vec<String> = (0..names.len()).map(cell).collect();
        if cells.iter().all(|cell| cell.chars().all(|letter| letter == '-')) {
            skipped += 1;
            continue;
        }
        lines.push([vec![same[0].name.clone(), dtypes.join(" ")], cells].concat());
    }
    (lines, skipped)
}

/// Where candidates disagree: the case, who passes, who fails and how.
fn disagreements(matrix: &Matrix) -> Vec<String> {
    matrix.cases.iter().flat_map(|row| row.wrong.iter().map(move |blame| disagreement(row, blame))).collect()
}

fn disagreement(row: &Row, blame: &Blame) -> String {
    let right = row.right();
    let beside = if right.is_empty() { "none passes".to_owned() } else { format!("{} pass", right.join(", ")) };
    let verdict = row.cells.iter().find(|cell| cell.candidate == blame.candidate).map(|cell| cell.verdict.to_string());
    let verdict = verdict.unwrap_or_default();
    let mut line = format!("{} {}: {} is wrong ({beside}): {verdict}", row.name, row.dtype, blame.candidate);
    let others = blame.values.iter().filter(|answered| answered.candidate != blame.candidate);
    let others: Vec<String> = others.map(|answered| format!("{} {:e}", answered.candidate, answered.value)).collect();
    if let (Some(worst), false) = (&blame.worst, others.is_empty()) {
        let ends = [worst.expected - worst.budget, worst.expected + worst.budget];
        line.push_str(&format!("; there within {:e} to {:e}: {}", ends[0], ends[1], others.join(", ")));
    }
    line
}

/// For each candidate and reason to skip: both, with the count.
fn skips(matrix: &Matrix) -> impl Iterator<Item = (&str, &str, usize)> {
    matrix
        .candidates
        .iter()
        .flat_map(|total| total.skips.iter().map(|(reason, count)| (total.candidate.as_str(), reason.as_str(), *count)))
}

/// As text.
pub(crate) fn text(matrix: &Matrix) -> String {
    let (cells, skipped) = cells(matrix);
    let mut text = table(&cells);
    if skipped > 0 {
        text.push_str(&format!("{skipped} cases are skipped by every candidate\n"));
    }
    let lines = disagreements(matrix);
    if !lines.is_empty() {
        text.push_str("\nwrong, by the oracle:\n");
        lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    for (name, reason, count) in skips(matrix) {
        text.push_str(&format!("{name} skipped {count}: {}\n", foreign::line(reason)));
    }
    text.push('\n');
    text.push_str(&table(&totals(matrix)));
    for missing in &matrix.missing {
        text.push_str(&format!("left out: {}\n", foreign::line(&missing.reason)));
    }
    if matrix.left_out > 0 {
        let cases = matrix.cases.len() + matrix.left_out;
        text.push_str(&format!("interrupted: {} of {cases} cases were not run\n", matrix.left_out));
    }
    for total in &matrix.candidates {
        let line = not_judged(&total.fields);
        text.push_str(&if line.is_empty() { line } else { format!("{}: {line}", total.candidate) });
    }
    text
}

/// As a page of Markdown.
pub(crate) fn markdown(matrix: &Matrix) -> String {
    let (cells, skipped) = cells(matrix);
    let mut text = format!("{}\n", markdown_table(&totals(matrix)));
    for missing in &matrix.missing {
        text.push_str(&format!("Left out: {}\n\n", cell_text(&missing.reason)));
    }
    text.push_str("`.` pass, `s` suspect, `F` fail, `-` skip, `?` inconclusive: one for each format.\n\n");
    text.push_str(&markdown_table(&cells));
    if skipped > 0 {
        text.push_str(&format!("\n{skipped} cases are skipped by every candidate.\n"));
    }
    text.push_str("\nWrong, by the oracle:\n\n");
    disagreements(matrix).iter().for_each(|line| text.push_str(&format!("- {}\n", cell_text(line))));
    text.push_str("\nSkipped:\n\n");
    for (name, reason, count) in skips(matrix) {
        text.push_str(&format!("- {name}, {count}: {}\n", cell_text(reason)));
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
