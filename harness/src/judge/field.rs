//! One field of an answer beside the oracle's, element by element: none is left out, and NaN never passes.

use ndarray::{ArrayD, Dimension, IxDyn};
use nsa_corpus::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::budget_use::BudgetUse;
use super::element::{Held, Outcome, position};
use super::expected::Expected;
use super::sensitivity::Sensitivity;
use super::unconditional::Unconditional;
use crate::judge::verdict::{Class, Failure, NotJudged};

/// A field compared whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// The field.
    pub field: Field,
    /// Elements compared: all of them.
    pub elements: usize,
    /// Elements above the rigorous budget, or not finite where they should be (or the reverse).
    pub failed: usize,
    /// Elements above a likely budget and within the rigorous one.
    pub suspect: usize,
    /// Elements that are NaN where they should be finite, and that `0 * NaN` explains: neither right nor failed.
    #[serde(default)]
    pub excused: usize,
    /// Elements for which the declared arithmetic promises nothing, whatever was found there.
    pub not_judged: usize,
    /// The element with the largest error / budget, if any element differs.
    pub worst: Option<Worst>,
    /// Of a gradient, the suspect elements that only the distance from the oracle's own gradient makes so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconditional: Option<Unconditional>,
    /// The first reason to fail.
    pub failure: Option<Failure>,
    /// How much of the budgets the errors take; reports hold the sums over all cases instead.
    #[serde(skip)]
    pub budget_use: BudgetUse,
    /// What the check could have caught, and which injected faults would have passed it.
    #[serde(default)]
    pub sensitivity: Sensitivity,
}

/// The worst element of a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Worst {
    /// Its position, one number for each axis of the field.
    pub index: Vec<usize>,
    /// The oracle's value.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub expected: f64,
    /// The candidate's value.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub found: f64,
    /// `|found - expected|`.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub error: f64,
    /// Tier B.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub budget: f64,
    /// `error / budget`; infinite where the classes differ.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub ratio: f64,
}

/// Compares `found` with what was expected of `field`. A missing field, or one of another shape, fails.
pub fn compare(field: Field, found: Option<&ArrayD<f64>>, expected: &Expected<'_>) -> Comparison {
    let mut comparison = Comparison::new(field, expected);
    match has_shape(field, found, expected.values.shape()) {
        Ok(found) => {
            for (index, &found) in found.indexed_iter() {
                comparison.add(&index, &expected.held(field, &index), found);
            }
            assert_eq!(comparison.elements, expected.values.len(), "every element is compared");
        }
        Err(failure) => {
            comparison.failed = expected.values.len();
            comparison.failure = Some(failure);
        }
    }
    comparison
}

/// The tensor of `field`, where it is there in this shape.
pub(crate) fn has_shape<'a>(
    field: Field,
    found: Option<&'a ArrayD<f64>>,
    shape: &[usize],
) -> Result<&'a ArrayD<f64>, Failure> {
    let message = match found {
        Some(found) if found.shape() == shape => return Ok(found),
        None => format!("{field} is missing; expected shape {shape:?}"),
        Some(found) => format!("{field} has shape {:?}, expected {shape:?}", found.shape()),
    };
    Err(Failure::new(Class::Shape, Some(field), message))
}

impl Comparison {
    fn new(field: Field, expected: &Expected<'_>) -> Self {
        Comparison {
            field,
            elements: 0,
            failed: 0,
            suspect: 0,
            excused: 0,
            not_judged: 0,
            worst: None,
            unconditional: None,
            failure: None,
            budget_use: BudgetUse::default(),
            sensitivity: Sensitivity::of(field, expected),
        }
    }

    fn add(&mut self, index: &IxDyn, held: &Held, found: f64) {
        self.elements += 1;
        self.not_judged += usize::from(held.unpromised());
        let (outcome, ratio) = (held.judge(found), held.ratio(found, held.rigorous));
        if held.measures(found) && outcome != Outcome::Excused {
            self.budget_use.add(ratio, held.ratio(found, held.likely));
        } else {
            self.budget_use.excluded += 1;
        }
        self.suspect += usize::from(outcome == Outcome::Suspect);
        self.excused += usize::from(outcome == Outcome::Excused);
        let largest = ratio > self.worst.as_ref().map_or(0.0, |worst| worst.ratio);
        if !largest && !outcome.is_wrong() {
            return;
        }
        let error = (found - held.expected).abs();
        let (index, budget) = (index.as_array_view().to_vec(), held.rigorous);
        let worst = Worst { index, expected: held.expected, found, error, budget, ratio };
        match outcome {
            Outcome::OverBudget => self.fail(Class::OverBudget, &worst),
            Outcome::NonFinite => self.fail(Class::NonFinite, &worst),
            _ => {}
        }
        if largest {
            self.worst = Some(worst);
        }
    }

