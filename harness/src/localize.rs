//! Many reports of one candidate: each failure is placed, and the mistake named from several of them at once.

use nsa_corpus::{Case, Dtype, Error};

use crate::candidate::Candidate;
use crate::explain::{EVIDENCE, Evidence, cost, likely, locate, name};
use crate::report::Report;

/// Cases of more score terms times features than this are placed, but not asked which mistake they look like.
const COST_MAX: usize = 600_000;

/// Says of each failing report where it is wrong, and of the largest ones that are cheap to explain what that looks like.
///
/// # Errors
/// A case is broken.
pub fn localize_reports(
    cases: &[(&Case, Dtype)],
    reports: &mut [Report],
    candidate: &dyn Candidate,
) -> Result<(), Error> {
    let failing = |report: &Report| report.verdict.failure().is_some() && report.outputs.is_some();
    let mut wrong: Vec<usize> = (0..reports.len()).filter(|at| failing(&reports[*at])).collect();
    let mut evidence = Vec::new();
    wrong.sort_by_key(|at| std::cmp::Reverse(cost(cases[*at].0)));
    for at in wrong {
        let (case, dtype) = cases[at];
        let inputs = case.materialize(dtype)?;
        let declaration = candidate.declaration(&inputs);
        let Some(outputs) = reports[at].outputs.clone() else { continue };
        reports[at].localization = locate(&inputs, &declaration, &outputs);
        if cost(case) <= COST_MAX && evidence.len() < EVIDENCE && reports[at].localization.is_some() {
            evidence.push((at, Evidence { inputs, declaration, outputs }));
        }
    }
    let all: Vec<&Evidence> = evidence.iter().map(|(_, evidence)| evidence).collect();
    let likely = likely(&all);
    for (at, evidence) in &evidence {
        if let Some(localization) = &mut reports[*at].localization {
            name(localization, &evidence.inputs, likely.clone());
        }
    }
    Ok(())
}
