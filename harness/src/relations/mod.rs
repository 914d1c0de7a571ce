//! Problems too large to answer whole, judged in seconds: every element must be finite, sampled rows are judged by the oracle under
//! their own budgets, and relations that need no oracle are held between answers ([`relation`]).

pub mod arrange;
pub mod relation;

use std::time::Instant;

use nsa_corpus::{Case, Dtype, Error, Field, Inputs, Limit, Outputs, Selection, Sizes, Values};
use nsa_reference::oracle::Sample;
use serde::{Deserialize, Serialize};

use crate::candidate::Candidate;
use crate::judge::field::Comparison;
use crate::judge::sample::{draw, unusable};
use crate::judge::verdict::Verdict;
use crate::judge::{judge_sampled, verdict};
use crate::run::{guarded, unanswered};
use relation::{Held, Relation, hold};

/// A large problem with a name.
#[derive(Clone, Debug)]
pub struct LargeCase {
    /// `large/64k` and the like.
    pub name: &'static str,
    /// Why it exists.
    pub why: &'static str,
    /// The problem.
    pub case: Case,
}

/// The large problems.
pub fn cases() -> Vec<LargeCase> {
    let sizes = |[batch, q_heads, kv_heads, seq_len, dim, block_size, num_sel]: [usize; 7]| Sizes {
        batch,
        q_heads,
        kv_heads,
        seq_len,
        dim,
        value_dim: dim,
        block_size,
        num_sel,
        sel_heads: kv_heads,
    };
    let case = |sizes, seed| Case { sel_scale: Some(Values::normal()), ..Case::ordinary(sizes, seed) };
    vec![
        LargeCase {
            name: "large/64k",
            why: "a context of 65536 tokens: indices past 2^15, a thousand blocks, keys with thousands of rows",
            case: case(sizes([1, 2, 2, 65_536, 64, 64, 8]), 64),
        },
        LargeCase {
            name: "large/batch",
            why: "a batch with groups, a window and d_lse: what mixes batch entries or heads shows",
            case: Case {
                sliding_window: Some(128),
                d_lse: Some(Values::normal()),
                d_sliding: Some(Values::normal()),
                ..case(sizes([4, 8, 2, 2_048, 64, 32, 8]), 65)
            },
        },
        LargeCase {
            name: "large/odd",
            why: "no size is a power of two, the last block is partial, and any block may be selected, twice too",
            case: Case { selection: Selection::Any {}, ..case(sizes([2, 6, 2, 10_007, 40, 17, 5]), 66) },
        },
        LargeCase {
            name: "large/blocks_that_fit",
            why: "blocks of one token and four slots: blocks times chunks of 4096 visits just fill the table of a counting sort",
            case: case(sizes([1, 1, 1, 65_536, 8, 1, 4]), 67),
        },
        LargeCase {
            name: "large/blocks_beyond",
            why: "one block more: the table no longer has room for a column for each 4096 visits, and chunks grow",
            case: case(sizes([1, 1, 1, 65_537, 8, 1, 4]), 68),
        },
    ]
}

/// One check of a large case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// `finite` (its time is the first run's), `sampled rows`, or the relation.
    pub name: String,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Elements looked at, and those held to a budget.
    pub elements: usize,
    /// Elements held to a budget.
    pub held: usize,
    /// The largest error or spread over what is allowed.
    #[serde(with = "crate::number")]
    pub ratio: f64,
    /// Wall-clock time, in seconds.
    pub seconds: f64,
}

/// A large case on a candidate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LargeReport {
    /// The case's name.
    pub name: String,
    /// The format of the inputs.
    pub dtype: Dtype,
    /// The candidate.
    pub candidate: String,
    /// The first failure of a check, else whether any is suspect.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// In the order in which they ran; those after a missing answer are left out.
    pub checks: Vec<Check>,
}

