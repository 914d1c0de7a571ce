//! From a failing case to a small one that fails in the same way.

use std::time::{Duration, Instant};

use nsa_corpus::{Case, Element, Field};
use quickcheck::Arbitrary;

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
pub fn minimize(case: &Case, report: Report, element: Element, backend: &dyn Backend, effort: Effort) -> Minimized {
    let mut best = Minimized { case: case.clone(), report, calls: 0, unfinished: false };
    let Some(signature) = best.report.verdict.failure().map(Signature::of) else { return best };
    let start = Instant::now();
    'simpler: loop {
        for candidate in best.case.shrink() {
            if best.calls >= effort.calls || start.elapsed() >= effort.time {
                best.unfinished = true;
                return best;
            }
            best.calls += 1;
            let Ok(report) = run_case(&candidate, element, backend) else { continue };
            if report.verdict.failure().map(Signature::of) == Some(signature) {
                best.case = candidate;
                best.report = report;
                continue 'simpler;
            }
        }
        return best;
    }
}
