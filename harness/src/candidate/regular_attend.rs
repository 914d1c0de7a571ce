//! The transcription of the PyTorch function as a candidate.

use nsa_corpus::{Arithmetic, Delta, Dtype, Inputs, Outputs};
use nsa_reference::regular_attend::attend;

use super::{Candidate, CandidateError, Declaration, Unsupported};

/// Gathered copies of keys, values and their gradients, in bytes, beyond which a problem is left to other candidates.
const BYTES_MAX: usize = 512 << 20;

/// The transcription of the PyTorch function.
pub struct RegularAttend;

impl Candidate for RegularAttend {
    fn name(&self) -> &str {
        "regular_attend"
    }

    /// f32 or f64 throughout; it differentiates its softmax, so its `delta` is `sum P dP`. Masked keys have weights of 0 in it.
    fn declaration(&self, inputs: &Inputs) -> Declaration {
        let plain = if inputs.dtype() == Dtype::F64 { Arithmetic::f64() } else { Arithmetic::f32() };
        let arithmetic = Arithmetic { delta: Delta::Probabilities, ..plain };
        Declaration { reads_only_what_it_attends_to: false, ..Declaration::strict(arithmetic) }
    }

    fn supports(&self, inputs: &Inputs) -> Result<(), Unsupported> {
        let shape = inputs.shape();
        let keys = shape.block_size() * (shape.num_sel() + 1);
        let rows = shape.batch() * shape.sel_heads() * shape.padded_len();
        let bytes = 6 * size_of::<f64>() * rows * keys * shape.dim().max(shape.value_dim());
        if bytes > BYTES_MAX {
            let message = format!("its gathered copies would take {} MiB, over {} MiB", bytes >> 20, BYTES_MAX >> 20);
            return Err(Unsupported(message));
        }
        Ok(())
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
        Ok(if inputs.dtype() == Dtype::F64 { attend::<f64>(inputs) } else { attend::<f32>(inputs) })
    }
}
