//! From a failing case to a small one that fails in the same way.

use std::time::{Duration, Instant};

use nsa_corpus::{Case, Dtype, Field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidate::Candidate;
use crate::judge::verdict::{Class, Failure};
use crate::report::Report;
use crate::run::run_case;

/// How much a minimisation may cost.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Cases run at most.
    pub calls: usize,
    /// Time at most.
    pub time: Duration,
    /// Asked before each case: whether to end now, as Ctrl-C wants.
    pub stop: fn() -> bool,
}

impl Default for Effort {
    fn default() -> Self {
        Effort { calls: 2000, time: Duration::from_secs(20), stop: || false }
    }
}

/// What stays the same while a case shrinks: the class, the field, and the kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Signature {
    /// The class.
    pub class: Class,
    /// The field at fault.
    pub field: Option<Field>,
    /// In words, what tells failures of one class and field apart: of one without a field, what the implementation called it.
    pub kind: String,
}

impl Signature {
    /// The signature of a failure.
    pub fn of(failure: &Failure) -> Self {
        let kind = if failure.field.is_none() { kind(&failure.message) } else { String::new() };
        Signature { class: failure.class, field: failure.field, kind }
    }

    /// `over_budget-dq`, `compile-CompilationError` and the like, for file names.
    pub fn slug(&self) -> String {
        let class = self.class.to_string();
        let field = self.field.map(|field| field.to_string()).unwrap_or_default();
        let parts = [class.as_str(), &field, &self.kind].map(word);
        parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("-")
    }
}

/// The name that a crash or a compiler's error begins with, after our own words: `crashed: ValueError: 3 is odd` is a
/// `ValueError`. Numbers in it are left out: they differ from case to case.
fn kind(message: &str) -> String {
    let own = message.split_once(": ").map_or(message, |(_, own)| own);
    let head = own.split([':', ';', '\n']).next().unwrap_or(own);
    head.chars().filter(|letter| !letter.is_ascii_digit()).take(40).collect::<String>().trim().to_owned()
}

/// Letters and digits, everything else as `_`.
fn word(text: &str) -> String {
    text.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

/// A minimised failure.
#[derive(Clone, Debug)]
pub struct Minimized {
    /// The smallest case found.
    pub case: Case,
    /// Its report: a failure of the same signature.
    pub report: Report,
    /// Cases run on the way.
    pub calls: usize,
    /// Whether the effort ran out before every simpler case had been tried.
    pub unfinished: bool,
}

/// The stage of [`Case::shrinks_of`] that leaves out options.
const OPTIONS: usize = 1;

/// Shrinks `case`, which failed with `report` on `candidate`: takes any simpler case that fails with the same signature, until
/// none does or the effort is spent. A simpler case that passes, or fails in another way, is left alone, so that shrinking
/// does not slip from one bug to another.
///
/// One kind of simplification is carried through before the next is tried, and after each success it goes on from where it
/// stood: what failed to simplify a moment ago is tried again once, in a last round that changes nothing. Only where options were
/// left out are smaller sizes tried again at once: a random mask may have held them, and single elements, once changed, would.
pub fn minimize(case: &Case, report: Report, dtype: Dtype, candidate: &dyn Candidate, effort: Effort) -> Minimized {
    minimize_to(case, report, dtype, candidate, effort, &|_, _| true)
}

/// As [`minimize`], and takes only simpler cases that `wanted` says so of, given the case and its failing report.
pub fn minimize_to(
    case: &Case,
    report: Report,
    dtype: Dtype,
    candidate: &dyn Candidate,
    effort: Effort,
    wanted: &dyn Fn(&Case, &Report) -> bool,
) -> Minimized {
    let best = Minimized { case: case.clone(), report, calls: 0, unfinished: false };
    let Some(signature) = best.report.verdict.failure().map(Signature::of) else { return best };
    let mut search = Search { best, signature, dtype, candidate, effort, wanted, start: Instant::now() };
    loop {
        let (mut simpler, mut stage) = (false, 0);
        while stage < Case::SHRINK_STAGES {
            let (mut from, mut some) = (0, false);
            while let Some(at) = search.simplify(stage, from) {
                (from, some) = (at, true);
            }
            simpler |= some;
            stage = if some && stage == OPTIONS { 0 } else { stage + 1 };
        }
        if !simpler || search.best.unfinished {
            return search.best;
        }
    }
}

/// A minimisation under way.
struct Search<'a> {
    best: Minimized,
    signature: Signature,
    dtype: Dtype,
    candidate: &'a dyn Candidate,
    effort: Effort,
    wanted: &'a dyn Fn(&Case, &Report) -> bool,
    start: Instant,
}

impl Search<'_> {
    /// Takes the first simpler case of `stage`, from number `from` on, that fails in the same way, and returns its number; none
    /// where there is none, or where the effort is spent.
    fn simplify(&mut self, stage: usize, from: usize) -> Option<usize> {
        for (at, case) in self.best.case.shrinks_of(stage).enumerate().skip(from) {
            let spent = self.best.calls >= self.effort.calls || self.start.elapsed() >= self.effort.time;
            self.best.unfinished = spent || (self.effort.stop)();
            if self.best.unfinished {
                return None;
            }
            self.best.calls += 1;
            let Ok(report) = run_case(&case, self.dtype, self.candidate) else { continue };
            let same = report.verdict.failure().map(Signature::of).as_ref() == Some(&self.signature);
            if same && (self.wanted)(&case, &report) {
                (self.best.case, self.best.report) = (case, report);
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(class: Class, field: Option<Field>, message: &str) -> Signature {
        Signature::of(&Failure { class, field, message: message.to_owned() })
    }

    #[test]
    fn a_failure_without_a_field_is_told_apart_by_its_name_alone() {
        let crash = |message| signature(Class::Crash, None, message);
        assert_eq!(crash("crashed: ValueError: 3 is odd"), crash("crashed: ValueError: 5 is odd"));
        assert_ne!(crash("crashed: ValueError: 3 is odd"), crash("crashed: signal: 11 (SIGSEGV)"));
        assert_eq!(crash("crashed: ValueError: 3 is odd").slug(), "crash-ValueError");
        let over = |message| signature(Class::OverBudget, Some(Field::Dk), message);
        assert_eq!(over("dk at 3"), over("dk at 4"));
        assert_eq!(over("dk at 3").slug(), "over_budget-dk");
        assert_eq!(signature(Class::NonFinite, Some(Field::SlidingOut), "").slug(), "non_finite-sliding_out");
    }
}
