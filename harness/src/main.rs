//! `nsa-diff`: the harness on the command line.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    nsa_harness::cli::main()
}
