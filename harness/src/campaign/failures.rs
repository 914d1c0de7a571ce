//! The failures of a campaign: known ones are counted, new ones minimised, told apart and stored once each.

use std::collections::BTreeSet;
use std::path::PathBuf;

use nsa_corpus::{Case, Dtype, Error, foreign};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::known::{KnownFailure, StoredFailure, note_required_features, required_features, stored};
use super::minimize::{Effort, Minimized, Signature, minimize_to};
use super::plan::Plan;
use super::store::store;
use super::waiver::{Extent, Waiver};
use crate::candidate::Candidate;
use crate::explain::{Localization, localize_alone};
use crate::judge::verdict::Verdict;
use crate::report::Report;
use crate::run::run_case;

/// What a campaign tells whoever looks on.
pub enum Event<'a> {
    /// Cases that have been run so far.
    Cases(usize),
    /// So many failures are being minimised; 0: none any more.
    Minimising(usize),
    /// A new failure, and what is known of it.
    Found(&'a Found, &'a KnownFailure),
}

/// A generated case that failed.
pub(crate) struct Failing {
    index: usize,
    case: Case,
    report: Report,
    signature: Signature,
    required_features: BTreeSet<&'static str>,
}

impl Failing {
    /// `None` where it did not fail.
    pub(crate) fn new(index: usize, case: &Case, report: Report) -> Option<Self> {
        let signature = Signature::of(report.verdict.failure()?);
        let required_features = required_features(case, report.dtype);
        Some(Failing { index, case: case.clone(), report, signature, required_features })
    }

    fn dtype(&self) -> Dtype {
        self.report.dtype
    }
}

/// A failure of this campaign, as it was minimised.
#[derive(Clone, Debug)]
pub struct Found {
    /// The number of the case that failed first.
    pub case: usize,
    /// Its minimal case.
    pub minimal: Minimized,
    /// Where its answer is wrong and what that looks like.
    pub localization: Option<Localization>,
}

/// A failing case that there was no time to minimise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Left {
    /// The case's number.
    pub case: usize,
    /// The format of the inputs.
    pub dtype: Dtype,
    /// Its verdict, in words.
    pub verdict: String,
}

impl Left {
    fn of(failing: &Failing) -> Self {
        Left { case: failing.index, dtype: failing.dtype(), verdict: failing.report.verdict.to_string() }
    }
}

/// The failures of a campaign.
#[derive(Default)]
pub struct Failures {
    known: Vec<KnownFailure>,
    /// Of `known`, those that the folder held before.
    before: usize,
    found: Vec<Found>,
    /// Stored failures that do not fail now, with what waives them where something does.
    pub passing: Vec<(PathBuf, Option<Waiver>)>,
    /// Waived failures that fail otherwise now than their waivers say, in words.
    pub otherwise: Vec<String>,
    /// Failing cases that there was no time to minimise.
    pub left: Vec<Left>,
    /// Why a failure could not be stored.
    pub unstored: Option<Error>,
}

impl Failures {
    /// Reads the stored failures of the candidate, and runs each again: one that passes now explains nothing.
    ///
    /// # Errors
    /// The folder of stored failures cannot be read; a case itself is broken.
    pub fn load(plan: &Plan, candidate: &dyn Candidate) -> Result<Self, Error> {
        let mut failures = Failures::default();
        for stored in stored(&plan.bugs, candidate.name())? {
            if !(plan.stop)() && plan.dtypes.contains(&stored.bundle.dtype) {
                let report = run_case(&stored.bundle.entry.case, stored.bundle.dtype, candidate)?;
                failures.know(stored, &report, candidate);
            }
        }
        failures.before = failures.known.len();
        Ok(failures)
    }

    /// Takes in a stored failure, whose case gives `report` now.
    fn know(&mut self, stored: StoredFailure, report: &Report, candidate: &dyn Candidate) {
        let otherwise = stored.waived_no_more(report, candidate);
        let required_features = stored.required_features();
        let signature = match &report.verdict {
            Verdict::Fail(failure) => Some(Signature::of(failure)),
            Verdict::Pass | Verdict::Suspect(_) => None,
            Verdict::Skip(_) | Verdict::Inconclusive(_) => stored.signature,
        };
        let Some(signature) = signature else {
            self.passing.push((stored.file, stored.waiver));
            return;
        };
        let known = KnownFailure::new(stored.file, stored.bundle.dtype, signature, &stored.bundle.entry.case);
        let cases = usize::from(otherwise.is_some());
        let waiver = stored.waiver.filter(|_| otherwise.is_none());
        self.otherwise.extend(otherwise.map(|why| format!("{}: {why}", foreign::path(&known.file))));
        self.known.push(KnownFailure { required_features, waiver, cases, ..known });
    }

    /// The failures that were stored before.
    pub fn known(&self) -> &[KnownFailure] {
        &self.known[..self.before]
    }

    /// The failures of this campaign, each with what is known of it by now.
    pub fn found(&self) -> impl Iterator<Item = (&Found, &KnownFailure)> {
        self.found.iter().zip(&self.known[self.before..])
    }

    /// How many failures this campaign found.
    pub fn new_ones(&self) -> usize {
        self.found.len()
    }

    /// Whether anything failed that is not waived, or a waived failure passes.
    pub fn any(&self) -> bool {
        self.known.iter().any(|known| known.cases > 0 && known.waiver.is_none())
            || !self.left.is_empty()
            || self.passing.iter().any(|(_, waiver)| waiver.is_some())
    }

