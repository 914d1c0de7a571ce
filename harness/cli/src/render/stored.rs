//! The text of `replay`, `shrink` and `confirm`.

use nsa_harness::campaign::confirm::{StoredElement, Testimony};
use nsa_harness::document::{Confirmed, Smaller};
use nsa_harness::explain::Localization;
use nsa_harness::report::Report;

/// A case judged or run again.
pub(crate) fn replayed(report: &Report) -> String {
    format!("{} {} {}: {}\n", report.name, report.dtype, report.candidate, report.verdict)
}

/// A case that does not fail.
pub(crate) fn nothing_to_minimise(report: &Report) -> String {
    format!("{} {}: {}: nothing to minimise\n", report.name, report.dtype, report.verdict)
}

/// A failure made smaller, with its case.
pub(crate) fn smaller(smaller: &Smaller) -> String {
    let lines = smaller.case.lines().map(|line| format!("  {line}\n"));
    format!("{}: {}\n{}", smaller.file, smaller.report.verdict, lines.collect::<String>())
}

/// What was said of a stored failure.
pub(crate) fn confirmed(result: &Confirmed) -> String {
    let said = &result.confirmation;
    let mut text = format!("{}: {}\n", result.file, if said.confirmed { "confirmed" } else { "NOT confirmed" });
    let crash = || "no answer was stored: a crash".to_owned();
    let own = said.report.as_ref().map_or_else(crash, |report| report.verdict.to_string());
    text.push_str(&format!("  the oracle, of the stored answer: {own}\n"));
    if let Some(StoredElement { field, index, lowest, highest, found }) = &said.worst {
        text.push_str(&format!("  {field} {index:?}: expected {lowest} to {highest}, found {found}\n"));
    }
    let lines = said.localization.iter().flat_map(Localization::lines);
    lines.for_each(|line| text.push_str(&format!("  {line}\n")));
    for Testimony { witness, dtype, report, value } in &said.witnesses {
        let value = value.map(|value| format!("; there {value}")).unwrap_or_default();
        text.push_str(&format!("  {witness} in {dtype}: {}{value}\n", report.verdict));
    }
    text
}
