//! What commands share while they run: progress, interruption, tables.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nsa_corpus::foreign;

pub(super) use super::signals::{catch_interrupt, interrupted};
use nsa_harness::summary::Summary;
use nsa_harness::tally::Fields;

/// Lines of somebody else's text that are shown.
const LINES_QUOTED: usize = 40;

/// A bar that appears on a terminal only.
pub(super) fn progress(length: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(4));
    let template =
        if length.is_some() { "{bar:30} {pos}/{len} {per_sec} {msg}" } else { "{spinner} {pos} {per_sec} {msg}" };
    bar.set_style(ProgressStyle::with_template(template).expect("a fixed template"));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Rows as aligned columns, the first row being the head.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// How tight the budgets are; empty where nothing was judged.
pub(super) fn budget_use_table(summary: &Summary) -> String {
    let rows = summary.table();
    if rows.len() < 2 { String::new() } else { format!("\nerror / budget, tiers B and H\n{}", table(&rows)) }
}

/// What a guest or a compiler said, which may be several lines: each behind a mark, so that none can pass for one of ours.
pub(super) fn quoted(text: &str) -> String {
    let lines = text.lines().take(LINES_QUOTED).map(|line| format!("  | {}\n", foreign::line(line)));
    let more = if text.lines().nth(LINES_QUOTED).is_some() { "  | …\n" } else { "" };
    lines.collect::<String>() + more
}

/// A line that says which fields are not judged; empty where all are.
pub(super) fn not_judged(fields: &Fields) -> String {
    if fields.not_judged.is_empty() { String::new() } else { format!("{fields}\n") }
}
