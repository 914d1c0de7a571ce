//! The backward's first pass: everything of one token's rows.

use std::collections::BTreeSet;

use nsa_corpus::Inputs;

use super::backward_bounds;
use super::exp::exp;
use super::forward::query_rows;
use super::model::Model;
use super::packed::Head;
use super::rows::{Scratch, Terms, gather};
use super::saved::{ARRAYS, BoundRow, Counts, Saved, TokenRows};

/// What one thread computes in.
#[derive(Default)]
pub(super) struct Rows {
    scratch: Scratch,
    x: Terms,
    probability_gradients: Terms,
    bounds: backward_bounds::Worker,
}

/// Everything that the rows of one (batch, kv head) share.
pub(super) struct RowTask<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) head: &'a Head,
    pub(super) saved: &'a Saved<'a>,
    pub(super) model: Option<&'a Model>,
    pub(super) counts: &'a Counts,
    /// How many of the rows are alike, where what was saved is not known; `[groups, n]`.
    pub(super) alike: &'a [f64],
    /// Only terms of these panels of keys are wanted: of spans that touch none of them, nothing is computed. What sums over all of a
    /// row's terms (`dq`, `dsel_scale`) is then incomplete.
    pub(super) panels: Option<&'a BTreeSet<usize>>,
    pub(super) b: usize,
    pub(super) h: usize,
}

