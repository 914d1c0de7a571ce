//! The ladder: which kernel computes each pass, what it supports, and what it is specialised by.
//!
//! Everything about a rung stands in one row of `LADDER`: [`crate::Variant::supports`], the choice for a shape, and the `-D`
//! macros that a kernel is compiled with all read it.

use std::fmt;
use std::str::FromStr;

use nsa_corpus::{Element, Shape};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};
use crate::views::{Operand, Views};

/// What a call computes, one pass after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// `out`, `lse`, and the sliding ones.
    Forward,
    /// `dq` and `dsel_scale`, query-outer.
    QueryGradients,
    /// `dk` and `dv`, key-outer.
    KeyGradients,
}

impl Pass {
    /// Every pass, in the order that they run.
    pub const ALL: [Pass; 3] = [Pass::Forward, Pass::QueryGradients, Pass::KeyGradients];
}

/// A step of the ladder, from plain to fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// f32 multiply-adds, one row for each warp: everything, slowly.
    Plain,
    /// 16-bit tensor cores with f32 accumulation.
    Tensor,
}

impl Rung {
    /// Every rung, plainest first.
    pub const ALL: [Rung; 2] = [Rung::Plain, Rung::Tensor];

    /// `"plain"` or `"tensor"`.
    pub fn name(self) -> &'static str {
        match self {
            Rung::Plain => "plain",
            Rung::Tensor => "tensor",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rung {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Rung::ALL
            .into_iter()
            .find(|rung| rung.name() == text)
            .ok_or_else(|| Kind::Invalid(format!("rung `{text}` is neither plain nor tensor")).into())
    }
}

/// One row of the ladder: a kernel, and what it is for.
pub(crate) struct Step {
    pub(crate) pass: Pass,
    pub(crate) rung: Rung,
    pub(crate) kernel: &'static str,
    pub(crate) elements: &'static [Element],
    /// dim and value_dim are multiples of this, and rows of 16-bit elements begin at multiples of it.
    pub(crate) multiple: usize,
    /// dim and value_dim together; each alone is at most [`FEATURES_MAX`].
    pub(crate) features_max: usize,
    /// The macros that the kernel is compiled with, besides `ELEMENT`.
    pub(crate) defines: fn(&Shape) -> Vec<(&'static str, usize)>,
    /// What one warp works on, and how many warps make a CTA.
    pub(crate) geometry: fn(&Shape) -> Geometry,
}

/// How a kernel's work is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Pieces of work, one for each warp: of the whole problem, or in the key-outer backward of one task.
    pub(crate) pieces: u64,
    /// Warps in a CTA.
    pub(crate) warps: u32,
}

/// dim, value_dim and block_size are at most this, on every rung.
pub const FEATURES_MAX: usize = 256;

pub(crate) const ANY: &[Element] = &[Element::F32, Element::F16, Element::Bf16];
const HALF: &[Element] = &[Element::F16, Element::Bf16];

/// Every kernel that computes a pass, plainest first.
pub(crate) const LADDER: &[Step] = &[
    Step {
        pass: Pass::Forward,
        rung: Rung::Plain,
        kernel: "forward_plain",
        elements: ANY,
        multiple: 1,
        features_max: 2 * FEATURES_MAX,
        defines: row_steps,
        geometry: |shape| Geometry { pieces: rows(shape, shape.q_heads()), warps: 4 },
    },
    Step {
        pass: Pass::QueryGradients,
        rung: Rung::Plain,
        kernel: "dq_plain",
        elements: ANY,
        multiple: 1,
        features_max: 2 * FEATURES_MAX,
        defines: row_steps,
        geometry: |shape| Geometry { pieces: rows(shape, shape.sel_heads()), warps: 4 },
    },
    Step {
        pass: Pass::KeyGradients,
        rung: Rung::Plain,
        kernel: "dkdv_plain",
        elements: ANY,
        multiple: 1,
        features_max: 2 * FEATURES_MAX,
        defines: row_steps,
        geometry: |shape| Geometry { pieces: shape.block_size() as u64, warps: 8 },
    },
    Step {
        pass: Pass::Forward,
        rung: Rung::Tensor,
        kernel: "forward_tensor",
        elements: HALF,
        multiple: 8,
        features_max: 2 * FEATURES_MAX,
        defines: |shape| {
            let (dim, value_dim) = (shape.dim(), shape.value_dim());
            vec![
                ("DIM_CHUNKS", dim.div_ceil(32)),
                ("VALUE_GROUPS", value_dim.div_ceil(64)),
                ("KEY_TILES", key_tiles(shape, 8)),
                ("WARPS", 4),
            ]
        },
        geometry: |shape| Geometry {
            pieces: rows(shape, shape.sel_heads()) * shape.sel_groups().div_ceil(16) as u64,
            warps: 4,
        },
    },
    Step {
        pass: Pass::QueryGradients,
        rung: Rung::Tensor,
        kernel: "dq_tensor",
        elements: HALF,
        multiple: 8,
        features_max: 2 * FEATURES_MAX,
        defines: |shape| {
            let (dim, value_dim) = (shape.dim(), shape.value_dim());
            vec![
                ("DIM_CHUNKS", dim.div_ceil(32)),
                ("DIM_GROUPS", dim.div_ceil(64)),
                ("VALUE_CHUNKS", value_dim.div_ceil(32)),
                ("KEY_TILES", key_tiles(shape, 4)),
                ("WARPS", query_warps(shape) as usize),
            ]
        },
        geometry: |shape| Geometry { pieces: rows(shape, shape.sel_heads()), warps: query_warps(shape) },
    },
    Step {
        pass: Pass::KeyGradients,
        rung: Rung::Tensor,
        kernel: "dkdv_tensor",
        elements: HALF,
        multiple: 8,
        // Both gradients of 16 keys are held in registers.
        features_max: 320,
        defines: |shape| {
            let (dim, value_dim) = (shape.dim(), shape.value_dim());
            vec![
                ("DIM_CHUNKS", dim.div_ceil(32)),
                ("DIM_GROUPS", dim.div_ceil(64)),
                ("VALUE_CHUNKS", value_dim.div_ceil(32)),
                ("VALUE_GROUPS", value_dim.div_ceil(64)),
                ("WARPS", key_warps(shape) as usize),
            ]
        },
        geometry: |shape| Geometry { pieces: shape.block_size().div_ceil(16) as u64, warps: key_warps(shape) },
    },
];

/// Tiles of 8 keys that the tensor kernels score at once: an even number, no more than a block fills, at most `most`.
pub(crate) fn key_tiles(shape: &Shape, most: usize) -> usize {
    (2 * shape.block_size().div_ceil(16)).min(most)
}

/// Warps of a `dq_tensor` CTA: its rows of q and d_out lie in 48 KiB of shared memory.
fn query_warps(shape: &Shape) -> u32 {
    if shape.dim().div_ceil(32) + shape.value_dim().div_ceil(32) <= 12 { 4 } else { 2 }
}

/// Warps of a `dkdv_tensor` CTA: 16 keys each, as many as a block fills.
fn key_warps(shape: &Shape) -> u32 {
    shape.block_size().div_ceil(16).min(4) as u32
}

/// Rows of a `[b, heads, n]` tensor.
pub(crate) fn rows(shape: &Shape, heads: usize) -> u64 {
    (shape.batch() * heads * shape.seq_len()) as u64
}

/// Registers that a lane holds of a row: 2, 4 or 8, so that few programs serve all sizes.
pub(crate) fn row_steps(shape: &Shape) -> Vec<(&'static str, usize)> {
    let steps = |width: usize| width.div_ceil(32).next_power_of_two().max(2);
    vec![("DIM_STEPS", steps(shape.dim())), ("VALUE_STEPS", steps(shape.value_dim()))]
}

pub(crate) fn step(pass: Pass, rung: Rung) -> Option<&'static Step> {
    LADDER.iter().find(|step| step.pass == pass && step.rung == rung)
}

