//! What the corpus is and what the oracle answers, as digests that a change of either must show: reviewed with
//! `cargo insta review`. One snapshot for each group of entries.
//!
//! A line holds the case's id, the digest of its f32 inputs, the digests of the oracle's fields in that order, and for the
//! tiled candidate the largest error / budget rounded up to a power of two (its exponent).

use std::collections::BTreeMap;

use nsa_corpus::{Dtype, Entry, digest, entries};
use nsa_harness::registry::by_name;
use nsa_harness::run::run_entry;
use nsa_reference::oracle;
use rayon::prelude::*;

/// The large cases are left to the other tests: their inputs alone are megabytes.
const ROWS_MAX: usize = 700;

fn line(entry: &Entry) -> String {
    let inputs = entry.case.materialize(Dtype::F32).unwrap();
    let short = |text: String| text[..8].to_owned();
    let fields: Vec<String> = oracle::attend(&inputs).iter().map(|(_, tensor)| short(digest::tensor(tensor))).collect();
    let report = run_entry(entry, Dtype::F32, by_name("tiled").unwrap().as_ref()).unwrap();
    let ratio = report.worst_ratio();
    let bucket = if ratio == 0.0 { "exact".to_owned() } else { format!("2^{}", ratio.log2().ceil() as i32) };
    let name = entry.name.split('/').next_back().unwrap_or_default();
    format!("{name}: {} {} {} {bucket}", entry.case.id(), short(digest::inputs(&inputs)), fields.join(" "))
}

fn groups() -> BTreeMap<&'static str, Vec<&'static Entry>> {
    let mut groups: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries() {
        let group = entry.name.split('/').next().unwrap_or_default();
        if entry.case.sizes.batch * entry.case.sizes.seq_len <= ROWS_MAX {
            groups.entry(group).or_default().push(entry);
        }
    }
    groups
}

#[test]
fn the_corpus_and_the_oracles_bits_are_what_was_reviewed() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../corpus/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| {
        for (group, entries) in groups() {
            let lines: Vec<String> = entries.par_iter().map(|entry| line(entry)).collect();
            insta::assert_snapshot!(group, lines.join("\n"));
        }
    });
}

#[test]
fn no_snapshot_is_left_without_its_group() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/snapshots");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let expected: Vec<String> = groups().keys().map(|group| format!("{group}.snap")).collect();
    assert_eq!(found, expected);
}
