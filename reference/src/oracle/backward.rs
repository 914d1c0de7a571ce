//! The backward, two passes over chunks of tokens of one (batch, kv head).
//!
//! `P_t = exp(s_t - lse)`, `dP_t = <d_out, v_t>`, `dS_t = P_t (dP_t - <out, d_out> + d_lse)`. The first pass, by rows, finishes
//! `dq = scale sum_t c_t dS_t k_t` and `dsel_scale` and keeps `P` and `scale c dS` of the chunk; the second, by panels of keys,
//! adds them to `dk_t += scale c_t dS_t q` and `dv_t += P_t d_out` in the order of tokens and heads. A chunk's size follows
//! from the shape alone, so the bits do not depend on the number of threads.

use ndarray::{Array3, Array4};
use nsa_corpus::Inputs;
use pulp::Arch;
use rayon::prelude::*;

use super::backward_rows::{RowTask, Rows, TokenRows};
use super::columns::{self, Columns};
use super::delta_bounds::alike;
use super::model::{Model, TIERS};
use super::packed::{Head, padded_keys};
use super::spans::Part;

/// Numbers that a chunk's kept terms may take: 4 MiB in all.
const CHUNK_NUMBERS: usize = 1 << 19;

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
    /// How many rows are alike ([`alike`]).
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

/// The gradients of one (batch, kv head).
pub(super) struct Region {
    /// `[groups, n, dim]`.
    pub(super) dq: Sums,
    /// `[padded keys, dim]`: gradients of padded keys stand behind the first `n` rows.
    pub(super) dk: Sums,
    /// `[padded keys, value_dim]`.
    pub(super) dv: Sums,
    /// `[sel heads of this kv head, n, num_sel]`.
    pub(super) dsel_scale: Sums,
}

/// Gradients of every (batch, kv head), in order.
pub(super) fn backward(inputs: &Inputs, heads: &[Head], parts: &[Saved<'_>], model: Option<&Model>) -> Vec<Region> {
    let regions = heads.par_iter().enumerate();
    regions.map(|(region, head)| RegionTask { inputs, head, region, model }.run(parts)).collect()
}

struct RegionTask<'a> {
    inputs: &'a Inputs,
    head: &'a Head,
    region: usize,
    model: Option<&'a Model>,
}

impl RegionTask<'_> {
    fn run(&self, parts: &[Saved<'_>]) -> Region {
        let shape = self.inputs.shape();
        let (bounded, padded, n) = (self.model.is_some(), padded_keys(self.inputs), shape.seq_len());
        let sel_heads = shape.groups() / shape.sel_groups();
        let mut answer = Region {
            dq: Sums::zeros(shape.groups() * n * shape.dim(), bounded),
            dk: Sums::zeros(padded * shape.dim(), bounded),
            dv: Sums::zeros(padded * shape.value_dim(), bounded),
            dsel_scale: Sums::zeros(sel_heads * n * shape.num_sel(), bounded),
        };
        let counts = self.model.map(|_| Counts::of(self.inputs, self.region, parts)).unwrap_or_default();
        // Without budgets, a part that the loss does not contain adds nothing.
        for saved in parts.iter().filter(|saved| self.model.is_some() || !saved.absent()) {
            self.part(saved, &counts, &mut answer);
        }
        answer
    }

    fn part(&self, saved: &Saved<'_>, counts: &Counts, answer: &mut Region) {
        let shape = self.inputs.shape();
        let arrays = if self.model.is_some() { 8 } else { 2 };
        let numbers = shape.groups() * saved.part.terms_max(shape) * arrays;
        let chunk = (CHUNK_NUMBERS / numbers).clamp(4, 512).min(shape.seq_len());
        let (b, h) = (self.region / shape.kv_heads(), self.region % shape.kv_heads());
        let RegionTask { inputs, head, model, .. } = *self;
        let alike = alike(inputs, saved, self.region);
        let task = RowTask { inputs, head, saved, model, counts, alike: &alike, panels: None, b, h };
        let arch = Arch::new();
        let mut tokens: Vec<TokenRows> = (0..chunk).map(|_| TokenRows::default()).collect();
        for first in (0..shape.seq_len()).step_by(chunk) {
            let tokens = &mut tokens[..chunk.min(shape.seq_len() - first)];
            tokens.par_iter_mut().enumerate().with_min_len(4).for_each_init(Rows::default, |rows, (index, token)| {
                arch.dispatch(|| task.token(rows, first + index, token));
            });
            self.add_rows(tokens, first, answer);
            let visits = columns::visits(tokens, shape.groups());
            let columns = Columns { inputs: self.inputs, saved, tokens, b, h };
            columns.add(&visits, &mut answer.dk, &mut answer.dv);
        }
    }

    /// Adds what the chunk's rows computed of `dq` and `dsel_scale`.
    fn add_rows(&self, tokens: &[TokenRows], first: usize, answer: &mut Region) {
        let shape = self.inputs.shape();
        let n = shape.seq_len();
        for (index, token) in tokens.iter().enumerate() {
            let pairs = [
                (&mut answer.dq, &token.dq, shape.dim()),
                (&mut answer.dsel_scale, &token.dsel_scale, shape.num_sel()),
            ];
            for (sums, rows, width) in pairs {
                for (array, rows) in sums.arrays_mut().zip(rows).filter(|(array, _)| !array.is_empty()) {
                    for (head, row) in rows.chunks_exact(width.max(1)).enumerate() {
                        let target = &mut array[(head * n + first + index) * width..][..width];
                        target.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                    }
                }
            }
        }
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
