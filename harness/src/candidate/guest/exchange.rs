//! What a guest and the harness hand each other: a request's tensors, a reply's line, and the answer's file, none of it
//! believed before it is checked.

use std::time::Duration;

use nsa_corpus::{Field, GoldenCase, Inputs, Outputs, TensorFile, foreign};
use serde::Deserialize;
use serde_json::json;

use super::super::process::Folder;
use super::super::{CandidateError, Cause};

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
    /// Reads a line that should be a reply.
    ///
    /// # Errors
    /// The line's beginning, and why it is none.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        serde_json::from_str(line).map_err(|error| {
            let (line, error) = (foreign::quoted(line.trim_end()), foreign::short(&error.to_string(), 300));
            format!("its reply {line}: {error}")
        })
    }

    pub(super) fn id(&self) -> u64 {
        match self {
            Reply::Result { id, .. } | Reply::Skip { id, .. } | Reply::Error { id, .. } => *id,
        }
    }
}

impl ErrorClass {
    pub(super) fn error(self, message: &str) -> CandidateError {
        let (cause, message) = (Cause::of_foreign(message), lines(message, 2000));
        match self {
            ErrorClass::Crash => CandidateError::Crash(cause, message),
            ErrorClass::Compile => CandidateError::Compile(cause, message),
            ErrorClass::Environment => CandidateError::Environment(message),
        }
    }
}

/// What a guest says in words, fit for a report: lines of it, but no other control characters, and not too many of any.
pub(super) fn lines(text: &str, letters_max: usize) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).take(letters_max).collect()
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
/// a tensor holds no floating-point numbers, or names no field. A tensor that is missing or of another shape is judged, not refused here.
pub(super) fn read_answer(
    folder: &Folder,
    name: &str,
    inputs: &Inputs,
    fields: &[Field],
) -> Result<Outputs, CandidateError> {
    let broken = |why: String| CandidateError::Broken(format!("{} {why}", foreign::quoted(name)));
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err(broken("is not one of its folder's files".to_owned()));
    }
    let bytes = folder.read(name, bytes_max(inputs, fields)).map_err(broken)?;
    let file = TensorFile::parse(bytes).map_err(|error| broken(error.to_string()))?;
    answer_of(&file, fields)
}

/// The longest file that the answer to `inputs` can be.
pub(super) fn bytes_max(inputs: &Inputs, fields: &[Field]) -> u64 {
    let values: usize = fields.iter().map(|field| field.shape(inputs.shape()).iter().product::<usize>()).sum();
    // Twice what f64 takes: a tensor of a wrong shape is still read, and reported as such.
    16 * values as u64 + HEADER_BYTES_MAX
}

/// The answer that a file holds, of the fields that were asked for.
pub(super) fn answer_of(file: &TensorFile, fields: &[Field]) -> Result<Outputs, CandidateError> {
    if let Some(name) = file.names().into_iter().find(|name| name.parse::<Field>().is_err()) {
        let name = foreign::quoted(&name);
        return Err(CandidateError::Broken(format!("the answer holds a tensor {name}, which names no field")));
    }
    let mut outputs = Outputs::new();
    for field in fields.iter().filter(|field| file.has(field.name())) {
        let tensor = file.get_f64(field.name()).map_err(|error| CandidateError::Broken(error.to_string()))?;
        outputs.set(*field, tensor);
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;
    use nsa_corpus::{Dtype, TensorFileBuilder};

    use super::*;

    #[test]
    fn a_line_that_is_no_reply_is_shown_in_part_and_in_one_line() {
        let refused = |line: &str| Reply::parse(line).unwrap_err();
        assert!(
            refused("loading\u{1b}[2J weights\n").starts_with(r"its reply `loading\u{1b}[2J weights`: expected value")
        );
        let unknown = refused(&format!(r#"{{"type": "skip", "id": 1, "reason": "", "{}": 1}}"#, "x\\n".repeat(20_000)));
        assert!(unknown.contains("unknown field `x") && unknown.len() < 500 && !unknown.contains('\n'), "{unknown}");
    }

    #[test]
    fn what_a_guest_says_in_words_controls_no_terminal() {
        let message = ErrorClass::Compile.error("a\u{1b}[2J\nb\r").to_string();
        assert!(message.ends_with("a [2J\nb "), "{message:?}");
        assert_eq!(lines(&"é".repeat(9), 3), "ééé");
    }

    #[test]
    fn an_answer_holds_fields_alone() {
        let read = |name: &str| {
            let mut file = TensorFileBuilder::new();
            file.float("out", Dtype::F32, &Array1::zeros(2)).float(name, Dtype::F32, &Array1::zeros(3));
            answer_of(&TensorFile::parse(file.to_bytes()).unwrap(), &[Field::Out])
        };
        let out = read("lse").unwrap();
        assert!(
            out.get(Field::Out).is_some() && out.get(Field::Lse).is_none(),
            "one that was not asked for is not read"
        );
        let refused = read("attention\nout").unwrap_err().to_string();
        assert!(refused.ends_with(r"the answer holds a tensor `attention\nout`, which names no field"), "{refused}");
    }
}
