//! A candidate's gradients beside central differences of the oracle's loss, entry by entry.

use nsa_corpus::{Dtype, Entry};
use nsa_reference::{gradcheck, oracle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidate::Candidate;

/// Entries with more input elements than this are checked only when they are named.
const DEFAULT_ELEMENTS: usize = 4000;

/// What was decided. The order is that of gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The gradients agree, and a mistake would have shown.
    Pass,
    /// The differences cannot tell.
    Ambiguous,
    /// A gradient is wrong.
    Fail,
}

impl From<gradcheck::Verdict> for Decision {
    fn from(verdict: gradcheck::Verdict) -> Self {
        match verdict {
            gradcheck::Verdict::Pass => Decision::Pass,
            gradcheck::Verdict::Ambiguous => Decision::Ambiguous,
            gradcheck::Verdict::Fail => Decision::Fail,
        }
    }
}

/// One entry whose gradients were checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// The entry's name.
    pub name: String,
    /// The gravest decision of all directions.
    pub verdict: Decision,
    /// Directions checked.
    pub checks: usize,
    /// Evaluations of the loss.
    pub evaluations: usize,
    /// In words, with the directions that fail.
    pub detail: String,
}

/// Checks the gradients that `candidate` claims for `entry`, in f64; nothing where the entry has no cotangent.
///
/// # Errors
/// The entry is broken, the candidate gives no answer, or no gradient of it.
pub fn check(entry: &Entry, candidate: &dyn Candidate) -> Result<Option<Checked>, String> {
    let inputs = entry.case.materialize(Dtype::F64).map_err(|error| error.to_string())?;
    if !inputs.cotangents().any() {
        return Ok(None);
    }
    let named = |error: String| format!("{}: {error}", entry.name);
    let claimed = candidate.run(&inputs).map_err(|error| named(error.to_string()))?;
    let problem = gradcheck::attention(&inputs, oracle::attend, &claimed).map_err(|error| named(error.to_string()))?;
    let report = problem.check(&gradcheck::Settings::default());
    Ok(Some(Checked {
        name: entry.name.clone(),
        verdict: report.verdict.into(),
        checks: report.checks,
        evaluations: report.evaluations,
        detail: report.to_string(),
    }))
}

/// Whether an entry is checked without being named: it is small and finite, and asks for gradients.
pub fn is_small(entry: &Entry) -> bool {
    let sizes = &entry.case.sizes;
    let tokens = sizes.batch * sizes.seq_len;
    let elements = tokens * (sizes.q_heads * sizes.dim + sizes.kv_heads * (sizes.dim + sizes.value_dim));
    let finite = entry.case.overrides.iter().all(|change| change.value.is_finite());
    elements <= DEFAULT_ELEMENTS && finite && entry.case.values().any(|(tensor, _)| tensor.name().starts_with("d_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::by_name;
    use nsa_corpus::entries;

    #[test]
    fn right_gradients_pass_and_a_wrong_one_fails_with_its_name() {
        let entry = entries().iter().find(|entry| entry.name == "edges/seq_1").unwrap();
        assert!(is_small(entry));
        let checked = |name: &str| check(entry, by_name(name).unwrap().as_ref()).unwrap().unwrap();
        let right = checked("oracle");
        assert!(right.verdict == Decision::Pass && right.checks > 0, "{right:?}");
        let wrong = checked("rowwise+dv_gain_of_1_percent");
        assert!(wrong.verdict == Decision::Fail && wrong.detail.contains("Fail"), "{wrong:?}");
    }

    #[test]
    fn what_has_no_cotangent_has_no_gradients() {
        let mut entry = entries().iter().find(|entry| entry.name == "edges/seq_1").unwrap().clone();
        let oracle = by_name("oracle").unwrap();
        (entry.case.d_out, entry.case.d_lse, entry.case.d_sliding) = (None, None, None);
        assert_eq!(check(&entry, oracle.as_ref()), Ok(None));
        assert!(!is_small(&entry));
    }
}
