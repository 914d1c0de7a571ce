//! Documents of parts of the same work merge into what one run over all of it would have written, in any order.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use nsa_corpus::{Dtype, Entry, entries};
use nsa_harness::campaign::failures::Failures;
use nsa_harness::campaign::fuzz::fuzz;
use nsa_harness::campaign::plan::Plan;
use nsa_harness::campaign::run::run_jobs;
use nsa_harness::document::{Fuzz, Merge, Run, Unmergeable};
use nsa_harness::registry::by_name;
use nsa_harness::tally::Fields;
use quickcheck::QuickCheck;
use serde::Serialize;
use serde_json::Value;

/// A passing candidate, and one with a mutant.
const CANDIDATES: [&str; 2] = ["tiled", "rowwise+diagonal_own_key_missing"];

/// A document of these entries, without what is said of several wrong answers together.
fn run(candidate: &str, jobs: &[(&Entry, Dtype)]) -> Run {
    let made = by_name(candidate).unwrap();
    let mut ran = run_jobs(jobs, made.as_ref(), 0, || false, &|| {}).unwrap();
    ran.reports.iter_mut().for_each(|report| report.localization = None);
    Run::new(candidate, Fields::of(made.as_ref()), ran.left_out, ran.reports)
}

fn jobs() -> Vec<(&'static Entry, Dtype)> {
    let small = entries().iter().filter(|entry| entry.name.starts_with("edges/") || entry.name == "upstream/small");
    small.take(6).flat_map(|entry| [Dtype::Bf16, Dtype::F32].map(|dtype| (entry, dtype))).collect()
}

/// A campaign over these numbers of a seed's cases.
fn campaign(candidate: &str, bugs: &Path, cases: std::ops::Range<usize>) -> Fuzz {
    let made = by_name(candidate).unwrap();
    let plan = Plan {
        seed: 5,
        cases,
        time: None,
        size: 5,
        dtypes: vec![Dtype::F32, Dtype::F16],
        bugs: bugs.to_owned(),
        effort: Duration::from_secs(60),
        failures: 2,
        stop: || false,
    };
    let known = Failures::load(&plan, made.as_ref()).unwrap();
    let done = fuzz(&plan, made.as_ref(), known, &|_| {}).unwrap();
    Fuzz::new(candidate, Fields::of(made.as_ref()), &plan, &done)
}

/// What a document says, without the times.
fn said(document: &impl Serialize) -> Value {
    fn timeless(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("seconds");
                map.values_mut().for_each(timeless);
            }
            Value::Array(list) => list.iter_mut().for_each(timeless),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(document).unwrap();
    timeless(&mut value);
    value
}

/// All of `parts` as one, in the order and the grouping that `choices` make of them; written and read again on the way.
fn merged<D: Merge + Clone + Serialize + serde::de::DeserializeOwned>(parts: &[D], choices: &[u8]) -> D {
    let (mut parts, mut choices) = (parts.to_vec(), choices.iter().copied().map(usize::from).chain(0..));
    while parts.len() > 1 {
        let mut take = |parts: &mut Vec<D>| parts.remove(choices.next().unwrap() % parts.len());
        let (one, other) = (take(&mut parts), take(&mut parts));
        let both = serde_json::to_string(&one.merge(other).unwrap()).unwrap();
        parts.push(serde_json::from_str(&both).unwrap());
    }
    parts.remove(0)
}

#[test]
fn parts_of_a_run_are_the_whole_in_any_order() {
    let jobs = jobs();
    for candidate in CANDIDATES {
        let whole = said(&run(candidate, &jobs));
        let parts: Vec<Run> = jobs.chunks(4).map(|jobs| run(candidate, jobs)).collect();
        assert!(parts.len() > 2);
        for choices in [[0, 0, 0, 0], [1, 0, 1, 0], [2, 1, 0, 0], [0, 1, 1, 0]] {
            assert_eq!(said(&merged(&parts, &choices)), whole, "{candidate}: {choices:?}");
        }
    }
}

#[test]
fn parts_of_a_campaign_are_the_whole_in_any_order() {
    static PARTS: LazyLock<(Value, Vec<Fuzz>)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let part = |cases| campaign("tiled", folder.path(), cases);
        (said(&part(3..43)), [3..5, 5..6, 6..20, 20..31, 31..43].map(part).to_vec())
    });
    fn holds(choices: Vec<u8>) -> bool {
        said(&merged(&PARTS.1, &choices)) == PARTS.0
    }
    QuickCheck::new().tests(60).quickcheck(holds as fn(Vec<u8>) -> bool);
}

#[test]
fn a_failure_that_a_later_part_knows_stays_one_with_all_of_its_cases() {
    let folder = tempfile::tempdir().unwrap();
    let parts = [0..16, 16..24, 24..32].map(|cases| campaign(CANDIDATES[1], folder.path(), cases));
    assert!(!parts[0].failures.is_empty() && !parts[1].known.is_empty(), "the first finds what the second knows");
    let whole = merged(&parts, &[0, 0, 0, 0]);
    for choices in [[1, 0, 1, 0], [2, 1, 0, 0], [0, 1, 1, 0], [2, 0, 0, 0]] {
        assert_eq!(said(&merged(&parts, &choices)), said(&whole), "{choices:?}");
    }
    assert!(whole.known.is_empty(), "nothing was stored before all of it");
    let explained: usize = whole.failures.iter().map(|failure| failure.cases).sum();
    assert_eq!(explained + whole.left.len(), whole.verdicts["fail"], "every failing case has its reason");
}

#[test]
fn what_does_not_belong_together_is_refused_with_both_values() {
    let jobs = jobs();
    let one = || run("tiled", &jobs[..2]);
    let refused = |other: Run| one().merge(other).unwrap_err().to_string();
    let told = refused(run("regular_attend", &jobs[2..3]));
    assert!(told.contains("tiled") && told.contains("regular_attend"), "{told}");
    let (entry, dtype) = jobs[1];
    assert_eq!(refused(run("tiled", &jobs[1..3])), format!("{} in {dtype} is in both documents", entry.name));
    let folder = tempfile::tempdir().unwrap();
    let part = |cases| campaign("tiled", folder.path(), cases);
    let twice = part(0..3).merge(part(2..4)).unwrap_err();
    assert_eq!(twice, Unmergeable::Twice("case 2 of seed 5".to_owned()));
}
