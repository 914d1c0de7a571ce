//! Whether planted mistakes are noticed: each is planted in a candidate that passes without it, and run through cases until
//! every rule has rejected it or no case is left.

mod explain;
mod kernel;
mod page;
mod phases;
mod rule;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Instant;

use nsa_corpus::{Dtype, Entry, Error, Field, entries};
use nsa_gpu::Mutant as KernelMutant;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidate::cuda::Cuda;
use crate::candidate::{Candidate, CandidateName, Declaration, Unavailable};
use crate::explain::cost;
use crate::judge::verdict::{Class, Verdict};
use crate::mutants::{Mutant, mutated};
use crate::run::{rerun, run_entry};

pub use explain::{Minimal, Placed, explain};
pub use kernel::Means;
pub use page::digest;
pub use phases::Phases;
pub use rule::{Reference, Rule};

/// A case in one format, with what the rules of others compare with, computed once.
pub struct Job {
    /// The case.
    pub entry: &'static Entry,
    /// The format.
    pub dtype: Dtype,
    reference: OnceLock<Reference>,
}

/// Every entry of `chosen` in each of its formats that `elements` names (none: all), those with the fewest terms first.
pub fn jobs(chosen: &[&'static Entry], elements: &[Dtype]) -> Vec<Job> {
    let wanted = |dtype: &Dtype| elements.is_empty() || elements.contains(dtype);
    let mut jobs: Vec<Job> = chosen
        .iter()
        .flat_map(|entry| entry.dtypes.iter().filter(|dtype| wanted(dtype)).map(move |dtype| (*entry, *dtype)))
        .map(|(entry, dtype)| Job { entry, dtype, reference: OnceLock::new() })
        .collect();
    jobs.sort_by_key(|job| cost(&job.entry.case));
    jobs
}

/// All entries, as [`jobs`] takes them.
pub fn all_entries() -> Vec<&'static Entry> {
    entries().iter().collect()
}

/// One planted mistake.
pub enum Plant<'a> {
    /// In the rowwise implementation, or round a candidate.
    Mutant(&'static Mutant, &'a dyn Candidate),
    /// In a CUDA kernel.
    Kernel(KernelMutant),
}

impl Plant<'_> {
    fn candidate(&self) -> Result<Box<dyn Candidate + '_>, Unavailable> {
        match self {
            Plant::Mutant(mutant, inner) => Ok(mutated(mutant, *inner)),
            Plant::Kernel(mutant) => Ok(Box::new(Cuda::new(Some(mutant.rung()), Some(&mutant.name), 1)?)),
        }
    }

    /// Whether no answer can show it: it changes only fields that the candidate does not compute.
    pub fn is_hidden(&self) -> bool {
        match self {
            Plant::Mutant(mutant, inner) => !mutant.shows_in(&Declaration::typical(*inner).fields),
            Plant::Kernel(_) => false,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Plant::Mutant(mutant, _) => &mutant.name,
            Plant::Kernel(mutant) => &mutant.name,
        }
    }

    /// The fault, where it is one of a kernel.
    pub fn kernel(&self) -> Option<&KernelMutant> {
        match self {
            Plant::Mutant(..) => None,
            Plant::Kernel(mutant) => Some(mutant),
        }
    }

    fn row(&self) -> Row {
        let (name, category, carrier, why, equivalent) = match self {
            Plant::Mutant(mutant, _) => {
                let carrier = mutant.carrier().to_owned();
                (mutant.name.clone(), word(&mutant.category), carrier, mutant.why.clone(), mutant.argument.clone())
            }
            Plant::Kernel(mutant) => {
                let carrier = mutant.file.clone();
                (mutant.name.clone(), word(&mutant.category), carrier, mutant.why.clone(), mutant.argument.clone())
            }
        };
        Row {
            name,
            category,
            carrier,
            why,
            equivalent,
            fates: BTreeMap::new(),
            on_mock_inputs: BTreeMap::new(),
            placed: None,
            minimal: None,
            seconds: 0.0,
        }
    }
}

/// The word that a unit variant is written as.
pub(crate) fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What became of a planted mistake under one rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "fate", content = "by", rename_all = "snake_case")]
pub enum Fate {
    /// A case showed it.
    Killed(Kill),
    /// A case did not end in time.
    Timeout(Kill),
    /// It does not compile.
    Unviable(Kill),
    /// No case showed it, and an argument says that none can.
    Equivalent,
    /// No case showed it.
    Survived,
}

