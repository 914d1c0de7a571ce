//! `nsa-diff detect`: are planted mistakes noticed?

use std::path::{Path, PathBuf};

use nsa_corpus::Dtype;

use super::console::{Console, Json, Output};
use super::output::{catch_interrupt, interrupted, progress};
use super::select::{Dtypes, candidate_name, select};
use super::{Outcome, Refusal, render};
use nsa_harness::candidate::{Candidate, CandidateName};
use nsa_harness::detect::{Failed, Means, Phases, Plant, Rejections, Row, Rule, jobs, plants};
use nsa_harness::document::Detect;
use nsa_harness::mutants::mutants;
use nsa_harness::registry::{self, by_name};
use nsa_harness::tally::Fields;
use nsa_harness::watch::Watch;

/// The inputs of upstream's own test, at its size.
const MOCK_INPUTS: &str = "upstream/mock_inputs";

/// Arguments of `detect`.
#[derive(clap::Args)]
#[command(
    after_help = "Plants known mistakes one by one and runs the corpus, cheapest cases first, until a case shows each. Without any mistake
the candidate must pass first. What is planted depends on the candidate:
  rowwise        every mutant of harness/mutants: in the rowwise implementation, or round it
  cuda           the faults of gpu/kernels, in the CUDA kernels; those of addresses with tensors set 2^32 elements apart
                 too; what no case shows, under compute-sanitizer's racecheck and memcheck, where it is named
  any other      the mistakes that change what a candidate is given or answers

Examples:
  nsa-diff detect
  nsa-diff detect --rule all 'upstream/mock_inputs' --dtype f16
  nsa-diff detect --rule all --explain --markdown docs/detection.md --json detection.json
  nsa-diff detect --candidate guest:yours.py --only gain
  nsa-diff detect --candidate cuda --json mutants.json --sanitizer compute-sanitizer"
)]
pub(super) struct Args {
    /// Entries to run [default: all]
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    /// In what the mistakes are planted
    #[arg(long, alias = "backend", value_name = "NAME", default_value = "rowwise", value_parser = candidate_name)]
    candidate: String,
    /// Who judges; may be given several times
    #[arg(long = "rule", value_name = "ours|upstream|flash-attention|flashinfer-bench|all", default_value = "ours")]
    rules: Vec<String>,
    /// Only mistakes whose name contains TEXT
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Also place and name each mistake from its answers, and minimise its counterexample
    #[arg(long)]
    explain: bool,
    /// Write the kill matrix as a page to FILE too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// The program compute-sanitizer, for races in CUDA kernels
    #[arg(long, value_name = "PROGRAM")]
    sanitizer: Option<String>,
    #[command(flatten)]
    dtypes: Dtypes,
    #[command(flatten)]
    json: Json,
}

impl Args {
    fn rules(&self) -> Result<Vec<Rule>, Refusal> {
        if self.rules.iter().any(|name| name == "all") {
            return Ok(Rule::ALL.to_vec());
        }
        let mut rules: Vec<Rule> =
            self.rules.iter().map(|name| rule_name(name).parse().map_err(Refusal::new)).collect::<Result<_, _>>()?;
        rules.sort();
        rules.dedup();
        Ok(rules)
    }
}

impl From<Failed> for Refusal {
    fn from(error: Failed) -> Self {
        Refusal::new(error.to_string())
    }
}

/// A rule's name as it is today; that of version 1 is taken too.
fn rule_name(name: &str) -> &str {
    if name == "seed" { "upstream" } else { name }
}

pub(super) fn main(args: &Args, console: &Console) -> Result<Outcome, Refusal> {
    let files: Vec<&Path> = args.markdown.as_deref().into_iter().collect();
    let output = Output::open(console, &args.json, &files)?;
    let rules = args.rules()?;
    let cases = jobs(&select(&args.patterns)?, &args.dtypes.given());
    let name = registry::name(&args.candidate)?;
    let kernels = name == CandidateName::Cuda { rung: None, far: false };
    let inner = (!kernels).then(|| by_name(&args.candidate)).transpose()?;
    let plants = wanted(args, &name, inner.as_deref())?;
    let mock = match &args.markdown {
        Some(_) => jobs(&select(&[MOCK_INPUTS.to_owned()])?, &[Dtype::F16]),
        None => Vec::new(),
    };
    let phases = Phases {
        candidate: inner.as_deref(),
        plants: &plants,
        jobs: &cases,
        mock: &mock,
        rules: &rules,
        means: Means { sanitizer: args.sanitizer.as_deref() },
        explain: args.explain,
    };
    let (mutants, rejects_without_any) = run_all(&phases)?;
    let left_out = plants.len() - mutants.len();
    let candidate = args.candidate.clone();
    let detect = Detect { candidate, rules: rules.clone(), cases: cases.len(), left_out, mutants, rejects_without_any };
    output.text(&render::detect::text(&detect));
    if let (Some(file), 0) = (&args.markdown, left_out) {
        output.file(file, &render::detect_page::markdown(&detect));
    }
    let outcome = match (left_out, detect.fails()) {
        (0, true) => Outcome::Failed,
        (0, false) => Outcome::Passed,
        _ => Outcome::Interrupted,
    };
    output.document(&detect);
    Ok(outcome)
}

/// The mutants whose names were asked for.
fn wanted<'a>(args: &Args, name: &CandidateName, inner: Option<&'a dyn Candidate>) -> Result<Vec<Plant<'a>>, Refusal> {
    let mut all = match inner {
        Some(inner) => plants(name, inner, mutants()),
        None => {
            let mutants = nsa_gpu::mutants().map_err(|error| Refusal::new(error.to_string()))?;
            mutants.into_iter().map(Plant::Kernel).collect()
        }
    };
    all.retain(|plant| plant.name().contains(&args.only));
    if all.is_empty() {
        return Err(Refusal::new(format!("no mistake's name contains `{}`", args.only)));
    }
    if let (true, Some(inner)) = (all.iter().all(Plant::is_hidden), inner) {
        let names: Vec<&str> = all.iter().map(Plant::name).collect();
        let (names, fields) = (names.join(", "), Fields::of(inner));
        return Err(Refusal::new(format!("nothing would be tested: none of these fields shows {names} ({fields})")));
    }
    Ok(all)
}

/// Both phases, until Ctrl-C.
fn run_all(phases: &Phases<'_>) -> Result<(Vec<Row>, Rejections), Refusal> {
    catch_interrupt();
    let bar = progress(Some((phases.jobs.len() + phases.plants.len()) as u64));
    let step = || bar.inc(1);
    let watch = Watch::new(&interrupted, &step);
    bar.set_message("without any mistake");
    let rejections = phases.without_any(watch)?;
    bar.set_message("planting");
    let rows = phases.plant(&rejections, watch)?;
    bar.finish_and_clear();
    Ok((rows, rejections))
}
