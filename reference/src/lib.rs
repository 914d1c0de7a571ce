//! What `regular_attend` computes, several times over, so that no one of them has to be believed alone: the readable
//! transcription ([`regular_attend`]), the streaming f64 [`oracle`] with its error budgets, a checker of gradients
//! ([`gradcheck`]), and two CPU candidates: [`tiled`], as a kernel computes, and [`plain`], into which faults can be planted.

// Not `forbid`: ndarray's `s!` allows it within itself.
#![deny(unsafe_code)]

pub mod gradcheck;
pub mod oracle;
pub mod plain;
mod real;
pub mod regular_attend;
pub mod tiled;
