//! The corpus's files, as the binary carries them: it needs no folder beside it.

macro_rules! files {
    ($($path:literal),* $(,)?) => { &[$(($path, include_bytes!(concat!("../", $path)))),*] };
}

/// Files of entries, by path below the corpus.
pub(crate) const CASES: &[(&str, &[u8])] = files![
    "cases/upstream.toml",
    "cases/edges.toml",
    "cases/gqa.toml",
    "cases/selection.toml",
    "cases/masks.toml",
    "cases/scale.toml",
    "cases/sliding.toml",
    "cases/dims.toml",
    "cases/cotangents.toml",
    "cases/numerics.toml",
    "cases/probes.toml",
    "cases/non_finite.toml",
    "cases/field.toml",
    "cases/kernels.toml",
    "cases/boundaries.toml",
    "cases/lists.toml",
    "cases/activations.toml",
];

/// Golden answers, by path below the corpus.
pub(crate) const GOLDEN: &[(&str, &[u8])] = files![
    "golden/block_32.safetensors",
    "golden/dim_1.safetensors",
    "golden/duplicates.safetensors",
    "golden/future_block.safetensors",
    "golden/group_1.safetensors",
    "golden/group_16.safetensors",
    "golden/group_4_batch2.safetensors",
    "golden/logits_below_minus_1e4.safetensors",
    "golden/logits_x30.safetensors",
    "golden/logits_x30_both.safetensors",
    "golden/mask_all_false.safetensors",
    "golden/mask_all_true_no_sel_scale.safetensors",
    "golden/num_sel_0.safetensors",
    "golden/partial_last_block.safetensors",
    "golden/seed_block32_dim64_f32.safetensors",
    "golden/seed_small.safetensors",
    "golden/seed_small_ones_cotangent.safetensors",
    "golden/sel_scale_zero.safetensors",
    "golden/self_block.safetensors",
    "golden/seq_1.safetensors",
    "golden/seq_2block_plus_7.safetensors",
    "golden/seq_block.safetensors",
    "golden/seq_block_minus_1.safetensors",
    "golden/seq_block_plus_1.safetensors",
    "golden/seq_multiple.safetensors",
    "golden/sliding_0.safetensors",
    "golden/sliding_default.safetensors",
    "golden/sliding_longer_than_seq.safetensors",
    "golden/tiny_cotangent.safetensors",
    "golden/values_over_fp16.safetensors",
];

/// Real activations, by path below the corpus.
pub(crate) const ACTIVATIONS: &[(&str, &[u8])] =
    files!["activations/minilm_layer0.safetensors", "activations/minilm_layer3.safetensors"];

/// The tensor file of this path below the corpus.
pub(crate) fn file(path: &str) -> Option<&'static [u8]> {
    GOLDEN.iter().chain(ACTIVATIONS).find(|(name, _)| *name == path).map(|(_, bytes)| *bytes)
}
