//! The forward: `out = sum_t p_t v_t`, `lse = ln sum_t exp(s_t)` with `s_t = scale * factor_t * <q, k_t>`, streamed over
//! the spans of each row without gathering keys or values, and the budget of every element beside it.

use ndarray::Array4;
use nsa_corpus::Inputs;
use pulp::Arch;
use rayon::prelude::*;

use super::exp::exp;
use super::forward_bounds::{self, Row};
use super::kernels::sum;
use super::model::{LIKELY, Model, RIGOROUS, TIERS, cap};
use super::packed::Head;
use super::rows::{Scratch, Terms, gather};
use super::spans::Part;
use super::tiles::{Buffer, Tile, cut};

/// Tokens that one task computes.
const TILE: usize = 16;

/// The forward of one part.
pub(super) struct Forward {
    /// `[b, q_heads, n, value_dim]`.
    pub(super) out: Vec<f64>,
    /// `[b, q_heads, n]`.
    pub(super) lse: Vec<f64>,
    /// Largest score of each row, `[b, q_heads, n]`.
    pub(super) center: Vec<f64>,
    /// `ln` of the row's sum of `exp(s - center)`: `lse = center + offset` before its rounding.
    pub(super) offset: Vec<f64>,
    /// Budgets of `out`, both tiers; empty without a model.
    pub(super) out_bounds: [Vec<f64>; TIERS],
    /// Budgets of `lse`, both tiers; empty without a model.
    pub(super) lse_bounds: [Vec<f64>; TIERS],
}

/// Positions of the buffers within a tile; the tiers of a bound follow each other.
const OUT: usize = 0;
const LSE: usize = 1;
const CENTER: usize = 2;
const OFFSET: usize = 3;
const OUT_BOUNDS: usize = 4;
const LSE_BOUNDS: usize = 6;

impl Forward {
    fn zeros(rows: usize, width: usize, bounded: bool) -> Self {
        let bound = |width: usize| vec![0.0; if bounded { rows * width } else { 0 }];
        Forward {
            out: vec![0.0; rows * width],
            lse: vec![0.0; rows],
            center: vec![0.0; rows],
            offset: vec![0.0; rows],
            out_bounds: std::array::from_fn(|_| bound(width)),
            lse_bounds: std::array::from_fn(|_| bound(1)),
        }
    }

    /// Every array, in the order of the positions above.
    fn buffers(&mut self, heads: usize, width: usize) -> Vec<Buffer<'_>> {
        let mut buffers = Vec::new();
        let mut add = |values, width| buffers.push(Buffer { values, heads, width });
        add(&mut self.out, width);
        [&mut self.lse, &mut self.center, &mut self.offset].into_iter().for_each(|values| add(values, 1));
        self.out_bounds.iter_mut().for_each(|values| add(values, width));
        self.lse_bounds.iter_mut().for_each(|values| add(values, 1));
        buffers
    }
}

/// Computes `part` for every row.
pub(super) fn forward(inputs: &Inputs, heads: &[Head], part: Part, model: Option<&Model>) -> Forward {
    let shape = inputs.shape();
    let (rows, width) = (shape.batch() * shape.q_heads() * shape.seq_len(), shape.value_dim());
    let mut answer = Forward::zeros(rows, width, model.is_some());
    let tiles = cut(answer.buffers(shape.groups(), width), heads.len(), shape.seq_len(), TILE);
    let arch = Arch::new();
    tiles.into_par_iter().for_each_init(Worker::default, |worker, mut tile| {
        let task = Task { inputs, head: &heads[tile.region], part, model };
        arch.dispatch(|| task.tile(worker, &mut tile));
    });
    answer
}

/// Computes `part` for the query heads of one (batch, kv head), number `region`, at token `i` alone: the same bits.
pub(super) fn forward_token(
    inputs: &Inputs,
    head: &Head,
    part: Part,
    model: Option<&Model>,
    [region, i]: [usize; 2],
) -> Forward {
    let (groups, width) = (inputs.shape().groups(), inputs.shape().value_dim());
    let mut answer = Forward::zeros(groups, width, model.is_some());
    for mut tile in cut(answer.buffers(groups, width), 1, 1, 1) {
        (tile.region, tile.first) = (region, i);
        Arch::new().dispatch(|| Task { inputs, head, part, model }.tile(&mut Worker::default(), &mut tile));
    }
    answer
}

/// Rows of query heads `head..head + count` at token `i` of batch entry `b`.
pub(super) fn query_rows(tensor: &Array4<f64>, [b, head, i]: [usize; 3], count: usize) -> Vec<&[f64]> {
    (head..head + count).map(|head| query_row(tensor, [b, head, i])).collect()
}

/// The row of query head `head` at token `i` of batch entry `b`.
#[inline(always)]
pub(super) fn query_row(tensor: &Array4<f64>, [b, head, i]: [usize; 3]) -> &[f64] {
    let (_, heads, tokens, width) = tensor.dim();
    let values = tensor.as_slice().expect("inputs are in standard layout");
    &values[((b * heads + head) * tokens + i) * width..][..width]
}

