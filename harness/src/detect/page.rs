//! What docs/detection.md, the page of the kill matrix, depends on.

use nsa_corpus::entries;

use super::Rule;
use crate::mutants::mutants;

/// What the page depends on: every mutant, every case, and the formulas of the rules. A page whose digest differs is old.
pub fn digest() -> String {
    let mut text = String::new();
    for mutant in mutants() {
        text += &serde_json::to_string(mutant).expect("plain data serialises");
    }
    for entry in entries() {
        text += &entry.name;
        text += &entry.case.id();
    }
    Rule::ALL.iter().for_each(|rule| text += rule.formula());
    nsa_corpus::digest::bytes(text.as_bytes())[..32].to_owned()
}
