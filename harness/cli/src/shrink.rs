//! `nsa-diff shrink`.

use std::path::PathBuf;
use std::time::Duration;

use nsa_corpus::{check_folder, foreign};
use serde_json::json;

use super::console::{Console, Json, Output};
use super::replay::read_file;
use super::select::CandidateArg;
use super::{Outcome, Refusal, concluded};
use nsa_harness::campaign::minimize::{Effort, minimize};
use nsa_harness::campaign::store::store;
use nsa_harness::campaign::waiver::Extent;
use nsa_harness::run::run_case;
use nsa_harness::tally::Tally;

/// Arguments of `shrink`.
#[derive(clap::Args)]
#[command(after_help = "The failure must show again on the candidate. The smaller one is stored beside the file.

Example:
  nsa-diff shrink corpus/bugs/found.safetensors --candidate cuda --calls 5000")]
pub(super) struct Args {
    /// A stored failure (.safetensors) or a file of entries (.toml)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Cases to run at most
    #[arg(long, value_name = "N", default_value_t = 5000)]
    calls: usize,
    /// Seconds to take at most
    #[arg(long, value_name = "N", default_value_t = 120)]
    seconds: u64,
    /// Folder to write to [default: that of FILE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    candidate: CandidateArg,
    #[command(flatten)]
    json: Json,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    let candidate = args.candidate.make()?;
    let folder = args.out.clone().or_else(|| args.file.parent().map(PathBuf::from)).unwrap_or_default();
    let effort = Effort { calls: args.calls, time: Duration::from_secs(args.seconds), ..Effort::default() };
    check_folder(&folder)?;
    let (mut results, mut tally) = (Vec::new(), Tally::default());
    for stored in read_file(&args.file)? {
        for dtype in &stored.entry.dtypes {
            let report = run_case(&stored.entry.case, *dtype, candidate.as_ref())?;
            tally.add(&report.verdict);
            if report.verdict.failure().is_none() {
                output.text(&format!("{} {dtype}: {}: nothing to minimise\n", stored.entry.name, report.verdict));
                continue;
            }
            let minimized = minimize(&stored.entry.case, report, *dtype, candidate.as_ref(), effort);
            let stem = args.file.file_stem().unwrap_or_default().to_string_lossy();
            let name = format!("{stem}-{}", minimized.case.id());
            let why = format!("{}; minimised in {} runs", stored.entry.why, minimized.calls);
            let seen = Extent::of_report(&minimized.case, &minimized.report, candidate.as_ref())?;
            let path = store(&folder, &name, &why, &minimized.case, &minimized.report, &seen, candidate.as_ref())?;
            let verdict = &minimized.report.verdict;
            output.text(&format!("{}: {verdict}\n", foreign::path(&path)));
            minimized.case.to_toml().lines().for_each(|line| output.text(&format!("  {line}\n")));
            results.push(json!({ "file": foreign::path(&path), "calls": minimized.calls, "report": minimized.report }));
        }
    }
    output.json("shrink", json!({ "results": results }));
    concluded(&tally, 0)
}
