//! How far a row's `<out, d_out>` may be from the one at hand, where it is not known which `out` the implementation saved
//! (docs/numerics.md, "Where what was saved is not known").
//!
//! Rigorously every feature may be off by its budget, all in one direction. Roundings that do not conspire cannot:
//! `<out, d_out> = sum_t w_t dP_t` is an output of the forward with `dP` in the place of a feature of `v`, so its likely error
//! is the forward's own formula for that feature, and the roundings of the stored features, which have nothing to do with
//! each other.

use std::collections::HashMap;

use nsa_corpus::{BackwardReads, Delta, Inputs};

use super::model::{DEVIATIONS, LIKELY, Model, RIGOROUS, TIERS};
use super::rows::Terms;
use super::saved::{BoundRow, OffRow, Saved, Term};

/// An error of a row's `delta`.
#[derive(Clone, Copy, Default)]
pub(super) struct Shift {
    /// The part that is added up in absolute values, both tiers.
    pub(super) linear: [f64; TIERS],
    /// The other part: none in the rigorous tier.
    pub(super) separate: [f64; TIERS],
    /// The root of the other part's sum of squares: that part is [`DEVIATIONS`] times this, and independent of what rows have that
    /// are not alike.
    pub(super) random: f64,
    /// How many rows are alike.
    pub(super) alike: f64,
}

/// For each row of a (batch, kv head), `[groups, n]`, how many of them have the same `out` in f32, itself included: the same keys
/// with the same weights, as query heads have whose queries are equal. They round alike. Empty where what was saved is known.
pub(super) fn alike(inputs: &Inputs, saved: &Saved<'_>, region: usize) -> Vec<f64> {
    if saved.off.is_none() {
        return Vec::new();
    }
    let shape = inputs.shape();
    let rows = shape.groups() * shape.seq_len();
    let out = &saved.out[region * rows * shape.value_dim()..][..rows * shape.value_dim()];
    // Adding 0 makes both zeros one.
    let bits = |row: &[f64]| row.iter().map(|out| (*out as f32 + 0.0).to_bits()).collect::<Vec<u32>>();
    let keys: Vec<Vec<u32>> = out.chunks_exact(shape.value_dim()).map(bits).collect();
    let mut counts: HashMap<&[u32], f64> = HashMap::new();
    keys.iter().for_each(|key| *counts.entry(key).or_default() += 1.0);
    keys.iter().map(|key| counts[key.as_slice()]).collect()
}

/// What one thread computes in: `|out|`, `d_out` with the sign of `out`, and how far storing may take the feature.
#[derive(Default)]
pub(super) struct Scratch {
    features: Vec<[f64; 3]>,
}

/// What the magnitudes of a row's terms are, as the forward computes them.
pub(super) struct Magnitudes<'a> {
    /// `sum |q k|`.
    pub(super) scores: &'a Terms,
    /// `sum (q k)^2`.
    pub(super) squares: &'a Terms,
    /// `A = sum |d_out v|`.
    pub(super) values: &'a Terms,
}

impl Scratch {
    /// Of the row `g` of those computed together. Nothing where the row's `out` is known, or is not what `delta` is taken from.
    #[inline(always)]
    pub(super) fn shift(
        &mut self,
        model: &Model,
        row: &BoundRow<'_>,
        terms: &[Term],
        magnitudes: &Magnitudes<'_>,
        g: usize,
    ) -> Shift {
        let (Some(off), Some(d_out)) = (row.off, row.d_out) else { return Shift::default() };
        if model.arithmetic.delta == Delta::Probabilities || off.out[RIGOROUS].iter().all(|off| *off == 0.0) {
            return Shift::default();
        }
        let rigorous: f64 = off.out[RIGOROUS].iter().zip(d_out).map(|(off, d_out)| off * d_out.abs()).sum();
        let [linear, cast] = sum_of_weights(model, row, d_out, terms, magnitudes, g);
        let stored = self.stored(model, row, &off, d_out);
        let random = (cast * cast + stored * stored).sqrt();
        // Over a few features, six deviations are more than the worst case.
        let linear = linear.min(rigorous);
        let separate = (DEVIATIONS * random).min(rigorous - linear);
        Shift { linear: [rigorous, linear], separate: [0.0, separate], random, alike: off.alike }
    }

