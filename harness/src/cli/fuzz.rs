//! `nsa-diff fuzz`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use nsa_corpus::{Case, Element};
use quickcheck::{Arbitrary, Gen};
use rayon::prelude::*;
use serde_json::json;

use super::output::{Json, catch_interrupt, interrupted, progress, tightness_table};
use super::select::{Candidate, Elements};
use super::{Outcome, Refusal};
use crate::backend::Backend;
use crate::minimize::{Effort, Signature, minimize};
use crate::report::Report;
use crate::run::run_case;
use crate::store::store;
use crate::tightness::Summary;
use crate::verdict::Verdict;

/// Cases drawn, run and reported together.
const BATCH: usize = 64;

/// Arguments of `fuzz`.
#[derive(clap::Args)]
#[command(
    after_help = "The same seed gives the same cases, whatever the time limit and the machine. A failure is minimised within its
budget and written to the folder of --bugs as one file that holds its values; `nsa-diff replay` judges it again.

Examples:
  nsa-diff fuzz --seed 1 --cases 1000
  nsa-diff fuzz --seed 7 --time 5m --candidate tiled --element bf16"
)]
pub(super) struct Args {
    /// Seed of the generated cases
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Number of cases [default: 1000, unless --time is given]
    #[arg(long, value_name = "N", conflicts_with = "time")]
    cases: Option<usize>,
    /// Time to go on for, such as 30s, 5m or 1h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time: Option<Duration>,
    /// Largest size that generated cases reach, roughly in tokens
    #[arg(long, value_name = "N", default_value_t = 48)]
    size: usize,
    /// Folder for minimised failures
    #[arg(long, value_name = "DIR", default_value = "corpus/bugs")]
    bugs: PathBuf,
    /// Distinct failures after which to stop
    #[arg(long, value_name = "N", default_value_t = 10)]
    failures: usize,
    #[command(flatten)]
    candidate: Candidate,
    #[command(flatten)]
    elements: Elements,
    #[command(flatten)]
    json: Json,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("`{other}` is none of s, m, h")),
    };
    let count: f64 = digits.parse().map_err(|_| format!("`{digits}` is no number"))?;
    Duration::try_from_secs_f64(count * unit).map_err(|error| error.to_string())
}

/// What has been done so far.
#[derive(Default)]
struct Progress {
    cases: usize,
    elements: usize,
    verdicts: BTreeMap<&'static str, usize>,
    covered: BTreeMap<String, usize>,
    skips: BTreeMap<String, usize>,
    signatures: BTreeSet<(Element, Signature)>,
    found: Vec<serde_json::Value>,
    tightness: Summary,
}

pub(super) fn main(args: &Args) -> Result<Outcome, Refusal> {
    let backend = args.candidate.make()?;
    let limit = match (args.cases, args.time) {
        (Some(cases), _) => cases,
        (None, Some(_)) => usize::MAX,
        (None, None) => 1000,
    };
    catch_interrupt();
    args.json.text(&format!("seed {}, candidate {}\n", args.seed, args.candidate.name()));
    let bar = progress((limit != usize::MAX).then_some(limit as u64));
    let start = Instant::now();
    let mut done = Progress::default();
    let out_of_time = || args.time.is_some_and(|time| start.elapsed() >= time);
    while done.cases < limit && !interrupted() && !out_of_time() && done.signatures.len() < args.failures {
        let batch = done.cases..limit.min(done.cases + BATCH);
        let cases: Vec<(usize, Case, Element)> = batch.map(|index| drawn(args, index)).collect();
        let reports: Vec<Report> = cases
            .par_iter()
            .map(|(_, case, element)| run_case(case, *element, backend.as_ref()))
            .collect::<Result<_, _>>()?;
        for ((index, case, _), report) in cases.iter().zip(reports) {
            done.count(&report);
            if report.verdict.failure().is_some() {
                failed(args, &mut done, &bar, backend.as_ref(), (*index, case), report)?;
            }
        }
        bar.set_position(done.cases as u64);
    }
    bar.finish_and_clear();
    finish(args, &done, start.elapsed())
}

