//! The sizes of a problem as somebody wrote them, not yet checked.

use serde::{Deserialize, Serialize};

/// The sizes of a problem as plain numbers, before [`crate::Shape::new`] has checked them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Batch entries.
    pub batch: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub q_heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Tokens, both queries and keys.
    pub seq_len: usize,
    /// Features of a query or key.
    pub dim: usize,
    /// Features of a value.
    pub value_dim: usize,
    /// Keys in a block.
    pub block_size: usize,
    /// Selection slots of a query token; may be 0.
    pub num_sel: usize,
    /// Heads that have a selection of their own: `kv_heads`, or `q_heads`.
    pub sel_heads: usize,
}

impl Default for Sizes {
    /// One batch entry, one head, 64 tokens of 16 features in blocks of 16, two slots: a start, of which a caller names what
    /// matters. `value_dim` does not follow `dim`, nor `sel_heads` the other heads.
    ///
    /// # Examples
    /// ```
    /// use nsa_corpus::Sizes;
    /// let sizes = Sizes { q_heads: 4, seq_len: 100, ..Sizes::default() };
    /// assert_eq!((sizes.q_heads, sizes.kv_heads, sizes.seq_len, sizes.dim), (4, 1, 100, 16));
    /// ```
    fn default() -> Self {
        Sizes {
            batch: 1,
            q_heads: 1,
            kv_heads: 1,
            seq_len: 64,
            dim: 16,
            value_dim: 16,
            block_size: 16,
            num_sel: 2,
            sel_heads: 1,
        }
    }
}
