//! What `detect` found, as text.

use std::collections::BTreeMap;

use nsa_corpus::foreign;
use nsa_harness::detect::{Fate, Minimal, Placed, Row, Rule};
use nsa_harness::document::Detect;

use crate::output::table;

/// As text.
pub(crate) fn text(found: &Detect) -> String {
    let mut head: Vec<String> = ["mutant", "category", "in"].map(str::to_owned).to_vec();
    head.extend(found.rules.iter().map(|rule| rule.name().to_owned()));
    head.extend(["by", "s"].map(str::to_owned));
    let mut lines = vec![head];
    for row in &found.mutants {
        let mut line = vec![row.name.clone(), row.category.clone(), row.carrier.clone()];
        line.extend(found.rules.iter().map(|rule| row.fates.get(rule).map_or("", Fate::word).to_owned()));
        let first = found.rules.iter().find_map(|rule| row.fates.get(rule)?.kill());
        line.push(first.map_or_else(String::new, |kill| {
            let field = kill.field.map_or_else(String::new, |field| format!(" {field}"));
            format!("{} {}{field} ({})", kill.entry, kill.dtype, foreign::line(&kill.detail))
        }));
        line.push(format!("{:.1}", row.seconds));
        lines.push(line);
    }
    let mut text = table(&lines);
    text.push_str(&format!("\n{} mistakes, {} cases\n", found.mutants.len(), found.cases));
    for rule in &found.rules {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        found
            .mutants
            .iter()
            .filter_map(|row| row.fates.get(rule))
            .for_each(|fate| *counts.entry(fate.word()).or_default() += 1);
        let counts: Vec<String> = counts.iter().map(|(fate, count)| format!("{count} {fate}")).collect();
        let alarms = found.rejects_without_any.count(*rule);
        text.push_str(&format!(
            "{}: {}; without any mistake it rejects {alarms} of {} cases\n",
            rule.name(),
            counts.join(", "),
            found.cases
        ));
    }
    for row in found.mutants.iter().filter(|row| row.is_unexpected()) {
        let fate = row.fates.get(&Rule::Ours).map_or("", Fate::word);
        let expected = if row.equivalent.is_some() { "equivalent" } else { "killed" };
        text.push_str(&format!("not as expected: {}: {fate}, expected {expected}\n", row.name));
    }
    text.push_str(&explained(&found.mutants));
    if found.left_out > 0 {
        text.push_str(&format!("interrupted: {} mistakes were not planted\n", found.left_out));
    }
    text
}

/// What `--explain` measured over all rows, in lines; nothing where it was not asked for.
pub(super) fn explained(rows: &[Row]) -> String {
    let placed: Vec<&Placed> = rows.iter().filter_map(|row| row.placed.as_ref()).collect();
    let minimal: Vec<&Minimal> = rows.iter().filter_map(|row| row.minimal.as_ref()).collect();
    let mut text = String::new();
    if !placed.is_empty() {
        let share =
            |right: usize, of: usize| format!("{right} of {of} ({:.1} %)", 100.0 * right as f64 / of.max(1) as f64);
        let count = |right: fn(&Placed) -> bool| placed.iter().filter(|placed| right(placed)).count();
        let terms: Vec<bool> = placed.iter().filter_map(|placed| placed.term).collect();
        text += &format!(
            "placed: field right in {}, head and token in {}, slot and key in {}; named rightly: {}\n",
            share(count(|placed| placed.field), placed.len()),
            share(count(|placed| placed.row), placed.len()),
            share(terms.iter().filter(|right| **right).count(), terms.len()),
            share(count(|placed| placed.named), placed.len()),
        );
    }
    if !minimal.is_empty() {
        let mut nonzero: Vec<usize> = minimal.iter().map(|minimal| minimal.nonzero).collect();
        let mut bytes: Vec<usize> = minimal.iter().map(|minimal| minimal.bytes).collect();
        let mut calls: Vec<usize> = minimal.iter().map(|minimal| minimal.calls).collect();
        for numbers in [&mut nonzero, &mut bytes, &mut calls] {
            numbers.sort_unstable();
        }
        let at = |numbers: &[usize], share: f64| numbers[((numbers.len() - 1) as f64 * share).round() as usize];
        text += &format!(
            "minimised {}: elements not 0 median {}, most {}; bytes median {}, 95 % within {}, most {}; cases run median {}, most {}; {} \
             unfinished\n",
            minimal.len(),
            at(&nonzero, 0.5),
            at(&nonzero, 1.0),
            at(&bytes, 0.5),
            at(&bytes, 0.95),
            at(&bytes, 1.0),
            at(&calls, 0.5),
            at(&calls, 1.0),
            minimal.iter().filter(|minimal| minimal.unfinished).count(),
        );
    }
    text
}
