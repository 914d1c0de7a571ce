//! `nsa-diff backends`.

use std::collections::BTreeMap;

use nsa_corpus::{Field, foreign};
use serde_json::json;

use super::console::{Console, Json, Output};
use super::output::table;
use super::{Outcome, Refusal};
use crate::backend::{Declaration, Determinism, LISTED};

/// Arguments of `backends`.
#[derive(clap::Args)]
#[command(after_help = "Example:
  nsa-diff backends --json -")]
pub(super) struct Args {
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let mut rows = Vec::new();
    let mut backends = Vec::new();
    for listed in &LISTED {
        let (state, determinism) = match listed.make() {
            Ok(backend) => ("available".to_owned(), Some(Declaration::typical(backend.as_ref()).reruns())),
            Err(reason) => (format!("not here: {}", foreign::line(&reason.to_string())), None),
        };
        let words = determinism.as_ref().map_or_else(String::new, in_words);
        rows.push(vec![listed.name.to_owned(), state.clone(), words, listed.about.to_owned()]);
        backends
            .push(json!({ "name": listed.name, "about": listed.about, "state": state, "determinism": determinism }));
    }
    output.text(&table(&rows));
    output.json("backends", json!({ "backends": backends }));
    Ok(Outcome::Shown)
}

fn in_words(contract: &BTreeMap<Field, Determinism>) -> String {
    let bounded = contract.iter().filter(|(_, determinism)| **determinism == Determinism::Bounded);
    let bounded: Vec<&str> = bounded.map(|(field, _)| field.name()).collect();
    if bounded.is_empty() { "bitwise".to_owned() } else { format!("bounded: {}", bounded.join(" ")) }
}
