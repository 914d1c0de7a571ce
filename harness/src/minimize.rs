//! From a failing case to a small one that fails in the same way.

use std::time::{Duration, Instant};

use nsa_corpus::{Case, Element, Field};

use crate::backend::Backend;
use crate::report::Report;
use crate::run::run_case;
use crate::verdict::{Class, Failure};

/// How much a minimisation may cost.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Cases run at most.
    pub calls: usize,
    /// Time at most.
    pub time: Duration,
}

impl Default for Effort {
    fn default() -> Self {
        Effort { calls: 2000, time: Duration::from_secs(20) }
    }
}

/// What makes two failures the same: the class and the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signature {
    /// The class.
    pub class: Class,
    /// The field at fault.
    pub field: Option<Field>,
}

impl Signature {
    /// The signature of a failure.
    pub fn of(failure: &Failure) -> Self {
        Signature { class: failure.class, field: failure.field }
    }

    /// `over_budget-dq` and the like, for file names.
    pub fn slug(&self) -> String {
        let class = self.class.to_string().replace([' ', '-'], "_");
        self.field.map_or_else(|| class.clone(), |field| format!("{class}-{field}"))
    }
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

/// Shrinks `case`, which failed with `report` on `backend`: takes any simpler case that fails with the same signature, until
/// none does or the effort is spent. A simpler case that passes, or fails in another way, is left alone, so that shrinking
/// does not slip from one bug to another.
///
/// One kind of simplification is carried through before the next is tried, and after each success it goes on from where it
/// stood: what failed to simplify a moment ago is tried again once, in a last round that changes nothing.
pub fn minimize(case: &Case, report: Report, element: Element, backend: &dyn Backend, effort: Effort) -> Minimized {
    let best = Minimized { case: case.clone(), report, calls: 0, unfinished: false };
    let Some(signature) = best.report.verdict.failure().map(Signature::of) else { return best };
    let mut search = Search { best, signature, element, backend, effort, start: Instant::now() };
    loop {
        let mut simpler = false;
        for stage in 0..Case::SHRINK_STAGES {
            let mut from = 0;
            while let Some(at) = search.simplify(stage, from) {
                (from, simpler) = (at, true);
            }
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
    element: Element,
    backend: &'a dyn Backend,
    effort: Effort,
    start: Instant,
}

impl Search<'_> {
    /// Takes the first simpler case of `stage`, from number `from` on, that fails in the same way, and returns its number; none
    /// where there is none, or where the effort is spent.
    fn simplify(&mut self, stage: usize, from: usize) -> Option<usize> {
        for (at, case) in self.best.case.shrinks_of(stage).enumerate().skip(from) {
            self.best.unfinished = self.best.calls >= self.effort.calls || self.start.elapsed() >= self.effort.time;
            if self.best.unfinished {
                return None;
            }
            self.best.calls += 1;
            let Ok(report) = run_case(&case, self.element, self.backend) else { continue };
            if report.verdict.failure().map(Signature::of) == Some(self.signature) {
                (self.best.case, self.best.report) = (case, report);
                return Some(at);
            }
        }
        None
    }
}
