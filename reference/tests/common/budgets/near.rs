//! Where it is not known what an implementation saved: how far `<out, d_out>` moves, and what moves with it.

use std::collections::BTreeMap;

use ndarray::ArrayD;
use nsa_corpus::{BackwardReads, Delta, Field, Outputs, RunningSum};

use super::backward::{Gradient, SavedRow};
use super::{Budgets, Tier, format, gamma, relative};
use crate::common::naive::Row;

/// How far what was saved of a row may be off in one tier.
pub(super) struct Off {
    pub(super) out: Vec<f64>,
    pub(super) lse: f64,
}

impl Off {
    pub(super) fn none(width: usize) -> Self {
        Off { out: vec![0.0; width], lse: 0.0 }
    }

    /// Of row `at` of `out` and `lse`.
    pub(super) fn of(out: &ArrayD<f64>, lse: &ArrayD<f64>, at: [usize; 3]) -> Self {
        let width = out.shape()[3];
        Off { out: (0..width).map(|d| out[[at[0], at[1], at[2], d].as_slice()]).collect(), lse: lse[at.as_slice()] }
    }
}

/// How far `<out, d_out>` moves: by `b`, and by what goes another way in each row, `6 r` at most.
#[derive(Default)]
pub(super) struct Moved {
    pub(super) b: f64,
    /// `Delta`.
    pub(super) all: f64,
    pub(super) r: f64,
}

