//! Error budgets of the gradients (docs/numerics.md), given the `out` and `lse` that the implementation itself saved.
//!
//! `eps_t = expm1(E_t + 4u (|s_t - lse| + |s_t| + |lse|) + exponential)` bounds the relative error of `P_t`, and
//! `F_t = P_t [(1 + eps) (c_d A_t + delta error + 3u |dP_t - delta|) + eps |dP_t - delta|]` that of `dS_t`, with
//! `A_t = sum |d_out v|`; `F' = |c| F + u |c dS|` is the error of what is cast and multiplied by keys and queries. Where it is not
//! known what the implementation saved, `eps_t` and the delta error also hold how far that may be from what is at hand.

use nsa_corpus::Delta;

use super::delta_bounds::{self, Magnitudes, Shift};
use super::exp::exp;
use super::kernels::weighted_sum;
use super::model::{LIKELY, Model, RIGOROUS, TIERS};
use super::packed::Head;
use super::rows::{Scratch, Terms};
use super::saved::{ARRAYS, BoundRow, Term, TokenRows};
use super::spans::Span;

impl TokenRows {
    /// Makes every budget that this row adds to infinite.
    fn promise_nothing(&mut self, row: &BoundRow<'_>, head: usize) {
        let (dim, terms) = (row.shape.dim(), row.factors.len());
        let slots = head / row.shape.sel_groups() * row.shape.num_sel();
        for tier in 1..=TIERS {
            self.score_gradients[tier].row_mut(head)[..terms].fill(f64::INFINITY);
            self.weights[tier].row_mut(head)[..terms].fill(f64::INFINITY);
            self.dq[tier][head * dim..(head + 1) * dim].fill(f64::INFINITY);
            for slot in row.spans.iter().filter_map(|span| span.slot) {
                self.dsel_scale[tier][slots + slot] = f64::INFINITY;
            }
        }
        self.score_gradients[ARRAYS - 1].row_mut(head)[..terms].fill(0.0);
        self.weights[ARRAYS - 1].row_mut(head)[..terms].fill(0.0);
    }
}

/// What one thread computes budgets in.
#[derive(Default)]
pub(super) struct Worker {
    magnitude: Terms,
    square: Terms,
    value_magnitude: Terms,
    terms: Vec<Term>,
    delta: delta_bounds::Scratch,
    /// For each term, `|c| P` over all of the row's terms with the same key.
    key_weights: Vec<f64>,
    /// Coefficients of `|k|`, both tiers, and of `k^2`.
    key_coefficients: [Vec<f64>; 3],
    row: Vec<f64>,
}

impl Worker {
    /// `sum |q k|`, `sum (q k)^2` and `sum |d_out v|` of every term, for the heads computed together.
    #[inline(always)]
    pub(super) fn dots(&mut self, scratch: &mut Scratch, head: &Head, queries: &[&[f64]], d_out: Option<&[&[f64]]>) {
        for terms in [&mut self.magnitude, &mut self.square, &mut self.value_magnitude] {
            terms.fit(queries.len(), scratch.terms);
        }
        scratch.dots(queries, &head.keys, f64::abs, &mut self.magnitude);
        scratch.dots(queries, &head.keys, |product| product * product, &mut self.square);
        match d_out {
            Some(d_out) => scratch.dots(d_out, &head.values, f64::abs, &mut self.value_magnitude),
            None => (0..queries.len()).for_each(|g| self.value_magnitude.row_mut(g).fill(0.0)),
        }
    }

