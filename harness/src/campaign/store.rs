//! Found failures as files: one self-contained bundle for each, holding values, not seeds.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use nsa_corpus::{Arithmetic, Bundle, Case, Entry, Error, foreign};

use crate::campaign::waiver::{self, Extent};
use crate::candidate::{Candidate, Cause, Declaration};
use crate::environment::Environment;
use crate::judge::verdict::{Class, Failure, Verdict};
use crate::judge::{intervals, judge_declared};
use crate::report::Report;
use crate::version_1;

/// Writes the failure that `report` tells of into `folder`, with everything that judging it again needs: the inputs, what
/// the candidate answered, what it could have answered where it failed, what it declares of its arithmetic, the report, where
/// this was, and the extents of the wrong answers `seen` on the way to it, from which a waiver follows. Returns the file.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn store(
    folder: &Path,
    name: &str,
    why: &str,
    case: &Case,
    report: &Report,
    seen: &Extent,
    candidate: &dyn Candidate,
) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Error::invalid(format!("cannot be made: {error}")).in_file(folder))?;
    let words: String = name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' })
        .collect();
    let entry = Entry::new(&format!("bugs/{words}"), why, case.clone());
    let mut bundle = Bundle::new(entry, report.dtype, report.outputs.clone())?;
    let declaration = candidate.declaration(&bundle.inputs);
    let arithmetic = &declaration.arithmetic;
    if let Some(outputs) = &report.outputs {
        let failed = report.comparisons.iter().filter(|comparison| comparison.failure.is_some());
        let failed: Vec<_> = failed.map(|comparison| comparison.field).collect();
        bundle.intervals = intervals(&bundle.inputs, arithmetic, outputs, &failed);
    }
    let mut environment = serde_json::to_value(Environment::here()).expect("plain data");
    environment["candidate"] = declaration.environment;
    bundle.notes.insert("candidate".to_owned(), report.candidate.clone());
    bundle.notes.insert("arithmetic".to_owned(), json(arithmetic));
    bundle.notes.insert("report".to_owned(), note(report));
    if report.outputs.is_some() {
        bundle.notes.insert(waiver::NOTE.to_owned(), json(seen));
    }
    bundle.notes.insert("environment".to_owned(), environment.to_string());
    let path = folder.join(format!("{name}.safetensors"));
    bundle.write(&path)?;
    Ok(path)
}

/// The report as a stored failure holds it: with the version of its words.
fn note(report: &Report) -> String {
    let mut document = serde_json::to_value(report).expect("plain data serialises");
    document[version_1::KEY] = nsa_corpus::version::FORMAT.into();
    document.to_string()
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data serialises")
}

/// The candidate that failed, by its name of today.
pub fn candidate(bundle: &Bundle) -> Option<Cow<'_, str>> {
    bundle.notes.get("candidate").map(|name| version_1::candidate(name))
}

/// What the stored failure's candidate declared.
///
/// # Errors
/// The bundle does not say, or says it in a form that cannot be read.
pub fn arithmetic(bundle: &Bundle) -> Result<Arithmetic, Error> {
    let text = bundle.notes.get("arithmetic").ok_or_else(|| Error::invalid("no note `arithmetic`"))?;
    let declared: Arithmetic =
        serde_json::from_str(text).map_err(|error| Error::invalid(format!("note `arithmetic`: {error}")))?;
    declared.check(bundle.dtype)?;
    Ok(declared)
}

/// What a stored answer is judged by: the arithmetic that its candidate declared, and the fields that were judged then, as strictly
/// as the contract reads.
///
/// # Errors
/// As [`arithmetic`].
pub fn declaration(bundle: &Bundle) -> Result<Declaration, Error> {
    let strict = Declaration::strict(arithmetic(bundle)?);
    let Some(stored) = stored_report(bundle) else { return Ok(strict) };
    Ok(Declaration { fields: stored.comparisons.iter().map(|comparison| comparison.field).collect(), ..strict })
}