impl Budgets<'_> {
    /// A backward that reads its own starts from what was rounded to the saved values.
    pub(super) fn before_storing(&self, off: Off, out: &[f64], lse: f64) -> Off {
        let Budgets { arithmetic, tier, flush, .. } = *self;
        if arithmetic.backward_reads == BackwardReads::Stored || tier == Tier::Order {
            return off;
        }
        let at_least = |dtype, value: f64, off: f64| {
            let [u_o, smallest, _] = format(dtype);
            if value.is_finite() { off.max(u_o * value.abs() + u_o * smallest + flush) } else { off }
        };
        let outs = out.iter().zip(&off.out).map(|(value, off)| at_least(arithmetic.output, *value, *off));
        Off { out: outs.collect(), lse: at_least(arithmetic.lse, lse, off.lse) }
    }

    /// `b` and `r` of tier H where `likely`, else `Delta` of tier B.
    pub(super) fn moved(&self, saved: &SavedRow<'_>, gradients: &[Gradient], likely: bool) -> Moved {
        let known = saved.off[1].out.iter().all(|off| *off == 0.0);
        let Some(d_out) = saved.d_out.as_ref().filter(|_| !known && self.arithmetic.delta == Delta::Output) else {
            return Moved::default();
        };
        let worst: f64 = saved.off[1].out.iter().zip(d_out).map(|(off, d_out)| off * d_out.abs()).sum();
        if !likely {
            return Moved { b: worst, all: worst, r: 0.0 };
        }
        let [b, casts] = self.weighted(saved, gradients, d_out);
        let r = casts.hypot(self.roundings(saved, d_out));
        Moved { b: b.min(worst), all: (b + 6.0 * r).min(worst), r }
    }

    /// `b`, and the first part of `r`.
    fn weighted(&self, saved: &SavedRow<'_>, gradients: &[Gradient], d_out: &[f64]) -> [f64; 2] {
        let Budgets { u, arithmetic, .. } = *self;
        let n_b = self.rescalings(saved.terms);
        let s: Vec<f64> = saved.terms.iter().map(|live| self.score(live)).collect();
        let m = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let e = |t: usize| {
            let rounding = 3.0 * u * (m - s[t] + s[t].abs() + m.abs()) + (n_b + 1.0) * arithmetic.exponential;
            relative(s[t] - m, self.score_error(&saved.terms[t], true) + rounding)
        };
        let sum = |term: &dyn Fn(usize, &Gradient) -> f64| -> f64 {
            gradients.iter().enumerate().map(|(t, gradient)| term(t, gradient)).sum()
        };
        let share = sum(&|t, gradient| gradient.weight * e(t));
        if !(share < 1.0) {
            return [f64::INFINITY, 0.0];
        }
        let products = || saved.out.iter().zip(d_out).map(|(out, d_out)| out * d_out);
        let delta: f64 = products().sum();
        let ln_l = saved.lse - m;
        let logarithms = match arithmetic.running_sum {
            RunningSum::Logarithm if n_b > 0.0 => {
                let rounding = u * (saved.lse.abs() + m.abs() + 2.0 * ln_l.abs() + 4.0);
                (n_b + 1.0) * (rounding + arithmetic.exponential * (2.0 + ln_l.abs()))
            }
            _ => 0.0,
        };
        let centred = sum(&|t, gradient| gradient.weight * e(t) * (gradient.d_weight - delta).abs());
        let magnitudes = sum(&|_, gradient| gradient.weight * gradient.magnitude);
        let lost = self.least * sum(&|_, gradient| gradient.magnitude);
        let added = (self.products(s.len()) + n_b * u) * magnitudes * (1.0 + share);
        let carried = gamma(s.len() + n_b as usize + 2, u) + 3.0 * u + logarithms;
        let size: f64 = products().map(f64::abs).sum();
        let b = (centred + added + lost) * (1.0 + logarithms) + carried * size;
        let casts = sum(&|_, gradient| (gradient.weight * gradient.d_weight).powi(2)).sqrt();
        [b, self.u_p * casts * (1.0 + share) * (1.0 + logarithms)].map(|part| part / (1.0 - share))
    }

    /// The second part of `r`: features of one magnitude round alike.
    fn roundings(&self, saved: &SavedRow<'_>, d_out: &[f64]) -> f64 {
        let [u_o, smallest, _] = format(self.arithmetic.output);
        let mut alike: BTreeMap<u64, [f64; 2]> = BTreeMap::new();
        for ((out, d_out), off) in saved.out.iter().zip(d_out).zip(&saved.off[0].out) {
            let [factor, rounding] = alike.entry(out.abs().to_bits()).or_default();
            let stored = if *off == 0.0 { 0.0 } else { u_o * (out.abs() + off) + u_o * smallest + self.flush };
            let own = self.arithmetic.backward_reads == BackwardReads::Own;
            *factor += if own {
                d_out.abs()
            } else if *out < 0.0 {
                -d_out
            } else {
                *d_out
            };
            *rounding = rounding.max(stored);
        }
        alike.values().map(|[factor, rounding]| (factor * rounding).powi(2)).sum::<f64>().sqrt()
    }

    /// `m`: rows of the row's kv head with the same `out` in f32.
    pub(super) fn alike(&self, saved: &Outputs, row: &Row, sliding: bool) -> f64 {
        let out = saved.get(if sliding { Field::SlidingOut } else { Field::Out }).unwrap();
        let width = self.inputs.shape().value_dim();
        let of = |other: &Row| -> Vec<u32> {
            let at = |d| out[[other.batch, other.head, other.token, d].as_slice()] as f32;
            (0..width).map(|d| if at(d) == 0.0 { 0 } else { at(d).to_bits() }).collect()
        };
        let mut rows = self.rows();
        rows.retain(|other| other.batch == row.batch && other.kv_head == row.kv_head && of(other) == of(row));
        rows.len() as f64
    }

    /// What `<out, d_out>` is multiplied by in each element that the row reaches: the number of the tensor (`dq`, `dk`, `dv`,
    /// `dsel_scale`), where, and the sum over the row's terms.
    pub(super) fn moves(&self, saved: &SavedRow<'_>, gradients: &[Gradient]) -> Vec<(usize, [usize; 4], f64)> {
        let (row, dim) = (saved.row, self.inputs.shape().dim());
        let mut queries = vec![0.0; dim];
        let mut keys: BTreeMap<usize, f64> = BTreeMap::new();
        let mut slots: BTreeMap<usize, f64> = BTreeMap::new();
        for (live, gradient) in saved.terms.iter().zip(gradients) {
            let weight = self.scale * gradient.weight;
            for (d, query) in queries.iter_mut().enumerate() {
                *query += weight * live.term.factor * self.key(row, live, d);
            }
            if let Some(token) = live.term.token {
                *keys.entry(token).or_default() += weight * live.term.factor.abs();
            }
            if let Some(slot) = live.term.slot {
                *slots.entry(slot).or_default() += weight * live.x;
            }
        }
        let mut moves = Vec::new();
        moves.extend(queries.iter().enumerate().map(|(d, sum)| (0, [row.batch, row.head, row.token, d], *sum)));
        for (token, sum) in keys {
            let query = |d| self.inputs.q()[[row.batch, row.head, row.token, d]];
            moves.extend((0..dim).map(|d| (1, [row.batch, row.kv_head, token, d], sum * query(d))));
        }
        moves.extend(slots.iter().map(|(slot, sum)| (3, [row.batch, row.sel_head, row.token, *slot], *sum)));
        moves
    }
}
