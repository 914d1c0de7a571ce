//! Found failures as files: one self-contained bundle for each, holding values, not seeds.

use std::path::{Path, PathBuf};

use nsa_corpus::{Arithmetic, Bundle, Case, Entry, Error};

use crate::backend::Backend;
use crate::report::Report;

/// Writes the failure that `report` tells of into `folder`, with everything that judging it again needs: the inputs, what
/// the candidate answered, what it declares of its arithmetic, the report. Returns the file.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn store(
    folder: &Path,
    name: &str,
    why: &str,
    case: &Case,
    report: &Report,
    backend: &dyn Backend,
) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Error::invalid(format!("cannot be made: {error}")).in_file(folder))?;
    let words: String = name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' })
        .collect();
    let entry = Entry::new(&format!("bugs/{words}"), why, case.clone());
    let mut bundle = Bundle::new(entry, report.element, report.outputs.clone())?;
    bundle.notes.insert("candidate".to_owned(), report.candidate.clone());
    bundle.notes.insert("arithmetic".to_owned(), json(&backend.arithmetic(&bundle.inputs)));
    bundle.notes.insert("report".to_owned(), json(report));
    bundle.notes.insert("environment".to_owned(), crate::environment::describe().to_string());
    let path = folder.join(format!("{name}.safetensors"));
    bundle.write(&path)?;
    Ok(path)
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data serialises")
}

/// What the stored failure's candidate declared.
///
/// # Errors
/// The bundle does not say, or says it in a form that cannot be read.
pub fn arithmetic(bundle: &Bundle) -> Result<Arithmetic, Error> {
    let text = bundle.notes.get("arithmetic").ok_or_else(|| Error::invalid("no note `arithmetic`"))?;
    serde_json::from_str(text).map_err(|error| Error::invalid(format!("note `arithmetic`: {error}")))
}
