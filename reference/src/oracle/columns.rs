//! The backward's second pass: `dk` and `dv` of a chunk of tokens, one task for each panel of keys. A task owns its
//! keys and adds what visits them in the order of tokens, heads and spans.

use ndarray::Array4;
use nsa_corpus::Inputs;
use pulp::Arch;
use rayon::prelude::*;

use super::forward::query_row;
use super::kernels::{PANEL, rank_update};
use super::rows::Terms;
use super::saved::{ARRAYS, Saved, Sums, TokenRows};

/// Rows that are added in one sweep over a panel's sums.
const SWEEP: usize = 4;

/// One row's terms that fall on a panel.
#[derive(Clone, Copy)]
pub(super) struct Visit {
    token: usize,
    head: usize,
    /// First term of the row.
    term: usize,
    /// First key, counted within the panel.
    lane: usize,
    len: usize,
}

/// The panels that rows of the chunk visit, ascending, each with its visits in the order of tokens, heads and spans.
pub(super) fn visits(tokens: &[TokenRows], groups: usize) -> Vec<(usize, Vec<Visit>)> {
    let mut all: Vec<(usize, Visit)> = Vec::new();
    for (token, rows) in tokens.iter().enumerate() {
        let together = groups / rows.spans.len();
        for head in 0..groups {
            let mut term = 0;
            for span in &rows.spans[head / together] {
                let mut key = span.start;
                while key < span.start + span.len {
                    let lane = key % PANEL;
                    let len = (PANEL - lane).min(span.start + span.len - key);
                    all.push((key / PANEL, Visit { token, head, term: term + key - span.start, lane, len }));
                    key += len;
                }
                term += span.len;
            }
        }
    }
    // Stable: within a panel the order stays.
    all.sort_by_key(|(panel, _)| *panel);
    let same = all.chunk_by(|(left, _), (right, _)| left == right);
    same.map(|visits| (visits[0].0, visits.iter().map(|(_, visit)| *visit).collect())).collect()
}

/// Some tokens of one (batch, kv head), ascending, after the first pass.
pub(super) struct Columns<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) saved: &'a Saved<'a>,
    pub(super) tokens: &'a [TokenRows],
    pub(super) b: usize,
    pub(super) h: usize,
}

impl Columns<'_> {
    /// Adds the tokens' terms to `dk` and `dv`, for the panels of `visits`.
    pub(super) fn add(&self, visits: &[(usize, Vec<Visit>)], dk: &mut Sums, dv: &mut Sums) {
        let shape = self.inputs.shape();
        let arch = Arch::new();
        let visited: Vec<usize> = visits.iter().map(|(panel, _)| *panel).collect();
        let panels = panels(dk, shape.dim(), &visited).into_par_iter().zip(panels(dv, shape.value_dim(), &visited));
        panels.zip(visits).for_each(|((mut dk, mut dv), (_, visits))| {
            arch.dispatch(|| {
                self.panel(visits, self.inputs.q(), |rows| &rows.score_gradients, &mut dk);
                match self.saved.d_out {
                    Some(d_out) => self.panel(visits, d_out, |rows| &rows.weights, &mut dv),
                    None => self.promise_nothing(visits, &mut dv),
                }
            });
        });
    }

    /// `sums[key] += coefficients[row][key] * rows[row]` over the panel's visits, for the values and then for the sums of
    /// their budget, which take the magnitudes and the squares of the rows.
    #[inline(always)]
    fn panel(
        &self,
        visits: &[Visit],
        rows: &Array4<f64>,
        coefficients: impl Fn(&TokenRows) -> &[Terms; ARRAYS] + Copy,
        sums: &mut [&mut [f64]; ARRAYS],
    ) {
        let [values, rigorous, likely, squares] = sums;
        if !self.saved.absent() {
            self.sweep(visits, rows, |token| &coefficients(token)[0], |value| value, values);
        }
        if !rigorous.is_empty() {
            self.sweep(visits, rows, |token| &coefficients(token)[1], f64::abs, rigorous);
            self.sweep(visits, rows, |token| &coefficients(token)[2], f64::abs, likely);
            self.sweep(visits, rows, |token| &coefficients(token)[3], |value| value * value, squares);
        }
    }

    /// Without a cotangent there is nothing to add to `dv`, but where a row promises nothing its keys' budgets are infinite.
    fn promise_nothing(&self, visits: &[Visit], dv: &mut [&mut [f64]; ARRAYS]) {
        let width = self.inputs.shape().value_dim();
        let [_, rigorous, likely, _] = dv;
        let bounded = !rigorous.is_empty();
        for visit in visits.iter().filter(|_| bounded) {
            let coefficients = &self.tokens[visit.token].weights[1].row(visit.head)[visit.term..visit.term + visit.len];
            for (lane, _) in coefficients.iter().enumerate().filter(|(_, coefficient)| !coefficient.is_finite()) {
                let key = (visit.lane + lane) * width;
                rigorous[key..key + width].fill(f64::INFINITY);
                likely[key..key + width].fill(f64::INFINITY);
            }
        }
    }

    #[inline(always)]
    fn sweep(
        &self,
        visits: &[Visit],
        rows: &Array4<f64>,
        coefficients: impl Fn(&TokenRows) -> &Terms,
        map: impl Fn(f64) -> f64 + Copy,
        sums: &mut [f64],
    ) {
        let width = rows.dim().3;
        let part = |visit: &Visit| {
            let token = &self.tokens[visit.token];
            let row = query_row(rows, [self.b, self.h * self.inputs.shape().groups() + visit.head, token.i]);
            (&coefficients(token).row(visit.head)[visit.term..visit.term + visit.len], row)
        };
        let mut rest = visits;
        while let Some(visit) = rest.first() {
            let sweep = rest.get(..SWEEP).filter(|visits| visits.iter().all(|visit| visit.len == PANEL));
            if let Some(visits) = sweep {
                let parts: [_; SWEEP] = std::array::from_fn(|index| part(&visits[index]));
                rank_update::<SWEEP>(parts.map(|part| part.0), parts.map(|part| part.1), map, sums);
                rest = &rest[SWEEP..];
            } else {
                let (factors, row) = part(visit);
                let sums = &mut sums[visit.lane * width..(visit.lane + visit.len) * width];
                rank_update::<1>([factors], [row], map, sums);
                rest = &rest[1..];
            }
        }
    }
}

/// The `visited` panels of keys of the arrays of `sums`, in order; absent arrays give empty slices.
fn panels<'a>(sums: &'a mut Sums, width: usize, visited: &[usize]) -> Vec<[&'a mut [f64]; ARRAYS]> {
    let mut panels: Vec<[&mut [f64]; ARRAYS]> = visited.iter().map(|_| Default::default()).collect();
    for (array, values) in sums.arrays_mut().enumerate() {
        let mut chunks = values.chunks_exact_mut(PANEL * width);
        let mut next = 0;
        for (slices, &panel) in panels.iter_mut().zip(visited) {
            slices[array] = chunks.nth(panel - next).unwrap_or_default();
            next = panel + 1;
        }
    }
    panels
}
