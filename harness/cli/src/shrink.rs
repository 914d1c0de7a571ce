//! `nsa-diff shrink`.

use std::path::PathBuf;
use std::time::Duration;

use nsa_corpus::{check_folder, foreign};
use nsa_harness::campaign::minimize::Effort;
use nsa_harness::campaign::replay::Stored;
use nsa_harness::campaign::shrink::{Shrunk, shrink};
use nsa_harness::document::{Shrink, Smaller};
use nsa_harness::tally::Tally;

use super::console::{Console, Json, Output};
use super::replay::in_file;
use super::select::CandidateArg;
use super::{Outcome, Refusal, concluded, render};

/// Arguments of `shrink`.
#[derive(clap::Args)]
#[command(after_help = "The failure must show again on the candidate. The smaller one is stored beside the file.

Example:
  nsa-diff shrink corpus/bugs/found.safetensors --candidate cuda --calls 5000")]
pub(super) struct Args {
    /// A stored failure (.safetensors) or a file of entries (.toml)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Cases to run at most
    #[arg(long, value_name = "N", default_value_t = 5000)]
    calls: usize,
    /// Seconds to take at most
    #[arg(long, value_name = "N", default_value_t = 120)]
    seconds: u64,
    /// Folder to write to [default: that of FILE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    candidate: CandidateArg,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let candidate = args.candidate.make()?;
    let folder = args.out.clone().or_else(|| args.file.parent().map(PathBuf::from)).unwrap_or_default();
    let effort = Effort { calls: args.calls, time: Duration::from_secs(args.seconds), ..Effort::default() };
    check_folder(&folder)?;
    let stem = args.file.file_stem().unwrap_or_default().to_string_lossy();
    let mut document = Shrink { results: Vec::new(), nothing: Vec::new() };
    for stored in Stored::read(&args.file)? {
        for dtype in &stored.entry.dtypes {
            let shrunk = shrink(&stored, *dtype, candidate.as_ref(), effort, &folder, &stem);
            match shrunk.map_err(|error| in_file(&args.file, error.into()))? {
                Shrunk::Nothing(report) => {
                    output.text(&render::stored::nothing_to_minimise(&report));
                    document.nothing.push(*report);
                }
                Shrunk::Stored(file, minimal) => {
                    let smaller = Smaller::new(foreign::path(&file), *minimal);
                    output.text(&render::stored::smaller(&smaller));
                    document.results.push(smaller);
                }
            }
        }
    }
    output.document(&document);
    let smaller = document.results.iter().map(|smaller| &smaller.report);
    let reports = smaller.chain(&document.nothing);
    concluded(&Tally::of(reports.map(|report| &report.verdict)), 0)
}
