//! What the backward needs on the way, and how its parts are set far apart.
//!
//! A workspace is dense: a row behind the other, at offsets that kernels compute from sizes. Small problems never show an offset
//! that was computed in 32 bits. So, to test, the kernels are compiled with one workspace's row stride replaced by a larger one:
//! the text of each place that steps from row to row is changed before it is compiled, as a mutant's is. The kernels that answer
//! otherwise keep their text and their registers.

use nsa_corpus::Shape;

use crate::dims::Dims;
use crate::views::{Place, far_stride};

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

/// The macro that holds the larger stride.
pub(crate) const STRIDE: &str = "ROW_STRIDE";

/// What stands in a kernel's text for the rows of a workspace, and what takes its place: `#` is the larger stride, which has the
/// type of the sizes that it replaces.
pub(crate) struct Edit {
    pub(crate) file: &'static str,
    pub(crate) find: &'static str,
    replace: &'static str,
}

impl Edit {
    pub(crate) fn replacement(&self) -> String {
        self.replace.replace('#', &format!("((long long){STRIDE})"))
    }
}

const fn edit(file: &'static str, find: &'static str, replace: &'static str) -> Edit {
    Edit { file, find, replace }
}

const DELTA: &[Edit] = &[
    edit("delta.cu", "delta[row]", "delta[(b * dims.q_heads + head) * # + i]"),
    edit("dq_plain.cu", "(b * dims.q_heads + head) * dims.seq_len", "(b * dims.q_heads + head) * #"),
    edit("dq_tensor.cu", "(b * dims.q_heads + head + row) * dims.seq_len", "(b * dims.q_heads + head + row) * #"),
    edit("dkdv_plain.cu", "(task.b * dims.q_heads + head) * dims.seq_len", "(task.b * dims.q_heads + head) * #"),
    edit("dkdv_tensor.cu", "(rows.b * dims.q_heads + head) * dims.seq_len", "(rows.b * dims.q_heads + head) * #"),
];

const COUNTS: &[Edit] = &[
    edit("visits.cuh", "list * dims.blocks * dims.chunks", "list * #"),
    edit("visit_scan.cu", "blockIdx.x * cells", "blockIdx.x * #"),
];

const STARTS: &[Edit] = &[
    edit("visit_scan.cu", "blockIdx.x * (dims.blocks + 1)", "blockIdx.x * #"),
    edit("tasks.cuh", "list * (dims.blocks + 1)", "list * #"),
    edit("dkdv_merge.cu", "(b * dims.sel_heads + sel_head) * (dims.blocks + 1)", "(b * dims.sel_heads + sel_head) * #"),
];

const VISITS: &[Edit] = &[
    edit("visit_fill.cu", "chunk.sel_head) * dims.seq_len * dims.num_sel", "chunk.sel_head) * #"),
    edit("tasks.cuh", "list * dims.seq_len * dims.num_sel", "list * #"),
];

const PARTIAL: &[Edit] = &[
    edit("dkdv_plain.cu", "dims.block_size + within) * (dims.dim + dims.value_dim)", "dims.block_size + within) * #"),
    edit(
        "dkdv_tensor.cu",
        "dims.block_size + within + row) * (dims.dim + dims.value_dim)",
        "dims.block_size + within + row) * #",
    ),
    edit("dkdv_merge.cu", "slice = dims.block_size * width", "slice = dims.block_size * #"),
    edit("dkdv_merge.cu", "key % dims.block_size * width", "key % dims.block_size * #"),
];

impl Workspace {
    /// Every part.
    pub const ALL: [Workspace; 5] =
        [Workspace::Delta, Workspace::Counts, Workspace::Starts, Workspace::Visits, Workspace::Partial];

    /// The places where kernels step from one row to the next.
    pub(crate) fn edits(self) -> &'static [Edit] {
        match self {
            Workspace::Delta => DELTA,
            Workspace::Counts => COUNTS,
            Workspace::Starts => STARTS,
            Workspace::Visits => VISITS,
            Workspace::Partial => PARTIAL,
        }
    }

    /// How many rows it has, and how many elements of [`Workspace::BYTES`] each.
    pub(crate) fn rows(self, shape: &Shape, dims: &Dims) -> (usize, usize) {
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
    pub(crate) fn far_stride(self, shape: &Shape, dims: &Dims) -> usize {
        let (rows, width) = self.rows(shape, dims);
        far_stride(rows, width)
    }

    /// Where its rows lie: dense, or set apart.
    pub(crate) fn place(self, shape: &Shape, dims: &Dims, apart: bool) -> Place {
        let (rows, width) = self.rows(shape, dims);
        let stride = if apart { self.far_stride(shape, dims) } else { width };
        Place::strided(rows, width * Self::BYTES, stride * Self::BYTES)
    }

    /// Bytes of an element: an f32 or a 32-bit number.
    pub(crate) const BYTES: usize = 4;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::FILES;
    use crate::views::{Layout, Views};

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
            let (dense, apart) = (workspace.place(&shape, &dims, false), workspace.place(&shape, &dims, true));
            assert_eq!(dense.bytes(), rows * width * 4);
            assert_eq!(apart.bytes(), (last + width) * 4);
            assert_eq!(apart.filled_bytes(), dense.filled_bytes());
            assert_eq!(apart.runs().len(), rows);
        }
    }

    #[test]
    fn every_edit_changes_its_file() {
        for edit in Workspace::ALL.into_iter().flat_map(Workspace::edits) {
            let text = FILES.iter().find(|(file, _)| *file == edit.file).unwrap().1;
            assert!(text.contains(edit.find), "{}: {}", edit.file, edit.find);
            assert!(edit.replacement().contains(STRIDE), "{}: {}", edit.file, edit.find);
        }
    }
}
