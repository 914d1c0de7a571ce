//! An implementation that rescales its running sum more often than once a block is granted just those roundings.

use nsa_corpus::{Arithmetic, Case, Dtype, Field, Sizes};
use nsa_reference::oracle;

#[test]
fn each_rescaling_costs_an_exponential_and_a_rounding() {
    let (seq_len, block_size) = (256, 256);
    let sizes = Sizes {
        batch: 1,
        q_heads: 1,
        kv_heads: 1,
        seq_len,
        dim: 8,
        value_dim: 8,
        block_size,
        num_sel: 0,
        sel_heads: 1,
    };
    let inputs = Case::ordinary(sizes, 4).materialize(Dtype::Bf16).unwrap();
    let lse = |rescale_every| {
        let arithmetic = Arithmetic { rescale_every, ..Arithmetic::tensor_core(Dtype::Bf16) };
        let bounds = oracle::forward(&inputs, Some(&arithmetic)).bounds.unwrap();
        bounds.rigorous.get(Field::Lse).unwrap().clone()
    };
    let once = lse(None);
    assert_eq!(lse(Some(256)), once);
    let often = lse(Some(64));
    // N_b: one for a row of up to 64 keys, four for one of 256. Each costs e_x in every weight and u in the sum.
    let each = 2f64.powi(-22) + 2f64.powi(-24);
    for (i, rescalings) in [(0, 1), (63, 1), (64, 2), (127, 2), (128, 3), (255, 4)] {
        let more = often[[0, 0, i]] - once[[0, 0, i]];
        let expected = f64::from(rescalings - 1) * each;
        assert!((more - expected).abs() <= 0.01 * expected + 1e-15, "row {i}: {more:e}, expected {expected:e}");
    }
}
