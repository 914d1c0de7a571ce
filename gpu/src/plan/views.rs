//! Where tensors lie in device memory: as views with any strides, so that nobody has to copy what a projection, a cache or
//! a larger batch already holds.

use nsa_corpus::Shape;

use super::extent::{Extent, far_stride};
use crate::error::{Error, Kind};

/// Strides in elements; the last axis has stride 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strides {
    /// From one batch entry to the next.
    pub batch: i64,
    /// From one head to the next.
    pub head: i64,
    /// From one token to the next.
    pub token: i64,
}

/// An axis that has a stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Batch entries.
    Batch,
    /// Heads: query heads, kv heads or selection heads.
    Head,
    /// Tokens.
    Token,
}

impl Axis {
    /// Every axis, outermost first.
    pub const ALL: [Axis; 3] = [Axis::Batch, Axis::Head, Axis::Token];
}

/// A tensor, or tensors of one shape, that kernels take with strides of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operand {
    Q,
    K,
    V,
    /// `indices`, `mask` and `sel_scale`.
    Selection,
    /// `out` and `sliding_out`.
    Out,
    /// `lse` and `sliding_lse`.
    Lse,
    DOut,
    DSliding,
    DLse,
    Dq,
    Dk,
    Dv,
    DselScale,
}

impl Operand {
    /// Every operand.
    pub const ALL: [Operand; 13] = [
        Operand::Q,
        Operand::K,
        Operand::V,
        Operand::Selection,
        Operand::Out,
        Operand::Lse,
        Operand::DOut,
        Operand::DSliding,
        Operand::DLse,
        Operand::Dq,
        Operand::Dk,
        Operand::Dv,
        Operand::DselScale,
    ];

    /// Heads, and elements of the last axis.
    fn sizes(self, shape: &Shape) -> (usize, usize) {
        match self {
            Operand::Q | Operand::Dq => (shape.q_heads(), shape.dim()),
            Operand::K | Operand::Dk => (shape.kv_heads(), shape.dim()),
            Operand::V | Operand::Dv => (shape.kv_heads(), shape.value_dim()),
            Operand::Selection | Operand::DselScale => (shape.sel_heads(), shape.num_sel()),
            Operand::Out | Operand::DOut | Operand::DSliding => (shape.q_heads(), shape.value_dim()),
            Operand::Lse | Operand::DLse => (shape.q_heads(), 1),
        }
    }

    /// Elements along `axis`.
    pub fn count(self, axis: Axis, shape: &Shape) -> usize {
        match axis {
            Axis::Batch => shape.batch(),
            Axis::Head => self.sizes(shape).0,
            Axis::Token => shape.seq_len(),
        }
    }
}

/// How the tensors of a problem lie in memory, as a rule for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// `b h n d`: each head's tokens together.
    #[default]
    HeadMajor,
    /// `b n h d`: each token's heads together, the view that a fused projection gives without a copy.
    TokenMajor,
    /// As [`Layout::HeadMajor`], but the first and the last element along one axis of one operand lie more than 2^32
    /// elements apart: offsets that were computed in 32 bits, with a sign or without, go elsewhere.
    Far {
        /// Whose elements.
        operand: Operand,
        /// Along which axis; one of a single element stays as it is.
        axis: Axis,
    },
}

impl Strides {
    /// Strides of a dense `[batch, heads, tokens, width]` tensor in head-major or token-major order.
    pub fn dense(token_major: bool, heads: usize, tokens: usize, width: usize) -> Self {
        let [heads, tokens, width] = [heads, tokens, width].map(|size| size as i64);
        let batch = heads * tokens * width;
        if token_major {
            Strides { batch, head: width, token: heads * width }
        } else {
            Strides { batch, head: tokens * width, token: width }
        }
    }

    /// Head-major, `axis` outermost, its `count` elements more than 2^32 elements apart from first to last.
    fn far(axis: Axis, [batch, heads, tokens]: [usize; 3], width: usize) -> Self {
        let (mut extent, mut strides, mut count) = (width as i64, Strides::default(), 0);
        for (inner, size) in [(Axis::Token, tokens), (Axis::Head, heads), (Axis::Batch, batch)] {
            if inner == axis {
                count = size as i64;
            } else {
                *strides.along_mut(inner) = extent;
                extent *= size as i64;
            }
        }
        *strides.along_mut(axis) = far_stride(count as usize, extent as usize) as i64;
        strides
    }

    fn along_mut(&mut self, axis: Axis) -> &mut i64 {
        match axis {
            Axis::Batch => &mut self.batch,
            Axis::Head => &mut self.head,
            Axis::Token => &mut self.token,
        }
    }
}

/// The strides of every operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Views([Strides; Operand::ALL.len()]);

impl Views {
    /// Every operand of a problem of `shape`, as `layout` says.
    pub fn new(shape: &Shape, layout: Layout) -> Self {
        let n = shape.seq_len();
        Views(Operand::ALL.map(|each| {
            let (heads, width) = each.sizes(shape);
            match layout {
                Layout::Far { operand, axis } if operand == each => {
                    Strides::far(axis, [shape.batch(), heads, n], width)
                }
                _ => Strides::dense(layout == Layout::TokenMajor, heads, n, width),
            }
        }))
    }

    /// The strides of `operand`.
    pub fn get(&self, operand: Operand) -> Strides {
        self.0[operand as usize]
    }

