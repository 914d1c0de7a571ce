//! Reviewed text for every entry of the corpus: what its inputs are and what the oracle answers, as digests, and how close the
//! tiled candidate comes to its budget, in powers of two. A change of any of them has to be looked at.

use std::collections::BTreeMap;
use std::fmt::Write;

use nsa_corpus::{Element, Entry, digest, entries};
use nsa_harness::backend::by_name;
use nsa_harness::run::run_entry;
use nsa_reference::oracle;
use rayon::prelude::*;

/// The first digits tell two answers apart as well as all of them.
const DIGITS: usize = 16;

/// The next power of two, its exponent alone: enough to see a change of kind, too coarse for a change of compiler.
fn bucket(ratio: f64) -> String {
    if ratio == 0.0 { "exact".to_owned() } else { format!("2^{}", ratio.log2().ceil() as i64) }
}

fn describe(entry: &Entry) -> String {
    let tiled = by_name("tiled").unwrap();
    let mut text = format!("{} case {}\n", entry.name, entry.case.id());
    for element in entry.elements.iter().copied() {
        let inputs = entry.case.materialize(element).unwrap();
        let outputs = oracle::attend(&inputs);
        let report = run_entry(entry, element, tiled.as_ref()).unwrap();
        let (inputs, answers) = (digest::inputs(&inputs), digest::outputs(&outputs));
        let (word, elements, worst) = (report.verdict.word(), report.elements(), bucket(report.worst_ratio()));
        let (inputs, answers) = (&inputs[..DIGITS], &answers[..DIGITS]);
        writeln!(text, "  {element} inputs {inputs} oracle {answers} tiled {word} {elements} {worst}").unwrap();
    }
    text
}

#[test]
fn the_corpus_is_what_was_reviewed() {
    let described: Vec<String> = entries().par_iter().map(describe).collect();
    let mut groups: BTreeMap<&str, String> = BTreeMap::new();
    for (entry, text) in entries().iter().zip(described) {
        groups.entry(entry.name.split('/').next().unwrap()).or_default().push_str(&text);
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../corpus/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _bound = settings.bind_to_scope();
    groups.into_iter().for_each(|(group, text)| insta::assert_snapshot!(group, text));
}

#[test]
fn the_oracle_gives_the_same_bits_on_any_number_of_threads() {
    let chosen = || entries().iter().filter(|entry| !entry.name.starts_with("seed/")).step_by(5);
    let answers = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let inputs = chosen().map(|entry| entry.case.materialize(Element::F32).unwrap());
            inputs.map(|inputs| digest::outputs(&oracle::attend(&inputs))).collect::<Vec<_>>()
        })
    };
    let one = answers(1);
    assert!(one.len() > 20);
    assert_eq!(one, answers(2));
    assert_eq!(one, answers(7));
}
