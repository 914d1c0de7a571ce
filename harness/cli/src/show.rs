//! `nsa-diff show`.

use std::path::Path;

use super::console::{Console, Json, Output};
use super::render::show as render;
use super::select::select;
use super::{Outcome, Refusal};
use nsa_harness::campaign::replay::Stored;
use nsa_harness::document::{Described, Show};

/// Arguments of `show`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  nsa-diff show edges/seq_1
  nsa-diff show 'gqa/*' --brief
  nsa-diff show corpus/bugs/found.safetensors")]
pub(super) struct Args {
    /// The name of an entry, a glob over names, or a file of entries or of a stored failure
    #[arg(value_name = "CASE")]
    case: String,
    /// One line for each entry
    #[arg(long)]
    brief: bool,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let path = Path::new(&args.case);
    let stored: Vec<Stored> = if path.is_file() {
        Stored::read(path)?
    } else {
        select(std::slice::from_ref(&args.case))?.into_iter().map(|entry| Stored::from(entry.clone())).collect()
    };
    let mut show = Show { entries: Vec::new() };
    for Stored { entry, bundle } in &stored {
        let described = Described::of(entry, bundle.as_ref())?;
        output.text(&if args.brief { render::brief(&described) } else { render::text(&described) });
        show.entries.push(described);
    }
    output.document(&show);
    Ok(Outcome::Shown)
}
