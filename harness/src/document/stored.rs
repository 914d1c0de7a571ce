//! The documents of commands on stored failures: `replay`, `shrink` and `confirm`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Document;
use crate::campaign::confirm::Confirmation;
use crate::campaign::minimize::Minimized;
use crate::report::Report;
use crate::tally::Fields;

/// Stored failures and entries, judged or run again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Replay {
    /// Which fields of the candidate's answers are judged; `null` where stored answers were judged.
    pub fields: Option<Fields>,
    /// What each came to.
    pub reports: Vec<Report>,
}

impl Document for Replay {
    const KIND: &'static str = "replay";
}

/// Stored failures made smaller.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Shrink {
    /// The smaller ones.
    pub results: Vec<Smaller>,
    /// What did not fail on the candidate.
    pub nothing: Vec<Report>,
}

/// A failure made smaller.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Smaller {
    /// The file that holds it.
    pub file: String,
    /// Cases run on the way.
    pub calls: usize,
    /// Whether the effort ran out before every simpler case had been tried.
    pub unfinished: bool,
    /// The minimal case, as TOML.
    pub case: String,
    /// The minimal case's report.
    pub report: Report,
}

impl Smaller {
    /// The failure `minimal`, stored in `file`.
    pub fn new(file: String, minimal: Minimized) -> Self {
        let Minimized { case, report, calls, unfinished } = minimal;
        Smaller { file, calls, unfinished, case: case.to_toml(), report }
    }
}

impl Document for Shrink {
    const KIND: &'static str = "shrink";
}

/// Stored failures against witnesses.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Confirm {
    /// What was said of each failure.
    pub results: Vec<Confirmed>,
}

/// A stored failure and what was said of it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Confirmed {
    /// Its file.
    pub file: String,
    /// What the oracle and the witnesses say.
    #[serde(flatten)]
    pub confirmation: Confirmation,
}

impl Document for Confirm {
    const KIND: &'static str = "confirm";
}
