//! The document of `fuzz`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use nsa_corpus::{Dtype, foreign};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, Merge, Seconds, Unmergeable, add_counts};
use crate::campaign::failures::{Failures, Found, Left};
use crate::campaign::fuzz::Fuzzed;
use crate::campaign::known::KnownFailure;
use crate::campaign::minimize::Signature;
use crate::campaign::plan::Plan;
use crate::campaign::waiver::Waiver;
use crate::explain::Localization;
use crate::report::Report;
use crate::summary::Summary;
use crate::tally::Fields;

/// Generated cases on one candidate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Fuzz {
    /// The candidate.
    pub candidate: String,
    /// Which fields of its answers are judged.
    pub fields: Fields,
    /// Which cases were drawn.
    pub drawn: Vec<Drawn>,
    /// Cases run: fewer than were drawn where the campaign ended early.
    pub cases: usize,
    /// Time that it took; of merged documents, the sum.
    pub seconds: Seconds,
    /// Elements compared.
    pub elements: usize,
    /// How many cases came to each verdict.
    pub verdicts: BTreeMap<String, usize>,
    /// How many cases had each feature, of those that were not skipped.
    pub features: BTreeMap<String, usize>,
    /// How many cases were skipped for each reason.
    pub skips: BTreeMap<String, usize>,
    /// The failures found.
    pub failures: Vec<NewFailure>,
    /// The failures that were stored before.
    pub known: Vec<Known>,
    /// Stored failures that pass now.
    pub passing: Vec<Passing>,
    /// Waived failures that fail otherwise now than their waivers say.
    pub otherwise: BTreeSet<String>,
    /// Failing cases that there was no time to minimise.
    pub left: Vec<Left>,
    /// Elements held to a finite budget, by format of the inputs.
    pub judged: BTreeMap<Dtype, u64>,
    /// How much of the budgets the errors take, by field and format.
    pub budget_use: Summary,
}

/// Generated cases: those of a seed, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Drawn {
    /// The seed.
    pub seed: u64,
    /// Largest size that cases reach.
    pub size: u16,
    /// The formats, which cases take in turn.
    pub dtypes: Vec<Dtype>,
    /// The first number.
    pub first: usize,
    /// The number after the last.
    pub end: usize,
}

/// A failure that this campaign found.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NewFailure {
    /// The number of the case that failed first.
    pub case: usize,
    /// The format of the inputs.
    pub dtype: Dtype,
    /// The file that holds it; empty where it could not be stored.
    pub file: String,
    /// Cases run to minimise it.
    pub calls: usize,
    /// Whether the budget for minimising ran out.
    pub unfinished: bool,
    /// What makes another failure the same.
    pub signature: Signature,
    /// What every case that fails with it has.
    pub required_features: BTreeSet<String>,
    /// Cases that it explains.
    pub cases: usize,
    /// Where the minimal case's answer is wrong and which known mistakes that looks like.
    pub localization: Option<Localization>,
    /// The minimal case's report.
    pub report: Report,
}

/// A failure that was stored before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Known {
    /// Its file.
    pub file: String,
    /// The format of the inputs.
    pub dtype: Dtype,
    /// What makes another failure the same.
    pub signature: Signature,
    /// What every case that fails with it has.
    pub required_features: BTreeSet<String>,
    /// The known mistake that its answer looks like.
    pub mutant: Option<String>,
    /// The reason that waives it.
    pub waiver: Option<String>,
    /// Cases that it explains.
    pub cases: usize,
}

/// A stored failure that passes now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Passing {
    /// Its file.
    pub file: String,
    /// The reason that waives it: it is stale.
    pub waiver: Option<String>,
}

impl Document for Fuzz {
    const KIND: &'static str = "fuzz";
}

impl Fuzz {
    /// What the campaign `plan` on `candidate` came to.
    pub fn new(candidate: &str, fields: Fields, plan: &Plan, done: &Fuzzed) -> Self {
        let failures = &done.failures;
        let counts = done.tally.verdicts.iter();
        let drawn = Drawn {
            seed: plan.seed,
            size: plan.size,
            dtypes: plan.dtypes.clone(),
            first: plan.cases.start,
            end: done.end,
        };
        let mut fuzz = Fuzz {
            candidate: candidate.to_owned(),
            fields,
            drawn: vec![drawn],
            cases: done.cases,
            seconds: done.time.into(),
            elements: done.elements,
            verdicts: counts.map(|(kind, count)| (kind.to_string(), *count)).collect(),
            features: done.features.clone(),
            skips: done.tally.skips.clone(),
            failures: failures.found().map(|(found, known)| NewFailure::new(found, known)).collect(),
            known: failures.known().iter().map(Known::new).collect(),
            passing: passing(failures),
            otherwise: failures.otherwise.iter().cloned().collect(),
            left: failures.left.clone(),
            judged: done.budget_use.judged(),
            budget_use: done.budget_use.clone(),
        };
        fuzz.sort();
        fuzz
    }

    /// Every list in an order of its own, whatever was merged first.
    fn sort(&mut self) {
        self.failures.sort_by_key(NewFailure::order);
        self.known.sort_by(|one, other| one.file.cmp(&other.file));
        self.passing.sort();
        self.passing.dedup();
        self.left.sort();
    }
}

