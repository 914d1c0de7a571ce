//! `nsa-diff fuzz`.

use std::path::PathBuf;
use std::time::Duration;

use nsa_corpus::check_folder;
use nsa_harness::campaign::failures::{Event, Failures};
use nsa_harness::campaign::fuzz::fuzz;
use nsa_harness::campaign::plan::Plan;
use nsa_harness::document::{Fuzz, Known, NewFailure, passing};
use nsa_harness::tally::{Conclusion, Fields};

use super::console::{Console, Json, Output};
use super::output::{catch_interrupt, interrupted, progress};
use super::select::{CandidateArg, Dtypes};
use super::{Outcome, Refusal, render};

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
  nsa-diff fuzz --seed 7 --time 5m --candidate tiled --dtype bf16"
)]
pub(super) struct Args {
    /// Seed of the generated cases
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
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
    bugs: PathBuf,
    /// Seconds to take at most for minimising one failure
    #[arg(long, value_name = "N", default_value_t = 20)]
    effort: u64,
    /// Distinct failures after which to stop
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    failures: usize,
    #[command(flatten)]
    candidate: CandidateArg,
    #[command(flatten)]
    dtypes: Dtypes,
    #[command(flatten)]
    json: Json,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("with 0 nothing would be tested".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("`{text}` is no number of at least 1")),
    }
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let output = Output::open(console, &args.json, &[])?;
    check_folder(&args.bugs)?;
    let candidate = args.candidate.make()?;
    let plan = args.plan();
    catch_interrupt();
    output.text(&format!("seed {}, candidate {}\n", args.seed, args.candidate.name()));
    let bar = progress((plan.cases.end != usize::MAX).then_some(plan.cases.end as u64));
    let failures = Failures::load(&plan, candidate.as_ref())?;
    let known: Vec<Known> = failures.known().iter().map(Known::new).collect();
    output.text(&render::fuzz::known(&known, &failures.otherwise, &passing(&failures)));
    let mut done = fuzz(&plan, candidate.as_ref(), failures, &|event| match event {
        Event::Cases(cases) => bar.set_position(cases as u64),
        Event::Minimising(0) => bar.set_message(""),
        Event::Minimising(failures) => bar.set_message(format!("minimising {failures}")),
        Event::Found(found, known) => output.text(&render::fuzz::failure(&NewFailure::new(found, known))),
    })?;
    bar.finish_and_clear();
    let document = Fuzz::new(args.candidate.name(), Fields::of(candidate.as_ref()), &plan, &done);
    output.text(&render::fuzz::summary(&document));
    if document.failures.len() >= args.failures {
        let distinct = document.failures.len();
        output.text(&format!("stopped at {distinct} distinct failures: --failures raises the limit\n"));
    }
    output.document(&document);
    if let Some(error) = done.failures.unstored.take() {
        return Err(error.into());
    }
    if done.failures.any() && !interrupted() {
        return Ok(Outcome::Failed);
    }
    match done.tally.conclusion() {
        _ if interrupted() => Ok(Outcome::Interrupted),
        // What fails is known, and waived.
        Conclusion::Failed | Conclusion::Passed => Ok(Outcome::Passed),
        Conclusion::NothingTested(why) => Err(Refusal::new(why)),
    }
}

impl Args {
    fn plan(&self) -> Plan {
        let end = match (self.cases, self.time) {
            (Some(cases), _) => cases,
            (None, Some(_)) => usize::MAX,
            (None, None) => 1000,
        };
        Plan {
            seed: self.seed,
            cases: 0..end,
            time: self.time,
            size: self.size,
            dtypes: self.dtypes.or_usual(),
            bugs: self.bugs.clone(),
            effort: Duration::from_secs(self.effort),
            failures: self.failures,
            stop: interrupted,
        }
    }
}
