//! The words for known mistakes, the same for those planted in a CPU implementation, round a candidate or in a CUDA kernel.

use serde::{Deserialize, Serialize};

/// What kind of mistake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// A slot, or a term, that should or should not take part.
    Mask,
    /// The diagonal's causal cut.
    Causality,
    /// The wrong block, key, head or row.
    Index,
    /// The partial last block and odd sizes.
    Tail,
    /// Which kv head a query head reads.
    Gqa,
    /// The factor of all scores.
    Scale,
    /// The factor of a slot's scores.
    SelScale,
    /// The softmax and its log-sum-exp.
    Softmax,
    /// How often a repeated block counts.
    Multiplicity,
    /// A sum over lanes, keys or tasks.
    Reduction,
    /// Fewer bits than declared.
    Precision,
    /// Rows not written, or left from before.
    Unwritten,
    /// An order that the schedule decides; updates lost or made twice.
    Race,
    /// The backward's formulas.
    Gradient,
    /// The sliding part.
    Sliding,
    /// Addresses: strides, 64-bit products, writes that go astray.
    Memory,
}

/// What should become of a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Some case of the corpus must show it.
    Killed,
    /// No case can: within the declared arithmetic it computes the same. An argument says why.
    Equivalent,
    /// It does not compile.
    Unviable,
}
