//! The documents of `calibrate`, `bench`, `gradcheck` and `record`: what was measured of one candidate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Document;
use crate::bench::Timed;
use crate::calibrate::PRODUCTS;
use crate::campaign::calibration::{Calibration, Found, Skipped};
use crate::campaign::gradients::{Checked, Decision};
use crate::campaign::recorder::{Counts, Machine};

/// How a candidate's dot products round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Calibrate {
    /// The candidate.
    pub candidate: String,
    /// Where it runs, as it says itself.
    pub device: Value,
    /// Products in each sum.
    pub products: usize,
    /// The sums that were measured.
    pub results: Vec<Found>,
    /// Those that were not.
    pub skipped: Vec<Skipped>,
    /// How many were left out after an interruption.
    pub left_out: usize,
}

impl Calibrate {
    /// What measuring `candidate` came to.
    pub fn of(candidate: &str, device: Value, found: Calibration) -> Self {
        let Calibration { results, skipped, left_out } = found;
        Calibrate { candidate: candidate.to_owned(), device, products: PRODUCTS, results, skipped, left_out }
    }

    /// Whether a declaration is refuted or too loose, or a sum got no answer.
    pub fn fails(&self) -> bool {
        self.results.iter().any(|found| found.refuted || found.looser.is_some())
            || self.skipped.iter().any(|skipped| skipped.failed)
    }
}

impl Document for Calibrate {
    const KIND: &'static str = "calibrate";
}

/// How long a candidate takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Benchmarks {
    /// The candidate.
    pub candidate: String,
    /// The GPU that it runs on, where it runs on one.
    pub device: Option<String>,
    /// Shapes that were not timed after an interruption.
    pub left_out: usize,
    /// Each shape.
    pub results: Vec<Timed>,
}

impl Document for Benchmarks {
    const KIND: &'static str = "bench";
}

/// A candidate's gradients beside central differences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gradcheck {
    /// The candidate.
    pub candidate: String,
    /// Each entry that was checked.
    pub results: Vec<Checked>,
    /// Entries without gradients.
    pub skipped: Vec<String>,
    /// Entries that were not checked after an interruption.
    pub left_out: usize,
}

impl Gradcheck {
    /// The gravest decision, where there is one.
    pub fn worst(&self) -> Option<Decision> {
        self.results.iter().map(|checked| checked.verdict).max()
    }

    /// Whether any gradient could be told right or wrong.
    pub fn decided(&self) -> bool {
        self.results.iter().any(|checked| checked.verdict != Decision::Ambiguous)
    }
}

impl Document for Gradcheck {
    const KIND: &'static str = "gradcheck";
}

/// What was recorded of the CUDA kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// The device, its driver and the compiler.
    pub device: Machine,
    /// Each rung in each dtype.
    pub records: Vec<Counts>,
}

impl Record {
    /// Whether a recorded case fails.
    pub fn fails(&self) -> bool {
        self.records.iter().any(|counts| counts.failed > 0)
    }

    /// Whether any case was recorded.
    pub fn holds_any(&self) -> bool {
        self.records.iter().any(|counts| counts.cases > 0)
    }
}

impl Document for Record {
    const KIND: &'static str = "record";
}
