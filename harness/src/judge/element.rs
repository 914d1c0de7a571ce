//! The one rule that says whether an element is wrong. Comparison, localisation, sensitivity and probes ask it; NaN, infinities
//! and budgets without end are handled here and nowhere else.

use nsa_corpus::{Dtype, Field};

use super::overflow::Overflow;

/// What one element is held to.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The field that it is an element of.
    pub field: Field,
    /// The oracle's value.
    pub expected: f64,
    /// Tier B, absolute: an error above it is wrong. Infinite: nothing is promised.
    pub rigorous: f64,
    /// Tier H, absolute: an error above it is suspect.
    pub likely: f64,
    /// The format that the field is stored in.
    pub stored: Dtype,
    /// Where a correct program may overflow. Where nothing is promised, it may then answer NaN or infinity.
    pub overflow: Overflow,
    /// Whether `0 * NaN` can reach it (docs/semantics.md, "What a tile touches"), and the implementation says that it does not prevent that.
    pub reached: bool,
}

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Within the likely budget, or not finite where it need not be.
    Right,
    /// Above the likely budget, within the rigorous one.
    Suspect,
    /// Nothing is promised of it: neither right nor wrong.
    Unpromised,
    /// NaN that `0 * NaN` explains: neither right nor wrong.
    Excused,
    /// Above the rigorous budget.
    OverBudget,
    /// NaN or infinity where it has to be finite, or a finite number where it must not be.
    NonFinite,
}

impl Outcome {
    /// Whether the element is wrong.
    pub fn is_wrong(self) -> bool {
        matches!(self, Outcome::OverBudget | Outcome::NonFinite)
    }
}

impl Held {
    /// What has to be answered without any error.
    pub fn exactly(field: Field, expected: f64, stored: Dtype) -> Self {
        let (rigorous, likely, overflow, reached) = (0.0, 0.0, Overflow::Nowhere, false);
        Held { field, expected, rigorous, likely, stored, overflow, reached }
    }

    /// What `found` is in the place of the expected value.
    pub fn judge(&self, found: f64) -> Outcome {
        if self.expected.is_finite() { self.where_finite(found) } else { self.where_not_finite(found) }
    }

    fn where_not_finite(&self, found: f64) -> Outcome {
        // A row without keys has lse -inf, and nothing else will do. Elsewhere, which of NaN and the infinities it is may
        // differ between correct programs.
        let right = if self.without_keys() { found == self.expected } else { !found.is_finite() };
        if right { Outcome::Right } else { Outcome::NonFinite }
    }

    fn where_finite(&self, found: f64) -> Outcome {
        if !found.is_finite() {
            return self.non_finite(found);
        }
        let error = (found - self.expected).abs();
        if self.unpromised() {
            Outcome::Unpromised
        } else if !(error <= self.rigorous) {
            Outcome::OverBudget
        } else if error <= self.likely {
            Outcome::Right
        } else {
            Outcome::Suspect
        }
    }

    /// NaN or infinity in the place of a finite number.
    fn non_finite(&self, found: f64) -> Outcome {
        let possible = match self.overflow {
            Overflow::Nowhere => false,
            Overflow::WhenStored => found.is_infinite(),
            Overflow::OnTheWay => true,
        };
        if self.unpromised() && possible {
            Outcome::Unpromised
        } else if self.overflows(found) {
            Outcome::Right
        } else if self.reached && found.is_nan() {
            Outcome::Excused
        } else {
            Outcome::NonFinite
        }
    }

    /// Whether no finite answer is wrong.
    pub fn unpromised(&self) -> bool {
        self.expected.is_finite() && self.rigorous == f64::INFINITY
    }

    /// Whether an error of a finite answer is measured against a finite budget.
    pub fn measures(&self, found: f64) -> bool {
        self.expected.is_finite() && !self.unpromised() && !(found.is_infinite() && self.overflows(found))
    }

    /// Whether 0 is right in the place of a number other than 0: the check does not see that nothing was computed. Where the
    /// opposite sign would pass, 0 does too, since it is nearer.
    pub fn blind(&self) -> bool {
        self.unpromised() || self.expected != 0.0 && !self.judge(0.0).is_wrong()
    }

    /// Error over `budget`, which is one of the two: 0 where nothing is wrong with an element that is not finite or of which
    /// nothing is promised, infinite where it is wrong for not being finite, or for being so.
    pub fn ratio(&self, found: f64, budget: f64) -> f64 {
        match self.judge(found) {
            Outcome::NonFinite => f64::INFINITY,
            Outcome::Unpromised | Outcome::Excused => 0.0,
            _ if found == self.expected || !found.is_finite() || !self.expected.is_finite() => 0.0,
            _ => (found - self.expected).abs() / budget,
        }
    }

    /// Whether a mistake that answers `predicted` here, without rounding, explains `found`: a number by being within what it
    /// is rounded by, or nearer to it than a 32nd of its error; NaN by NaN, an infinity by the same one.
    pub fn explained(&self, found: f64, predicted: f64) -> bool {
        if found.is_nan() || predicted.is_nan() {
            return found.is_nan() && predicted.is_nan();
        }
        let limit = self.largest();
        if found.is_infinite() || predicted.is_infinite() {
            return found.clamp(-limit, limit) == predicted.clamp(-limit, limit);
        }
        let (moved, budget) = ((predicted - self.expected).abs(), if self.unpromised() { 0.0 } else { self.rigorous });
        // The wrong value is rounded like a right one; where it is larger than that, so are its roundings, but nobody knows how
        // much of its size is rounding where the right value is 0: never more than a small part of it.
        let larger = moved / (self.expected.abs() + budget).max(f64::MIN_POSITIVE);
        let grown = budget * larger + 4.0 * self.stored.unit_roundoff() * moved;
        let left = (found - predicted).abs();
        left <= budget + grown.min(moved / 32.0) || left <= (found - self.expected).abs() / 32.0
    }