/// Judges the answer that a stored failure holds again; `None` where it holds none, as after a crash. Of the fields, those
/// that were judged when it was stored.
///
/// # Errors
/// As [`arithmetic`]; the stored report does not list the field that it says failed, so that judging it again would say nothing.
pub fn judge_again(bundle: &Bundle) -> Result<Option<Report>, Error> {
    let Some(outputs) = &bundle.outputs else { return Ok(None) };
    let mut report = Report::new(
        &candidate(bundle).map_or_else(|| "stored".to_owned(), |name| foreign::line(&name)),
        bundle.dtype,
        &bundle.entry.case,
    )?;
    report.name.clone_from(&bundle.entry.name);
    if let Some(stored) = stored_report(bundle) {
        let judged = |field| stored.comparisons.iter().any(|comparison| comparison.field == field);
        let failed = stored.verdict.failure().and_then(|failure| failure.field);
        if let Some(field) = failed.filter(|field| !judged(*field)) {
            let listed: Vec<&str> = stored.comparisons.iter().map(|comparison| comparison.field.name()).collect();
            let listed =
                if listed.is_empty() { "no comparison".to_owned() } else { format!("only {}", listed.join(", ")) };
            return Err(Error::invalid(format!("note `report` says that {field} failed, and lists {listed}")));
        }
    }
    let declaration = declaration(bundle)?;
    report.conclude(&bundle.inputs, &declaration, judge_declared(&bundle.inputs, &declaration, outputs));
    Ok(Some(report))
}

/// The report that a failure was stored with, where it can be read.
pub fn stored_report(bundle: &Bundle) -> Option<Report> {
    let mut report: Report = serde_json::from_value(version_1::report(bundle.notes.get("report")?).ok()?).ok()?;
    if let Verdict::Fail(failure) = &mut report.verdict
        && failure.cause.is_unnamed()
    {
        failure.cause = cause_of_version_1(failure);
    }
    Some(report)
}

/// Reports of before had no cause: it is what their text says after our own words, as `crashed: ValueError: 3 is odd`.
fn cause_of_version_1(failure: &Failure) -> Cause {
    let said = |own: &str| failure.message.strip_prefix(own);
    match failure.class {
        Class::Crash if said("broken answer: ").is_some() => Cause::named("broken answer"),
        Class::Crash if said("crashed: panicked: ").is_some() => Cause::Panic,
        Class::Crash | Class::Compile | Class::OutOfBounds if failure.field.is_none() => {
            let own = ["crashed: ", "does not compile: ", "wrote out of bounds: "].into_iter().find_map(said);
            let own = own.unwrap_or(&failure.message);
            let number = |words: &str| own.strip_prefix(words)?.split([' ', ';', '\n']).next()?.parse().ok();
            let ended = number("exit status: ").map(Cause::Exit).or_else(|| number("signal: ").map(Cause::Signal));
            ended.unwrap_or_else(|| Cause::of_foreign(own))
        }
        _ => Cause::Unnamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_failure_of_before_has_the_cause_that_its_text_says() {
        let cause = |class, text: &str| cause_of_version_1(&Failure::new(class, None, text.to_owned()));
        assert_eq!(cause(Class::Crash, "crashed: ValueError: 3 is odd"), Cause::named("ValueError"));
        assert_eq!(cause(Class::Crash, "crashed: signal: 11 (SIGSEGV) (core dumped)"), Cause::Signal(11));
        assert_eq!(cause(Class::Crash, "crashed: exit status: 1; stderr ends: x"), Cause::Exit(1));
        assert_eq!(cause(Class::Crash, "crashed: panicked: at 3"), Cause::Panic);
        assert_eq!(cause(Class::Compile, "does not compile: CompilationError: at 3"), Cause::named("CompilationError"));
        assert_eq!(cause(Class::Timeout, "no answer within 3 s"), Cause::Unnamed);
    }
}
