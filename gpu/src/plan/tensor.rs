//! Every tensor that a kernel reads or writes, by name.

use std::fmt;

use nsa_corpus::Dtype;

use super::views::Operand;
use super::workspace::Workspace;

/// A tensor on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tensor {
    /// `[b, q_heads, n, dim]`.
    Q,
    /// `[b, kv_heads, n, dim]`.
    K,
    /// `[b, kv_heads, n, value_dim]`.
    V,
    /// `[b, sel_heads, n, num_sel]`, 32-bit block numbers.
    Indices,
    /// Like `indices`, one byte each: 0 or 1.
    Mask,
    /// Like `indices`, f32.
    SelScale,
    /// `[b, q_heads, n, value_dim]`.
    DOut,
    /// `[b, q_heads, n]`, f32.
    DLse,
    /// `[b, q_heads, n, value_dim]`; without it the sliding part sends no gradient.
    DSliding,
    /// `[b, q_heads, n, value_dim]`.
    Out,
    /// `[b, q_heads, n]`, f32.
    Lse,
    /// The sliding part's, beside a window.
    SlidingOut,
    /// The sliding part's, beside a window.
    SlidingLse,
    /// `[b, q_heads, n, dim]`.
    Dq,
    /// `[b, kv_heads, n, dim]`.
    Dk,
    /// `[b, kv_heads, n, value_dim]`.
    Dv,
    /// `[b, sel_heads, n, num_sel]`, f32; where `sel_scale` is given.
    DselScale,
    /// `[b, q_heads, n]`, f32: what the backward subtracts from dP.
    Delta,
    /// The same of the sliding part.
    SlidingDelta,
    /// The counting sort's table, `[b sel_heads, blocks, chunks]`, 32-bit.
    Counts,
    /// Where each block's visits begin, `[b sel_heads, blocks + 1]`, 32-bit.
    Starts,
    /// Where each block's segments begin, `[b sel_heads, blocks + 1]`, 32-bit.
    SegmentStarts,
    /// The visits of each block, `[b sel_heads, n num_sel]`, 32-bit.
    Visits,
    /// Partial sums of `dk` and `dv`, `[tasks, block_size, dim + value_dim]`, f32.
    Partial,
}

/// What a tensor is to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The forward reads it.
    Input,
    /// The backward is given it besides.
    Cotangent,
    /// The forward writes it.
    Output,
    /// The backward writes it.
    Gradient,
    /// The backward needs it on the way.
    Workspace,
}

/// Whose strides a tensor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Operand(Operand),
    Workspace(Workspace),
}

impl Tensor {
    /// Every tensor.
    pub const ALL: [Tensor; 24] = [
        Tensor::Q,
        Tensor::K,
        Tensor::V,
        Tensor::Indices,
        Tensor::Mask,
        Tensor::SelScale,
        Tensor::DOut,
        Tensor::DLse,
        Tensor::DSliding,
        Tensor::Out,
        Tensor::Lse,
        Tensor::SlidingOut,
        Tensor::SlidingLse,
        Tensor::Dq,
        Tensor::Dk,
        Tensor::Dv,
        Tensor::DselScale,
        Tensor::Delta,
        Tensor::SlidingDelta,
        Tensor::Counts,
        Tensor::Starts,
        Tensor::SegmentStarts,
        Tensor::Visits,
        Tensor::Partial,
    ];

