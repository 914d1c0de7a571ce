//! The CUDA kernels as a candidate, in a child process: a crash, a hang or a CUDA error that poisons its context is a
//! verdict on one case, and the rest goes on in a fresh process.

pub mod worker;
mod workers;

use std::ffi::OsString;
use std::time::Duration;

use nsa_corpus::{Dtype, Inputs, Outputs};
use nsa_gpu::{Rung, Variant};

use super::{Candidate, CandidateError, CandidateName, Declaration, Unavailable, Unsupported};
use workers::Workers;

/// How long one case may take, compiling its kernels included.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// The same with a fault planted, which may make a kernel loop for ever.
const MUTANT_TIME_LIMIT: Duration = Duration::from_secs(30);

/// Processes for each GPU: most of a small case's time is compiling, which several do at once.
pub const WORKERS: usize = 8;

/// The kernels, on every GPU of the machine.
pub struct Cuda {
    name: String,
    rung: Option<Rung>,
    /// Of every GPU, as any of them may answer; `"unknown"`, of which the least is known, where they differ.
    arch: String,
    workers: Workers,
}

impl Cuda {
    /// The kernels of `rung` (`None`: the fastest that supports each pass), with the fault `mutant` planted in them, on
    /// `workers` processes for each GPU.
    ///
    /// # Errors
    /// There is no GPU, no driver or no compiler library here.
    pub fn new(rung: Option<Rung>, mutant: Option<&str>, workers: usize) -> Result<Self, Unavailable> {
        let time_limit = if mutant.is_some() { MUTANT_TIME_LIMIT } else { TIME_LIMIT };
        Self::start(rung, mutant, false, workers, time_limit)
    }

    /// The same, each tensor in turn set more than 2^32 elements apart along each of its axes, and each part of the workspace: every
    /// bit of the answer must be what it is where tensors are dense. Takes tens of GiB of device memory, so one process for each GPU.
    ///
    /// # Errors
    /// As [`Cuda::new`].
    pub fn far(rung: Option<Rung>, mutant: Option<&str>) -> Result<Self, Unavailable> {
        Self::start(rung, mutant, true, 1, TIME_LIMIT)
    }

    fn start(
        rung: Option<Rung>,
        mutant: Option<&str>,
        far: bool,
        workers: usize,
        time_limit: Duration,
    ) -> Result<Self, Unavailable> {
        nsa_gpu::availability().map_err(|reason| Unavailable(reason.to_string()))?;
        let program =
            std::env::current_exe().map_err(|error| Unavailable(format!("this program's own path: {error}")))?;
        let mut words: Vec<OsString> = vec![program.into(), "cuda-worker".into()];
        let mut name = CandidateName::Cuda { rung, far }.to_string();
        words.extend(rung.iter().flat_map(|rung| ["--rung".into(), rung.to_string().into()]));
        words.extend(far.then(|| "--far-strides".into()));
        if let Some(mutant) = mutant {
            name = format!("{name}+{mutant}");
            words.extend(["--mutant".into(), mutant.into()]);
        }
        let mut architectures = nsa_gpu::architectures();
        let workers = Workers::new(words, architectures.len(), workers, time_limit);
        architectures.dedup();
        let arch = if let [arch] = architectures.as_slice() { arch.clone() } else { "unknown".to_owned() };
        Ok(Cuda { name, rung, arch, workers })
    }

    fn variant(&self, inputs: &Inputs) -> Variant {
        let fastest = || Variant::choose(inputs.shape(), inputs.dtype(), &self.arch);
        self.rung.map_or_else(fastest, Variant::uniform)
    }
}

/// What the kernels of `variant` declare on a device of this architecture.
pub(crate) fn declaration(variant: Variant, inputs: &Inputs, arch: &str) -> Declaration {
    let arithmetic = variant.arithmetic(inputs.shape(), inputs.dtype(), arch);
    let reads_only_what_it_attends_to = variant == Variant::uniform(Rung::Plain);
    Declaration { reads_only_what_it_attends_to, ..Declaration::strict(arithmetic) }
}

impl Candidate for Cuda {
    fn name(&self) -> &str {
        &self.name
    }

    fn declaration(&self, inputs: &Inputs) -> Declaration {
        declaration(self.variant(inputs), inputs, &self.arch)
    }

    fn supports(&self, inputs: &Inputs) -> Result<(), Unsupported> {
        if inputs.dtype() == Dtype::F64 {
            return Err(Unsupported("f64: the kernels take f32, f16 and bf16".to_owned()));
        }
        let variant = self.variant(inputs);
        variant.supports(inputs.shape(), inputs.dtype(), &self.arch).map_err(|error| Unsupported(error.to_string()))
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
        self.workers.run(inputs)
    }
}