/// Case number `index` and the format it is run in: a function of the seed and the number alone.
fn drawn(args: &Args, index: usize) -> (usize, Case, Element) {
    let seed = args.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64);
    // Small cases first, so that a failure is likely to be small when it is found.
    let size = 4 + (args.size.saturating_sub(4)) * (index % 16) / 15;
    let case = Case::arbitrary(&mut Gen::from_size_and_seed(size, seed));
    let elements = args.elements.or_usual();
    (index, case, elements[index % elements.len()])
}

impl Progress {
    fn count(&mut self, report: &Report) {
        self.cases += 1;
        self.elements += report.elements();
        *self.verdicts.entry(report.verdict.word()).or_default() += 1;
        if let Verdict::Skip(reason) = &report.verdict {
            *self.skips.entry(reason.clone()).or_default() += 1;
            return;
        }
        report.covers.iter().for_each(|tag| *self.covered.entry(tag.clone()).or_default() += 1);
        self.tightness.add(report);
    }
}

/// Minimises and stores a failure of a signature that was not seen before.
fn failed(
    args: &Args,
    done: &mut Progress,
    bar: &ProgressBar,
    backend: &dyn Backend,
    (index, case): (usize, &Case),
    report: Report,
) -> Result<(), Refusal> {
    let element = report.element;
    let signature = Signature::of(report.verdict.failure().expect("only failures come here"));
    if !done.signatures.insert((element, signature)) {
        return Ok(());
    }
    bar.set_message(format!("minimising case {index}"));
    let minimized = minimize(case, report, element, backend, Effort::default());
    bar.set_message("");
    let id = minimized.case.id();
    let name = format!("{}-{element}-{}-{id}", args.candidate.name().replace([':', '/'], "_"), signature.slug());
    let why = format!("found by fuzz --seed {} as case {index}, minimised in {} runs", args.seed, minimized.calls);
    let path = store(&args.bugs, &name, &why, &minimized.case, &minimized.report, backend)?;
    let note = if minimized.unfinished { " (the budget for minimising ran out)" } else { "" };
    args.json.text(&format!(
        "\ncase {index}, {element}: {}\n  minimised in {} runs{note}; stored: {}\n  again: nsa-diff replay {}\n",
        minimized.report.verdict,
        minimized.calls,
        path.display(),
        path.display()
    ));
    done.found.push(json!({
        "case": index,
        "element": element,
        "file": path,
        "calls": minimized.calls,
        "report": minimized.report,
    }));
    Ok(())
}

fn finish(args: &Args, done: &Progress, time: Duration) -> Result<Outcome, Refusal> {
    let rate = done.cases as f64 / time.as_secs_f64().max(1e-9);
    let verdicts: Vec<String> = done.verdicts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    args.json.text(&format!(
        "\n{} cases in {:.1} s ({rate:.0} a second): {}\n{} elements judged\nexercised:",
        done.cases,
        time.as_secs_f64(),
        verdicts.join(", "),
        done.elements,
    ));
    done.covered.iter().for_each(|(tag, count)| args.json.text(&format!(" {tag} {count},")));
    args.json.text("\n");
    done.skips.iter().for_each(|(reason, count)| args.json.text(&format!("skipped {count}: {reason}\n")));
    args.json.text(&tightness_table(&done.tightness));
    write_json(args, done, time)?;
    let skipped = done.verdicts.get("skip").copied().unwrap_or(0);
    if done.cases > 0 && skipped == done.cases {
        return Err(Refusal::new(format!("all {skipped} cases were skipped: nothing was tested")));
    }
    Ok(if interrupted() {
        Outcome::Interrupted
    } else if done.verdicts.contains_key("fail") {
        Outcome::Failed
    } else {
        Outcome::Passed
    })
}

fn write_json(args: &Args, done: &Progress, time: Duration) -> Result<(), Refusal> {
    let mut content = json!({
        "seed": args.seed,
        "candidate": args.candidate.name(),
        "cases": done.cases,
        "seconds": time.as_secs_f64(),
        "elements": done.elements,
        "verdicts": done.verdicts,
        "covered": done.covered,
        "skips": done.skips,
        "failures": done.found,
    });
    done.tightness.add_to(&mut content);
    args.json.write("fuzz", content)
}
