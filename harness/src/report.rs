//! What a run of one case leaves: the verdict, and for every field the comparison that it rests on.

use nsa_corpus::{Case, Element, Error, Outputs};
use serde::{Deserialize, Serialize};

use crate::compare::Comparison;
use crate::localize::Localization;
use crate::verdict::Verdict;

/// One case on one backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The entry's name, or the case's id where it has none.
    pub name: String,
    /// The case's id.
    pub id: String,
    /// The backend.
    pub candidate: String,
    /// The format of the inputs.
    pub element: Element,
    /// What the case exercises.
    pub covers: Vec<String>,
    /// The outcome.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Every field asked for; empty where there was no answer.
    pub comparisons: Vec<Comparison>,
    /// Where the answer is wrong and what that looks like, once it has been placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub localization: Option<Localization>,
    /// Wall-clock time of the candidate and the judgement, in seconds.
    pub seconds: f64,
    /// What the candidate answered.
    #[serde(skip)]
    pub outputs: Option<Outputs>,
}

impl Report {
    pub(crate) fn new(candidate: &str, element: Element, case: &Case) -> Result<Self, Error> {
        let id = case.id();
        Ok(Report {
            name: id.clone(),
            id,
            candidate: candidate.to_owned(),
            element,
            covers: case.covers().into_iter().map(str::to_owned).collect(),
            verdict: Verdict::Pass,
            comparisons: Vec::new(),
            localization: None,
            seconds: 0.0,
            outputs: None,
        })
    }

    /// Elements compared.
    pub fn elements(&self) -> usize {
        self.comparisons.iter().map(|comparison| comparison.elements).sum()
    }

    /// The largest error / budget of any field, 0 where everything is exact.
    pub fn worst_ratio(&self) -> f64 {
        let ratios = self.comparisons.iter().filter_map(|comparison| comparison.worst.as_ref());
        ratios.map(|worst| worst.ratio).fold(0.0, f64::max)
    }
}
