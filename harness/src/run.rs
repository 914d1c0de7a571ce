//! The main path: from a case to a report.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use nsa_corpus::{Case, Element, Entry, Error, Expect, Field, Inputs, Outputs};

use crate::backend::{Backend, BackendError};
use crate::determinism::Contract;
use crate::judge::{judge, verdict};
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
        Ok(mut outputs) => {
            // What it does not claim to compute is not what its gradients follow from either.
            Field::ALL
                .into_iter()
                .filter(|field| !backend.computes(*field))
                .for_each(|field| drop(outputs.take(field)));
            report.comparisons = judge(&inputs, &backend.arithmetic(&inputs), &outputs);
            report.comparisons.retain(|comparison| backend.computes(comparison.field));
            report.verdict = verdict(&report.comparisons);
            if !backend.reads_only_what_it_attends_to(&inputs) {
                excuse_leaks(&inputs, &mut report);
            }
            report.outputs = Some(outputs);
        }
        Err(error) => report.verdict = unanswered(error),
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Where the inputs are not finite and nothing is wrong but NaN where the oracle is finite, the backend multiplied what it
/// does not attend to by 0, as the PyTorch function does too: acceptable, and said.
fn excuse_leaks(inputs: &Inputs, report: &mut Report) {
    let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
    let tensors = [Some(inputs.q()), Some(inputs.k()), Some(inputs.v()), inputs.sel_scale()];
    let cotangents = inputs.cotangents();
    let more = [cotangents.d_out.as_ref(), cotangents.d_sliding.as_ref()];
    let all_finite = tensors.into_iter().chain(more).flatten().all(|tensor| tensor.as_slice().is_some_and(finite))
        && cotangents.d_lse.iter().all(|tensor| tensor.as_slice().is_some_and(finite));
    let only_leaks = report.comparisons.iter().all(|comparison| comparison.failed == comparison.leaked);
    if let (false, true, Verdict::Fail(failure)) = (all_finite, only_leaks, &report.verdict) {
        let message = format!("NaN through 0 * NaN, as in the PyTorch function: {}", failure.message);
        report.verdict = Verdict::Inconclusive(message);
    }
}

/// Runs a case `times` more and holds every answer to `first`, which its first run gave, as the backend's contract says
/// ([`Backend::determinism`]).
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

/// Runs an entry: its name goes into the report, what it says is exact is held to a tolerance of zero, and a difference that
/// it accepts is no failure.
///
/// # Errors
/// As [`run_case`].
pub fn run_entry(entry: &Entry, element: Element, backend: &dyn Backend) -> Result<Report, Error> {
    let mut report = run_case(&entry.case, element, backend)?;
    report.name.clone_from(&entry.name);
    if let (Verdict::Pass | Verdict::Suspect(_), Some(outputs)) = (&report.verdict, &report.outputs) {
        let inputs = entry.case.materialize(element)?;
        let failure = probe::inexact(entry, &inputs, &backend.arithmetic(&inputs), outputs);
        report.verdict = failure.map_or(report.verdict, Verdict::Fail);
    }
    if let (Expect::Acceptable, Verdict::Fail(failure)) = (entry.expect, &report.verdict) {
        let message = format!("the entry accepts this difference: {}", failure.message);
        report.verdict = Verdict::Inconclusive(message);
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
