//! The judgement of one answer: every field against the oracle, under the budgets of the declared arithmetic.
//!
//! [`element`] has the one rule that says whether an element is wrong; [`field`] applies it to every element of a field,
//! `answer` says what they are held to, and [`verdict()`] draws the conclusion.

mod answer;
pub mod budget_use;
pub mod element;
pub mod exact;
pub mod expected;
pub mod field;
pub mod overflow;
mod reach;
pub mod reruns;
pub mod sample;
mod sampled;
pub mod sensitivity;
pub mod unconditional;
pub mod verdict;

use nsa_corpus::{Arithmetic, Field, Inputs, Outputs};

pub(crate) use answer::{HeldTo, expected, saved};
use field::{Comparison, compare};
pub use sampled::judge_sampled;
pub(crate) use sampled::sampled;

use crate::candidate::Declaration;
use crate::judge::verdict::{NotJudged, Verdict};

/// Judges `found`, the answer of an implementation of `arithmetic` to `inputs`, as strictly as the contract reads: one comparison
/// for each field asked for.
pub fn judge(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs) -> Vec<Comparison> {
    judge_declared(inputs, &Declaration::strict(arithmetic.clone()), found)
}

/// Judges `found`, the answer to `inputs` of an implementation that declares this: one comparison for each field that is asked
/// for and that it computes.
///
/// The gradients are judged given the `out` and `lse` that the implementation itself saved, so that a forward error is not
/// charged again, and once more for their distance from the oracle's own gradients ([`unconditional`]). Where `out` or `lse` are
/// unusable (missing, of another shape, not finite where the oracle is) the oracle's serve, and the budgets allow for all that
/// may have been saved.
pub fn judge_declared(inputs: &Inputs, declaration: &Declaration, found: &Outputs) -> Vec<Comparison> {
    let held_to = HeldTo::new(inputs, declaration, found);
    let compared = held_to.fields().map(|(field, expected)| compare(field, found.get(field), &expected));
    let mut comparisons = compared.collect::<Vec<_>>();
    held_to.look_again(inputs, found, &mut comparisons);
    comparisons
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

/// The verdict of compared fields: the first failure in the order of fields, else whether any element is excused, whether any
/// field says anything at all, and whether any element is suspect.
pub fn verdict(comparisons: &[Comparison]) -> Verdict {
    if let Some(failure) = comparisons.iter().find_map(|comparison| comparison.failure.clone()) {
        return Verdict::Fail(failure);
    }
    if let Some(comparison) = comparisons.iter().find(|comparison| comparison.excused > 0) {
        let Comparison { field, excused, elements, .. } = comparison;
        let message = format!(
            "NaN through 0 * NaN, as in the PyTorch function: {field} is NaN in {excused} of {elements} elements that it can reach"
        );
        return Verdict::Inconclusive(message);
    }
    if nothing_could(comparisons) {
        return Verdict::Inconclusive(nothing_could_fail(comparisons));
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

/// Whether no field could have failed for what it says: each is inconclusive, or it is right as zeros while another one, which is
/// not, hides behind its budgets. A program that answers 0 everywhere would pass such a case.
fn nothing_could(comparisons: &[Comparison]) -> bool {
    let hidden = |comparison: &Comparison| {
        matches!(comparison.inconclusive(), Some(NotJudged::Excluded | NotJudged::AboveSignal))
    };
    let any_hidden = comparisons.iter().any(hidden);
    let empty = |comparison: &Comparison| comparison.inconclusive().is_some() || any_hidden && comparison.all_zero();
    comparisons.iter().all(empty)
}

fn nothing_could_fail(comparisons: &[Comparison]) -> String {
    let reason = |comparison: &Comparison| match comparison.inconclusive() {
        Some(reason) => format!("{}: {reason}", comparison.field),
        None => format!("{}: its right values are all 0", comparison.field),
    };
    let reasons: Vec<String> = comparisons.iter().map(reason).collect();
    if reasons.is_empty() {
        return "no field was judged".to_owned();
    }
    format!("no field could have failed for what it says: {}", reasons.join("; "))
}