    /// Counts those that are known and minimises the first of each new kind, again until every one is explained or there
    /// is no time.
    pub(crate) fn take(
        &mut self,
        mut failing: Vec<Failing>,
        plan: &Plan,
        candidate: &dyn Candidate,
        in_time: &dyn Fn() -> bool,
        tell: &dyn Fn(Event<'_>),
    ) {
        loop {
            failing.retain(|failing| !self.explained(failing, candidate));
            if failing.is_empty() {
                return;
            }
            if (plan.stop)() || !in_time() || self.new_ones() >= plan.failures {
                self.left.extend(failing.iter().map(Left::of));
                return;
            }
            let (first, rest) = firsts(failing, plan.failures - self.new_ones());
            failing = rest;
            tell(Event::Minimising(first.len()));
            let minimal = self.minimal(&first, plan, candidate);
            tell(Event::Minimising(0));
            first.iter().zip(minimal).for_each(|(failing, minimal)| self.keep(failing, minimal, plan, candidate, tell));
        }
    }

    fn minimal(&self, failing: &[Failing], plan: &Plan, candidate: &dyn Candidate) -> Vec<Minimized> {
        let effort = Effort { time: plan.effort, stop: plan.stop, ..Effort::default() };
        // What is waived may be simpler, and is another failure.
        let wanted =
            |case: &Case, report: &Report| !self.known.iter().any(|known| known.excuses(case, report, candidate));
        let one = |one: &Failing| minimize_to(&one.case, one.report.clone(), one.dtype(), candidate, effort, &wanted);
        failing.par_iter().map(one).collect()
    }

    fn explained(&mut self, failing: &Failing, candidate: &dyn Candidate) -> bool {
        let Failing { case, report, signature, required_features, .. } = failing;
        let excuses = |known: &KnownFailure| known.excuses(case, report, candidate);
        let explains =
            |known: &KnownFailure| known.waiver.is_none() && known.explains(report.dtype, signature, required_features);
        let known = self.known.iter().position(excuses).or_else(|| self.known.iter().position(explains));
        known.map(|known| self.known[known].cases += 1).is_some()
    }

    /// Stores a minimal case, unless it is one that is known already.
    fn keep(
        &mut self,
        failing: &Failing,
        minimal: Minimized,
        plan: &Plan,
        candidate: &dyn Candidate,
        tell: &dyn Fn(Event<'_>),
    ) {
        let localization = localized(&minimal, candidate);
        let mut known = KnownFailure::new(PathBuf::new(), failing.dtype(), failing.signature.clone(), &minimal.case);
        known.mutant = localization.as_ref().and_then(|position| Some(position.slug()?.to_owned()));
        known.cases = 1;
        let same = self.known.iter().position(|other| other.waiver.is_none() && other.is(&known));
        if let Some(at) = same {
            return self.learn(at, failing, &known);
        }
        known.learn(&failing.required_features);
        match write(failing, &minimal, &known, plan, candidate) {
            Ok(file) => known.file = file,
            // The failure is told of all the same, and the campaign ends with this error.
            Err(error) => self.unstored = self.unstored.take().or(Some(error)),
        }
        let found = Found { case: failing.index, minimal, localization };
        tell(Event::Found(&found, &known));
        self.found.push(found);
        self.known.push(known);
    }

    /// Another minimal case of the failure at `at`: what it lacks was not needed.
    fn learn(&mut self, at: usize, failing: &Failing, minimal: &KnownFailure) {
        let known = &mut self.known[at];
        known.cases += 1;
        let learned = known.learn(&minimal.required_features) | known.learn(&failing.required_features);
        // Files of earlier runs are left as they are.
        if learned && at >= self.before && !known.file.as_os_str().is_empty() {
            let noted = note_required_features(&known.file, &known.required_features);
            self.unstored = self.unstored.take().or(noted.err());
        }
    }
}

fn localized(minimal: &Minimized, candidate: &dyn Candidate) -> Option<Localization> {
    let outputs = minimal.report.outputs.as_ref()?;
    let inputs = minimal.case.materialize(minimal.report.dtype).ok()?;
    localize_alone(&inputs, &candidate.declaration(&inputs), outputs)
}

fn write(
    failing: &Failing,
    minimal: &Minimized,
    known: &KnownFailure,
    plan: &Plan,
    candidate: &dyn Candidate,
) -> Result<PathBuf, Error> {
    let words: String = candidate.name().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let name = format!("{words}-{}-{}-{}", failing.dtype(), failing.signature.slug(), minimal.case.id());
    let (seed, index, calls) = (plan.seed, failing.index, minimal.calls);
    let why = format!("found by fuzz --seed {seed} as case {index}, minimised in {calls} runs");
    let extent = |case, report| Extent::of_report(case, report, candidate);
    let seen = extent(&failing.case, &failing.report)?.with(&extent(&minimal.case, &minimal.report)?);
    let file = store(&plan.bugs, &name, &why, &minimal.case, &minimal.report, &seen, candidate)?;
    note_required_features(&file, &known.required_features).map(|()| file)
}

/// The first failure of each format and signature, at most `limit`, and the others.
fn firsts(failing: Vec<Failing>, limit: usize) -> (Vec<Failing>, Vec<Failing>) {
    let mut seen = BTreeSet::new();
    failing.into_iter().partition(|each| {
        let key = (each.dtype(), each.signature.clone());
        seen.len() < limit && seen.insert(key)
    })
}