    /// Why a field in which nothing failed says nothing all the same: what is wrong with it could not have been seen.
    pub fn inconclusive(&self) -> Option<NotJudged> {
        if self.failure.is_some() {
            return None;
        }
        if self.elements == 0 {
            return Some(NotJudged::Empty);
        }
        if self.not_judged == self.elements {
            return Some(NotJudged::Excluded);
        }
        self.sensitivity.mostly_blind().then_some(NotJudged::AboveSignal)
    }

    /// Whether every right value is 0, and something is promised of each: an answer of zeros is right.
    pub fn all_zero(&self) -> bool {
        self.elements > 0 && self.sensitivity.weighed == 0
    }

    /// Non-finite elements outrank those over budget, and the worst of a class is named.
    fn fail(&mut self, class: Class, worst: &Worst) {
        self.failed += 1;
        let outranked = self.failure.as_ref().is_some_and(|failure| {
            failure.class == Class::NonFinite
                || class == failure.class && self.worst.as_ref().is_some_and(|w| w.ratio >= worst.ratio)
        });
        if !outranked {
            let message = worst.describe(self.field);
            self.failure = Some(Failure::new(class, Some(self.field), message));
        }
    }
}

impl Worst {
    /// The element in words, with both values.
    pub fn describe(&self, field: Field) -> String {
        format!(
            "{field} at {}: expected {:e}, found {:e}, error {:.3e}, budget {:.3e} (error / budget {:.3})",
            position(field, &self.index),
            self.expected,
            self.found,
            self.error,
            self.budget,
            self.ratio
        )
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr1;
    use nsa_corpus::Dtype;

    use super::super::overflow::Overflow;
    use super::*;

    fn compared(expected: f64, found: f64, budget: f64) -> Comparison {
        let tensor = |value| arr1(&[value]).into_dyn();
        let (values, rigorous, likely) = (tensor(expected), tensor(budget), tensor(budget / 2.0));
        let expected = Expected {
            values: &values,
            rigorous: &rigorous,
            likely: &likely,
            stored: Dtype::F16,
            overflow: Overflow::Nowhere,
            reached: None,
        };
        compare(Field::Lse, Some(&tensor(found)), &expected)
    }

    fn class(comparison: &Comparison) -> Option<Class> {
        comparison.failure.as_ref().map(|failure| failure.class)
    }

    #[test]
    fn an_error_within_the_budget_passes_and_one_above_it_fails() {
        assert_eq!(class(&compared(1.0, 1.04, 0.1)), None);
        assert_eq!(compared(1.0, 1.04, 0.1).suspect, 0);
        assert_eq!(compared(1.0, 1.08, 0.1).suspect, 1);
        assert_eq!(class(&compared(1.0, 1.2, 0.1)), Some(Class::OverBudget));
        assert_eq!(class(&compared(0.0, 1e-300, 0.0)), Some(Class::OverBudget));
    }

    #[test]
    fn nan_never_passes_where_the_oracle_is_finite() {
        assert_eq!(class(&compared(1.0, f64::NAN, 1e300)), Some(Class::NonFinite));
        assert_eq!(class(&compared(1.0, f64::INFINITY, 0.1)), Some(Class::NonFinite));
        assert_eq!(class(&compared(f64::NAN, 1.0, 0.1)), Some(Class::NonFinite));
        assert_eq!(class(&compared(f64::NEG_INFINITY, -1e30, 0.1)), Some(Class::NonFinite));
        assert_eq!(class(&compared(f64::NEG_INFINITY, f64::NAN, 0.1)), Some(Class::NonFinite));
        assert_eq!(class(&compared(f64::NEG_INFINITY, f64::NEG_INFINITY, 0.0)), None);
        assert_eq!(class(&compared(f64::NAN, f64::INFINITY, 0.1)), None);
    }

    #[test]
    fn an_infinity_is_right_only_where_the_stored_format_overflows() {
        assert_eq!(class(&compared(65_519.0, f64::INFINITY, 10.0)), None);
        assert_eq!(class(&compared(65_519.0, f64::NEG_INFINITY, 10.0)), Some(Class::NonFinite));
        assert_eq!(class(&compared(60_000.0, f64::INFINITY, 10.0)), Some(Class::NonFinite));
    }

    #[test]
    fn a_missing_field_and_another_shape_fail() {
        let one = arr1(&[1.0]).into_dyn();
        let expected = Expected {
            values: &one,
            rigorous: &one,
            likely: &one,
            stored: Dtype::F32,
            overflow: Overflow::Nowhere,
            reached: None,
        };
        assert_eq!(class(&compare(Field::Out, None, &expected)), Some(Class::Shape));
        let two = arr1(&[1.0, 1.0]).into_dyn();
        let comparison = compare(Field::Out, Some(&two), &expected);
        assert!(comparison.failure.unwrap().message.contains("[2], expected [1]"));
    }
}
