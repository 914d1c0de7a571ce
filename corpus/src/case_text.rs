//! A case as text: its table in a file, and the identity that follows from that.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::case_file::CaseFile;
use crate::{Case, digest};

impl Case {
    /// The canonical form, one TOML table with its fields in a fixed order.
    ///
    /// Where one is read, `seq_len`, `dim`, `block_size` and `num_sel` must be there. Left out, `batch` and `kv_heads` are
    /// 1, `q_heads` and `sel_heads` are `kv_heads`, `value_dim` is `dim`, `include_block_causal` is true, `seed` is 0,
    /// `q`, `k`, `v` are bell-shaped, the selection is distinct past blocks, all live; `sel_scale`, a cotangent or
    /// `sliding_window` left out is absent.
    pub fn to_toml(&self) -> String {
        CaseFile::from(self.clone()).to_toml()
    }

    /// The first 12 hexadecimal digits of the SHA-256 of [`Case::to_toml`].
    pub fn id(&self) -> String {
        digest::bytes(self.to_toml().as_bytes())[..12].to_owned()
    }
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        CaseFile::from(self.clone()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Case {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CaseFile::deserialize(deserializer).map(Case::from)
    }
}
