//! What a run of one case leaves: the verdict, and for every field the comparison that it rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nsa_corpus::{Case, Dtype, Error, Field, Inputs, Outputs};
use serde::{Deserialize, Serialize};

use crate::candidate::Declaration;
use crate::explain::Localization;
use crate::judge::field::Comparison;
use crate::judge::verdict;
use crate::judge::verdict::{NotJudged, Verdict};

/// One case on one candidate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The entry's name, or the case's id where it has none.
    pub name: String,
    /// The case's id.
    pub id: String,
    /// The candidate.
    pub candidate: String,
    /// The format of the inputs.
    pub dtype: Dtype,
    /// What the case exercises.
    pub features: Vec<String>,
    /// The outcome.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Every field asked for and computed; empty where there was no answer.
    pub comparisons: Vec<Comparison>,
    /// The fields asked for that the verdict does not rest on, each with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_judged: BTreeMap<Field, NotJudged>,
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
    pub(crate) fn new(candidate: &str, dtype: Dtype, case: &Case) -> Result<Self, Error> {
        let id = case.id();
        Ok(Report {
            name: id.clone(),
            id,
            candidate: candidate.to_owned(),
            dtype,
            features: case.features().into_iter().map(str::to_owned).collect(),
            verdict: Verdict::Pass,
            comparisons: Vec::new(),
            not_judged: BTreeMap::new(),
            localization: None,
            seconds: 0.0,
            outputs: None,
        })
    }

    /// Takes in what the judgement of `inputs` found, the verdict with it.
    pub(crate) fn conclude(&mut self, inputs: &Inputs, declaration: &Declaration, comparisons: Vec<Comparison>) {
        self.verdict = verdict(&comparisons);
        let asked = Field::ALL.into_iter().filter(|field| field.asked_by(inputs));
        let missing = asked.filter(|field| !declaration.computes(*field));
        self.not_judged = missing.map(|field| (field, NotJudged::NotComputed)).collect();
        let inconclusive = |comparison: &Comparison| Some((comparison.field, comparison.inconclusive()?));
        self.not_judged.extend(comparisons.iter().filter_map(inconclusive));
        self.comparisons = comparisons;
    }

    /// The fields that the verdict rests on.
    pub fn judged(&self) -> impl Iterator<Item = Field> {
        let fields = self.comparisons.iter().map(|comparison| comparison.field);
        fields.filter(|field| !self.not_judged.contains_key(field))
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

/// Which fields many reports judged, and which they did not: what a summary names, so that a field nobody judged is not taken for
/// one that passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldsJudged {
    /// The fields judged, with the number of cases.
    pub judged: BTreeMap<Field, usize>,
    /// The fields asked for and not judged, with the number of cases for each reason.
    pub not_judged: BTreeMap<Field, BTreeMap<NotJudged, usize>>,
}

impl FieldsJudged {
    /// What all of `reports` come to.
    pub fn of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Self {
        let mut fields = FieldsJudged::default();
        for report in reports {
            report.judged().for_each(|field| *fields.judged.entry(field).or_default() += 1);
            for (field, reason) in &report.not_judged {
                *fields.not_judged.entry(*field).or_default().entry(*reason).or_default() += 1;
            }
        }
        fields
    }

    /// The fields that were asked for and judged in no case.
    pub fn never(&self) -> BTreeSet<Field> {
        self.not_judged.keys().copied().filter(|field| !self.judged.contains_key(field)).collect()
    }
}

impl fmt::Display for FieldsJudged {
    /// `judged: out 12, lse 12; not judged: dq 12 (the candidate does not compute it)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let judged: Vec<String> = self.judged.iter().map(|(field, cases)| format!("{field} {cases}")).collect();
        write!(f, "judged: {}", if judged.is_empty() { "nothing".to_owned() } else { judged.join(", ") })?;
        let reasons = self.not_judged.iter().flat_map(|(field, reasons)| {
            reasons.iter().map(move |(reason, cases)| format!("{field} {cases} ({reason})"))
        });
        let reasons: Vec<String> = reasons.collect();
        if reasons.is_empty() { Ok(()) } else { write!(f, "; not judged: {}", reasons.join(", ")) }
    }
}
