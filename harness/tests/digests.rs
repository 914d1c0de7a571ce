//! What the corpus is and what the oracle answers, as digests in `corpus/digests.toml` that a change of either must show.
//!
//! For each entry: the case's id, the digest of its f32 inputs, one of each field of the oracle's answer, and for the tiled
//! candidate the largest error / budget rounded up to a power of two. Nobody can judge a digest by looking at it: a reviewer asks
//! which entries and which fields changed, and whether the commit says why (docs/review.md).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use nsa_corpus::{Dtype, Entry, digest, entries};
use nsa_harness::registry::by_name;
use nsa_harness::run::run_entry;
use nsa_reference::oracle;
use rayon::prelude::*;

/// The large cases are left to the other tests: their inputs alone are megabytes.
const ROWS_MAX: usize = 700;
/// Writes the file anew.
const COMMAND: &str = "cargo test -p nsa-harness --test digests -- --ignored";

/// Digests of one entry by what they are of, in the order in which they are written.
type Line = Vec<(&'static str, String)>;

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus/digests.toml")
}

fn line(entry: &Entry) -> Line {
    let inputs = entry.case.materialize(Dtype::F32).unwrap();
    let short = |text: String| text[..8].to_owned();
    let mut line = vec![("case", entry.case.id()), ("inputs", short(digest::inputs(&inputs)))];
    line.extend(oracle::attend(&inputs).iter().map(|(field, tensor)| (field.name(), short(digest::tensor(tensor)))));
    let ratio = run_entry(entry, Dtype::F32, by_name("tiled").unwrap().as_ref()).unwrap().worst_ratio();
    let bucket = if ratio == 0.0 { "exact".to_owned() } else { format!("2^{}", ratio.log2().ceil() as i32) };
    line.push(("budget_use", bucket));
    line
}

/// Of every entry that is not large, by group and name.
fn found() -> Vec<(&'static str, Line)> {
    let small = entries().par_iter().filter(|entry| entry.case.sizes.batch * entry.case.sizes.seq_len <= ROWS_MAX);
    small.map(|entry| (entry.name.as_str(), line(entry))).collect()
}

fn written(found: &[(&str, Line)]) -> String {
    let mut text = format!("# Digests of the corpus and of the oracle's answers. Written by `{COMMAND}`.\n");
    for (name, line) in found {
        let values: Vec<String> = line.iter().map(|(of, digest)| format!("{of} = \"{digest}\"")).collect();
        writeln!(text, "\"{name}\" = {{ {} }}", values.join(", ")).unwrap();
    }
    text
}

/// What differs between the file's text and what was found, a line for each digest.
fn differences(text: &str, found: &[(&str, Line)]) -> Vec<String> {
    let read = |text: &str| toml::from_str::<BTreeMap<String, BTreeMap<String, String>>>(text).unwrap();
    let [stored, found] = [text, &written(found)].map(|text| {
        let entries = read(text).into_iter();
        let flat = entries.flat_map(|(name, line)| line.into_iter().map(move |(of, is)| (format!("{name} {of}"), is)));
        flat.collect::<BTreeMap<_, _>>()
    });
    let none = "absent".to_owned();
    let mut keys: Vec<&String> = stored.keys().chain(found.keys()).collect();
    keys.sort();
    keys.dedup();
    let differs = |key: &String| {
        let [was, is] = [&stored, &found].map(|digests| digests.get(key).unwrap_or(&none));
        (was != is).then(|| format!("{key}: was {was}, is {is}"))
    };
    keys.into_iter().filter_map(differs).collect()
}

#[test]
fn the_corpus_and_the_oracles_bits_are_what_they_were() {
    let changed = differences(&std::fs::read_to_string(file()).unwrap(), &found());
    let count = changed.len();
    assert!(changed.is_empty(), "{count} digests changed; if they should: {COMMAND}\n{}", changed.join("\n"));
}

#[test]
#[ignore = "writes corpus/digests.toml"]
fn write() {
    std::fs::write(file(), written(&found())).unwrap();
}

#[test]
fn a_changed_a_lacking_and_a_superfluous_digest_are_named() {
    let of = |out: &str| vec![("case", "1".to_owned()), ("out", out.to_owned())];
    let text = written(&[("a/b", of("2")), ("a/c", of("3"))]);
    assert_eq!(differences(&text, &[("a/b", of("2")), ("a/c", of("3"))]), Vec::<String>::new());
    let expected = ["a/b out: was 2, is 4", "a/c case: was 1, is absent", "a/c out: was 3, is absent"];
    assert_eq!(differences(&text, &[("a/b", of("4"))]), expected);
    assert_eq!(differences("", &[("a/b", of("2"))])[0], "a/b case: was absent, is 1");
}
