//! The candidate of the tests: it answers, declares and supports what a test says.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::atomic::{AtomicUsize, Ordering};

use nsa_corpus::{Inputs, Outputs};
use nsa_harness::candidate::{Candidate, CandidateError, Declaration, Unsupported};
use nsa_reference::tiled;

pub(crate) type Answer = Result<Outputs, CandidateError>;

/// Answers what `answer` makes of the inputs and of the number of the run.
pub(crate) struct Scripted<F> {
    pub(crate) name: &'static str,
    pub(crate) declared: fn(&Inputs) -> Declaration,
    pub(crate) supported: fn(&Inputs) -> Result<(), Unsupported>,
    pub(crate) answer: F,
    pub(crate) runs: AtomicUsize,
}

/// Declares what the tiled candidate does, and supports everything.
pub(crate) fn scripted<F: Fn(&Inputs, usize) -> Answer + Send + Sync>(answer: F) -> Scripted<F> {
    let declared = |inputs: &Inputs| Declaration::strict(tiled::arithmetic(inputs.dtype()));
    Scripted { name: "scripted", declared, supported: |_| Ok(()), answer, runs: AtomicUsize::new(0) }
}

/// The tiled candidate with a change to its answer, which may depend on the inputs and on the number of the run.
pub(crate) fn changed(
    change: impl Fn(&Inputs, usize, &mut Outputs) + Send + Sync,
) -> Scripted<impl Fn(&Inputs, usize) -> Answer + Send + Sync> {
    scripted(move |inputs: &Inputs, run| {
        let mut outputs = tiled::attend(inputs);
        change(inputs, run, &mut outputs);
        Ok(outputs)
    })
}

impl<F: Fn(&Inputs, usize) -> Answer + Send + Sync> Candidate for Scripted<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn declaration(&self, inputs: &Inputs) -> Declaration {
        (self.declared)(inputs)
    }

    fn supports(&self, inputs: &Inputs) -> Result<(), Unsupported> {
        (self.supported)(inputs)
    }

    fn run(&self, inputs: &Inputs) -> Answer {
        (self.answer)(inputs, self.runs.fetch_add(1, Ordering::SeqCst))
    }
}
