//! The command line: one file for each subcommand.

mod backends;
mod bench;
mod calibrate;
mod compute;
mod confirm;
mod detect;
mod fuzz;
mod fuzz_failures;
mod golden;
mod gradcheck;
mod large;
mod matrix;
mod matrix_report;
mod oracle;
mod output;
mod record;
mod replay;
mod run;
mod select;
mod self_test;
mod shapes;
mod show;
mod shrink;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::backend::Unavailable;
use crate::backend::cuda::worker;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything passed.
    Passed,
    /// Something failed.
    Failed,
    /// Ctrl-C: what was done until then has been reported.
    Interrupted,
}

/// Why a command could not do its work: bad usage, a bad file, a missing backend. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Refusal {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Refusal(message.into())
    }
}

impl From<nsa_corpus::Error> for Refusal {
    fn from(error: nsa_corpus::Error) -> Self {
        Refusal(error.to_string())
    }
}

impl From<Unavailable> for Refusal {
    fn from(reason: Unavailable) -> Self {
        Refusal(reason.to_string())
    }
}

#[derive(Parser)]
#[command(name = "nsa-diff", version, about = "Differential testing of sparse-attention kernels against an f64 oracle", after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 everything passed, 1 a failure, 2 usage or environment, 130 interrupted.

Examples:
  nsa-diff run                          the whole corpus on the tiled CPU candidate
  nsa-diff run 'edges/*' --element bf16 some of it, in one format
  nsa-diff fuzz --seed 1 --time 5m      generated cases, failures minimised and stored
  nsa-diff oracle in.safetensors out.safetensors
                                        the oracle's answers, for a program in any language";

#[derive(Subcommand)]
enum Command {
    /// Runs named cases of the corpus and judges every element of every output and gradient
    Run(run::Args),
    /// Runs generated cases; minimises and stores what fails
    Fuzz(fuzz::Args),
    /// Judges stored failures again, or runs them on a backend
    Replay(replay::Args),
    /// Judges stored failures again beside witnesses that compute the same
    Confirm(confirm::Args),
    /// Runs the corpus on several implementations and says where they disagree and who is wrong
    Matrix(matrix::Args),
    /// Minimises a stored failure
    Shrink(shrink::Args),
    /// Prints a case: why it exists, its options, the digest of its inputs, what it covers
    Show(show::Args),
    /// Lists the backends, and why those that are not available here are not
    Backends(backends::Args),
    /// Checks gradients by central differences that know their own error
    Gradcheck(gradcheck::Args),
    /// Compares a backend with answers that PyTorch gave
    Golden(golden::Args),
    /// Computes the oracle's answers for a file of inputs
    Oracle(oracle::Args),
    /// Plants faults and reports which are noticed
    Detect(detect::Args),
    /// Measures how a backend's dot products round, and holds it to what it declares of them
    Calibrate(calibrate::Args),
    /// Times a backend on named shapes, and judges what was timed
    Bench(bench::Args),
    /// Computes entries with the CUDA kernels in this process, for compute-sanitizer
    Compute(compute::Args),
    /// Tries on a GPU what only a GPU can show: that the checks of the CUDA kernels see what they are there to see
    SelfTest(self_test::Args),
    /// Records what the CUDA kernels answer, to be judged again without a GPU
    Record(record::Args),
    /// Serves one GPU to the harness; not for use by hand
    #[command(hide = true)]
    CudaWorker(worker::Args),
}

/// Parses the command line, runs the command, reports a refusal in one line.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run::main(&args),
        Command::Fuzz(args) => fuzz::main(&args),
        Command::Replay(args) => replay::main(&args),
        Command::Confirm(args) => confirm::main(&args),
        Command::Matrix(args) => matrix::main(&args),
        Command::Shrink(args) => shrink::main(&args),
        Command::Show(args) => show::main(&args),
        Command::Backends(args) => backends::main(&args),
        Command::Gradcheck(args) => gradcheck::main(&args),
        Command::Golden(args) => golden::main(&args),
        Command::Oracle(args) => oracle::main(&args),
        Command::Detect(args) => detect::main(&args),
        Command::Calibrate(args) => calibrate::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Compute(args) => compute::main(&args),
        Command::SelfTest(args) => self_test::main(&args),
        Command::Record(args) => record::main(&args),
        Command::CudaWorker(args) => {
            // A terminal sends Ctrl-C to workers too: what they are at is still wanted, and the second one ends them.
            output::catch_interrupt();
            worker::main(&args).map(|()| Outcome::Passed).map_err(Refusal::new)
        }
    };
    match outcome {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Err(refusal) => {
            eprintln!("nsa-diff: error: {}", output::printable(&refusal.to_string()));
            ExitCode::from(2)
        }
    }
}
