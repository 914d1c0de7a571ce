//! Backends with a defect in them.

use std::sync::atomic::{AtomicUsize, Ordering};

use nsa_corpus::{Arithmetic, Inputs, Outputs};
use nsa_reference::plain::{self, Fault};

use super::{Carrier, Defect};
use crate::backend::{Backend, BackendError, Unsupported};

/// The plain implementation, with at most one fault.
pub struct Plain {
    fault: Option<Fault>,
}

impl Plain {
    /// The plain implementation with `fault`, or without any.
    pub fn new(fault: Option<Fault>) -> Self {
        Plain { fault }
    }
}

impl Backend for Plain {
    fn name(&self) -> &str {
        "plain"
    }

    fn arithmetic(&self, inputs: &Inputs) -> Arithmetic {
        plain::arithmetic(inputs.element())
    }

    fn reads_only_what_it_attends_to(&self, _inputs: &Inputs) -> bool {
        true
    }

    fn supports(&self, _inputs: &Inputs) -> Result<(), Unsupported> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, BackendError> {
        Ok(plain::attend(inputs, self.fault.as_ref()))
    }
}

/// A backend of which what goes in, or comes out, is changed.
struct Decorated<'a> {
    inner: &'a dyn Backend,
    carrier: &'a Carrier,
    runs: AtomicUsize,
}

impl Backend for Decorated<'_> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn arithmetic(&self, inputs: &Inputs) -> Arithmetic {
        self.inner.arithmetic(inputs)
    }

    fn reads_only_what_it_attends_to(&self, inputs: &Inputs) -> bool {
        self.inner.reads_only_what_it_attends_to(inputs)
    }

    fn supports(&self, inputs: &Inputs) -> Result<(), Unsupported> {
        self.inner.supports(inputs)
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, BackendError> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        match self.carrier {
            Carrier::Inputs { change } => {
                let changed = change.apply(inputs).map_err(|error| BackendError::Broken(error.to_string()))?;
                self.inner.run(&changed)
            }
            Carrier::Outputs { change } => {
                let mut outputs = self.inner.run(inputs)?;
                change.apply(inputs, &mut outputs, run);
                Ok(outputs)
            }
            Carrier::Plain { .. } => self.inner.run(inputs),
        }
    }
}

/// A backend with `defect`: the plain implementation with its fault, or `inner` decorated.
pub fn planted<'a>(defect: &'a Defect, inner: &'a dyn Backend) -> Box<dyn Backend + 'a> {
    match &defect.plant {
        Carrier::Plain { fault } => Box::new(Plain::new(Some(fault.clone()))),
        carrier => Box::new(Decorated { inner, carrier, runs: AtomicUsize::new(0) }),
    }
}
