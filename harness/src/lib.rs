//! The differential-testing harness: runs cases through an implementation and the oracle and judges every element of every
//! output and gradient by its own error budget.
//!
//! [`run::run_case`] is the whole method in one function.

#![forbid(unsafe_code)]

pub mod bench;
pub mod calibrate;
pub mod campaign;
pub mod candidate;
pub mod detect;
pub mod document;
pub mod environment;
pub mod explain;
pub mod judge;
pub mod localize;
pub mod mutants;
mod number;
pub mod readers;
pub mod registry;
pub mod relations;
pub mod report;
pub mod run;
pub mod summary;
pub mod tally;
pub mod version_1;
pub mod watch;