    /// The error coefficients and sums of the row of `head`, number `g` of those computed together.
    ///
    /// Where `d_out` is absent an implementation may skip the row's products or take them with zeros. The two differ only
    /// if something in the row is not finite; then nothing is promised of what the row reaches.
    #[inline(always)]
    pub(super) fn row(&mut self, model: &Model, row: &BoundRow<'_>, g: usize, head: usize, token: &mut TokenRows) {
        let terms = row.factors.len();
        let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
        let usable = terms == 0 || row.lse < f64::INFINITY && finite(row.out) && finite(&row.x[..terms]);
        if row.d_out.is_none() && !usable {
            token.promise_nothing(row, head);
            return;
        }
        self.weights(model, row, g);
        let Worker { magnitude, square, value_magnitude, terms, delta, .. } = self;
        let magnitudes = Magnitudes { scores: magnitude, squares: square, values: value_magnitude };
        let shift = delta.shift(model, row, terms, &magnitudes, g);
        self.gradients(model, row, g, &shift);
        self.coefficients(model, row, head, token);
        self.keys(row, head, token);
        self.slots(model, row, g, head, token);
        if shift.random > 0.0 || shift.random.is_nan() {
            self.shifted(model, row, &shift, head, token);
        }
    }

    /// `P_t`, `dP_t - delta` and `eps_t`.
    #[inline(always)]
    fn weights(&mut self, model: &Model, row: &BoundRow<'_>, g: usize) {
        self.terms.clear();
        let lse_off = row.off.map_or([0.0; TIERS], |off| off.lse);
        for (t, factor) in row.factors.iter().enumerate() {
            let score = row.x[t] * factor * model.scale;
            let score_errors = model.score_errors(row.x[t], self.magnitude.row(g)[t], self.square.row(g)[t], *factor);
            let size = (score - row.lse).abs() + score.abs() + row.lse.abs();
            let relative = |tier: usize| {
                let rounding = 4.0 * model.u * (size + 2.0 * lse_off[tier]) + model.exponential;
                Model::relative(score - row.lse, score_errors[tier] + rounding + lse_off[tier])
            };
            self.terms.push(Term {
                weight: exp(score - row.lse),
                difference: row.probability_gradients[t] - row.delta,
                relative: std::array::from_fn(relative),
                gradient_errors: [0.0; TIERS],
            });
        }
    }

    /// `F_t` of both tiers; but for the random part of `shift` alone, which is [`Worker::shifted`]'s.
    #[inline(always)]
    fn gradients(&mut self, model: &Model, row: &BoundRow<'_>, g: usize, shift: &Shift) {
        for tier in 0..TIERS {
            let (linear, separate) = (shift.linear[tier], shift.separate[tier]);
            let moved = linear + separate;
            let delta_error = self.delta_error(model, row, g, tier, moved) + linear;
            for (t, term) in self.terms.iter_mut().enumerate() {
                let difference = term.difference.abs();
                let plain = model.value_dot * self.value_magnitude.row(g)[t]
                    + model.value_underflow
                    + delta_error
                    + 3.0 * model.u * (difference + moved);
                let relative = term.relative[tier];
                let difference = difference + separate;
                // A weight below the normal range errs absolutely instead.
                let underflow = model.flush * (1.0 + plain + difference);
                term.gradient_errors[tier] =
                    term.weight * ((1.0 + relative) * plain + relative * difference) + underflow;
            }
        }
    }

    /// The error of `delta - d_lse`, where `<out, d_out>` has `moved` by that much from the one at hand.
    #[inline(always)]
    fn delta_error(&self, model: &Model, row: &BoundRow<'_>, g: usize, tier: usize, moved: f64) -> f64 {
        let Some(d_out) = row.d_out else { return 0.0 };
        let size: f64 = row.out.iter().zip(d_out).map(|(out, d_out)| (out * d_out).abs()).sum();
        let d_lse: f64 = row.out.iter().zip(d_out).map(|(out, d_out)| out * d_out).sum::<f64>() - row.delta;
        let from_output = (d_out.len() as f64 + 2.0) * model.u * (size + moved) + 2.0 * model.u * d_lse.abs();
        match model.arithmetic.delta {
            Delta::Output => from_output,
            Delta::Probabilities => {
                let (mut mean, mut sum, mut error) = (0.0, 0.0, 0.0);
                for (t, term) in self.terms.iter().enumerate() {
                    let gradient = row.probability_gradients[t];
                    mean += term.weight * gradient;
                    sum += term.weight * gradient.abs();
                    let dot = model.value_dot * self.value_magnitude.row(g)[t];
                    error += term.weight * (term.relative[tier] * gradient.abs() + (1.0 + term.relative[tier]) * dot);
                }
                let difference = (mean - (row.delta + d_lse)).abs();
                from_output + difference + error + model.arithmetic.gamma(self.terms.len() + 2) * (sum + error)
            }
        }
    }

