//! What `fuzz` does with failures: known ones are counted, new ones minimised, told apart and stored once each.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::ProgressBar;
use nsa_corpus::Case;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Refusal;
use super::fuzz::Args;
use super::output::interrupted;
use crate::backend::Backend;
use crate::known::{Known, needs, stored};
use crate::localize::{Localization, localize_alone};
use crate::minimize::{Effort, Minimized, Signature, minimize};
use crate::report::Report;
use crate::run::run_case;
use crate::store::store;
use crate::verdict::Verdict;

/// A generated case that failed.
pub(super) struct Failing {
    index: usize,
    case: Case,
    report: Report,
    signature: Signature,
    needs: BTreeSet<&'static str>,
}

impl Failing {
    /// `None` where it did not fail.
    pub(super) fn new(index: usize, case: &Case, report: Report) -> Option<Self> {
        let signature = Signature::of(report.verdict.failure()?);
        let needs = needs(case, report.element);
        Some(Failing { index, case: case.clone(), report, signature, needs })
    }
}

/// The failures of a campaign.
pub(super) struct Failures<'a> {
    args: &'a Args,
    backend: &'a dyn Backend,
    known: Vec<Known>,
    /// Of `known`, those that the folder held before.
    before: usize,
    found: Vec<Value>,
    /// Stored failures that do not fail now, with the reason to waive them where they have one.
    passing: Vec<(PathBuf, Option<String>)>,
    /// Failing cases that there was no time to minimise, in words.
    left: Vec<String>,
}

