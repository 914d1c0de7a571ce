//! The names of candidates, read once: what a name means is asked of its variant, never of its letters.

use std::fmt;
use std::str::FromStr;

use nsa_gpu::Rung;

/// What `--candidate` names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CandidateName {
    /// `oracle`: the f64 oracle itself.
    Oracle,
    /// `regular_attend`: the transcription of the PyTorch function.
    RegularAttend,
    /// `tiled`: online softmax by tiles.
    Tiled,
    /// `rowwise`: the CPU implementation that mutants are planted in.
    Rowwise,
    /// `rowwise+MUTANT`: the same with a mutant in it, or round it.
    Mutated {
        /// The mutant's name in the catalogue.
        mutant: String,
    },
    /// `cuda`, `cuda:RUNG`, each perhaps with `:far-strides` behind it.
    Cuda {
        /// `None`: the fastest rung for each problem.
        rung: Option<Rung>,
        /// Whether each tensor in turn is set 2^32 elements apart.
        far: bool,
    },
    /// `guest:PROGRAM [ARGUMENT…]`, without the prefix.
    Guest(String),
}

/// Why a text names no candidate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No candidate is called so.
    #[error("no candidate is called `{0}`")]
    Unknown(String),
    /// It begins as a rung of the kernels does, and there is no such rung.
    #[error("candidate `{name}` is not available: {reason}")]
    Rung {
        /// The text.
        name: String,
        /// Which rungs there are.
        reason: String,
    },
}

impl FromStr for CandidateName {
    type Err = NameError;

    /// Spellings of before are read too: `plain` for `rowwise`, `apart` for `far-strides`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(program) = text.strip_prefix("guest:") {
            return Ok(CandidateName::Guest(program.to_owned()));
        }
        if let Some(("rowwise" | "plain", mutant)) = text.split_once('+') {
            return Ok(CandidateName::Mutated { mutant: mutant.to_owned() });
        }
        let mut parts = text.split(':');
        match parts.next() {
            Some("cuda") => cuda(&parts.collect::<Vec<_>>())
                .map_err(|error| NameError::Rung { name: text.to_owned(), reason: error.to_string() }),
            _ => match text {
                "oracle" => Ok(CandidateName::Oracle),
                "regular_attend" => Ok(CandidateName::RegularAttend),
                "tiled" => Ok(CandidateName::Tiled),
                "rowwise" | "plain" => Ok(CandidateName::Rowwise),
                _ => Err(NameError::Unknown(text.to_owned())),
            },
        }
    }
}

/// `cuda`, followed by these.
fn cuda(parts: &[&str]) -> Result<CandidateName, nsa_gpu::Error> {
    let (far, rungs) = match parts.split_last() {
        Some((&("far-strides" | "apart"), rungs)) => (true, rungs),
        _ => (false, parts),
    };
    let rung = match rungs {
        [] => None,
        // Whatever stands there is refused as a rung, whole.
        names => Some(names.join(":").parse()?),
    };
    Ok(CandidateName::Cuda { rung, far })
}

impl fmt::Display for CandidateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CandidateName::Oracle => f.write_str("oracle"),
            CandidateName::RegularAttend => f.write_str("regular_attend"),
            CandidateName::Tiled => f.write_str("tiled"),
            CandidateName::Rowwise => f.write_str("rowwise"),
            CandidateName::Mutated { mutant } => write!(f, "rowwise+{mutant}"),
            CandidateName::Cuda { rung, far } => {
                let rung = rung.map(|rung| format!(":{rung}")).unwrap_or_default();
                write!(f, "cuda{rung}{}", if *far { ":far-strides" } else { "" })
            }
            CandidateName::Guest(program) => write!(f, "guest:{program}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> CandidateName {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_name_is_read_as_it_is_printed_and_as_it_was_spelt_before() {
        for text in [
            "oracle",
            "regular_attend",
            "tiled",
            "rowwise",
            "rowwise+x",
            "cuda",
            "cuda:plain",
            "cuda:tensor:far-strides",
        ] {
            assert_eq!(read(text).to_string(), text);
        }
        assert_eq!(read("guest:a.py --cuda: +"), CandidateName::Guest("a.py --cuda: +".to_owned()));
        assert_eq!(read("plain"), CandidateName::Rowwise);
        assert_eq!(read("plain+x"), CandidateName::Mutated { mutant: "x".to_owned() });
        assert_eq!(read("cuda:plain:apart"), CandidateName::Cuda { rung: Some(Rung::Plain), far: true });
        assert_eq!(read("cuda:far-strides"), CandidateName::Cuda { rung: None, far: true });
    }

    #[test]
    fn what_only_begins_like_a_name_is_none() {
        for text in
            ["", "cudaX", "cuda:", "cuda:fast", "cuda:far-strides:plain", "tiled+x", "rowwise:far-strides", "Oracle"]
        {
            assert!(text.parse::<CandidateName>().is_err(), "{text}");
        }
    }
}
