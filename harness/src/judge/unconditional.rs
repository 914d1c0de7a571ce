//! The second look at the gradients: how far they are from the oracle's own, whatever the candidate saved.
//!
//! Gradients are judged given the candidate's own `out` and `lse`, so that a forward error is not charged twice. That alone would
//! let a candidate launder an error: a forward just within its budgets, and gradients that follow from it exactly, may
//! together be far from right. So each gradient is also held to the one that follows from the exact forward, under the likely
//! budget that allows for a forward whose roundings do not conspire (docs/numerics.md). Beyond it an element is suspect. The
//! rigorous budget needs no second look: a forward and gradients that are within their own cannot exceed it.

use ndarray::{ArrayD, Dimension};
use nsa_corpus::{Field, Outputs};
use nsa_reference::oracle::Answer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::element::position;

/// Elements of a gradient that are too far from the oracle's own, though not from the one that follows from what was saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unconditional {
    /// How many.
    pub elements: usize,
    /// The one whose distance from the oracle's own gradient is the largest, over its likely budget.
    pub worst: Far,
}

/// An element and both gradients that it is held to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Far {
    /// Its position, one number for each axis of the field.
    pub index: Vec<usize>,
    /// The candidate's value.
    pub found: f64,
    /// What follows from the candidate's own `out` and `lse`.
    pub given_saved: Distance,
    /// What follows from the exact forward.
    pub own: Distance,
}

/// How far a value is from one that it is held to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Distance {
    /// The oracle's value.
    pub expected: f64,
    /// `|found - expected|`.
    pub error: f64,
    /// Tier H.
    pub likely: f64,
}

impl Distance {
    fn of(answer: &Answer, field: Field, at: &ndarray::IxDyn, found: f64) -> Self {
        let expected = tensor(&answer.outputs, field)[at];
        let bounds = answer.bounds.as_ref().expect("asked for with an arithmetic");
        Distance { expected, error: (found - expected).abs(), likely: tensor(&bounds.likely, field)[at] }
    }

    fn ratio(&self) -> f64 {
        self.error / self.likely
    }
}

fn tensor(outputs: &Outputs, field: Field) -> &ArrayD<f64> {
    outputs.get(field).expect("the oracle answers every gradient")
}

impl Unconditional {
    /// In words, with both distances.
    pub fn describe(&self, field: Field) -> String {
        let Far { index, found, given_saved, own } = &self.worst;
        format!(
            "{field} at {}: found {found:e}; {:e} follows from the candidate's own out and lse, at a distance of {:.3e} \
             (likely {:.3e}), and {:e} from the exact ones, at a distance of {:.3e} (likely, with a likely forward, {:.3e}): \
             the errors of the forward and of the gradient add up as roundings do not",
            position(field, index),
            given_saved.expected,
            given_saved.error,
            given_saved.likely,
            own.expected,
            own.error,
            own.likely,
        )
    }
}

/// The elements of `field` beyond the likely budget of `own` alone.
pub(super) fn far(field: Field, given_saved: &Answer, own: &Answer, found: &ArrayD<f64>) -> Option<Unconditional> {
    let mut all: Option<Unconditional> = None;
    for (at, &found) in found.indexed_iter().filter(|(_, found)| found.is_finite()) {
        let own = Distance::of(own, field, &at, found);
        // What is not finite, or without any promise, is the first look's.
        if !own.expected.is_finite() || own.error <= own.likely {
            continue;
        }
        let given_saved = Distance::of(given_saved, field, &at, found);
        if !(given_saved.error <= given_saved.likely) {
            continue;
        }
        let new = Far { index: at.as_array_view().to_vec(), found, given_saved, own };
        let all = all.get_or_insert_with(|| Unconditional { elements: 0, worst: new.clone() });
        all.elements += 1;
        if new.own.ratio() > all.worst.own.ratio() {
            all.worst = new;
        }
    }
    all
}
