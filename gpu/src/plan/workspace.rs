//! What a backward needs on the way, and how far its rows lie apart.

use nsa_corpus::Shape;

use super::dims::Dims;
use super::extent::{Extent, far_stride};

/// The part of the workspace, or the parts of one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Workspace {
    /// `delta` and `sliding_delta`, `[b q_heads, n]` in f32.
    Delta,
    /// The counting sort's `counts`, `[b sel_heads, blocks chunks]`.
    Counts,
    /// `starts` and `segment_starts`, `[b sel_heads, blocks + 1]`.
    Starts,
    /// `visits`, `[b sel_heads, n num_sel]`.
    Visits,
    /// The partial sums of `dk` and `dv`, `[tasks block_size, dim + value_dim]` in f32.
    Partial,
}

impl Workspace {
    /// Every part.
    pub const ALL: [Workspace; 5] =
        [Workspace::Delta, Workspace::Counts, Workspace::Starts, Workspace::Visits, Workspace::Partial];

    /// How many rows it has, and how many elements of [`Workspace::BYTES`] each.
    pub(super) fn rows(self, shape: &Shape, dims: &Dims) -> (usize, usize) {
        let lists = shape.batch() * shape.sel_heads();
        match self {
            Workspace::Delta => (shape.batch() * shape.q_heads(), shape.seq_len()),
            Workspace::Counts => (lists, shape.blocks() * dims.chunks as usize),
            Workspace::Starts => (lists, shape.blocks() + 1),
            Workspace::Visits => (lists, shape.seq_len() * shape.num_sel()),
            Workspace::Partial => (dims.tasks() as usize * shape.block_size(), shape.dim() + shape.value_dim()),
        }
    }

    /// Elements from one row to the next where rows are set apart: more than 2^32 from the first to the last.
    pub(super) fn far_stride(self, shape: &Shape, dims: &Dims) -> usize {
        let (rows, width) = self.rows(shape, dims);
        let far = match self {
            // Partial sums are counted from the first of their batch entry: there, those of the last selection head lie that far.
            Workspace::Partial => {
                let own = dims.kv_heads * dims.blocks + (dims.sel_heads - 1) * dims.segments;
                (own * dims.block_size) as usize + 1
            }
            _ => rows,
        };
        far_stride(far, width)
    }

    /// Where its rows lie: dense, or set apart.
    pub(super) fn extent(self, shape: &Shape, dims: &Dims, far: bool) -> Extent {
        let (rows, width) = self.rows(shape, dims);
        let stride = if far { self.far_stride(shape, dims) } else { width };
        Extent::strided(rows, width * Self::BYTES, stride * Self::BYTES)
    }

    /// Bytes of an element: an f32 or a 32-bit number.
    pub(super) const BYTES: usize = 4;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::views::{Layout, Views};

    #[test]
    fn rows_set_apart_are_beyond_what_32_bits_can_tell() {
        let sizes = nsa_corpus::Sizes {
            batch: 2,
            q_heads: 4,
            kv_heads: 2,
            seq_len: 43,
            dim: 16,
            value_dim: 16,
            block_size: 8,
            num_sel: 3,
            sel_heads: 2,
        };
        let shape = Shape::new(sizes).unwrap();
        let dims = Dims::new(&shape, &Views::new(&shape, Layout::HeadMajor), true, None);
        for workspace in Workspace::ALL {
            let (rows, width) = workspace.rows(&shape, &dims);
            let last = (rows - 1) * workspace.far_stride(&shape, &dims);
            assert!(last > 1 << 32, "{workspace:?}: {last}");
            let (dense, far) = (workspace.extent(&shape, &dims, false), workspace.extent(&shape, &dims, true));
            assert_eq!(dense.bytes(), rows * width * 4);
            assert_eq!(far.bytes(), (last + width) * 4);
            assert_eq!(far.filled_bytes(), dense.filled_bytes());
            assert_eq!(far.runs().len(), rows);
        }
    }
}
