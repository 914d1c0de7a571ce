//! `nsa-diff matrix`: every implementation on every case, and who is wrong where they disagree.

use std::path::{Path, PathBuf};

use nsa_corpus::{Element, Entry, Error};
use rayon::prelude::*;
use serde_json::json;

use super::matrix_report::{self, Row};
use super::output::{Json, catch_interrupt, interrupted, progress};
use super::replay::read_file;
use super::select::{Elements, select};
use super::{Outcome, Refusal};
use crate::backend::{Backend, by_name};

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
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', required = true)]
    candidates: Vec<String>,
    /// Leave out candidates that do not exist here, and say so
    #[arg(long)]
    available: bool,
    #[command(flatten)]
    elements: Elements,
    /// Write the tables as Markdown to FILE too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args) -> Result<Outcome, Refusal> {
    let entries = chosen(&args.cases)?;
    let (candidates, missing) = candidates(args)?;
    let jobs: Vec<(&Entry, Element)> = entries
        .iter()
        .flat_map(|entry| args.elements.of(entry).into_iter().map(move |element| (entry, element)))
        .collect();
    catch_interrupt();
    let bar = progress(Some(jobs.len() as u64));
    let rows: Vec<Option<Row>> = jobs
        .par_iter()
        .map(|(entry, element)| {
            if interrupted() {
                return Ok(None);
            }
            let row = Row::run(entry, *element, &candidates)?;
            bar.inc(1);
            Ok(Some(row))
        })
        .collect::<Result<_, Error>>()?;
    bar.finish_and_clear();
    let left_out = rows.iter().filter(|row| row.is_none()).count();
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    let names: Vec<&str> = candidates.iter().map(|candidate| candidate.name()).collect();
    args.json.text(&matrix_report::text(&names, &missing, &rows));
    if left_out > 0 {
        args.json.text(&format!("interrupted: {left_out} of {} cases were not run\n", jobs.len()));
    }
    if let Some(file) = &args.markdown {
        let written = std::fs::write(file, matrix_report::markdown(&names, &missing, &rows));
        written.map_err(|error| Refusal::new(format!("{}: cannot be written: {error}", file.display())))?;
    }
    let mut content = matrix_report::json(&names, &missing, &rows);
    content["left_out"] = json!(left_out);
    args.json.write("matrix", content)?;
    Ok(if left_out > 0 {
        Outcome::Interrupted
    } else if rows.iter().any(Row::fails) {
        Outcome::Failed
    } else {
        Outcome::Passed
    })
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
type Candidates = (Vec<Box<dyn Backend>>, Vec<(String, String)>);

fn candidates(args: &Args) -> Result<Candidates, Refusal> {
    // Guests take seconds to start: all at once.
    let made: Vec<_> = args.candidates.par_iter().map(|name| (name, by_name(name.trim()))).collect();
    let (mut candidates, mut missing) = (Vec::new(), Vec::new());
    for (name, made) in made {
        match made {
            Ok(backend) => candidates.push(backend),
            Err(reason) => missing.push((name.clone(), reason.to_string())),
        }
    }
    let reasons: Vec<&str> = missing.iter().map(|(_, reason)| reason.as_str()).collect();
    if !missing.is_empty() && !args.available {
        return Err(Refusal::new(reasons.join("\n")));
    }
    if candidates.is_empty() {
        return Err(Refusal::new(format!("no candidate exists here:\n{}", reasons.join("\n"))));
    }
    Ok((candidates, missing))
}
