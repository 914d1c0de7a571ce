//! The oracle as a candidate: what it answers is judged like any other answer, by budgets of f64 arithmetic.

use nsa_corpus::{Arithmetic, Dot, Dtype, Inputs, Outputs};

use super::{Candidate, CandidateError, Declaration, Unsupported};

/// The oracle, judged as a candidate.
pub struct Oracle;

impl Candidate for Oracle {
    fn name(&self) -> &str {
        "oracle"
    }

    /// Separate multiplications and additions round twice where a fused one rounds once: twice the unit features both.
    fn declaration(&self, _inputs: &Inputs) -> Declaration {
        let unit = 2.0 * Dtype::F64.unit_roundoff();
        let dot = Dot::Fma { unit };
        Declaration::strict(Arithmetic { unit, scores: dot, products: dot, ..Arithmetic::f64() })
    }

    fn supports(&self, _inputs: &Inputs) -> Result<(), Unsupported> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
        Ok(nsa_reference::oracle::attend(inputs))
    }
}
