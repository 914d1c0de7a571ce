//! Setting the rows of a workspace far apart, to test.
//!
//! A workspace is dense: a row behind the other, at offsets that kernels compute from sizes. Small problems never show an offset
//! that was computed in 32 bits. So the kernels are compiled with one workspace's row stride replaced by a larger one: the text of
//! each place that steps from row to row is changed before it is compiled, as a mutant's is. The kernels that answer otherwise keep
//! their text and their registers.

use crate::plan::{ROW_STRIDE, Workspace};

/// What stands in a kernel's text for the rows of a workspace, and what takes its place: `#` is the larger stride, which has the
/// type of the sizes that it replaces.
pub(crate) struct Edit {
    pub(crate) file: &'static str,
    pub(crate) find: &'static str,
    replace: &'static str,
}

impl Edit {
    pub(crate) fn replacement(&self) -> String {
        self.replace.replace('#', &format!("((long long){ROW_STRIDE})"))
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

/// The places where kernels step from one row of `workspace` to the next.
pub(crate) fn edits(workspace: Workspace) -> &'static [Edit] {
    match workspace {
        Workspace::Delta => DELTA,
        Workspace::Counts => COUNTS,
        Workspace::Starts => STARTS,
        Workspace::Visits => VISITS,
        Workspace::Partial => PARTIAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::files::file;

    #[test]
    fn every_edit_changes_its_file() {
        for edit in Workspace::ALL.into_iter().flat_map(edits) {
            assert!(file(edit.file).unwrap().text.contains(edit.find), "{}: {}", edit.file, edit.find);
            assert!(edit.replacement().contains(ROW_STRIDE), "{}: {}", edit.file, edit.find);
        }
    }
}