    /// Its name, such as `"sliding_out"`.
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
            Tensor::Out => "out",
            Tensor::Lse => "lse",
            Tensor::SlidingOut => "sliding_out",
            Tensor::SlidingLse => "sliding_lse",
            Tensor::Dq => "dq",
            Tensor::Dk => "dk",
            Tensor::Dv => "dv",
            Tensor::DselScale => "dsel_scale",
            Tensor::Delta => "delta",
            Tensor::SlidingDelta => "sliding_delta",
            Tensor::Counts => "counts",
            Tensor::Starts => "starts",
            Tensor::SegmentStarts => "segment_starts",
            Tensor::Visits => "visits",
            Tensor::Partial => "partial",
        }
    }

    /// What it is to a call.
    pub fn role(self) -> Role {
        use Tensor::{DLse, DOut, DSliding, Dk, Dq, DselScale, Dv, Lse, Out, SlidingLse, SlidingOut};
        match self {
            Tensor::Q | Tensor::K | Tensor::V | Tensor::Indices | Tensor::Mask | Tensor::SelScale => Role::Input,
            DOut | DLse | DSliding => Role::Cotangent,
            Out | Lse | SlidingOut | SlidingLse => Role::Output,
            Dq | Dk | Dv | DselScale => Role::Gradient,
            _ => Role::Workspace,
        }
    }

    /// The format of its numbers, in a problem of `element`; `None`: whole numbers.
    pub fn dtype(self, dtype: Dtype) -> Option<Dtype> {
        use Tensor::{DLse, Delta, DselScale, Lse, Partial, SelScale, SlidingDelta, SlidingLse};
        match self {
            SelScale | DLse | Lse | SlidingLse | DselScale | Delta | SlidingDelta | Partial => Some(Dtype::F32),
            Tensor::Indices | Tensor::Mask => None,
            Tensor::Counts | Tensor::Starts | Tensor::SegmentStarts | Tensor::Visits => None,
            _ => Some(dtype),
        }
    }

    /// Bytes of one of its numbers.
    pub fn element_bytes(self, dtype: Dtype) -> usize {
        let whole = if self == Tensor::Mask { 1 } else { size_of::<u32>() };
        self.dtype(dtype).map_or(whole, Dtype::bytes)
    }

    pub(super) fn form(self) -> Form {
        match self {
            Tensor::Q => Form::Operand(Operand::Q),
            Tensor::K => Form::Operand(Operand::K),
            Tensor::V => Form::Operand(Operand::V),
            Tensor::Indices | Tensor::Mask | Tensor::SelScale => Form::Operand(Operand::Selection),
            Tensor::DOut => Form::Operand(Operand::DOut),
            Tensor::DLse => Form::Operand(Operand::DLse),
            Tensor::DSliding => Form::Operand(Operand::DSliding),
            Tensor::Out | Tensor::SlidingOut => Form::Operand(Operand::Out),
            Tensor::Lse | Tensor::SlidingLse => Form::Operand(Operand::Lse),
            Tensor::Dq => Form::Operand(Operand::Dq),
            Tensor::Dk => Form::Operand(Operand::Dk),
            Tensor::Dv => Form::Operand(Operand::Dv),
            Tensor::DselScale => Form::Operand(Operand::DselScale),
            Tensor::Delta | Tensor::SlidingDelta => Form::Workspace(Workspace::Delta),
            Tensor::Counts => Form::Workspace(Workspace::Counts),
            Tensor::Starts | Tensor::SegmentStarts => Form::Workspace(Workspace::Starts),
            Tensor::Visits => Form::Workspace(Workspace::Visits),
            Tensor::Partial => Form::Workspace(Workspace::Partial),
        }
    }

    /// The workspace that it is a part of, if it is of one.
    pub(super) fn workspace(self) -> Option<Workspace> {
        match self.form() {
            Form::Workspace(workspace) => Some(workspace),
            Form::Operand(_) => None,
        }
    }
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_are_tensors_of_the_backward() {
        for tensor in Tensor::ALL {
            assert_eq!(tensor.workspace().is_some(), tensor.role() == Role::Workspace, "{tensor}");
            // Every part of a workspace has elements of the size that its rows are counted in.
            assert!(tensor.workspace().is_none() || tensor.element_bytes(Dtype::F16) == Workspace::BYTES, "{tensor}");
        }
        let mut names: Vec<&str> = Tensor::ALL.map(Tensor::name).into();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Tensor::ALL.len());
    }
}