    /// The root of the sum of squares of what storing `out` changes `<out, d_out>` by. Features of one magnitude round alike, so
    /// what they are multiplied by is added first. Where a backward reads its own `out`, only what became of it is at hand: features
    /// of one stored magnitude may have been rounded either way, so they are added without their signs.
    #[inline(always)]
    fn stored(&mut self, model: &Model, row: &BoundRow<'_>, off: &OffRow<'_>, d_out: &[f64]) -> f64 {
        let dtype = model.arithmetic.output;
        let own = model.arithmetic.backward_reads == BackwardReads::Own;
        self.features.clear();
        self.features.extend(row.out.iter().zip(d_out).zip(off.out[LIKELY]).map(|((out, d_out), off)| {
            // A feature that is known has been stored.
            let rounding = if *off == 0.0 { 0.0 } else { model.storing(dtype, *out, *off) };
            let factor = if own {
                d_out.abs()
            } else if *out < 0.0 {
                -d_out
            } else {
                *d_out
            };
            [out.abs(), factor, rounding]
        }));
        self.features.sort_unstable_by(|left, right| left[0].total_cmp(&right[0]));
        let alike = self.features.chunk_by(|left, right| left[0] == right[0]);
        let square = |features: &[[f64; 3]]| {
            let factor: f64 = features.iter().map(|[_, d_out, _]| d_out).sum();
            let rounding = features.iter().map(|[.., rounding]| *rounding).fold(0.0, f64::max);
            (factor * rounding).powi(2)
        };
        alike.map(square).sum::<f64>().sqrt()
    }
}

/// The likely error of `sum w dP` before it is stored: the forward's `core` for a feature with values `dP`, and, apart, the
/// root of the sum of squares of its casts.
#[inline(always)]
fn sum_of_weights(
    model: &Model,
    row: &BoundRow<'_>,
    d_out: &[f64],
    terms: &[Term],
    magnitudes: &Magnitudes<'_>,
    g: usize,
) -> [f64; 2] {
    let score = |t: usize| row.x[t] * row.factors[t] * model.scale;
    let center = (0..terms.len()).map(score).fold(f64::NEG_INFINITY, f64::max);
    let rescalings = row.rescalings(model);
    let constant = (rescalings + 1) as f64 * model.exponential;
    let products = row.out.iter().zip(d_out).map(|(out, d_out)| out * d_out);
    let (product, size): (f64, f64) = (products.clone().sum(), products.map(f64::abs).sum());
    let (mut total, mut centred, mut magnitude, mut plain, mut squares) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (t, term) in terms.iter().enumerate() {
        let (x, s, gradient) = (row.x[t], score(t), row.probability_gradients[t]);
        let error =
            model.score_errors(x, magnitudes.scores.row(g)[t], magnitudes.squares.row(g)[t], row.factors[t])[LIKELY];
        let rounding = 3.0 * model.u * (center - s + s.abs() + center.abs()) + constant;
        let weight_error = term.weight * Model::relative(s - center, error + rounding);
        total += weight_error;
        centred += weight_error * (gradient - product).abs();
        magnitude += term.weight * magnitudes.values.row(g)[t];
        plain += magnitudes.values.row(g)[t];
        squares += (term.weight * gradient).powi(2);
    }
    if !(total < 1.0) {
        return [f64::INFINITY, 0.0];
    }
    let logarithms = model.logarithms(rescalings, center, row.lse - center);
    let accumulation = model.product_constant(terms.len()) + rescalings as f64 * model.u;
    let sums = centred + accumulation * magnitude * (1.0 + total) + model.cast_least * plain;
    let gamma = model.arithmetic.gamma(terms.len() + rescalings + 2) + 3.0 * model.u + logarithms;
    let linear = (sums * (1.0 + logarithms) + gamma * size) / (1.0 - total);
    [linear, model.cast * squares.sqrt() * (1.0 + total) * (1.0 + logarithms) / (1.0 - total)]
}
