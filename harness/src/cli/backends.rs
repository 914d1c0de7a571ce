//! `nsa-diff backends`.

use serde_json::json;

use super::output::{Json, table};
use super::{Outcome, Refusal};
use crate::backend::LISTED;

/// Arguments of `backends`.
#[derive(clap::Args)]
#[command(after_help = "Example:
  nsa-diff backends --json -")]
pub(super) struct Args {
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args) -> Result<Outcome, Refusal> {
    let state = |listed: &crate::backend::Listed| match listed.make() {
        Ok(_) => "available".to_owned(),
        Err(reason) => format!("not here: {reason}"),
    };
    let states: Vec<String> = LISTED.iter().map(state).collect();
    let rows: Vec<Vec<String>> = LISTED
        .iter()
        .zip(&states)
        .map(|(listed, state)| vec![listed.name.to_owned(), state.clone(), listed.about.to_owned()])
        .collect();
    args.json.text(&table(&rows));
    let backends: Vec<_> = LISTED
        .iter()
        .zip(&states)
        .map(|(listed, state)| json!({ "name": listed.name, "about": listed.about, "state": state }))
        .collect();
    args.json.write("backends", json!({ "backends": backends }))?;
    Ok(Outcome::Passed)
}
