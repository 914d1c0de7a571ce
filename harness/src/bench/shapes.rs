//! The shapes that kernels of the field are timed on, by name.

use nsa_corpus::{Case, Inputs, Mask, Selection, Sizes, Values};

/// What a reader is told of them.
pub const NAMES: &str = "Shapes: seed or A (b4 n507 hq4 hkv2 d64 N32 sel6), and with blocks of 64, d 128 and 15 slots (first, previous, 13 past ones):
B n8192 hq64 hkv4, C n32768 hq64 hkv4, D n65536 hq64 hkv4, E n16384 hq32 hkv8, F n16384 hq16 hkv16. With -local behind it
(B-local) all tokens of a block select the same blocks.";

/// No shape has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no shape is called `{0}`: there are seed, A, B, C, D, E, F, and B-local to F-local")]
pub struct UnknownShape(String);

/// The case of a named shape.
///
/// # Errors
/// No shape has this name.
pub fn shape(name: &str) -> Result<Case, UnknownShape> {
    let wide = |seq_len, q_heads, kv_heads| Sizes {
        batch: 1,
        q_heads,
        kv_heads,
        seq_len,
        dim: 128,
        value_dim: 128,
        block_size: 64,
        num_sel: 15,
        sel_heads: kv_heads,
    };
    let upstream = Sizes {
        batch: 4,
        q_heads: 4,
        kv_heads: 2,
        seq_len: 507,
        dim: 64,
        value_dim: 64,
        block_size: 32,
        num_sel: 6,
        sel_heads: 2,
    };
    let (letter, local) = name.strip_suffix("-local").map_or((name, false), |letter| (letter, true));
    let sizes = match letter {
        // `seed`: its name before version 2.
        "upstream" | "seed" | "A" if !local => upstream,
        "B" => wide(8192, 64, 4),
        "C" => wide(32_768, 64, 4),
        "D" => wide(65_536, 64, 4),
        "E" => wide(16_384, 32, 8),
        "F" => wide(16_384, 16, 16),
        _ => return Err(UnknownShape(name.to_owned())),
    };
    let case = Case::ordinary(sizes, 1);
    Ok(if sizes == upstream {
        Case { selection: Selection::ZeroOrOne {}, mask: Mask::Random {}, sel_scale: Some(Values::ones()), ..case }
    } else {
        let selection = if local { Selection::Shared {} } else { Selection::FirstPreviousPast {} };
        Case { selection, ..case }
    })
}

/// Useful floating-point operations of the forward, and of forward and backward: two for each multiply-add of live terms.
pub fn flops(inputs: &Inputs) -> [f64; 2] {
    let shape = inputs.shape();
    let live = inputs.mask().iter().filter(|live| **live).count() * shape.block_size() * shape.sel_groups();
    let diagonal: usize = (0..shape.seq_len()).map(|i| i % shape.block_size() + 1).sum();
    let terms = (live + diagonal * shape.batch() * shape.q_heads()) as f64;
    let (dim, value_dim) = (shape.dim() as f64, shape.value_dim() as f64);
    let forward = 2.0 * terms * (dim + value_dim);
    [forward, forward + 2.0 * terms * (3.0 * dim + 2.0 * value_dim)]
}

#[cfg(test)]
mod tests {
    use nsa_corpus::Dtype;

    use super::*;

    #[test]
    fn names_are_cases_of_their_own() {
        let names = ["A", "B", "C", "D", "E", "F", "B-local", "C-local", "E-local"];
        let mut ids: Vec<String> = names.into_iter().map(|name| shape(name).unwrap().id()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), names.len());
        assert_eq!(shape("upstream").unwrap().id(), shape("A").unwrap().id());
        assert_eq!(shape("seed").unwrap().id(), shape("A").unwrap().id(), "its name before version 2");
        for unknown in ["G", "A-local", "upstream-local", "b", ""] {
            assert!(shape(unknown).unwrap_err().to_string().contains("no shape is called"));
        }
    }

    #[test]
    fn only_live_terms_are_useful() {
        let mut case = shape("A").unwrap();
        case.sizes =
            Sizes { batch: 1, q_heads: 2, kv_heads: 1, sel_heads: 1, seq_len: 3, dim: 5, value_dim: 7, ..case.sizes };
        case.mask = Mask::None {};
        // Diagonals of 1, 2 and 3 keys for 2 heads: 12 terms of 5 + 7 multiply-adds forward, 3 * 5 + 2 * 7 more backward.
        let inputs = case.materialize(Dtype::F32).unwrap();
        assert_eq!(flops(&inputs), [2.0 * 12.0 * 12.0, 2.0 * 12.0 * (12.0 + 29.0)]);
    }
}
