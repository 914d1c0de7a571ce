//! `nsa-diff detect`: are planted mistakes noticed?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use nsa_corpus::{Dtype, foreign};
use nsa_gpu::Rung;
use rayon::prelude::*;
use serde_json::json;

use super::console::{Console, Json, Output};
use super::output::{catch_interrupt, interrupted, progress, table};
use super::select::{Dtypes, candidate_name, select};
use super::{Outcome, Refusal};
use nsa_harness::candidate::CandidateName;
use nsa_harness::candidate::cuda::Cuda;
use nsa_harness::detect::{
    Failed, Fate, Job, Means, Plant, Rejections, Row, Rule, baseline, explain, explained, fates, jobs, markdown, plants,
};
use nsa_harness::mutants::mutants;
use nsa_harness::registry::{self, by_name};

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
    #[arg(long, value_name = "NAME", default_value = "rowwise", value_parser = candidate_name)]
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
    let jobs = jobs(&select(&args.patterns)?, &args.dtypes.given());
    // The kernels' own mutants are planted in each rung in turn; everything else has one candidate.
    let name = registry::name(&args.candidate)?;
    let kernels = name == CandidateName::Cuda { rung: None, far: false };
    let inner = if kernels { None } else { Some(by_name(&args.candidate)?) };
    let wanted = |name: &str| name.contains(&args.only);
    let plants: Vec<Plant<'_>> = match &inner {
        Some(inner) => {
            plants(&name, inner.as_ref(), mutants()).into_iter().filter(|plant| wanted(plant.name())).collect()
        }
        None => {
            let mutants = nsa_gpu::mutants().map_err(|error| Refusal::new(error.to_string()))?;
            mutants.into_iter().filter(|mutant| wanted(&mutant.name)).map(Plant::Kernel).collect()
        }
    };
    if plants.is_empty() {
        return Err(Refusal::new(format!("no mistake's name contains `{}`", args.only)));
    }
    let mock = match &args.markdown {
        Some(_) => nsa_harness::detect::jobs(&select(&[MOCK_INPUTS.to_owned()])?, &[Dtype::F16]),
        None => Vec::new(),
    };
    catch_interrupt();
    let bar = progress(Some((jobs.len() + plants.len()) as u64));
    bar.set_message("without any mistake");
    let rejections = match &inner {
        Some(inner) => baselines(&jobs, &rules, inner.as_ref(), &bar)?,
        None => Rung::ALL.into_iter().try_fold(Rejections::default(), |mut all, rung| {
            all.extend(baselines(&jobs, &rules, &Cuda::new(Some(rung), None, 8)?, &bar)?);
            Ok::<_, Refusal>(all)
        })?,
    };
    let means = Means { sanitizer: args.sanitizer.as_deref() };
    let kernels: Vec<_> = plants.iter().filter_map(Plant::kernel).collect();
    if !kernels.is_empty() && !interrupted() {
        means.baseline(&kernels)?;
    }
    bar.set_message("planting");
    let rows: Vec<Row> = plants
        .par_iter()
        .filter(|_| !interrupted())
        .map(|plant| {
            let mut row = match plant.kernel() {
                Some(mutant) => means.fates(plant, mutant, &jobs, &rules, &rejections)?,
                None => fates(plant, &jobs, &rules, &rejections)?,
            };
            if !mock.is_empty() {
                row.on_mock_inputs = fates(plant, &mock, &rules, &rejections)?.fates;
            }
            if args.explain {
                explain(plant, &jobs, &mut row)?;
            }
            bar.inc(1);
            Ok(row)
        })
        .collect::<Result<_, Failed>>()?;
    bar.finish_and_clear();
    report(args, &output, &Found { rules, cases: jobs.len(), plants: plants.len(), rows, rejections })
}

fn baselines(
    jobs: &[Job],
    rules: &[Rule],
    candidate: &dyn nsa_harness::candidate::Candidate,
    bar: &ProgressBar,
) -> Result<Rejections, Refusal> {
    let all: Vec<Rejections> = jobs
        .par_iter()
        .filter(|_| !interrupted())
        .map(|job| {
            let rejections = baseline(job, rules, candidate);
            bar.inc(1);
            rejections
        })
        .collect::<Result<_, Failed>>()?;
    let mut rejections = Rejections::default();
    all.into_iter().for_each(|one| rejections.extend(one));
    Ok(rejections)
}

struct Found {
    rules: Vec<Rule>,
    cases: usize,
    plants: usize,
    rows: Vec<Row>,
    rejections: Rejections,
}

fn report(args: &Args, output: &Output<'_>, found: &Found) -> Result<Outcome, Refusal> {
    output.text(&render(found));
    output.json(
        "detect",
        json!({
            "candidate": args.candidate,
            "rules": found.rules,
            "cases": found.cases,
            "left_out": found.plants - found.rows.len(),
            "mutants": found.rows,
            "rejects_without_any": found.rejections,
        }),
    );
    if found.rows.len() < found.plants {
        return Ok(Outcome::Interrupted);
    }
    if let Some(file) = &args.markdown {
        let text = markdown(&args.candidate, found.cases, &found.rows, &found.rules, &found.rejections);
        output.file(file, &text);
    }
    // A rule of others that misses something is a result; our own is to miss nothing.
    let wrong = found.rows.iter().any(Row::is_unexpected);
    Ok(if wrong { Outcome::Failed } else { Outcome::Passed })
}

fn render(found: &Found) -> String {
    let mut head: Vec<String> = ["mutant", "category", "in"].map(str::to_owned).to_vec();
    head.extend(found.rules.iter().map(|rule| rule.name().to_owned()));
    head.extend(["by", "s"].map(str::to_owned));
    let mut lines = vec![head];
    for row in &found.rows {
        let mut line = vec![row.name.clone(), row.category.clone(), row.carrier.clone()];
        line.extend(found.rules.iter().map(|rule| row.fates.get(rule).map_or("", Fate::word).to_owned()));
        let first = found.rules.iter().find_map(|rule| row.fates.get(rule)?.kill());
        line.push(first.map_or_else(String::new, |kill| {
            let field = kill.field.map_or_else(String::new, |field| format!(" {field}"));
            format!("{} {}{field} ({})", kill.entry, kill.dtype, foreign::line(&kill.detail))
        }));
        line.push(format!("{:.1}", row.seconds));
        lines.push(line);
    }
    let mut text = table(&lines);
    text.push_str(&format!("\n{} mistakes, {} cases\n", found.rows.len(), found.cases));
    for rule in &found.rules {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        found
            .rows
            .iter()
            .filter_map(|row| row.fates.get(rule))
            .for_each(|fate| *counts.entry(fate.word()).or_default() += 1);
        let counts: Vec<String> = counts.iter().map(|(fate, count)| format!("{count} {fate}")).collect();
        let alarms = found.rejections.count(*rule);
        text.push_str(&format!(
            "{}: {}; without any mistake it rejects {alarms} of {} cases\n",
            rule.name(),
            counts.join(", "),
            found.cases
        ));
    }
    for row in found.rows.iter().filter(|row| row.is_unexpected()) {
        let fate = row.fates.get(&Rule::Ours).map_or("", Fate::word);
        let expected = if row.equivalent.is_some() { "equivalent" } else { "killed" };
        text.push_str(&format!("not as expected: {}: {fate}, expected {expected}\n", row.name));
    }
    text.push_str(&explained(&found.rows));
    if found.rows.len() < found.plants {
        text.push_str(&format!("interrupted: {} mistakes were not planted\n", found.plants - found.rows.len()));
    }
    text
}