    fn without_keys(&self) -> bool {
        self.expected == f64::NEG_INFINITY && matches!(self.field, Field::Lse | Field::SlidingLse)
    }

    /// Whether `found` is the infinity that the right value, with an error that it may have, rounds to.
    fn overflows(&self, found: f64) -> bool {
        // What is within the budget on the side of the infinity; where the budget is larger than the value, either side.
        let reaches = self.expected * found.signum() + self.rigorous >= self.largest();
        found.is_infinite() && !self.unpromised() && reaches
    }

    /// The least number that the stored format rounds to infinity.
    fn largest(&self) -> f64 {
        self.stored.max() * (1.0 + 0.5 * self.stored.unit_roundoff())
    }
}

/// `batch 0, q_head 1, token 2`: a position in words.
pub(crate) fn position(field: Field, index: &[usize]) -> String {
    let positions: Vec<String> =
        field.axes().iter().zip(index).map(|(axis, index)| format!("{axis} {index}")).collect();
    positions.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;

    fn held(expected: f64, rigorous: f64) -> Held {
        let (field, stored) = (Field::Out, Dtype::F16);
        Held { field, expected, rigorous, likely: rigorous / 2.0, stored, overflow: Overflow::Nowhere, reached: false }
    }

    #[test]
    fn where_nothing_is_promised_a_number_is_neither_right_nor_wrong_and_nan_is_wrong() {
        let element = held(1.0, INF);
        assert_eq!([7.0, 1.0, -1e300].map(|found| element.judge(found)), [Outcome::Unpromised; 3]);
        assert_eq!([NAN, INF, -INF].map(|found| element.judge(found)), [Outcome::NonFinite; 3]);
        let overflowing = Held { overflow: Overflow::OnTheWay, ..element };
        assert_eq!([NAN, INF, -INF].map(|found| overflowing.judge(found)), [Outcome::Unpromised; 3]);
        let narrow = Held { overflow: Overflow::WhenStored, ..element };
        assert_eq!([NAN, INF].map(|found| narrow.judge(found)), [Outcome::NonFinite, Outcome::Unpromised]);
        let promised = Held { overflow: Overflow::OnTheWay, ..held(1.0, 0.5) };
        assert_eq!(promised.judge(NAN), Outcome::NonFinite, "an overflow on the way makes no budget infinite");
    }

    #[test]
    fn only_nan_is_excused_and_only_where_it_can_be_reached() {
        let reached = Held { reached: true, ..held(1.0, 0.5) };
        assert_eq!(reached.judge(NAN), Outcome::Excused);
        assert_eq!([INF, -INF, 7.0].map(|found| reached.judge(found).is_wrong()), [true; 3]);
        assert_eq!(held(1.0, 0.5).judge(NAN), Outcome::NonFinite);
        let without_keys = Held { field: Field::Lse, expected: -INF, ..reached };
        assert_eq!([NAN, INF, -INF].map(|found| without_keys.judge(found).is_wrong()), [true, true, false]);
    }

    #[test]
    fn an_element_is_blind_where_its_budget_hides_that_it_is_not_0() {
        assert!(held(1.0, INF).blind() && held(0.0, INF).blind() && held(1.0, 2.0).blind());
        assert!(held(1.0, 1.3).blind() && held(-1.0, 1.0).blind(), "the other sign is seen, 0 is not");
        assert!(!held(1.0, 0.98).blind() && !held(-1.0, 0.98).blind(), "0 is seen");
        assert!(!held(0.0, 0.0).blind() && !held(0.0, 9.0).blind(), "0 hides nothing");
        assert!(!held(NAN, 0.0).blind() && !held(INF, 0.0).blind());
    }

    #[test]
    fn a_mutant_explains_what_it_predicts_and_not_any_larger_error() {
        // The right value is exactly 0, the budget nearly so: a prediction of 1e-4 does not explain an error of 5.
        let zero = held(0.0, 1e-15);
        assert!(!zero.explained(5.0, 1e-4) && !zero.explained(5.0, 0.693) && !zero.explained(1e-4, 5.0));
        assert!(zero.explained(5.0, 5.0) && zero.explained(5.01, 5.0));
        assert!(!zero.explained(5e-5, 1e-4), "half of it is not it");
        // Within the rounding of a right value of this size.
        assert!(held(1.0, 0.01).explained(1.105, 1.1) && !held(1.0, 0.01).explained(1.2, 1.1));
    }

    #[test]
    fn only_nan_explains_nan_and_only_the_same_infinity_an_infinity() {
        for expected in [1.0, -INF] {
            let element = Held { field: Field::Lse, ..held(expected, 0.1) };
            assert!(element.explained(NAN, NAN));
            for other in [0.0, 1.0, 7.0, INF, -INF] {
                assert!(!element.explained(NAN, other) && !element.explained(other, NAN), "{other}");
            }
            assert!(element.explained(INF, INF) && !element.explained(INF, -INF) && !element.explained(INF, 1.0));
            assert!(element.explained(INF, 1e6), "f16 rounds it to infinity");
        }
    }
}