impl Fate {
    /// `"killed"` and so on.
    pub fn word(&self) -> &'static str {
        match self {
            Fate::Killed(_) => "killed",
            Fate::Timeout(_) => "timeout",
            Fate::Unviable(_) => "unviable",
            Fate::Equivalent => "equivalent",
            Fate::Survived => "survived",
        }
    }

    /// What showed it.
    pub fn kill(&self) -> Option<&Kill> {
        match self {
            Fate::Killed(kill) | Fate::Timeout(kill) | Fate::Unviable(kill) => Some(kill),
            Fate::Equivalent | Fate::Survived => None,
        }
    }
}

/// What showed a mistake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Kill {
    /// The entry.
    pub entry: String,
    /// The format.
    pub dtype: Dtype,
    /// The first field that was rejected.
    pub field: Option<Field>,
    /// How, in words.
    pub detail: String,
    /// Cases run until then.
    pub cases: usize,
}

/// A planted mistake and its fates.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its category.
    pub category: String,
    /// What carries it: `rowwise`, `inputs`, `outputs`, or a kernel's file.
    pub carrier: String,
    /// What it stands for.
    pub why: String,
    /// Why no case can show it, where that is claimed.
    pub equivalent: Option<String>,
    /// By rule.
    pub fates: BTreeMap<Rule, Fate>,
    /// By rule, on upstream's mock inputs alone, where that was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub on_mock_inputs: BTreeMap<Rule, Fate>,
    /// How it was placed and named, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Placed>,
    /// How small its counterexample gets, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimal: Option<Minimal>,
    /// Wall-clock time.
    pub seconds: f64,
}

impl Row {
    /// Whether our own rule misses it, or kills what is said to be equivalent.
    pub fn is_unexpected(&self) -> bool {
        let killed = self.fates.get(&Rule::Ours).map(|fate| fate.kill().is_some());
        killed.is_some_and(|killed| killed == self.equivalent.is_some())
    }
}

/// Runs the jobs in order until every rule has rejected the planted mistake. A case in which a rule also rejects the candidate
/// without any mistake (`alarms`) shows nothing by that rule.
///
/// # Errors
/// The candidate cannot be made, or a case is broken.
pub fn fates(plant: &Plant<'_>, jobs: &[Job], rules: &[Rule], alarms: &Rejections) -> Result<Row, Failed> {
    let start = Instant::now();
    let candidate = plant.candidate()?;
    let mut row = plant.row();
    if plant.is_hidden() {
        row.equivalent.get_or_insert_with(|| "the candidate computes no field that it changes".to_owned());
    }
    for (at, job) in jobs.iter().enumerate() {
        let left: Vec<Rule> = rules.iter().copied().filter(|rule| !row.fates.contains_key(rule)).collect();
        if left.is_empty() {
            break;
        }
        let open: Vec<Rule> = left.into_iter().filter(|rule| !alarms.has(*rule, job)).collect();
        if open.is_empty() {
            continue;
        }
        for (rule, fate) in judged(job, &open, candidate.as_ref(), at + 1)?.1 {
            row.fates.insert(rule, fate);
        }
    }
    if rules.contains(&Rule::Ours) && !row.fates.contains_key(&Rule::Ours) {
        let kill = rerun_all(jobs, candidate.as_ref())?;
        row.fates.extend(kill.map(|kill| (Rule::Ours, Fate::Killed(kill))));
    }
    for rule in rules {
        let left = if row.equivalent.is_some() { Fate::Equivalent } else { Fate::Survived };
        row.fates.entry(*rule).or_insert(left);
    }
    row.seconds = start.elapsed().as_secs_f64();
    Ok(row)
}

type Fates = Vec<(Rule, Fate)>;

