//! The forward: for each row, tiles are added one by one to a running maximum, sum and output.

use super::head::{Head, Scratch, Tile};
use crate::real::{Real, add_scaled};

/// What the forward stored for one kv head's query heads, rounded to the formats it is stored in.
pub(super) struct Saved<R> {
    /// `[groups, n, value_dim]`.
    pub out: Vec<R>,
    /// `[groups, n]`.
    pub lse: Vec<R>,
}

/// Lists the tiles of the row `(group, token)`.
pub(super) type TilesOf<'a, R> = dyn Fn(usize, usize, &mut Vec<Tile<R>>) + 'a;

/// `out` and `lse` of every row over its tiles.
pub(super) fn run<R: Real>(head: &Head<'_, R>, tiles_of: &TilesOf<'_, R>, scratch: &mut Scratch<R>) -> Saved<R> {
    let (groups, tokens, width) = (head.shape.groups(), head.shape.seq_len(), head.shape.value_dim());
    let mut saved =
        Saved { out: vec![R::default(); groups * tokens * width], lse: Vec::with_capacity(groups * tokens) };
    for (row, out) in saved.out.chunks_exact_mut(width).enumerate() {
        let (group, token) = (row / tokens, row % tokens);
        tiles_of(group, token, &mut scratch.tiles);
        let lse = attend_row(head, head.query(group, token), &scratch.tiles, &mut scratch.scores, out);
        saved.lse.push(lse.cast(head.arithmetic.lse));
    }
    saved
}

/// Fills `out` (zeros on entry) with the stored output and returns the row's lse.
fn attend_row<R: Real>(head: &Head<'_, R>, query: &[R], tiles: &[Tile<R>], scores: &mut [R], out: &mut [R]) -> R {
    if tiles.is_empty() {
        return R::NEG_INFINITY;
    }
    let (mut max, mut sum) = (R::NEG_INFINITY, R::default());
    for tile in tiles {
        let scores = &mut scores[..tile.keys.len()];
        head.key_products(query, tile, scores);
        for score in scores.iter_mut() {
            *score = *score * tile.factor * head.scale;
        }
        let larger = scores.iter().fold(max, |max, score| if *score > max { *score } else { max });
        let shift = finite_shift(larger);
        let rescale = (max - shift).exp();
        max = larger;
        sum *= rescale;
        out.iter_mut().for_each(|value| *value *= rescale);
        for (j, score) in tile.keys.clone().zip(scores.iter()) {
            // The sum takes the weight as computed; only the product with v sees the cast one.
            let weight = (*score - shift).exp();
            sum += weight;
            add_scaled(out, weight.cast(head.arithmetic.probability), head.value(tile.block, j));
        }
    }
    out.iter_mut().for_each(|value| *value = (*value / sum).cast(head.arithmetic.output));
    finite_shift(max) + sum.ln()
}

/// What is subtracted from the scores: nothing while every score so far is -inf, for -inf - -inf would be NaN.
fn finite_shift<R: Real>(max: R) -> R {
    if max == R::NEG_INFINITY { R::default() } else { max }
}
