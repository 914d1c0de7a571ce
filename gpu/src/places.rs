//! Where every buffer of a problem lies and how large it is: known before anything is allocated, so that too little memory
//! is an error with the bytes needed, not half a computation.

use nsa_corpus::{Element, Shape};

use crate::dims::Dims;
use crate::error::Error;
use crate::memory::Safety;
use crate::views::{Operand, Place, Views};
use crate::workspace::Workspace;

/// The place of each tensor and of each part of the workspace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) q: Place,
    pub(crate) k: Place,
    pub(crate) v: Place,
    pub(crate) indices: Place,
    pub(crate) mask: Place,
    pub(crate) sel_scale: Place,
    /// Of `out` and `sliding_out`.
    pub(crate) out: Place,
    /// Of `lse` and `sliding_lse`.
    pub(crate) lse: Place,
    pub(crate) d_out: Place,
    pub(crate) d_sliding: Place,
    pub(crate) d_lse: Place,
    pub(crate) dq: Place,
    pub(crate) dk: Place,
    pub(crate) dv: Place,
    pub(crate) dsel_scale: Place,
    /// Of `delta` and `sliding_delta`.
    pub(crate) delta: Place,
    pub(crate) counts: Place,
    /// Of `starts` and `segment_starts`.
    pub(crate) starts: Place,
    pub(crate) visits: Place,
    pub(crate) partial: Place,
}

impl Places {
    /// # Errors
    /// Views whose rows overlap, or that are too large to be addressed.
    pub(crate) fn new(
        shape: &Shape,
        element: Element,
        views: &Views,
        dims: &Dims,
        apart: Option<Workspace>,
    ) -> Result<Self, Error> {
        let place = |operand, size| views.place(operand, shape, size);
        let (word, float) = (element.bytes(), Element::F32.bytes());
        let workspace = |workspace: Workspace| workspace.place(shape, dims, apart == Some(workspace));
        Ok(Places {
            q: place(Operand::Q, word)?,
            k: place(Operand::K, word)?,
            v: place(Operand::V, word)?,
            indices: place(Operand::Selection, size_of::<u32>())?,
            mask: place(Operand::Selection, 1)?,
            sel_scale: place(Operand::Selection, float)?,
            out: place(Operand::Out, word)?,
            lse: place(Operand::Lse, float)?,
            d_out: place(Operand::DOut, word)?,
            d_sliding: place(Operand::DSliding, word)?,
            d_lse: place(Operand::DLse, float)?,
            dq: place(Operand::Dq, word)?,
            dk: place(Operand::Dk, word)?,
            dv: place(Operand::Dv, word)?,
            dsel_scale: place(Operand::DselScale, float)?,
            delta: workspace(Workspace::Delta),
            counts: workspace(Workspace::Counts),
            starts: workspace(Workspace::Starts),
            visits: workspace(Workspace::Visits),
            partial: workspace(Workspace::Partial),
        })
    }

    /// Bytes of the forward's inputs and of the cotangents, at most.
    pub(crate) fn input_bytes(&self, safety: Safety) -> u64 {
        let Places { q, k, v, indices, mask, sel_scale, d_out, d_sliding, d_lse, .. } = self;
        bytes([q, k, v, indices, mask, sel_scale, d_out, d_sliding, d_lse], safety)
    }

    /// Bytes of what the forward writes.
    pub(crate) fn forward_bytes(&self, sliding: bool, safety: Safety) -> u64 {
        bytes([&self.out, &self.lse], safety) * if sliding { 2 } else { 1 }
    }

    /// Bytes of what the backward writes and works in, at most.
    pub(crate) fn backward_bytes(&self, safety: Safety) -> u64 {
        let Places { dq, dk, dv, dsel_scale, delta, counts, starts, visits, partial, .. } = self;
        bytes([dq, dk, dv, dsel_scale, delta, delta, counts, starts, starts, visits, partial], safety)
    }
}

fn bytes<const N: usize>(places: [&Place; N], safety: Safety) -> u64 {
    places.into_iter().map(|place| (place.bytes() + 2 * safety.guard_bytes.next_multiple_of(256)) as u64).sum()
}

#[cfg(test)]
mod tests {
    use nsa_corpus::Sizes;

    use super::*;
    use crate::views::{Axis, Layout};

    fn places(layout: Layout, apart: Option<Workspace>) -> Places {
        let (q_heads, kv_heads, sel_heads, seq_len, dim, value_dim) = (4, 2, 2, 10, 8, 16);
        let sizes =
            Sizes { batch: 3, q_heads, kv_heads, seq_len, dim, value_dim, block_size: 4, num_sel: 3, sel_heads };
        let shape = Shape::new(sizes).unwrap();
        let views = Views::new(&shape, layout);
        Places::new(&shape, Element::Bf16, &views, &Dims::new(&shape, &views, true, None), apart).unwrap()
    }

    #[test]
    fn bytes_are_those_of_every_buffer() {
        let places = places(Layout::HeadMajor, None);
        // q, k, v; indices, mask, sel_scale; d_out, d_sliding, d_lse.
        let floats = 2 * (3 * 4 * 10 * 8 + 3 * 2 * 10 * 8 + 3 * 2 * 10 * 16 + 2 * 3 * 4 * 10 * 16);
        let expected = floats + 3 * 2 * 10 * 3 * 9 + 3 * 4 * 10 * 4;
        assert_eq!(places.input_bytes(Safety::NONE), expected);
        assert_eq!(places.input_bytes(Safety::CHECKED), expected + 9 * 2 * 4096);
        let forward = 3 * 4 * 10 * (16 * 2 + 4);
        assert_eq!(places.forward_bytes(false, Safety::NONE), forward);
        assert_eq!(places.forward_bytes(true, Safety::NONE), 2 * forward);
    }

    #[test]
    fn gaps_of_a_view_count() {
        let apart = |operand| places(Layout::Apart { operand, axis: Axis::Batch }, None);
        assert!(apart(Operand::Selection).input_bytes(Safety::NONE) > 9 << 32);
        assert!(apart(Operand::Dk).backward_bytes(Safety::NONE) > 2 << 32);
        assert!(apart(Operand::Out).forward_bytes(true, Safety::NONE) > 4 << 32);
        let far = |workspace| places(Layout::HeadMajor, Some(workspace)).backward_bytes(Safety::NONE);
        // Two buffers of 16 GiB where two have the form.
        assert!(
            far(Workspace::Visits) > 4 << 32 && far(Workspace::Delta) > 8 << 32 && far(Workspace::Starts) > 8 << 32
        );
    }
}
