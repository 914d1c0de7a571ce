//! `nsa-diff matrix`: every implementation on every case, and who is wrong where they disagree.

use std::path::{Path, PathBuf};

use nsa_corpus::{Dtype, Entry};

use super::console::{Console, Json, Output};
use super::output::{catch_interrupt, interrupted, progress};
use super::render::matrix as render;
use super::select::{Dtypes, select};
use super::{Outcome, Refusal};
use nsa_harness::campaign::matrix::{self, Present};
use nsa_harness::campaign::replay::Stored;
use nsa_harness::document::Matrix;
use nsa_harness::tally::Fields;
use nsa_harness::watch::Watch;

/// Arguments of `matrix`.
#[derive(clap::Args)]
#[command(
    after_help = "Each case is run on every candidate and judged by the oracle. Where one passes and another fails, the failing element is
shown with what the oracle expects there and what every candidate answered. Ctrl-C reports what was run until then.

A candidate's cell has a letter for each format of the case: `.` pass, `s` suspect, `F` fail, `-` skip, `?` inconclusive.
Exit codes: 0 none fails, 1 one fails, 2 a candidate does not exist here (unless --available), 130 interrupted.

Examples:
  nsa-diff matrix --candidates tiled,regular_attend,guest:numpy_plain
  nsa-diff matrix 'kernels/*' corpus/bugs/*.safetensors --candidates 'cuda,guest:triton_nsa,guest:triton_nsa dot' \\\\
      --available --json matrix.json --markdown matrix.md"
)]
pub(super) struct Args {
    /// Entries to run, as globs over names, and files of entries or stored failures [default: all entries]
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    /// Implementations to compare, divided by commas
    #[arg(long, alias = "backends", value_name = "A,B,…", value_delimiter = ',', required = true)]
    candidates: Vec<String>,
    /// Leave out candidates that do not exist here, and say so
    #[arg(long)]
    available: bool,
    #[command(flatten)]
    dtypes: Dtypes,
    /// Write the tables as Markdown to FILE too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let files: Vec<&Path> = args.markdown.as_deref().into_iter().collect();
    let output = Output::open(console, &args.json, &files)?;
    let entries = chosen(&args.cases)?;
    let (candidates, missing) = candidates(args)?;
    let jobs: Vec<(&Entry, Dtype)> =
        entries.iter().flat_map(|entry| args.dtypes.of(entry).into_iter().map(move |dtype| (entry, dtype))).collect();
    catch_interrupt();
    let bar = progress(Some(jobs.len() as u64));
    let rows = matrix::run(&jobs, &candidates, Watch::new(&interrupted, &|| bar.inc(1)))?;
    bar.finish_and_clear();
    let named = candidates.iter().map(|candidate| (candidate.name().to_owned(), Fields::of(candidate.as_ref())));
    let left_out = jobs.len() - rows.len();
    let matrix = Matrix::of(named.collect(), missing, rows, left_out);
    output.text(&render::text(&matrix));
    if let Some(file) = &args.markdown {
        output.file(file, &render::markdown(&matrix));
    }
    let outcome = conclusion(&matrix);
    output.document(&matrix);
    outcome
}

/// A candidate of which nothing was tested is no success, unless another one fails.
fn conclusion(matrix: &Matrix) -> Result<Outcome, Refusal> {
    if matrix.left_out > 0 {
        return Ok(Outcome::Interrupted);
    }
    if matrix.fails() {
        return Ok(Outcome::Failed);
    }
    let untested = matrix.untested();
    if untested.is_empty() { Ok(Outcome::Passed) } else { Err(Refusal::several(untested)) }
}

/// The entries that globs and files name.
fn chosen(cases: &[String]) -> Result<Vec<Entry>, Refusal> {
    let (files, patterns): (Vec<&String>, Vec<&String>) = cases.iter().partition(|case| Path::new(case).is_file());
    let mut entries = Vec::new();
    if !patterns.is_empty() || files.is_empty() {
        let patterns: Vec<String> = patterns.into_iter().cloned().collect();
        entries.extend(select(&patterns)?.into_iter().cloned());
    }
    for file in files {
        entries.extend(Stored::read(Path::new(file))?.into_iter().map(|stored| stored.entry));
    }
    Ok(entries)
}

fn candidates(args: &Args) -> Result<Present, Refusal> {
    let (candidates, missing) = matrix::present(&args.candidates);
    let reasons: Vec<String> = missing.iter().map(|missing| missing.reason.clone()).collect();
    if !missing.is_empty() && !args.available {
        return Err(Refusal::several(reasons));
    }
    if candidates.is_empty() {
        return Err(Refusal::several([vec!["no candidate exists here".to_owned()], reasons].concat()));
    }
    Ok((candidates, missing))
}
