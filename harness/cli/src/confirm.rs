//! `nsa-diff confirm`: stored failures against witnesses.

use std::path::{Path, PathBuf};

use nsa_corpus::{Bundle, foreign};
use nsa_harness::campaign::confirm::confirm;
use nsa_harness::candidate::Candidate;
use nsa_harness::document::{Confirm, Confirmed};
use nsa_harness::registry::by_name;

use super::console::{Console, Json, Output};
use super::select::candidate_name;
use super::{Outcome, Refusal, render};

/// Arguments of `confirm`.
#[derive(clap::Args)]
#[command(
    after_help = "The stored answer is judged again by the oracle, and each witness computes the same problem in f64, or in f32 where it
has no f64: it must pass the oracle's judgement, and where the stored answer is worst its value is shown beside it. A failure
is confirmed when it fails again (or was none of numbers: a crash), no witness fails and one at least passes.
Exit code 1: a failure is not confirmed.

Examples:
  nsa-diff confirm corpus/bugs/*.safetensors
  nsa-diff confirm found.safetensors --witness regular_attend --witness guest:torch_regular_attend"
)]
pub(super) struct Args {
    /// Stored failures
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// An implementation that the candidate owes nothing to; may be given several times [default: regular_attend and
    /// tiled]
    #[arg(long = "witness", value_name = "NAME", value_parser = candidate_name)]
    witnesses: Vec<String>,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    // Two, because the transcription does not take every size.
    let usual = || ["regular_attend", "tiled"].map(str::to_owned).to_vec();
    let names = if args.witnesses.is_empty() { usual() } else { args.witnesses.clone() };
    let witnesses = names.iter().map(|name| by_name(name)).collect::<Result<Vec<_>, _>>()?;
    let mut document = Confirm { results: Vec::new() };
    for path in &args.files {
        let result = confirmed(path, &witnesses)?;
        output.text(&render::stored::confirmed(&result));
        document.results.push(result);
    }
    output.document(&document);
    let all = document.results.iter().all(|result| result.confirmation.confirmed);
    Ok(if all { Outcome::Passed } else { Outcome::Failed })
}

fn confirmed(path: &Path, witnesses: &[Box<dyn Candidate>]) -> Result<Confirmed, Refusal> {
    let (bundle, file) = (Bundle::read(path)?, foreign::path(path));
    let confirmation = confirm(&bundle, witnesses).map_err(|error| Refusal::new(format!("{file}: {error}")))?;
    Ok(Confirmed { file, confirmation })
}
