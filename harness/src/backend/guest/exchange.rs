//! What a guest and the harness hand each other: a request's tensors, a reply's line, and the answer's file, none of it
//! believed before it is checked.

use std::time::Duration;

use nsa_corpus::{Field, GoldenCase, Inputs, Outputs, TensorFile};
use serde::Deserialize;
use serde_json::json;

use super::super::BackendError;
use super::super::process::Folder;

/// What an answer's file may take beside its tensors: header and alignment.
const HEADER_BYTES_MAX: u64 = 1 << 20;

/// A reply to `run`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Reply {
    /// The answer lies in `outputs`, a file of the folder.
    Result { id: u64, outputs: String },
    /// It does not compute this problem.
    Skip { id: u64, reason: String },
    /// It tried and failed; after a `fatal` one it is started again.
    Error {
        id: u64,
        #[serde(default)]
        class: ErrorClass,
        message: String,
        #[serde(default)]
        fatal: bool,
    },
}

/// What a guest says went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ErrorClass {
    /// It failed.
    #[default]
    Crash,
    /// Its kernel does not compile.
    Compile,
    /// The machine cannot run it.
    Environment,
}

impl Reply {
    pub(super) fn id(&self) -> u64 {
        match self {
            Reply::Result { id, .. } | Reply::Skip { id, .. } | Reply::Error { id, .. } => *id,
        }
    }
}

impl ErrorClass {
    pub(super) fn error(self, message: &str) -> BackendError {
        let message = message.chars().take(2000).collect();
        match self {
            ErrorClass::Crash => BackendError::Crash(message),
            ErrorClass::Compile => BackendError::Compile(message),
            ErrorClass::Environment => BackendError::Environment(message),
        }
    }
}

/// The tensors of a request, in the golden format.
pub(super) fn request_file(inputs: &Inputs) -> Vec<u8> {
    GoldenCase::new("request", inputs.clone(), Outputs::new()).to_bytes()
}

/// The line that asks for an answer to `file`.
pub(super) fn request_line(id: u64, file: &str, fields: &[Field], limit: Duration) -> String {
    let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
    json!({ "type": "run", "id": id, "inputs": file, "fields": names, "limit_s": limit.as_secs_f64() }).to_string()
}

/// Reads the answer to `inputs` from the file `name` of `folder`.
///
/// # Errors
/// The name leads out of the folder, or to no regular file; the file is longer than the answer can be, or no tensor file;
/// a tensor holds no floating-point numbers. A tensor that is missing or of another shape is judged, not refused here.
pub(super) fn read_answer(
    folder: &Folder,
    name: &str,
    inputs: &Inputs,
    fields: &[Field],
) -> Result<Outputs, BackendError> {
    let shown: String = name.chars().take(80).collect();
    let broken = |why: String| BackendError::Broken(format!("`{}` {why}", shown.escape_debug()));
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err(broken("is not one of its folder's files".to_owned()));
    }
    let values: usize = fields.iter().map(|field| field.shape(inputs.shape()).iter().product::<usize>()).sum();
    // Twice what f64 takes: a tensor of a wrong shape is still read, and reported as such.
    let bytes = folder.read(name, 16 * values as u64 + HEADER_BYTES_MAX).map_err(broken)?;
    let file = TensorFile::parse(bytes).map_err(|error| broken(error.to_string()))?;
    let mut outputs = Outputs::new();
    for field in fields.iter().filter(|field| file.has(field.name())) {
        outputs.set(*field, file.get_f64(field.name()).map_err(|error| broken(error.to_string()))?);
    }
    Ok(outputs)
}