/// The stored failures that pass now.
pub fn passing(failures: &Failures) -> Vec<Passing> {
    let one = |(file, waiver): &(PathBuf, Option<Waiver>)| Passing {
        file: foreign::path(file),
        waiver: waiver.as_ref().map(|waiver| waiver.reason.clone()),
    };
    failures.passing.iter().map(one).collect()
}

fn words(features: &BTreeSet<&'static str>) -> BTreeSet<String> {
    features.iter().map(|feature| (*feature).to_owned()).collect()
}

impl NewFailure {
    /// A failure found, and what is known of it by now.
    pub fn new(found: &Found, known: &KnownFailure) -> Self {
        NewFailure {
            case: found.case,
            dtype: known.dtype,
            file: foreign::path(&known.file),
            calls: found.minimal.calls,
            unfinished: found.minimal.unfinished,
            signature: known.signature.clone(),
            required_features: words(&known.required_features),
            cases: known.cases,
            localization: found.localization.clone(),
            report: found.minimal.report.clone(),
        }
    }

    /// Of two documents' tellings of one failure, the lesser is kept.
    fn order(&self) -> (usize, String, Dtype, String, usize) {
        (self.case, self.file.clone(), self.dtype, self.report.id.clone(), self.calls)
    }

    fn is(&self, other: &NewFailure) -> bool {
        (&self.file, self.dtype, &self.signature, &self.report.id)
            == (&other.file, other.dtype, &other.signature, &other.report.id)
    }
}

impl Known {
    /// What is known of a stored failure by now.
    pub fn new(known: &KnownFailure) -> Self {
        Known {
            file: foreign::path(&known.file),
            dtype: known.dtype,
            signature: known.signature.clone(),
            required_features: words(&known.required_features),
            mutant: known.mutant.clone(),
            waiver: known.waiver.as_ref().map(|waiver| waiver.reason.clone()),
            cases: known.cases,
        }
    }
}

impl Merge for Fuzz {
    fn merge(mut self, other: Self) -> Result<Self, Unmergeable> {
        Unmergeable::unless_same("candidate", &self.candidate, &other.candidate)?;
        Unmergeable::unless_same("which fields are judged", &self.fields, &other.fields)?;
        self.drawn = joined(self.drawn, other.drawn)?;
        self.cases += other.cases;
        self.seconds += other.seconds;
        self.elements += other.elements;
        add_counts(&mut self.verdicts, other.verdicts);
        add_counts(&mut self.features, other.features);
        add_counts(&mut self.skips, other.skips);
        other.failures.into_iter().for_each(|failure| add_failure(&mut self.failures, failure));
        other.known.into_iter().try_for_each(|known| add_known(&mut self.known, known))?;
        fold(&mut self.failures, &mut self.known);
        self.passing.extend(other.passing);
        self.otherwise.extend(other.otherwise);
        self.left.extend(other.left);
        self.budget_use.merge(&other.budget_use);
        self.judged = self.budget_use.judged();
        self.sort();
        Ok(self)
    }
}

/// The cases of both, ranges that touch as one.
fn joined(mut drawn: Vec<Drawn>, other: Vec<Drawn>) -> Result<Vec<Drawn>, Unmergeable> {
    drawn.extend(other);
    drawn.retain(|drawn| drawn.first < drawn.end);
    drawn.sort();
    let mut joined: Vec<Drawn> = Vec::new();
    for next in drawn {
        let same = |last: &&mut Drawn| (last.seed, last.size, &last.dtypes) == (next.seed, next.size, &next.dtypes);
        match joined.last_mut().filter(same) {
            Some(last) if next.first < last.end => {
                return Err(Unmergeable::twice(format!("case {} of seed {}", next.first, next.seed)));
            }
            Some(last) if next.first == last.end => last.end = next.end,
            _ => joined.push(next),
        }
    }
    Ok(joined)
}

fn add_failure(failures: &mut Vec<NewFailure>, failure: NewFailure) {
    let Some(own) = failures.iter_mut().find(|own| own.is(&failure)) else { return failures.push(failure) };
    let cases = own.cases + failure.cases;
    let required_features = &own.required_features & &failure.required_features;
    if failure.order() < own.order() {
        *own = failure;
    }
    (own.cases, own.required_features) = (cases, required_features);
}

fn add_known(all: &mut Vec<Known>, known: Known) -> Result<(), Unmergeable> {
    let Some(own) = all.iter_mut().find(|own| own.file == known.file) else {
        all.push(known);
        return Ok(());
    };
    let reason = |known: &Known| known.waiver.clone().unwrap_or_else(|| "none".to_owned());
    Unmergeable::unless_same("the waiver of a known failure", &reason(own), &reason(&known))?;
    own.cases += known.cases;
    own.required_features = &own.required_features & &known.required_features;
    Ok(())
}

/// What one part found is known to a later one: it stays a failure found.
fn fold(failures: &mut [NewFailure], known: &mut Vec<Known>) {
    known.retain(|known| {
        let found = failures.iter_mut().find(|found| !known.file.is_empty() && found.file == known.file);
        let Some(found) = found else { return true };
        found.cases += known.cases;
        found.required_features = &found.required_features & &known.required_features;
        false
    });
}
