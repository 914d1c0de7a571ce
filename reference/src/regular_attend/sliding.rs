//! The sliding part. The original leaves it to torch's `flex_attention` with a block mask; here it is the dense masked
//! attention that this stands for, beside its adjoint.

use ndarray::ArrayD;
use nsa_corpus::Shape;

use super::tensor::{contract, logsumexp, reshape, softmax, softmax_adjoint};
use super::{Gradients, Scalar};

/// What the sliding forward computed.
pub(super) struct SlidingTape<A> {
    q: ArrayD<A>,
    k: ArrayD<A>,
    v: ArrayD<A>,
    attn: ArrayD<A>,
    /// `[b, q_heads, n, d_v]`.
    pub out: ArrayD<A>,
    /// `[b, q_heads, n]`.
    pub lse: ArrayD<A>,
}

/// Causal attention with a softmax of its own over *unpadded* tokens: query `i` sees keys `j` with
/// `0 <= i - j <= window`, so `window + 1` of them, itself included.
pub(super) fn run<A: Scalar>(
    shape: &Shape,
    q: &ArrayD<A>,
    k: &ArrayD<A>,
    v: &ArrayD<A>,
    window: usize,
) -> SlidingTape<A> {
    let (b, h, g, n) = (shape.batch(), shape.kv_heads(), shape.groups(), shape.seq_len());
    let q = reshape(q, &[b, h, g, n, shape.dim()]);
    let scale = A::narrow(shape.dim() as f64).sqrt().recip();
    let mut sim = contract("bhgid,bhjd->bhgij", &q, k).mapv(|score| score * scale);
    for (at, score) in sim.indexed_iter_mut() {
        let (query, key) = (at[3], at[4]);
        if key > query || query - key > window {
            *score = A::neg_infinity();
        }
    }
    let attn = softmax(&sim);
    let out = contract("bhgij,bhjd->bhgid", &attn, v);
    let out = reshape(&out, &[b, shape.q_heads(), n, shape.value_dim()]);
    let lse = reshape(&logsumexp(&sim), &[b, shape.q_heads(), n]);
    SlidingTape { q, k: k.clone(), v: v.clone(), attn, out, lse }
}

/// Gradients of `<sliding_out, d_sliding>`, the forward's lines reversed. A masked score has weight 0, so the softmax's
/// adjoint already gives it no gradient.
pub(super) fn adjoint<A: Scalar>(shape: &Shape, tape: &SlidingTape<A>, d_sliding: ArrayD<A>) -> Gradients<A> {
    let (b, h, g, n) = (shape.batch(), shape.kv_heads(), shape.groups(), shape.seq_len());
    let d_out = reshape(&d_sliding, &[b, h, g, n, shape.value_dim()]);
    let d_attn = contract("bhgid,bhjd->bhgij", &d_out, &tape.v);
    let d_v = contract("bhgij,bhgid->bhjd", &tape.attn, &d_out);
    let scale = A::narrow(shape.dim() as f64).sqrt().recip();
    let d_sim = softmax_adjoint(&tape.attn, &d_attn).mapv(|d| d * scale);
    let d_q = contract("bhgij,bhjd->bhgid", &d_sim, &tape.k);
    let d_k = contract("bhgij,bhgid->bhjd", &d_sim, &tape.q);
    Gradients { q: reshape(&d_q, &[b, shape.q_heads(), n, shape.dim()]), k: d_k, v: d_v, sel_scale: None }
}
