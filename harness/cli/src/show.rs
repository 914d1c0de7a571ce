//! `nsa-diff show`.

use std::path::Path;

use ndarray::Dimension;
use nsa_corpus::{Bundle, Entry, digest, foreign};
use serde_json::{Value, json};

use super::console::{Console, Json, Output};
use super::select::select;
use super::{Outcome, Refusal};
use nsa_harness::campaign::replay::Stored;
use nsa_harness::campaign::waiver::Extent;

/// Failing elements of a field that are shown.
const ELEMENTS_SHOWN: usize = 16;

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
    let mut described = Vec::new();
    for Stored { entry, bundle } in &stored {
        if args.brief {
            output.text(&format!("{}: {}\n", entry.name, foreign::line(&entry.why)));
        } else {
            output.text(&render(entry)?);
            output.text(&bundle.as_ref().map(failing).unwrap_or_default());
        }
        described.push(describe(entry)?);
    }
    output.json("show", json!({ "entries": described }));
    Ok(Outcome::Shown)
}

fn render(entry: &Entry) -> Result<String, Refusal> {
    let mut text = format!("{}\n  why: {}\n", entry.name, foreign::line(&entry.why));
    if let Some(source) = &entry.source {
        text.push_str(&format!("  source: {}\n", foreign::line(source)));
    }
    for flag in &entry.flags {
        text.push_str(&format!("  flag {}: {}\n", flag.name, foreign::line(&flag.note)));
    }
    text.push_str(&format!("  features: {}\n  case {}:\n", entry.case.features().join(", "), entry.case.id()));
    entry.case.to_toml().lines().for_each(|line| text.push_str(&format!("    {line}\n")));
    for dtype in &entry.dtypes {
        let inputs = entry.case.materialize(*dtype)?;
        text.push_str(&format!("  inputs {dtype}: sha256 {}\n", digest::inputs(&inputs)));
    }
    text.push('\n');
    Ok(text)
}

/// What a stored failure says of itself, and its failing elements with what they could have been.
fn failing(bundle: &Bundle) -> String {
    let mut text = String::new();
    for (name, note) in bundle.notes.iter().filter(|(name, _)| *name != "report") {
        text.push_str(&format!("  {}: {}\n", foreign::line(name), foreign::line(note)));
    }
    if bundle.outputs.is_some() {
        text.push_str("  a waiver of it says:\n");
        Extent::of_bundle(bundle).to_toml().lines().for_each(|line| text.push_str(&format!("    {line}\n")));
    }
    let [lowest, highest] = &bundle.intervals;
    for (field, lowest) in lowest.iter() {
        let found = bundle.outputs.as_ref().and_then(|outputs| outputs.get(field));
        let (Some(highest), Some(found)) = (highest.get(field), found) else { continue };
        let outside = lowest.indexed_iter().filter_map(|(index, low)| {
            let (high, found) = (highest.get(&index)?, found.get(&index)?);
            (!(found >= low && found <= high)).then_some((index, low, high, found))
        });
        for (count, (index, low, high, found)) in outside.enumerate() {
            if count == ELEMENTS_SHOWN {
                text.push_str(&format!("  {field}: and more\n"));
                break;
            }
            let index = index.slice();
            text.push_str(&format!("  {field} {index:?}: expected {low:e} to {high:e}, found {found:e}\n"));
        }
    }
    text
}

fn describe(entry: &Entry) -> Result<Value, Refusal> {
    let mut digests = serde_json::Map::new();
    for dtype in &entry.dtypes {
        digests.insert(dtype.to_string(), digest::inputs(&entry.case.materialize(*dtype)?).into());
    }
    Ok(json!({
        "name": entry.name,
        "why": entry.why,
        "source": entry.source,
        "flags": entry.flags.iter().map(|flag| flag.name.clone()).collect::<Vec<_>>(),
        "features": entry.case.features(),
        "id": entry.case.id(),
        "case": entry.case.to_toml(),
        "inputs": digests,
    }))
}
