//! One kv head with its query heads, laid out for tiles, and which tiles each row visits.

use std::ops::Range;

use ndarray::{Array4, ArrayView2, s};
use nsa_corpus::{Arithmetic, Inputs, Shape};

use crate::real::{Real, add_scaled};

/// The keys of one block that a row attends to.
#[derive(Clone, Debug)]
pub(super) struct Tile<R> {
    /// Which block.
    pub block: usize,
    /// Which of its keys; those beyond the sequence's end are padding, score 0 and value 0.
    pub keys: Range<usize>,
    /// What their scores are multiplied by, beside `dim^(-1/2)`.
    pub factor: R,
    /// The selection slot, unless the tile is the diagonal's or the sliding window's.
    pub slot: Option<usize>,
}

/// One batch entry's kv head, and the query heads that read it.
pub(super) struct Head<'a, R> {
    inputs: &'a Inputs,
    batch: usize,
    kv_head: usize,
    pub shape: Shape,
    pub arithmetic: Arithmetic,
    pub scale: R,
    /// `[groups, n, dim]`.
    queries: Vec<R>,
    keys: Blocks<R>,
    values: Blocks<R>,
}

/// Keys or values padded to whole blocks with zeros, in both orders.
struct Blocks<R> {
    width: usize,
    block_size: usize,
    /// `[block, j, d]`.
    rows: Vec<R>,
    /// `[block, d, j]`.
    columns: Vec<R>,
}

/// One tile's worth of numbers, allocated once for each head.
pub(super) struct Scratch<R> {
    pub tiles: Vec<Tile<R>>,
    pub scores: Vec<R>,
    pub weight_gradients: Vec<R>,
}

impl<R: Real> Scratch<R> {
    pub(super) fn new(shape: &Shape) -> Self {
        let tile = vec![R::default(); shape.block_size()];
        Scratch { tiles: Vec::new(), scores: tile.clone(), weight_gradients: tile }
    }
}

impl<'a, R: Real> Head<'a, R> {
    pub(super) fn new(inputs: &'a Inputs, batch: usize, kv_head: usize) -> Self {
        let shape = *inputs.shape();
        let one = |tensor: &Array4<f64>| Blocks::new(tensor.slice(s![batch, kv_head, .., ..]), &shape);
        Head {
            inputs,
            batch,
            kv_head,
            shape,
            arithmetic: super::arithmetic(inputs.dtype()),
            scale: R::narrow(shape.scale()),
            queries: query_heads(inputs.q(), &shape, batch, kv_head),
            keys: one(inputs.k()),
            values: one(inputs.v()),
        }
    }

    /// `[groups, n, value_dim]` of this head's query heads; zeros where there is no such cotangent.
    pub(super) fn cotangent(&self, tensor: Option<&Array4<f64>>) -> Vec<R> {
        let rows = self.shape.groups() * self.shape.seq_len();
        match tensor {
            Some(tensor) => query_heads(tensor, &self.shape, self.batch, self.kv_head),
            None => vec![R::default(); rows * self.shape.value_dim()],
        }
    }

    /// Cotangent of one row's lse.
    pub(super) fn d_lse(&self, group: usize, token: usize) -> R {
        let d_lse = self.inputs.cotangents().d_lse.as_ref();
        d_lse.map_or(R::default(), |d_lse| R::narrow(d_lse[[self.batch, self.query_head(group), token]]))
    }

    fn query_head(&self, group: usize) -> usize {
        self.kv_head * self.shape.groups() + group
    }

    /// The query of one row.
    pub(super) fn query(&self, group: usize, token: usize) -> &[R] {
        let dim = self.shape.dim();
        let first = (group * self.shape.seq_len() + token) * dim;
        &self.queries[first..first + dim]
    }

    /// The diagonal up to the token, then the live slots in order, each as often as it occurs.
    pub(super) fn selected_tiles(&self, group: usize, token: usize, tiles: &mut Vec<Tile<R>>) {
        let block_size = self.shape.block_size();
        tiles.clear();
        if self.inputs.include_block_causal() {
            let keys = 0..token % block_size + 1;
            tiles.push(Tile { block: token / block_size, keys, factor: R::ONE, slot: None });
        }
        let sel_head = self.query_head(group) / self.shape.sel_groups();
        for slot in 0..self.shape.num_sel() {
            let at = [self.batch, sel_head, token, slot];
            if self.inputs.mask()[at] {
                let factor = self.inputs.sel_scale().map_or(R::ONE, |sel_scale| R::narrow(sel_scale[at]));
                let block = self.inputs.indices()[at] as usize;
                tiles.push(Tile { block, keys: 0..block_size, factor, slot: Some(slot) });
            }
        }
    }

    /// The keys from `token - window` to `token`, split where blocks end.
    pub(super) fn sliding_tiles(&self, token: usize, window: usize, tiles: &mut Vec<Tile<R>>) {
        let block_size = self.shape.block_size();
        tiles.clear();
        let mut first = token.saturating_sub(window);
        while first <= token {
            let (block, start) = (first / block_size, first - first % block_size);
            let end = (start + block_size).min(token + 1);
            tiles.push(Tile { block, keys: first - start..end - start, factor: R::ONE, slot: None });
            first = end;
        }
    }

    /// `products[j] = <query, k_j>` for the tile's keys.
    pub(super) fn key_products(&self, query: &[R], tile: &Tile<R>, products: &mut [R]) {
        self.keys.products(query, tile, products);
    }

    /// `products[j] = <row, v_j>` for the tile's keys.
    pub(super) fn value_products(&self, row: &[R], tile: &Tile<R>, products: &mut [R]) {
        self.values.products(row, tile, products);
    }

    /// Key `j` of a block.
    pub(super) fn key(&self, block: usize, j: usize) -> &[R] {
        self.keys.row(block, j)
    }

    /// Value `j` of a block.
    pub(super) fn value(&self, block: usize, j: usize) -> &[R] {
        self.values.row(block, j)
    }
}

impl<R: Real> Blocks<R> {
    fn new(tensor: ArrayView2<'_, f64>, shape: &Shape) -> Self {
        let (width, block_size) = (tensor.dim().1, shape.block_size());
        let mut rows: Vec<R> = tensor.iter().map(|value| R::narrow(*value)).collect();
        rows.resize(shape.padded_len() * width, R::default());
        let mut columns = vec![R::default(); rows.len()];
        for (row, values) in rows.chunks_exact(width).enumerate() {
            let first = (row / block_size) * block_size * width + row % block_size;
            for (d, value) in values.iter().enumerate() {
                columns[first + d * block_size] = *value;
            }
        }
        Blocks { width, block_size, rows, columns }
    }

    fn row(&self, block: usize, j: usize) -> &[R] {
        let first = (block * self.block_size + j) * self.width;
        &self.rows[first..first + self.width]
    }

    /// Feature by feature, so that all keys of the tile are summed side by side.
    fn products(&self, row: &[R], tile: &Tile<R>, products: &mut [R]) {
        products.fill(R::default());
        let block = &self.columns[tile.block * self.block_size * self.width..];
        for (value, column) in row.iter().zip(block.chunks_exact(self.block_size)) {
            add_scaled(products, *value, &column[tile.keys.clone()]);
        }
    }
}

/// The query heads of one kv head: `[groups, n, width]`.
fn query_heads<R: Real>(tensor: &Array4<f64>, shape: &Shape, batch: usize, kv_head: usize) -> Vec<R> {
    let first = kv_head * shape.groups();
    tensor.slice(s![batch, first..first + shape.groups(), .., ..]).iter().map(|value| R::narrow(*value)).collect()
}
