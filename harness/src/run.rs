//! The main path: from a case to a report.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use nsa_corpus::{Case, Element, Entry, Error, Inputs, Outputs};

use crate::backend::{Backend, BackendError};
use crate::determinism::Contract;
use crate::judge::judge_declared;
use crate::probe;
use crate::report::Report;
use crate::verdict::{Class, Failure, Verdict};

/// Runs one case on `backend` and judges every element of what it answers.
///
/// # Errors
/// The case itself is broken: it has no inputs.
pub fn run_case(case: &Case, element: Element, backend: &dyn Backend) -> Result<Report, Error> {
    let inputs = case.materialize(element)?;
    let start = Instant::now();
    let mut report = Report::new(backend.name(), element, case)?;
    if let Err(reason) = backend.supports(&inputs) {
        report.verdict = Verdict::Skip(reason.to_string());
        return Ok(report);
    }
    match guarded(backend, &inputs) {
        Ok(outputs) => {
            let declaration = backend.declaration(&inputs);
            let comparisons = judge_declared(&inputs, &declaration, &outputs);
            report.conclude(&inputs, &declaration, comparisons);
            report.outputs = Some(outputs);
        }
        Err(error) => report.verdict = unanswered(error),
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Runs a case `times` more and holds every answer to `first`, which its first run gave, as the backend's contract says
/// ([`crate::backend::Declaration::determinism`]).
///
/// # Errors
/// The case itself is broken.
pub fn rerun(
    case: &Case,
    element: Element,
    backend: &dyn Backend,
    first: &Outputs,
    times: usize,
) -> Result<Option<Failure>, Error> {
    let inputs = case.materialize(element)?;
    let mut contract = Contract::new(&inputs, backend, first);
    for run in 1..=times {
        let broken = match guarded(backend, &inputs) {
            Ok(again) => contract.broken_by(&again),
            Err(error) => unanswered(error).failure().cloned(),
        };
        if let Some(mut failure) = broken {
            failure.message = format!("rerun {run} of {times}: {}", failure.message);
            return Ok(Some(failure));
        }
    }
    Ok(None)
}

/// Runs an entry: its name goes into the report, and what it says is exact is held to a tolerance of zero.
///
/// # Errors
/// As [`run_case`].
pub fn run_entry(entry: &Entry, element: Element, backend: &dyn Backend) -> Result<Report, Error> {
    let mut report = run_case(&entry.case, element, backend)?;
    report.name.clone_from(&entry.name);
    if let (None, Some(outputs)) = (report.verdict.failure(), &report.outputs) {
        let inputs = entry.case.materialize(element)?;
        let failure = probe::inexact(entry, &inputs, &backend.declaration(&inputs).arithmetic, outputs);
        report.verdict = failure.map_or(report.verdict, Verdict::Fail);
    }
    Ok(report)
}

/// A panic of the implementation is its own failure, not ours.
pub(crate) fn guarded(backend: &dyn Backend, inputs: &Inputs) -> Result<Outputs, BackendError> {
    catch_unwind(AssertUnwindSafe(|| backend.run(inputs))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(BackendError::Crash(format!("panicked: {}", text.unwrap_or("without a message"))))
    })
}

pub(crate) fn unanswered(error: BackendError) -> Verdict {
    let class = match &error {
        BackendError::Environment(reason) => return Verdict::Inconclusive(reason.clone()),
        BackendError::Unsupported(reason) => return Verdict::Skip(reason.clone()),
        BackendError::Crash(_) | BackendError::Broken(_) => Class::Crash,
        BackendError::Timeout(_) => Class::Timeout,
        BackendError::Compile(_) => Class::Compile,
        BackendError::Nondeterministic(_) => Class::Nondeterministic,
        BackendError::OutOfBounds(_) => Class::OutOfBounds,
    };
    Verdict::Fail(Failure { class, field: None, message: error.to_string() })
}
