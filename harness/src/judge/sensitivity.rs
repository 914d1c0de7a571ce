//! What a check could have caught: faults are injected into the oracle's own answer and judged as a candidate's would be.
//!
//! A field that is all zeros accepts zeros, one row cannot be swapped, an infinite budget accepts anything. Such a check is
//! green and says nothing: it is vacuous for that fault, with a reason, and counted.

use std::collections::BTreeMap;
use std::fmt;

use nsa_corpus::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::element::Held;
use super::expected::Expected;

/// A fault in a whole field, injected into the expected values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Perturbation {
    /// Every element is 0: nothing was written, or to another place.
    Zeros,
    /// Every element has the other sign.
    SignFlip,
    /// The rows of tokens (or keys) 0 and 1, 2 and 3, and so on are exchanged.
    SwappedRows,
    /// Every element is 1 % too large.
    Gain,
}

impl Perturbation {
    /// Every fault.
    pub const ALL: [Perturbation; 4] =
        [Perturbation::Zeros, Perturbation::SignFlip, Perturbation::SwappedRows, Perturbation::Gain];
}

impl fmt::Display for Perturbation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Perturbation::Zeros => "zeros",
            Perturbation::SignFlip => "sign flip",
            Perturbation::SwappedRows => "swapped rows",
            Perturbation::Gain => "1 % gain",
        })
    }
}

/// Why an injected fault was not rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The field has no elements.
    Empty,
    /// Every finite expected element is 0: the fault changes nothing.
    AllZero,
    /// There is one row: nothing to swap.
    OneRow,
    /// Adjacent rows are equal: swapping them changes nothing.
    EqualRows,
    /// No expected element is finite, and which non-finite value it is may differ.
    NotFinite,
    /// What the fault changes has no finite budget.
    NotJudged,
    /// What the fault changes stays within its budget.
    WithinBudget,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Empty => "the field has no elements",
            Reason::AllZero => "every finite expected element is 0",
            Reason::OneRow => "there is one row",
            Reason::EqualRows => "adjacent rows are equal",
            Reason::NotFinite => "no expected element is finite",
            Reason::NotJudged => "nothing is promised of what it changes",
            Reason::WithinBudget => "it stays within the budget",
        })
    }
}

/// What the check of one field of one case could have caught.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sensitivity {
    /// The smallest error of a single element that is rejected: anything above this. `None`: no element has a finite budget.
    pub shift: Option<f64>,
    /// The smallest gain of the whole field, or of a single element, that is rejected: anything above this. `None`: no
    /// element with a finite budget differs from 0.
    pub gain: Option<f64>,
    /// The injected faults that would have passed, each with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vacuous: BTreeMap<Perturbation, Reason>,
    /// Elements that are not 0, or of which nothing is promised; a 0 with a budget, or that has to be exactly 0, is none of these.
    #[serde(default)]
    pub weighed: usize,
    /// Of these, the ones that would pass as 0.
    #[serde(default)]
    pub blind: usize,
}

impl Sensitivity {
    /// What a comparison of `field` with `expected` can catch.
    pub(crate) fn of(field: Field, expected: &Expected<'_>) -> Self {
        let [values, budgets] = [expected.values, expected.rigorous].map(|tensor| tensor.as_standard_layout());
        let slices = [values.as_slice(), budgets.as_slice()].map(|slice| slice.expect("put into standard layout"));
        let check = Check::new(field, expected, slices);
        let mut sensitivity = Sensitivity::default();
        let smallest =
            |least: &mut Option<f64>, value: f64| *least = Some(least.map_or(value, |least| least.min(value)));
        for (value, budget) in check.values.iter().zip(check.budgets) {
            if value.is_finite() && budget.is_finite() {
                smallest(&mut sensitivity.shift, *budget);
                if *value != 0.0 {
                    smallest(&mut sensitivity.gain, budget / value.abs());
                }
            }
        }
        let held = (0..check.values.len()).map(|at| check.held(at));
        for held in held.filter(|held| held.expected != 0.0 || held.unpromised()) {
            sensitivity.weighed += 1;
            sensitivity.blind += usize::from(held.blind());
        }
        let passed =
            Perturbation::ALL.into_iter().filter_map(|perturbation| Some((perturbation, check.passes(perturbation)?)));
        sensitivity.vacuous = passed.collect();
        sensitivity
    }

