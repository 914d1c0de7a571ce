//! Error budgets of `out` and `lse` (docs/numerics.md): what a correct implementation of the declared arithmetic can be
//! off by, element by element.
//!
//! `eps_t = expm1(E_t + 3u (m - s_t + |s_t| + |m|) + (N_b + 1) exponential)` bounds the relative error of a weight, `S = sum w eps`, and
//! `core = [sum w eps |v - out| + (u_P + c_n + N_b u) W (1 + S) + (gamma + 3u) |out|] / (1 - S)` that of `out`. Its first
//! term is centred: an error common to all weights cancels.

use super::kernels::{PANEL, sum};
use super::model::{LIKELY, Model, RIGOROUS, TIERS};
use super::packed::Packed;
use super::rows::{Scratch, Terms};
use super::spans::Span;

/// One row of the forward, as computed.
pub(super) struct Row<'a> {
    pub(super) spans: &'a [Span],
    pub(super) factors: &'a [f64],
    /// `<q, k_t>`.
    pub(super) x: &'a [f64],
    /// Softmax weights.
    pub(super) weights: &'a [f64],
    pub(super) values: &'a Packed,
    pub(super) out: &'a [f64],
    pub(super) center: f64,
    pub(super) offset: f64,
    pub(super) block_size: usize,
}

/// What one thread computes budgets in.
#[derive(Default)]
pub(super) struct Worker {
    magnitude: Terms,
    square: Terms,
    /// `w_t eps_t` of both tiers; of order alone, `w_t (1 + eps_t) o_t` in the place of the likely one.
    errors: [Vec<f64>; TIERS],
    sums: Sums,
}

/// Sums over the terms of a row.
#[derive(Default)]
pub(super) struct Sums {
    terms: usize,
    rescalings: usize,
    /// `S = sum w eps` of both tiers.
    total: [f64; TIERS],
    /// For each feature: `sum |v|`, `W = sum w |v|`, `sum (w v)^2`.
    plain: [Vec<f64>; 3],
    /// For each feature: `sum w eps |v - out|` of both tiers.
    centred: [Vec<f64>; TIERS],
}

impl Worker {
    /// `sum |q k|` and `sum (q k)^2` of every term, for the heads computed together.
    #[inline(always)]
    pub(super) fn dots(&mut self, scratch: &mut Scratch, keys: &Packed, queries: &[&[f64]]) {
        self.magnitude.fit(queries.len(), scratch.terms);
        self.square.fit(queries.len(), scratch.terms);
        scratch.dots(queries, keys, f64::abs, &mut self.magnitude);
        scratch.dots(queries, keys, |product| product * product, &mut self.square);
    }

    /// The sums that the budgets of head `g`'s row need.
    #[inline(always)]
    pub(super) fn sums(&mut self, model: &Model, row: &Row<'_>, g: usize) -> &Sums {
        let Worker { magnitude, square, errors, sums } = self;
        sums.terms = row.factors.len();
        sums.rescalings = model.rescalings(row.spans.iter().map(|span| span.len), row.block_size);
        let constant = (sums.rescalings + 1) as f64 * model.exponential;
        errors.iter_mut().for_each(|errors| errors.resize(sums.terms, 0.0));
        for t in 0..sums.terms {
            let score = row.x[t] * row.factors[t] * model.scale;
            let score_errors = model.score_errors(row.x[t], magnitude.row(g)[t], square.row(g)[t], row.factors[t]);
            let rounding = 3.0 * model.u * (row.center - score + score.abs() + row.center.abs()) + constant;
            let relative = |error: f64| Model::relative(score - row.center, error + rounding);
            for tier in 0..TIERS {
                errors[tier][t] = row.weights[t] * relative(score_errors[tier]);
            }
            if model.order_only {
                // A score does not depend on the order of its row's terms, so its error is the same in every run.
                errors[LIKELY][t] = (row.weights[t] + errors[RIGOROUS][t]) * relative(0.0);
            }
        }
        sums.total = std::array::from_fn(|tier| sum(&errors[tier]));
        sums.add_values(row, errors);
        sums
    }
}

impl Sums {
    /// The sums over terms for every feature, spans in order.
    #[inline(always)]
    fn add_values(&mut self, row: &Row<'_>, errors: &[Vec<f64>; TIERS]) {
        let width = row.out.len();
        for sums in self.plain.iter_mut().chain(&mut self.centred) {
            sums.clear();
            sums.resize(width, 0.0);
        }
        let mut term = 0;
        for span in row.spans {
            let rows = row.values.rows(span.start, span.len);
            let weights =
                [&row.weights[term..], &errors[0][term..], &errors[1][term..]].map(|weights| &weights[..span.len]);
            let mut d = 0;
            while width - d >= PANEL {
                self.add_lanes::<PANEL>(row.out, rows, weights, d);
                d += PANEL;
            }
            while d < width {
                self.add_lanes::<1>(row.out, rows, weights, d);
                d += 1;
            }
            term += span.len;
        }
    }

