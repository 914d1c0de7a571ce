//! The text of `fuzz`: what is known before, each failure as it is found, and the summary.

use nsa_corpus::foreign;
use nsa_harness::document::{Fuzz, Known, NewFailure, Passing};
use nsa_harness::explain::Localization;

use crate::output::{budget_use_table, not_judged};

/// What the folder of stored failures held.
pub(crate) fn known(known: &[Known], otherwise: &[String], passing: &[Passing]) -> String {
    let mut text = String::new();
    for Known { file, waiver, .. } in known {
        let waived = waiver.as_ref().map(|reason| format!(" (waived: {})", foreign::line(reason))).unwrap_or_default();
        text.push_str(&format!("known: {file}{waived}\n"));
    }
    for otherwise in otherwise {
        text.push_str(&format!("fails otherwise than its waiver says: {otherwise}\n"));
    }
    for Passing { file, waiver } in passing {
        let stale = if waiver.is_some() { ": its waiver is stale" } else { "" };
        text.push_str(&format!("{file} passes now{stale}\n"));
    }
    text
}

/// A failure that was just found.
pub(crate) fn failure(found: &NewFailure) -> String {
    let mut text = format!("\ncase {}, {}: {}\n", found.case, found.dtype, found.report.verdict);
    let lines = found.localization.iter().flat_map(Localization::lines);
    lines.for_each(|line| text.push_str(&format!("  {line}\n")));
    let note = if found.unfinished { " (the budget for minimising ran out)" } else { "" };
    let required_features = found.required_features.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    text.push_str(&format!("  minimised in {} runs{note}; needs: {required_features}\n", found.calls));
    text.push_str(&match found.file.as_str() {
        "" => "  it could not be stored\n".to_owned(),
        path => format!("  stored: {path}\n  again: nsa-diff replay {path}\n"),
    });
    text
}

/// What the campaign came to.
pub(crate) fn summary(fuzz: &Fuzz) -> String {
    let seconds = fuzz.seconds.number();
    let rate = fuzz.cases as f64 / seconds.max(1e-9);
    let verdicts: Vec<String> = fuzz.verdicts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let mut text = format!(
        "\n{} cases in {seconds:.1} s ({rate:.0} a second): {}\n{} elements judged\nexercised:",
        fuzz.cases,
        verdicts.join(", "),
        fuzz.elements,
    );
    fuzz.features.iter().for_each(|(feature, count)| text.push_str(&format!(" {feature} {count},")));
    text.push('\n');
    for (reason, count) in &fuzz.skips {
        text.push_str(&format!("skipped {count}: {}\n", foreign::line(reason)));
    }
    text.push_str(&budget_use_table(&fuzz.budget_use));
    text.push_str(&not_judged(&fuzz.fields));
    text + &explained(fuzz)
}

/// How many cases each failure explains, and what was left.
fn explained(fuzz: &Fuzz) -> String {
    let mut text = String::new();
    for known in fuzz.known.iter().filter(|known| known.cases > 0) {
        let waived = if known.waiver.is_some() { ", waived" } else { "" };
        text.push_str(&format!("{} cases fail as {}{waived}\n", known.cases, known.file));
    }
    for found in &fuzz.failures {
        let file = match found.file.as_str() {
            "" => format!("a failure that could not be stored: {}", found.signature.slug()),
            path => path.to_owned(),
        };
        text.push_str(&format!("{} cases fail as {file}\n", found.cases));
    }
    for left in &fuzz.left {
        text.push_str(&format!("not minimised: case {}, {}: {}\n", left.case, left.dtype, left.verdict));
    }
    text
}
