//! The backward: weights recomputed from the saved lse, gradients accumulated row by row.

use nsa_corpus::Inputs;

use super::forward::{Saved, TilesOf};
use super::head::{Head, Scratch, Tile};
use crate::real::{Real, add_scaled};

/// Sums in the accumulator's precision, without the factor `dim^(-1/2)` on all but `values`.
struct Sums<R> {
    /// `[groups, n, dim]`.
    queries: Vec<R>,
    /// `[padded n, dim]`: what falls on padding is dropped at the end.
    keys: Vec<R>,
    /// `[padded n, value_dim]`.
    values: Vec<R>,
    /// `[sel_heads / kv_heads, n, num_sel]`.
    slots: Vec<R>,
}

/// `dq`, `dk`, `dv`, `dsel_scale` of one kv head, as stored. The selected and the sliding part are summed apart, then
/// added, so that each sum is as long as its own terms.
pub(super) fn run<R: Real>(
    head: &Head<'_, R>,
    inputs: &Inputs,
    selected: &Saved<R>,
    sliding: Option<&(usize, Saved<R>)>,
    scratch: &mut Scratch<R>,
) -> [Vec<f64>; 4] {
    let cotangents = inputs.cotangents();
    let d_out = head.cotangent(cotangents.d_out.as_ref());
    let d_lse = |group, token| head.d_lse(group, token);
    let tiles = |group, token, tiles: &mut Vec<_>| head.selected_tiles(group, token, tiles);
    let mut sums = pass(head, &Pass { saved: selected, d_out: &d_out, d_lse: &d_lse, tiles: &tiles }, scratch);
    scale(&mut sums, head.scale);
    if let (Some((window, saved)), Some(d_sliding)) = (sliding, cotangents.d_sliding.as_ref()) {
        let d_out = head.cotangent(Some(d_sliding));
        let tiles = |_, token, tiles: &mut Vec<_>| head.sliding_tiles(token, *window, tiles);
        let mut part = pass(head, &Pass { saved, d_out: &d_out, d_lse: &|_, _| R::default(), tiles: &tiles }, scratch);
        scale(&mut part, head.scale);
        add_scaled(&mut sums.queries, R::ONE, &part.queries);
        add_scaled(&mut sums.keys, R::ONE, &part.keys);
        add_scaled(&mut sums.values, R::ONE, &part.values);
    }
    let (tokens, gradient) = (head.shape.seq_len(), head.arithmetic.gradient);
    let stored = |sums: &[R], dtype| sums.iter().map(|sum| sum.cast(dtype).widen()).collect();
    [
        stored(&sums.queries, gradient),
        stored(&sums.keys[..tokens * head.shape.dim()], gradient),
        stored(&sums.values[..tokens * head.shape.value_dim()], gradient),
        stored(&sums.slots, head.arithmetic.sel_scale_gradient),
    ]
}

fn scale<R: Real>(sums: &mut Sums<R>, scale: R) {
    for sums in [&mut sums.queries, &mut sums.keys, &mut sums.slots] {
        sums.iter_mut().for_each(|sum| *sum *= scale);
    }
}

/// What one softmax's backward reads.
struct Pass<'a, R> {
    saved: &'a Saved<R>,
    /// `[groups, n, value_dim]`.
    d_out: &'a [R],
    d_lse: &'a dyn Fn(usize, usize) -> R,
    tiles: &'a TilesOf<'a, R>,
}

fn pass<R: Real>(head: &Head<'_, R>, pass: &Pass<'_, R>, scratch: &mut Scratch<R>) -> Sums<R> {
    let shape = &head.shape;
    let (groups, tokens) = (shape.groups(), shape.seq_len());
    let zeros = |len| vec![R::default(); len];
    let sel_heads = shape.sel_heads() / shape.kv_heads();
    let mut sums = Sums {
        queries: zeros(groups * tokens * shape.dim()),
        keys: zeros(shape.padded_len() * shape.dim()),
        values: zeros(shape.padded_len() * shape.value_dim()),
        slots: zeros(sel_heads * tokens * shape.num_sel()),
    };
    for group in 0..groups {
        for token in 0..tokens {
            let row = group * tokens + token;
            let width = shape.value_dim();
            let d_out = &pass.d_out[row * width..(row + 1) * width];
            let out = &pass.saved.out[row * width..(row + 1) * width];
            let delta = d_out.iter().zip(out).fold(R::default(), |sum, (d, out)| sum + *d * *out);
            let row = Row {
                query: head.query(group, token),
                d_out,
                lse: pass.saved.lse[row],
                shift: delta - (pass.d_lse)(group, token),
                index: row,
                slots: (group / shape.sel_groups() * tokens + token) * shape.num_sel(),
            };
            (pass.tiles)(group, token, &mut scratch.tiles);
            let Scratch { tiles, scores, weight_gradients } = scratch;
            for tile in tiles.iter() {
                add_tile(head, &row, tile, scores, weight_gradients, &mut sums);
            }
        }
    }
    sums
}

/// What a row brings to each of its tiles.
struct Row<'a, R> {
    query: &'a [R],
    d_out: &'a [R],
    lse: R,
    /// `delta - d_lse`.
    shift: R,
    /// Position among `[groups, n]`.
    index: usize,
    /// Position of the row's first slot in [`Sums::slots`].
    slots: usize,
}

/// `P = exp(s - lse)`, `dS = P (dP - delta + d_lse)`; then `dv += P d_out`, `dq += c dS k`, `dk += c dS q` with P and
/// `c dS` cast, and `dsel_scale += dS x` without a cast, `x` the unscaled product.
fn add_tile<R: Real>(
    head: &Head<'_, R>,
    row: &Row<'_, R>,
    tile: &Tile<R>,
    products: &mut [R],
    weight_gradients: &mut [R],
    sums: &mut Sums<R>,
) {
    let (dim, width, block_size) = (head.shape.dim(), head.shape.value_dim(), head.shape.block_size());
    let products = &mut products[..tile.keys.len()];
    let weight_gradients = &mut weight_gradients[..tile.keys.len()];
    head.key_products(row.query, tile, products);
    head.value_products(row.d_out, tile, weight_gradients);
    let d_query = &mut sums.queries[row.index * dim..(row.index + 1) * dim];
    let mut d_factor = R::default();
    for ((j, product), d_weight) in tile.keys.clone().zip(products.iter()).zip(weight_gradients.iter()) {
        let weight = (*product * tile.factor * head.scale - row.lse).exp();
        let d_score = weight * (*d_weight - row.shift);
        d_factor += d_score * *product;
        let cast = (d_score * tile.factor).cast(head.arithmetic.probability);
        let key = tile.block * block_size + j;
        add_scaled(d_query, cast, head.key(tile.block, j));
        add_scaled(&mut sums.keys[key * dim..(key + 1) * dim], cast, row.query);
        let weight = weight.cast(head.arithmetic.probability);
        add_scaled(&mut sums.values[key * width..(key + 1) * width], weight, row.d_out);
    }
    if let Some(slot) = tile.slot {
        sums.slots[row.slots + slot] += d_factor;
    }
}
