//! How large a problem may be: the one place where a size that somebody else wrote is held against a stated limit, before
//! anything is allocated for it.

use crate::{Error, ErrorKind, Sizes};

/// What one problem may take at most, in numbers of 64 bits: its tensors, those of its answer, the padded keys, and what the oracle
/// needs beside them (`docs/corpus-format.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit(u64);

impl Limit {
    /// 2^29 numbers, 4 GiB: for a problem that a file, an entry or a generator describes, and for all tensors of a file.
    pub const FILE: Limit = Limit(1 << 29);
    /// 2^32 numbers, 32 GiB: for the problems that the program itself names (`bench`, `run --large`). No problem is larger.
    pub const LARGE: Limit = Limit(1 << 32);

    /// A limit of its own, for whoever knows the machine's memory.
    pub const fn of(numbers: u64) -> Self {
        Limit(numbers)
    }

    /// The largest count that is allowed.
    pub fn numbers(self) -> u64 {
        self.0
    }

    /// Refuses a problem of `sizes` that takes more.
    ///
    /// # Errors
    /// All sizes, what they take, and the limit.
    pub fn check(self, sizes: &Sizes) -> Result<(), Error> {
        let numbers = numbers(sizes);
        if numbers <= u128::from(self.0) {
            return Ok(());
        }
        let Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads } = sizes;
        Err(Error::new(
            ErrorKind::Sizes,
            format!(
                "batch {batch}, q_heads {q_heads}, kv_heads {kv_heads}, seq_len {seq_len}, dim {dim}, value_dim {value_dim}, \
             block_size {block_size}, num_sel {num_sel}, sel_heads {sel_heads} take {numbers} numbers, more than {}",
                self.0
            ),
        ))
    }

    /// Refuses `what` where it holds more numbers.
    ///
    /// # Errors
    /// Both counts.
    pub(crate) fn check_count(self, what: &str, numbers: u128) -> Result<(), Error> {
        if numbers <= u128::from(self.0) {
            return Ok(());
        }
        Err(Error::invalid(format!("{what} hold {numbers} numbers, more than {}", self.0)))
    }
}

/// How many numbers of 64 bits a problem takes, at least: its tensors, those of its answer, and what the oracle needs beside
/// them, each option counted as if it were asked for.
///
/// ```text
/// q, dq; out, sliding_out, d_out, d_sliding; lse, sliding_lse, d_lse   batch q_heads seq_len (2 dim + 4 value_dim + 3)
/// indices, mask, sel_scale, dsel_scale                                 batch sel_heads seq_len num_sel 4
/// k, v, dk, dv; their padded copies; sums with their budgets           batch kv_heads padded (8 (dim + value_dim) + 2)
/// scores and probabilities of a few rows                               batch q_heads block_size (num_sel + 1) 32
/// ```
///
/// `padded` is `seq_len` rounded up to whole blocks. The result saturates: sizes of any kind are safe to ask about.
pub(crate) fn numbers(sizes: &Sizes) -> u128 {
    let product = |factors: &[usize]| factors.iter().fold(1u128, |product, &size| product.saturating_mul(size as u128));
    let Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads } = *sizes;
    let blocks = seq_len.div_ceil(block_size.max(1));
    let query = 2 * dim as u128 + 4 * value_dim as u128 + 3;
    let key = 8 * (dim as u128 + value_dim as u128) + 2;
    let parts = [
        product(&[batch, q_heads, seq_len]).saturating_mul(query),
        product(&[batch, sel_heads, seq_len, num_sel, 4]),
        product(&[batch, kv_heads, blocks, block_size]).saturating_mul(key),
        product(&[batch, q_heads, block_size, num_sel.saturating_add(1), 32]),
    ];
    parts.into_iter().fold(0, u128::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        batch: 1,
        q_heads: 2,
        kv_heads: 1,
        seq_len: 9,
        dim: 4,
        value_dim: 5,
        block_size: 4,
        num_sel: 2,
        sel_heads: 1,
    };

    #[test]
    fn every_size_counts_and_none_overflows() {
        let rows = 2 * 9 * (8 + 20 + 3);
        let (slots, keys, terms) = (9 * 2 * 4, 12 * (8 * 9 + 2), 2 * 4 * 3 * 32);
        assert_eq!(numbers(&SIZES), rows + slots + keys + terms);
        let grown: [fn(&mut Sizes) -> &mut usize; 9] = [
            |s| &mut s.batch,
            |s| &mut s.q_heads,
            |s| &mut s.kv_heads,
            |s| &mut s.seq_len,
            |s| &mut s.dim,
            |s| &mut s.value_dim,
            |s| &mut s.block_size,
            |s| &mut s.num_sel,
            |s| &mut s.sel_heads,
        ];
        let mut all = SIZES;
        for size in grown {
            let mut sizes = SIZES;
            *size(&mut sizes) = usize::MAX;
            *size(&mut all) = usize::MAX;
            assert!(Limit::LARGE.check(&sizes).is_err(), "{sizes:?}");
        }
        assert!(Limit::LARGE.check(&all).is_err());
    }

    #[test]
    fn a_limit_names_both_counts_and_every_size() {
        let exact = numbers(&SIZES) as u64;
        assert!(Limit::of(exact).check(&SIZES).is_ok());
        let message = Limit::of(exact - 1).check(&SIZES).unwrap_err().to_string();
        let ends = format!("num_sel 2, sel_heads 1 take {exact} numbers, more than {}", exact - 1);
        assert!(message.ends_with(&ends) && message.contains("block_size 4"), "{message}");
    }
}
