//! What `show` says of an entry, as text.

use nsa_corpus::{Field, foreign};
use nsa_harness::campaign::confirm::StoredElement;
use nsa_harness::document::{Described, Stored};

/// Failing elements of a field that are shown.
const ELEMENTS_SHOWN: usize = 16;

/// On one line.
pub(crate) fn brief(entry: &Described) -> String {
    format!("{}: {}\n", entry.name, foreign::line(&entry.why))
}

/// Whole.
pub(crate) fn text(entry: &Described) -> String {
    let mut text = format!("{}\n  why: {}\n", entry.name, foreign::line(&entry.why));
    if let Some(source) = &entry.source {
        text.push_str(&format!("  source: {}\n", foreign::line(source)));
    }
    for (name, note) in &entry.flags {
        text.push_str(&format!("  flag {name}: {}\n", foreign::line(note)));
    }
    text.push_str(&format!("  features: {}\n  case {}:\n", entry.features.join(", "), entry.id));
    entry.case.lines().for_each(|line| text.push_str(&format!("    {line}\n")));
    for (dtype, digest) in &entry.inputs {
        text.push_str(&format!("  inputs {dtype}: sha256 {digest}\n"));
    }
    text.push('\n');
    text + &entry.failure.as_ref().map(failing).unwrap_or_default()
}

/// What a stored failure says of itself, and its failing elements with what they could have been.
fn failing(stored: &Stored) -> String {
    let mut text = String::new();
    for (name, note) in &stored.notes {
        text.push_str(&format!("  {}: {}\n", foreign::line(name), foreign::line(note)));
    }
    if let Some(waiver) = &stored.waiver {
        text.push_str("  a waiver of it says:\n");
        waiver.lines().for_each(|line| text.push_str(&format!("    {line}\n")));
    }
    for field in Field::ALL {
        let outside: Vec<&StoredElement> = stored.outside.iter().filter(|element| element.field == field).collect();
        for StoredElement { index, lowest, highest, found, .. } in outside.iter().take(ELEMENTS_SHOWN) {
            text.push_str(&format!("  {field} {index:?}: expected {lowest:e} to {highest:e}, found {found:e}\n"));
        }
        if outside.len() > ELEMENTS_SHOWN {
            text.push_str(&format!("  {field}: and more\n"));
        }
    }
    text
}