/// Runs `case` on `candidate`: all of its elements are looked at, a sample is judged, relations are held.
///
/// # Errors
/// The case itself is broken.
pub fn run_large(name: &str, case: &Case, dtype: Dtype, candidate: &dyn Candidate) -> Result<LargeReport, Error> {
    let inputs = case.materialize_up_to(dtype, Limit::LARGE)?;
    let answered_by = candidate.name().to_owned();
    let mut report = LargeReport {
        name: name.to_owned(),
        dtype,
        candidate: answered_by,
        verdict: Verdict::Pass,
        checks: Vec::new(),
    };
    if let Err(reason) = candidate.supports(&inputs) {
        report.verdict = Verdict::Skip(reason.to_string());
        return Ok(report);
    }
    let start = Instant::now();
    match guarded(candidate, &inputs) {
        Ok(found) => checks(&inputs, candidate, &found, start, &mut report.checks),
        Err(error) => report.verdict = unanswered(error),
    }
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Fail(_) => 3,
        Verdict::Suspect(_) => 2,
        Verdict::Inconclusive(_) => 1,
        Verdict::Pass | Verdict::Skip(_) => 0,
    };
    for check in &report.checks {
        if rank(&check.verdict) > rank(&report.verdict) {
            report.verdict = check.verdict.clone();
        }
    }
    Ok(report)
}

fn checks(inputs: &Inputs, candidate: &dyn Candidate, found: &Outputs, start: Instant, checks: &mut Vec<Check>) {
    let seconds = start.elapsed().as_secs_f64();
    checks.push(finite(inputs, candidate, found, seconds));
    if checks[0].verdict != Verdict::Pass {
        return;
    }
    let declaration = candidate.declaration(inputs);
    let sample = draw(inputs.shape());
    let start = Instant::now();
    let mut comparisons = judge_sampled(inputs, &declaration.arithmetic, found, &sample);
    comparisons.retain(|comparison| declaration.computes(comparison.field));
    let elements = comparisons.iter().map(|comparison| comparison.elements).sum();
    checks.push(Check {
        name: "sampled rows".to_owned(),
        verdict: verdict(&comparisons),
        elements,
        held: elements,
        ratio: worst_ratio(&comparisons),
        seconds: start.elapsed().as_secs_f64(),
    });
    let together = held(Relation::Rearranged, inputs, candidate, found, &sample);
    let holds = !matches!(together, Some(Check { verdict: Verdict::Fail(_), .. }));
    let unsupported = matches!(together, Some(Check { verdict: Verdict::Skip(_), .. }));
    checks.extend(together);
    if !holds || unsupported {
        // Which of them it is that does not hold; and if one is beyond the candidate, the others may not be.
        checks.extend(
            Relation::REARRANGED.into_iter().filter_map(|relation| held(relation, inputs, candidate, found, &sample)),
        );
    }
    checks.extend(held(Relation::SplitBatch, inputs, candidate, found, &sample));
}

fn worst_ratio(comparisons: &[Comparison]) -> f64 {
    let worst = comparisons.iter().filter_map(|comparison| comparison.worst.as_ref());
    worst.map(|worst| worst.ratio).fold(0.0, f64::max)
}

fn held(
    relation: Relation,
    inputs: &Inputs,
    candidate: &dyn Candidate,
    found: &Outputs,
    sample: &Sample,
) -> Option<Check> {
    let start = Instant::now();
    let outcome = hold(relation, inputs, candidate, found, sample)?;
    let (verdict, fields) = match outcome {
        Ok(fields) => match fields.iter().find_map(|field| field.failure.clone()) {
            Some(failure) => (Verdict::Fail(failure), fields),
            None => (Verdict::Pass, fields),
        },
        Err(verdict) => (verdict, Vec::new()),
    };
    let sum = |count: fn(&Held) -> usize| fields.iter().map(count).sum();
    Some(Check {
        name: relation.to_string(),
        verdict,
        elements: sum(|field| field.elements),
        held: sum(|field| field.held),
        ratio: fields.iter().map(|field| field.ratio).fold(0.0, f64::max),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Every element of every field is there and finite: the inputs are, and every row has keys.
fn finite(inputs: &Inputs, candidate: &dyn Candidate, found: &Outputs, seconds: f64) -> Check {
    let declaration = candidate.declaration(inputs);
    let computed = Field::ALL.into_iter().filter(|field| declaration.computes(*field));
    let verdict =
        computed.clone().find_map(|field| unusable(field, inputs, found)).map_or(Verdict::Pass, Verdict::Fail);
    let elements = computed.filter_map(|field| found.get(field)).map(|tensor| tensor.len()).sum();
    Check { name: "finite".to_owned(), verdict, elements, held: 0, ratio: 0.0, seconds }
}
