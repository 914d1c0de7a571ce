//! One field of an answer beside the oracle's, element by element: none is left out, and NaN never passes.

use ndarray::{ArrayD, Dimension, IxDyn};
use nsa_corpus::{Element, Field};
use serde::{Deserialize, Serialize};

use crate::tightness::Tightness;
use crate::unconditional::Unconditional;
use crate::vacuity::Sensitivity;
use crate::verdict::{Class, Failure};

/// What a field is compared with.
pub struct Expected<'a> {
    /// The oracle's values.
    pub values: &'a ArrayD<f64>,
    /// Tier B, absolute.
    pub rigorous: &'a ArrayD<f64>,
    /// Tier H, absolute.
    pub likely: &'a ArrayD<f64>,
    /// The format that the implementation stores this field in.
    pub stored: Element,
}

/// A field compared whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The field.
    pub field: Field,
    /// Elements compared: all of them.
    pub elements: usize,
    /// Elements above the rigorous budget, or not finite where they should be (or the reverse).
    pub failed: usize,
    /// Elements above a likely budget and within the rigorous one.
    pub suspect: usize,
    /// Of the failed ones, those that are NaN where the oracle is finite.
    pub leaked: usize,
    /// Elements for which the declared arithmetic promises nothing.
    pub unbounded: usize,
    /// The element with the largest error / budget, if any element differs.
    pub worst: Option<Worst>,
    /// Of a gradient, the suspect elements that only the distance from the oracle's own gradient makes so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconditional: Option<Unconditional>,
    /// The first reason to fail.
    pub failure: Option<Failure>,
    /// How much of the budgets the errors take; reports hold the sums over all cases instead.
    #[serde(skip)]
    pub tightness: Tightness,
    /// What the check could have caught, and which injected faults would have passed it.
    #[serde(default)]
    pub sensitivity: Sensitivity,
}

/// The worst element of a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// Its position, one number for each axis of the field.
    pub index: Vec<usize>,
    /// The oracle's value.
    #[serde(with = "crate::number")]
    pub expected: f64,
    /// The candidate's value.
    #[serde(with = "crate::number")]
    pub found: f64,
    /// `|found - expected|`.
    #[serde(with = "crate::number")]
    pub error: f64,
    /// Tier B.
    #[serde(with = "crate::number")]
    pub budget: f64,
    /// `error / budget`; infinite where the classes differ.
    #[serde(with = "crate::number")]
    pub ratio: f64,
}

/// How one element compares.
enum Judged {
    Fine,
    /// Within the rigorous budget, above the likely one.
    Suspect,
    /// No promise was made for it.
    Unbounded,
    Over,
    NonFinite,
}

