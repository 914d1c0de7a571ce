//! The judgement of sampled rows: for problems too large to answer whole.

use ndarray::{Array2, ArrayD, Axis, IxDyn};
use nsa_corpus::{Arithmetic, Field, Inputs, Outputs};
use nsa_reference::oracle::{self, Sample, SampledField};

use super::expected::Expected;
use super::field::{Comparison, compare, has_shape};
use super::overflow::Overflows;

/// Judges the rows of `sample` alone, under the same budgets as [`super::judge`]: for problems too large to answer whole. One comparison
/// for each field that has sampled rows, whose `elements` are those that were compared.
///
/// The gradients follow from what `found` saved, at every row that attends to a sampled key. Something there that is not finite
/// makes them say nothing, so that is looked for first, by the caller ([`crate::relations`]). Without a saved `out` and `lse` of the
/// right shape they are not judged; those fields fail.
pub fn judge_sampled(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs, sample: &Sample) -> Vec<Comparison> {
    let mut rows = oracle::sampled_forward(inputs, sample, arithmetic);
    let mut forward = Field::ALL.into_iter().filter(|field| !field.is_gradient() && field.asked_by(inputs));
    if forward.all(|field| has_shape(field, found.get(field), &field.shape(inputs.shape())).is_ok()) {
        rows.extend(oracle::sampled_backward(inputs, found, sample, arithmetic));
    }
    let overflows = Overflows::of(inputs, arithmetic);
    rows.iter().map(|rows| compare_rows(inputs, arithmetic, &overflows, found, rows)).collect()
}

fn compare_rows(
    inputs: &Inputs,
    arithmetic: &Arithmetic,
    overflows: &Overflows,
    found: &Outputs,
    rows: &SampledField,
) -> Comparison {
    let field = rows.field;
    let (values, rigorous, likely) = (as_rows(&rows.values), as_rows(&rows.rigorous), as_rows(&rows.likely));
    let stored = arithmetic.stored(field);
    // No element is excused: these inputs are finite, or the caller has looked.
    let (overflow, reached) = (overflows.of_field(field, stored), None);
    let expected = Expected { values: &values, rigorous: &rigorous, likely: &likely, stored, overflow, reached };
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
