//! The judgement of one answer: every field against the oracle, under the budgets of the declared arithmetic.

use ndarray::{ArrayD, Axis};
use nsa_corpus::{Arithmetic, Field, Inputs, Outputs};
use nsa_reference::oracle::{self, Answer};

use crate::compare::{Comparison, Expected, compare};
use crate::verdict::Verdict;

/// Judges `found`, the answer of an implementation of `arithmetic` to `inputs`: one comparison for each field asked for.
///
/// The gradients are judged given the `out` and `lse` that the implementation itself saved, so that a forward error is not
/// charged again. Where those are unusable (missing, of another shape, not finite where the oracle is) the oracle's serve.
pub fn judge(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs) -> Vec<Comparison> {
    let answers = expected(inputs, arithmetic, found);
    answers.iter().flat_map(|answer| compare_fields(answer, arithmetic, found)).collect()
}

/// What `found` is judged by: the forward fields and the gradients, with their budgets.
pub(crate) fn expected(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs) -> [Answer; 2] {
    let forward = oracle::forward(inputs, Some(arithmetic));
    let saved = saved(&forward.outputs, found);
    let backward = oracle::backward(inputs, &saved, Some(arithmetic));
    [forward, backward]
}

/// The least and the greatest value that each element of `fields` may have, for an implementation of `arithmetic` that
/// answered `found`.
pub fn intervals(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs, fields: &[Field]) -> [Outputs; 2] {
    let mut ends = [Outputs::new(), Outputs::new()];
    for answer in &expected(inputs, arithmetic, found) {
        let budgets = &answer.bounds.as_ref().expect("asked for with an arithmetic").rigorous;
        for (field, values) in answer.outputs.iter().filter(|(field, _)| fields.contains(field)) {
            let budget = budgets.get(field).expect("every output has its bounds");
            ends[0].set(field, values - budget);
            ends[1].set(field, values + budget);
        }
    }
    ends
}

/// As [`judge`], for `tokens` alone and for the fields that `found` holds, whose rows belong to all tokens.
pub(crate) fn judge_tokens(
    inputs: &Inputs,
    arithmetic: &Arithmetic,
    found: &Outputs,
    tokens: &[usize],
) -> Vec<Comparison> {
    let forward = oracle::forward(inputs, Some(arithmetic));
    let saved = saved(&forward.outputs, found);
    let backward = oracle::backward(inputs, &saved, Some(arithmetic));
    [&forward, &backward].into_iter().flat_map(|answer| compare_tokens(answer, arithmetic, found, tokens)).collect()
}

/// Compares `tokens` of the fields that `found` holds; places are counted among those tokens.
pub(crate) fn compare_tokens(
    answer: &Answer,
    arithmetic: &Arithmetic,
    found: &Outputs,
    tokens: &[usize],
) -> Vec<Comparison> {
    let bounds = answer.bounds.as_ref().expect("asked for with an arithmetic");
    let rows = |tensor: &ArrayD<f64>| tensor.select(Axis(2), tokens);
    let compare_field = |(field, values): (Field, &ArrayD<f64>)| {
        let found = rows(found.get(field)?);
        let [values, rigorous, likely] =
            [Some(values), bounds.rigorous.get(field), bounds.likely.get(field)].map(|tensor| tensor.map(rows));
        let (values, rigorous, likely) = (values?, rigorous?, likely?);
        let expected =
            Expected { values: &values, rigorous: &rigorous, likely: &likely, stored: arithmetic.stored(field) };
        Some(compare(field, Some(&found), &expected))
    };
    answer.outputs.iter().filter_map(compare_field).collect()
}

fn compare_fields(answer: &Answer, arithmetic: &Arithmetic, found: &Outputs) -> Vec<Comparison> {
    let bounds = answer.bounds.as_ref().expect("asked for with an arithmetic");
    let compare_field = |(field, values): (Field, &ArrayD<f64>)| {
        let rigorous = bounds.rigorous.get(field).expect("every output has its bounds");
        let likely = bounds.likely.get(field).expect("every output has its bounds");
        let stored = arithmetic.stored(field);
        compare(field, found.get(field), &Expected { values, rigorous, likely, stored })
    };
    answer.outputs.iter().map(compare_field).collect()
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

/// The verdict of compared fields: the first failure in the order of fields, else whether any element is suspect.
pub fn verdict(comparisons: &[Comparison]) -> Verdict {
    if let Some(failure) = comparisons.iter().find_map(|comparison| comparison.failure.clone()) {
        return Verdict::Fail(failure);
    }
    match comparisons.iter().find(|comparison| comparison.suspect > 0) {
        Some(comparison) => {
            let worst = comparison.worst.as_ref().map(|worst| worst.describe(comparison.field)).unwrap_or_default();
            Verdict::Suspect(format!("{} of {} elements; {worst}", comparison.suspect, comparison.elements))
        }
        None => Verdict::Pass,
    }
}
