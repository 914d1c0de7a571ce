//! The judgement of one answer: every field against the oracle, under the budgets of the declared arithmetic.

use ndarray::{Array2, ArrayD, Axis, IxDyn};
use nsa_corpus::{Arithmetic, Field, Inputs, Outputs};
use nsa_reference::oracle::{self, Answer, Bounds, Sample, SampledField};

use crate::compare::{Comparison, Expected, compare, has_shape};
use crate::unconditional;
use crate::verdict::Verdict;

/// Judges `found`, the answer of an implementation of `arithmetic` to `inputs`: one comparison for each field asked for.
///
/// The gradients are judged given the `out` and `lse` that the implementation itself saved, so that a forward error is not
/// charged again, and once more for their distance from the oracle's own gradients ([`unconditional`]). Where `out` or `lse` are
/// unusable (missing, of another shape, not finite where the oracle is) the oracle's serve, and the budgets allow for all that
/// may have been saved.
pub fn judge(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs) -> Vec<Comparison> {
    let answers = expected(inputs, arithmetic, found);
    let mut comparisons: Vec<_> = answers.iter().flat_map(|answer| compare_fields(answer, arithmetic, found)).collect();
    unconditional::hold(inputs, arithmetic, &answers, found, &mut comparisons);
    comparisons
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

/// Judges the rows of `sample` alone, under the same budgets as [`judge`]: for problems too large to answer whole. One comparison
/// for each field that has sampled rows, whose `elements` are those that were compared.
///
/// The gradients follow from what `found` saved, at every row that attends to a sampled key. Something there that is not finite
/// makes them say nothing, so that is looked for first, by the caller ([`crate::large`]). Without a saved `out` and `lse` of the
/// right shape they are not judged; those fields fail.
pub fn judge_sampled(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs, sample: &Sample) -> Vec<Comparison> {
    let mut rows = oracle::sampled_forward(inputs, sample, arithmetic);
    let mut forward = Field::ALL.into_iter().filter(|field| !field.is_gradient() && field.asked_by(inputs));
    if forward.all(|field| has_shape(field, found.get(field), &field.shape(inputs.shape())).is_ok()) {
        rows.extend(oracle::sampled_backward(inputs, found, sample, arithmetic));
    }
    rows.iter().map(|rows| compare_rows(inputs, arithmetic, found, rows)).collect()
}

fn compare_rows(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs, rows: &SampledField) -> Comparison {
    let field = rows.field;
    let (values, rigorous, likely) = (as_rows(&rows.values), as_rows(&rows.rigorous), as_rows(&rows.likely));
    let stored = arithmetic.stored(field);
    let expected = Expected { values: &values, rigorous: &rigorous, likely: &likely, stored };
    let found = match has_shape(field, found.get(field), &field.shape(inputs.shape())) {
        Ok(found) => as_rows(&sampled(found, &rows.positions)),
        Err(failure) => return Comparison { failure: Some(failure), ..compare(field, None, &expected) },
    };
    let mut comparison = compare(field, Some(&found), &expected);
    if let Some(worst) = &mut comparison.worst {
        // From `[0, 0, row, column]` of the rows to `[b, head, token, column]` of the field.
        let [row, column] = [worst.index[2], worst.index[3]];
        worst.index = rows.positions[row].into_iter().chain([column]).take(field.axes().len()).collect();
        if let Some(failure) = &mut comparison.failure {
            failure.message = worst.describe(field);
        }
    }
    comparison
}

/// The rows of a field at `positions`, `[row, width]`.
pub(crate) fn sampled(field: &ArrayD<f64>, positions: &[[usize; 3]]) -> Array2<f64> {
    let width = field.shape().get(3).copied().unwrap_or(1);
    let values = positions.iter().flat_map(|[b, head, i]| {
        let row = field.index_axis(Axis(0), *b).index_axis_move(Axis(0), *head).index_axis_move(Axis(0), *i);
        row.iter().copied().collect::<Vec<f64>>()
    });
    Array2::from_shape_vec((positions.len(), width), values.collect()).expect("rows are whole")
}

/// Rows along the axis that a field has them along.
fn as_rows(rows: &Array2<f64>) -> ArrayD<f64> {
    let (count, width) = rows.dim();
    rows.clone().into_shape_with_order(IxDyn(&[1, 1, count, width])).expect("the same elements")
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

/// The verdict of compared fields: the first failure in the order of fields, else whether any element is suspect.
pub fn verdict(comparisons: &[Comparison]) -> Verdict {
    if let Some(failure) = comparisons.iter().find_map(|comparison| comparison.failure.clone()) {
        return Verdict::Fail(failure);
    }
    match comparisons.iter().find(|comparison| comparison.suspect > 0) {
        Some(comparison) => {
            let worst = comparison.worst.as_ref().map(|worst| worst.describe(comparison.field));
            let far = comparison.unconditional.as_ref().map(|far| far.describe(comparison.field));
            let worst = far.or(worst).unwrap_or_default();
            Verdict::Suspect(format!("{} of {} elements; {worst}", comparison.suspect, comparison.elements))
        }
        None => Verdict::Pass,
    }
}
