//! The input tensors by name, and single elements of them.

use serde::{Deserialize, Serialize};

use crate::{Error, Shape};

/// An input tensor. Its number is part of every draw: it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tensor {
    /// `[b, q_heads, n, dim]`.
    Q,
    /// `[b, kv_heads, n, dim]`.
    K,
    /// `[b, kv_heads, n, value_dim]`.
    V,
    /// `[b, sel_heads, n, num_sel]`, whole numbers.
    Indices,
    /// `[b, sel_heads, n, num_sel]`, true or false.
    Mask,
    /// `[b, sel_heads, n, num_sel]`.
    SelScale,
    /// `[b, q_heads, n, value_dim]`.
    DOut,
    /// `[b, q_heads, n]`.
    DLse,
    /// `[b, q_heads, n, value_dim]`.
    DSliding,
}

impl Tensor {
    /// Every tensor, in the order of their numbers.
    pub const ALL: [Tensor; 9] = [
        Tensor::Q,
        Tensor::K,
        Tensor::V,
        Tensor::Indices,
        Tensor::Mask,
        Tensor::SelScale,
        Tensor::DOut,
        Tensor::DLse,
        Tensor::DSliding,
    ];

    /// The name used in files: `"q"`, …, `"sel_scale"`, `"d_out"`, `"d_lse"`, `"d_sliding"`.
    pub fn name(self) -> &'static str {
        match self {
            Tensor::Q => "q",
            Tensor::K => "k",
            Tensor::V => "v",
            Tensor::Indices => "indices",
            Tensor::Mask => "mask",
            Tensor::SelScale => "sel_scale",
            Tensor::DOut => "d_out",
            Tensor::DLse => "d_lse",
            Tensor::DSliding => "d_sliding",
        }
    }

    pub(crate) fn tag(self) -> u64 {
        self as u64
    }

    /// The shape that this tensor has in a problem of `shape`.
    pub fn shape(self, shape: &Shape) -> Vec<usize> {
        let (b, n) = (shape.batch(), shape.seq_len());
        match self {
            Tensor::Q => vec![b, shape.q_heads(), n, shape.dim()],
            Tensor::K => vec![b, shape.kv_heads(), n, shape.dim()],
            Tensor::V => vec![b, shape.kv_heads(), n, shape.value_dim()],
            Tensor::Indices | Tensor::Mask | Tensor::SelScale => vec![b, shape.sel_heads(), n, shape.num_sel()],
            Tensor::DOut | Tensor::DSliding => vec![b, shape.q_heads(), n, shape.value_dim()],
            Tensor::DLse => vec![b, shape.q_heads(), n],
        }
    }
}

/// One element, replaced after its tensor was drawn.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Whose element.
    pub tensor: Tensor,
    /// Its coordinates, in the order of [`Tensor::shape`].
    pub index: Vec<usize>,
    /// What it becomes; a block's number for `indices`, 0 or 1 for `mask`.
    pub value: f64,
}

impl Override {
    /// Replaces an element.
    pub fn new(tensor: Tensor, index: &[usize], value: f64) -> Self {
        Override { tensor, index: index.to_vec(), value }
    }

    /// Whether the element exists in a problem of `shape`.
    pub(crate) fn in_range(&self, shape: &Shape) -> bool {
        let dims = self.tensor.shape(shape);
        let inside = self.index.len() == dims.len() && self.index.iter().zip(&dims).all(|(index, size)| index < size);
        inside && (self.tensor != Tensor::Indices || (0.0..shape.blocks() as f64).contains(&self.value))
    }

    /// The same at the nearest element that a problem of `shape` has; `None` where the tensor has none.
    pub(crate) fn moved(&self, shape: &Shape) -> Option<Override> {
        let dims = self.tensor.shape(shape);
        let index = self.index.iter().zip(&dims).map(|(&index, &size)| Some(index.min(size.checked_sub(1)?)));
        let last_block = (shape.blocks() - 1) as f64;
        let value = if self.tensor == Tensor::Indices { self.value.min(last_block) } else { self.value };
        Some(Override { index: index.collect::<Option<_>>()?, value, tensor: self.tensor })
    }

    /// Refuses a change that a case of `shape` cannot take; `present` says whether it has the tensor.
    pub(crate) fn check(&self, present: bool, shape: &Shape) -> Result<(), Error> {
        let refuse =
            |why: String| Err(Error::invalid(format!("override of {}{:?}: {why}", self.tensor.name(), self.index)));
        if !present {
            return refuse("the case has no such tensor".to_owned());
        }
        let fits = match self.tensor {
            Tensor::Indices => self.value.fract() == 0.0,
            Tensor::Mask => self.value == 0.0 || self.value == 1.0,
            _ => true,
        };
        if !fits {
            return refuse(format!("{:?} is no value of this tensor", self.value));
        }
        if !self.in_range(shape) {
            let dims = self.tensor.shape(shape);
            let blocks = shape.blocks();
            return refuse(format!("outside its shape {dims:?}, or block {:?} outside 0..{blocks}", self.value));
        }
        Ok(())
    }
}

impl PartialEq for Override {
    /// By bits: a planted NaN equals itself.
    fn eq(&self, other: &Self) -> bool {
        (self.tensor, &self.index, self.value.to_bits()) == (other.tensor, &other.index, other.value.to_bits())
    }
}
