//! `nsa-diff`: the harness on the command line, one file for each subcommand.

#![forbid(unsafe_code)]

mod bench;
mod calibrate;
mod candidates;
mod compute;
mod confirm;
mod console;
mod detect;
mod duration;
mod fuzz;
mod golden;
mod gradcheck;
mod large;
mod matrix;
mod oracle;
mod output;
mod record;
mod render;
mod replay;
mod run;
mod select;
mod self_test;
mod show;
mod shrink;
mod signals;
mod threads;
mod worker;

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::console::Console;
use nsa_harness::candidate::Unavailable;
use nsa_harness::tally::{Conclusion, Tally};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something was tested, and all of it passed.
    Passed,
    /// What was asked for was printed; nothing was tested.
    Shown,
    /// Something failed.
    Failed,
    /// Ctrl-C, or another signal that asks for an end: what was done until then has been reported.
    Interrupted,
}

/// Why a command could not do its work: bad usage, a bad file, a missing candidate, nothing that was tested. Exit code 2.
#[derive(Debug)]
pub struct Refusal(Vec<String>);

impl Refusal {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Refusal(vec![message.into()])
    }

    /// Several reasons, a line each.
    fn several(messages: Vec<String>) -> Self {
        Refusal(messages)
    }

    fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl From<nsa_corpus::Error> for Refusal {
    fn from(error: nsa_corpus::Error) -> Self {
        Refusal::new(error.to_string())
    }
}

impl From<Unavailable> for Refusal {
    fn from(reason: Unavailable) -> Self {
        Refusal::new(reason.to_string())
    }
}

/// How a command ends that ran these cases and, after Ctrl-C, left `left_out` out.
///
/// # Errors
/// Nothing was tested.
fn concluded(tally: &Tally, left_out: usize) -> Result<Outcome, Refusal> {
    match tally.conclusion() {
        _ if left_out > 0 => Ok(Outcome::Interrupted),
        Conclusion::Passed => Ok(Outcome::Passed),
        Conclusion::Failed => Ok(Outcome::Failed),
        Conclusion::NothingTested(why) => Err(Refusal::new(why)),
    }
}

#[derive(Parser)]
#[command(name = "nsa-diff", version, about = "Differential testing of sparse-attention kernels against an f64 oracle", after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 everything passed, 1 a failure, 2 usage, environment, or nothing was tested, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).

Examples:
  nsa-diff run                          the whole corpus on the tiled CPU candidate
  nsa-diff run 'edges/*' --dtype bf16   some of it, in one format
  nsa-diff fuzz --seed 1 --time 5m      generated cases, failures minimised and stored
  nsa-diff oracle in.safetensors out.safetensors
                                        the oracle's answers, for a program in any language";

#[derive(Subcommand)]
enum Command {
    /// Runs named cases of the corpus and judges every element of every output and gradient
    Run(run::Args),
    /// Runs generated cases; minimises and stores what fails
    Fuzz(fuzz::Args),
    /// Judges stored failures again, or runs them on a candidate
    Replay(replay::Args),
    /// Judges stored failures again beside witnesses that compute the same
    Confirm(confirm::Args),
    /// Runs the corpus on several implementations and says where they disagree and who is wrong
    Matrix(matrix::Args),
    /// Minimises a stored failure
    Shrink(shrink::Args),
    /// Prints a case: why it exists, its options, the digest of its inputs, what it exercises
    Show(show::Args),
    /// Lists the candidates, and why those that are not available here are not
    #[command(alias = "backends")]
    Candidates(candidates::Args),
    /// Checks gradients by central differences that know their own error
    Gradcheck(gradcheck::Args),
    /// Compares a candidate with answers that PyTorch gave
    Golden(golden::Args),
    /// Computes the oracle's answers for a file of inputs
    Oracle(oracle::Args),
    /// Plants mutants and reports which are killed
    Detect(detect::Args),
    /// Measures how a candidate's dot products round, and holds it to what it declares of them
    Calibrate(calibrate::Args),
    /// Times a candidate on named shapes, and judges what was timed
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

/// Parses the command line, runs the command, reports a refusal in a line.
fn main() -> ExitCode {
    let console = Console::default();
    let outcome = match Cli::try_parse() {
        Ok(cli) => threads::check_environment().and_then(|()| {
            if !matches!(cli.command, Command::CudaWorker(_)) {
                signals::listen();
            }
            run(cli.command, &console)
        }),
        Err(usage) => {
            let printed = usage.print().and_then(|()| std::io::stdout().flush());
            if usage.use_stderr() {
                return ExitCode::from(2);
            }
            console.printed(printed);
            Ok(Outcome::Shown)
        }
    };
    ExitCode::from(console.exit_code(outcome))
}

fn run(command: Command, console: &Console) -> Result<Outcome, Refusal> {
    match command {
        Command::Run(args) => run::main(&args, console),
        Command::Fuzz(args) => fuzz::main(&args, console),
        Command::Replay(args) => replay::main(&args, console),
        Command::Confirm(args) => confirm::main(&args, console),
        Command::Matrix(args) => matrix::main(&args, console),
        Command::Shrink(args) => shrink::main(&args, console),
        Command::Show(args) => show::main(&args, console),
        Command::Candidates(args) => candidates::main(&args, console),
        Command::Gradcheck(args) => gradcheck::main(&args, console),
        Command::Golden(args) => golden::main(&args, console),
        Command::Oracle(args) => oracle::main(&args, console),
        Command::Detect(args) => detect::main(&args, console),
        Command::Calibrate(args) => calibrate::main(&args, console),
        Command::Bench(args) => bench::main(&args, console),
        Command::Compute(args) => compute::main(&args, console),
        Command::SelfTest(args) => self_test::main(&args, console),
        Command::Record(args) => record::main(&args, console),
        Command::CudaWorker(args) => worker::main(args),
    }
}