impl<'a> Failures<'a> {
    /// Reads the stored failures of the candidate, and runs each again: one that passes now explains nothing.
    pub(super) fn load(args: &'a Args, backend: &'a dyn Backend) -> Result<Self, Refusal> {
        let mut failures =
            Failures { args, backend, known: Vec::new(), before: 0, found: vec![], passing: vec![], left: vec![] };
        for stored in stored(&args.bugs, args.candidate.name())? {
            let element = stored.bundle.element;
            if interrupted() || !args.elements.or_usual().contains(&element) {
                continue;
            }
            let case = &stored.bundle.entry.case;
            let verdict = run_case(case, element, backend)?.verdict;
            let signature = match &verdict {
                Verdict::Fail(failure) => Some(Signature::of(failure)),
                Verdict::Pass | Verdict::Suspect(_) => None,
                Verdict::Skip(_) | Verdict::Inconclusive(_) => stored.signature,
            };
            match signature {
                Some(signature) => {
                    let known = Known::new(stored.file, element, signature, case);
                    failures.known.push(Known { waiver: stored.waiver, ..known });
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
            let waived = known.waiver.as_ref().map(|reason| format!(" (waived: {reason})")).unwrap_or_default();
            self.args.json.text(&format!("known: {}{waived}\n", known.file.display()));
        }
        for (file, waiver) in &self.passing {
            let stale = if waiver.is_some() { ": its waiver is stale" } else { "" };
            self.args.json.text(&format!("{} passes now{stale}\n", file.display()));
        }
    }

    /// Failures found in this run.
    pub(super) fn new_ones(&self) -> usize {
        self.known.len() - self.before
    }

    /// Counts those that are known and minimises the first of each new kind, again until every one is explained or there
    /// is no time.
    pub(super) fn take(
        &mut self,
        mut failing: Vec<Failing>,
        bar: &ProgressBar,
        in_time: impl Fn() -> bool,
    ) -> Result<(), Refusal> {
        loop {
            failing.retain(|failing| !self.explained(failing));
            if failing.is_empty() {
                return Ok(());
            }
            if interrupted() || !in_time() || self.new_ones() >= self.args.failures {
                self.left.extend(failing.iter().map(|failing| {
                    format!("case {}, {}: {}", failing.index, failing.report.element, failing.report.verdict)
                }));
                return Ok(());
            }
            let (first, rest) = firsts(failing, self.args.failures - self.new_ones());
            failing = rest;
            bar.set_message(format!("minimising {}", first.len()));
            let effort = Effort { time: Duration::from_secs(self.args.effort), stop: interrupted, ..Effort::default() };
            let minimal: Vec<Minimized> = first
                .par_iter()
                .map(|each| minimize(&each.case, each.report.clone(), each.report.element, self.backend, effort))
                .collect();
            bar.set_message("");
            for (failing, minimal) in first.iter().zip(minimal) {
                self.keep(failing, &minimal)?;
            }
        }
    }

    fn explained(&mut self, failing: &Failing) -> bool {
        let known =
            self.known.iter_mut().find(|k| k.explains(failing.report.element, &failing.signature, &failing.needs));
        known.map(|known| known.cases += 1).is_some()
    }

    /// Stores a minimal case, unless it is one that is known already.
    fn keep(&mut self, failing: &Failing, minimal: &Minimized) -> Result<(), Refusal> {
        let element = failing.report.element;
        let place = minimal.report.outputs.as_ref().and_then(|outputs| {
            let inputs = minimal.case.materialize(element).ok()?;
            localize_alone(&inputs, &self.backend.declaration(&inputs), outputs)
        });
        let mut found = Known::new(PathBuf::new(), element, failing.signature.clone(), &minimal.case);
        found.mistake = place.as_ref().and_then(|place| Some(place.slug()?.to_owned()));
        found.cases = 1;
        if let Some(known) = self.known.iter_mut().find(|known| known.is(&found)) {
            known.learn(&found.needs);
            known.learn(&failing.needs);
            known.cases += 1;
            return Ok(());
        }
        found.learn(&failing.needs);
        found.file = self.write(failing, minimal)?;
        let lines = place.as_ref().map(Localization::lines).unwrap_or_default();
        self.say(&found, failing, minimal, &lines);
        self.found.push(json!({
            "case": failing.index,
            "element": element,
            "file": found.file,
            "calls": minimal.calls,
            "unfinished": minimal.unfinished,
            "signature": failing.signature,
            "where": place,
            "report": minimal.report,
        }));
        self.known.push(found);
        Ok(())
    }

    fn write(&self, failing: &Failing, minimal: &Minimized) -> Result<PathBuf, Refusal> {
        let candidate: String =
            self.args.candidate.name().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let (element, signature) = (failing.report.element, failing.signature.slug());
        let name = format!("{candidate}-{element}-{signature}-{}", minimal.case.id());
        let (seed, index, calls) = (self.args.seed, failing.index, minimal.calls);
        let why = format!("found by fuzz --seed {seed} as case {index}, minimised in {calls} runs");
        Ok(store(&self.args.bugs, &name, &why, &minimal.case, &minimal.report, self.backend)?)
    }

    fn say(&self, found: &Known, failing: &Failing, minimal: &Minimized, lines: &[String]) {
        let note = if minimal.unfinished { " (the budget for minimising ran out)" } else { "" };
        let needs = found.needs.iter().copied().collect::<Vec<_>>().join(", ");
        let mut text = format!("\ncase {}, {}: {}\n", failing.index, failing.report.element, minimal.report.verdict);
        lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        let path = found.file.display();
        text.push_str(&format!("  minimised in {} runs{note}; needs: {needs}\n", minimal.calls));
        text.push_str(&format!("  stored: {path}\n  again: nsa-diff replay {path}\n"));
        self.args.json.text(&text);
    }

    /// What is said at the end: how many cases each known failure explains, and what was left.
    pub(super) fn summary(&self) -> String {
        let mut text = String::new();
        for known in self.known.iter().filter(|known| known.cases > 0) {
            let waived = if known.waiver.is_some() { ", waived" } else { "" };
            text.push_str(&format!("{} cases fail as {}{waived}\n", known.cases, known.file.display()));
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
            value["needs"] = json!(known.needs);
        }
        let passing: Vec<Value> =
            self.passing.iter().map(|(file, waiver)| json!({ "file": file, "waiver": waiver })).collect();
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
        let key = (each.report.element, each.signature.clone());
        seen.len() < limit && seen.insert(key)
    })
}
