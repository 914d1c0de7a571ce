//! What a case exercises, as words: so that a generator which skips everything, or a corpus with a hole, is seen.

use ndarray::Axis;

use crate::{Case, Error, Mask, Selection, Shape, Values};

/// Something that a case may exercise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name, as [`Case::features`] gives it.
    pub name: &'static str,
    /// Whether shrinking tries to do without it: a minimal case that has it needs it. Which of `d_out` and `d_sliding` is left is not
    /// among them: often either shows the same.
    pub may_be_required: bool,
    /// Whether generated cases have it.
    pub drawn: bool,
}

const fn feature(name: &'static str, may_be_required: bool, drawn: bool) -> Feature {
    Feature { name, may_be_required, drawn }
}

/// Every feature: its name, whether a minimal case may need it, whether it is drawn.
pub const FEATURES: [Feature; 43] = [
    feature("batch", true, true),
    feature("multi_head", true, true),
    feature("gqa", true, true),
    feature("mqa", true, true),
    feature("sel_per_query_head", true, true),
    feature("value_dim", true, true),
    feature("dim_no_power_of_two", true, true),
    feature("block_1", false, true),
    feature("block_no_power_of_two", true, true),
    feature("block_over_64", true, true),
    feature("dim_over_128", true, true),
    feature("heads_over_16", true, true),
    feature("slots_over_16", true, true),
    feature("blocks_over_256", true, true),
    feature("seq_1", false, true),
    feature("one_block", false, true),
    feature("partial_last_block", false, true),
    feature("whole_blocks", false, true),
    feature("num_sel_0", false, true),
    feature("more_slots_than_blocks", false, false),
    feature("no_block_causal", true, true),
    feature("sliding", true, true),
    feature("window_0", false, true),
    feature("window_covers_everything", false, true),
    feature("forward_only", false, true),
    feature("d_out", false, true),
    feature("d_lse", true, true),
    feature("d_sliding", false, true),
    feature("sel_scale", true, true),
    feature("sel_scale_zero", false, true),
    feature("given", false, false),
    feature("large_logits", false, true),
    feature("one_slot_mask", false, false),
    feature("overrides", false, false),
    feature("non_finite", false, true),
    feature("past_block", true, true),
    feature("own_block", true, true),
    feature("future_block", true, true),
    feature("duplicates", true, true),
    feature("partial_block_selected", true, true),
    feature("masked_slot", true, false),
    feature("row_without_live_slot", false, false),
    feature("row_without_keys", true, true),
];

