//! From answers to verdicts: what the judge says of candidates that are right, wrong, unsteady or hostile.

mod answers;
#[path = "../common/mod.rs"]
mod common;
mod determinism;
mod elements;
mod gradients_alone;
mod hostile_candidates;
mod laundering;
mod own_forward;
