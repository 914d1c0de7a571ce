//! Candidates with a mutant in them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use nsa_corpus::{Inputs, Outputs};

use super::{Carrier, Mutant, mutants};
use crate::candidate::{Candidate, CandidateError, Cause, Declaration, Rowwise, Unsupported};

/// A candidate of which what goes in, or comes out, is changed.
struct Decorated<'a> {
    name: String,
    inner: &'a dyn Candidate,
    carrier: &'a Carrier,
    runs: AtomicUsize,
}

impl Candidate for Decorated<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn declaration(&self, inputs: &Inputs) -> Declaration {
        self.inner.declaration(inputs)
    }

    fn supports(&self, inputs: &Inputs) -> Result<(), Unsupported> {
        self.inner.supports(inputs)
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        match self.carrier {
            Carrier::Inputs { change } => {
                let changed = change.apply(inputs).map_err(|error| CandidateError::Broken(error.to_string()))?;
                self.inner.run(&changed)
            }
            Carrier::Outputs { change } => {
                let mut outputs = self.inner.run(inputs)?;
                change.apply(inputs, &mut outputs, run);
                Ok(outputs)
            }
            Carrier::Ends { when } if when.holds(inputs, run) => {
                Err(CandidateError::Crash(Cause::named("illegal memory access"), "illegal memory access".to_owned()))
            }
            Carrier::Ends { .. } | Carrier::Rowwise { .. } => self.inner.run(inputs),
        }
    }
}

/// A candidate with `mutant`: the rowwise implementation with its fault, or `inner` decorated.
pub fn mutated<'a>(mutant: &'a Mutant, inner: &'a dyn Candidate) -> Box<dyn Candidate + 'a> {
    let name = format!("{}+{}", inner.name(), mutant.name);
    match &mutant.plant {
        Carrier::Rowwise { mutation } => Box::new(Rowwise::mutated(name, mutation.clone())),
        carrier => Box::new(Decorated { name, inner, carrier, runs: AtomicUsize::new(0) }),
    }
}

/// The rowwise implementation with the mutant of this name in it, or round it.
pub fn rowwise_with(name: &str) -> Option<Box<dyn Candidate>> {
    static ROWWISE: LazyLock<Rowwise> = LazyLock::new(Rowwise::new);
    let mutant = mutants().iter().find(|mutant| mutant.name == name)?;
    Some(mutated(mutant, &*ROWWISE))
}
