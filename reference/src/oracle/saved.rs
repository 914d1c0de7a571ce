//! What the passes of the backward hand to each other: what it starts from, the sums that it fills, the rows of a token and of a
//! budget. Plain data, which every pass may use and which uses none of them.

use ndarray::{Array3, Array4};
use nsa_corpus::{Inputs, Shape};

use super::model::{Model, TIERS};
use super::packed::{Packed, padded_keys};
use super::rows::Terms;
use super::spans::{Part, Span};

/// What the backward of one part starts from.
pub(super) struct Saved<'a> {
    pub(super) part: Part,
    /// `[b, q_heads, n, value_dim]`.
    pub(super) out: &'a [f64],
    /// `P = exp((s - center) - offset)`, `[b, q_heads, n]`.
    pub(super) center: &'a [f64],
    /// Likewise; 0 where `center` is a stored `lse`.
    pub(super) offset: &'a [f64],
    /// Where the implementation saved something else than this.
    pub(super) off: Option<Off<'a>>,
    pub(super) d_out: Option<&'a Array4<f64>>,
    pub(super) d_lse: Option<&'a Array3<f64>>,
}

/// How far what an implementation saved may be from what is at hand, both tiers of each element: 0 where it is known.
#[derive(Clone, Copy)]
pub(super) struct Off<'a> {
    /// `[b, q_heads, n, value_dim]`.
    pub(super) out: [&'a [f64]; TIERS],
    /// `[b, q_heads, n]`.
    pub(super) lse: [&'a [f64]; TIERS],
}

impl<'a> Off<'a> {
    /// The row number `at`, `width` features wide, one of so many that are alike.
    pub(super) fn row(&self, at: usize, width: usize, alike: f64) -> OffRow<'a> {
        OffRow { out: self.out.map(|out| &out[at * width..][..width]), lse: self.lse.map(|lse| lse[at]), alike }
    }
}

/// One row of [`Off`].
#[derive(Clone, Copy)]
pub(super) struct OffRow<'a> {
    pub(super) out: [&'a [f64]; TIERS],
    pub(super) lse: [f64; TIERS],
    /// How many rows are alike ([`super::delta_bounds::alike`]).
    pub(super) alike: f64,
}

impl Saved<'_> {
    /// Whether the loss does not contain this part.
    pub(super) fn absent(&self) -> bool {
        self.d_out.is_none() && self.d_lse.is_none()
    }
}

/// A tensor of sums over terms, with the sums that its budget follows from (empty without a model): both tiers of
/// errors, and the squares of what does not conspire in the likely one.
pub(super) struct Sums {
    pub(super) values: Vec<f64>,
    pub(super) errors: [Vec<f64>; TIERS],
    pub(super) squares: Vec<f64>,
}

impl Sums {
    pub(super) fn zeros(len: usize, bounded: bool) -> Self {
        let bound = || vec![0.0; if bounded { len } else { 0 }];
        Sums { values: vec![0.0; len], errors: std::array::from_fn(|_| bound()), squares: bound() }
    }

    /// All arrays, values first.
    pub(super) fn arrays_mut(&mut self) -> impl Iterator<Item = &mut Vec<f64>> {
        std::iter::once(&mut self.values).chain(&mut self.errors).chain(std::iter::once(&mut self.squares))
    }
}

/// Numbers of terms over both parts.
#[derive(Default)]
pub(super) struct Counts {
    /// Keys that each row attends to, `[groups, n]`.
    pub(super) rows: Vec<usize>,
    /// Rows that attend to each key, `[padded keys]`.
    pub(super) keys: Vec<usize>,
}

impl Counts {
    /// How many terms each row and each key of a (batch, kv head) has: the lengths of the sums that their budgets bound.
    pub(super) fn of(inputs: &Inputs, region: usize, parts: &[Saved<'_>]) -> Self {
        let shape = inputs.shape();
        let (b, h) = (region / shape.kv_heads(), region % shape.kv_heads());
        let mut rows = vec![0; shape.groups() * shape.seq_len()];
        let mut steps = vec![0i64; padded_keys(inputs) + 1];
        let mut spans = Vec::new();
        for saved in parts {
            for i in 0..shape.seq_len() {
                for g in 0..shape.groups() {
                    saved.part.spans(inputs, [b, h * shape.groups() + g, i], &mut spans);
                    for span in &spans {
                        rows[g * shape.seq_len() + i] += span.len;
                        steps[span.start] += 1;
                        steps[span.start + span.len] -= 1;
                    }
                }
            }
        }
        let running = steps.iter().scan(0, |count, step| {
            *count += step;
            Some(*count as usize)
        });
        Counts { rows, keys: running.collect() }
    }
}

/// Arrays beside each value: the value, both tiers of error, squares.
pub(super) const ARRAYS: usize = 4;

/// What the first pass keeps of one token, for all query heads of the kv head.
#[derive(Default)]
pub(super) struct TokenRows {
    /// Which token.
    pub(super) i: usize,
    /// Spans of each set of heads computed together.
    pub(super) spans: Vec<Vec<Span>>,
    /// `scale c dS` and, with a model, the error coefficients of `dk`; `[head][term]`.
    pub(super) score_gradients: [Terms; ARRAYS],
    /// `P` and, with a model, the error coefficients of `dv`; `[head][term]`.
    pub(super) weights: [Terms; ARRAYS],
    /// `[groups, dim]`, with the sums of its budget.
    pub(super) dq: [Vec<f64>; ARRAYS],
    /// `[sel heads of this kv head, num_sel]`, with the sums of its budget.
    pub(super) dsel_scale: [Vec<f64>; ARRAYS],
}

/// One row of the backward, as computed.
pub(super) struct BoundRow<'a> {
    pub(super) spans: &'a [Span],
    pub(super) factors: &'a [f64],
    /// `<q, k_t>`.
    pub(super) x: &'a [f64],
    /// `<d_out, v_t>`.
    pub(super) probability_gradients: &'a [f64],
    pub(super) keys: &'a Packed,
    pub(super) out: &'a [f64],
    pub(super) d_out: Option<&'a [f64]>,
    pub(super) lse: f64,
    /// `<out, d_out> - d_lse`.
    pub(super) delta: f64,
    /// How far `out` and `lse` may be from what the implementation saved; `None`: they are what it saved.
    pub(super) off: Option<OffRow<'a>>,
    /// Rows that attend to each key, over both parts.
    pub(super) key_counts: &'a [usize],
    /// Keys that this row attends to, over both parts.
    pub(super) row_terms: usize,
    pub(super) shape: &'a Shape,
}

impl BoundRow<'_> {
    /// Rescalings of the row's running sum.
    pub(super) fn rescalings(&self, model: &Model) -> usize {
        model.rescalings(self.spans.iter().map(|span| span.len), self.shape.block_size())
    }
}

/// The quantities of one term.
#[derive(Clone, Copy, Default)]
pub(super) struct Term {
    pub(super) weight: f64,
    /// `dP - delta`.
    pub(super) difference: f64,
    /// `eps_t` of both tiers.
    pub(super) relative: [f64; TIERS],
    /// `F_t` of both tiers.
    pub(super) gradient_errors: [f64; TIERS],
}
