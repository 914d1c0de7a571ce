//! The main path: from a case to a report.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use nsa_corpus::{Case, Dtype, Entry, Error, Field, Inputs, Outputs};

use crate::candidate::{Candidate, CandidateError, Cause};
use crate::judge::exact;
use crate::judge::judge_declared;
use crate::judge::reruns::Contract;
use crate::judge::verdict::{Class, Failure, Verdict};
use crate::report::Report;

/// Runs one case on `candidate` and judges every element of what it answers.
///
/// # Errors
/// The case itself is broken: it has no inputs.
pub fn run_case(case: &Case, dtype: Dtype, candidate: &dyn Candidate) -> Result<Report, Error> {
    run_on(&case.materialize(dtype)?, case, candidate)
}

/// As [`run_case`], given the inputs that `case` gives.
fn run_on(inputs: &Inputs, case: &Case, candidate: &dyn Candidate) -> Result<Report, Error> {
    let start = Instant::now();
    let mut report = Report::new(candidate.name(), inputs.dtype(), case)?;
    if let Err(reason) = candidate.supports(inputs) {
        report.verdict = Verdict::Skip(reason.to_string());
        return Ok(report);
    }
    match guarded(candidate, inputs) {
        Ok(outputs) => {
            let declaration = candidate.declaration(inputs);
            let comparisons = judge_declared(inputs, &declaration, &outputs);
            report.conclude(inputs, &declaration, comparisons);
            report.outputs = Some(outputs);
        }
        Err(error) => report.verdict = unanswered(error),
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// What reruns of a case came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reruns {
    /// Every answer keeps the contract.
    Kept,
    /// One does not.
    Broken(Failure),
    /// They ended early, and no answer until then broke the contract.
    Stopped,
}

impl Reruns {
    /// How the contract was broken.
    pub fn failure(self) -> Option<Failure> {
        match self {
            Reruns::Broken(failure) => Some(failure),
            Reruns::Kept | Reruns::Stopped => None,
        }
    }
}

/// Runs a case `times` more and holds every answer to `first`, which its first run gave, as the candidate's contract says
/// ([`crate::candidate::Declaration::determinism`]). `stop` is asked before each run whether to end early.
///
/// # Errors
/// The case itself is broken.
pub fn rerun(
    case: &Case,
    dtype: Dtype,
    candidate: &dyn Candidate,
    first: &Outputs,
    times: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Reruns, Error> {
    let inputs = case.materialize(dtype)?;
    let mut contract = Contract::new(&inputs, candidate, first);
    for run in 1..=times {
        if stop() {
            return Ok(Reruns::Stopped);
        }
        let broken = match guarded(candidate, &inputs) {
            Ok(again) => contract.broken_by(&again),
            Err(error) => unanswered(error).failure().cloned(),
        };
        if let Some(mut failure) = broken {
            failure.message = format!("rerun {run} of {times}: {}", failure.message);
            return Ok(Reruns::Broken(failure));
        }
    }
    Ok(Reruns::Kept)
}

/// Runs an entry: its name goes into the report, and what it says is exact is held to a tolerance of zero.
///
/// # Errors
/// As [`run_case`].
pub fn run_entry(entry: &Entry, dtype: Dtype, candidate: &dyn Candidate) -> Result<Report, Error> {
    let inputs = entry.case.materialize(dtype)?;
    let mut report = run_on(&inputs, &entry.case, candidate)?;
    report.name.clone_from(&entry.name);
    if let (None, Some(outputs)) = (report.verdict.failure(), &report.outputs) {
        let declaration = candidate.declaration(&inputs);
        // What it does not declare is not held to anything.
        let mut declared = outputs.clone();
        for field in Field::ALL.into_iter().filter(|field| !declaration.computes(*field)) {
            drop(declared.take(field));
        }
        let failure = exact::inexact(entry, &inputs, &declaration.arithmetic, &declared);
        report.verdict = failure.map_or(report.verdict, Verdict::Fail);
    }
    Ok(report)
}

/// A panic of the implementation is its own failure, not ours.
pub(crate) fn guarded(candidate: &dyn Candidate, inputs: &Inputs) -> Result<Outputs, CandidateError> {
    catch_unwind(AssertUnwindSafe(|| candidate.run(inputs))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(CandidateError::Crash(Cause::Panic, format!("panicked: {}", text.unwrap_or("without a message"))))
    })
}

pub(crate) fn unanswered(error: CandidateError) -> Verdict {
    let message = error.to_string();
    let (class, cause) = match error {
        CandidateError::Environment(reason) => return Verdict::Inconclusive(reason),
        CandidateError::Unsupported(reason) => return Verdict::Skip(reason),
        CandidateError::Crash(cause, _) => (Class::Crash, cause),
        CandidateError::Compile(cause, _) => (Class::Compile, cause),
        CandidateError::OutOfBounds(cause, _) => (Class::OutOfBounds, cause),
        CandidateError::Broken(_) => (Class::Crash, Cause::named("broken answer")),
        CandidateError::Timeout(_) => (Class::Timeout, Cause::Unnamed),
        CandidateError::Nondeterministic(_) => (Class::Nondeterministic, Cause::Unnamed),
    };
    Verdict::Fail(Failure { cause, ..Failure::new(class, None, message) })
}