impl RowTask<'_> {
    /// Computes token `i` into `token`.
    #[inline(always)]
    pub(super) fn token(&self, rows: &mut Rows, i: usize, token: &mut TokenRows) {
        let shape = self.inputs.shape();
        let together = self.saved.part.heads_together(shape);
        let (groups, arrays) = (shape.groups(), if self.model.is_some() { ARRAYS } else { 1 });
        token.i = i;
        token.spans.resize(groups / together, Vec::new());
        let slots = groups / shape.sel_groups() * shape.num_sel();
        for array in 0..arrays {
            let terms = self.saved.part.terms_max(shape);
            token.score_gradients[array].fit(groups, terms);
            token.weights[array].fit(groups, terms);
            zero(&mut token.dq[array], groups * shape.dim());
            zero(&mut token.dsel_scale[array], slots);
        }
        for first in (0..groups).step_by(together) {
            self.heads(rows, i, token, first, together);
        }
    }

    /// Heads `first..first + count` of the group, which attend to the same keys.
    #[inline(always)]
    fn heads(&self, rows: &mut Rows, i: usize, token: &mut TokenRows, first: usize, count: usize) {
        let position = [self.b, self.h * self.inputs.shape().groups() + first, i];
        let Rows { scratch, x, probability_gradients, .. } = rows;
        scratch.list_of(self.inputs, self.saved.part, position, |span| {
            self.panels.is_none_or(|panels| span.touches(panels))
        });
        token.spans[first / count].clone_from(&scratch.spans);
        x.fit(count, scratch.terms);
        probability_gradients.fit(count, scratch.terms);
        let queries = query_rows(self.inputs.q(), position, count);
        scratch.dots(&queries, &self.head.keys, |product| product, x);
        let cotangents = self.saved.d_out.map(|d_out| query_rows(d_out, position, count));
        match &cotangents {
            Some(cotangents) => scratch.dots(cotangents, &self.head.values, |product| product, probability_gradients),
            None => (0..count).for_each(|g| probability_gradients.row_mut(g).fill(0.0)),
        }
        if self.model.is_some() {
            rows.bounds.dots(&mut rows.scratch, self.head, &queries, cotangents.as_deref());
        }
        for g in 0..count {
            let cotangent = cotangents.as_ref().map(|rows| rows[g]);
            let delta = self.row(rows, i, token, [first + g, g], cotangent);
            if let Some(model) = self.model {
                self.row_bounds(model, rows, i, token, [first + g, g], cotangent, delta);
            }
        }
        if self.saved.absent() {
            return;
        }
        let dim = self.inputs.shape().dim();
        let weights: Vec<&[f64]> = (first..first + count).map(|head| token.score_gradients[0].row(head)).collect();
        let mut dq: Vec<&mut [f64]> = token.dq[0][first * dim..(first + count) * dim].chunks_exact_mut(dim).collect();
        gather(&rows.scratch.spans, &self.head.keys, &weights, |value| value, &mut dq);
    }

    /// `P`, `scale c dS` and `dsel_scale` of one row. Returns `delta - d_lse`.
    #[inline(always)]
    fn row(&self, rows: &Rows, i: usize, token: &mut TokenRows, [head, g]: [usize; 2], d_out: Option<&[f64]>) -> f64 {
        let shape = self.inputs.shape();
        let scale = shape.scale();
        let at = self.row_index(head, i);
        let out = &self.saved.out[at * shape.value_dim()..][..shape.value_dim()];
        let delta = d_out.map_or(0.0, |d_out| out.iter().zip(d_out).map(|(out, d_out)| out * d_out).sum());
        let d_lse = self.saved.d_lse.map_or(0.0, |d_lse| d_lse[[self.b, self.h * shape.groups() + head, i]]);
        let delta = delta - d_lse;
        let (center, offset) = (self.saved.center[at], self.saved.offset[at]);
        let terms = rows.scratch.terms;
        let (x, factors) = (&rows.x.row(g)[..terms], &rows.scratch.factors[..terms]);
        let probability_gradients = &rows.probability_gradients.row(g)[..terms];
        let weights = &mut token.weights[0].row_mut(head)[..terms];
        let score_gradients = &mut token.score_gradients[0].row_mut(head)[..terms];
        for t in 0..terms {
            weights[t] = exp((x[t] * factors[t] * scale - center) - offset);
            score_gradients[t] = weights[t] * (probability_gradients[t] - delta) * scale;
        }
        if self.saved.absent() {
            // A part that the loss does not contain has no gradient: not even `0 * NaN`.
            score_gradients.fill(0.0);
            return delta;
        }
        let slots = &mut token.dsel_scale[0][head / shape.sel_groups() * shape.num_sel()..];
        let mut term = 0;
        for span in &rows.scratch.spans {
            if let Some(slot) = span.slot {
                let terms = term..term + span.len;
                slots[slot] += score_gradients[terms.clone()].iter().zip(&x[terms]).map(|(ds, x)| ds * x).sum::<f64>();
            }
            term += span.len;
        }
        score_gradients.iter_mut().zip(factors).for_each(|(ds, factor)| *ds *= factor);
        delta
    }

    #[inline(always)]
    fn row_bounds(
        &self,
        model: &Model,
        rows: &mut Rows,
        i: usize,
        token: &mut TokenRows,
        [head, g]: [usize; 2],
        d_out: Option<&[f64]>,
        delta: f64,
    ) {
        let shape = self.inputs.shape();
        let at = self.row_index(head, i);
        let row = BoundRow {
            spans: &rows.scratch.spans,
            factors: &rows.scratch.factors,
            x: rows.x.row(g),
            probability_gradients: rows.probability_gradients.row(g),
            keys: &self.head.keys,
            out: &self.saved.out[at * shape.value_dim()..][..shape.value_dim()],
            d_out,
            lse: self.saved.center[at] + self.saved.offset[at],
            delta,
            // A part that the loss does not contain is multiplied by zeros, whatever was saved of it.
            off: self
                .saved
                .off
                .filter(|_| !self.saved.absent())
                .map(|off| off.row(at, shape.value_dim(), self.alike[head * shape.seq_len() + i])),
            key_counts: &self.counts.keys,
            row_terms: self.counts.rows[head * shape.seq_len() + i],
            shape,
        };
        rows.bounds.row(model, &row, g, head, token);
    }

    fn row_index(&self, head: usize, i: usize) -> usize {
        let shape = self.inputs.shape();
        (self.b * shape.q_heads() + self.h * shape.groups() + head) * shape.seq_len() + i
    }
}

fn zero(values: &mut Vec<f64>, len: usize) {
    values.clear();
    values.resize(len, 0.0);
}
