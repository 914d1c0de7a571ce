//! `nsa-diff fuzz`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nsa_corpus::{Case, Dtype, check_folder, foreign};
use rayon::prelude::*;
use serde_json::json;

use super::console::{Console, Json, Output};
use super::fuzz_failures::{Failing, Failures};
use super::output::{catch_interrupt, interrupted, not_judged, progress, tightness_table};
use super::select::{CandidateArg, Dtypes};
use super::{Outcome, Refusal};
use nsa_harness::judge::verdict::Verdict;
use nsa_harness::report::Report;
use nsa_harness::run::run_case;
use nsa_harness::summary::Summary;
use nsa_harness::tally::{Conclusion, Tally};

/// Cases drawn, run and reported together: enough that several processes of a guest which skips most have work.
const BATCH: usize = 512;

/// Arguments of `fuzz`.
#[derive(clap::Args)]
#[command(
    after_help = "The same seed gives the same cases, whatever the time limit and the machine. A failure is minimised within its
budget and written to the folder of --bugs as one file that holds its values; `nsa-diff replay` judges it again.
Failures of one class and field whose minimal cases need different things are stored one by one. A file `waivers.toml` in
the folder may waive stored failures, each with a reason and with how wrong an answer may be: [[waiver]]
file = \"NAME.safetensors\", reason = \"...\", and the lines that `nsa-diff show` prints of the file.

Examples:
  nsa-diff fuzz --seed 1 --cases 1000
  nsa-diff fuzz --seed 7 --time 5m --candidate tiled --element bf16"
)]
pub(super) struct Args {
    /// Seed of the generated cases
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(super) seed: u64,
    /// Number of cases [default: 1000, unless --time is given]
    #[arg(long, value_name = "N", conflicts_with = "time", value_parser = at_least_one)]
    cases: Option<usize>,
    /// Time to go on for, such as 30s, 5m or 1h30m
    #[arg(long, value_name = "TIME", value_parser = super::duration::parse)]
    time: Option<Duration>,
    /// Largest size that generated cases reach, roughly in tokens
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u16).range(1..=4096))]
    size: u16,
    /// Folder for minimised failures; those of the candidate that it holds already are known, and not reported again
    #[arg(long, value_name = "DIR", default_value = "corpus/bugs")]
    pub(super) bugs: PathBuf,
    /// Seconds to take at most for minimising one failure
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) effort: u64,
    /// Distinct failures after which to stop
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    pub(super) failures: usize,
    #[command(flatten)]
    pub(super) candidate: CandidateArg,
    #[command(flatten)]
    pub(super) dtypes: Dtypes,
    #[command(flatten)]
    pub(super) json: Json,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("with 0 nothing would be tested".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("`{text}` is no number of at least 1")),
    }
}

/// What has been done so far.
#[derive(Default)]
struct Progress {
    cases: usize,
    elements: usize,
    tally: Tally,
    exercised: BTreeMap<String, usize>,
    budget_use: Summary,
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    check_folder(&args.bugs)?;
    let candidate = args.candidate.make()?;
    let limit = match (args.cases, args.time) {
        (Some(cases), _) => cases,
        (None, Some(_)) => usize::MAX,
        (None, None) => 1000,
    };
    catch_interrupt();
    output.text(&format!("seed {}, candidate {}\n", args.seed, args.candidate.name()));
    let bar = progress((limit != usize::MAX).then_some(limit as u64));
    let start = Instant::now();
    let mut done = Progress::default();
    let mut failures = Failures::load(args, &output, candidate.as_ref())?;
    let in_time = || args.time.is_none_or(|time| start.elapsed() < time);
    while done.cases < limit && !interrupted() && in_time() && failures.new_ones() < args.failures {
        let batch = done.cases..limit.min(done.cases + BATCH);
        let cases: Vec<(usize, Case, Dtype)> = batch.map(|index| drawn(args, index)).collect();
        let reports: Vec<Option<Report>> = cases
            .par_iter()
            .map(|(_, case, dtype)| {
                let ends = interrupted() || !in_time();
                (!ends).then(|| run_case(case, *dtype, candidate.as_ref())).transpose()
            })
            .collect::<Result<_, _>>()?;
        reports.iter().flatten().for_each(|report| done.count(report));
        let reports = cases.iter().zip(reports).filter_map(|(drawn, report)| Some((drawn, report?)));
        let failing = reports.filter_map(|((index, case, _), report)| Failing::new(*index, case, report));
        failures.take(failing.collect(), &bar, in_time);
        bar.set_position(done.cases as u64);
    }
    bar.finish_and_clear();
    finish(args, &output, &done, &mut failures, start.elapsed())
}

