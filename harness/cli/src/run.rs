//! `nsa-diff run`.

use std::collections::BTreeMap;

use nsa_corpus::{Dtype, Entry, Error, foreign};
use rayon::prelude::*;
use serde_json::json;

use super::console::{Console, Json, Output};
use super::output::{budget_use_table, catch_interrupt, interrupted, not_judged, progress, quoted, table};
use super::select::{CandidateArg, Dtypes, select};
use super::{Outcome, Refusal, concluded};
use nsa_harness::explain::Localization;
use nsa_harness::judge::sensitivity::Perturbation;
use nsa_harness::judge::verdict::Verdict;
use nsa_harness::localize::localize_reports;
use nsa_harness::report::Report;
use nsa_harness::run::{rerun, run_entry};
use nsa_harness::summary::Summary;
use nsa_harness::tally::{Fields, Tally};

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
    #[arg(long, value_name = "N", default_value_t = 0)]
    reruns: usize,
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
    let reports: Vec<Option<Report>> = jobs
        .par_iter()
        .map(|(entry, dtype)| {
            if interrupted() {
                return Ok(None);
            }
            let mut report = run_entry(entry, *dtype, candidate.as_ref())?;
            if let (Some(outputs), 1..) = (&report.outputs, args.reruns) {
                let failure = rerun(&entry.case, *dtype, candidate.as_ref(), outputs, args.reruns)?;
                report.verdict = failure.map_or(report.verdict, Verdict::Fail);
            }
            bar.inc(1);
            Ok(Some(report))
        })
        .collect::<Result<_, Error>>()?;
    bar.finish_and_clear();
    let left_out = reports.iter().filter(|report| report.is_none()).count();
    let (cases, mut reports): (Vec<_>, Vec<Report>) =
        jobs.iter().zip(reports).filter_map(|((entry, dtype), report)| Some(((&entry.case, *dtype), report?))).unzip();
    localize_reports(&cases, &mut reports, candidate.as_ref())?;
    output.text(&render(&reports, args));
    if left_out > 0 {
        output.text(&format!("interrupted: {left_out} of {} cases were not run\n", jobs.len()));
    }
    let fields = Fields::of(candidate.as_ref());
    output.text(&not_judged(&fields));
    let mut content = json!({
        "candidate": args.candidate.name(), "fields": fields, "left_out": left_out, "reports": reports,
    });
    Summary::of(&reports).add_to(&mut content);
    content["vacuous"] = json!(vacuous_counts(&reports));
    output.json("run", content);
    concluded(&Tally::of(reports.iter().map(|report| &report.verdict)), left_out)
}

fn render(reports: &[Report], args: &Args) -> String {
    let mut rows =
        vec![["case", "dtype", "verdict", "elements", "error/budget", "worst field"].map(str::to_owned).to_vec()];
    rows.extend(reports.iter().map(row));
    let mut text = table(&rows);
    for report in reports.iter().filter(|report| report.verdict != Verdict::Pass) {
        text.push_str(&format!("\n{} {}\n", report.name, report.dtype));
        match &report.verdict {
            Verdict::Fail(failure) if report.comparisons.is_empty() => text.push_str(&quoted(&failure.message)),
            Verdict::Fail(_) => {
                let failed =
                    report.comparisons.iter().filter_map(|comparison| Some((comparison, comparison.failure.as_ref()?)));
                for (comparison, failure) in failed {
                    let (failed, elements) = (comparison.failed, comparison.elements);
                    // Of a tensor that is not there, none were looked at.
                    let share =
                        if elements == 0 { String::new() } else { format!(" [{failed} of {elements} elements]") };
                    text.push_str(&format!("  {}: {}{share}\n", failure.class, failure.message));
                }
            }
            other => text.push_str(&format!("  {other}\n")),
        }
        let positions = report.localization.iter().flat_map(Localization::lines);
        positions.for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text.push_str(&budget_use_table(&Summary::of(reports)));
    text.push_str(&summary(reports));
    text.push_str(&vacuous(reports, args.vacuous));
    if let Some(report) = reports.iter().find(|report| report.verdict.failure().is_some()) {
        let (name, dtype) = (&report.name, report.dtype);
        text.push_str(&format!(
            "run one again: nsa-diff run {name} --candidate {} --dtype {dtype}\n",
            args.candidate.name()
        ));
    }
    text
}

fn row(report: &Report) -> Vec<String> {
    let worst =
        report.comparisons.iter().filter_map(|comparison| Some((comparison.field, comparison.worst.as_ref()?.ratio)));
    let worst = worst.max_by(|(_, left), (_, right)| left.total_cmp(right));
    vec![
        report.name.clone(),
        report.dtype.to_string(),
        report.verdict.word().to_owned(),
        report.elements().to_string(),
        worst.map_or_else(|| "0".to_owned(), |(_, ratio)| format!("{ratio:.3}")),
        worst.map_or_else(|| "exact".to_owned(), |(field, _)| field.to_string()),
    ]
}

/// The counts by verdict, and every reason to skip with its count.
fn summary(reports: &[Report]) -> String {
    let tally = Tally::of(reports.iter().map(|report| &report.verdict));
    let elements: usize = reports.iter().map(Report::elements).sum();
    let not_judged: usize =
        reports.iter().flat_map(|report| &report.comparisons).map(|comparison| comparison.not_judged).sum();
    let words = ["pass", "suspect", "fail", "skip", "inconclusive"];
    let counts: Vec<String> = words.iter().map(|word| format!("{} {word}", tally.count(word))).collect();
    let mut text =
        format!("\n{}; {elements} elements judged, {not_judged} without a finite budget\n", counts.join(", "));
    for (reason, count) in tally.skips {
        text.push_str(&format!("skipped {count}: {}\n", foreign::line(&reason)));
    }
    text
}

/// How many checks (fields of cases) each injected fault would have passed.
fn vacuous_counts(reports: &[Report]) -> BTreeMap<Perturbation, usize> {
    let mut counts: BTreeMap<Perturbation, usize> =
        Perturbation::ALL.into_iter().map(|mutation| (mutation, 0)).collect();
    let passed =
        reports.iter().flat_map(|report| &report.comparisons).flat_map(|field| field.sensitivity.vacuous.keys());
    passed.for_each(|mutation| *counts.entry(*mutation).or_default() += 1);
    counts
}

fn vacuous(reports: &[Report], list: bool) -> String {
    let checks: usize = reports.iter().map(|report| report.comparisons.len()).sum();
    let counts = vacuous_counts(reports);
    let each: Vec<String> = counts.iter().map(|(mutation, count)| format!("{mutation} {count}")).collect();
    let total: usize = counts.values().sum();
    let mut text = format!(
        "{total} of {} checks are vacuous: of {checks} fields, so many would have passed with {}\n",
        checks * Perturbation::ALL.len(),
        each.join(", ")
    );
    if !list {
        if total > 0 {
            text.push_str("  --vacuous lists them with reasons\n");
        }
        return text;
    }
    for report in reports {
        for comparison in &report.comparisons {
            for (mutation, reason) in &comparison.sensitivity.vacuous {
                text.push_str(&format!(
                    "  {} {} {}: {mutation}: {reason}\n",
                    report.name, report.dtype, comparison.field
                ));
            }
        }
    }
    text
}
