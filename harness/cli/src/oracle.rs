//! `nsa-diff oracle`.

use std::path::PathBuf;

use nsa_corpus::{Field, GoldenCase, foreign};
use nsa_reference::oracle;

use super::console::{Console, Json, Output};
use super::{Outcome, Refusal};
use nsa_harness::document::Oracle;

/// Arguments of `oracle`.
#[derive(clap::Args)]
#[command(
    after_help = "IN holds q, k, v, indices, mask and optionally sel_scale, d_out, d_lse, d_sliding; its header's metadata holds
`block_size`, or `config` as golden files have it. OUT gets the inputs and, as F64, out, lse, … and the gradients where a
cotangent is given. The same input gives the same bytes.

Examples:
  nsa-diff oracle in.safetensors out.safetensors
  nsa-diff oracle in.safetensors out.safetensors --block-size 32 --sliding-window 64"
)]
pub(super) struct Args {
    /// File of inputs
    #[arg(value_name = "IN.safetensors")]
    input: PathBuf,
    /// File to write
    #[arg(value_name = "OUT.safetensors")]
    output: PathBuf,
    /// Keys in a block, instead of what the file says
    #[arg(long, value_name = "N")]
    block_size: Option<usize>,
    /// Ask for the sliding output with this window, instead of what the file says
    #[arg(long, value_name = "N")]
    sliding_window: Option<usize>,
    /// Leave out the block-causal diagonal
    #[arg(long)]
    no_block_causal: bool,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[&args.output])?;
    let case = GoldenCase::read_with(&args.input, |options| {
        options.block_size = args.block_size.or(options.block_size);
        options.sliding_window = args.sliding_window.or(options.sliding_window);
        options.include_block_causal &= !args.no_block_causal;
    })?;
    let same = args.input.canonicalize().ok().zip(args.output.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    if same {
        return Err(Refusal::new(format!("{} is the input: it is not overwritten", foreign::path(&args.output))));
    }
    let outputs = oracle::attend(&case.inputs);
    let fields: Vec<Field> = outputs.iter().map(|(field, _)| field).collect();
    GoldenCase::new(&case.name, case.inputs, outputs).write(&args.output)?;
    let file = foreign::path(&args.output);
    let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
    output.text(&format!("{file}: {}\n", names.join(", ")));
    output.document(&Oracle { file, fields });
    Ok(Outcome::Passed)
}