    #[inline(always)]
    fn add_lanes<const L: usize>(&mut self, out: &[f64], rows: &[f64], weights: [&[f64]; 3], d: usize) {
        let mut plain = [[0.0; L]; 3];
        let mut centred = [[0.0; L]; TIERS];
        for (t, row) in rows.chunks_exact(out.len()).enumerate() {
            let lanes = &row[d..d + L];
            for lane in 0..L {
                let value = lanes[lane];
                let weighted = weights[0][t] * value;
                plain[0][lane] += value.abs();
                plain[1][lane] += weighted.abs();
                plain[2][lane] += weighted * weighted;
                let distance = (value - out[d + lane]).abs();
                centred[0][lane] += weights[1][t] * distance;
                centred[1][lane] += weights[2][t] * distance;
            }
        }
        for (sums, lanes) in self.plain.iter_mut().zip(plain).chain(self.centred.iter_mut().zip(centred)) {
            for lane in 0..L {
                sums[d + lane] += lanes[lane];
            }
        }
    }

    /// `B_out` of one tier, for every feature of the row.
    #[inline(always)]
    pub(super) fn out(&self, model: &Model, row: &Row<'_>, tier: usize, bounds: &mut [f64]) {
        for (d, bound) in bounds.iter_mut().enumerate() {
            *bound = if model.order_only {
                self.out_order(model, row, d)
            } else {
                model.stored(model.arithmetic.output, row.out[d], self.core(model, row, tier, d))
            };
        }
    }

    /// The error of one feature of `out` before it is stored.
    #[inline(always)]
    fn core(&self, model: &Model, row: &Row<'_>, tier: usize, d: usize) -> f64 {
        let total = self.total[tier];
        let [values, weighted, squares] = [0, 1, 2].map(|index| self.plain[index][d]);
        let cast = if tier == LIKELY { model.cast_deviation() * squares.sqrt() } else { model.cast * weighted };
        let products = (cast + self.constant(model) * weighted) * (1.0 + total) + model.cast_least * values;
        let sums = (self.centred[tier][d] + products) * (1.0 + self.logarithms(model, row));
        let numerator = sums + self.gamma(model, row) * row.out[d].abs();
        if total < 1.0 { numerator / (1.0 - total) } else { f64::INFINITY }
    }

    /// How far one run's order of additions takes a feature of `out` from the exact sums over its own scores, with
    /// `O = sum w (1 + eps) o`: `[sum w (1 + eps) o (|v - out| + core) + ...] / (1 - S - O)`.
    #[inline(always)]
    fn out_order(&self, model: &Model, row: &Row<'_>, d: usize) -> f64 {
        let [total, order] = self.total;
        let [values, weighted, _] = [0, 1, 2].map(|index| self.plain[index][d]);
        let core = self.core(model, row, RIGOROUS, d);
        let centred = self.centred[LIKELY][d] + order * core;
        let products =
            (model.cast + self.constant(model)) * weighted * (1.0 + total + order) + model.cast_least * values;
        let numerator = centred + products + self.gamma(model, row) * (row.out[d].abs() + core);
        let bound = if total + order < 1.0 { numerator / (1.0 - total - order) } else { f64::INFINITY };
        if bound.is_nan() { f64::INFINITY } else { bound }
    }

    /// Constant of the sum `sum w v`.
    #[inline(always)]
    fn constant(&self, model: &Model) -> f64 {
        model.product_constant(self.terms) + self.rescalings as f64 * model.u
    }

    /// Constant of the sum `sum w` and of the division by it.
    #[inline(always)]
    fn gamma(&self, model: &Model, row: &Row<'_>) -> f64 {
        model.arithmetic.gamma(self.terms + self.rescalings + 2) + 3.0 * model.u + self.logarithms(model, row)
    }

    /// What keeping the sum's logarithm adds to it.
    #[inline(always)]
    fn logarithms(&self, model: &Model, row: &Row<'_>) -> f64 {
        model.logarithms(self.rescalings, row.center, row.offset)
    }

    /// `B_lse` of one tier: `-log1p(-S) + gamma + 4u (|m| + |ln l| + |lse|) + exponential |ln l| + 2u`. A row without
    /// terms has no budget: its `-inf` is exact.
    #[inline(always)]
    pub(super) fn lse(&self, model: &Model, row: &Row<'_>, tier: usize) -> f64 {
        if self.terms == 0 {
            return 0.0;
        }
        let error = self.lse_error(model, row, self.total[tier], 0.0);
        if model.order_only {
            let [total, order] = self.total;
            // Only the sum differs between runs; its logarithm is taken of a number that is off by `error`.
            let bound = self.lse_error(model, row, if total < 1.0 { order / (1.0 - total) } else { 1.0 }, error);
            return if bound.is_nan() { f64::INFINITY } else { bound };
        }
        model.stored(model.arithmetic.lse, row.center + row.offset, error)
    }

    /// The error of `lse` before it is stored, for weights that err by `total` in all, where `lse` itself is off by `off`.
    #[inline(always)]
    fn lse_error(&self, model: &Model, row: &Row<'_>, total: f64, off: f64) -> f64 {
        let weights = if total < 1.0 { -libm::log1p(-total) } else { f64::INFINITY };
        let lse = row.center + row.offset;
        let rounding = 4.0 * model.u * (row.center.abs() + row.offset.abs() + lse.abs() + 3.0 * off);
        let gamma = model.arithmetic.gamma(self.terms + self.rescalings + 2) + self.logarithms(model, row);
        weights + gamma + rounding + model.exponential * (row.offset.abs() + off) + 2.0 * model.u
    }
}
