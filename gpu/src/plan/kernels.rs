//! Every kernel: its parameters by name, its macros, and how its work is cut into CTAs.
//!
//! The tests hold each row to the kernel's own text: names, order and constness of parameters, threads of a CTA.

use nsa_corpus::{Dtype, Shape};

use super::dims::{Dims, SCAN_THREADS};
use super::launch::Access;
use super::program::Program;
use super::tensor::Tensor;

/// What a kernel takes for one of its parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) tensor: Tensor,
    pub(super) access: Access,
}

const fn reads(name: &'static str, tensor: Tensor) -> Parameter {
    Parameter { name, tensor, access: Access::Read }
}

const fn writes(name: &'static str, tensor: Tensor) -> Parameter {
    Parameter { name, tensor, access: Access::Write }
}

/// How a kernel's work is cut: CTAs along x and y, warps of each, and bytes of the shared memory that it declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) ctas: [u64; 2],
    pub(super) warps: u32,
    pub(super) static_shared: u32,
}

/// One kernel.
pub(super) struct Kernel {
    pub(super) name: &'static str,
    /// In its own order; `Dims` follow.
    pub(super) parameters: &'static [Parameter],
    /// Whether it is compiled for the problem's format; one that sees only whole numbers is compiled once.
    pub(super) of_dtype: bool,
    /// The macros that it is compiled with, besides `ELEMENT`.
    pub(super) defines: fn(&Shape) -> Vec<(&'static str, usize)>,
    pub(super) cut: fn(&Shape, &Dims) -> Cut,
}

impl Kernel {
    /// What is compiled for a problem.
    pub(super) fn program(&self, shape: &Shape, dtype: Dtype) -> Program {
        Program::new(self.name, if self.of_dtype { dtype } else { Dtype::F32 }, (self.defines)(shape))
    }

