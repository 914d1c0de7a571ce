//! The document of `run --large`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Document;
use crate::relations::LargeReport;
use crate::tally::Fields;

/// Large cases on one candidate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Large {
    /// The candidate.
    pub candidate: String,
    /// Which fields of its answers are judged.
    pub fields: Fields,
    /// Cases that were not run after an interruption.
    pub left_out: usize,
    /// What each case came to.
    pub reports: Vec<LargeReport>,
}

impl Document for Large {
    const KIND: &'static str = "large";
}
