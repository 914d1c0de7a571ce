//! From a candidate's name to the candidate.

use crate::candidate::cuda::{Cuda, WORKERS};
use crate::candidate::guest::{GuestCandidate, Limits};
use crate::candidate::{Candidate, CandidateName, NameError, Oracle, RegularAttend, Rowwise, Tiled, Unavailable};
use crate::mutants::rowwise_with;

/// A candidate as `nsa-diff candidates` lists it.
pub struct Listed {
    /// The name that `--candidate` takes.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
}

impl Listed {
    /// The candidate, if it exists here.
    ///
    /// # Errors
    /// Why it does not.
    pub fn make(&self) -> Result<Box<dyn Candidate>, Unavailable> {
        make(&name(self.name)?)
    }
}

/// The candidates that have a name of their own.
pub const LISTED: [Listed; 8] = [
    Listed { name: "oracle", about: "the f64 oracle itself, judged as a candidate" },
    Listed { name: "regular_attend", about: "the transcription of the PyTorch function, in f32 or f64" },
    Listed { name: "tiled", about: "CPU candidate: online softmax by tiles, f32 and 16-bit as tensor cores round" },
    Listed {
        name: "rowwise",
        about: "CPU candidate, row by row: the implementation that known mistakes are planted in",
    },
    Listed { name: "cuda", about: "the CUDA kernels, the fastest rung for each problem" },
    Listed { name: "cuda:plain", about: "the CUDA kernels, plain rung: f32 arithmetic, any size" },
    Listed { name: "cuda:tensor", about: "the CUDA kernels, tensor rung: 16-bit mma" },
    Listed {
        name: "cuda:far-strides",
        about: "the same, each tensor in turn spread over 2^32 elements; cuda:plain:far-strides and cuda:tensor:far-strides too",
    },
];

/// The candidate of this name.
///
/// # Errors
/// Why it does not exist here.
pub fn make(name: &CandidateName) -> Result<Box<dyn Candidate>, Unavailable> {
    Ok(match name {
        CandidateName::Oracle => Box::new(Oracle),
        CandidateName::RegularAttend => Box::new(RegularAttend),
        CandidateName::Tiled => Box::new(Tiled),
        CandidateName::Rowwise => Box::new(Rowwise::new()),
        CandidateName::Mutated { mutant } => rowwise_with(mutant)
            .ok_or_else(|| Unavailable(format!("no mistake is called `{mutant}`; `nsa-diff detect` lists them")))?,
        CandidateName::Cuda { rung, far: false } => Box::new(Cuda::new(*rung, None, WORKERS)?),
        CandidateName::Cuda { rung, far: true } => Box::new(Cuda::far(*rung, None)?),
        CandidateName::Guest(_) => Box::new(GuestCandidate::start(&name.to_string(), Limits::from_environment()?)?),
    })
}

/// The name that `text` spells.
///
/// # Errors
/// No candidate has it: those that there are are listed.
pub fn name(text: &str) -> Result<CandidateName, Unavailable> {
    text.parse().map_err(|error| match error {
        NameError::Unknown(_) => {
            let names: Vec<&str> = LISTED.iter().map(|listed| listed.name).collect();
            Unavailable(format!("{error}; there are {} and guest:PROGRAM", names.join(", ")))
        }
        NameError::Rung { .. } => Unavailable(error.to_string()),
    })
}

/// The candidate that is called this.
///
/// # Errors
/// No candidate has the name (the names are listed), or it does not exist here (the reason is given).
pub fn by_name(text: &str) -> Result<Box<dyn Candidate>, Unavailable> {
    make(&name(text)?).map_err(|reason| Unavailable(format!("candidate `{text}` is not available: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_one_and_prints_as_it_is_listed() {
        for listed in &LISTED {
            let name: CandidateName = listed.name.parse().expect("a name");
            assert_eq!(name.to_string(), listed.name);
            if let Ok(candidate) = listed.make() {
                assert_eq!(candidate.name(), listed.name);
            }
        }
    }

    #[test]
    fn a_name_that_none_has_is_answered_with_those_there_are() {
        let refused = |text: &str| by_name(text).err().expect("refused").to_string();
        assert!(refused("tilde").starts_with("no candidate is called `tilde`; there are oracle, regular_attend, "));
        assert!(refused("rowwise+none").contains("no mistake is called `none`"));
        assert!(refused("cuda:fast").contains("fast"));
    }
}
