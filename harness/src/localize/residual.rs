//! Which elements of an answer are wrong.

use ndarray::{ArrayD, Dimension};
use nsa_corpus::{Arithmetic, Field, Inputs, Outputs};

use crate::judge::expected;

/// One field of an answer beside what was expected of it.
pub(super) struct Residual {
    pub field: Field,
    pub expected: ArrayD<f64>,
    pub budget: ArrayD<f64>,
    pub found: ArrayD<f64>,
    /// Indices of wrong elements, with error / budget.
    pub wrong: Vec<(Vec<usize>, f64)>,
}

impl Residual {
    /// The index of the worst element.
    pub(super) fn worst(&self) -> &[usize] {
        let worst = self.wrong.iter().max_by(|(_, left), (_, right)| left.total_cmp(right));
        worst.map_or(&[], |(index, _)| index)
    }

    /// The elements in which `answer` would be wrong.
    pub(super) fn against(&self, answer: Option<&ArrayD<f64>>) -> Vec<(Field, Vec<usize>)> {
        let Some(answer) = answer else { return Vec::new() };
        let other = residual(self.field, &self.expected, &self.budget, answer);
        other.wrong.into_iter().map(|(index, _)| (self.field, index)).collect()
    }
}

/// Every field that is present in the right shape; the others are wrong in a way that has no place.
pub(super) fn residuals(inputs: &Inputs, arithmetic: &Arithmetic, outputs: &Outputs) -> Vec<Residual> {
    let mut residuals = Vec::new();
    for answer in expected(inputs, arithmetic, outputs) {
        let bounds = answer.bounds.expect("asked for with an arithmetic");
        for (field, values) in answer.outputs.iter() {
            let Some(found) = outputs.get(field).filter(|found| found.shape() == values.shape()) else { continue };
            let budget = bounds.rigorous.get(field).expect("every output has its bounds");
            residuals.push(residual(field, values, budget, found));
        }
    }
    residuals
}

fn residual(field: Field, expected: &ArrayD<f64>, budget: &ArrayD<f64>, found: &ArrayD<f64>) -> Residual {
    let mut wrong = Vec::new();
    for (index, expected) in expected.indexed_iter() {
        let ratio = excess(*expected, found[&index], budget[&index]);
        if !(ratio <= 1.0) {
            wrong.push((index.as_array_view().to_vec(), ratio));
        }
    }
    Residual { field, expected: expected.clone(), budget: budget.clone(), found: found.clone(), wrong }
}

/// Error / budget; 0 where both are equal or neither is finite, infinite where one alone is.
pub(super) fn excess(expected: f64, found: f64, budget: f64) -> f64 {
    if found == expected || budget == f64::INFINITY || (!found.is_finite() && !expected.is_finite()) {
        return 0.0;
    }
    if !found.is_finite() || !expected.is_finite() {
        return f64::INFINITY;
    }
    let error = (found - expected).abs();
    if budget > 0.0 { error / budget } else { f64::INFINITY }
}
