//! Which keys a query row attends to, as runs of consecutive keys: the selected part and the sliding part differ in
//! nothing else.

use std::collections::BTreeSet;

use nsa_corpus::{Inputs, Shape};

use super::kernels::PANEL;

/// The two attentions of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The own block up to the query, and every live slot's whole block.
    Selected,
    /// Keys `j` with `0 <= i - j <= window`.
    Sliding(usize),
}

/// A run of consecutive keys that a row attends to, one term for each key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    /// First key, counted in tokens; the padded keys of a partial last block count like any other.
    pub(super) start: usize,
    /// Number of keys.
    pub(super) len: usize,
    /// What the scores are multiplied by before the softmax: the slot's `sel_scale`, or 1.
    pub(super) factor: f64,
    /// The selection slot, `None` for the diagonal and the sliding window.
    pub(super) slot: Option<usize>,
}

impl Span {
    /// Whether it has a key of one of `panels`.
    pub(super) fn touches(&self, panels: &BTreeSet<usize>) -> bool {
        panels.range(self.start / PANEL..=(self.start + self.len - 1) / PANEL).next().is_some()
    }
}

impl Part {
    /// Query heads that share their spans, all of one kv head: they are computed together.
    pub(super) fn heads_together(self, shape: &Shape) -> usize {
        match self {
            Part::Selected => shape.sel_groups(),
            Part::Sliding(_) => shape.groups(),
        }
    }

    /// The most terms that a row can have.
    pub(super) fn terms_max(self, shape: &Shape) -> usize {
        match self {
            Part::Selected => shape.block_size() * (shape.num_sel() + 1),
            Part::Sliding(window) => window.saturating_add(1).min(shape.seq_len()),
        }
    }

    /// Fills `spans` with what row (`b`, query head `q_head`, `i`) attends to, the diagonal first, then slots in order.
    pub(super) fn spans(self, inputs: &Inputs, [b, q_head, i]: [usize; 3], spans: &mut Vec<Span>) {
        let shape = inputs.shape();
        spans.clear();
        match self {
            Part::Sliding(window) => {
                let start = i.saturating_sub(window);
                spans.push(Span { start, len: i + 1 - start, factor: 1.0, slot: None });
            }
            Part::Selected => {
                let block_size = shape.block_size();
                if inputs.include_block_causal() {
                    let start = i / block_size * block_size;
                    spans.push(Span { start, len: i + 1 - start, factor: 1.0, slot: None });
                }
                let sel_head = q_head / shape.sel_groups();
                for slot in (0..shape.num_sel()).filter(|&s| inputs.mask()[[b, sel_head, i, s]]) {
                    let position = [b, sel_head, i, slot];
                    let start = inputs.indices()[position] as usize * block_size;
                    let factor = inputs.sel_scale().map_or(1.0, |scales| scales[position]);
                    spans.push(Span { start, len: block_size, factor, slot: Some(slot) });
                }
            }
        }
    }
}
