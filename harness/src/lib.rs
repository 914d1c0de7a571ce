//! The differential-testing harness: runs cases through an implementation and the oracle and judges every element of every
//! output and gradient by its own error budget.
//!
//! [`run::run_case`] is the whole method in one function.

#![forbid(unsafe_code)]

pub mod backend;
pub mod calibrate;
pub mod cli;
pub mod compare;
pub mod defect;
pub mod detect;
pub mod determinism;
pub mod environment;
pub mod excerpt;
pub mod judge;
pub mod known;
pub mod large;
pub mod localize;
pub mod minimize;
mod number;
mod probe;
pub mod records;
pub mod report;
pub mod run;
pub mod store;
pub mod tightness;
pub mod unconditional;
pub mod vacuity;
pub mod verdict;