/// What one thread computes in.
#[derive(Default)]
struct Worker {
    scratch: Scratch,
    x: Terms,
    weights: Terms,
    bounds: forward_bounds::Worker,
}

struct Task<'a> {
    inputs: &'a Inputs,
    head: &'a Head,
    part: Part,
    model: Option<&'a Model>,
}

impl Task<'_> {
    #[inline(always)]
    fn tile(&self, worker: &mut Worker, tile: &mut Tile<'_>) {
        let shape = self.inputs.shape();
        let together = self.part.heads_together(shape);
        for token in 0..tile.tokens {
            for first in (0..shape.groups()).step_by(together) {
                self.rows(worker, tile, token, first, together);
            }
        }
    }

    /// The rows of heads `first..first + count` of the group at one token of the tile.
    #[inline(always)]
    fn rows(&self, worker: &mut Worker, tile: &mut Tile<'_>, token: usize, first: usize, count: usize) {
        let shape = self.inputs.shape();
        let (b, h) = (tile.region / shape.kv_heads(), tile.region % shape.kv_heads());
        let position = [b, h * shape.groups() + first, tile.first + token];
        worker.scratch.list(self.inputs, self.part, position);
        let terms = worker.scratch.terms;
        worker.x.fit(count, terms);
        worker.weights.fit(count, terms);
        let queries = query_rows(self.inputs.q(), position, count);
        worker.scratch.dots(&queries, &self.head.keys, |product| product, &mut worker.x);
        for g in 0..count {
            let [center, total] = self.softmax(worker, g);
            let offset = libm::log(total);
            tile.rows[LSE][first + g][token] = center + offset;
            tile.rows[CENTER][first + g][token] = center;
            tile.rows[OFFSET][first + g][token] = offset;
        }
        let width = shape.value_dim();
        let rows = tile.rows[OUT][first..first + count].iter_mut();
        let mut out: Vec<&mut [f64]> = rows.map(|rows| &mut rows[token * width..][..width]).collect();
        let weights: Vec<&[f64]> = (0..count).map(|g| worker.weights.row(g)).collect();
        gather(&worker.scratch.spans, &self.head.values, &weights, |value| value, &mut out);
        if let Some(model) = self.model {
            worker.bounds.dots(&mut worker.scratch, &self.head.keys, &queries);
            for g in 0..count {
                self.bounds(model, worker, tile, token, [first + g, g]);
            }
        }
    }

    /// Turns the dots of head `g` into weights that sum to 1. Returns the largest score and the sum before division:
    /// `-inf` and 0 for a row without terms.
    #[inline(always)]
    fn softmax(&self, worker: &mut Worker, g: usize) -> [f64; 2] {
        let terms = worker.scratch.terms;
        let scale = self.inputs.shape().scale();
        let weights = &mut worker.weights.row_mut(g)[..terms];
        let mut center = f64::NEG_INFINITY;
        for ((weight, x), factor) in weights.iter_mut().zip(worker.x.row(g)).zip(&worker.scratch.factors) {
            *weight = x * factor * scale;
            center = if *weight > center { *weight } else { center };
        }
        weights.iter_mut().for_each(|weight| *weight = exp(*weight - center));
        let total = sum(weights);
        weights.iter_mut().for_each(|weight| *weight /= total);
        [center, total]
    }

    #[inline(always)]
    fn bounds(&self, model: &Model, worker: &mut Worker, tile: &mut Tile<'_>, token: usize, [row, g]: [usize; 2]) {
        let width = self.inputs.shape().value_dim();
        let out = tile.rows[OUT][row][token * width..][..width].to_vec();
        let forward_row = Row {
            spans: &worker.scratch.spans,
            factors: &worker.scratch.factors,
            x: worker.x.row(g),
            weights: worker.weights.row(g),
            values: &self.head.values,
            out: &out,
            center: tile.rows[CENTER][row][token],
            offset: tile.rows[OFFSET][row][token],
            block_size: self.inputs.shape().block_size(),
        };
        let sums = worker.bounds.sums(model, &forward_row, g);
        for tier in 0..TIERS {
            let bounds = &mut tile.rows[OUT_BOUNDS + tier][row][token * width..][..width];
            sums.out(model, &forward_row, tier, bounds);
            tile.rows[LSE_BOUNDS + tier][row][token] = sums.lse(model, &forward_row, tier);
        }
        for (first, width) in [(OUT_BOUNDS, width), (LSE_BOUNDS, 1)] {
            let (rigorous, likely) = tile.rows.split_at_mut(first + LIKELY);
            let at = token * width..(token + 1) * width;
            cap(&mut likely[0][row][at.clone()], &rigorous[first + RIGOROUS][row][at]);
        }
    }
}