impl Case {
    /// What the case exercises: tags like `"partial_last_block"`, sorted. They follow from its sizes and options and from
    /// the indices and mask it draws.
    /// A case that [`Case::check`] refuses features nothing.
    pub fn features(&self) -> Vec<&'static str> {
        let Ok(shape) = self.check() else { return Vec::new() };
        let mut tags = sizes(&shape);
        tags.extend(self.options());
        // A given selection that cannot be read says nothing here; materialising the case says what is wrong.
        tags.extend(self.selected(&shape).unwrap_or_default());
        tags.sort_unstable();
        tags
    }

    fn options(&self) -> Vec<&'static str> {
        let window = self.sliding_window;
        let has = |what: fn(&Values) -> bool| {
            let cotangents = [&self.d_out, &self.d_lse, &self.d_sliding].into_iter().flatten();
            [&self.q, &self.k, &self.v].into_iter().chain(cotangents).any(what)
        };
        let huge = |values: &Values| matches!(values, Values::Normal { scale } if *scale >= 8.0);
        chosen(&[
            ("no_block_causal", !self.include_block_causal),
            ("sliding", window.is_some()),
            ("window_0", window == Some(0)),
            ("window_covers_everything", window.is_some_and(|window| window >= self.sizes.seq_len - 1)),
            ("forward_only", self.d_out.is_none() && self.d_lse.is_none() && self.d_sliding.is_none()),
            ("d_out", self.d_out.is_some()),
            ("d_lse", self.d_lse.is_some()),
            ("d_sliding", self.d_sliding.is_some()),
            ("sel_scale", self.sel_scale.is_some()),
            ("sel_scale_zero", self.sel_scale == Some(Values::zeros())),
            (
                "given",
                has(|values| matches!(values, Values::Given(_))) || matches!(self.selection, Selection::Given(_)),
            ),
            ("large_logits", huge(&self.q) || huge(&self.k)),
            ("one_slot_mask", matches!(self.mask, Mask::One { .. })),
            ("overrides", !self.overrides.is_empty()),
            ("non_finite", self.overrides.iter().any(|change| !change.value.is_finite())),
        ])
    }

    fn selected(&self, shape: &Shape) -> Result<Vec<&'static str>, Error> {
        let (indices, mask) = self.slots(shape)?;
        let partial = shape.padded_len() != shape.seq_len();
        let last = shape.blocks() as i64 - 1;
        let mut seen = [("past_block", false), ("own_block", false), ("future_block", false)];
        let [mut duplicates, mut partial_selected, mut masked, mut no_live_slot] = [false; 4];
        for (row, (blocks, live)) in indices.lanes(Axis(3)).into_iter().zip(mask.lanes(Axis(3))).enumerate() {
            let own = (row % shape.seq_len() / shape.block_size()) as i64;
            let alive: Vec<i64> = blocks.iter().zip(live).filter(|(_, live)| **live).map(|(block, _)| *block).collect();
            seen[0].1 |= alive.iter().any(|block| *block < own);
            seen[1].1 |= alive.contains(&own);
            seen[2].1 |= alive.iter().any(|block| *block > own);
            duplicates |= alive.iter().enumerate().any(|(at, block)| alive[..at].contains(block));
            partial_selected |= partial && alive.contains(&last);
            masked |= alive.len() < blocks.len();
            no_live_slot |= alive.is_empty();
        }
        let empty = !self.include_block_causal && (no_live_slot || shape.num_sel() == 0);
        let others = [
            ("duplicates", duplicates),
            ("partial_block_selected", partial_selected),
            ("masked_slot", masked),
            ("row_without_live_slot", no_live_slot || shape.num_sel() == 0),
            ("row_without_keys", empty),
        ];
        Ok(chosen(&seen).into_iter().chain(chosen(&others)).collect())
    }
}

fn sizes(shape: &Shape) -> Vec<&'static str> {
    let (n, block) = (shape.seq_len(), shape.block_size());
    chosen(&[
        ("batch", shape.batch() > 1),
        ("multi_head", shape.groups() == 1 && shape.kv_heads() > 1),
        ("gqa", shape.groups() > 1 && shape.kv_heads() > 1),
        ("mqa", shape.groups() > 1 && shape.kv_heads() == 1),
        ("sel_per_query_head", shape.sel_heads() != shape.kv_heads()),
        ("value_dim", shape.value_dim() != shape.dim()),
        ("dim_no_power_of_two", !shape.dim().is_power_of_two()),
        ("block_1", block == 1),
        ("block_no_power_of_two", !block.is_power_of_two()),
        ("block_over_64", block > 64),
        ("dim_over_128", shape.dim().max(shape.value_dim()) > 128),
        ("heads_over_16", shape.sel_groups() > 16),
        ("slots_over_16", shape.num_sel() > 16),
        ("blocks_over_256", shape.blocks() > 256),
        ("seq_1", n == 1),
        ("one_block", shape.blocks() == 1),
        ("partial_last_block", !n.is_multiple_of(block)),
        ("whole_blocks", n.is_multiple_of(block)),
        ("num_sel_0", shape.num_sel() == 0),
        ("more_slots_than_blocks", shape.num_sel() > shape.blocks()),
    ])
}

fn chosen(tags: &[(&'static str, bool)]) -> Vec<&'static str> {
    tags.iter().filter(|(_, holds)| *holds).map(|(tag, _)| *tag).collect()
}
