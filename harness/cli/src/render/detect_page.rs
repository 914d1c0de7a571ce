//! The kill matrix as a page: docs/detection.md is written by it, and a test holds the page to the catalogue.

use std::collections::BTreeMap;
use std::fmt::Write;

use nsa_harness::detect::{Fate, Row, Rule, digest};
use nsa_harness::document::Detect;

use super::detect::explained;

/// The page: what was planted, what each rule made of it, and what the rules say of the candidate itself.
pub(crate) fn markdown(detect: &Detect) -> String {
    let (rows, rules) = (&detect.mutants, &detect.rules);
    let mut text = String::from(HEAD);
    let (candidate, cases) = (&detect.candidate, detect.cases);
    let _ = writeln!(text, "Planted in `{candidate}`: {} mutants, {cases} cases (entries × dtypes).", rows.len());
    let _ = writeln!(text, "Catalogue and corpus: `{}`.\n", digest());
    summary(&mut text, detect);
    measured(&mut text, rows);
    categories(&mut text, rows, rules);
    matrix(&mut text, rows, rules);
    arguments(&mut text, rows);
    text
}

const HEAD: &str = "# Detection

<!-- Written by `nsa-diff detect --rule all --explain --markdown docs/detection.md`; `harness/tests/detection.rs` fails when it is old. -->

A tester is worth what it catches. `nsa-diff detect` plants each mutant of `harness/mutants` and runs
the corpus, cheapest cases first, until a rule rejects the answer. Without a mutant, the same
candidate passes every case by our rule. [glossary.md](glossary.md) defines the terms.

";

fn killed(fate: Option<&Fate>) -> bool {
    fate.is_some_and(|fate| fate.kill().is_some())
}

fn summary(text: &mut String, detect: &Detect) {
    let (rules, cases) = (&detect.rules, detect.cases);
    let possible: Vec<&Row> = detect.mutants.iter().filter(|row| row.equivalent.is_none()).collect();
    let of = possible.len();
    text.push_str(
        "| rule | corpus: killed | mock inputs alone: killed | rejects the correct candidate |\n|---|---|---|---|\n",
    );
    for rule in rules {
        let corpus = possible.iter().filter(|row| killed(row.fates.get(rule))).count();
        let mock = possible.iter().filter(|row| killed(row.on_mock_inputs.get(rule))).count();
        let alarms = detect.rejects_without_any.count(*rule);
        let _ = writeln!(text, "| {} | {corpus} / {of} | {mock} / {of} | in {alarms} of {cases} cases |", rule.name());
    }
    text.push_str(BELOW_SUMMARY);
    rules.iter().for_each(|rule| {
        let _ = writeln!(text, "- **{}**: {}.", rule.name(), rule.formula());
    });
    text.push('\n');
}

const BELOW_SUMMARY: &str = "
The mock inputs are those of upstream's own test, in f16 (`upstream/mock_inputs`: blocks 0 and 1,
factors of 1, a sum as the loss). In some cases a rule rejects the correct candidate too. Such a case
shows nothing by that rule, so it does not count as a kill. The corpus has many such cases, because
its values are not all of size 1.

";

/// Where localisation placed the mutants and how small they got, if that was asked for.
fn measured(text: &mut String, rows: &[Row]) {
    let lines = explained(rows);
    if lines.is_empty() {
        return;
    }
    text.push_str(ABOUT_POSITIONS);
    lines.lines().for_each(|line| {
        let _ = writeln!(text, "- {line}.");
    });
    text.push('\n');
}

const ABOUT_POSITIONS: &str = "## Located, named, minimised

`nsa-diff detect --explain` takes up to three wrong answers of each mutant that a wrong answer kills.
Localisation says where these answers are wrong, and which mutant they look like:

- Field, batch, head and token are right if the mutant changes that element.
- Slot and key are right if the mutant touches a term that was named there.
- The name is right if no other mutant of the catalogue explains these answers better.

The same catalogue is planted and recognised. So the last figure says how well localisation tells
known mutants from each other by their answers. It does not say whether an unknown mistake would be
recognised. Localisation says where such a mistake is all the same.

";

fn categories(text: &mut String, rows: &[Row], rules: &[Rule]) {
    let mut by_category: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|row| by_category.entry(&row.category).or_default().push(row));
    let names: Vec<&str> = rules.iter().map(|rule| rule.name()).collect();
    let _ = writeln!(text, "## By category\n\nMutants killed, of all that are not equivalent.\n");
    let _ = writeln!(text, "| category | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for (category, rows) in by_category {
        let possible = rows.iter().filter(|row| row.equivalent.is_none()).count();
        let counts: Vec<String> = rules
            .iter()
            .map(|rule| {
                let killed = rows.iter().filter(|row| row.equivalent.is_none() && killed(row.fates.get(rule)));
                format!("{} / {possible}", killed.count())
            })
            .collect();
        let _ = writeln!(text, "| {} | {} |", category.replace('_', " "), counts.join(" | "));
    }
    text.push('\n');
}

fn matrix(text: &mut String, rows: &[Row], rules: &[Rule]) {
    let others: Vec<Rule> = rules.iter().copied().filter(|rule| *rule != Rule::Ours).collect();
    let names: String = others.iter().map(|rule| format!(" {} |", rule.name())).collect();
    let _ = writeln!(
        text,
        "## Every mutant\n\nFor our rule: the first case, dtype and field that kill the mutant. For the other rules: whether any
case kills it, and after the comma whether the mock inputs alone do.\n"
    );
    let _ = writeln!(text, "| mutant | stands for | ours, by |{names}\n|---|---|---|{}", "---|".repeat(others.len()));
    for row in rows {
        let ours = row.fates.get(&Rule::Ours).map_or_else(String::new, cell);
        let words = |rule: &Rule| match (row.fates.get(rule), row.on_mock_inputs.get(rule)) {
            (Some(fate), Some(mock)) => format!(" {}, {} |", fate.word(), mock.word()),
            (Some(fate), None) => format!(" {} |", fate.word()),
            _ => " |".to_owned(),
        };
        let others: String = others.iter().map(words).collect();
        let _ = writeln!(text, "| {} | {} | {ours} |{others}", row.name.replace('_', " "), row.why.replace('|', "\\|"));
    }
    text.push('\n');
}

fn cell(fate: &Fate) -> String {
    match fate.kill() {
        Some(kill) => {
            let field = kill.field.map_or_else(|| kill.detail.clone(), |field| field.to_string());
            format!("{} {}, {field}", kill.entry, kill.dtype)
        }
        None => fate.word().to_owned(),
    }
}

fn arguments(text: &mut String, rows: &[Row]) {
    let claimed: Vec<&Row> = rows.iter().filter(|row| row.equivalent.is_some()).collect();
    if claimed.is_empty() {
        return;
    }
    text.push_str(
        "## Equivalent\n\nNo case can kill these mutants, because they compute the same as the original.\n\n",
    );
    for row in claimed {
        let _ =
            writeln!(text, "- **{}**: {}", row.name.replace('_', " "), row.equivalent.as_deref().unwrap_or_default());
    }
}
