//! The sizes and strides that every kernel is launched with.
//!
//! The same fields in the same order as `struct Dims` in `kernels/shared/common.cuh`; a test compares the two texts.

use nsa_corpus::Shape;

use super::views::{Operand, Strides, Views};

macro_rules! dims {
    ($($name:ident: $kind:ty,)*) => {
        /// What a kernel knows of the problem. `window` is -1 without a sliding part.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        #[allow(missing_docs)]
        pub struct Dims {
            $(pub $name: $kind,)*
        }

        #[cfg(test)]
        const FIELDS: &[&str] = &[$(stringify!($name),)*];
    };
}

dims! {
    batch: i64, q_heads: i64, kv_heads: i64, sel_heads: i64, seq_len: i64, dim: i64, value_dim: i64,
    block_size: i64, num_sel: i64, blocks: i64,
    window: i64, include_diagonal: i64,
    chunk_visits: i64, chunks: i64, segment_visits: i64, segments: i64,
    q: Strides, k: Strides, v: Strides, sel: Strides, out: Strides, lse: Strides, d_out: Strides, d_sliding: Strides,
    d_lse: Strides, dq: Strides, dk: Strides, dv: Strides, dsel_scale: Strides,
    scale: f32, scale_log2: f32,
}

/// Tables of the counting sort hold at most this many cells for each selection head.
const SORT_CELLS: usize = 1 << 22;
/// Visits that one warp sorts, where the tables allow it.
const CHUNK_VISITS: usize = 4096;
/// Query rows in one segment of a block's visits: long enough to amortise a partial sum, short enough that a block
/// which every token selects is spread over the device.
const SEGMENT_ROWS: usize = 8192;
/// Threads of `visit_scan`.
pub(super) const SCAN_THREADS: usize = 1024;

/// Where the inverted index and the lists of visits of a problem are cut: what has more parts than one is worth a case of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lists {
    /// Chunks of visits, each sorted by one warp.
    pub chunks: usize,
    /// Visits in one segment of a block's list.
    pub segment_visits: usize,
    /// Blocks, and cells of the sort's table, that the scan adds up at once.
    pub scanned_at_once: usize,
}

impl Lists {
    /// Of problems of `shape`.
    pub fn of(shape: &Shape) -> Self {
        let visits = shape.seq_len() * shape.num_sel();
        Lists {
            chunks: visits.div_ceil(CHUNK_VISITS).min((SORT_CELLS / shape.blocks()).max(1)).max(1),
            segment_visits: (SEGMENT_ROWS / shape.sel_groups()).max(1),
            scanned_at_once: SCAN_THREADS,
        }
    }
}

impl Dims {
    /// The sizes of `shape`, and the strides of `views`.
    pub(super) fn new(shape: &Shape, views: &Views, include_diagonal: bool, window: Option<usize>) -> Self {
        let sizes = shape.sizes();
        let (n, q_heads, kv_heads, sel_heads) = (sizes.seq_len, sizes.q_heads, sizes.kv_heads, sizes.sel_heads);
        let visits = n * sizes.num_sel;
        let Lists { chunks, segment_visits, .. } = Lists::of(shape);
        let scale = shape.scale();
        Dims {
            batch: sizes.batch as i64,
            q_heads: q_heads as i64,
            kv_heads: kv_heads as i64,
            sel_heads: sel_heads as i64,
            seq_len: n as i64,
            dim: sizes.dim as i64,
            value_dim: sizes.value_dim as i64,
            block_size: sizes.block_size as i64,
            num_sel: sizes.num_sel as i64,
            blocks: shape.blocks() as i64,
            // A window beyond the sequence sees no more than the sequence.
            window: window.map_or(-1, |window| window.min(n) as i64),
            include_diagonal: i64::from(include_diagonal),
            chunk_visits: visits.div_ceil(chunks).max(1) as i64,
            chunks: chunks as i64,
            segment_visits: segment_visits as i64,
            segments: (shape.blocks().min(visits) + visits / segment_visits) as i64,
            q: views.get(Operand::Q),
            k: views.get(Operand::K),
            v: views.get(Operand::V),
            sel: views.get(Operand::Selection),
            out: views.get(Operand::Out),
            lse: views.get(Operand::Lse),
            d_out: views.get(Operand::DOut),
            d_sliding: views.get(Operand::DSliding),
            d_lse: views.get(Operand::DLse),
            dq: views.get(Operand::Dq),
            dk: views.get(Operand::Dk),
            dv: views.get(Operand::Dv),
            dsel_scale: views.get(Operand::DselScale),
            scale: scale as f32,
            scale_log2: (scale * std::f64::consts::LOG2_E) as f32,
        }
    }

    /// Tasks of the key-outer backward: see `kernels/shared/tasks.cuh`.
    pub(super) fn tasks(&self) -> i64 {
        self.batch * (self.kv_heads * self.blocks + self.sel_heads * self.segments)
    }
}

#[cfg(test)]
mod tests {
    use nsa_corpus::Sizes;

    use super::*;
    use crate::plan::views::Layout;

    /// The names that the kernels' own `struct Dims` declares, in order.
    fn fields_of_the_kernels() -> Vec<String> {
        let text = include_str!("../../kernels/shared/common.cuh");
        let body = text.split("struct Dims {").nth(1).unwrap().split("};").next().unwrap();
        let declarations = body.lines().filter(|line| !line.trim_start().starts_with("//"));
        let joined = declarations.collect::<Vec<_>>().join(" ");
        let names = joined.replace("long long", "").replace("Strides", "").replace("float", "").replace(';', ",");
        names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn the_kernels_declare_the_same_fields_in_the_same_order() {
        assert_eq!(fields_of_the_kernels(), FIELDS);
        assert_eq!(size_of::<Dims>(), 16 * 8 + 13 * 24 + 2 * 4);
    }

    #[test]
    fn the_scan_has_as_many_threads_as_are_told() {
        assert!(
            include_str!("../../kernels/inversion/visit_scan.cu")
                .contains(&format!("#define THREADS {SCAN_THREADS}\n"))
        );
    }

    fn shape(seq_len: usize, block_size: usize, num_sel: usize) -> Shape {
        let (batch, q_heads, kv_heads, dim, value_dim) = (1, 16, 1, 8, 8);
        let sizes = Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads: 1 };
        Shape::new(sizes).unwrap()
    }

    #[test]
    fn chunks_cover_every_visit_and_segments_every_list() {
        for (n, block, sel) in [(1, 1, 0), (1, 1, 1), (507, 32, 6), (32768, 64, 16), (100_000, 1, 3)] {
            let shape = shape(n, block, sel);
            let dims = Dims::new(&shape, &Views::new(&shape, Layout::HeadMajor), true, None);
            let visits = (n * sel) as i64;
            assert!(dims.chunks >= 1 && dims.chunks * dims.chunk_visits >= visits, "{n} {block} {sel}");
            // The worst case: every block has a visit, and all the rest fall on one of them.
            let blocks = dims.blocks.min(visits);
            let rest = visits - blocks;
            let worst = blocks + rest / dims.segment_visits;
            assert!(worst <= dims.segments, "{n} {block} {sel}");
        }
    }
}
