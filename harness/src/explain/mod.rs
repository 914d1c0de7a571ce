//! From a wrong answer to where it is wrong and what that looks like: field, batch, head, token, slot or key, what the
//! wrong elements have in common, what a probe's answer counts, and which known mistakes would answer so.

mod likely;
mod pattern;
mod residual;

use nsa_corpus::{Case, Field, Inputs, Outputs};
use nsa_reference::rowwise;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidate::Declaration;
use crate::judge::HeldTo;
use crate::mutants::{Carrier, Mutant, mutants};

pub use likely::{Evidence, Likely, likely};

/// Failing cases that a mistake is named from.
pub(crate) const EVIDENCE: usize = 3;

/// Score terms times features of a case.
pub(crate) fn cost(case: &Case) -> usize {
    let sizes = &case.sizes;
    let terms = sizes.batch * sizes.q_heads * sizes.seq_len * (sizes.num_sel + 1) * sizes.block_size;
    terms * sizes.dim.max(sizes.value_dim)
}

/// Where an answer is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Localization {
    /// The first wrong field.
    pub field: Field,
    /// Its wrong elements, and all of them.
    pub wrong: [usize; 2],
    /// The position of its worst element, one number for each axis of the field ([`Field::axes`]).
    pub position: Vec<usize>,
    /// What the wrong elements, and no others of their kind, have in common.
    pub pattern: Vec<String>,
    /// What the answer to a probe counts, where it counts something else than it should.
    pub readings: Vec<String>,
    /// Known mistakes that would give this answer, the best first.
    pub likely: Vec<Likely>,
    /// The terms of the worst row that the best of them adds, leaves out or changes.
    pub terms: Vec<Term>,
}

/// A term of a row's softmax.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Term {
    /// The selection slot, where it is one's.
    pub slot: Option<usize>,
    /// The key's block.
    pub block: usize,
    /// The key's position in the sequence; beyond its end for padding.
    pub key: usize,
}

/// Where `outputs`, the answer to `inputs` of an implementation that declares this, is wrong, without asking what it looks like;
/// `None` where no element is wrong.
pub fn locate(inputs: &Inputs, declaration: &Declaration, outputs: &Outputs) -> Option<Localization> {
    let held_to = HeldTo::new(inputs, declaration, outputs);
    let residuals = residual::residuals(&held_to, outputs);
    let first = residuals.iter().find(|residual| !residual.wrong.is_empty())?;
    Some(Localization {
        field: first.field,
        wrong: [first.wrong.len(), first.elements.len()],
        position: first.worst().to_vec(),
        pattern: pattern::pattern(inputs, first),
        readings: crate::judge::exact::readings(inputs, outputs),
        likely: Vec::new(),
        terms: Vec::new(),
    })
}

/// As [`locate`], and which known mistakes the answer looks like, by it and by `more` answers of the same implementation.
pub fn localize(evidence: &Evidence, more: &[&Evidence]) -> Option<Localization> {
    let mut found = locate(&evidence.inputs, &evidence.declaration, &evidence.outputs)?;
    let all: Vec<&Evidence> = std::iter::once(evidence).chain(more.iter().copied()).collect();
    let likely = likely(&all);
    name(&mut found, &evidence.inputs, likely);
    Some(found)
}

/// Adds what the answer looks like.
pub(crate) fn name(found: &mut Localization, inputs: &Inputs, likely: Vec<Likely>) {
    if let Some(best) = likely.first() {
        let mutant = mutants().iter().find(|mutant| mutant.name == best.mutant).expect("named by the catalogue");
        found.terms = terms(inputs, mutant, found.field, &found.position);
    }
    found.likely = likely;
}

/// As [`localize`], of one answer alone; `None` too where it lacks a field, which says enough.
pub fn localize_alone(inputs: &Inputs, declaration: &Declaration, outputs: &Outputs) -> Option<Localization> {
    let whole = |field: Field| {
        let shape = field.shape(inputs.shape());
        outputs.get(field).is_some_and(|found| found.shape() == shape.as_slice())
    };
    let whole =
        Field::ALL.into_iter().filter(|field| field.asked_by(inputs) && declaration.computes(*field)).all(whole);
    let evidence = || Evidence { inputs: inputs.clone(), declaration: declaration.clone(), outputs: outputs.clone() };
    if whole { localize(&evidence(), &[]) } else { None }
}

