//! An implementation under test: what it is called, what it declares, what it cannot do, and how it is run.

pub mod cuda;
mod declaration;
pub mod guest;
mod name;
mod oracle;
pub mod process;
mod regular_attend;
mod rowwise;
mod tiled;

use std::time::Duration;

use nsa_corpus::{Inputs, Outputs};

pub use declaration::{Declaration, Determinism};
pub use name::{CandidateName, NameError};
pub use oracle::Oracle;
pub use regular_attend::RegularAttend;
pub use rowwise::Rowwise;
pub use tiled::Tiled;

/// An implementation of the contract (docs/semantics.md), or of a part of it.
///
/// No method has a default: a wrapper that forgets one does not compile.
pub trait Candidate: Send + Sync {
    /// The name that `--candidate` takes.
    fn name(&self) -> &str;

    /// What it declares of its answer to `inputs`. Who wraps a candidate passes this on whole.
    fn declaration(&self, inputs: &Inputs) -> Declaration;

    /// Whether it computes this problem.
    ///
    /// # Errors
    /// What of it is not supported: the case is skipped with that reason.
    fn supports(&self, inputs: &Inputs) -> Result<(), Unsupported>;

    /// Computes every field that `inputs` ask for.
    ///
    /// # Errors
    /// It gave no answer. A wrong answer is no error: it is judged.
    fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError>;
}

/// Why a problem is outside what an implementation does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// Why an implementation gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CandidateError {
    /// It ended, or panicked, while it computed.
    #[error("crashed: {0}")]
    Crash(String),
    /// It did not answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// Its kernel does not compile.
    #[error("does not compile: {0}")]
    Compile(String),
    /// It wrote outside its outputs, or into its inputs.
    #[error("wrote out of bounds: {0}")]
    OutOfBounds(String),
    /// Two runs of the same inputs gave different bits, against what it declares.
    #[error("not deterministic: {0}")]
    Nondeterministic(String),
    /// What it answered is no answer: a broken file, a wrong type.
    #[error("broken answer: {0}")]
    Broken(String),
    /// It does not do this problem after all: the case is skipped.
    #[error("{0}")]
    Unsupported(String),
    /// The machine cannot run it: not its fault.
    #[error("{0}")]
    Environment(String),
}

/// Why a candidate is not to be had here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);