/// Compares `found` with what was expected of `field`. A missing field, or one of another shape, fails.
pub fn compare(field: Field, found: Option<&ArrayD<f64>>, expected: &Expected<'_>) -> Comparison {
    let mut comparison = Comparison::new(field, expected);
    match has_shape(field, found, expected.values.shape()) {
        Ok(found) => {
            for (index, &value) in expected.values.indexed_iter() {
                comparison.add(&index, value, found[&index], expected);
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
    Err(Failure { class: Class::Shape, field: Some(field), message })
}

impl Comparison {
    fn new(field: Field, expected: &Expected<'_>) -> Self {
        Comparison {
            field,
            elements: 0,
            failed: 0,
            suspect: 0,
            leaked: 0,
            unbounded: 0,
            worst: None,
            unconditional: None,
            failure: None,
            tightness: Tightness::default(),
            sensitivity: Sensitivity::of(field, expected),
        }
    }

    fn add(&mut self, index: &IxDyn, value: f64, found: f64, expected: &Expected<'_>) {
        self.elements += 1;
        let (budget, likely) = (expected.rigorous[index], expected.likely[index]);
        let judged = judge(self.field, value, found, [budget, likely], expected.stored);
        let error = (found - value).abs();
        let ratio_to = |budget: f64| match judged {
            Judged::NonFinite => f64::INFINITY,
            _ if found == value || !error.is_finite() || budget == f64::INFINITY => 0.0,
            _ => error / budget,
        };
        let ratio = ratio_to(budget);
        if value.is_finite() && budget < f64::INFINITY && !(error == f64::INFINITY && matches!(judged, Judged::Fine)) {
            self.tightness.add(ratio, ratio_to(likely));
        } else {
            self.tightness.apart += 1;
        }
        if matches!(judged, Judged::Fine) && !(ratio > self.worst.as_ref().map_or(0.0, |worst| worst.ratio)) {
            return;
        }
        let worst = Worst { index: index.as_array_view().to_vec(), expected: value, found, error, budget, ratio };
        match judged {
            Judged::Fine => {}
            Judged::Suspect => self.suspect += 1,
            Judged::Unbounded => self.unbounded += 1,
            Judged::Over => self.fail(Class::OverBudget, &worst),
            Judged::NonFinite => {
                self.leaked += usize::from(value.is_finite() && found.is_nan());
                self.fail(Class::NonFinite, &worst);
            }
        }
        if ratio > self.worst.as_ref().map_or(0.0, |worst| worst.ratio) {
            self.worst = Some(worst);
        }
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
            self.failure = Some(Failure { class, field: Some(self.field), message });
        }
    }
}

/// Whether `found` fails in the place of `expected` under tier B.
pub(crate) fn rejects(field: Field, expected: f64, found: f64, budget: f64, stored: Element) -> bool {
    matches!(judge(field, expected, found, [budget; 2], stored), Judged::Over | Judged::NonFinite)
}

/// The rule for one element. `budgets` are tiers B and H.
fn judge(field: Field, expected: f64, found: f64, [budget, likely]: [f64; 2], stored: Element) -> Judged {
    if expected == f64::NEG_INFINITY && matches!(field, Field::Lse | Field::SlidingLse) {
        // A row without keys has lse -inf, and nothing else will do.
        return if found == expected { Judged::Fine } else { Judged::NonFinite };
    }
    if !expected.is_finite() {
        // Which non-finite value it is may differ between correct programs.
        return if found.is_finite() { Judged::NonFinite } else { Judged::Fine };
    }
    if found == expected {
        return Judged::Fine;
    }
    if budget == f64::INFINITY {
        return Judged::Unbounded;
    }
    if !found.is_finite() {
        // What is within the budget on the side of the infinity; where the budget is larger than the value, either side.
        let reach = expected * found.signum() + budget;
        let overflow = found.is_infinite() && reach >= stored.max() * (1.0 + 0.5 * stored.unit_roundoff());
        return if overflow { Judged::Fine } else { Judged::NonFinite };
    }
    let error = (found - expected).abs();
    if !(error <= budget) {
        Judged::Over
    } else if error <= likely {
        Judged::Fine
    } else {
        Judged::Suspect
    }
}

/// `batch 0, q_head 1, token 2`: a position in words.
pub(crate) fn place(field: Field, index: &[usize]) -> String {
    let places: Vec<String> = field.axes().iter().zip(index).map(|(axis, index)| format!("{axis} {index}")).collect();
    places.join(", ")
}

impl Worst {
    /// The element in words, with both values.
    pub fn describe(&self, field: Field) -> String {
        format!(
            "{field} at {}: expected {:e}, found {:e}, error {:.3e}, budget {:.3e} (error / budget {:.3})",
            place(field, &self.index),
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

    use super::*;

    fn compared(expected: f64, found: f64, budget: f64) -> Comparison {
        let tensor = |value| arr1(&[value]).into_dyn();
        let (values, rigorous, likely) = (tensor(expected), tensor(budget), tensor(budget / 2.0));
        let expected = Expected { values: &values, rigorous: &rigorous, likely: &likely, stored: Element::F16 };
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
        let expected = Expected { values: &one, rigorous: &one, likely: &one, stored: Element::F32 };
        assert_eq!(class(&compare(Field::Out, None, &expected)), Some(Class::Shape));
        let two = arr1(&[1.0, 1.0]).into_dyn();
        let comparison = compare(Field::Out, Some(&two), &expected);
        assert!(comparison.failure.unwrap().message.contains("[2], expected [1]"));
    }
}
