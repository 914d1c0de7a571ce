//! A found failure as one file that needs nothing beside it: the entry, the input values themselves (not the seeds they
//! came from), what the candidate answered, and notes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{
    Case, Dtype, Entry, Error, Field, Inputs, Outputs, Tensor, TensorFile, TensorFileBuilder, entry, foreign, golden,
    version,
};

/// The prefix of the candidate's tensors.
const CANDIDATE: &str = "candidate.";
/// The prefixes of the ends of what was expected.
const ENDS: [&str; 2] = ["lowest.", "highest."];
/// The prefix of notes among the header's metadata.
const NOTE: &str = "note.";

/// A stored failure.
///
/// In the file: metadata `format` (the version, [`crate::version`]), `entry` (the entry's TOML, whose tensors are those of the
/// file), `dtype`, and `note.…`; tensors `q`, `k`, `v`, `indices`, `mask`, … in that dtype, `candidate.out`, … as F64, and of the fields that failed
/// `lowest.out` and `highest.out`, … as F64.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// The entry. Once stored and read, its case holds the tensors themselves.
    pub entry: Entry,
    /// The format that the failure was seen in.
    pub dtype: Dtype,
    /// The problem, rounded to `dtype`.
    pub inputs: Inputs,
    /// What the candidate answered.
    pub outputs: Option<Outputs>,
    /// Of the fields that failed, the least and the greatest value that each element could have had.
    pub intervals: [Outputs; 2],
    /// Anything else: the environment, the report, each as text.
    pub notes: BTreeMap<String, String>,
}

impl Bundle {
    /// A bundle of `entry` in `dtype`, its case replaced by the tensors that follow from it.
    ///
    /// # Errors
    /// The case cannot be materialised; the name is not made of words, so that it could not be read again.
    pub fn new(mut entry: Entry, dtype: Dtype, outputs: Option<Outputs>) -> Result<Self, Error> {
        entry::check_name(&entry.name)?;
        let inputs = entry.case.materialize(dtype)?;
        entry.case = Case::from_inputs(&inputs);
        entry.dtypes = vec![dtype];
        let intervals = [Outputs::new(), Outputs::new()];
        Ok(Bundle { entry, dtype, inputs, outputs, intervals, notes: BTreeMap::new() })
    }

    /// Reads a file that [`Bundle::write`] wrote.
    ///
    /// # Errors
    /// One line that names the file: no tensor file, no entry in it or several, a tensor that is missing, of another format
    /// than `dtype`, not the one that the entry's digest names, or without a meaning; a case whose tensors are not those of
    /// the file; unknown metadata.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = TensorFile::read(path)?;
        Self::from_file(&file).map_err(|error| error.in_file(path))
    }

    /// Reads a file's contents.
    ///
    /// # Errors
    /// As [`Bundle::read`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::from_file(&TensorFile::parse(bytes)?)
    }

    fn from_file(file: &TensorFile) -> Result<Self, Error> {
        let metadata = version::bundle(file)?;
        let needed = |key: &str| {
            let value = metadata.get(key);
            value.ok_or_else(|| Error::invalid(format!("the header's metadata has no `{key}`: no stored failure")))
        };
        let dtype: Dtype = needed("dtype")?.parse()?;
        check_names(file, &metadata, dtype)?;
        let entries = entry::parse(needed("entry")?, None, Some(file))
            .map_err(|error| Error::invalid(format!("metadata `entry`: {error}")))?;
        let [mut entry] = <[Entry; 1]>::try_from(entries).map_err(|entries| {
            Error::invalid(format!("metadata `entry` holds {} entries, expected 1", entries.len()))
        })?;
        if let Some(tensor) = entry.case.drawn() {
            let name = tensor.name();
            return Err(Error::invalid(format!("metadata `entry`: {name} is not one of the file's own tensors")));
        }
        let inputs = entry.case.materialize(dtype)?;
        entry.case = Case::from_inputs(&inputs);
        let outputs = fields(file, CANDIDATE)?;
        let outputs = (outputs != Outputs::new()).then_some(outputs);
        let intervals = [fields(file, ENDS[0])?, fields(file, ENDS[1])?];
        let note = |(key, value): (String, String)| Some((key.strip_prefix(NOTE)?.to_owned(), value));
        let notes = metadata.into_iter().filter_map(note).collect();
        Ok(Bundle { entry, dtype, inputs, outputs, intervals, notes })
    }

    /// The file's bytes; the same bundle gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = TensorFileBuilder::new();
        let entry = Entry { case: Case::from_inputs(&self.inputs), ..self.entry.clone() };
        file.metadata(version::KEY, version::FORMAT.to_string());
        file.metadata("entry", entry.to_toml()).metadata("dtype", self.dtype.name());
        for (key, value) in &self.notes {
            file.metadata(&format!("{NOTE}{key}"), value);
        }
        golden::store_inputs(&mut file, &self.inputs);
        let ends = ENDS.into_iter().zip(&self.intervals);
        for (prefix, outputs) in self.outputs.iter().map(|outputs| (CANDIDATE, outputs)).chain(ends) {
            for (field, tensor) in outputs.iter() {
                file.float(&format!("{prefix}{field}"), Dtype::F64, tensor);
            }
        }
        file.to_bytes()
    }

    /// Writes the file, atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        crate::files::write_atomically(path, &self.to_bytes())
    }
}

/// Refuses what nobody would read, and inputs in another format than the one that they are said to be in.
fn check_names(file: &TensorFile, metadata: &BTreeMap<String, String>, dtype: Dtype) -> Result<(), Error> {
    let known = |key: &str| key == "entry" || key == "dtype" || key.starts_with(NOTE);
    if let Some(key) = metadata.keys().find(|key| !known(key)) {
        return Err(Error::invalid(format!("metadata {} is unknown in a stored failure", foreign::quoted(key))));
    }
    let answers = [CANDIDATE, ENDS[0], ENDS[1]].map(|prefix| Field::ALL.map(|field| format!("{prefix}{field}")));
    let inputs = Tensor::ALL.map(|tensor| tensor.name().to_owned());
    file.only_tensors(&answers.into_iter().flatten().chain(inputs).collect::<BTreeSet<_>>())?;
    for tensor in Tensor::ALL.into_iter().map(Tensor::name).filter(|name| file.has(name)) {
        if let Some(found) = file.dtype(tensor)?.filter(|found| *found != dtype) {
            return Err(Error::invalid(format!("tensor `{tensor}` is {found}, metadata `dtype` is {dtype}")));
        }
    }
    Ok(())
}

/// The tensors of a file whose names begin with `prefix` and end with a field's.
fn fields(file: &TensorFile, prefix: &str) -> Result<Outputs, Error> {
    let mut outputs = Outputs::new();
    for field in Field::ALL {
        let name = format!("{prefix}{field}");
        if file.has(&name) {
            outputs.set(field, file.get_f64(&name)?);
        }
    }
    Ok(outputs)
}
