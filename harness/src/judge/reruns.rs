//! The contract on reruns: each field of a candidate is bitwise or bounded, and two runs of one problem are held to it.
//!
//! Bitwise: the same bits. Bounded: atomics add the same terms in another order, so two runs differ by at most twice the
//! order-only part of the budget and the rounding of each to its stored format (docs/numerics.md). More than that is no rounding
//! but a race: a term was lost, added twice, or read before it was written.

use ndarray::{ArrayD, Dimension, IxDyn};
use nsa_corpus::{BackwardReads, Dtype, Field, Inputs, Outputs};
use nsa_reference::oracle;

use crate::candidate::{Candidate, Declaration, Determinism};
use crate::judge::element::position;
use crate::judge::verdict::{Class, Failure};
use crate::judge::{judge_declared, saved};

/// What reruns of one problem are held to.
pub struct Contract<'a> {
    inputs: &'a Inputs,
    first: &'a Outputs,
    declaration: Declaration,
    /// Computed when a bounded field first differs.
    order: Option<Outputs>,
}

/// An element that two runs give differently.
struct Difference {
    index: Vec<usize>,
    first: f64,
    again: f64,
    /// Infinite where one of them is NaN.
    spread: f64,
    allowed: f64,
}

impl<'a> Contract<'a> {
    /// Holds reruns of `inputs` on `candidate` to the answer `first`.
    pub fn new(inputs: &'a Inputs, candidate: &'a dyn Candidate, first: &'a Outputs) -> Self {
        Contract { inputs, first, declaration: candidate.declaration(inputs), order: None }
    }

    /// How the answer `again` breaks the contract, if it does: the first field in order.
    pub fn broken_by(&mut self, again: &Outputs) -> Option<Failure> {
        let computed = |(field, _): &(Field, _)| self.declaration.computes(*field);
        let differing: Vec<Field> = self.first.iter().filter(computed).map(|(field, _)| field).collect();
        let differing: Vec<Field> = differing.into_iter().filter(|field| self.differs(*field, again)).collect();
        let saved_differ = self.own_may_differ() || differing.iter().any(|field| !field.is_gradient());
        differing.into_iter().find_map(|field| {
            let first = &self.first.get(field).expect("it is one of its fields");
            let Some(found) = again.get(field).filter(|found| found.shape() == first.shape()) else {
                return Some(failure(field, format!("{field} is missing or has another shape")));
            };
            match self.declaration.determinism(field) {
                Determinism::Bitwise => Some(self.not_bitwise(field, found)),
                // Gradients of other saved outputs have other terms: no order of additions relates the two.
                Determinism::Bounded if field.is_gradient() && saved_differ => self.wrong(field, again),
                Determinism::Bounded => self.race(field, found),
            }
        })
    }

    /// Whether the gradients may start from other values of `out` and `lse` in each run although the same were stored.
    fn own_may_differ(&self) -> bool {
        let bounded = |field: &Field| self.declaration.determinism(*field) == Determinism::Bounded;
        let mut forward = Field::ALL.into_iter().filter(|field| !field.is_gradient());
        self.declaration.arithmetic.backward_reads == BackwardReads::Own && forward.any(|field| bounded(&field))
    }

    fn differs(&self, field: Field, again: &Outputs) -> bool {
        let first = self.first.get(field).expect("it is one of its fields");
        again.get(field).is_none_or(|again| {
            first.shape() != again.shape()
                || first.iter().zip(again).any(|(first, again)| first.to_bits() != again.to_bits())
        })
    }

    fn not_bitwise(&self, field: Field, again: &ArrayD<f64>) -> Failure {
        let first = self.first.get(field).expect("it is one of its fields");
        let differing = first.iter().zip(again).filter(|(first, again)| first.to_bits() != again.to_bits()).count();
        let bits = |first: f64, again: f64| first.to_bits() != again.to_bits();
        let worst = self.worst(field, again, |_, _, _| 0.0, bits).expect("some bits differ");
        let words = worst.describe(field);
        failure(
            field,
            format!("{field} is declared bitwise and differs in {differing} of {} elements: {words}", first.len()),
        )
    }

