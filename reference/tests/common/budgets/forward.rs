//! Budgets of `out` and `lse`.

use ndarray::{ArrayD, IxDyn};
use nsa_corpus::{Field, Outputs, RunningSum};

use super::{Budgets, Live, Tier, gamma, relative};
use crate::common::naive::Row;

/// What all features of a row share.
struct RowSums {
    m: f64,
    ln_l: f64,
    w: Vec<f64>,
    eps: Vec<f64>,
    /// `o`.
    order: Vec<f64>,
    n_b: f64,
}

fn sum(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}

/// `x / (1 - share)`, infinite from `share = 1` on.
fn over(x: f64, share: f64) -> f64 {
    if share < 1.0 { x / (1.0 - share) } else { f64::INFINITY }
}

impl Budgets<'_> {
    /// `out` and `lse`, and `sliding_out` and `sliding_lse` beside a window; then their budgets.
    pub(crate) fn forward(&self) -> [Outputs; 2] {
        let shape = self.inputs.shape();
        let mut answer = [Outputs::new(), Outputs::new()];
        let mut parts = vec![(false, Field::Out, Field::Lse)];
        parts.extend(self.inputs.sliding_window().map(|_| (true, Field::SlidingOut, Field::SlidingLse)));
        for (sliding, out, lse) in parts {
            let zeros = || [out, lse].map(|field| ArrayD::zeros(IxDyn(&field.shape(shape))));
            let mut tensors = [zeros(), zeros()];
            for row in self.rows() {
                let (outs, lse) = self.forward_row(&row, &self.terms(&row, sliding));
                for (index, tensors) in tensors.iter_mut().enumerate() {
                    for (d, out) in outs.iter().enumerate() {
                        tensors[0][[row.batch, row.head, row.token, d].as_slice()] = out[index];
                    }
                    tensors[1][[row.batch, row.head, row.token].as_slice()] = lse[index];
                }
            }
            for (answer, [outs, lses]) in answer.iter_mut().zip(tensors) {
                answer.set(out, outs);
                answer.set(lse, lses);
            }
        }
        answer
    }

    fn row_sums(&self, terms: &[Live]) -> RowSums {
        let Budgets { u, scale, arithmetic, .. } = *self;
        let n_b = self.rescalings(terms);
        let scores: Vec<f64> = terms.iter().map(|live| scale * live.term.factor * live.x).collect();
        let m = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let l = sum(scores.iter().map(|s| (s - m).exp()));
        let rounding = |s: &f64| 3.0 * u * (m - s + s.abs() + m.abs()) + (n_b + 1.0) * arithmetic.exponential;
        let relative = |s: &f64, error: f64| relative(s - m, error + rounding(s));
        let eps = |(live, s): (&Live, &f64)| relative(s, self.score_error(live, self.likely()));
        RowSums {
            m,
            ln_l: l.ln(),
            w: scores.iter().map(|s| (s - m).exp() / l).collect(),
            eps: terms.iter().zip(&scores).map(eps).collect(),
            order: scores.iter().map(|s| relative(s, 0.0)).collect(),
            n_b,
        }
    }

    /// Value and budget of each feature of `out`, and of `lse`.
    fn forward_row(&self, row: &Row, terms: &[Live]) -> (Vec<[f64; 2]>, [f64; 2]) {
        let sums = self.row_sums(terms);
        let out = (0..self.inputs.shape().value_dim()).map(|d| {
            let v: Vec<f64> = terms.iter().map(|live| self.value(row, live, d)).collect();
            self.out(&sums, &v)
        });
        let out = out.collect();
        let lse = sums.m + sums.ln_l;
        let budget = if terms.is_empty() { 0.0 } else { self.lse(&sums) };
        (out, [lse, budget])
    }

    fn out(&self, sums: &RowSums, v: &[f64]) -> [f64; 2] {
        let RowSums { w, eps, n_b, .. } = sums;
        let all = |term: &dyn Fn(usize) -> f64| sum((0..v.len()).map(term));
        let s = all(&|t| w[t] * eps[t]);
        let out = all(&|t| w[t] * v[t]);
        let centred = all(&|t| w[t] * eps[t] * (v[t] - out).abs());
        let weighted = all(&|t| w[t] * v[t].abs());
        let cast = match self.tier {
            Tier::Likely => 6.0 * self.u_p * all(&|t| (w[t] * v[t]).powi(2)).sqrt(),
            _ => self.u_p * weighted,
        };
        let constant = self.products(v.len()) + n_b * self.u;
        let lost = self.least * all(&|t| v[t].abs());
        let logarithms = self.logarithms(sums);
        let carried = gamma(v.len() + *n_b as usize + 2, self.u) + 3.0 * self.u + logarithms;
        let core = centred + (cast + constant * weighted) * (1.0 + s) + lost;
        let core = core * (1.0 + logarithms) + carried * out.abs();
        let core = over(core, s);
        if self.tier != Tier::Order {
            return [out, self.stored(self.arithmetic.output, out, core)];
        }
        let each = |t: usize| w[t] * (1.0 + eps[t]) * sums.order[t];
        let o = all(&each);
        let centred = all(&|t| each(t) * (v[t] - out).abs()) + o * core;
        let products = (cast + constant * weighted) * (1.0 + s + o);
        let spread = over(centred + products + lost + carried * (out.abs() + core), s + o);
        [out, self.stored(self.arithmetic.output, out, spread)]
    }

    /// What a running log-sum-exp adds to the error of the sum.
    fn logarithms(&self, sums: &RowSums) -> f64 {
        let RowSums { n_b, m, ln_l, .. } = sums;
        if self.arithmetic.running_sum == RunningSum::Plain || *n_b == 0.0 {
            return 0.0;
        }
        let rounding = self.u * ((m + ln_l).abs() + m.abs() + 2.0 * ln_l.abs() + 4.0);
        (n_b + 1.0) * (rounding + self.arithmetic.exponential * (2.0 + ln_l.abs()))
    }

    fn lse(&self, sums: &RowSums) -> f64 {
        let RowSums { w, eps, n_b, m, ln_l, order } = sums;
        let lse = m + ln_l;
        let s = sum(w.iter().zip(eps).map(|(w, eps)| w * eps));
        let error = |share: f64, off: f64| {
            let weights = if share < 1.0 { -(-share).ln_1p() } else { f64::INFINITY };
            let rounding = 4.0 * self.u * (m.abs() + ln_l.abs() + lse.abs() + 3.0 * off) + 2.0 * self.u;
            let carried = gamma(w.len() + *n_b as usize + 2, self.u) + self.logarithms(sums);
            weights + carried + rounding + self.arithmetic.exponential * (ln_l.abs() + off)
        };
        let error = match self.tier {
            Tier::Order => {
                let o = sum((0..w.len()).map(|t| w[t] * (1.0 + eps[t]) * order[t]));
                error(over(o, s), error(s, 0.0))
            }
            _ => error(s, 0.0),
        };
        self.stored(self.arithmetic.lse, lse, error)
    }
}
