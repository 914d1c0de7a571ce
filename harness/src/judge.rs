//! The judgement of one answer: every field against the oracle, under the budgets of the declared arithmetic.

use ndarray::ArrayD;
use nsa_corpus::{Arithmetic, Field, Inputs, Outputs};
use nsa_reference::oracle::{self, Answer};

use crate::compare::{Comparison, Expected, compare};
use crate::verdict::Verdict;

/// Judges `found`, the answer of an implementation of `arithmetic` to `inputs`: one comparison for each field asked for.
///
/// The gradients are judged given the `out` and `lse` that the implementation itself saved, so that a forward error is not
/// charged again. Where those are unusable (missing, of another shape, not finite where the oracle is) the oracle's serve.
pub fn judge(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs) -> Vec<Comparison> {
    expected(inputs, arithmetic, found).iter().flat_map(|answer| compare_fields(answer, arithmetic, found)).collect()
}

/// The oracle's forward and backward, the latter given what `found` saved, with their budgets.
fn expected(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs) -> [Answer; 2] {
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
fn saved(oracle: &Outputs, found: &Outputs) -> Outputs {
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
