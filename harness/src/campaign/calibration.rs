//! How every kind of dot product of a candidate rounds, in several dtypes: [`crate::calibrate`] for all of them.

use nsa_corpus::{Dot, Dtype, Error};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::calibrate::{Measured, Sum, Unmeasured, measure};
use crate::candidate::{Candidate, CandidateError};
use crate::watch::Watch;

/// A sum that was measured, and what follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Found {
    /// What was measured.
    pub measured: Measured,
    /// The tiles that were found, where products are added several at once.
    pub tiles: Option<Dot>,
    /// Whether an error was found that is larger than the declaration allows.
    pub refuted: bool,
    /// The power of two by which sums keep more than is declared, where the declaration is too loose.
    pub looser: Option<i32>,
}

impl From<Measured> for Found {
    fn from(measured: Measured) -> Self {
        Found { tiles: measured.tiles(), refuted: measured.refuted(), looser: measured.looser(), measured }
    }
}

/// A sum that was not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// Which sum.
    pub sum: Sum,
    /// The dtype of the inputs.
    pub dtype: Dtype,
    /// Why.
    pub reason: String,
    /// Whether that is the candidate's failure: it supports the problem and gave no answer.
    pub failed: bool,
}

/// What measuring many sums came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// The sums that were measured.
    pub results: Vec<Found>,
    /// Those that were not.
    pub skipped: Vec<Skipped>,
    /// How many were left out after an interruption.
    pub left_out: usize,
}

/// Why nothing can be said of the candidate.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A problem is none.
    #[error("{0}")]
    Problem(#[from] Error),
    /// The machine cannot run the candidate.
    #[error("{0}")]
    Environment(String),
}

/// Every sum in each of `dtypes`, in the order in which [`calibrate`] takes them.
pub fn sums(dtypes: &[Dtype]) -> Vec<(Dtype, Sum)> {
    dtypes.iter().flat_map(|dtype| Sum::ALL.map(|sum| (*dtype, sum))).collect()
}

/// Measures `sums` of `candidate` one after the other, on inputs whose groups have `groups` query heads.
///
/// # Errors
/// See [`Ended`].
pub fn calibrate(
    candidate: &dyn Candidate,
    sums: &[(Dtype, Sum)],
    groups: usize,
    watch: Watch<'_>,
) -> Result<Calibration, Ended> {
    let mut all = Calibration::default();
    for &(dtype, sum) in sums.iter().take_while(|_| !watch.stopped()) {
        match measure(candidate, sum, dtype, groups) {
            Ok(measured) => all.results.push(measured.into()),
            Err(Unmeasured::Problem(error)) => return Err(error.into()),
            Err(Unmeasured::Candidate(CandidateError::Environment(reason))) => return Err(Ended::Environment(reason)),
            Err(reason) => {
                let failed = matches!(reason, Unmeasured::Candidate(_));
                all.skipped.push(Skipped { sum, dtype, reason: reason.to_string(), failed });
            }
        }
        watch.done();
    }
    all.left_out = sums.len() - all.results.len() - all.skipped.len();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::Cause;
    use crate::registry::by_name;

    #[test]
    fn each_sum_is_measured_once_and_what_is_stopped_is_left_out() {
        let tiled = by_name("tiled").unwrap();
        let sums = sums(&[Dtype::F32]);
        let all = calibrate(tiled.as_ref(), &sums, 1, Watch::nobody()).unwrap();
        let found: Vec<_> = all.results.iter().map(|found| (found.measured.dtype, found.measured.sum)).collect();
        assert_eq!((found, all.skipped.len(), all.left_out), (sums.clone(), 0, 0));
        assert!(all.results.iter().all(|found| !found.refuted && found.looser.is_none()), "{all:?}");
        let none = calibrate(tiled.as_ref(), &sums, 1, Watch::new(&|| true, &|| ())).unwrap();
        assert_eq!(none, Calibration { left_out: 2, ..Calibration::default() });
    }

    #[test]
    fn a_problem_that_is_supported_and_not_answered_is_the_candidates_failure() {
        let all = calibrate(&Silent, &sums(&[Dtype::F16]), 1, Watch::nobody()).unwrap();
        assert!(all.results.is_empty() && all.skipped.iter().all(|skipped| skipped.failed), "{all:?}");
        assert_eq!(all.skipped.len(), 2);
    }

    /// Crashes at every problem.
    struct Silent;

    impl Candidate for Silent {
        fn name(&self) -> &str {
            "silent"
        }

        fn declaration(&self, inputs: &nsa_corpus::Inputs) -> crate::candidate::Declaration {
            crate::candidate::Declaration::strict(nsa_corpus::Arithmetic::tensor_core(inputs.dtype()))
        }

        fn supports(&self, _inputs: &nsa_corpus::Inputs) -> Result<(), crate::candidate::Unsupported> {
            Ok(())
        }

        fn run(&self, _inputs: &nsa_corpus::Inputs) -> Result<nsa_corpus::Outputs, CandidateError> {
            Err(CandidateError::Crash(Cause::Unnamed, "always".to_owned()))
        }
    }
}
