//! An implementation under test: what it is called, what it declares, what it cannot do, and how it is run.

pub mod cuda;
mod declaration;
pub mod guest;
mod oracle;
pub mod process;
mod regular_attend;
mod tiled;

use std::time::Duration;

use nsa_corpus::{Inputs, Outputs};

pub use declaration::{Declaration, Determinism};

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

/// A candidate as `nsa-diff candidates` lists it.
pub struct Listed {
    /// The name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    make: fn() -> Result<Box<dyn Candidate>, Unavailable>,
}

/// Why a candidate is not to be had here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

impl Listed {
    /// The candidate, if it exists here.
    ///
    /// # Errors
    /// Why it does not.
    pub fn make(&self) -> Result<Box<dyn Candidate>, Unavailable> {
        (self.make)()
    }
}

/// The candidates that have a name of their own.
pub const LISTED: [Listed; 8] = [
    Listed {
        name: "oracle",
        about: "the f64 oracle itself, judged as a candidate",
        make: || Ok(Box::new(oracle::Oracle)),
    },
    Listed {
        name: "regular_attend",
        about: "the transcription of the PyTorch function, in f32 or f64",
        make: || Ok(Box::new(regular_attend::RegularAttend)),
    },
    Listed {
        name: "tiled",
        about: "CPU candidate: online softmax by tiles, f32 and 16-bit as tensor cores round",
        make: || Ok(Box::new(tiled::Tiled)),
    },
    Listed {
        name: "rowwise",
        about: "CPU candidate, row by row: the implementation that known mistakes are planted in",
        make: || Ok(Box::new(crate::mutants::Rowwise::new())),
    },
    Listed { name: "cuda", about: "the CUDA kernels, the fastest rung for each problem", make: || cuda::make("cuda") },
    Listed {
        name: "cuda:plain",
        about: "the CUDA kernels, plain rung: f32 arithmetic, any size",
        make: || cuda::make("cuda:plain"),
    },
    Listed {
        name: "cuda:tensor",
        about: "the CUDA kernels, tensor rung: 16-bit mma",
        make: || cuda::make("cuda:tensor"),
    },
    Listed {
        name: "cuda:far-strides",
        about: "the same, each tensor in turn spread over 2^32 elements; cuda:plain:far-strides and cuda:tensor:far-strides too",
        make: || cuda::make("cuda:far-strides"),
    },
];

/// The candidate of this name.
///
/// # Errors
/// No candidate has the name (the names are listed), or it does not exist here (the reason is given).
pub fn by_name(name: &str) -> Result<Box<dyn Candidate>, Unavailable> {
    if name.starts_with("guest:") {
        let guest = guest::GuestCandidate::start(name, guest::Limits::from_environment()?);
        let guest = guest.map_err(|reason| Unavailable(format!("candidate `{name}` is not available: {reason}")))?;
        return Ok(Box::new(guest));
    }
    if name.starts_with("cuda:") {
        return cuda::make(name)
            .map_err(|reason| Unavailable(format!("candidate `{name}` is not available: {reason}")));
    }
    if let Some(mutant) = name.strip_prefix("rowwise+") {
        let unknown = || Unavailable(format!("no mistake is called `{mutant}`; `nsa-diff detect` lists them"));
        return crate::mutants::rowwise_with(mutant).ok_or_else(unknown);
    }
    match LISTED.iter().find(|listed| listed.name == name) {
        Some(listed) => {
            listed.make().map_err(|reason| Unavailable(format!("candidate `{name}` is not available: {reason}")))
        }
        None => {
            let names: Vec<&str> = LISTED.iter().map(|listed| listed.name).collect();
            Err(Unavailable(format!(
                "no candidate is called `{name}`; there are {} and guest:PROGRAM",
                names.join(", ")
            )))
        }
    }
}