/// The terms that `mutant` touches in the row of `field` that `place` lies in; none where `place` is a key's.
pub fn terms(inputs: &Inputs, mutant: &Mutant, field: Field, position: &[usize]) -> Vec<Term> {
    let shape = inputs.shape();
    let Carrier::Rowwise { mutation } = &mutant.plant else { return Vec::new() };
    let rows: Vec<usize> = match field {
        Field::Dk | Field::Dv => return Vec::new(),
        Field::DselScale => (0..shape.sel_groups()).map(|g| position[1] * shape.sel_groups() + g).collect(),
        _ => vec![position[1]],
    };
    let sliding = matches!(field, Field::SlidingOut | Field::SlidingLse);
    let mut found = Vec::new();
    for q_head in rows {
        for touched in rowwise::touched(inputs, mutation, [position[0], q_head, position[2]], sliding) {
            let block = touched.token / shape.block_size();
            let term = Term { slot: touched.slot, block, key: touched.token };
            if !found.contains(&term) {
                found.push(term);
            }
        }
    }
    found
}

/// The elements that `mutant` puts off their right values by more than their budgets in the answer of `evidence`, if it is planted
/// there; `None` for one whose answer depends on the run.
pub fn changed(mutant: &Mutant, evidence: &Evidence) -> Option<Vec<(Field, Vec<usize>)>> {
    let Evidence { inputs, declaration, outputs } = evidence;
    let answers = likely::predictions(mutant, evidence);
    let held_to = HeldTo::new(inputs, declaration, outputs);
    let residuals = residual::residuals(&held_to, outputs);
    let of = |answer: &Outputs| {
        residuals.iter().flat_map(|residual| residual.against(answer.get(residual.field))).collect::<Vec<_>>()
    };
    (!answers.is_empty()).then(|| answers.iter().flat_map(of).collect())
}

impl Localization {
    /// A short word that stays the same while a case shrinks, to tell failures of one field apart: the likeliest mistake, where
    /// one stands out.
    pub fn slug(&self) -> Option<&str> {
        self.likely
            .first()
            .filter(|likely| likely.explained >= 0.9 && likely.equals == 0)
            .map(|likely| likely.mutant.as_str())
    }

    /// In words, a line each.
    pub fn lines(&self) -> Vec<String> {
        let position: Vec<String> =
            self.field.axes().iter().zip(&self.position).map(|(axis, at)| format!("{axis} {at}")).collect();
        let mut lines = vec![format!(
            "{}: {} of {} elements wrong, the worst at {}",
            self.field,
            self.wrong[0],
            self.wrong[1],
            position.join(", ")
        )];
        if !self.pattern.is_empty() {
            lines.push(format!("in common: {}", self.pattern.join("; ")));
        }
        lines.extend(self.readings.iter().map(|reading| format!("counted: {reading}")));
        lines.extend(Likely::lines(&self.likely));
        if !self.terms.is_empty() && self.likely.first().is_some_and(|best| best.equals == 0) {
            let shown: Vec<String> = self.terms.iter().take(4).map(Term::words).collect();
            let more = if self.terms.len() > 4 { format!(" and {} more", self.terms.len() - 4) } else { String::new() };
            lines.push(format!("in that row: {}{more}", shown.join("; ")));
        }
        lines
    }
}

impl Term {
    fn words(&self) -> String {
        let from = self.slot.map_or_else(String::new, |slot| format!("slot {slot}, "));
        format!("{from}key {} of block {}", self.key, self.block)
    }
}

#[cfg(test)]
mod tests {
    use nsa_corpus::{Case, Dtype, Sizes, Values, entries};

    use super::*;
    use crate::mutants::mutated;
    use crate::registry::by_name;

    fn evidence(entry: &str, mutant: Option<&str>) -> Evidence {
        let entry = entries().iter().find(|found| found.name == entry).unwrap();
        let inputs = entry.case.materialize(Dtype::F32).unwrap();
        let inner = by_name("rowwise").unwrap();
        let mutant = mutant.map(|name| mutants().iter().find(|mutant| mutant.name == name).unwrap());
        let outputs = match mutant {
            Some(mutant) => mutated(mutant, inner.as_ref()).run(&inputs).unwrap(),
            None => inner.run(&inputs).unwrap(),
        };
        Evidence { declaration: inner.declaration(&inputs), inputs, outputs }
    }

    #[test]
    fn a_right_answer_is_nowhere_wrong() {
        assert_eq!(localize(&evidence("upstream/small", None), &[]), None);
    }

    #[test]
    fn a_missing_own_key_is_named_with_its_row_and_key() {
        let found = localize(&evidence("upstream/small", Some("diagonal_own_key_missing")), &[]).unwrap();
        assert_eq!(found.likely[0].mutant, "diagonal_own_key_missing");
        let token = found.position[2];
        assert_eq!(found.terms, [Term { slot: None, block: token / 8, key: token }]);
    }

