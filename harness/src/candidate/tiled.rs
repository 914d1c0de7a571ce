//! The tiled CPU candidate.

use nsa_corpus::{Inputs, Outputs};
use nsa_reference::tiled;

use super::{Candidate, CandidateError, Declaration, Unsupported};

/// Online softmax by tiles.
pub struct Tiled;

impl Candidate for Tiled {
    fn name(&self) -> &str {
        "tiled"
    }

    fn declaration(&self, inputs: &Inputs) -> Declaration {
        Declaration::strict(tiled::arithmetic(inputs.dtype()))
    }

    fn supports(&self, _inputs: &Inputs) -> Result<(), Unsupported> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
        Ok(tiled::attend(inputs))
    }
}
