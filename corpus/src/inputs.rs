//! The tensors of one problem, checked once against each other, widened to `f64`.

use ndarray::{Array, Array3, Array4, Dimension};

use crate::{Dtype, Error, Shape, Sizes};

/// The gradient of the loss with respect to each output, `L = <out, d_out> + <lse, d_lse> + <sliding_out, d_sliding>`.
/// An absent one counts as zero; with all three absent no gradients are asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cotangents {
    /// `[b, q_heads, n, value_dim]`.
    pub d_out: Option<Array4<f64>>,
    /// `[b, q_heads, n]`.
    pub d_lse: Option<Array3<f64>>,
    /// `[b, q_heads, n, value_dim]`; only beside a sliding window.
    pub d_sliding: Option<Array4<f64>>,
}

impl Cotangents {
    /// Whether gradients are asked for.
    pub fn any(&self) -> bool {
        self.d_out.is_some() || self.d_lse.is_some() || self.d_sliding.is_some()
    }
}

/// The tensors of a problem before [`Inputs::new`] has checked them.
#[derive(Clone, Debug)]
pub struct InputParts {
    /// Keys in a block.
    pub block_size: usize,
    /// Whether a query attends to its own block up to itself. Without it a row with no live slot has no keys at all:
    /// `out = 0`, `lse = -inf`, zero gradients.
    pub include_block_causal: bool,
    /// The sliding output's window: query `i` sees keys `j` with `0 <= i - j <= window`. `None`: no sliding output.
    pub sliding_window: Option<usize>,
    /// The format that every floating-point value here is exact in.
    pub dtype: Dtype,
    /// `[b, q_heads, n, dim]`.
    pub q: Array4<f64>,
    /// `[b, kv_heads, n, dim]`.
    pub k: Array4<f64>,
    /// `[b, kv_heads, n, value_dim]`.
    pub v: Array4<f64>,
    /// `[b, sel_heads, n, num_sel]`: the block that each slot selects.
    pub indices: Array4<i64>,
    /// Like `indices`; a slot with `false` takes no part.
    pub mask: Array4<bool>,
    /// Like `indices`; multiplies the slot's scores before the softmax.
    pub sel_scale: Option<Array4<f64>>,
    /// What the gradients are taken of.
    pub cotangents: Cotangents,
}

/// The tensors of one problem: shapes agree, indices are in range, values are exact in [`Inputs::dtype`]. Every tensor
/// is in standard (row-major) layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    shape: Shape,
    dtype: Dtype,
    include_block_causal: bool,
    sliding_window: Option<usize>,
    q: Array4<f64>,
    k: Array4<f64>,
    v: Array4<f64>,
    indices: Array4<u32>,
    mask: Array4<bool>,
    sel_scale: Option<Array4<f64>>,
    cotangents: Cotangents,
}

