//! `nsa-diff detect`: are planted faults noticed?

use std::collections::BTreeMap;
use std::time::Instant;

use nsa_corpus::{Element, Entry, entries};
use nsa_gpu::{Expect, Mutant, Rung};
use rayon::prelude::*;
use serde_json::json;

use super::output::{Json, progress, table};
use super::{Outcome, Refusal};
use crate::backend::Backend;
use crate::backend::cuda::Cuda;
use crate::run::run_entry;
use crate::verdict::{Class, Verdict};

/// Arguments of `detect`.
#[derive(clap::Args)]
#[command(
    after_help = "Plants each fault of gpu/mutants in the CUDA kernels and runs the corpus until a case fails, cheapest cases first. The
kernels without a fault must pass first.

Example, on a machine with a GPU:
  nsa-diff detect --candidate cuda --json mutants.json"
)]
pub(super) struct Args {
    /// Whose faults to plant
    #[arg(long, value_name = "cuda", default_value = "cuda")]
    candidate: String,
    /// Only faults whose name contains TEXT
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    #[command(flatten)]
    json: Json,
}

/// What became of a fault.
struct Fate {
    mutant: Mutant,
    fate: &'static str,
    by: String,
    seconds: f64,
}

pub(super) fn main(args: &Args) -> Result<Outcome, Refusal> {
    if args.candidate != "cuda" {
        return Err(Refusal::new(format!("no faults are known for `{}`: only for cuda", args.candidate)));
    }
    let mutants = nsa_gpu::mutants().map_err(|error| Refusal::new(error.to_string()))?;
    let mutants: Vec<Mutant> = mutants.into_iter().filter(|mutant| mutant.name.contains(&args.only)).collect();
    let cases = cheapest_first();
    for rung in Rung::ALL {
        baseline(rung, &cases)?;
    }
    let bar = progress(Some(mutants.len() as u64));
    let fates: Vec<Fate> = mutants
        .into_par_iter()
        .map(|mutant| {
            let fate = fate(mutant, &cases);
            bar.inc(1);
            fate
        })
        .collect::<Result<_, Refusal>>()?;
    bar.finish_and_clear();
    report(args, &fates)
}

/// Every entry and element, those with the fewest score terms first.
fn cheapest_first() -> Vec<(&'static Entry, Element)> {
    let cost = |entry: &Entry| {
        let sizes = &entry.case.sizes;
        sizes.batch
            * sizes.q_heads
            * sizes.seq_len
            * (sizes.num_sel + 1)
            * sizes.block_size
            * sizes.dim.max(sizes.value_dim)
    };
    let mut cases: Vec<_> =
        entries().iter().flat_map(|entry| entry.elements.iter().map(move |element| (entry, *element))).collect();
    cases.sort_by_key(|(entry, _)| cost(entry));
    cases
}

/// The rungs on which a mutant's file is compiled.
fn rung_of(mutant: &Mutant) -> Rung {
    let tensor = mutant.file.contains("tensor") || mutant.file.contains("mma");
    if tensor { Rung::Tensor } else { Rung::Plain }
}

fn baseline(rung: Rung, cases: &[(&Entry, Element)]) -> Result<(), Refusal> {
    let backend = Cuda::new(Some(rung), None, 8)?;
    let failed = cases.par_iter().find_map_any(|(entry, element)| {
        let report = run_entry(entry, *element, &backend).ok()?;
        let failure = report.verdict.failure()?;
        Some(format!("{rung} fails {} {element} without any fault: {}", entry.name, failure.message))
    });
    failed.map_or(Ok(()), |message| Err(Refusal::new(message)))
}

fn fate(mutant: Mutant, cases: &[(&Entry, Element)]) -> Result<Fate, Refusal> {
    let start = Instant::now();
    let backend = Cuda::new(Some(rung_of(&mutant)), Some(&mutant.name), 1)?;
    let (mut fate, mut by) = ("survived", String::new());
    for (entry, element) in cases {
        let report = run_entry(entry, *element, &backend as &dyn Backend)?;
        if let Verdict::Fail(failure) = &report.verdict {
            fate = match failure.class {
                Class::Compile => "unviable",
                Class::Timeout => "timeout",
                _ => "killed",
            };
            let field =
                failure.field.map_or_else(|| failure.class.to_string(), |field| format!("{field} ({})", failure.class));
            by = format!("{} {element}: {field}", entry.name);
            break;
        }
    }
    if fate == "survived" && mutant.expect == Expect::Equivalent {
        fate = "equivalent";
    }
    Ok(Fate { mutant, fate, by, seconds: start.elapsed().as_secs_f64() })
}

fn report(args: &Args, fates: &[Fate]) -> Result<Outcome, Refusal> {
    let mut rows = vec![["fault", "file", "fate", "by", "s"].map(str::to_owned).to_vec()];
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for fate in fates {
        *counts.entry(fate.fate).or_default() += 1;
        let seconds = format!("{:.1}", fate.seconds);
        rows.push(vec![
            fate.mutant.name.clone(),
            fate.mutant.file.clone(),
            fate.fate.to_owned(),
            fate.by.clone(),
            seconds,
        ]);
    }
    args.json.text(&table(&rows));
    let counts: Vec<String> = counts.iter().map(|(fate, count)| format!("{count} {fate}")).collect();
    args.json.text(&format!("\n{} faults: {}\n", fates.len(), counts.join(", ")));
    let described: Vec<_> = fates
        .iter()
        .map(|fate| {
            json!({
                "name": fate.mutant.name,
                "genre": fate.mutant.genre,
                "file": fate.mutant.file,
                "why": fate.mutant.why,
                "fate": fate.fate,
                "by": fate.by,
                "seconds": fate.seconds,
            })
        })
        .collect();
    args.json.write("detect", json!({ "candidate": args.candidate, "faults": described }))?;
    let escaped = fates.iter().any(|fate| fate.fate == "survived");
    Ok(if escaped { Outcome::Failed } else { Outcome::Passed })
}
