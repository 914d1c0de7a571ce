//! What becomes of a planted mistake once it is seen: whether it is placed and named rightly, and how small its
//! counterexample gets.

use nsa_corpus::{Bundle, Dtype, Entry, Inputs, Sizes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Failed, Fate, Job, Plant, Row, Rule};
use crate::campaign::minimize::{Effort, minimize};
use crate::candidate::Candidate;
use crate::explain::{self, EVIDENCE, Evidence, cost};
use crate::mutants::Mutant;
use crate::run::run_case;

/// Cases of more score terms times features than this are not placed: there are many mistakes to place.
const COST_MAX: usize = 120_000;

/// How a planted mistake was placed. `None` where the question does not arise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Placed {
    /// The entry whose answer was placed.
    pub entry: String,
    /// Whether the mistake changes the field that was named.
    pub field: bool,
    /// Whether it changes an element of the batch entry, head and token (or key) that were named.
    pub row: bool,
    /// Whether it touches a term (slot, key) that was named in that row.
    pub term: Option<bool>,
    /// Whether the first mistake named is the planted one, or one that no element of these answers tells from it.
    pub named: bool,
    /// What was named.
    pub likely: Vec<String>,
}

/// How small a planted mistake's counterexample gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Minimal {
    /// Its sizes.
    pub sizes: Sizes,
    /// Elements of floating-point inputs that are not 0.
    pub nonzero: usize,
    /// Cases run on the way.
    pub calls: usize,
    /// Length of the stored failure.
    pub bytes: usize,
    /// Whether the effort ran out first.
    pub unfinished: bool,
}

/// Places the mistake of `row`, and minimises its first failing case.
///
/// # Errors
/// The candidate cannot be made, or a case is broken.
pub fn explain(plant: &Plant<'_>, jobs: &[Job], row: &mut Row) -> Result<(), Failed> {
    let Some(Fate::Killed(kill)) = row.fates.get(&Rule::Ours) else { return Ok(()) };
    let candidate = plant.candidate()?;
    let killer = jobs.iter().find(|job| job.entry.name == kill.entry && job.dtype == kill.dtype);
    let Some(killer) = killer.filter(|_| kill.cases <= jobs.len()) else { return Ok(()) };
    row.minimal = minimal(&killer.entry.case, killer.dtype, candidate.as_ref())?;
    if let Plant::Mutant(mutant, _) = plant {
        row.placed = placed(mutant, jobs, killer, candidate.as_ref())?;
    }
    Ok(())
}

fn minimal(case: &nsa_corpus::Case, dtype: Dtype, candidate: &dyn Candidate) -> Result<Option<Minimal>, Failed> {
    let report = run_case(case, dtype, candidate)?;
    if report.verdict.failure().is_none() {
        return Ok(None);
    }
    let effort = Effort { calls: 20_000, ..Effort::default() };
    let minimized = minimize(case, report, dtype, candidate, effort);
    let entry = Entry::new("bugs/minimal", "Minimised.", minimized.case.clone());
    let bundle = Bundle::new(entry, dtype, minimized.report.outputs.clone())?;
    Ok(Some(Minimal {
        sizes: minimized.case.sizes,
        nonzero: nonzero(&bundle.inputs),
        calls: minimized.calls,
        bytes: bundle.to_bytes().len(),
        unfinished: minimized.unfinished,
    }))
}

/// Elements of floating-point inputs that are not 0.
fn nonzero(inputs: &Inputs) -> usize {
    let cotangents = inputs.cotangents();
    let tensors = [Some(inputs.q()), Some(inputs.k()), Some(inputs.v()), inputs.sel_scale()];
    let count = |values: ndarray::ArrayViewD<'_, f64>| values.iter().filter(|value| **value != 0.0).count();
    let four = tensors.into_iter().chain([cotangents.d_out.as_ref(), cotangents.d_sliding.as_ref()]).flatten();
    four.map(|tensor| count(tensor.view().into_dyn())).sum::<usize>()
        + cotangents.d_lse.as_ref().map_or(0, |tensor| count(tensor.view().into_dyn()))
}

/// Answers that are wrong, those of the largest cases that are still cheap to explain first; else the one that killed.
fn evidence(jobs: &[Job], killer: &Job, candidate: &dyn Candidate) -> Result<Vec<(String, Evidence)>, Failed> {
    let cheap =
        jobs.iter().rev().filter(|job| cost(&job.entry.case) <= COST_MAX && !job.entry.name.starts_with("non_finite"));
    let mut found = Vec::new();
    for job in cheap.chain([killer]) {
        let known = found.iter().any(|(name, _): &(String, Evidence)| *name == job.entry.name);
        if found.len() == EVIDENCE || known {
            continue;
        }
        let report = run_case(&job.entry.case, job.dtype, candidate)?;
        let (Some(_), Some(outputs)) = (report.verdict.failure(), report.outputs) else { continue };
        let inputs = job.entry.case.materialize(job.dtype)?;
        let declaration = candidate.declaration(&inputs);
        found.push((job.entry.name.clone(), Evidence { inputs, declaration, outputs }));
    }
    Ok(found)
}

fn placed(mutant: &Mutant, jobs: &[Job], killer: &Job, candidate: &dyn Candidate) -> Result<Option<Placed>, Failed> {
    let evidence = evidence(jobs, killer, candidate)?;
    let Some(((entry, first), more)) = evidence.split_first() else { return Ok(None) };
    let more: Vec<&Evidence> = more.iter().map(|(_, evidence)| evidence).collect();
    let Some(found) = explain::localize(first, &more) else { return Ok(None) };
    let Some(changed) = explain::changed(mutant, first) else { return Ok(None) };
    let here = |position: &[usize]| position[..3] == found.position[..3];
    let truth = explain::terms(&first.inputs, mutant, found.field, &found.position);
    let best = found.likely.first();
    let own = found.likely.iter().find(|likely| likely.mutant == mutant.name);
    Ok(Some(Placed {
        entry: entry.clone(),
        field: changed.iter().any(|(field, _)| *field == found.field),
        row: changed.iter().any(|(field, position)| *field == found.field && here(position)),
        term: (!truth.is_empty()).then(|| found.terms.iter().any(|term| truth.contains(term))),
        named: matches!((best, own), (Some(best), Some(own)) if best.explained == own.explained),
        likely: found.likely.iter().map(|likely| likely.mutant.clone()).collect(),
    }))
}
