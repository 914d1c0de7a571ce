//! What `regular_attend` computes, several times over, so that no one of them has to be believed alone: the readable
//! transcription ([`regular_attend`]), the streaming f64 [`oracle`] with its error budgets, a checker of gradients
//! ([`gradcheck`]), and two CPU candidates: [`tiled`], as a kernel computes, and [`rowwise`], in which mutants are planted.
//!
//! # Examples
//! The oracle's answer to a problem of one's own, and how far an implementation that stores bf16 may be from it:
//! ```
//! use nsa_reference::ndarray::Array4;
//! use nsa_reference::{Arithmetic, Cotangents, Dtype, Field, InputParts, Inputs, oracle, tiled};
//!
//! // Two query heads share one kv head; 6 tokens in blocks of 2; every token selects block 0, token 1 masks it.
//! let tensor = |heads: usize, phase: f64| {
//!     Array4::from_shape_fn((1, heads, 6, 3), |(_, h, i, d)| (phase + (7 * h + 3 * i + d) as f64).sin())
//! };
//! let mut parts = InputParts::new(2, tensor(2, 0.0), tensor(1, 1.0), tensor(1, 2.0), Array4::zeros((1, 1, 6, 1)));
//! parts.mask[[0, 0, 1, 0]] = false;
//! parts.dtype = Dtype::Bf16;
//! parts.cotangents = Cotangents { d_out: Some(tensor(2, 3.0)), ..Cotangents::default() };
//! let inputs = Inputs::new(parts).unwrap();
//!
//! let found = tiled::attend(&inputs); // in its place, what the implementation under test answered
//! let declared: Arithmetic = tiled::arithmetic(Dtype::Bf16); // and what that declares of its arithmetic
//! let answer = oracle::forward(&inputs, Some(&declared));
//! let (expected, budgets) = (&answer.outputs, &answer.bounds.unwrap().rigorous);
//! for field in [Field::Out, Field::Lse] {
//!     let [found, expected, budgets] = [&found, expected, budgets].map(|outputs| outputs.get(field).unwrap());
//!     for ((found, expected), budget) in found.iter().zip(expected).zip(budgets) {
//!         assert!((found - expected).abs() <= *budget, "{field}: {found} and {expected} differ by more than {budget}");
//!     }
//! }
//! let dk = oracle::attend(&inputs).take(Field::Dk).unwrap();
//! assert_eq!(dk.shape(), [1, 1, 6, 3]);
//! ```
//! A check of gradients, of attention or of anything: [`gradcheck::attention`], [`gradcheck`].

// Not `forbid`: ndarray's `s!` allows it within itself.
#![deny(unsafe_code)]

mod error;
pub mod gradcheck;
pub mod oracle;
mod real;
pub mod regular_attend;
pub mod rowwise;
pub mod tiled;

pub use error::{Error, ErrorKind};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// What a caller builds problems from and reads answers with, so that this crate alone is enough.
pub use ndarray;
pub use nsa_corpus::{Arithmetic, Case, Cotangents, Dtype, Field, InputParts, Inputs, Outputs, Shape, Sizes};
