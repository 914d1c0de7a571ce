//! The document of `run`.

use std::collections::BTreeMap;

use nsa_corpus::{Dtype, entries};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, Merge, Unmergeable, add_counts};
use crate::judge::sensitivity::Perturbation;
use crate::report::Report;
use crate::summary::Summary;
use crate::tally::Fields;

/// Named cases on one candidate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// The candidate.
    pub candidate: String,
    /// Which fields of its answers are judged.
    pub fields: Fields,
    /// Cases that were not run after an interruption.
    pub left_out: usize,
    /// What each case came to, in the order of the corpus.
    pub reports: Vec<Report>,
    /// Elements held to a finite budget, by format of the inputs.
    pub judged: BTreeMap<Dtype, u64>,
    /// How much of the budgets the errors take, by field and format.
    pub budget_use: Summary,
    /// Checks (fields of cases) that each perturbation would have passed.
    pub vacuous: BTreeMap<Perturbation, usize>,
}

impl Document for Run {
    const KIND: &'static str = "run";
}

impl Run {
    /// What `reports` of one candidate come to.
    pub fn new(candidate: &str, fields: Fields, left_out: usize, reports: Vec<Report>) -> Self {
        let budget_use = Summary::of(&reports);
        let mut vacuous = Perturbation::ALL.map(|perturbation| (perturbation, 0)).into_iter().collect();
        let passed = reports.iter().flat_map(|report| &report.comparisons);
        passed.for_each(|field| {
            let each = field.sensitivity.vacuous.keys().map(|perturbation| (*perturbation, 1));
            add_counts(&mut vacuous, each.collect());
        });
        let judged = budget_use.judged();
        let mut run = Run { candidate: candidate.to_owned(), fields, left_out, reports, judged, budget_use, vacuous };
        run.sort();
        run
    }

    fn sort(&mut self) {
        let position = |name: &str| entries().iter().position(|entry| entry.name == name).unwrap_or(usize::MAX);
        self.reports.sort_by_cached_key(|report| (position(&report.name), report.name.clone(), report.dtype));
    }
}

impl Merge for Run {
    fn merge(mut self, other: Self) -> Result<Self, Unmergeable> {
        Unmergeable::unless_same("candidate", &self.candidate, &other.candidate)?;
        Unmergeable::unless_same("which fields are judged", &self.fields, &other.fields)?;
        for report in &other.reports {
            let same = |own: &&Report| own.name == report.name && own.dtype == report.dtype;
            if let Some(own) = self.reports.iter().find(same) {
                let case = format!("{} in {}", own.name, own.dtype);
                return Err(Unmergeable::twice(case));
            }
        }
        self.left_out += other.left_out;
        self.reports.extend(other.reports);
        self.sort();
        self.budget_use.merge(&other.budget_use);
        self.judged = self.budget_use.judged();
        add_counts(&mut self.vacuous, other.vacuous);
        Ok(self)
    }
}
