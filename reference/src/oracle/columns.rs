//! The backward's second pass: `dk` and `dv` of a chunk of tokens, one task for each panel of keys. A task owns its
//! keys and adds what visits them in the order of tokens, heads and spans.

use ndarray::Array4;
use nsa_corpus::Inputs;
use pulp::Arch;
use rayon::prelude::*;

use super::backward::{Saved, Sums};
use super::backward_rows::{ARRAYS, TokenRows};
use super::forward::query_row;
use super::kernels::{PANEL, rank_update};
use super::rows::Terms;

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

/// Which rows of the chunk visit each panel, in the order of tokens, heads and spans.
pub(super) fn visits(tokens: &[TokenRows], groups: usize, keys: usize) -> Vec<Vec<Visit>> {
    let mut visits = vec![Vec::new(); keys / PANEL];
    for (token, rows) in tokens.iter().enumerate() {
        let together = groups / rows.spans.len();
        for head in 0..groups {
            let mut term = 0;
            for span in &rows.spans[head / together] {
                let mut key = span.start;
                while key < span.start + span.len {
                    let lane = key % PANEL;
                    let len = (PANEL - lane).min(span.start + span.len - key);
                    visits[key / PANEL].push(Visit { token, head, term: term + key - span.start, lane, len });
                    key += len;
                }
                term += span.len;
            }
        }
    }
    visits
}

/// A chunk of tokens of one (batch, kv head), after the first pass.
pub(super) struct Columns<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) saved: &'a Saved<'a>,
    pub(super) tokens: &'a [TokenRows],
    pub(super) first: usize,
    pub(super) b: usize,
    pub(super) h: usize,
}

impl Columns<'_> {
    /// Adds the chunk's terms to `dk` and `dv`.
    pub(super) fn add(&self, visits: &[Vec<Visit>], dk: &mut Sums, dv: &mut Sums) {
        let shape = self.inputs.shape();
        let arch = Arch::new();
        let panels = panels(dk, shape.dim()).into_iter().zip(panels(dv, shape.value_dim())).zip(visits);
        let visited: Vec<_> = panels.filter(|(_, visits)| !visits.is_empty()).collect();
        visited.into_par_iter().for_each(|((mut dk, mut dv), visits)| {
            arch.dispatch(|| {
                self.panel(visits, self.inputs.q(), |rows| &rows.score_gradients, &mut dk);
                if let Some(d_out) = self.saved.d_out {
                    self.panel(visits, d_out, |rows| &rows.weights, &mut dv);
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
        self.sweep(visits, rows, |token| &coefficients(token)[0], |value| value, values);
        if !rigorous.is_empty() {
            self.sweep(visits, rows, |token| &coefficients(token)[1], f64::abs, rigorous);
            self.sweep(visits, rows, |token| &coefficients(token)[2], f64::abs, likely);
            self.sweep(visits, rows, |token| &coefficients(token)[3], |value| value * value, squares);
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
            let position = [self.b, self.h * self.inputs.shape().groups() + visit.head, self.first + visit.token];
            let row = query_row(rows, position);
            (&coefficients(&self.tokens[visit.token]).row(visit.head)[visit.term..visit.term + visit.len], row)
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

/// The arrays of `sums` cut into panels of keys; absent ones give empty slices.
fn panels(sums: &mut Sums, width: usize) -> Vec<[&mut [f64]; ARRAYS]> {
    let count = sums.values.len() / (PANEL * width);
    let mut chunks: Vec<_> = sums.arrays_mut().map(|array| array.chunks_exact_mut(PANEL * width)).collect();
    let panel = |_| std::array::from_fn(|array: usize| chunks[array].next().unwrap_or_default());
    (0..count).map(panel).collect()
}
