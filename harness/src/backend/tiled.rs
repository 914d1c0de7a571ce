//! The tiled CPU candidate.

use nsa_corpus::{Arithmetic, Inputs, Outputs};
use nsa_reference::tiled;

use super::{Backend, BackendError, Unsupported};

pub(super) struct Tiled;

impl Backend for Tiled {
    fn name(&self) -> &str {
        "tiled"
    }

    fn arithmetic(&self, inputs: &Inputs) -> Arithmetic {
        tiled::arithmetic(inputs.element())
    }

    fn reads_only_what_it_attends_to(&self, _inputs: &Inputs) -> bool {
        true
    }

    fn supports(&self, _inputs: &Inputs) -> Result<(), Unsupported> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, BackendError> {
        Ok(tiled::attend(inputs))
    }
}
