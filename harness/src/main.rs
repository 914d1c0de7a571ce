//! `nsa-diff`: the harness on the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    nsa_harness::cli::main()
}
