//! Which known mistakes an answer looks like: each one's answer, computed without rounding, is compared with what was
//! found, in every element that either of them puts off the right answer.

use nsa_corpus::{Inputs, Outputs};
use nsa_reference::rowwise::{self, Mutation};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::residual::{Residual, residuals};
use crate::candidate::Declaration;
use crate::judge::HeldTo;
use crate::mutants::{Carrier, Mutant, mutants};

/// Mistakes that explain less than this share are not named.
const LEAST: f64 = 0.5;

/// Mistakes named at most.
const NAMED: usize = 3;

/// An answer to a problem.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The problem.
    pub inputs: Inputs,
    /// What the implementation declares.
    pub declaration: Declaration,
    /// What it answered.
    pub outputs: Outputs,
}

/// A known mistake that would give such an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Likely {
    /// Its name in the catalogue.
    pub mutant: String,
    /// The share of the elements that it, or the answer, puts off the right values, and that it explains.
    pub explained: f64,
    /// How many other mistakes of the catalogue explain the same share.
    #[serde(default)]
    pub equals: usize,
}

impl Likely {
    /// The best of `likely`, the best first, in words; nothing where there is none. Where several explain the same share, none of
    /// them is named alone.
    pub(super) fn lines(likely: &[Likely]) -> Vec<String> {
        let words = |likely: &Likely| likely.mutant.replace('_', " ");
        // Rounded down: what leaves something over does not explain all of it.
        let share = |likely: &Likely| (100.0 * likely.explained).floor();
        let Some(best) = likely.first().filter(|best| best.equals > 0) else {
            let line = |likely: &Likely| {
                format!("looks like: {} (explains {} % of what is wrong)", words(likely), share(likely))
            };
            return likely.iter().map(line).collect();
        };
        let equal: Vec<String> = likely.iter().filter(|likely| likely.explained == best.explained).map(words).collect();
        let more = match best.equals + 1 - equal.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        vec![format!("several mistakes explain {} % of it equally: {}{more}", share(best), equal.join(", "))]
    }
}

/// The mistakes that explain most of `evidence`, the best first, in the order of the catalogue where they do equally well.
pub fn likely(evidence: &[&Evidence]) -> Vec<Likely> {
    if evidence.is_empty() {
        return Vec::new();
    }
    let held_to: Vec<HeldTo<'_>> = evidence
        .iter()
        .map(|evidence| HeldTo::new(&evidence.inputs, &evidence.declaration, &evidence.outputs))
        .collect();
    let known: Vec<(&Evidence, Vec<Residual<'_>>)> = evidence
        .iter()
        .zip(&held_to)
        .map(|(evidence, held_to)| (*evidence, residuals(held_to, &evidence.outputs)))
        .collect();
    let mut found: Vec<Likely> = mutants()
        .par_iter()
        .filter_map(|mutant| {
            let shares = known.iter().map(|(evidence, residuals)| explained(mutant, evidence, residuals));
            let shares: Vec<f64> = shares.collect::<Option<Vec<Option<f64>>>>()?.into_iter().flatten().collect();
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            (mean >= LEAST).then(|| Likely { mutant: mutant.name.clone(), explained: mean, equals: 0 })
        })
        .collect();
    // Stable: equals stay in the catalogue's order.
    found.sort_by(|left, right| right.explained.total_cmp(&left.explained));
    let shares: Vec<f64> = found.iter().map(|likely| likely.explained).collect();
    for likely in &mut found {
        likely.equals = shares.iter().filter(|share| **share == likely.explained).count() - 1;
    }
    found.truncate(NAMED);
    found
}

/// The share of one answer that `mutant` explains; `Some(None)` where neither puts anything off; `None` where what it would
/// answer cannot be said.
fn explained(mutant: &Mutant, evidence: &Evidence, residuals: &[Residual<'_>]) -> Option<Option<f64>> {
    let shares = predictions(mutant, evidence).into_iter().map(|answer| share(&answer, residuals));
    shares.reduce(|best, share| if share > best { share } else { best })
}

fn share(answer: &Outputs, residuals: &[Residual<'_>]) -> Option<f64> {
    let (mut off, mut explained) = (0usize, 0usize);
    for residual in residuals {
        let predicted = answer.get(residual.field)?;
        for ((held, found), predicted) in residual.elements.iter().zip(predicted) {
            if held.judge(*found).is_wrong() || held.judge(*predicted).is_wrong() {
                off += 1;
                explained += usize::from(held.explained(*found, *predicted));
            }
        }
    }
    (off > 0).then(|| explained as f64 / off as f64)
}

/// What an implementation with `mutant` may answer: without rounding, and, where the mistake is in the rounding, with it.
pub(super) fn predictions(mutant: &Mutant, evidence: &Evidence) -> Vec<Outputs> {
    let rounded = match &mutant.plant {
        Carrier::Rowwise { mutation: mutation @ Mutation::Numbers { .. } } => {
            Some(rowwise::attend(&evidence.inputs, Some(mutation)))
        }
        _ => None,
    };
    predict(mutant, &evidence.inputs, &evidence.outputs).into_iter().chain(rounded).collect()
}

/// What an implementation with `mutant` answers, without rounding, its gradients following from the forward that was found.
/// `None` where that depends on the run.
fn predict(mutant: &Mutant, inputs: &Inputs, found: &Outputs) -> Option<Outputs> {
    match &mutant.plant {
        Carrier::Rowwise { mutation } => Some(rowwise::attend_exactly(inputs, Some(mutation), Some(found))),
        Carrier::Inputs { change } => {
            let changed = change.apply(inputs).ok()?;
            Some(rowwise::attend_exactly(&changed, None, Some(found)))
        }
        Carrier::Outputs { change } => {
            if change.depends_on_the_run() {
                return None;
            }
            let mut answer = rowwise::attend_exactly(inputs, None, None);
            change.apply(inputs, &mut answer, 0);
            Some(answer)
        }
        Carrier::Ends { .. } => None,
    }
}
