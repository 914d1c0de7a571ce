//! Which known mistakes an answer looks like: each one's answer, computed without rounding, is compared with what was
//! found, in every element that either of them puts off the right answer.

use nsa_corpus::{Arithmetic, Inputs, Outputs};
use nsa_reference::plain::{self, Fault};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::residual::{Residual, excess, residuals};
use crate::defect::{Carrier, Defect, defects};

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
    pub arithmetic: Arithmetic,
    /// What it answered.
    pub outputs: Outputs,
}

/// A known mistake that would give such an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Likely {
    /// Its name in the catalogue.
    pub defect: String,
    /// The share of the elements that it, or the answer, puts off the right values, and that it explains.
    pub explained: f64,
}

impl Likely {
    /// In words.
    pub fn line(&self) -> String {
        let share = (100.0 * self.explained).round();
        format!("looks like: {} (explains {share} % of what is wrong)", self.defect.replace('_', " "))
    }
}

/// The mistakes that explain most of `evidence`, the best first, in the order of the catalogue where they do equally well.
pub fn likely(evidence: &[&Evidence]) -> Vec<Likely> {
    if evidence.is_empty() {
        return Vec::new();
    }
    let known: Vec<(&Evidence, Vec<Residual>)> = evidence
        .iter()
        .map(|evidence| (*evidence, residuals(&evidence.inputs, &evidence.arithmetic, &evidence.outputs)))
        .collect();
    let mut found: Vec<Likely> = defects()
        .par_iter()
        .filter_map(|defect| {
            let shares = known.iter().map(|(evidence, residuals)| explained(defect, evidence, residuals));
            let shares: Vec<f64> = shares.collect::<Option<Vec<Option<f64>>>>()?.into_iter().flatten().collect();
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            (mean >= LEAST).then(|| Likely { defect: defect.name.clone(), explained: mean })
        })
        .collect();
    // Stable: equals stay in the catalogue's order.
    found.sort_by(|left, right| right.explained.total_cmp(&left.explained));
    found.truncate(NAMED);
    found
}

/// The share of one answer that `defect` explains; `Some(None)` where neither puts anything off; `None` where what it would
/// answer cannot be said.
fn explained(defect: &Defect, evidence: &Evidence, residuals: &[Residual]) -> Option<Option<f64>> {
    let shares = predictions(defect, evidence).into_iter().map(|answer| share(&answer, evidence, residuals));
    shares.reduce(|best, share| if share > best { share } else { best })
}

fn share(answer: &Outputs, evidence: &Evidence, residuals: &[Residual]) -> Option<f64> {
    let (mut off, mut explained) = (0usize, 0usize);
    for residual in residuals {
        let predicted = answer.get(residual.field)?;
        let stored = evidence.arithmetic.stored(residual.field).unit_roundoff();
        let elements = residual.expected.iter().zip(&residual.budget).zip(residual.found.iter().zip(predicted));
        for ((expected, budget), (found, predicted)) in elements {
            let error = excess(*expected, *found, *budget);
            if error <= 1.0 && excess(*expected, *predicted, *budget) <= 1.0 {
                continue;
            }
            off += 1;
            // The wrong value is rounded like a right one; where it is larger than that, so are its roundings.
            let apart = (predicted - expected).abs();
            let larger = if apart.is_finite() { apart / (expected.abs() + budget).max(f64::MIN_POSITIVE) } else { 0.0 };
            let slack = budget * (1.0 + larger) + if apart.is_finite() { 4.0 * stored * apart } else { 0.0 };
            let left = excess(*predicted, *found, slack);
            explained += usize::from(left <= 1.0 || (error.is_finite() && left <= error / 32.0));
        }
    }
    (off > 0).then(|| explained as f64 / off as f64)
}

/// What an implementation with `defect` may answer: without rounding, and, where the mistake is in the rounding, with it.
pub(super) fn predictions(defect: &Defect, evidence: &Evidence) -> Vec<Outputs> {
    let rounded = match &defect.plant {
        Carrier::Plain { fault: fault @ Fault::Numbers { .. } } => Some(plain::attend(&evidence.inputs, Some(fault))),
        _ => None,
    };
    predict(defect, &evidence.inputs, &evidence.outputs).into_iter().chain(rounded).collect()
}

/// What an implementation with `defect` answers, without rounding, its gradients following from the forward that was found.
/// `None` where that depends on the run.
fn predict(defect: &Defect, inputs: &Inputs, found: &Outputs) -> Option<Outputs> {
    match &defect.plant {
        Carrier::Plain { fault } => Some(plain::attend_exactly(inputs, Some(fault), Some(found))),
        Carrier::Inputs { change } => {
            let changed = change.apply(inputs).ok()?;
            Some(plain::attend_exactly(&changed, None, Some(found)))
        }
        Carrier::Outputs { change } => {
            if change.depends_on_the_run() {
                return None;
            }
            let mut answer = plain::attend_exactly(inputs, None, None);
            change.apply(inputs, &mut answer, 0);
            Some(answer)
        }
        Carrier::Ends { .. } => None,
    }
}
