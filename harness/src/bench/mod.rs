//! How long a candidate takes on named shapes, and whether what was timed is right.

mod shapes;

use std::time::Instant;

use nsa_corpus::{Cotangents, Dtype, Error, Inputs, Limit, Outputs};
use nsa_gpu::{Device, Options, Rung, Safety, Variant};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidate::{CandidateError, CandidateName, Unavailable};
use crate::judge::sample::judge_sample;
use crate::judge::verdict::Verdict;
use crate::registry::{self, by_name};

pub use shapes::{NAMES, UnknownShape, flops, shape};

/// What is timed, and how often.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The candidate's name.
    pub candidate: String,
    /// The dtype of the inputs.
    pub dtype: Dtype,
    /// Timed calls of each kind.
    pub repetitions: u32,
    /// Whether what was timed is judged too.
    pub judged: bool,
}

/// One named shape, timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timed {
    /// The shape's name.
    pub shape: String,
    /// The dtype of the inputs.
    pub dtype: Dtype,
    /// Timed calls of each kind.
    pub repetitions: u32,
    /// The forward alone.
    pub forward: Speed,
    /// Forward and backward.
    pub both: Speed,
    /// What the judgement of the answer says; nothing where it was left out.
    pub checked: Option<Checked>,
}

/// How fast one kind of call is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Speed {
    /// Milliseconds of the median call.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub ms: f64,
    /// Milliseconds of the fastest call.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub ms_min: f64,
    /// Useful floating-point operations in the median call's time, in 10^12 a second.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub tflops: f64,
}

/// The judgement of an answer that was timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// The outcome.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Which part of the answer was judged.
    pub what: String,
}

