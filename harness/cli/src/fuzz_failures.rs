//! What `fuzz` does with failures: known ones are counted, new ones minimised, told apart and stored once each.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::ProgressBar;
use nsa_corpus::{Case, Error, foreign};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Refusal;
use super::console::Output;
use super::fuzz::Args;
use super::output::interrupted;
use nsa_harness::campaign::known::{KnownFailure, note_required_features, required_features, stored};
use nsa_harness::campaign::minimize::{Effort, Minimized, Signature, minimize_to};
use nsa_harness::campaign::store::store;
use nsa_harness::campaign::waiver::{Extent, Waiver};
use nsa_harness::candidate::Candidate;
use nsa_harness::explain::{Localization, localize_alone};
use nsa_harness::judge::verdict::Verdict;
use nsa_harness::report::Report;
use nsa_harness::run::run_case;
use nsa_harness::tally::Fields;

/// A generated case that failed.
pub(super) struct Failing {
    index: usize,
    case: Case,
    report: Report,
    signature: Signature,
    required_features: BTreeSet<&'static str>,
}

impl Failing {
    /// `None` where it did not fail.
    pub(super) fn new(index: usize, case: &Case, report: Report) -> Option<Self> {
        let signature = Signature::of(report.verdict.failure()?);
        let required_features = required_features(case, report.dtype);
        Some(Failing { index, case: case.clone(), report, signature, required_features })
    }
}

/// The failures of a campaign.
pub(super) struct Failures<'a> {
    args: &'a Args,
    output: &'a Output<'a>,
    candidate: &'a dyn Candidate,
    known: Vec<KnownFailure>,
    /// Of `known`, those that the folder held before.
    before: usize,
    found: Vec<Value>,
    /// Stored failures that do not fail now, with the reason to waive them where they have one.
    passing: Vec<(PathBuf, Option<Waiver>)>,
    /// Waived failures that fail otherwise now than their waivers say, in words.
    otherwise: Vec<String>,
    /// Failing cases that there was no time to minimise, in words.
    left: Vec<String>,
    /// Why a failure could not be stored.
    unstored: Option<Error>,
}

impl<'a> Failures<'a> {
    /// Reads the stored failures of the candidate, and runs each again: one that passes now explains nothing.
    pub(super) fn load(args: &'a Args, output: &'a Output<'a>, candidate: &'a dyn Candidate) -> Result<Self, Refusal> {
        let mut failures = Failures {
            args,
            output,
            candidate,
            known: vec![],
            before: 0,
            found: vec![],
            passing: vec![],
            otherwise: vec![],
            left: vec![],
            unstored: None,
        };
        for stored in stored(&args.bugs, args.candidate.name())? {
            let dtype = stored.bundle.dtype;
            if interrupted() || !args.dtypes.or_usual().contains(&dtype) {
                continue;
            }
            let case = &stored.bundle.entry.case;
            let report = run_case(case, dtype, candidate)?;
            let (otherwise, required_features) =
                (stored.waived_no_more(&report, candidate), stored.required_features());
            let signature = match &report.verdict {
                Verdict::Fail(failure) => Some(Signature::of(failure)),
                Verdict::Pass | Verdict::Suspect(_) => None,
                Verdict::Skip(_) | Verdict::Inconclusive(_) => stored.signature,
            };
            match signature {
                Some(signature) => {
                    let known = KnownFailure::new(stored.file, dtype, signature, case);
                    let cases = usize::from(otherwise.is_some());
                    let waiver = stored.waiver.filter(|_| otherwise.is_none());
                    failures.otherwise.extend(otherwise.map(|why| format!("{}: {why}", foreign::path(&known.file))));
                    failures.known.push(KnownFailure { required_features, waiver, cases, ..known });
                }
                None => failures.passing.push((stored.file, stored.waiver)),
            }
        }
        failures.before = failures.known.len();
        failures.say_what_is_known();
        Ok(failures)
    }

