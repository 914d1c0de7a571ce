//! The tiled CPU candidate.

use nsa_corpus::{Inputs, Outputs};
use nsa_reference::tiled;

use super::{Backend, BackendError, Declaration, Unsupported};

pub(super) struct Tiled;

impl Backend for Tiled {
    fn name(&self) -> &str {
        "tiled"
    }

    fn declaration(&self, inputs: &Inputs) -> Declaration {
        Declaration::strict(tiled::arithmetic(inputs.element()))
    }

    fn supports(&self, _inputs: &Inputs) -> Result<(), Unsupported> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, BackendError> {
        Ok(tiled::attend(inputs))
    }
}