    /// Replaces the strides of `operand`.
    pub fn set(&mut self, operand: Operand, strides: Strides) {
        self.0[operand as usize] = strides;
    }

    /// Whether every row of `operand` begins at a multiple of `multiple` elements.
    pub(crate) fn aligned(&self, operand: Operand, multiple: usize, shape: &Shape) -> bool {
        let Strides { batch, head, token } = self.get(operand);
        [(Axis::Batch, batch), (Axis::Head, head), (Axis::Token, token)]
            .into_iter()
            .all(|(axis, stride)| operand.count(axis, shape) == 1 || stride % multiple as i64 == 0)
    }

    /// Where the elements of `operand`, of `size` bytes each, lie.
    ///
    /// # Errors
    /// Strides by which rows would overlap, or bytes that cannot be addressed.
    pub(crate) fn extent(&self, operand: Operand, shape: &Shape, size: usize) -> Result<Extent, Error> {
        let (heads, width) = operand.sizes(shape);
        let counts = [shape.batch(), heads, shape.seq_len()];
        let Strides { batch, head, token } = self.get(operand);
        Extent::new(counts, width * size, [batch, head, token], size)
            .map_err(|problem| Kind::Invalid(format!("{operand:?}: {problem}")).into())
    }
}

#[cfg(test)]
mod tests {
    use nsa_corpus::Sizes;

    use super::*;

    fn shape() -> Shape {
        let (q_heads, kv_heads, sel_heads, seq_len, dim, value_dim) = (4, 2, 2, 10, 8, 16);
        let sizes =
            Sizes { batch: 3, q_heads, kv_heads, seq_len, dim, value_dim, block_size: 4, num_sel: 3, sel_heads };
        Shape::new(sizes).unwrap()
    }

    #[test]
    fn a_token_major_view_strides_over_its_heads() {
        assert_eq!(Strides::dense(true, 4, 10, 8), Strides { batch: 320, head: 8, token: 32 });
        assert_eq!(Strides::dense(false, 4, 10, 8), Strides { batch: 320, head: 80, token: 8 });
    }

    #[test]
    fn operands_are_found_by_their_number() {
        for (number, operand) in Operand::ALL.into_iter().enumerate() {
            assert_eq!(operand as usize, number);
        }
    }

    #[test]
    fn rows_of_any_layout_lie_apart_and_are_all_there() {
        let layouts = [Layout::HeadMajor, Layout::TokenMajor];
        for (layout, operand) in layouts.into_iter().flat_map(|layout| Operand::ALL.map(|operand| (layout, operand))) {
            let extent = Views::new(&shape(), layout).extent(operand, &shape(), 2).unwrap();
            assert_eq!(extent.bytes(), extent.filled_bytes(), "{operand:?}");
            let mut numbers: Vec<usize> = extent.rows().map(|(_, number)| number).collect();
            assert!(extent.rows().is_sorted());
            assert_eq!(extent.is_in_order(), layout == Layout::HeadMajor, "{operand:?}");
            numbers.sort_unstable();
            assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn elements_set_apart_are_beyond_what_32_bits_can_tell() {
        for operand in Operand::ALL {
            for axis in Axis::ALL {
                let views = Views::new(&shape(), Layout::Far { operand, axis });
                let Strides { batch, head, token } = views.get(operand);
                let stride = [batch, head, token][axis as usize];
                let last = (operand.count(axis, &shape()) as i64 - 1) * stride;
                assert!(last > 1 << 32, "{operand:?} {axis:?}: {last}");
                assert!(views.aligned(operand, 1, &shape()) && stride % 8 == 0);
                let extent = views.extent(operand, &shape(), 2).unwrap();
                assert!(extent.bytes() > 1 << 33);
                let filled: usize = extent.runs().iter().map(|(start, end)| end - start).sum();
                assert_eq!(filled, extent.filled_bytes());
                assert_eq!(extent.runs().len(), operand.count(axis, &shape()));
                // Nobody else moves.
                let others = Operand::ALL.into_iter().filter(|other| *other != operand);
                let dense = Views::new(&shape(), Layout::HeadMajor);
                others.for_each(|other| assert_eq!(views.get(other), dense.get(other)));
            }
        }
    }

    #[test]
    fn rows_that_overlap_are_refused() {
        let mut views = Views::new(&shape(), Layout::HeadMajor);
        let dense = views.get(Operand::K);
        for (strides, problem) in [
            (Strides { token: 7, ..dense }, "rows overlap: 14 bytes from one to the next, 16 bytes long"),
            (Strides { batch: 0, ..dense }, "rows overlap"),
            (Strides { head: -80, ..dense }, "are no strides"),
            (Strides { batch: i64::MAX, ..dense }, "more bytes than can be addressed"),
            (Strides { batch: i64::MAX / 4, ..dense }, "more bytes than can be addressed"),
        ] {
            views.set(Operand::K, strides);
            let error = views.extent(Operand::K, &shape(), 2).unwrap_err().to_string();
            assert!(error.starts_with("K: ") && error.contains(problem), "{error}");
        }
        views.set(Operand::K, Strides { token: 12, head: 121, batch: 300 });
        assert_eq!(views.extent(Operand::K, &shape(), 2).unwrap().runs().len(), 60);
        assert!(!views.aligned(Operand::K, 8, &shape()));
    }
}
