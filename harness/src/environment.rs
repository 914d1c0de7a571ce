//! What a document says of where it was made.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The program and the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// The program's version.
    pub nsa_diff: String,
    /// The operating system, as Rust names it.
    pub os: String,
    /// The processor's kind, as Rust names it.
    pub arch: String,
    /// Threads that cases run on.
    pub threads: usize,
}

impl Environment {
    /// This program on this machine.
    pub fn here() -> Self {
        Environment {
            nsa_diff: env!("CARGO_PKG_VERSION").to_owned(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            threads: rayon::current_num_threads(),
        }
    }
}
