//! What is to be computed, as far as a plan needs to know it.

use nsa_corpus::{Dtype, Inputs, Shape};

use super::tensor::Tensor;
use super::variant::Variant;
use super::views::{Layout, Views};
use super::workspace::Workspace;

/// What is to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The sizes.
    pub shape: Shape,
    /// The format of the tensors that have one to choose.
    pub dtype: Dtype,
    /// Whether a query attends to its own block up to itself.
    pub include_block_causal: bool,
    /// The sliding output's window; `None`: no sliding output.
    pub sliding_window: Option<usize>,
    /// Whether slots have factors, and those a gradient.
    pub sel_scale: bool,
    /// Whether a cotangent of `lse` is given.
    pub d_lse: bool,
    /// Whether a cotangent of `sliding_out` is given; without it nothing flows back through the sliding part.
    pub d_sliding: bool,
    /// How every tensor lies in memory.
    pub views: Views,
    /// The workspace whose rows are set more than 2^32 elements apart, to test; `None`: each is dense.
    pub far: Option<Workspace>,
    /// The rung of each pass; `None`: the fastest that takes the problem and its views.
    pub variant: Option<Variant>,
}

impl Problem {
    /// `out` and `lse` of the selected blocks and the own one, head-major, without factors, by the fastest variant.
    pub fn new(shape: &Shape, dtype: Dtype) -> Self {
        Problem {
            shape: *shape,
            dtype,
            include_block_causal: true,
            sliding_window: None,
            sel_scale: false,
            d_lse: false,
            d_sliding: false,
            views: Views::new(shape, Layout::HeadMajor),
            far: None,
            variant: None,
        }
    }

    /// What `inputs` ask for.
    pub fn of(inputs: &Inputs) -> Self {
        Problem {
            include_block_causal: inputs.include_block_causal(),
            sliding_window: inputs.sliding_window(),
            sel_scale: inputs.sel_scale().is_some(),
            d_lse: inputs.cotangents().d_lse.is_some(),
            d_sliding: inputs.cotangents().d_sliding.is_some(),
            ..Problem::new(inputs.shape(), inputs.dtype())
        }
    }

    /// Whether the problem has `tensor`.
    pub fn has(&self, tensor: Tensor) -> bool {
        match tensor {
            Tensor::SelScale | Tensor::DselScale => self.sel_scale,
            Tensor::DLse => self.d_lse,
            Tensor::SlidingOut | Tensor::SlidingLse => self.sliding_window.is_some(),
            Tensor::DSliding | Tensor::SlidingDelta => self.d_sliding && self.sliding_window.is_some(),
            _ => true,
        }
    }
}