    /// Whether it is given `tensor`.
    pub(super) fn takes(&self, tensor: Tensor, access: Access) -> bool {
        self.parameters.iter().any(|parameter| parameter.tensor == tensor && parameter.access == access)
    }
}

const FORWARD: &[Parameter] = &[
    reads("q", Tensor::Q),
    reads("k", Tensor::K),
    reads("v", Tensor::V),
    reads("indices", Tensor::Indices),
    reads("mask", Tensor::Mask),
    reads("sel_scale", Tensor::SelScale),
    writes("out", Tensor::Out),
    writes("lse", Tensor::Lse),
    writes("sliding_out", Tensor::SlidingOut),
    writes("sliding_lse", Tensor::SlidingLse),
];

const QUERY_GRADIENTS: &[Parameter] = &[
    reads("q", Tensor::Q),
    reads("k", Tensor::K),
    reads("v", Tensor::V),
    reads("indices", Tensor::Indices),
    reads("mask", Tensor::Mask),
    reads("sel_scale", Tensor::SelScale),
    reads("lse", Tensor::Lse),
    reads("d_out", Tensor::DOut),
    reads("delta", Tensor::Delta),
    reads("sliding_lse", Tensor::SlidingLse),
    reads("d_sliding", Tensor::DSliding),
    reads("sliding_delta", Tensor::SlidingDelta),
    writes("dq", Tensor::Dq),
    writes("dsel_scale", Tensor::DselScale),
];

const KEY_GRADIENTS: &[Parameter] = &[
    reads("q", Tensor::Q),
    reads("k", Tensor::K),
    reads("v", Tensor::V),
    reads("sel_scale", Tensor::SelScale),
    reads("lse", Tensor::Lse),
    reads("d_out", Tensor::DOut),
    reads("delta", Tensor::Delta),
    reads("sliding_lse", Tensor::SlidingLse),
    reads("d_sliding", Tensor::DSliding),
    reads("sliding_delta", Tensor::SlidingDelta),
    reads("visits", Tensor::Visits),
    reads("starts", Tensor::Starts),
    reads("segment_starts", Tensor::SegmentStarts),
    writes("partial", Tensor::Partial),
];

pub(super) const FORWARD_PLAIN: Kernel = Kernel {
    name: "forward_plain",
    parameters: FORWARD,
    of_dtype: true,
    defines: row_steps,
    cut: |shape, _| per_warp(rows(shape, shape.q_heads()), 4, 0),
};

pub(super) const FORWARD_TENSOR: Kernel = Kernel {
    name: "forward_tensor",
    parameters: FORWARD,
    of_dtype: true,
    defines: |shape| {
        vec![
            ("DIM_CHUNKS", dim_chunks(shape)),
            ("VALUE_GROUPS", shape.value_dim().div_ceil(64)),
            ("KEY_TILES", key_tiles(shape, 8)),
            ("WARPS", 4),
        ]
    },
    cut: |shape, _| {
        let tiles = shape.sel_groups().div_ceil(16) as u64;
        per_warp(rows(shape, shape.sel_heads()) * tiles, 4, dim_chunks(shape))
    },
};

pub(super) const DQ_PLAIN: Kernel = Kernel {
    name: "dq_plain",
    parameters: QUERY_GRADIENTS,
    of_dtype: true,
    defines: row_steps,
    cut: |shape, _| per_warp(rows(shape, shape.sel_heads()), 4, 0),
};

pub(super) const DQ_TENSOR: Kernel = Kernel {
    name: "dq_tensor",
    parameters: QUERY_GRADIENTS,
    of_dtype: true,
    defines: |shape| {
        vec![
            ("DIM_CHUNKS", dim_chunks(shape)),
            ("DIM_GROUPS", shape.dim().div_ceil(64)),
            ("VALUE_CHUNKS", value_chunks(shape)),
            ("KEY_TILES", key_tiles(shape, 4)),
            ("WARPS", query_warps(shape) as usize),
        ]
    },
    cut: |shape, _| {
        per_warp(rows(shape, shape.sel_heads()), query_warps(shape), dim_chunks(shape) + value_chunks(shape))
    },
};

pub(super) const DKDV_PLAIN: Kernel = Kernel {
    name: "dkdv_plain",
    parameters: KEY_GRADIENTS,
    of_dtype: true,
    defines: row_steps,
    cut: |shape, dims| per_task(dims, shape.block_size(), 8, 0),
};

pub(super) const DKDV_TENSOR: Kernel = Kernel {
    name: "dkdv_tensor",
    parameters: KEY_GRADIENTS,
    of_dtype: true,
    defines: |shape| {
        vec![
            ("DIM_CHUNKS", dim_chunks(shape)),
            ("DIM_GROUPS", shape.dim().div_ceil(64)),
            ("VALUE_CHUNKS", value_chunks(shape)),
            ("VALUE_GROUPS", shape.value_dim().div_ceil(64)),
            ("WARPS", key_warps(shape) as usize),
        ]
    },
    cut: |shape, dims| {
        let chunks = dim_chunks(shape) + value_chunks(shape);
        per_task(dims, shape.block_size().div_ceil(16), key_warps(shape), chunks)
    },
};

pub(super) const DKDV_MERGE: Kernel = Kernel {
    name: "dkdv_merge",
    parameters: &[
        reads("partial", Tensor::Partial),
        reads("segment_starts", Tensor::SegmentStarts),
        writes("dk", Tensor::Dk),
        writes("dv", Tensor::Dv),
    ],
    of_dtype: true,
    defines: |_| Vec::new(),
    cut: |shape, _| Cut { ctas: [rows(shape, shape.kv_heads()), 1], warps: 4, static_shared: 0 },
};

pub(super) const DELTA: Kernel = Kernel {
    name: "delta",
    parameters: &[
        reads("out", Tensor::Out),
        reads("d_out", Tensor::DOut),
        reads("d_lse", Tensor::DLse),
        reads("sliding_out", Tensor::SlidingOut),
        reads("d_sliding", Tensor::DSliding),
        writes("delta", Tensor::Delta),
        writes("sliding_delta", Tensor::SlidingDelta),
    ],
    of_dtype: true,
    defines: |shape| row_steps(shape).into_iter().filter(|(name, _)| *name == "VALUE_STEPS").collect(),
    cut: |shape, _| per_warp(rows(shape, shape.q_heads()), 4, 0),
};

pub(super) const VISIT_COUNT: Kernel = Kernel {
    name: "visit_count",
    parameters: &[reads("indices", Tensor::Indices), reads("mask", Tensor::Mask), writes("counts", Tensor::Counts)],
    of_dtype: false,
    defines: |_| Vec::new(),
    cut: |shape, dims| per_warp(lists(shape) * dims.chunks as u64, 4, 0),
};

pub(super) const VISIT_SCAN: Kernel = Kernel {
    name: "visit_scan",
    parameters: &[
        writes("counts", Tensor::Counts),
        writes("starts", Tensor::Starts),
        writes("segment_starts", Tensor::SegmentStarts),
    ],
    of_dtype: false,
    defines: |_| Vec::new(),
    cut: |shape, _| Cut {
        ctas: [lists(shape), 1],
        warps: SCAN_THREADS as u32 / 32,
        static_shared: (SCAN_THREADS * size_of::<u32>()) as u32,
    },
};

pub(super) const VISIT_FILL: Kernel = Kernel {
    name: "visit_fill",
    parameters: &[
        reads("indices", Tensor::Indices),
        reads("mask", Tensor::Mask),
        writes("positions", Tensor::Counts),
        writes("visits", Tensor::Visits),
    ],
    of_dtype: false,
    defines: |_| Vec::new(),
    cut: |shape, dims| per_warp(lists(shape) * dims.chunks as u64, 4, 0),
};

/// The kernels that fill a workspace which those of the ladder read, each after those that it depends on. `after` of the launches
/// follows from their parameters.
pub(super) const PRODUCERS: [&Kernel; 4] = [&DELTA, &VISIT_COUNT, &VISIT_SCAN, &VISIT_FILL];

/// `pieces`, one for each warp. A warp that works on rows saves `chunks` times 32 features of 16 of them: `Saved` of `mma.cuh`.
fn per_warp(pieces: u64, warps: u32, chunks: usize) -> Cut {
    Cut { ctas: [pieces.div_ceil(u64::from(warps)), 1], warps, static_shared: saved(warps, chunks) }
}

/// For each task of `tasks.cuh` `pieces`, one for each warp.
fn per_task(dims: &Dims, pieces: usize, warps: u32, chunks: usize) -> Cut {
    let ctas = [dims.tasks() as u64, (pieces as u64).div_ceil(u64::from(warps))];
    Cut { ctas, warps, static_shared: saved(warps, chunks) }
}

fn saved(warps: u32, chunks: usize) -> u32 {
    // Two words of 16 bytes for each of 32 lanes.
    warps * chunks as u32 * 2 * 32 * 16
}

fn dim_chunks(shape: &Shape) -> usize {
    shape.dim().div_ceil(32)
}

fn value_chunks(shape: &Shape) -> usize {
    shape.value_dim().div_ceil(32)
}

/// Tiles of 8 keys that the tensor kernels score at once: an even number, no more than a block fills, at most `most`.
pub(super) fn key_tiles(shape: &Shape, most: usize) -> usize {
    (2 * shape.block_size().div_ceil(16)).min(most)
}

/// Warps of a `dq_tensor` CTA: its rows of q and d_out lie in 48 KiB of shared memory.
fn query_warps(shape: &Shape) -> u32 {
    if dim_chunks(shape) + value_chunks(shape) <= 12 { 4 } else { 2 }
}

/// Warps of a `dkdv_tensor` CTA: 16 keys each, as many as a block fills.
fn key_warps(shape: &Shape) -> u32 {
    shape.block_size().div_ceil(16).min(4) as u32
}

/// Selections: one for each batch entry and selection head.
fn lists(shape: &Shape) -> u64 {
    (shape.batch() * shape.sel_heads()) as u64
}

/// Rows of a `[b, heads, n]` tensor.
fn rows(shape: &Shape, heads: usize) -> u64 {
    (shape.batch() * heads * shape.seq_len()) as u64
}

/// Registers that a lane holds of a row: 2, 4 or 8, so that few programs serve all sizes.
fn row_steps(shape: &Shape) -> Vec<(&'static str, usize)> {
    let steps = |width: usize| width.div_ceil(32).next_power_of_two().max(2);
    vec![("DIM_STEPS", steps(shape.dim())), ("VALUE_STEPS", steps(shape.value_dim()))]
}
