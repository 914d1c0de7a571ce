//! The language that the oracle, the candidates and the harness share: what a problem is ([`Shape`],
//! [`Inputs`]), what an answer looks like ([`Field`], [`Outputs`]), and what an implementation declares of its
//! arithmetic ([`Arithmetic`]). It also holds the data: named cases, golden answers, real activations.
//!
//! No engine lives here. The reference and the kernels both depend on this crate and never on each other, so no
//! shared helper can hide a shared bug.
//!
//! Axes, everywhere: `b` batch, `h` kv head, `g` query head within its group (query head = `h * groups + g`),
//! `i` query token, `s` selection slot, `j` key within a block, `d` feature.

#![forbid(unsafe_code)]

mod arithmetic;
mod bundle;
mod case;
mod case_file;
mod covers;
pub mod digest;
mod element;
mod embedded;
mod entry;
mod error;
#[cfg(feature = "quickcheck")]
mod generate;
mod given;
pub mod golden;
mod inputs;
mod mistake;
mod outputs;
mod plausible;
mod rng;
mod selection;
mod shape;
mod shrink;
mod shrink_values;
mod tensor;
mod tensors;
mod tensors_write;
mod values;

pub use arithmetic::{Arithmetic, Delta, Dot, RunningSum, gamma};
pub use bundle::Bundle;
pub use case::Case;
pub use element::Element;
pub use entry::{Entry, Expect, Flag, entries, read_entries, to_toml};
pub use error::Error;
pub use given::Given;
pub use golden::GoldenCase;
pub use inputs::{Cotangents, InputParts, Inputs};
pub use mistake::{Expected, Genre};
pub use outputs::{Field, Outputs};
pub use selection::{Mask, Selection};
pub use shape::{Shape, Sizes};
pub use tensor::{Override, Tensor};
pub use tensors::TensorFile;
pub use tensors_write::TensorFileBuilder;
pub use values::Values;