/// Why a shape was not timed.
#[derive(Debug, thiserror::Error)]
pub enum Untimed {
    /// No shape has this name.
    #[error("{0}")]
    Shape(#[from] UnknownShape),
    /// The shape has no inputs.
    #[error("{0}")]
    Case(#[from] Error),
    /// The candidate is not to be had.
    #[error("{0}")]
    Unavailable(#[from] Unavailable),
    /// The candidate gave no answer.
    #[error("{0}")]
    Unanswered(#[from] CandidateError),
    /// The GPU, or what it takes to use it, is missing or fails.
    #[error("{0}")]
    Gpu(String),
}

/// Milliseconds of the median and the fastest call, for the forward and for both passes, and the last answer.
struct Times {
    forward: [f64; 2],
    both: [f64; 2],
    outputs: Outputs,
}

impl Timed {
    /// Whether what was timed is wrong.
    pub fn fails(&self) -> bool {
        self.checked.as_ref().is_some_and(|checked| checked.verdict.failure().is_some())
    }
}

impl Bench {
    /// Times the shape called `name`.
    ///
    /// # Errors
    /// See [`Untimed`].
    pub fn time(&self, name: &str) -> Result<Timed, Untimed> {
        // D has tensors of 2^29 elements.
        let inputs = shape(name)?.materialize_up_to(self.dtype, Limit::LARGE)?;
        let times = match self.rung()? {
            Some(rung) => self.gpu_times(rung, &inputs)?,
            None => self.cpu_times(&inputs)?,
        };
        let flops = flops(&inputs);
        let speed = |[ms, ms_min]: [f64; 2], flops: f64| Speed { ms, ms_min, tflops: flops / ms / 1e9 };
        Ok(Timed {
            shape: name.to_owned(),
            dtype: self.dtype,
            repetitions: self.repetitions,
            forward: speed(times.forward, flops[0]),
            both: speed(times.both, flops[1]),
            checked: if self.judged { Some(self.check(&inputs, &times.outputs)?) } else { None },
        })
    }

    /// The name of the GPU that the candidate runs on, where it runs on one.
    pub fn device(&self) -> Option<String> {
        self.rung().ok().flatten().and_then(|_| nsa_gpu::availability().ok()).map(|info| info.name)
    }

    /// The rung that a candidate of CUDA kernels names: `Some(None)` is the fastest for each pass. `None`: another candidate.
    fn rung(&self) -> Result<Option<Option<Rung>>, Untimed> {
        match registry::name(&self.candidate)? {
            CandidateName::Cuda { rung, far: false } => Ok(Some(rung)),
            CandidateName::Cuda { far: true, .. } => {
                Err(Untimed::Gpu(format!("`{}` only checks: its kernels are not the ones to time", self.candidate)))
            }
            _ => Ok(None),
        }
    }

    fn check(&self, inputs: &Inputs, outputs: &Outputs) -> Result<Checked, Untimed> {
        let arithmetic = by_name(&self.candidate)?.declaration(inputs).arithmetic;
        let judged = judge_sample(inputs, &arithmetic, outputs);
        Ok(Checked { verdict: judged.verdict, what: judged.what })
    }

    fn gpu_times(&self, rung: Option<Rung>, inputs: &Inputs) -> Result<Times, Untimed> {
        let refused = |error: nsa_gpu::Error| Untimed::Gpu(error.to_string());
        nsa_gpu::availability().map_err(|reason| Untimed::Gpu(reason.to_string()))?;
        let device = Device::open(0).map_err(refused)?;
        let options = Options { variant: rung.map(Variant::uniform), safety: Safety::NONE, ..Options::default() };
        let measured = nsa_gpu::bench(&device, inputs, &options, self.repetitions as usize).map_err(refused)?;
        let pair = |timing: nsa_gpu::Timing| [f64::from(timing.median), f64::from(timing.min)];
        let both = measured.forward_and_backward.map_or([f64::NAN; 2], pair);
        Ok(Times { forward: pair(measured.forward), both, outputs: measured.outputs })
    }

    fn cpu_times(&self, inputs: &Inputs) -> Result<Times, Untimed> {
        let candidate = by_name(&self.candidate)?;
        let mut forward_only = inputs.clone().into_parts();
        forward_only.cotangents = Cotangents::default();
        let forward_only = Inputs::new(forward_only)?;
        let time = |inputs: &Inputs| {
            let mut outputs = Outputs::new();
            let mut times = Vec::new();
            for _ in 0..self.repetitions {
                let start = Instant::now();
                outputs = candidate.run(inputs)?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
            times.sort_by(f64::total_cmp);
            Ok::<_, Untimed>(([times[times.len() / 2], times[0]], outputs))
        };
        let (forward, _) = time(&forward_only)?;
        let (both, outputs) = time(inputs)?;
        Ok(Times { forward, both, outputs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(candidate: &str) -> Bench {
        Bench { candidate: candidate.to_owned(), dtype: Dtype::F32, repetitions: 1, judged: true }
    }

    #[test]
    fn only_the_cuda_kernels_are_timed_on_a_gpu() {
        let rung = |name: &str| bench(name).rung().ok();
        assert_eq!(rung("cuda"), Some(Some(None)));
        assert_eq!(rung("cuda:tensor"), Some(Some(Some(Rung::Tensor))));
        assert_eq!(
            [rung("cuda:none"), rung("cudalike"), rung("guest:cuda"), rung("tiled")],
            [None, Some(None), Some(None), Some(None)]
        );
    }

    #[test]
    fn an_answer_that_was_timed_is_judged_by_its_own_arithmetic() {
        let inputs = nsa_corpus::entries()
            .iter()
            .find(|entry| entry.name == "edges/seq_1")
            .and_then(|entry| entry.case.materialize(Dtype::F32).ok())
            .unwrap();
        for (name, fails) in [("tiled", false), ("rowwise+dv_gain_of_1_percent", true)] {
            let bench = bench(name);
            let times = bench.cpu_times(&inputs).unwrap();
            assert!(times.forward[0] >= times.forward[1] && times.both[1] > 0.0);
            let checked = bench.check(&inputs, &times.outputs).unwrap();
            assert_eq!(checked.verdict.failure().is_some(), fails, "{name}: {checked:?}");
        }
    }
}
