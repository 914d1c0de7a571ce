//! The backward, two passes over chunks of tokens of one (batch, kv head).
//!
//! `P_t = exp(s_t - lse)`, `dP_t = <d_out, v_t>`, `dS_t = P_t (dP_t - <out, d_out> + d_lse)`. The first pass, by rows, finishes
//! `dq = scale sum_t c_t dS_t k_t` and `dsel_scale` and keeps `P` and `scale c dS` of the chunk; the second, by panels of keys,
//! adds them to `dk_t += scale c_t dS_t q` and `dv_t += P_t d_out` in the order of tokens and heads. A chunk's size follows
//! from the shape alone, so the bits do not depend on the number of threads.

use nsa_corpus::Inputs;
use pulp::Arch;
use rayon::prelude::*;

use super::backward_rows::{RowTask, Rows};
use super::columns::{self, Columns};
use super::delta_bounds::alike;
use super::model::Model;
use super::packed::{Head, padded_keys};
use super::saved::{Counts, Saved, Sums, TokenRows};

/// Numbers that a chunk's kept terms may take: 4 MiB in all.
const CHUNK_NUMBERS: usize = 1 << 19;

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