    fn race(&mut self, field: Field, again: &ArrayD<f64>) -> Option<Failure> {
        let order = self.order.get_or_insert_with(|| {
            let forward = oracle::forward(self.inputs, None).outputs;
            oracle::order_bounds(self.inputs, &saved(&forward, self.first), &self.declaration.arithmetic)
        });
        let order = order.get(field).expect("every field that is asked for has one").clone();
        let stored = self.declaration.arithmetic.stored(field);
        let allowed = |index: &IxDyn, first, again| allowed(order[index], first, again, stored);
        let worst = self.worst(field, again, allowed, |_, _| true)?;
        let over = !(worst.spread <= worst.allowed);
        over.then(|| {
            let words = worst.describe(field);
            failure(field, format!("{field} differs by more than the order of additions explains: a race: {words}"))
        })
    }

    /// The forward wavered, within its own bounds: the gradients that follow from it are judged anew.
    fn wrong(&self, field: Field, again: &Outputs) -> Option<Failure> {
        let comparisons = judge_declared(self.inputs, &self.declaration, again);
        let wrong = comparisons.into_iter().find(|comparison| comparison.field == field)?.failure?;
        Some(failure(field, format!("{field} is right in one run and wrong in another: a race: {}", wrong.message)))
    }

    /// The element that `counts` with the largest spread over what is allowed.
    fn worst(
        &self,
        field: Field,
        again: &ArrayD<f64>,
        allowed: impl Fn(&IxDyn, f64, f64) -> f64,
        counts: impl Fn(f64, f64) -> bool,
    ) -> Option<Difference> {
        let first = self.first.get(field).expect("it is one of its fields");
        let stored = self.declaration.arithmetic.stored(field);
        let mut worst: Option<(f64, Difference)> = None;
        for (index, &first) in first.indexed_iter() {
            let again = again[&index];
            if !counts(first, again) {
                continue;
            }
            let (spread, allowed) = (spread(first, again, stored), allowed(&index, first, again));
            let ratio = if spread == 0.0 { 0.0 } else { spread / allowed };
            let ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
            if worst.as_ref().is_none_or(|(most, _)| !(ratio <= *most)) {
                let index = index.as_array_view().to_vec();
                worst = Some((ratio, Difference { index, first, again, spread, allowed }));
            }
        }
        worst.map(|(_, difference)| difference)
    }
}

/// How far two values lie apart: NaN is like NaN only. Beside a finite value, an infinity stands where its format overflows.
pub(crate) fn spread(first: f64, again: f64, stored: Dtype) -> f64 {
    if first == again || first.is_nan() && again.is_nan() {
        return 0.0;
    }
    let limit = stored.max() * (1.0 + 0.5 * stored.unit_roundoff());
    let spread = (first.clamp(-limit, limit) - again.clamp(-limit, limit)).abs();
    if spread.is_nan() { f64::INFINITY } else { spread }
}

/// What two stored answers may lie apart whose sums are each within `order` of the same number. Without any order, that is
/// with no term to add, they are the same.
pub(crate) fn allowed(order: f64, first: f64, again: f64, stored: Dtype) -> f64 {
    if order == 0.0 {
        return 0.0;
    }
    let (unit, least) =
        (stored.unit_roundoff(), Dtype::F32.min_positive().max(stored.unit_roundoff() * stored.min_positive()));
    2.0 * order + unit * (first.abs() + again.abs()) + 2.0 * least
}

fn failure(field: Field, message: String) -> Failure {
    Failure::new(Class::Nondeterministic, Some(field), message)
}

impl Difference {
    fn describe(&self, field: Field) -> String {
        let Difference { index, first, again, spread, allowed } = self;
        let position = position(field, index);
        format!("at {position}: first {first:e}, then {again:e}, spread {spread:.3e}, allowed {allowed:.3e}")
    }
}