impl Inputs {
    /// Checks the tensors against each other. Every floating-point value is rounded to `parts.dtype`, so that the
    /// oracle and every candidate start from the same numbers. NaN and infinities are legal.
    ///
    /// # Errors
    /// Sizes that [`Shape::new`] refuses; a tensor whose shape disagrees with the others (both shapes are named); an
    /// index outside `0..blocks`, masked or not (its position is named); a `d_sliding` without a sliding window.
    pub fn new(parts: InputParts) -> Result<Self, Error> {
        let (batch, q_heads, seq_len, dim) = parts.q.dim();
        let (_, kv_heads, key_len, _) = parts.k.dim();
        if key_len != seq_len {
            return Err(Error::invalid(format!("k has {key_len} tokens and q has {seq_len}: they must be equal")));
        }
        let (_, sel_heads, _, num_sel) = parts.indices.dim();
        let value_dim = parts.v.dim().3;
        let block_size = parts.block_size;
        let shape =
            Shape::new(Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads })?;
        check_shapes(&shape, &parts)?;
        if parts.cotangents.d_sliding.is_some() && parts.sliding_window.is_none() {
            return Err(Error::invalid("d_sliding is given, but there is no sliding window"));
        }
        let indices = check_indices(&parts.indices, shape.blocks())?;
        let dtype = parts.dtype;
        let mut inputs = Inputs {
            shape,
            dtype,
            include_block_causal: parts.include_block_causal,
            sliding_window: parts.sliding_window,
            q: standard(parts.q),
            k: standard(parts.k),
            v: standard(parts.v),
            indices,
            mask: standard(parts.mask),
            sel_scale: parts.sel_scale.map(standard),
            cotangents: Cotangents {
                d_out: parts.cotangents.d_out.map(standard),
                d_lse: parts.cotangents.d_lse.map(standard),
                d_sliding: parts.cotangents.d_sliding.map(standard),
            },
        };
        inputs.round();
        Ok(inputs)
    }

    fn round(&mut self) {
        let dtype = self.dtype;
        if dtype == Dtype::F64 {
            return;
        }
        let round = |value: &mut f64| *value = dtype.round(*value);
        for tensor in [Some(&mut self.q), Some(&mut self.k), Some(&mut self.v), self.sel_scale.as_mut()] {
            tensor.into_iter().for_each(|tensor| tensor.par_map_inplace(round));
        }
        for tensor in [self.cotangents.d_out.as_mut(), self.cotangents.d_sliding.as_mut()] {
            tensor.into_iter().for_each(|tensor| tensor.par_map_inplace(round));
        }
        self.cotangents.d_lse.iter_mut().for_each(|tensor| tensor.par_map_inplace(round));
    }

    /// The tensors and options again, to change some and check them anew.
    pub fn into_parts(self) -> InputParts {
        InputParts {
            block_size: self.shape.block_size(),
            include_block_causal: self.include_block_causal,
            sliding_window: self.sliding_window,
            dtype: self.dtype,
            q: self.q,
            k: self.k,
            v: self.v,
            indices: self.indices.mapv(i64::from),
            mask: self.mask,
            sel_scale: self.sel_scale,
            cotangents: self.cotangents,
        }
    }

    /// The checked sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The format that every floating-point value is exact in.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Whether a query attends to its own block up to itself.
    pub fn include_block_causal(&self) -> bool {
        self.include_block_causal
    }

    /// The sliding output's window, `0 <= i - j <= window`; `None`: no sliding output.
    pub fn sliding_window(&self) -> Option<usize> {
        self.sliding_window
    }

    /// Queries `[b, q_heads, n, dim]`.
    pub fn q(&self) -> &Array4<f64> {
        &self.q
    }

    /// Keys `[b, kv_heads, n, dim]`.
    pub fn k(&self) -> &Array4<f64> {
        &self.k
    }

    /// Values `[b, kv_heads, n, value_dim]`.
    pub fn v(&self) -> &Array4<f64> {
        &self.v
    }

    /// Selected blocks `[b, sel_heads, n, num_sel]`, each below [`Shape::blocks`].
    pub fn indices(&self) -> &Array4<u32> {
        &self.indices
    }

    /// Live slots `[b, sel_heads, n, num_sel]`.
    pub fn mask(&self) -> &Array4<bool> {
        &self.mask
    }

    /// Factors of the slots' scores `[b, sel_heads, n, num_sel]`.
    pub fn sel_scale(&self) -> Option<&Array4<f64>> {
        self.sel_scale.as_ref()
    }

    /// What the gradients are taken of.
    pub fn cotangents(&self) -> &Cotangents {
        &self.cotangents
    }
}

fn check_shapes(shape: &Shape, parts: &InputParts) -> Result<(), Error> {
    let Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, num_sel, sel_heads, .. } = shape.sizes();
    let slots = [batch, sel_heads, seq_len, num_sel];
    let rows = [batch, q_heads, seq_len, value_dim];
    let cotangents = &parts.cotangents;
    type Named<'a> = (&'static str, Option<&'a [usize]>, &'a [usize]);
    let expected: [Named<'_>; 8] = [
        ("k", Some(parts.k.shape()), &[batch, kv_heads, seq_len, dim]),
        ("v", Some(parts.v.shape()), &[batch, kv_heads, seq_len, value_dim]),
        ("indices", Some(parts.indices.shape()), &slots),
        ("mask", Some(parts.mask.shape()), &slots),
        ("sel_scale", parts.sel_scale.as_ref().map(|tensor| tensor.shape()), &slots),
        ("d_out", cotangents.d_out.as_ref().map(|tensor| tensor.shape()), &rows),
        ("d_lse", cotangents.d_lse.as_ref().map(|tensor| tensor.shape()), &rows[..3]),
        ("d_sliding", cotangents.d_sliding.as_ref().map(|tensor| tensor.shape()), &rows),
    ];
    for (name, found, expected) in expected {
        if let Some(found) = found.filter(|found| *found != expected) {
            return Err(Error::invalid(format!("{name} has shape {found:?}, expected {expected:?}")));
        }
    }
    Ok(())
}

fn check_indices(indices: &Array4<i64>, blocks: usize) -> Result<Array4<u32>, Error> {
    let outside = |index: i64| usize::try_from(index).map_or(true, |index| index >= blocks);
    if let Some(((b, h, i, s), index)) = indices.indexed_iter().find(|(_, index)| outside(**index)) {
        return Err(Error::invalid(format!(
            "indices[{b}, {h}, {i}, {s}] is {index}, outside the {blocks} blocks 0..{blocks}"
        )));
    }
    // A problem within any limit has fewer than 2^32 blocks.
    Ok(standard(indices.mapv(|index| index as u32)))
}

/// The tensor with its last axis contiguous and nothing between rows: engines read rows as slices.
fn standard<A: Clone, D: Dimension>(tensor: Array<A, D>) -> Array<A, D> {
    if tensor.is_standard_layout() { tensor } else { tensor.as_standard_layout().into_owned() }
}
