//! `nsa-diff candidates`.

use std::collections::BTreeMap;

use nsa_corpus::{Field, foreign};
use serde_json::json;

use super::console::{Console, Json, Output};
use super::output::table;
use super::{Outcome, Refusal};
use nsa_harness::candidate::{Declaration, Determinism};
use nsa_harness::registry::LISTED;

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
    let mut rows = Vec::new();
    let mut candidates = Vec::new();
    for listed in &LISTED {
        let (state, determinism) = match listed.make() {
            Ok(candidate) => ("available".to_owned(), Some(Declaration::typical(candidate.as_ref()).reruns())),
            Err(reason) => (format!("not here: {}", foreign::line(&reason.to_string())), None),
        };
        let words = determinism.as_ref().map_or_else(String::new, in_words);
        rows.push(vec![listed.name.to_owned(), state.clone(), words, listed.about.to_owned()]);
        candidates
            .push(json!({ "name": listed.name, "about": listed.about, "state": state, "determinism": determinism }));
    }
    output.text(&table(&rows));
    output.json("candidates", json!({ "candidates": candidates }));
    Ok(Outcome::Shown)
}

fn in_words(contract: &BTreeMap<Field, Determinism>) -> String {
    let bounded = contract.iter().filter(|(_, determinism)| **determinism == Determinism::Bounded);
    let bounded: Vec<&str> = bounded.map(|(field, _)| field.name()).collect();
    if bounded.is_empty() { "bitwise".to_owned() } else { format!("bounded: {}", bounded.join(" ")) }
}
