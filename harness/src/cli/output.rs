//! What commands share in what they print: progress, interruption, tables, JSON.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::Refusal;
pub(super) use super::signals::{catch_interrupt, interrupted};
use crate::tightness::Summary;

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
pub(super) fn tightness_table(summary: &Summary) -> String {
    let rows = summary.table();
    if rows.len() < 2 { String::new() } else { format!("\nerror / budget, tiers B and H\n{}", table(&rows)) }
}

/// Where machine-readable output goes.
#[derive(clap::Args)]
pub(super) struct Json {
    /// Write the result as JSON to FILE too; "-" writes JSON alone to standard output (docs/reports.md)
    #[arg(id = "json", long = "json", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Json {
    /// Whether standard output belongs to JSON.
    pub(super) fn only(&self) -> bool {
        self.file.as_deref() == Some(Path::new("-"))
    }

    /// Prints readable text, unless standard output belongs to JSON.
    pub(super) fn text(&self, text: &str) {
        if !self.only() {
            print_or_end(&printable(text));
        }
    }

    /// Writes `content` of schema `nsa-diff/KIND/1`.
    pub(super) fn write(&self, kind: &str, content: Value) -> Result<(), Refusal> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut document = json!({
            "schema": format!("nsa-diff/{kind}/1"),
            "environment": crate::environment::describe(),
        });
        if let (Value::Object(document), Value::Object(content)) = (&mut document, content) {
            document.extend(content);
        }
        let mut text = serde_json::to_string_pretty(&document).expect("values serialise");
        text.push('\n');
        if self.only() {
            print_or_end(&text);
            return Ok(());
        }
        std::fs::write(file, text)
            .map_err(|error| Refusal::new(format!("{}: cannot be written: {error}", file.display())))
    }
}

/// Text that may stem from a file or a guest, without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')).collect()
}

/// Prints; a reader that closed the pipe (`| head`) ends the process quietly.
fn print_or_end(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}
