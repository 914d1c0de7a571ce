//! The stored failures of released kernels: each is told of in docs/findings.md, fails again as it did when it was found,
//! and an implementation that the kernels owe nothing to passes on it: the transcription, wherever it is not too large for it.

use std::path::{Path, PathBuf};

use nsa_corpus::{Bundle, Case, Dtype};
use nsa_harness::campaign::minimize::Signature;
use nsa_harness::campaign::store::{judge_again, stored_report};
use nsa_harness::judge::verdict::{Class, Verdict};
use nsa_harness::registry::by_name;
use nsa_harness::run::run_case;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Those of guests, by name.
fn findings() -> Vec<(String, Bundle)> {
    let files = std::fs::read_dir(root().join("corpus/bugs")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<(String, Bundle)> = files
        .filter(|file| file.extension().is_some_and(|extension| extension == "safetensors"))
        .map(|file| (file.file_name().unwrap().to_str().unwrap().to_owned(), Bundle::read(&file).unwrap()))
        .filter(|(_, bundle)| bundle.notes["candidate"].starts_with("guest:"))
        .collect();
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    assert!(found.len() > 10, "{}", found.len());
    found
}

#[test]
fn every_finding_is_told_of() {
    let text = std::fs::read_to_string(root().join("docs/findings.md")).unwrap();
    for (name, _) in findings() {
        assert!(text.contains(&name), "docs/findings.md does not name {name}");
    }
    let named = text.split('`').filter(|part| part.ends_with(".safetensors"));
    for name in named {
        assert!(root().join("corpus/bugs").join(name).is_file(), "docs/findings.md names {name}, which is not there");
    }
}

#[test]
fn every_finding_fails_as_it_did_when_it_was_found() {
    for (name, bundle) in findings() {
        let stored = stored_report(&bundle).unwrap();
        let stored = stored.verdict.failure().unwrap();
        match judge_again(&bundle).unwrap() {
            Some(again) => {
                let again = again.verdict.failure().unwrap_or_else(|| panic!("{name}: {}", again.verdict));
                assert_eq!(Signature::of(again), Signature::of(stored), "{name}");
            }
            None => assert!(matches!(stored.class, Class::Compile | Class::Crash), "{name}: {}", stored.message),
        }
    }
}

/// The transcription gathers a copy of its blocks for every token: 16 heads with blocks of 256 are too many.
const TOO_LARGE_TO_GATHER: [&str; 1] = ["guest_triton_nsa-f16-block_256.safetensors"];

#[test]
fn an_independent_implementation_passes_on_every_finding() {
    let [transcription, tiled] = ["regular_attend", "tiled"].map(|name| by_name(name).unwrap());
    for (name, bundle) in findings() {
        let witness = if TOO_LARGE_TO_GATHER.contains(&name.as_str()) { &tiled } else { &transcription };
        let case = Case::from_inputs(&bundle.inputs);
        let verdict = run_case(&case, Dtype::F64, witness.as_ref()).unwrap().verdict;
        assert_eq!(verdict, Verdict::Pass, "{name}");
    }
}
