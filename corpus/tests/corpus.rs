//! The embedded corpus: everything in it can be read, and says why it is there.

use nsa_corpus::{Element, entries, golden};

#[test]
fn every_entry_materialises_in_every_format_it_names() {
    for entry in entries() {
        for &element in &entry.elements {
            entry.case.materialize(element).unwrap_or_else(|error| panic!("{}: {error}", entry.name));
        }
    }
}

#[test]
fn every_golden_file_is_read() {
    assert_eq!(golden::embedded().len(), 30);
    assert!(golden::embedded().iter().any(|case| case.inputs.element() == Element::F32));
}
