//! The CPU implementation that computes one row at a time, with at most one mutation in it.

use nsa_corpus::{Inputs, Outputs};
use nsa_reference::rowwise::{self, Mutation};

use super::{Candidate, CandidateError, Declaration, Unsupported};

/// The implementation that mutants are planted in.
pub struct Rowwise {
    name: String,
    mutation: Option<Mutation>,
}

impl Rowwise {
    /// Without any mutation.
    pub fn new() -> Self {
        Rowwise { name: "rowwise".to_owned(), mutation: None }
    }

    /// With this mutation in it, under a name of its own.
    pub fn mutated(name: String, mutation: Mutation) -> Self {
        Rowwise { name, mutation: Some(mutation) }
    }
}

impl Default for Rowwise {
    fn default() -> Self {
        Self::new()
    }
}

impl Candidate for Rowwise {
    fn name(&self) -> &str {
        &self.name
    }

    fn declaration(&self, inputs: &Inputs) -> Declaration {
        Declaration::strict(rowwise::arithmetic(inputs.dtype()))
    }

    fn supports(&self, _inputs: &Inputs) -> Result<(), Unsupported> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
        Ok(rowwise::attend(inputs, self.mutation.as_ref()))
    }
}
