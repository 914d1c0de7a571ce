//! Known mistakes are noticed, and docs/detection.md says so of this catalogue and this corpus.

use std::path::Path;

use nsa_corpus::Dtype;
use nsa_harness::candidate::CandidateName;
use nsa_harness::detect::{Fate, Job, Rejections, Rule, all_entries, baseline, digest, fates, jobs, plants};
use nsa_harness::mutants::{Expected, mutants};
use nsa_harness::registry::by_name;
use rayon::prelude::*;

/// The cases that cost least, three quarters of the corpus at a tenth of its cost, and the others.
fn cheap_and_dear() -> [Vec<Job>; 2] {
    let mut cheap = jobs(&all_entries(), &[]);
    let dear = cheap.split_off(cheap.len() * 3 / 4);
    [cheap, dear]
}

#[test]
fn every_mutant_is_killed_and_nothing_correct_is_rejected() {
    let inner = by_name("rowwise").unwrap();
    let [cheap, dear] = cheap_and_dear();
    cheap.par_iter().for_each(|job| {
        baseline(job, &[Rule::Ours], inner.as_ref()).unwrap_or_else(|error| panic!("{error}"));
    });
    let plants = plants(&CandidateName::Rowwise, inner.as_ref(), mutants());
    assert_eq!(plants.len(), mutants().len());
    let expected = plants.par_iter().zip(mutants()).filter(|(_, mutant)| mutant.expect == Expected::Killed);
    expected.for_each(|(plant, mutant)| {
        let killed = |jobs: &[Job]| {
            let row = fates(plant, jobs, &[Rule::Ours], &Rejections::default()).unwrap();
            matches!(row.fates[&Rule::Ours], Fate::Killed(_))
        };
        // What only a rerun shows is shown by a cheap case; what needs a large block or dim, by a dear one.
        assert!(killed(&cheap) || killed(&dear), "{} survives", mutant.name);
    });
}

#[test]
fn the_rule_of_upstream_misses_what_ours_sees() {
    let inner = by_name("rowwise").unwrap();
    let mutant = mutants().iter().find(|mutant| mutant.name == "exponential_off_by_1e_4").unwrap();
    let small: Vec<_> = all_entries().into_iter().filter(|entry| entry.name == "upstream/small").collect();
    // In bf16 that rule rejects the correct candidate too.
    let jobs = jobs(&small, &[Dtype::F32, Dtype::F16]);
    let plant = plants(&CandidateName::Rowwise, inner.as_ref(), std::slice::from_ref(mutant)).pop().unwrap();
    let row = fates(&plant, &jobs, &Rule::ALL, &Rejections::default()).unwrap();
    assert!(matches!(row.fates[&Rule::Ours], Fate::Killed(_)));
    assert_eq!(row.fates[&Rule::Upstream], Fate::Survived);
}

#[test]
fn the_page_is_of_this_catalogue_and_this_corpus() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/detection.md");
    let text = std::fs::read_to_string(page).unwrap();
    let command = "run: nsa-diff detect --rule all --explain --markdown docs/detection.md";
    assert!(text.contains(&digest()), "docs/detection.md is not of {}; {command}", digest());
    for mutant in mutants() {
        assert!(text.contains(&mutant.name.replace('_', " ")), "docs/detection.md lacks {}; {command}", mutant.name);
    }
    assert!(!text.contains("| survived |\n| "), "a mistake survives by our rule");
}
