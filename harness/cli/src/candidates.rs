//! `nsa-diff candidates`.

use std::collections::BTreeMap;

use nsa_corpus::{Field, foreign};

use super::console::{Console, Json, Output};
use super::output::table;
use super::{Outcome, Refusal};
use nsa_harness::candidate::Determinism;
use nsa_harness::document::{Available, Candidates};

/// Arguments of `candidates`.
#[derive(clap::Args)]
#[command(after_help = "Example:
  nsa-diff candidates --json -")]
pub(super) struct Args {
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let document = Candidates::here();
    let rows: Vec<Vec<String>> = document.candidates.iter().map(row).collect();
    output.text(&table(&rows));
    output.document(&document);
    Ok(Outcome::Shown)
}

fn row(candidate: &Available) -> Vec<String> {
    let reason = candidate.reason.as_ref().map(|reason| format!("not here: {}", foreign::line(reason)));
    let determinism = candidate.determinism.as_ref().map_or_else(String::new, in_words);
    let state = reason.unwrap_or_else(|| "available".to_owned());
    vec![candidate.name.clone(), state, determinism, candidate.about.clone()]
}

fn in_words(contract: &BTreeMap<Field, Determinism>) -> String {
    let bounded = contract.iter().filter(|(_, determinism)| **determinism == Determinism::Bounded);
    let bounded: Vec<&str> = bounded.map(|(field, _)| field.name()).collect();
    if bounded.is_empty() { "bitwise".to_owned() } else { format!("bounded: {}", bounded.join(" ")) }
}
