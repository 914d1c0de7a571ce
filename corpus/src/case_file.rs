//! A [`Case`] as it stands in TOML: flat and strict; what is usual may be left out.

use serde::{Deserialize, Serialize};
use toml::ser::ValueSerializer;

use crate::{Case, Mask, Override, Selection, Sizes, Values};

/// The fields in the order in which they are printed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    q_heads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_heads: Option<usize>,
    seq_len: usize,
    dim: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_dim: Option<usize>,
    block_size: usize,
    num_sel: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    sel_heads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    include_block_causal: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sliding_window: Option<usize>,
    /// TOML has signed integers of 64 bits only: a seed's bits are read as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    q: Option<Values>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<Values>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<Values>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selection: Option<Selection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<Mask>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sel_scale: Option<Values>,
    #[serde(skip_serializing_if = "Option::is_none")]
    d_out: Option<Values>,
    #[serde(skip_serializing_if = "Option::is_none")]
    d_lse: Option<Values>,
    #[serde(skip_serializing_if = "Option::is_none")]
    d_sliding: Option<Values>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    overrides: Vec<Override>,
}

impl From<CaseFile> for Case {
    fn from(file: CaseFile) -> Case {
        let kv_heads = file.kv_heads.unwrap_or(1);
        let sizes = Sizes {
            batch: file.batch.unwrap_or(1),
            q_heads: file.q_heads.unwrap_or(kv_heads),
            kv_heads,
            seq_len: file.seq_len,
            dim: file.dim,
            value_dim: file.value_dim.unwrap_or(file.dim),
            block_size: file.block_size,
            num_sel: file.num_sel,
            sel_heads: file.sel_heads.unwrap_or(kv_heads),
        };
        let plain = Case::ordinary(sizes, 0);
        Case {
            include_block_causal: file.include_block_causal.unwrap_or(plain.include_block_causal),
            sliding_window: file.sliding_window,
            seed: file.seed.map_or(plain.seed, i64::cast_unsigned),
            q: file.q.unwrap_or(plain.q),
            k: file.k.unwrap_or(plain.k),
            v: file.v.unwrap_or(plain.v),
            selection: file.selection.unwrap_or(plain.selection),
            mask: file.mask.unwrap_or(plain.mask),
            sel_scale: file.sel_scale,
            d_out: file.d_out,
            d_lse: file.d_lse,
            d_sliding: file.d_sliding,
            overrides: file.overrides,
            sizes,
        }
    }
}

impl From<Case> for CaseFile {
    fn from(case: Case) -> CaseFile {
        let Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads } = case.sizes;
        CaseFile {
            batch: Some(batch),
            q_heads: Some(q_heads),
            kv_heads: Some(kv_heads),
            seq_len,
            dim,
            value_dim: unless(value_dim, dim),
            block_size,
            num_sel,
            sel_heads: unless(sel_heads, kv_heads),
            include_block_causal: unless(case.include_block_causal, true),
            sliding_window: case.sliding_window,
            seed: Some(case.seed.cast_signed()),
            q: Some(case.q),
            k: Some(case.k),
            v: Some(case.v),
            selection: Some(case.selection),
            mask: Some(case.mask),
            sel_scale: case.sel_scale,
            d_out: case.d_out,
            d_lse: case.d_lse,
            d_sliding: case.d_sliding,
            overrides: case.overrides,
        }
    }
}

fn unless<T: PartialEq>(value: T, default: T) -> Option<T> {
    (value != default).then_some(value)
}

impl CaseFile {
    /// The fields as lines, each value on its own line.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = String::new();
        line(&mut text, "batch", self.batch.as_ref());
        line(&mut text, "q_heads", self.q_heads.as_ref());
        line(&mut text, "kv_heads", self.kv_heads.as_ref());
        line(&mut text, "seq_len", Some(&self.seq_len));
        line(&mut text, "dim", Some(&self.dim));
        line(&mut text, "value_dim", self.value_dim.as_ref());
        line(&mut text, "block_size", Some(&self.block_size));
        line(&mut text, "num_sel", Some(&self.num_sel));
        line(&mut text, "sel_heads", self.sel_heads.as_ref());
        line(&mut text, "include_block_causal", self.include_block_causal.as_ref());
        line(&mut text, "sliding_window", self.sliding_window.as_ref());
        line(&mut text, "seed", self.seed.as_ref());
        line(&mut text, "q", self.q.as_ref());
        line(&mut text, "k", self.k.as_ref());
        line(&mut text, "v", self.v.as_ref());
        line(&mut text, "selection", self.selection.as_ref());
        line(&mut text, "mask", self.mask.as_ref());
        line(&mut text, "sel_scale", self.sel_scale.as_ref());
        line(&mut text, "d_out", self.d_out.as_ref());
        line(&mut text, "d_lse", self.d_lse.as_ref());
        line(&mut text, "d_sliding", self.d_sliding.as_ref());
        line(&mut text, "overrides", (!self.overrides.is_empty()).then_some(&self.overrides));
        text
    }
}

/// Adds `key = value`, where there is one, as an inline value.
pub(crate) fn line<T: Serialize>(text: &mut String, key: &str, value: Option<&T>) {
    let Some(value) = value else { return };
    let mut inline = String::new();
    value.serialize(ValueSerializer::new(&mut inline)).expect("plain data");
    *text += &format!("{key} = {inline}\n");
}
