//! `nsa-diff run`.

use nsa_corpus::{Dtype, Entry};
use nsa_harness::campaign::run::run_jobs;
use nsa_harness::document::Run;
use nsa_harness::tally::{Fields, Tally};

use super::console::{Console, Json, Output};
use super::output::{catch_interrupt, interrupted, progress};
use super::select::{CandidateArg, Dtypes, select};
use super::{Outcome, Refusal, concluded, render};

/// Arguments of `run`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  nsa-diff run
  nsa-diff run 'gqa/*' edges/seq_1 --candidate regular_attend --dtype f32
  nsa-diff run --json report.json
  nsa-diff run 'edges/*' --vacuous
  nsa-diff run --large large/64k --candidate cuda --dtype bf16

Patterns are globs over entry names (`*` also matches `/`); `nsa-diff show '*'` lists them.")]
pub(super) struct Args {
    /// Entries to run [default: all]
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    #[command(flatten)]
    candidate: CandidateArg,
    #[command(flatten)]
    dtypes: Dtypes,
    /// Run each case N times more; each field must repeat as the candidate declares: every bit, or but for the order of additions
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    reruns: u32,
    /// Run problems too large to answer whole instead: sampled rows against the oracle, and relations between answers to the same
    /// problem rearranged (f32 and bf16 unless --dtype is given)
    #[arg(long, conflicts_with_all = ["reruns", "vacuous"])]
    large: bool,
    /// List every check that an injected fault (zeros, sign flip, swapped rows, 1 % gain) would have passed, with the reason
    #[arg(long)]
    vacuous: bool,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    if args.large {
        return super::large::main(&args.patterns, &args.candidate, &args.dtypes, &output);
    }
    let chosen = select(&args.patterns)?;
    let candidate = args.candidate.make()?;
    let jobs: Vec<(&Entry, Dtype)> = chosen
        .into_iter()
        .flat_map(|entry| args.dtypes.of(entry).into_iter().map(move |dtype| (entry, dtype)))
        .collect();
    catch_interrupt();
    let bar = progress(Some(jobs.len() as u64));
    let ran = run_jobs(&jobs, candidate.as_ref(), args.reruns as usize, interrupted, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let document = Run::new(args.candidate.name(), Fields::of(candidate.as_ref()), ran.left_out, ran.reports);
    output.text(&render::run::text(&document, args.vacuous));
    let tally = Tally::of(document.reports.iter().map(|report| &report.verdict));
    output.document(&document);
    concluded(&tally, document.left_out)
}