/// Why nothing can be said of a planted mistake.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// A case is broken.
    #[error("{0}")]
    Case(#[from] Error),
    /// The candidate is not to be had.
    #[error("{0}")]
    Candidate(#[from] Unavailable),
    /// The sanitizer does not run.
    #[error("{program}: {message}")]
    Sanitizer {
        /// The program.
        program: String,
        /// How it ended, and its last lines.
        message: String,
    },
    /// No case says anything of the candidate, and why.
    #[error("{0}")]
    NothingTested(String),
    /// Without any mistake planted it fails.
    #[error("{candidate} fails {entry} {dtype} without any mistake planted: {message}")]
    Baseline {
        /// The candidate.
        candidate: String,
        /// The entry.
        entry: String,
        /// The format.
        dtype: Dtype,
        /// How.
        message: String,
    },
}

/// Our verdict of what `candidate` answers to the job, and the rules of `open` that reject it.
fn judged(job: &Job, open: &[Rule], candidate: &dyn Candidate, cases: usize) -> Result<(Verdict, Fates), Failed> {
    let report = run_entry(job.entry, job.dtype, candidate)?;
    let kill = |field, detail: String| Kill { entry: job.entry.name.clone(), dtype: job.dtype, field, detail, cases };
    let mut found = Vec::new();
    for rule in open {
        let fate = match (rule, &report.verdict, &report.outputs) {
            (Rule::Ours, Verdict::Fail(failure), _) | (_, Verdict::Fail(failure), None) => {
                let kill = kill(failure.field, failure.class.to_string());
                Some(match failure.class {
                    Class::Compile => Fate::Unviable(kill),
                    Class::Timeout => Fate::Timeout(kill),
                    _ => Fate::Killed(kill),
                })
            }
            (Rule::Ours, _, _) | (_, _, None) => None,
            (rule, _, Some(outputs)) => {
                let inputs = job.entry.case.materialize(job.dtype)?;
                let declaration = candidate.declaration(&inputs);
                let field = job.reference(&inputs).rejected(*rule, outputs, |field| declaration.computes(field));
                field.map(|field| Fate::Killed(kill(Some(field), "rejected".to_owned())))
            }
        };
        found.extend(fate.map(|fate| (*rule, fate)));
    }
    Ok((report.verdict, found))
}

impl Job {
    fn reference(&self, inputs: &nsa_corpus::Inputs) -> &Reference {
        self.reference.get_or_init(|| Reference::new(inputs))
    }
}

/// Runs each job twice and compares every bit: what no single run shows.
fn rerun_all(jobs: &[Job], candidate: &dyn Candidate) -> Result<Option<Kill>, Failed> {
    for (at, job) in jobs.iter().enumerate() {
        let Some(outputs) = run_entry(job.entry, job.dtype, candidate)?.outputs else { continue };
        if let Some(failure) = rerun(&job.entry.case, job.dtype, candidate, &outputs, 1, &|| false)?.failure() {
            return Ok(Some(Kill {
                entry: job.entry.name.clone(),
                dtype: job.dtype,
                field: failure.field,
                detail: failure.class.to_string(),
                cases: jobs.len() + at + 1,
            }));
        }
    }
    Ok(None)
}

/// The cases in which each rule rejects the candidate without any mistake in it: false alarms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Rejections(BTreeMap<Rule, Vec<Kill>>);

impl Rejections {
    /// In how many cases `rule` rejects it.
    pub fn count(&self, rule: Rule) -> usize {
        self.0.get(&rule).map_or(0, Vec::len)
    }

    /// Adds what another job showed.
    pub fn extend(&mut self, other: Rejections) {
        for (rule, kills) in other.0 {
            self.0.entry(rule).or_default().extend(kills);
        }
    }

    fn has(&self, rule: Rule, job: &Job) -> bool {
        let same = |kill: &Kill| kill.entry == job.entry.name && kill.dtype == job.dtype;
        self.0.get(&rule).is_some_and(|kills| kills.iter().any(same))
    }
}

/// Runs a job without a planted mistake: our verdict, and the rules of others that reject it.
///
/// # Errors
/// A case fails by our own rule: nothing could be said of planted mistakes then.
pub fn baseline(job: &Job, rules: &[Rule], candidate: &dyn Candidate) -> Result<(Verdict, Rejections), Failed> {
    let mut rejections = Rejections::default();
    let (verdict, fates) = judged(job, rules, candidate, 1)?;
    for (rule, fate) in fates {
        let Some(kill) = fate.kill() else { continue };
        if rule == Rule::Ours {
            return Err(Failed::Baseline {
                candidate: candidate.name().to_owned(),
                entry: kill.entry.clone(),
                dtype: kill.dtype,
                message: kill.detail.clone(),
            });
        }
        rejections.0.entry(rule).or_default().push(kill.clone());
    }
    Ok((verdict, rejections))
}

/// The mutants that can be planted in, or round, the candidate of this name.
pub fn plants<'a>(candidate: &CandidateName, inner: &'a dyn Candidate, mutants: &'static [Mutant]) -> Vec<Plant<'a>> {
    let all = *candidate == CandidateName::Rowwise;
    mutants.iter().filter(|mutant| all || mutant.decorates()).map(|mutant| Plant::Mutant(mutant, inner)).collect()
}
