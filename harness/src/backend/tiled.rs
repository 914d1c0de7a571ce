//! The tiled CPU candidate.

use nsa_corpus::{Arithmetic, Element, Inputs, Outputs};
use nsa_reference::tiled;

use super::{Backend, BackendError, Unsupported};

pub(super) struct Tiled;

impl Backend for Tiled {
    fn name(&self) -> &str {
        "tiled"
    }

    fn arithmetic(&self, element: Element) -> Arithmetic {
        tiled::arithmetic(element)
    }

    fn supports(&self, _inputs: &Inputs) -> Result<(), Unsupported> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, BackendError> {
        Ok(tiled::attend(inputs))
    }
}