    fn say_what_is_known(&self) {
        for known in &self.known {
            let waived = known
                .waiver
                .as_ref()
                .map(|waiver| format!(" (waived: {})", foreign::line(&waiver.reason)))
                .unwrap_or_default();
            self.output.text(&format!("known: {}{waived}\n", foreign::path(&known.file)));
        }
        for otherwise in &self.otherwise {
            self.output.text(&format!("fails otherwise than its waiver says: {otherwise}\n"));
        }
        for (file, waiver) in &self.passing {
            let stale = if waiver.is_some() { ": its waiver is stale" } else { "" };
            self.output.text(&format!("{} passes now{stale}\n", foreign::path(file)));
        }
    }

    /// Failures found in this run.
    pub(super) fn new_ones(&self) -> usize {
        self.known.len() - self.before
    }

    /// Which fields of the candidate are judged.
    pub(super) fn fields(&self) -> Fields {
        Fields::of(self.candidate)
    }

    /// # Errors
    /// A failure could not be stored.
    pub(super) fn stored(&mut self) -> Result<(), Refusal> {
        self.unstored.take().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Counts those that are known and minimises the first of each new kind, again until every one is explained or there
    /// is no time.
    pub(super) fn take(&mut self, mut failing: Vec<Failing>, bar: &ProgressBar, in_time: impl Fn() -> bool) {
        loop {
            failing.retain(|failing| !self.explained(failing));
            if failing.is_empty() {
                return;
            }
            if interrupted() || !in_time() || self.new_ones() >= self.args.failures {
                self.left.extend(failing.iter().map(|failing| {
                    format!("case {}, {}: {}", failing.index, failing.report.dtype, failing.report.verdict)
                }));
                return;
            }
            let (first, rest) = firsts(failing, self.args.failures - self.new_ones());
            failing = rest;
            bar.set_message(format!("minimising {}", first.len()));
            let effort = Effort { time: Duration::from_secs(self.args.effort), stop: interrupted, ..Effort::default() };
            let (known, candidate) = (&self.known, self.candidate);
            // What is waived may be simpler, and is another failure.
            let wanted =
                |case: &Case, report: &Report| !known.iter().any(|known| known.excuses(case, report, candidate));
            let minimal: Vec<Minimized> = first
                .par_iter()
                .map(|Failing { case, report, .. }| {
                    minimize_to(case, report.clone(), report.dtype, candidate, effort, &wanted)
                })
                .collect();
            bar.set_message("");
            first.iter().zip(minimal).for_each(|(failing, minimal)| self.keep(failing, &minimal));
        }
    }

    fn explained(&mut self, failing: &Failing) -> bool {
        let Failing { case, report, signature, required_features, .. } = failing;
        let excuses = |known: &KnownFailure| known.excuses(case, report, self.candidate);
        let explains =
            |known: &KnownFailure| known.waiver.is_none() && known.explains(report.dtype, signature, required_features);
        let known = self.known.iter().position(excuses).or_else(|| self.known.iter().position(explains));
        known.map(|known| self.known[known].cases += 1).is_some()
    }

    /// Stores a minimal case, unless it is one that is known already.
    fn keep(&mut self, failing: &Failing, minimal: &Minimized) {
        let dtype = failing.report.dtype;
        let position = minimal.report.outputs.as_ref().and_then(|outputs| {
            let inputs = minimal.case.materialize(dtype).ok()?;
            localize_alone(&inputs, &self.candidate.declaration(&inputs), outputs)
        });
        let mut found = KnownFailure::new(PathBuf::new(), dtype, failing.signature.clone(), &minimal.case);
        found.mutant = position.as_ref().and_then(|position| Some(position.slug()?.to_owned()));
        found.cases = 1;
        let same = self.known.iter().position(|known| known.waiver.is_none() && known.is(&found));
        if let Some(at) = same {
            let known = &mut self.known[at];
            known.cases += 1;
            let learned = known.learn(&found.required_features) | known.learn(&failing.required_features);
            // Files of earlier runs are left as they are.
            if learned && at >= self.before && !known.file.as_os_str().is_empty() {
                let noted = note_required_features(&known.file, &known.required_features);
                self.unstored = self.unstored.take().or(noted.err());
            }
            return;
        }
        found.learn(&failing.required_features);
        match self.write(failing, minimal, &found) {
            Ok(file) => found.file = file,
            // The failure is told of all the same, and the command ends with this error.
            Err(error) => self.unstored = self.unstored.take().or(Some(error)),
        }
        let lines = position.as_ref().map(Localization::lines).unwrap_or_default();
        self.say(&found, failing, minimal, &lines);
        self.found.push(json!({
            "case": failing.index,
            "dtype": dtype,
            "file": foreign::path(&found.file),
            "calls": minimal.calls,
            "unfinished": minimal.unfinished,
            "signature": failing.signature,
            "where": position,
            "report": minimal.report,
        }));
        self.known.push(found);
    }

    fn write(&self, failing: &Failing, minimal: &Minimized, found: &KnownFailure) -> Result<PathBuf, Error> {
        let candidate: String =
            self.args.candidate.name().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let (dtype, signature) = (failing.report.dtype, failing.signature.slug());
        let name = format!("{candidate}-{dtype}-{signature}-{}", minimal.case.id());
        let (seed, index, calls) = (self.args.seed, failing.index, minimal.calls);
        let why = format!("found by fuzz --seed {seed} as case {index}, minimised in {calls} runs");
        let extent = |case, report| Extent::of_report(case, report, self.candidate);
        let seen = extent(&failing.case, &failing.report)?.with(&extent(&minimal.case, &minimal.report)?);
        let file = store(&self.args.bugs, &name, &why, &minimal.case, &minimal.report, &seen, self.candidate)?;
        note_required_features(&file, &found.required_features).map(|()| file)
    }

    fn say(&self, found: &KnownFailure, failing: &Failing, minimal: &Minimized, lines: &[String]) {
        let note = if minimal.unfinished { " (the budget for minimising ran out)" } else { "" };
        let required_features = found.required_features.iter().copied().collect::<Vec<_>>().join(", ");
        let mut text = format!("\ncase {}, {}: {}\n", failing.index, failing.report.dtype, minimal.report.verdict);
        lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        text.push_str(&format!("  minimised in {} runs{note}; needs: {required_features}\n", minimal.calls));
        text.push_str(&match foreign::path(&found.file) {
            none if none.is_empty() => "  it could not be stored\n".to_owned(),
            path => format!("  stored: {path}\n  again: nsa-diff replay {path}\n"),
        });
        self.output.text(&text);
    }

    /// What is said at the end: how many cases each known failure explains, and what was left.
    pub(super) fn summary(&self) -> String {
        let mut text = String::new();
        for known in self.known.iter().filter(|known| known.cases > 0) {
            let waived = if known.waiver.is_some() { ", waived" } else { "" };
            let file = match foreign::path(&known.file) {
                none if none.is_empty() => format!("a failure that could not be stored: {}", known.signature.slug()),
                path => path,
            };
            text.push_str(&format!("{} cases fail as {file}{waived}\n", known.cases));
        }
        for left in &self.left {
            text.push_str(&format!("not minimised: {left}\n"));
        }
        text
    }

    /// `failures`, `known`, `passing` and `left` of the report.
    pub(super) fn to_json(&self) -> [(&'static str, Value); 4] {
        let mut found = self.found.clone();
        for (value, known) in found.iter_mut().zip(&self.known[self.before..]) {
            value["cases"] = known.cases.into();
            value["required_features"] = json!(known.required_features);
        }
        let passing: Vec<Value> = self
            .passing
            .iter()
            .map(|(file, waiver)| json!({ "file": foreign::path(file), "waiver": waiver.as_ref().map(|waiver| &waiver.reason) }))
            .collect();
        [
            ("failures", found.into()),
            ("known", json!(self.known[..self.before])),
            ("passing", passing.into()),
            ("left", json!(self.left)),
        ]
    }

    /// Whether anything failed that is not waived, or a waived failure passes.
    pub(super) fn any(&self) -> bool {
        self.known.iter().any(|known| known.cases > 0 && known.waiver.is_none())
            || !self.left.is_empty()
            || self.passing.iter().any(|(_, waiver)| waiver.is_some())
    }
}

/// The first failure of each format and signature, at most `limit`, and the others.
fn firsts(failing: Vec<Failing>, limit: usize) -> (Vec<Failing>, Vec<Failing>) {
    let mut seen = BTreeSet::new();
    failing.into_iter().partition(|each| {
        let key = (each.report.dtype, each.signature.clone());
        seen.len() < limit && seen.insert(key)
    })
}
