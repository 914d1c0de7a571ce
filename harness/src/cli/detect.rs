//! `nsa-diff detect`: are planted faults noticed?

use std::collections::BTreeMap;

use nsa_gpu::Mutant;
use serde_json::json;

use super::detect_cuda::{Fate, Means, fates};
use super::output::{Json, catch_interrupt, interrupted, table};
use super::{Outcome, Refusal};

/// Arguments of `detect`.
#[derive(clap::Args)]
#[command(
    after_help = "Plants each fault of gpu/mutants in the CUDA kernels and runs the corpus until a case fails, cheapest cases first. The
kernels without a fault must pass first. Faults of offsets that the corpus lets live are tried again with every tensor set
2^32 elements apart; races that did not happen, under compute-sanitizer's racecheck where it is named.

Examples, on a machine with a GPU:
  nsa-diff detect --candidate cuda --json mutants.json
  nsa-diff detect --only barrier --sanitizer compute-sanitizer"
)]
pub(super) struct Args {
    /// Whose faults to plant
    #[arg(long, value_name = "cuda", default_value = "cuda")]
    candidate: String,
    /// Only faults whose name contains TEXT
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// The program compute-sanitizer
    #[arg(long, value_name = "PROGRAM")]
    sanitizer: Option<String>,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args) -> Result<Outcome, Refusal> {
    if args.candidate != "cuda" {
        return Err(Refusal::new(format!("no faults are known for `{}`: only for cuda", args.candidate)));
    }
    let mutants = nsa_gpu::mutants().map_err(|error| Refusal::new(error.to_string()))?;
    let mutants: Vec<Mutant> = mutants.into_iter().filter(|mutant| mutant.name.contains(&args.only)).collect();
    if mutants.is_empty() {
        return Err(Refusal::new(format!("no fault's name contains `{}`", args.only)));
    }
    catch_interrupt();
    let chosen = mutants.len();
    let fates = fates(mutants, &Means { sanitizer: args.sanitizer.as_deref() })?;
    report(args, chosen, &fates)
}

fn report(args: &Args, chosen: usize, fates: &[Fate]) -> Result<Outcome, Refusal> {
    let mut rows = vec![["fault", "file", "fate", "by", "s"].map(str::to_owned).to_vec()];
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for fate in fates {
        *counts.entry(fate.fate).or_default() += 1;
        let Fate { mutant, by, seconds, .. } = fate;
        let word = if fate.expected() { fate.fate.to_owned() } else { format!("{} (!)", fate.fate) };
        rows.push(vec![mutant.name.clone(), mutant.file.clone(), word, by.clone(), format!("{seconds:.1}")]);
    }
    args.json.text(&table(&rows));
    let unexpected = fates.iter().filter(|fate| !fate.expected()).count();
    let counts: Vec<String> = counts.iter().map(|(fate, count)| format!("{count} {fate}")).collect();
    args.json.text(&format!(
        "\n{} of {chosen} faults: {}; {unexpected} not as their files expect\n",
        fates.len(),
        counts.join(", ")
    ));
    let described: Vec<_> = fates
        .iter()
        .map(|fate| {
            json!({
                "name": fate.mutant.name,
                "genre": fate.mutant.genre,
                "file": fate.mutant.file,
                "why": fate.mutant.why,
                "expect": fate.mutant.expect,
                "fate": fate.fate,
                "by": fate.by,
                "seconds": fate.seconds,
            })
        })
        .collect();
    let left_out = chosen - fates.len();
    args.json.write("detect", json!({ "candidate": args.candidate, "left_out": left_out, "faults": described }))?;
    Ok(match (interrupted(), unexpected) {
        (true, _) => Outcome::Interrupted,
        (false, 0) => Outcome::Passed,
        (false, _) => Outcome::Failed,
    })
}
