//! The sizes of a problem, checked once: nothing later divides heads or multiplies sizes again.

use serde::Serialize;

use crate::{Error, ErrorKind, Limit, Sizes};

/// Checked sizes of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Shape {
    sizes: Sizes,
}

impl Shape {
    /// Checks `sizes`.
    ///
    /// # Errors
    /// A size other than `num_sel` is 0; `q_heads` is no multiple of `kv_heads`; `sel_heads` is neither of them; the
    /// problem takes more than [`Limit::LARGE`]. Readers hold what they read against [`Limit::FILE`] besides.
    ///
    /// # Examples
    /// ```
    /// use nsa_corpus::{Shape, Sizes};
    /// let sizes = Sizes { q_heads: 4, kv_heads: 2, sel_heads: 2, seq_len: 507, block_size: 32, ..Sizes::default() };
    /// assert_eq!(Shape::new(sizes).unwrap().blocks(), 16);
    /// let error = Shape::new(Sizes { q_heads: 5, ..sizes }).unwrap_err();
    /// assert_eq!(error.to_string(), "q_heads 5 is not a multiple of kv_heads 2");
    /// ```
    pub fn new(sizes: Sizes) -> Result<Self, Error> {
        let named = [
            ("batch", sizes.batch),
            ("q_heads", sizes.q_heads),
            ("kv_heads", sizes.kv_heads),
            ("seq_len", sizes.seq_len),
            ("dim", sizes.dim),
            ("value_dim", sizes.value_dim),
            ("block_size", sizes.block_size),
        ];
        if let Some((name, _)) = named.iter().find(|(_, size)| *size == 0) {
            return Err(refused(format!("{name} is 0; only num_sel may be")));
        }
        if !sizes.q_heads.is_multiple_of(sizes.kv_heads) {
            return Err(refused(format!("q_heads {} is not a multiple of kv_heads {}", sizes.q_heads, sizes.kv_heads)));
        }
        if sizes.sel_heads != sizes.kv_heads && sizes.sel_heads != sizes.q_heads {
            return Err(refused(format!(
                "sel_heads {} is neither kv_heads {} nor q_heads {}",
                sizes.sel_heads, sizes.kv_heads, sizes.q_heads
            )));
        }
        Limit::LARGE.check(&sizes)?;
        Ok(Shape { sizes })
    }

    /// The sizes as plain numbers.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Batch entries.
    pub fn batch(&self) -> usize {
        self.sizes.batch
    }

    /// Query heads.
    pub fn q_heads(&self) -> usize {
        self.sizes.q_heads
    }

    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.sizes.kv_heads
    }

    /// Tokens, both queries and keys.
    pub fn seq_len(&self) -> usize {
        self.sizes.seq_len
    }

    /// Features of a query or key.
    pub fn dim(&self) -> usize {
        self.sizes.dim
    }

    /// Features of a value.
    pub fn value_dim(&self) -> usize {
        self.sizes.value_dim
    }

    /// Keys in a block.
    pub fn block_size(&self) -> usize {
        self.sizes.block_size
    }

    /// Selection slots of a query token.
    pub fn num_sel(&self) -> usize {
        self.sizes.num_sel
    }

    /// Heads that have a selection of their own: kv heads or query heads.
    pub fn sel_heads(&self) -> usize {
        self.sizes.sel_heads
    }

    /// Query heads that share one kv head.
    pub fn groups(&self) -> usize {
        self.sizes.q_heads / self.sizes.kv_heads
    }

    /// Query heads that share one selection: [`Shape::groups`], or 1 with a selection for each query head.
    pub fn sel_groups(&self) -> usize {
        self.sizes.q_heads / self.sizes.sel_heads
    }

    /// Blocks of keys, the last one perhaps partial: `ceil(seq_len / block_size)`.
    pub fn blocks(&self) -> usize {
        self.sizes.seq_len.div_ceil(self.sizes.block_size)
    }

    /// Tokens once padded to whole blocks.
    pub fn padded_len(&self) -> usize {
        self.blocks() * self.sizes.block_size
    }

    /// Factor of every score: `dim^(-1/2)`.
    pub fn scale(&self) -> f64 {
        1.0 / (self.sizes.dim as f64).sqrt()
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Sizes, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        batch: 1,
        q_heads: 6,
        kv_heads: 2,
        seq_len: 17,
        dim: 4,
        value_dim: 5,
        block_size: 16,
        num_sel: 0,
        sel_heads: 6,
    };

    #[test]
    fn derived_sizes_follow_from_the_given_ones() {
        let shape = Shape::new(SIZES).unwrap();
        assert_eq!((shape.groups(), shape.sel_groups(), shape.blocks(), shape.padded_len()), (3, 1, 2, 32));
        assert_eq!(shape.scale(), 0.5);
    }

    #[test]
    fn the_sizes_to_start_from_fit() {
        let shape = Shape::new(Sizes::default()).unwrap();
        assert_eq!((shape.blocks(), shape.groups(), shape.scale()), (4, 1, 0.25));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused_by_name() {
        let refused = |sizes| {
            let error = Shape::new(sizes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Sizes);
            error.to_string()
        };
        assert_eq!(refused(Sizes { value_dim: 0, ..SIZES }), "value_dim is 0; only num_sel may be");
        assert_eq!(refused(Sizes { sel_heads: 3, ..SIZES }), "sel_heads 3 is neither kv_heads 2 nor q_heads 6");
        for sizes in [Sizes { seq_len: usize::MAX, ..SIZES }, Sizes { block_size: 1 << 60, ..SIZES }] {
            assert!(refused(sizes).contains("numbers, more than 4294967296"));
        }
    }
}