    /// The coefficients that `dk` takes `|q|` and `q^2` with, `dv` `|d_out|` and its square, and `dq` `|k|` and `k^2`.
    #[inline(always)]
    fn coefficients(&mut self, model: &Model, row: &BoundRow<'_>, head: usize, token: &mut TokenRows) {
        let row_constant = model.product_constant(row.row_terms) + (row.rescalings(model) + 4) as f64 * model.u;
        self.key_coefficients.iter_mut().for_each(|values| values.resize(self.terms.len(), 0.0));
        let keys = row.spans.iter().flat_map(|span| span.start..span.start + span.len);
        for (t, key) in keys.enumerate() {
            let term = self.terms[t];
            let factor = row.factors[t].abs();
            let size = factor * (term.weight * term.difference).abs();
            let key_constant = model.product_constant(row.key_counts[key]);
            let mut largest = 0.0f64;
            for tier in 0..TIERS {
                let error = factor * term.gradient_errors[tier] + model.u * size;
                largest = largest.max(size + error);
                let cast = if tier == RIGOROUS { model.cast * (size + error) } else { 0.0 };
                let each = |constant: f64| {
                    let sum = match model.order_only {
                        false => model.scale * (error + cast + constant * (size + error)) + model.cast_least,
                        true => model.scale * constant * (size + error + cast),
                    };
                    if size + error > model.cast_max { f64::INFINITY } else { sum }
                };
                self.key_coefficients[tier][t] = each(row_constant);
                token.score_gradients[1 + tier].row_mut(head)[t] = each(key_constant + 6.0 * model.u);
                let weight = term.weight * (1.0 + term.relative[tier]);
                let cast = if tier == RIGOROUS { model.cast * weight } else { 0.0 };
                let constant = key_constant + model.value_gradient_heads + 2.0 * model.u;
                token.weights[1 + tier].row_mut(head)[t] = match model.order_only {
                    false => term.weight * term.relative[tier] + cast + model.cast_least + constant * weight,
                    true => constant * (weight + cast),
                };
            }
            let cast = model.cast * model.scale * largest;
            self.key_coefficients[LIKELY + 1][t] = cast * cast;
            token.score_gradients[ARRAYS - 1].row_mut(head)[t] = cast * cast;
            let cast = model.cast * term.weight * (1.0 + term.relative[RIGOROUS]);
            token.weights[ARRAYS - 1].row_mut(head)[t] = cast * cast;
        }
    }

    /// Adds up the error of `dq`.
    #[inline(always)]
    fn keys(&mut self, row: &BoundRow<'_>, head: usize, token: &mut TokenRows) {
        let dim = row.shape.dim();
        self.row.resize(dim, 0.0);
        for array in 0..ARRAYS - 1 {
            self.row.fill(0.0);
            let mut term = 0;
            for span in row.spans {
                let keys = row.keys.rows(span.start, span.len);
                let coefficients = [&self.key_coefficients[array][term..term + span.len]];
                if array == ARRAYS - 2 {
                    weighted_sum::<1>(coefficients, keys, |key| key * key, [&mut self.row]);
                } else {
                    weighted_sum::<1>(coefficients, keys, f64::abs, [&mut self.row]);
                }
                term += span.len;
            }
            token.dq[1 + array][head * dim..(head + 1) * dim].copy_from_slice(&self.row);
        }
    }

