//! Budgets of the gradients, given the `out` and `lse` that an implementation saved.

use ndarray::{ArrayD, IxDyn};
use nsa_corpus::{Delta, Field, Outputs};

use super::near::{Moved, Off};
use super::{Budgets, Live, Tier, accumulation, format, gamma, relative};
use crate::common::naive::Row;

/// A gradient with the sums that its budgets follow from.
struct Sums {
    field: Field,
    values: ArrayD<f64>,
    linear: ArrayD<f64>,
    squares: ArrayD<f64>,
}

impl Sums {
    fn add(&mut self, at: [usize; 4], [value, linear, square]: [f64; 3]) {
        self.values[IxDyn(&at)] += value;
        self.linear[IxDyn(&at)] += linear;
        self.squares[IxDyn(&at)] += square;
    }
}

/// How many terms a row and a key have over both parts.
struct Counts {
    /// `[b, q_heads, n]`.
    rows: ArrayD<usize>,
    /// `[b, kv_heads, n]`; a padded key needs none.
    keys: ArrayD<usize>,
}

/// One row of one part, as the implementation saved it.
pub(super) struct SavedRow<'a> {
    pub(super) row: &'a Row,
    pub(super) terms: &'a [Live],
    pub(super) out: Vec<f64>,
    pub(super) lse: f64,
    /// How far off `out` and `lse` may be in this tier, and in tier B.
    pub(super) off: [Off; 2],
    pub(super) d_out: Option<Vec<f64>>,
    d_lse: f64,
    /// Whether the loss contains this part.
    present: bool,
    /// `m`.
    alike: f64,
}

/// What the backward makes of one term.
pub(super) struct Gradient {
    /// `P`.
    pub(super) weight: f64,
    /// `dP`.
    pub(super) d_weight: f64,
    /// `dP - delta + d_lse`.
    difference: f64,
    /// `A`.
    pub(super) magnitude: f64,
}