/// Case number `index` and the format it is run in: a function of the seed and the number alone.
fn drawn(args: &Args, index: usize) -> (usize, Case, Dtype) {
    let seed = args.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64);
    // Small cases first, so that a failure is likely to be small when it is found.
    let size = 4 + (usize::from(args.size).saturating_sub(4)) * (index % 16) / 15;
    let case = Case::generate(size, seed);
    let elements = args.dtypes.or_usual();
    (index, case, elements[index % elements.len()])
}

impl Progress {
    fn count(&mut self, report: &Report) {
        self.cases += 1;
        self.elements += report.elements();
        self.tally.add(&report.verdict);
        if matches!(report.verdict, Verdict::Skip(_)) {
            return;
        }
        report.features.iter().for_each(|tag| *self.exercised.entry(tag.clone()).or_default() += 1);
        self.budget_use.add(report);
    }
}

fn finish(
    args: &Args,
    output: &Output<'_>,
    done: &Progress,
    failures: &mut Failures<'_>,
    time: Duration,
) -> Result<Outcome, Refusal> {
    let rate = done.cases as f64 / time.as_secs_f64().max(1e-9);
    let verdicts: Vec<String> = done.tally.verdicts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    output.text(&format!(
        "\n{} cases in {:.1} s ({rate:.0} a second): {}\n{} elements judged\nexercised:",
        done.cases,
        time.as_secs_f64(),
        verdicts.join(", "),
        done.elements,
    ));
    done.exercised.iter().for_each(|(tag, count)| output.text(&format!(" {tag} {count},")));
    output.text("\n");
    let skips = done.tally.skips.iter();
    skips.for_each(|(reason, count)| output.text(&format!("skipped {count}: {}\n", foreign::line(reason))));
    output.text(&tightness_table(&done.budget_use));
    output.text(&not_judged(&failures.fields()));
    output.text(&failures.summary());
    if failures.new_ones() >= args.failures {
        output.text(&format!("stopped at {} distinct failures: --failures raises the limit\n", failures.new_ones()));
    }
    write_json(args, output, done, failures, time);
    failures.stored()?;
    if failures.any() && !interrupted() {
        return Ok(Outcome::Failed);
    }
    match done.tally.conclusion() {
        _ if interrupted() => Ok(Outcome::Interrupted),
        // What fails is known, and waived.
        Conclusion::Failed | Conclusion::Passed => Ok(Outcome::Passed),
        Conclusion::NothingTested(why) => Err(Refusal::new(why)),
    }
}

fn write_json(args: &Args, output: &Output<'_>, done: &Progress, failures: &Failures<'_>, time: Duration) {
    let mut content = json!({
        "seed": args.seed,
        "candidate": args.candidate.name(),
        "fields": failures.fields(),
        "cases": done.cases,
        "seconds": time.as_secs_f64(),
        "elements": done.elements,
        "verdicts": done.tally.verdicts,
        "covered": done.exercised,
        "skips": done.tally.skips,
    });
    failures.to_json().into_iter().for_each(|(key, value)| content[key] = value);
    done.budget_use.add_to(&mut content);
    output.json("fuzz", content);
}
