//! What an implementation answers: one tensor for each [`Field`].

use std::fmt;
use std::str::FromStr;

use ndarray::{ArrayD, IxDyn};
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Inputs, Shape, foreign};

/// One tensor of an answer. Loops run over [`Field::ALL`], so that none is forgotten.
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// `[b, q_heads, n, value_dim]`: softmax-weighted values over the diagonal's and all slots' keys.
    Out,
    /// `[b, q_heads, n]`: natural logarithm of the sum of exponentiated scores.
    Lse,
    /// `[b, q_heads, n, value_dim]`: plain causal attention within the sliding window.
    SlidingOut,
    /// `[b, q_heads, n]`: the sliding part's own log-sum-exp.
    SlidingLse,
    /// `[b, q_heads, n, dim]`.
    Dq,
    /// `[b, kv_heads, n, dim]`.
    Dk,
    /// `[b, kv_heads, n, value_dim]`.
    Dv,
    /// `[b, sel_heads, n, num_sel]`.
    DselScale,
}

impl Field {
    /// Every field, forward ones first.
    pub const ALL: [Field; 8] = [
        Field::Out,
        Field::Lse,
        Field::SlidingOut,
        Field::SlidingLse,
        Field::Dq,
        Field::Dk,
        Field::Dv,
        Field::DselScale,
    ];

    /// The name used in files and reports: `"out"`, `"lse"`, `"sliding_out"`, …, `"dsel_scale"`.
    pub fn name(self) -> &'static str {
        match self {
            Field::Out => "out",
            Field::Lse => "lse",
            Field::SlidingOut => "sliding_out",
            Field::SlidingLse => "sliding_lse",
            Field::Dq => "dq",
            Field::Dk => "dk",
            Field::Dv => "dv",
            Field::DselScale => "dsel_scale",
        }
    }

    /// The names of the axes, in order.
    pub fn axes(self) -> &'static [&'static str] {
        match self {
            Field::Out | Field::SlidingOut => &["batch", "q_head", "token", "feature"],
            Field::Lse | Field::SlidingLse => &["batch", "q_head", "token"],
            Field::Dq => &["batch", "q_head", "token", "feature"],
            Field::Dk | Field::Dv => &["batch", "kv_head", "key", "feature"],
            Field::DselScale => &["batch", "sel_head", "token", "slot"],
        }
    }

    /// Whether the backward computes it.
    pub fn is_gradient(self) -> bool {
        matches!(self, Field::Dq | Field::Dk | Field::Dv | Field::DselScale)
    }

    /// The shape that this field has in a problem of `shape`.
    pub fn shape(self, shape: &Shape) -> Vec<usize> {
        let (b, n) = (shape.batch(), shape.seq_len());
        match self {
            Field::Out | Field::SlidingOut => vec![b, shape.q_heads(), n, shape.value_dim()],
            Field::Lse | Field::SlidingLse => vec![b, shape.q_heads(), n],
            Field::Dq => vec![b, shape.q_heads(), n, shape.dim()],
            Field::Dk => vec![b, shape.kv_heads(), n, shape.dim()],
            Field::Dv => vec![b, shape.kv_heads(), n, shape.value_dim()],
            Field::DselScale => vec![b, shape.sel_heads(), n, shape.num_sel()],
        }
    }

    /// Whether `inputs` ask for this field: `out` and `lse` always, the sliding ones beside a window, the gradients
    /// where any cotangent is given, `dsel_scale` only where `sel_scale` is given too.
    pub fn asked_by(self, inputs: &Inputs) -> bool {
        match self {
            Field::Out | Field::Lse => true,
            Field::SlidingOut | Field::SlidingLse => inputs.sliding_window().is_some(),
            Field::Dq | Field::Dk | Field::Dv => inputs.cotangents().any(),
            Field::DselScale => inputs.cotangents().any() && inputs.sel_scale().is_some(),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Field {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Field::ALL.into_iter().find(|field| field.name() == text).ok_or_else(|| {
            Error::new(ErrorKind::UnknownWord, format!("{} names no output field", foreign::quoted(text)))
        })
    }
}

/// The tensors of an answer, widened to `f64`. A field that an implementation does not compute is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    fields: [Option<ArrayD<f64>>; Field::ALL.len()],
}

impl Outputs {
    /// An answer without any field.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every field that `inputs` ask for, filled with `value`.
    pub fn filled(inputs: &Inputs, value: f64) -> Self {
        let mut outputs = Self::new();
        for field in Field::ALL.into_iter().filter(|field| field.asked_by(inputs)) {
            outputs.set(field, ArrayD::from_elem(IxDyn(&field.shape(inputs.shape())), value));
        }
        outputs
    }

    /// The tensor of `field`.
    pub fn get(&self, field: Field) -> Option<&ArrayD<f64>> {
        self.fields[field as usize].as_ref()
    }

    /// The tensor of `field`, to change.
    pub fn get_mut(&mut self, field: Field) -> Option<&mut ArrayD<f64>> {
        self.fields[field as usize].as_mut()
    }

    /// Stores the tensor of `field`. Its shape is judged where answers are compared, not here.
    pub fn set<D: ndarray::Dimension>(&mut self, field: Field, tensor: ndarray::Array<f64, D>) {
        self.fields[field as usize] = Some(tensor.into_dyn());
    }

    /// Takes the tensor of `field` out.
    pub fn take(&mut self, field: Field) -> Option<ArrayD<f64>> {
        self.fields[field as usize].take()
    }

    /// The fields that are present, with their tensors.
    pub fn iter(&self) -> impl Iterator<Item = (Field, &ArrayD<f64>)> {
        Field::ALL.into_iter().filter_map(|field| Some((field, self.get(field)?)))
    }
}
