//! The language that the oracle, the candidates and the harness share: what a problem is ([`Shape`],
//! [`Inputs`]), what an answer looks like ([`Field`], [`Outputs`]), and what an implementation declares of its
//! arithmetic ([`Arithmetic`]). It also holds the data: named cases, golden answers, real activations.
//!
//! No engine lives here. The reference and the kernels both depend on this crate and never on each other, so no
//! shared helper can hide a shared bug.
//!
//! Axes, everywhere: `b` batch, `h` kv head, `g` query head within its group (query head = `h * groups + g`),
//! `i` query token, `s` selection slot, `j` key within a block, `d` feature.

//!
//! # Examples
//! Tensors at hand become a checked problem by [`InputParts::new`] and [`Inputs::new`]. The corpus, one named case:
//! ```
//! use nsa_corpus::{Case, Dtype, Selection, Sizes, entries};
//! let entry = entries().iter().find(|entry| entry.name == "edges/seq_1").unwrap();
//! let inputs = entry.case.materialize(Dtype::F16).unwrap();
//! assert_eq!((entry.name.as_str(), inputs.q().dim().2), ("edges/seq_1", 1));
//!
//! // A case of one's own, in the corpus's words; the same bits on every machine.
//! let sizes = Sizes { seq_len: 40, block_size: 8, ..Sizes::default() };
//! let case = Case { selection: Selection::Any {}, sliding_window: Some(4), ..Case::ordinary(sizes, 7) };
//! assert_eq!(case.materialize(Dtype::F32).unwrap().shape().blocks(), 5);
//! println!("{}", case.to_toml()); // goes below `[entry.case]` of a file that `read_entries` reads
//! ```

#![forbid(unsafe_code)]

mod arithmetic;
mod bundle;
mod case;
mod case_file;
mod case_text;
pub mod digest;
mod dtype;
mod embedded;
mod entry;
mod error;
mod features;
mod files;
pub mod foreign;
mod generate;
mod given;
pub mod golden;
mod golden_header;
mod input_parts;
mod inputs;
mod limits;
mod mutant;
mod outputs;
mod plausible;
mod rng;
mod selection;
mod shape;
mod shrink;
mod shrink_values;
mod sizes;
mod tensor;
mod tensors;
mod tensors_write;
mod unique;
mod values;
pub mod version;
mod whole_file;

pub use arithmetic::{Arithmetic, BackwardReads, Delta, Dot, RunningSum, gamma};
pub use bundle::Bundle;
pub use case::Case;
pub use dtype::Dtype;
pub use entry::{Entry, Expect, Flag, entries, parse_entries, read_entries, to_toml};
pub use error::{Error, ErrorKind};
pub use features::{FEATURES, Feature};
pub use files::{check_file, check_folder, write_atomically};
pub use given::Given;
pub use golden::GoldenCase;
pub use inputs::{Cotangents, InputParts, Inputs};
pub use limits::Limit;
pub use mutant::{Category, Expected};
pub use outputs::{Field, Outputs};
pub use rng::Random;
pub use selection::{Mask, Selection};
pub use shape::Shape;
pub use sizes::Sizes;
pub use tensor::{Override, Tensor};
pub use tensors::TensorFile;
pub use tensors_write::TensorFileBuilder;
pub use values::Values;
pub use whole_file::{read_bytes, read_text};

/// The array type of every tensor here, so that a caller need not depend on the same version by itself.
pub use ndarray;