impl Budgets<'_> {
    /// The gradients that follow from `saved`, and their budgets, where what was saved is `off` by these of tiers B and H.
    pub(crate) fn backward(&self, saved: &Outputs, off: Option<[&Outputs; 2]>) -> [Outputs; 2] {
        let shape = self.inputs.shape();
        let zeros = |field: Field| ArrayD::zeros(IxDyn(&field.shape(shape)));
        let sums = |field| Sums { field, values: zeros(field), linear: zeros(field), squares: zeros(field) };
        let mut sums = [Field::Dq, Field::Dk, Field::Dv, Field::DselScale].map(sums);
        let counts = self.counts();
        for sliding in self.parts() {
            for row in self.rows() {
                let terms = self.terms(&row, sliding);
                let mut saved_row = self.saved_row(saved, off, &row, &terms, sliding);
                saved_row.alike = self.alike(saved, &row, sliding);
                self.add_row(&saved_row, &counts, &mut sums);
            }
        }
        let mut answer = [Outputs::new(), Outputs::new()];
        for mut sums in sums.into_iter().filter(|sums| sums.field.asked_by(self.inputs)) {
            let stored = self.arithmetic.stored(sums.field);
            let separate = |square: f64| if self.likely() { 6.0 * square.sqrt() } else { 0.0 };
            let lost = if sums.field == Field::Dv { self.lost_products() } else { 0.0 };
            let Sums { values, linear, squares, .. } = &mut sums;
            ndarray::Zip::from(linear).and(&*values).and(&*squares).for_each(|linear, value, square| {
                let error = *linear + separate(*square);
                *linear = if error == 0.0 { 0.0 } else { self.stored(stored, *value, error + lost) };
            });
            answer[0].set(sums.field, sums.values);
            answer[1].set(sums.field, sums.linear);
        }
        answer
    }

    /// What products in a narrow format lose to underflow, at most.
    fn lost_products(&self) -> f64 {
        let shape = self.inputs.shape();
        match self.arithmetic.value_gradient_products {
            Some(narrow) if self.tier != Tier::Order => {
                let [unit, smallest, _] = format(narrow);
                (shape.seq_len() * shape.groups()) as f64 * unit * smallest
            }
            _ => 0.0,
        }
    }

    fn parts(&self) -> Vec<bool> {
        std::iter::once(false).chain(self.inputs.sliding_window().map(|_| true)).collect()
    }

    fn counts(&self) -> Counts {
        let shape = self.inputs.shape();
        let zeros = |heads| ArrayD::zeros(IxDyn(&[shape.batch(), heads, shape.seq_len()]));
        let mut counts = Counts { rows: zeros(shape.q_heads()), keys: zeros(shape.kv_heads()) };
        for sliding in self.parts() {
            for row in self.rows() {
                let terms = self.terms(&row, sliding);
                counts.rows[[row.batch, row.head, row.token].as_slice()] += terms.len();
                for token in terms.iter().filter_map(|live| live.term.token) {
                    counts.keys[[row.batch, row.kv_head, token].as_slice()] += 1;
                }
            }
        }
        counts
    }

    fn saved_row<'r>(
        &self,
        saved: &Outputs,
        off: Option<[&Outputs; 2]>,
        row: &'r Row,
        terms: &'r [Live],
        sliding: bool,
    ) -> SavedRow<'r> {
        let cotangents = self.inputs.cotangents();
        let [out, lse] = if sliding { [Field::SlidingOut, Field::SlidingLse] } else { [Field::Out, Field::Lse] };
        let (d_out, d_lse) = match sliding {
            true => (&cotangents.d_sliding, None),
            false => (&cotangents.d_out, cotangents.d_lse.as_ref()),
        };
        let width = 0..self.inputs.shape().value_dim();
        let at = [row.batch, row.head, row.token];
        // What no loss contains is multiplied by zeros, whatever it is.
        let present = d_out.is_some() || d_lse.is_some();
        let off = off.filter(|_| present);
        let values: Vec<f64> =
            width.clone().map(|d| saved.get(out).unwrap()[[at[0], at[1], at[2], d].as_slice()]).collect();
        let saved_lse = saved.get(lse).unwrap()[at.as_slice()];
        let off = |tier: usize| {
            let of_row = |off: [&Outputs; 2]| Off::of(off[tier].get(out).unwrap(), off[tier].get(lse).unwrap(), at);
            let off = off.map_or(Off::none(width.len()), of_row);
            if present { self.before_storing(off, &values, saved_lse) } else { off }
        };
        SavedRow {
            off: [off(usize::from(self.likely())), off(0)],
            row,
            terms,
            out: values.clone(),
            lse: saved_lse,
            d_out: d_out.as_ref().map(|d_out| width.map(|d| d_out[[at[0], at[1], at[2], d]]).collect()),
            d_lse: d_lse.map_or(0.0, |d_lse| d_lse[at]),
            present,
            alike: 1.0,
        }
    }

    pub(super) fn score(&self, live: &Live) -> f64 {
        self.scale * live.term.factor * live.x
    }

    /// `P`, `dP` and what follows from them. A padded value has products 0 whatever the cotangent holds.
    fn gradients(&self, saved: &SavedRow<'_>) -> Vec<Gradient> {
        let dot = |d_out: &Vec<f64>| saved.out.iter().zip(d_out).map(|(out, d_out)| out * d_out).sum::<f64>();
        let delta = saved.d_out.as_ref().map_or(0.0, dot);
        let gradient = |live: &Live| {
            let products: Vec<f64> = match (&saved.d_out, live.term.token) {
                (Some(d_out), Some(_)) => {
                    d_out.iter().enumerate().map(|(d, d_out)| d_out * self.value(saved.row, live, d)).collect()
                }
                _ => Vec::new(),
            };
            let d_weight: f64 = products.iter().fold(0.0, |sum, product| sum + product);
            Gradient {
                weight: (self.score(live) - saved.lse).exp(),
                d_weight,
                difference: d_weight - delta + saved.d_lse,
                magnitude: products.iter().map(|product| product.abs()).sum(),
            }
        };
        saved.terms.iter().map(gradient).collect()
    }

    /// `eps_t` of every term, in this tier where `likely`, else in tier B.
    fn relative(&self, saved: &SavedRow<'_>, likely: bool) -> Vec<f64> {
        let off = saved.off[usize::from(!likely)].lse;
        let eps = |live: &Live| {
            let s = self.score(live);
            let rounding = 4.0 * self.u * ((s - saved.lse).abs() + s.abs() + saved.lse.abs() + 2.0 * off);
            relative(s - saved.lse, self.score_error(live, likely) + rounding + self.arithmetic.exponential + off)
        };
        saved.terms.iter().map(eps).collect()
    }

    /// `D`.
    fn delta_error(&self, saved: &SavedRow<'_>, gradients: &[Gradient], eps: &[f64], moved: &Moved) -> f64 {
        let Some(d_out) = &saved.d_out else { return 0.0 };
        let products = saved.out.iter().zip(d_out).map(|(out, d_out)| out * d_out);
        let size: f64 = products.clone().map(f64::abs).sum();
        let width = d_out.len() as f64;
        let from_output = (width + 2.0) * self.u * (size + moved.all) + 2.0 * self.u * saved.d_lse.abs() + moved.b;
        match self.arithmetic.delta {
            Delta::Output => from_output,
            Delta::Probabilities => {
                let sum = |term: &dyn Fn(&Gradient, f64) -> f64| {
                    gradients.iter().zip(eps).fold(0.0, |sum, (gradient, eps)| sum + term(gradient, *eps))
                };
                let mean = sum(&|g, _| g.weight * g.d_weight);
                let error = sum(&|g, eps| {
                    let dot = self.value_constant() * g.magnitude;
                    g.weight * (eps * g.d_weight.abs() + (1.0 + eps) * dot)
                });
                let added = gamma(eps.len() + 2, self.u) * (sum(&|g, _| g.weight * g.d_weight.abs()) + error);
                from_output + (mean - products.sum::<f64>()).abs() + error + added
            }
        }
    }

    fn value_constant(&self) -> f64 {
        accumulation(self.arithmetic.scores, self.inputs.shape().value_dim())
    }

    /// `F_t` of every term.
    fn errors(&self, saved: &SavedRow<'_>, gradients: &[Gradient], eps: &[f64], moved: &Moved) -> Vec<f64> {
        let delta = self.delta_error(saved, gradients, eps, moved);
        let error = |(gradient, eps): (&Gradient, &f64)| {
            let difference = gradient.difference.abs();
            let lost = self.inputs.shape().value_dim() as f64 * self.flush;
            let plain =
                self.value_constant() * gradient.magnitude + lost + delta + 3.0 * self.u * (difference + moved.all);
            let difference = difference + (moved.all - moved.b);
            gradient.weight * ((1.0 + eps) * plain + eps * difference) + self.flush * (1.0 + plain + difference)
        };
        gradients.iter().zip(eps).map(error).collect()
    }

    /// The squares of what moves all of a row's terms at once, by `r`.
    fn add_moved(&self, saved: &SavedRow<'_>, gradients: &[Gradient], r: f64, sums: &mut [Sums; 4]) {
        for (tensor, at, sum) in self.moves(saved, gradients) {
            // dq has one row; what rows that are alike add to one key or slot goes the same way.
            let alike = if tensor == 0 { 1.0 } else { saved.alike };
            sums[tensor].add(at, [0.0, 0.0, alike * (r * sum).powi(2)]);
        }
    }

    fn add_row(&self, saved: &SavedRow<'_>, counts: &Counts, sums: &mut [Sums; 4]) {
        let mut used = saved.out.iter().copied().chain(saved.terms.iter().map(|live| live.x));
        let usable = saved.lse < f64::INFINITY && used.all(f64::is_finite);
        let promised = saved.d_out.is_some() || usable;
        let gradients = self.gradients(saved);
        let eps = [self.likely(), false].map(|likely| self.relative(saved, likely));
        let moved = [self.moved(saved, &gradients, self.likely()), self.moved(saved, &gradients, false)];
        let errors = [0, 1].map(|tier| self.errors(saved, &gradients, &eps[tier], &moved[tier]));
        if promised && moved[0].r != 0.0 {
            self.add_moved(saved, &gradients, moved[0].r, sums);
        }
        for t in 0..saved.terms.len() {
            let [eps, errors] = [&eps, &errors].map(|tiers| [tiers[0][t], tiers[1][t]]);
            if promised {
                self.add_key(saved, t, &gradients[t], errors, counts, sums);
                self.add_value(saved, t, &gradients[t], eps, counts, &mut sums[2]);
                self.add_slot(saved, t, &gradients[t], errors[0], &mut sums[3]);
            } else {
                self.promise_nothing(saved, t, sums);
            }
        }
    }

    fn row_at(saved: &SavedRow<'_>, d: usize) -> [usize; 4] {
        [saved.row.batch, saved.row.head, saved.row.token, d]
    }

    /// `dq` and `dk`. `errors` are `F` of this tier and of tier B.
    fn add_key(
        &self,
        saved: &SavedRow<'_>,
        t: usize,
        gradient: &Gradient,
        errors: [f64; 2],
        counts: &Counts,
        sums: &mut [Sums; 4],
    ) {
        let Budgets { u, u_p, scale, .. } = *self;
        let (row, live) = (saved.row, &saved.terms[t]);
        let factor = live.term.factor.abs();
        let size = factor * (gradient.weight * gradient.difference).abs();
        let [error, rigorous] = errors.map(|error| factor * error + u * size);
        let most = format(self.arithmetic.probability)[2];
        let cast = if self.likely() { 0.0 } else { u_p * (size + error) };
        let coefficient = |constant: f64| match size + error > most {
            true => f64::INFINITY,
            false if self.tier == Tier::Order => scale * constant * (size + error + cast),
            false => scale * (error + cast + constant * (size + error)) + self.least,
        };
        let value = match saved.present {
            true => scale * live.term.factor * gradient.weight * gradient.difference,
            false => 0.0,
        };
        let square = (u_p * scale * (size + rigorous)).powi(2);
        let query = |d| self.inputs.q()[[row.batch, row.head, row.token, d]];
        let n = counts.rows[[row.batch, row.head, row.token].as_slice()];
        let each = coefficient(self.products(n) + (self.rescalings(saved.terms) + 4.0) * u);
        let times = |value: f64, factor: f64| if saved.present { value * factor } else { 0.0 };
        for d in 0..self.inputs.shape().dim() {
            let key = self.key(row, live, d);
            sums[0].add(Self::row_at(saved, d), [times(value, key), each * key.abs(), square * (key * key)]);
        }
        if let Some(token) = live.term.token {
            let m = counts.keys[[row.batch, row.kv_head, token].as_slice()];
            let each = coefficient(self.products(m) + 6.0 * u);
            for d in 0..self.inputs.shape().dim() {
                let q = query(d);
                sums[1].add([row.batch, row.kv_head, token, d], [times(value, q), each * q.abs(), square * (q * q)]);
            }
        }
    }

    /// `dv`. `eps` are those of this tier and of tier B.
    fn add_value(
        &self,
        saved: &SavedRow<'_>,
        t: usize,
        gradient: &Gradient,
        [eps, rigorous]: [f64; 2],
        counts: &Counts,
        sums: &mut Sums,
    ) {
        let (row, live) = (saved.row, &saved.terms[t]);
        let Some(token) = live.term.token else { return };
        let m = counts.keys[[row.batch, row.kv_head, token].as_slice()];
        let p = gradient.weight;
        let each = |eps: f64, likely: bool| {
            let cast = if likely { 0.0 } else { self.u_p * p * (1.0 + eps) };
            let heads = self
                .arithmetic
                .value_gradient_products
                .map_or(0.0, |narrow| gamma(self.inputs.shape().groups(), format(narrow)[0]));
            let constant = self.products(m) + heads + 2.0 * self.u;
            match self.tier {
                Tier::Order => constant * (p * (1.0 + eps) + cast),
                _ => p * eps + cast + self.least + constant * p * (1.0 + eps),
            }
        };
        let [each, most] = [each(eps, self.likely()), each(rigorous, false)];
        let square = (self.u_p * p * (1.0 + rigorous)).powi(2);
        for d in 0..self.inputs.shape().value_dim() {
            // Without a cotangent nothing is added, unless P may have overflowed and meets a zero.
            let added = match saved.d_out.as_ref().map(|d_out| d_out[d]) {
                Some(d_out) => [p * d_out, each * d_out.abs(), square * (d_out * d_out)],
                None => [0.0, if most.is_finite() { 0.0 } else { f64::INFINITY }, 0.0],
            };
            sums.add([row.batch, row.kv_head, token, d], added);
        }
    }

    /// `dsel_scale`, `error` being `F`.
    fn add_slot(&self, saved: &SavedRow<'_>, t: usize, gradient: &Gradient, error: f64, sums: &mut Sums) {
        let (row, live, shape) = (saved.row, &saved.terms[t], self.inputs.shape());
        let Some(slot) = live.term.slot else { return };
        let x = live.x.abs();
        let score_gradient = gradient.weight * gradient.difference;
        let size = score_gradient.abs() + error;
        let dot = self.dot_error(live, self.likely()) + 3.0 * self.u * x;
        let added = gamma(shape.block_size() + shape.sel_groups() + 2, self.u);
        let linear = match self.tier {
            Tier::Order => self.scale * added * size * (x + dot),
            _ => self.scale * (error * x + size * dot + added * size * x) + self.flush,
        };
        let value = if saved.present { self.scale * score_gradient * live.x } else { 0.0 };
        sums.add([row.batch, row.sel_head, row.token, slot], [value, linear, 0.0]);
    }

    /// Everything that the term reaches has an infinite budget.
    fn promise_nothing(&self, saved: &SavedRow<'_>, t: usize, sums: &mut [Sums; 4]) {
        let (row, term, shape) = (saved.row, &saved.terms[t].term, self.inputs.shape());
        let nothing = [0.0, f64::INFINITY, 0.0];
        (0..shape.dim()).for_each(|d| sums[0].add(Self::row_at(saved, d), nothing));
        if let Some(token) = term.token {
            (0..shape.dim()).for_each(|d| sums[1].add([row.batch, row.kv_head, token, d], nothing));
            (0..shape.value_dim()).for_each(|d| sums[2].add([row.batch, row.kv_head, token, d], nothing));
        }
        if let Some(slot) = term.slot {
            sums[3].add([row.batch, row.sel_head, row.token, slot], nothing);
        }
    }
}
