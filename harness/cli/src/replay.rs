//! `nsa-diff replay`.

use std::path::{Path, PathBuf};

use nsa_corpus::foreign;
use nsa_harness::campaign::replay::Stored;
use nsa_harness::document::Replay;
use nsa_harness::registry::by_name;
use nsa_harness::tally::{Fields, Tally};

use super::console::{Console, Json, Output};
use super::output::not_judged;
use super::select::candidate_name;
use super::{Outcome, Refusal, concluded, render};

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

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let candidate = args.candidate.as_deref().map(by_name).transpose()?;
    let mut reports = Vec::new();
    for path in &args.files {
        for stored in Stored::read(path)? {
            for dtype in &stored.entry.dtypes {
                let report =
                    stored.replay(*dtype, candidate.as_deref()).map_err(|error| in_file(path, error.into()))?;
                let report = report.ok_or_else(|| in_file(path, nothing_stored(&stored)))?;
                output.text(&render::stored::replayed(&report));
                reports.push(report);
            }
        }
    }
    let fields = candidate.as_deref().map(Fields::of);
    output.text(&fields.as_ref().map(not_judged).unwrap_or_default());
    let document = Replay { fields, reports };
    output.document(&document);
    concluded(&Tally::of(document.reports.iter().map(|report| &report.verdict)), 0)
}

fn nothing_stored(stored: &Stored) -> Refusal {
    Refusal::new(match stored.bundle {
        Some(_) => "the stored failure holds no answer (it crashed?): name a --candidate to run",
        None => "a file of entries holds no answers: name a --candidate to run",
    })
}

/// The refusal with the name of the file that it is about.
pub(super) fn in_file(path: &Path, error: Refusal) -> Refusal {
    let (path, error) = (foreign::path(path), error.to_string());
    Refusal::new(if error.starts_with(&path) { error } else { format!("{path}: {error}") })
}
