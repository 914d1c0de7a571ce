//! What a case exercises, in words that reports count.

use crate::{Case, Mask, Selection, Values};

impl Case {
    /// Tags of what this case exercises, such as `partial_last_block` or `gqa`; the same words everywhere.
    pub fn covers(&self) -> Vec<&'static str> {
        let sizes = &self.sizes;
        let blocks = sizes.seq_len.div_ceil(sizes.block_size.max(1));
        let groups = sizes.q_heads / sizes.kv_heads.max(1);
        let selects = sizes.num_sel > 0;
        let cotangents = [&self.d_out, &self.d_lse, &self.d_sliding];
        let repeats = matches!(
            self.selection,
            Selection::Duplicates {} | Selection::Same {} | Selection::Own {} | Selection::Last {}
        );
        let tags = [
            ("batch", sizes.batch > 1),
            ("gqa", groups > 1),
            ("one_kv_head", sizes.kv_heads == 1),
            ("partial_last_block", !sizes.seq_len.is_multiple_of(sizes.block_size)),
            ("one_block", blocks == 1),
            ("odd_block_size", !sizes.block_size.is_power_of_two()),
            ("block_size_1", sizes.block_size == 1),
            ("value_dim", sizes.value_dim != sizes.dim),
            ("no_selection", !selects),
            ("selection_per_query_head", selects && groups > 1 && sizes.sel_heads == sizes.q_heads),
            ("future_blocks", selects && matches!(self.selection, Selection::Any {} | Selection::Future {})),
            ("own_block_selected", selects && matches!(self.selection, Selection::Own {} | Selection::Any {})),
            ("duplicates", selects && sizes.num_sel > 1 && repeats),
            ("mask", selects && !matches!(self.mask, Mask::All {})),
            ("sel_scale", selects && self.sel_scale.is_some()),
            ("no_diagonal", !self.include_block_causal),
            ("sliding", self.sliding_window.is_some()),
            ("gradients", cotangents.iter().any(|cotangent| cotangent.is_some())),
            ("d_lse", self.d_lse.is_some()),
            ("d_sliding", self.d_sliding.is_some()),
            (
                "large_logits",
                self.values().any(|(_, values)| matches!(values, Values::Normal { scale } if *scale >= 8.0)),
            ),
            ("given", self.values().any(|(_, values)| matches!(values, Values::Given(_)))),
            ("non_finite", self.overrides.iter().any(|change| !change.value.is_finite())),
        ];
        tags.into_iter().filter(|(_, covered)| *covered).map(|(tag, _)| tag).collect()
    }
}
