//! What an answer is held to: the oracle's forward, its gradients given what the implementation itself saved, and the budgets.

use std::borrow::Cow;

use nsa_corpus::{Arithmetic, Field, Inputs, Outputs};
use nsa_reference::oracle::{self, Answer, Bounds};

use super::expected::Expected;
use super::field::Comparison;
use super::overflow::Overflows;
use super::reach::Reach;
use super::unconditional::far;
use crate::candidate::Declaration;

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
            answers: expected(inputs, &declaration.arithmetic, &computed(found, declaration)),
            overflows: Overflows::of(inputs, &declaration.arithmetic),
            reach,
        }
    }

    /// Holds the gradients of `found` to the oracle's own too ([`super::unconditional`]).
    pub(crate) fn look_again(&self, inputs: &Inputs, found: &Outputs, comparisons: &mut [Comparison]) {
        let found = computed(found, self.declaration);
        hold_to_own(inputs, &self.declaration.arithmetic, &self.answers, &found, comparisons);
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
    let backward = match unknown(&forward, found) {
        Some(off) => oracle::backward_near(inputs, &saved, &off, arithmetic),
        None => oracle::backward(inputs, &saved, Some(arithmetic)),
    };
    [forward, backward]
}

/// The forward fields that the gradients are judged by: the candidate's own, element by element, where they can be used.
pub(crate) fn saved(oracle: &Outputs, found: &Outputs) -> Outputs {
    let mut saved = oracle.clone();
    for (field, values) in oracle.iter() {
        let Some(found) = found.get(field).filter(|found| found.shape() == values.shape()) else { continue };
        let target = saved.get_mut(field).expect("cloned from the oracle's");
        ndarray::Zip::from(target).and(found).for_each(|target, found| {
            if usable(*found, *target) {
                *target = *found;
            }
        });
    }
    saved
}

/// Whether a saved element can take the place of the oracle's.
fn usable(found: f64, oracle: f64) -> bool {
    found.is_finite() && oracle.is_finite()
}

/// How far the candidate's own forward may be from what [`saved`] gives: the forward's budgets where the oracle's elements serve,
/// 0 elsewhere. `None` where nothing of it is unknown.
fn unknown(forward: &Answer, found: &Outputs) -> Option<Bounds> {
    let mut off = forward.bounds.clone().expect("asked for with an arithmetic");
    let mut any = false;
    for (field, values) in forward.outputs.iter() {
        let found = found.get(field).filter(|found| found.shape() == values.shape());
        for tier in [&mut off.rigorous, &mut off.likely] {
            for (at, off) in tier.get_mut(field).expect("every output has its bounds").indexed_iter_mut() {
                // Where the oracle itself is not finite there is nothing to be near to.
                let known = !values[&at].is_finite() || found.is_some_and(|found| usable(found[&at], values[&at]));
                any |= !known;
                *off = if known { 0.0 } else { *off };
            }
        }
    }
    any.then_some(off)
}

/// The fields of `found` that its implementation declares that it computes: gradients do not follow from another one.
fn computed<'a>(found: &'a Outputs, declaration: &Declaration) -> Cow<'a, Outputs> {
    let other = |field: &Field| found.get(*field).is_some() && !declaration.computes(*field);
    let others: Vec<Field> = Field::ALL.into_iter().filter(other).collect();
    if others.is_empty() {
        return Cow::Borrowed(found);
    }
    let mut found = found.clone();
    others.into_iter().for_each(|field| drop(found.take(field)));
    Cow::Owned(found)
}

/// Whether `found` saved anything of `forward` that its gradients could be judged by.
fn saved_any(forward: &Outputs, found: &Outputs) -> bool {
    forward.iter().any(|(field, values)| found.get(field).is_some_and(|found| found.shape() == values.shape()))
}

/// Holds the gradients of `found` to the oracle's own, as well as to what they were compared with. `answers` are the forward and
/// the gradients given what was saved, `comparisons` what came of them: where anything failed there, nothing is added.
fn hold_to_own(
    inputs: &Inputs,
    arithmetic: &Arithmetic,
    [forward, given_saved]: &[Answer; 2],
    found: &Outputs,
    comparisons: &mut [Comparison],
) {
    let failed =
        comparisons.iter().any(|comparison| comparison.failure.is_some() && found.get(comparison.field).is_some());
    if failed || !inputs.cotangents().any() || !saved_any(&forward.outputs, found) {
        return;
    }
    let off = forward.bounds.as_ref().expect("asked for with an arithmetic");
    let own = oracle::backward_near(inputs, &forward.outputs, off, arithmetic);
    for comparison in comparisons.iter_mut().filter(|comparison| comparison.field.is_gradient()) {
        let Some(values) = found.get(comparison.field) else { continue };
        comparison.unconditional = far(comparison.field, given_saved, &own, values);
        comparison.suspect += comparison.unconditional.as_ref().map_or(0, |far| far.elements);
    }
}
