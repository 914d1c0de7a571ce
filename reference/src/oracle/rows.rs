//! The scores of the query heads that share one token's keys: dot products span by span, and the scratch they stand in.

use nsa_corpus::Inputs;

use super::kernels::{PANEL, by_heads, dot_panels, weighted_sum};
use super::packed::Packed;
use super::spans::{Part, Span};

/// What a worker computes one token's rows in. Arrays of terms are `[head][stride]`, a row's terms in span order.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) spans: Vec<Span>,
    pub(super) factors: Vec<f64>,
    pub(super) terms: usize,
    seq_len: usize,
    lanes: Vec<f64>,
}

impl Scratch {
    /// Lists the spans of the rows of query heads `q_head..q_head + heads` at token `i`.
    pub(super) fn list(&mut self, inputs: &Inputs, part: Part, position: [usize; 3]) {
        self.list_of(inputs, part, position, |_| true);
    }

    /// Lists those spans alone that are `wanted`.
    pub(super) fn list_of(
        &mut self,
        inputs: &Inputs,
        part: Part,
        position: [usize; 3],
        wanted: impl Fn(&Span) -> bool,
    ) {
        part.spans(inputs, position, &mut self.spans);
        self.spans.retain(wanted);
        self.seq_len = inputs.shape().seq_len();
        self.terms = self.spans.iter().map(|span| span.len).sum();
        self.factors.clear();
        for span in &self.spans {
            self.factors.resize(self.factors.len() + span.len, span.factor);
        }
    }

    /// `out[h][t] = sum_d map(rows[h][d] * packed[t][d])` for every term `t` of the listed spans. A padded key's is 0
    /// whatever the row holds: padding is no `inf * 0`.
    #[inline(always)]
    pub(super) fn dots(&mut self, rows: &[&[f64]], packed: &Packed, map: impl Fn(f64) -> f64 + Copy, out: &mut Terms) {
        let mut term = 0;
        for span in &self.spans {
            let (panels, lane) = packed.panels(span.start, span.len);
            let width = rows[0].len();
            let lanes = panels.len() / width;
            self.lanes.resize(rows.len() * lanes, 0.0);
            let heads = rows.len();
            by_heads!(heads, first, COUNT, {
                let mut chunks = self.lanes[first * lanes..].chunks_exact_mut(lanes);
                let out: [&mut [f64]; COUNT] = std::array::from_fn(|_| chunks.next().unwrap_or_default());
                dot_panels::<COUNT>(std::array::from_fn(|h| rows[first + h]), panels, map, out);
            });
            for h in 0..heads {
                let dots = &self.lanes[h * lanes + lane..][..span.len];
                let real = span.len.min(self.seq_len.saturating_sub(span.start));
                out.row_mut(h)[term..term + real].copy_from_slice(&dots[..real]);
                out.row_mut(h)[term + real..term + span.len].fill(0.0);
            }
            term += span.len;
        }
    }
}

/// One number for each head and term: `[head][stride]`.
#[derive(Default)]
pub(super) struct Terms {
    stride: usize,
    values: Vec<f64>,
}

impl Terms {
    /// Room for `heads` rows of at least `terms` terms.
    pub(super) fn fit(&mut self, heads: usize, terms: usize) {
        self.stride = terms.next_multiple_of(PANEL);
        self.values.resize(heads * self.stride, 0.0);
    }

    pub(super) fn row(&self, h: usize) -> &[f64] {
        &self.values[h * self.stride..][..self.stride]
    }

    pub(super) fn row_mut(&mut self, h: usize) -> &mut [f64] {
        &mut self.values[h * self.stride..][..self.stride]
    }
}

/// `out[h][d] += sum_t weights[h][t] * map(packed[t][d])`, spans in order.
#[inline(always)]
pub(super) fn gather(
    spans: &[Span],
    packed: &Packed,
    weights: &[&[f64]],
    map: impl Fn(f64) -> f64 + Copy,
    out: &mut [&mut [f64]],
) {
    let mut term = 0;
    for span in spans {
        let rows = packed.rows(span.start, span.len);
        let heads = out.len();
        by_heads!(heads, first, COUNT, {
            let mut slices = out[first..].iter_mut();
            let out: [&mut [f64]; COUNT] = std::array::from_fn(|_| slices.next().map_or(&mut [][..], |row| &mut **row));
            let weights = std::array::from_fn(|h| &weights[first + h][term..term + span.len]);
            weighted_sum::<COUNT>(weights, rows, map, out);
        });
        term += span.len;
    }
}