    /// Adds the squares of what the random part of `shift` changes: all of the row's terms at once. What it changes of a sum over
    /// them is that sum of `scale c P`, signs and all. What `m` rows that are alike add to one element is at most the root of `m`
    /// times their sum of squares.
    #[inline(always)]
    fn shifted(&mut self, model: &Model, row: &BoundRow<'_>, shift: &Shift, head: usize, token: &mut TokenRows) {
        let (dim, random) = (row.shape.dim(), shift.random * model.scale);
        let together = random * shift.alike.sqrt();
        let Worker { terms, key_weights, key_coefficients, row: sums, .. } = self;
        let weights = &mut key_coefficients[0];
        let products = terms.iter().zip(row.factors).map(|(term, factor)| term.weight * factor);
        weights.iter_mut().zip(products).for_each(|(weight, product)| *weight = product);
        sums.fill(0.0);
        let mut first = 0;
        for span in row.spans {
            let keys = row.keys.rows(span.start, span.len);
            weighted_sum::<1>([&weights[first..first + span.len]], keys, |key| key, [&mut *sums]);
            if let Some(slot) = span.slot {
                let of_slot = first..first + span.len;
                let sum: f64 = of_slot.map(|t| terms[t].weight * row.x[t]).sum();
                token.dsel_scale[ARRAYS - 1][head / row.shape.sel_groups() * row.shape.num_sel() + slot] +=
                    (together * sum).powi(2);
            }
            first += span.len;
        }
        let squares = &mut token.dq[ARRAYS - 1][head * dim..(head + 1) * dim];
        squares.iter_mut().zip(&*sums).for_each(|(square, sum)| *square += (random * sum).powi(2));
        add_by_key(row.spans, weights, key_weights);
        let squares = token.score_gradients[ARRAYS - 1].row_mut(head);
        for ((square, weight), of_key) in squares.iter_mut().zip(&*weights).zip(&*key_weights) {
            *square += (together * weight.abs()) * (together * of_key);
        }
    }

    /// Adds up the error of `dsel_scale`: `scale sum (F |x| + (|dS| + F) (dot error + 3u |x|))` and the error of the sum.
    #[inline(always)]
    fn slots(&mut self, model: &Model, row: &BoundRow<'_>, g: usize, head: usize, token: &mut TokenRows) {
        let slots = head / row.shape.sel_groups() * row.shape.num_sel();
        let gamma = model.arithmetic.gamma(row.shape.block_size() + row.shape.sel_groups() + 2);
        let mut first = 0;
        for span in row.spans {
            if let Some(slot) = span.slot {
                for t in first..first + span.len {
                    let term = &self.terms[t];
                    let x = row.x[t].abs();
                    let dots = model.dot_errors(row.x[t], self.magnitude.row(g)[t], self.square.row(g)[t]);
                    for tier in 0..TIERS {
                        let error = term.gradient_errors[tier];
                        let size = (term.weight * term.difference).abs() + error;
                        let dot = dots[tier] + 3.0 * model.u * x;
                        token.dsel_scale[1 + tier][slots + slot] += match model.order_only {
                            false => model.scale * (error * x + size * dot + gamma * size * x) + model.flush,
                            true => model.scale * gamma * size * (x + dot),
                        };
                    }
                }
            }
            first += span.len;
        }
    }
}

/// For each term the sum of `|weights|` over all terms of its key: a key may be attended to by several spans, which then
/// start at the same key.
#[inline(always)]
fn add_by_key(spans: &[Span], weights: &[f64], sums: &mut Vec<f64>) {
    sums.clear();
    sums.resize(weights.len(), 0.0);
    let mut first = 0;
    for span in spans {
        let mut other_first = 0;
        for other in spans {
            if other.start == span.start {
                for t in 0..span.len.min(other.len) {
                    sums[first + t] += weights[other_first + t].abs();
                }
            }
            other_first += other.len;
        }
        first += span.len;
    }
}
