//! The ladder: which kernels compute each pass, what they support, and what they declare of their arithmetic.
//!
//! Everything about a rung stands in one row of `LADDER`: [`Variant::supports`], the choice for a shape, the launches and the
//! declared arithmetic all read it. A kernel that wants more than its row can say (clusters, tensor maps) makes room in `Dim3`
//! and `Value`: docs/kernels.md says how.
//!
//! [`Variant::supports`]: super::Variant::supports

use std::fmt;
use std::str::FromStr;

use nsa_corpus::{Arithmetic, Dot, Dtype, Shape};
use serde::{Deserialize, Serialize};

use super::kernels::{
    DKDV_MERGE, DKDV_PLAIN, DKDV_TENSOR, DQ_PLAIN, DQ_TENSOR, FORWARD_PLAIN, FORWARD_TENSOR, Kernel, key_tiles,
};
use super::program::ELEMENTS;
use super::views::{Operand, Views};
use crate::error::{Error, Kind};

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

/// One row of the ladder: the kernels of a rung that compute a pass.
pub(super) struct Step {
    pub(super) pass: Pass,
    pub(super) rung: Rung,
    /// Launched in this order; what they need of workspaces is launched before them.
    pub(super) kernels: &'static [&'static Kernel],
    pub(super) elements: &'static [Dtype],
    /// dim and value_dim are multiples of this, and rows of 16-bit elements begin at multiples of it.
    pub(super) multiple: usize,
    /// dim and value_dim together; each alone is at most [`FEATURES_MAX`].
    pub(super) features_max: usize,
    /// Tokens times heads of a group, which it numbers.
    pub(super) rows_max: usize,
    /// The least compute capability that it runs on, 10 major + minor.
    pub(super) capability: u32,
    /// What its results are worth, on an architecture.
    pub(super) arithmetic: fn(&Shape, Dtype, &str) -> Arithmetic,
}

/// dim, value_dim and block_size are at most this, on every rung.
pub const FEATURES_MAX: usize = 256;

const HALF: &[Dtype] = &[Dtype::F16, Dtype::Bf16];

/// Everything in f32 multiply-adds, any size, slowly.
const PLAIN: Step = Step {
    pass: Pass::Forward,
    rung: Rung::Plain,
    kernels: &[&FORWARD_PLAIN],
    elements: ELEMENTS,
    multiple: 1,
    features_max: 2 * FEATURES_MAX,
    rows_max: usize::MAX,
    capability: 80,
    arithmetic: |_, dtype, _| Arithmetic { output: dtype, gradient: dtype, ..Arithmetic::f32() },
};

/// 16-bit products on tensor cores, whose rows are numbered by 32 bits.
const TENSOR: Step = Step {
    pass: Pass::Forward,
    rung: Rung::Tensor,
    kernels: &[&FORWARD_TENSOR],
    elements: HALF,
    multiple: 8,
    features_max: 2 * FEATURES_MAX,
    rows_max: (1 << 31) - 1,
    capability: 80,
    // The plain forward rescales once for a whole block, this one for as many keys as it scores at once.
    arithmetic: |shape, dtype, arch| Arithmetic {
        rescale_every: Some(8 * key_tiles(shape, 8)),
        ..tensor_arithmetic(shape, dtype, arch)
    },
};

/// Every way to compute a pass, plainest first.
pub(super) const LADDER: &[Step] = &[
    PLAIN,
    Step { pass: Pass::QueryGradients, kernels: &[&DQ_PLAIN], ..PLAIN },
    Step { pass: Pass::KeyGradients, kernels: &[&DKDV_PLAIN, &DKDV_MERGE], ..PLAIN },
    TENSOR,
    Step { pass: Pass::QueryGradients, kernels: &[&DQ_TENSOR], arithmetic: tensor_arithmetic, ..TENSOR },
    Step {
        pass: Pass::KeyGradients,
        kernels: &[&DKDV_TENSOR, &DKDV_MERGE],
        // Both gradients of 16 keys are held in registers.
        features_max: 320,
        arithmetic: tensor_arithmetic,
        ..TENSOR
    },
];

fn tensor_arithmetic(shape: &Shape, dtype: Dtype, arch: &str) -> Arithmetic {
    // `<q, k>` and `<d_out, v>` take each 32 features, or what is left of them, in two halves (mma.cuh).
    let block = |width: usize| width.div_ceil(2 * width.div_ceil(32));
    let block = block(shape.dim()).min(block(shape.value_dim()));
    let scores = Dot::Blocks { block, extra_bits: extra_bits(arch) };
    Arithmetic { scores, ..Arithmetic::tensor_core(dtype) }
}

/// Bits that the tensor cores of `arch` keep beyond 24: measured by planted sums (`nsa-diff calibrate`, docs/numerics.md), and none
/// where nothing was measured.
fn extra_bits(arch: &str) -> i32 {
    if arch == "sm_90a" { 2 } else { 0 }
}

/// The compute capability of an architecture such as `"sm_90a"`, 10 major + minor; of one that is not known, the least that a
/// device may have.
fn capability(arch: &str) -> u32 {
    arch.trim_start_matches("sm_").trim_end_matches(char::is_alphabetic).parse().unwrap_or(80)
}

/// The row of `pass` on `rung`.
pub(super) fn step(pass: Pass, rung: Rung) -> Option<&'static Step> {
    LADDER.iter().find(|step| step.pass == pass && step.rung == rung)
}

/// Operands whose rows a kernel may load and store by whole words.
pub(super) const BY_WORDS: [Operand; 7] =
    [Operand::Q, Operand::K, Operand::V, Operand::Out, Operand::DOut, Operand::DSliding, Operand::Dq];

impl Step {
    /// The kernel that gives the step its name.
    pub(super) fn kernel(&self) -> &'static Kernel {
        self.kernels[0]
    }

    pub(super) fn supports(&self, shape: &Shape, dtype: Dtype, arch: &str) -> Result<(), String> {
        let kernel = self.kernel().name;
        if capability(arch) < self.capability {
            return Err(format!("{kernel} needs compute capability {}, {arch} is older", self.capability));
        }
        let (dim, value_dim) = (shape.dim(), shape.value_dim());
        if !self.elements.contains(&dtype) {
            return Err(format!("{kernel} does not take {dtype}"));
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
        if rows.is_none_or(|rows| rows > self.rows_max) {
            let (n, groups, most) = (shape.seq_len(), shape.groups(), self.rows_max);
            return Err(format!("{kernel} numbers up to {most} rows, not {n} tokens x {groups} heads of a group"));
        }
        Ok(())
    }

    /// Whether rows begin where the kernels load and store them by words of [`Step::multiple`] elements.
    pub(super) fn takes(&self, shape: &Shape, views: &Views) -> Result<(), String> {
        let unaligned = |operand: &Operand| !views.aligned(*operand, self.multiple, shape);
        match BY_WORDS.into_iter().find(unaligned) {
            None => Ok(()),
            Some(operand) => {
                let (kernel, multiple, strides) = (self.kernel().name, self.multiple, views.get(operand));
                Err(format!(
                    "{kernel} takes rows that begin at multiples of {multiple} elements, not {operand:?} by {strides:?}"
                ))
            }
        }
    }
}
