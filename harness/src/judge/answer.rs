//! What an answer is held to: the oracle's forward, its gradients given what the implementation itself saved, and the budgets.

use nsa_corpus::{Arithmetic, Field, Inputs, Outputs};
use nsa_reference::oracle::{self, Answer};

use super::field::Expected;
use super::overflow::Overflows;
use super::reach::Reach;
use crate::backend::Declaration;

/// What every field of one answer is held to.
pub(crate) struct HeldTo<'a> {
    declaration: &'a Declaration,
    answers: [Answer; 2],
    overflows: Overflows,
    /// `None`: nothing is excused.
    reach: Option<Reach>,
}

impl<'a> HeldTo<'a> {
    /// What `found`, the answer to `inputs` of an implementation that declares this, is held to.
    pub(crate) fn new(inputs: &Inputs, declaration: &'a Declaration, found: &Outputs) -> Self {
        let reach = if declaration.reads_only_what_it_attends_to { None } else { Reach::of(inputs) };
        HeldTo {
            declaration,
            answers: expected(inputs, &declaration.arithmetic, found),
            overflows: Overflows::of(inputs, &declaration.arithmetic),
            reach,
        }
    }

    /// The fields that are asked for and that the implementation computes.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (Field, Expected<'_>)> {
        self.answers.iter().flat_map(move |answer| {
            let bounds = answer.bounds.as_ref().expect("asked for with an arithmetic");
            let computed = answer.outputs.iter().filter(|(field, _)| self.declaration.computes(*field));
            computed.map(move |(field, values)| {
                let stored = self.declaration.arithmetic.stored(field);
                let expected = Expected {
                    values,
                    rigorous: bounds.rigorous.get(field).expect("every output has its bounds"),
                    likely: bounds.likely.get(field).expect("every output has its bounds"),
                    stored,
                    overflow: self.overflows.of_field(field, stored),
                    reached: self.reach.as_ref().map(|reach| reach.of_field(field)),
                };
                (field, expected)
            })
        })
    }
}

/// What `found` is judged by: the forward fields and the gradients, with their budgets.
pub(crate) fn expected(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs) -> [Answer; 2] {
    let forward = oracle::forward(inputs, Some(arithmetic));
    let saved = saved(&forward.outputs, found);
    let backward = oracle::backward(inputs, &saved, Some(arithmetic));
    [forward, backward]
}

/// The forward fields that the gradients are judged by: the candidate's own, element by element, where they can be used.
pub(crate) fn saved(oracle: &Outputs, found: &Outputs) -> Outputs {
    let mut saved = oracle.clone();
    for (field, values) in oracle.iter() {
        let Some(found) = found.get(field).filter(|found| found.shape() == values.shape()) else { continue };
        let target = saved.get_mut(field).expect("cloned from the oracle's");
        ndarray::Zip::from(target).and(found).for_each(|target, found| {
            if found.is_finite() && target.is_finite() {
                *target = *found;
            }
        });
    }
    saved
}
