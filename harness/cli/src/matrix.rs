//! `nsa-diff matrix`: every implementation on every case, and who is wrong where they disagree.

use std::path::{Path, PathBuf};

use nsa_corpus::{Dtype, Entry, Error};
use rayon::prelude::*;
use serde_json::json;

use super::console::{Console, Json, Output};
use super::matrix_report::{self, Row};
use super::output::{catch_interrupt, interrupted, progress};
use super::replay::read_file;
use super::select::{Dtypes, candidate_name, select};
use super::{Outcome, Refusal};
use nsa_harness::candidate::Candidate;
use nsa_harness::registry::by_name;
use nsa_harness::tally::{Conclusion, Fields, Tally};

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
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', required = true, value_parser = candidate_name)]
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
    let rows: Vec<Option<Row>> = jobs
        .par_iter()
        .map(|(entry, dtype)| {
            if interrupted() {
                return Ok(None);
            }
            let row = Row::run(entry, *dtype, &candidates)?;
            bar.inc(1);
            Ok(Some(row))
        })
        .collect::<Result<_, Error>>()?;
    bar.finish_and_clear();
    let left_out = rows.iter().filter(|row| row.is_none()).count();
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    let names: Vec<&str> = candidates.iter().map(|candidate| candidate.name()).collect();
    output.text(&matrix_report::text(&names, &missing, &rows));
    if left_out > 0 {
        output.text(&format!("interrupted: {left_out} of {} cases were not run\n", jobs.len()));
    }
    if let Some(file) = &args.markdown {
        output.file(file, &matrix_report::markdown(&names, &missing, &rows));
    }
    let fields: Vec<Fields> = candidates.iter().map(|candidate| Fields::of(candidate.as_ref())).collect();
    for (name, fields) in names.iter().zip(&fields).filter(|(_, fields)| !fields.not_judged.is_empty()) {
        output.text(&format!("{name}: {fields}\n"));
    }
    let mut content = matrix_report::json(&names, &missing, &rows);
    fields.iter().enumerate().for_each(|(at, fields)| content["candidates"][at]["fields"] = json!(fields));
    content["left_out"] = json!(left_out);
    output.json("matrix", content);
    if left_out > 0 {
        return Ok(Outcome::Interrupted);
    }
    conclusion(&names, &rows)
}

/// A candidate of which nothing was tested is no success, unless another one fails.
fn conclusion(names: &[&str], rows: &[Row]) -> Result<Outcome, Refusal> {
    if rows.iter().any(Row::fails) {
        return Ok(Outcome::Failed);
    }
    let tallies = (0..names.len()).map(|at| Tally::of(rows.iter().map(|row| row.verdict(at))).conclusion());
    let untested: Vec<String> = names
        .iter()
        .zip(tallies)
        .filter_map(|(name, conclusion)| match conclusion {
            Conclusion::NothingTested(why) => Some(format!("{name}: {why}")),
            _ => None,
        })
        .collect();
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
        entries.extend(read_file(Path::new(file))?.into_iter().map(|stored| stored.entry));
    }
    Ok(entries)
}

/// The candidates that exist here, and why the others do not.
type Candidates = (Vec<Box<dyn Candidate>>, Vec<(String, String)>);

fn candidates(args: &Args) -> Result<Candidates, Refusal> {
    // Guests take seconds to start: all at once.
    let made: Vec<_> = args.candidates.par_iter().map(|name| (name, by_name(name))).collect();
    let (mut candidates, mut missing) = (Vec::new(), Vec::new());
    for (name, made) in made {
        match made {
            Ok(candidate) => candidates.push(candidate),
            Err(reason) => missing.push((name.clone(), reason.to_string())),
        }
    }
    let reasons: Vec<String> = missing.iter().map(|(_, reason)| reason.clone()).collect();
    if !missing.is_empty() && !args.available {
        return Err(Refusal::several(reasons));
    }
    if candidates.is_empty() {
        return Err(Refusal::several([vec!["no candidate exists here".to_owned()], reasons].concat()));
    }
    Ok((candidates, missing))
}
