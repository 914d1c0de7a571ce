//! The tensors of a problem as a caller at hand has them, the options left to be named one by one.

use ndarray::{Array, Array4};

use crate::{Cotangents, Dtype, InputParts};

impl InputParts {
    /// The plainest problem of these tensors: the diagonal attended to, every slot live, no factors, no sliding output, no
    /// cotangents (so no gradients), values in f64. Each option is a public field to set. Nothing is checked before
    /// [`Inputs::new`](crate::Inputs::new).
    ///
    /// `q` is `[b, q_heads, n, dim]`, `k` `[b, kv_heads, n, dim]`, `v` `[b, kv_heads, n, value_dim]`, `indices` `[b, sel_heads,
    /// n, num_sel]`.
    ///
    /// # Examples
    /// ```
    /// use nsa_corpus::ndarray::{Array4, array};
    /// use nsa_corpus::{Cotangents, Dtype, InputParts, Inputs};
    /// // One head, 6 tokens in blocks of 2; every token selects block 0.
    /// let tensor = |phase: f64| Array4::from_shape_fn((1, 1, 6, 3), |(_, _, i, d)| (phase + (3 * i + d) as f64).sin());
    /// let mut parts = InputParts::new(2, tensor(0.0), tensor(1.0), tensor(2.0), Array4::zeros((1, 1, 6, 1)));
    /// parts.mask[[0, 0, 1, 0]] = false; // but for token 1
    /// parts.dtype = Dtype::Bf16;
    /// parts.cotangents = Cotangents { d_out: Some(tensor(3.0)), ..Cotangents::default() };
    /// let inputs = Inputs::new(parts).unwrap();
    /// assert_eq!(inputs.shape().blocks(), 3);
    /// assert_eq!(inputs.q()[[0, 0, 0, 1]], 0.83984375); // sin(1), rounded to bf16
    /// ```
    pub fn new(block_size: usize, q: Array4<f64>, k: Array4<f64>, v: Array4<f64>, indices: Array4<i64>) -> Self {
        InputParts {
            block_size,
            include_block_causal: true,
            sliding_window: None,
            dtype: Dtype::F64,
            q,
            k,
            v,
            mask: Array::from_elem(indices.raw_dim(), true),
            indices,
            sel_scale: None,
            cotangents: Cotangents::default(),
        }
    }
}