impl Step {
    pub(crate) fn supports(&self, shape: &Shape, element: Element) -> Result<(), String> {
        let kernel = self.kernel;
        let (dim, value_dim) = (shape.dim(), shape.value_dim());
        if !self.elements.contains(&element) {
            return Err(format!("{kernel} does not take {element}"));
        }
        for (name, size) in [("dim", dim), ("value_dim", value_dim), ("block_size", shape.block_size())] {
            if size > FEATURES_MAX {
                return Err(format!("{kernel} takes {name} up to {FEATURES_MAX}, not {size}"));
            }
        }
        if dim + value_dim > self.features_max {
            return Err(format!("{kernel} takes dim + value_dim up to {}, not {dim} + {value_dim}", self.features_max));
        }
        if let Some(size) = [dim, value_dim].into_iter().find(|size| size % self.multiple != 0) {
            return Err(format!("{kernel} takes multiples of {} features, not {size}", self.multiple));
        }
        let rows = shape.seq_len().checked_mul(shape.groups());
        if self.rung == Rung::Tensor && rows.is_none_or(|rows| rows >= 1 << 31) {
            let (n, groups) = (shape.seq_len(), shape.groups());
            return Err(format!(
                "{kernel} numbers rows by 32 bits: {n} tokens x {groups} heads of a group are too many"
            ));
        }
        Ok(())
    }

    /// Operands that kernels load and store by words of [`Step::multiple`] elements.
    pub(crate) fn takes(&self, shape: &Shape, views: &Views) -> Result<(), String> {
        use Operand::{DOut, DSliding, Dq, K, Out, Q, V};
        let unaligned = |operand: &Operand| !views.aligned(*operand, self.multiple, shape);
        match [Q, K, V, Out, DOut, DSliding, Dq].into_iter().find(unaligned) {
            None => Ok(()),
            Some(operand) => {
                let (kernel, multiple, strides) = (self.kernel, self.multiple, views.get(operand));
                Err(format!(
                    "{kernel} takes rows that begin at multiples of {multiple} elements, not {operand:?} by {strides:?}"
                ))
            }
        }
    }
}