    /// Whether most elements that are not 0 would pass as 0: the budget is above the signal.
    pub fn mostly_blind(&self) -> bool {
        2 * self.blind > self.weighed
    }
}

/// The expected values of a field as slices, in index order.
struct Check<'a> {
    field: Field,
    expected: &'a Expected<'a>,
    values: &'a [f64],
    budgets: &'a [f64],
    /// Rows along axis 2 (token or key), and the width of one.
    rows: usize,
    width: usize,
}

impl<'a> Check<'a> {
    fn new(field: Field, expected: &'a Expected<'a>, [values, budgets]: [&'a [f64]; 2]) -> Self {
        let shape = expected.values.shape();
        Check {
            field,
            expected,
            values,
            budgets,
            rows: shape.get(2).copied().unwrap_or(1),
            width: shape.get(3..).unwrap_or_default().iter().product(),
        }
    }

    /// What element `at` is held to; `0 * NaN` is no excuse for an injected fault.
    fn held(&self, at: usize) -> Held {
        let Expected { stored, overflow, .. } = *self.expected;
        let (rigorous, likely) = (self.budgets[at], self.budgets[at]);
        Held { field: self.field, expected: self.values[at], rigorous, likely, stored, overflow, reached: false }
    }

    /// `None` where the check rejects the fault, else why it does not.
    fn passes(&self, perturbation: Perturbation) -> Option<Reason> {
        let rejected = (0..self.values.len()).any(|at| {
            let found = self.perturbed(perturbation, at);
            found != self.values[at] && self.held(at).judge(found).is_wrong()
        });
        if rejected { None } else { Some(self.reason(perturbation)) }
    }

    /// What the fault makes of element `at`.
    fn perturbed(&self, perturbation: Perturbation, at: usize) -> f64 {
        match perturbation {
            Perturbation::Zeros => 0.0,
            Perturbation::SignFlip => -self.values[at],
            Perturbation::Gain => 1.01 * self.values[at],
            Perturbation::SwappedRows => {
                let row = at / self.width % self.rows;
                let other = if row.is_multiple_of(2) { at + self.width } else { at - self.width };
                if row.is_multiple_of(2) && row + 1 == self.rows { self.values[at] } else { self.values[other] }
            }
        }
    }

    fn reason(&self, perturbation: Perturbation) -> Reason {
        let changed: Vec<usize> = (0..self.values.len()).filter(|at| self.changed(perturbation, *at)).collect();
        let swapped = perturbation == Perturbation::SwappedRows;
        if self.values.is_empty() {
            Reason::Empty
        } else if self.values.iter().all(|value| *value == 0.0) {
            Reason::AllZero
        } else if !self.values.iter().any(|value| value.is_finite()) {
            Reason::NotFinite
        } else if changed.is_empty() {
            match (swapped, self.rows) {
                (true, 1) => Reason::OneRow,
                (true, _) => Reason::EqualRows,
                (false, _) => Reason::AllZero,
            }
        } else if changed.iter().all(|at| self.held(*at).unpromised() || !self.values[*at].is_finite()) {
            Reason::NotJudged
        } else {
            Reason::WithinBudget
        }
    }

    /// Whether the fault makes another number of element `at`; another NaN, or another sign of 0, is none.
    fn changed(&self, perturbation: Perturbation, at: usize) -> bool {
        let (value, found) = (self.values[at], self.perturbed(perturbation, at));
        value != found && !(value.is_nan() && found.is_nan())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use nsa_corpus::Dtype;

    use super::super::overflow::Overflow;
    use super::*;

    /// The sensitivity of an lse `[1, 1, n]` of these values and budgets.
    fn of(values: &[f64], budgets: &[f64]) -> Sensitivity {
        let tensor = |values: &[f64]| Array3::from_shape_vec((1, 1, values.len()), values.to_vec()).unwrap().into_dyn();
        let (values, budgets) = (tensor(values), tensor(budgets));
        let expected = Expected {
            values: &values,
            rigorous: &budgets,
            likely: &budgets,
            stored: Dtype::F32,
            overflow: Overflow::Nowhere,
            reached: None,
        };
        Sensitivity::of(Field::Lse, &expected)
    }

    fn reasons(sensitivity: &Sensitivity) -> [Option<Reason>; 4] {
        Perturbation::ALL.map(|perturbation| sensitivity.vacuous.get(&perturbation).copied())
    }

    #[test]
    fn an_ordinary_check_catches_every_perturbation_and_says_the_smallest() {
        let sensitivity = of(&[1.0, -2.0, 4.0], &[0.005, 0.1, 0.1]);
        assert_eq!(reasons(&sensitivity), [None; 4]);
        assert_eq!((sensitivity.shift, sensitivity.gain), (Some(0.005), Some(0.005)));
        assert_eq!(of(&[1.0, 8.0], &[0.5, 0.1]).gain, Some(0.0125));
    }

    #[test]
    fn a_perturbation_that_changes_nothing_is_vacuous_and_not_caught() {
        use Reason::{AllZero, Empty, EqualRows, NotFinite, OneRow};
        assert_eq!(reasons(&of(&[0.0, 0.0], &[0.0, 0.0])), [Some(AllZero); 4]);
        assert_eq!(of(&[0.0, 0.0], &[0.0, 0.0]).gain, None);
        assert_eq!(reasons(&of(&[2.0], &[0.001])), [None, None, Some(OneRow), None]);
        assert_eq!(reasons(&of(&[2.0, 2.0, 3.0], &[0.001; 3])), [None, None, Some(EqualRows), None]);
        assert_eq!(reasons(&of(&[], &[])), [Some(Empty); 4]);
        let nan = of(&[f64::NAN; 2], &[0.0; 2]);
        assert_eq!(reasons(&nan), [None, Some(NotFinite), Some(NotFinite), Some(NotFinite)]);
        assert_eq!((nan.shift, nan.gain), (None, None));
    }

    #[test]
    fn a_perturbation_within_the_budget_is_vacuous() {
        use Reason::{NotJudged, WithinBudget};
        assert_eq!(reasons(&of(&[1.0, 1.1], &[0.05; 2])), [None, None, None, Some(WithinBudget)]);
        assert_eq!(reasons(&of(&[1.0, 1.1], &[0.5; 2])), [None, None, Some(WithinBudget), Some(WithinBudget)]);
        assert_eq!(reasons(&of(&[1.0, 1.1], &[3.0; 2])), [Some(WithinBudget); 4]);
        assert_eq!(reasons(&of(&[1.0, 2.0], &[f64::INFINITY; 2])), [Some(NotJudged); 4]);
        assert_eq!(of(&[1.0, 2.0], &[f64::INFINITY; 2]).shift, None);
        // One element with a finite budget is enough to reject.
        assert_eq!(reasons(&of(&[1.0, 2.0], &[f64::INFINITY, 0.001])), [None; 4]);
    }

    #[test]
    fn rows_of_a_tensor_are_swapped_whole_and_the_odd_one_stays() {
        let values =
            ndarray::Array4::from_shape_vec((1, 2, 3, 1), vec![1.0, 1.0, 5.0, 2.0, 2.0, 7.0]).unwrap().into_dyn();
        let budgets = values.mapv(|_| 1e-6);
        let expected = Expected {
            values: &values,
            rigorous: &budgets,
            likely: &budgets,
            stored: Dtype::F32,
            overflow: Overflow::Nowhere,
            reached: None,
        };
        let sensitivity = Sensitivity::of(Field::Dk, &expected);
        assert_eq!(reasons(&sensitivity), [None, None, Some(Reason::EqualRows), None]);
    }
}
