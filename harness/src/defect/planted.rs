//! Backends with a defect in them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use nsa_corpus::{Inputs, Outputs};
use nsa_reference::plain::{self, Fault};

use super::{Carrier, Defect, defects};
use crate::backend::{Backend, BackendError, Declaration, Unsupported};

/// The plain implementation, with at most one fault.
pub struct Plain {
    name: String,
    fault: Option<Fault>,
}

impl Plain {
    /// Without any fault.
    pub fn new() -> Self {
        Plain { name: "plain".to_owned(), fault: None }
    }
}

impl Default for Plain {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for Plain {
    fn name(&self) -> &str {
        &self.name
    }

    fn declaration(&self, inputs: &Inputs) -> Declaration {
        Declaration::strict(plain::arithmetic(inputs.element()))
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
    name: String,
    inner: &'a dyn Backend,
    carrier: &'a Carrier,
    runs: AtomicUsize,
}

impl Backend for Decorated<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn declaration(&self, inputs: &Inputs) -> Declaration {
        self.inner.declaration(inputs)
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
            Carrier::Ends { when } if when.holds(inputs, run) => {
                Err(BackendError::Crash("illegal memory access".to_owned()))
            }
            Carrier::Ends { .. } | Carrier::Plain { .. } => self.inner.run(inputs),
        }
    }
}

/// A backend with `defect`: the plain implementation with its fault, or `inner` decorated.
pub fn planted<'a>(defect: &'a Defect, inner: &'a dyn Backend) -> Box<dyn Backend + 'a> {
    let name = format!("{}+{}", inner.name(), defect.name);
    match &defect.plant {
        Carrier::Plain { fault } => Box::new(Plain { name, fault: Some(fault.clone()) }),
        carrier => Box::new(Decorated { name, inner, carrier, runs: AtomicUsize::new(0) }),
    }
}

/// The plain implementation with the defect of this name in it, or round it.
pub fn plain_with(name: &str) -> Option<Box<dyn Backend>> {
    static PLAIN: LazyLock<Plain> = LazyLock::new(Plain::new);
    let defect = defects().iter().find(|defect| defect.name == name)?;
    Some(planted(defect, &*PLAIN))
}
