//! `nsa-diff replay`.

use std::path::{Path, PathBuf};

use nsa_corpus::{Bundle, Dtype, Entry, foreign, read_entries};
use serde_json::json;

use super::console::{Console, Json, Output};
use super::output::not_judged;
use super::select::candidate_name;
use super::{Outcome, Refusal, concluded};
use nsa_harness::campaign::store;
use nsa_harness::candidate::Candidate;
use nsa_harness::registry::by_name;
use nsa_harness::report::Report;
use nsa_harness::run::run_entry;
use nsa_harness::tally::{Fields, Tally};

/// Arguments of `replay`.
#[derive(clap::Args)]
#[command(
    after_help = "A stored failure holds what its candidate answered: without --candidate that answer is judged again, on any machine.

Examples:
  nsa-diff replay corpus/bugs/*.safetensors
  nsa-diff replay found.safetensors --candidate cuda
  nsa-diff replay my_entries.toml --candidate tiled"
)]
pub(super) struct Args {
    /// Stored failures (.safetensors) or files of entries (.toml)
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Run the cases on this candidate instead of judging the stored answers
    #[arg(long, value_name = "NAME", value_parser = candidate_name)]
    candidate: Option<String>,
    #[command(flatten)]
    json: Json,
}

/// An entry of a file, with the stored failure around it where there is one.
pub(super) struct Stored {
    pub(super) entry: Entry,
    pub(super) bundle: Option<Bundle>,
}

impl Stored {
    pub(super) fn new(entry: Entry) -> Self {
        Stored { entry, bundle: None }
    }
}

/// Reads a stored failure or a file of entries, told apart by the name's ending.
pub(super) fn read_file(path: &Path) -> Result<Vec<Stored>, Refusal> {
    if path.extension().is_some_and(|extension| extension == "toml") {
        return Ok(read_entries(path)?.into_iter().map(Stored::new).collect());
    }
    let bundle = Bundle::read(path)?;
    Ok(vec![Stored { entry: bundle.entry.clone(), bundle: Some(bundle) }])
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let candidate = args.candidate.as_deref().map(by_name).transpose()?;
    let mut reports = Vec::new();
    for path in &args.files {
        for stored in read_file(path)? {
            for dtype in &stored.entry.dtypes {
                let report = replay(&stored, *dtype, candidate.as_deref()).map_err(|error| in_file(path, error))?;
                output.text(&format!("{} {dtype} {}: {}\n", report.name, report.candidate, report.verdict));
                reports.push(report);
            }
        }
    }
    let fields = candidate.as_deref().map(Fields::of);
    output.text(&fields.as_ref().map(not_judged).unwrap_or_default());
    output.json("replay", json!({ "fields": fields, "reports": reports }));
    concluded(&Tally::of(reports.iter().map(|report| &report.verdict)), 0)
}

fn in_file(path: &Path, error: Refusal) -> Refusal {
    let (path, error) = (foreign::path(path), error.to_string());
    Refusal::new(if error.starts_with(&path) { error } else { format!("{path}: {error}") })
}

fn replay(stored: &Stored, dtype: Dtype, candidate: Option<&dyn Candidate>) -> Result<Report, Refusal> {
    let bundle = match (candidate, &stored.bundle) {
        (Some(candidate), _) => return Ok(run_entry(&stored.entry, dtype, candidate)?),
        (None, Some(bundle)) => bundle,
        (None, None) => return Err(Refusal::new("a file of entries holds no answers: name a --candidate to run")),
    };
    store::judge_again(bundle)?
        .ok_or_else(|| Refusal::new("the stored failure holds no answer (it crashed?): name a --candidate to run"))
}