    #[test]
    fn a_probe_of_zero_queries_counts_the_padded_keys_that_are_missing() {
        let found = localize(&evidence("probes/zero_queries", Some("padded_keys_dropped")), &[]).unwrap();
        assert_eq!(found.likely[0].mutant, "padded_keys_dropped");
        assert!(found.terms.iter().all(|term| term.key >= 43), "{:?}", found.terms);
        assert!(found.readings.iter().any(|reading| reading.contains("keys counted")), "{:?}", found.readings);
    }

    #[test]
    fn a_probe_of_one_hot_values_names_the_key_that_is_counted_wrongly() {
        let found = localize(&evidence("probes/one_hot_values", Some("diagonal_own_key_counted_twice")), &[]).unwrap();
        // The row's own key, once more than it should be.
        let key = |reading: &String| {
            let number = |after: &str| -> Option<usize> {
                let rest = reading.split(after).nth(1)?;
                rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
            };
            Some([number("token ")?, number("key ")?, number("attended to ")?, number("instead of ")?])
        };
        let numbers: Vec<[usize; 4]> = found.readings.iter().filter_map(key).collect();
        assert!(!numbers.is_empty(), "{:?}", found.readings);
        for [token, key, times, expected] in numbers {
            assert_eq!((key, times), (token, expected + 1), "{:?}", found.readings);
        }
    }

    /// One row with one key, all of it 0: `lse` is exactly 0. The answer has this `lse` instead.
    fn zero_scores(lse: f64) -> Localization {
        let sizes = Sizes {
            batch: 1,
            q_heads: 1,
            kv_heads: 1,
            sel_heads: 1,
            num_sel: 0,
            seq_len: 1,
            dim: 1,
            value_dim: 1,
            block_size: 1,
        };
        let zeros = Values::zeros;
        let case = Case { q: zeros(), k: zeros(), v: zeros(), d_out: None, ..Case::ordinary(sizes, 1) };
        let inputs = case.materialize(Dtype::F32).unwrap();
        let mut outputs = nsa_reference::oracle::attend(&inputs);
        outputs.get_mut(Field::Lse).unwrap().fill(lse);
        let declaration = Declaration::strict(nsa_corpus::Arithmetic::f64());
        localize(&Evidence { inputs, declaration, outputs }, &[]).unwrap()
    }

    #[test]
    fn an_error_that_no_mutant_has_is_named_by_none() {
        // Known mistakes put this lse off by 1e-4, by ln 2, or to -inf.
        assert_eq!(zero_scores(5.0).likely, []);
        assert_eq!(zero_scores(5e-5).likely, []);
        let named = zero_scores(2f64.ln()).likely;
        assert!(named.iter().any(|likely| likely.mutant.contains("counted_twice")), "{named:?}");
    }

    #[test]
    fn nan_is_explained_by_mutants_that_predict_nan_alone() {
        let named = zero_scores(f64::NAN).likely;
        assert!(named.iter().all(|likely| !likely.mutant.contains("diagonal")), "{named:?}");
        let named = zero_scores(f64::NEG_INFINITY).likely;
        assert!(named.iter().any(|likely| likely.mutant.contains("diagonal")), "{named:?}");
    }

    #[test]
    fn mutants_that_explain_the_same_share_are_named_together_and_none_of_them_alone() {
        let likely = |mutant: &str, explained, equals| Likely { mutant: mutant.to_owned(), explained, equals };
        let lines = Likely::lines(&[likely("a_mistake", 0.999, 0), likely("another", 0.5, 0)]);
        let alone = "looks like: a mistake (explains 99 % of what is wrong)";
        assert_eq!(lines, [alone, "looks like: another (explains 50 % of what is wrong)"]);
        let lines = Likely::lines(&[likely("a_mistake", 0.5, 3), likely("another", 0.5, 3), likely("third", 0.5, 3)]);
        assert_eq!(lines, ["several mistakes explain 50 % of it equally: a mistake, another, third and 1 more"]);
        let tied = zero_scores(f64::NEG_INFINITY);
        assert!(tied.likely[0].equals > 0, "{tied:?}");
        assert!(tied.lines().iter().any(|line| line.starts_with("several mistakes")), "{tied:?}");
    }

    #[test]
    fn one_wrong_head_is_seen_in_what_the_elements_have_in_common() {
        let mutant = "slots_of_the_first_head_of_a_group_only";
        let found = localize(&evidence("gqa/group_16", Some(mutant)), &[]).unwrap();
        assert_eq!(found.likely[0].mutant, mutant);
        assert!(
            found.pattern.iter().any(|words| words.contains("not the first of their group")),
            "{:?}",
            found.pattern
        );
    }
}
