//! Small generated problems, and a row-by-row program that answers them in the plainest loops there are.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod budgets;
pub(crate) mod naive;
pub(crate) mod transform;

use ndarray::{Array, Array4, ArrayD, Dimension, ShapeBuilder};
use nsa_corpus::{Cotangents, Dtype, Field, InputParts, Inputs, Outputs, Random};

/// What problems are drawn from: each is a pure function of its number.
pub(crate) struct Draw(Random);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Draw(Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678)))
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.0.bits() % end as u64) as usize
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Roughly bell-shaped, variance 1.
    pub(crate) fn normal(&mut self) -> f64 {
        let sum: f64 = (0..6).map(|_| self.0.unit()).sum();
        (sum - 3.0) * 2f64.sqrt()
    }

    pub(crate) fn tensor<D: Dimension, Sh: ShapeBuilder<Dim = D>>(&mut self, shape: Sh, factor: f64) -> Array<f64, D> {
        Array::from_shape_simple_fn(shape, || self.normal() * factor)
    }
}

/// A small problem with every option drawn: groups, selections of query heads, masks, factors, no diagonal, sliding
/// windows, any subset of cotangents, logits up to a few tens.
pub(crate) fn problem(seed: u64, dtype: Dtype) -> Inputs {
    let mut draw = Draw::new(seed);
    let (batch, kv_heads, groups) = (1 + draw.below(2), 1 + draw.below(2), draw.one_of(&[1, 2, 3]));
    let q_heads = kv_heads * groups;
    let block_size = draw.one_of(&[1, 2, 3, 4, 8]);
    let seq_len = 1 + draw.below(3 * block_size + 4);
    let (dim, value_dim) = (draw.one_of(&[1, 2, 3, 5]), draw.one_of(&[1, 2, 4]));
    let sel_heads = draw.one_of(&[kv_heads, kv_heads, q_heads]);
    let slots = (batch, sel_heads, seq_len, draw.below(4));
    let blocks = seq_len.div_ceil(block_size);
    let include_block_causal = draw.chance(70);
    let sliding_window = draw.chance(50).then(|| draw.below(seq_len + 2));
    let logits = draw.one_of(&[1.0, 1.0, 3.0]);
    let indices = Array4::from_shape_simple_fn(slots, || draw.below(blocks) as i64);
    let mask = Array4::from_shape_simple_fn(slots, || draw.chance(60));
    let rows = (batch, q_heads, seq_len, value_dim);
    let cotangents = Cotangents {
        d_out: draw.chance(80).then(|| draw.tensor(rows, 1.0)),
        d_lse: draw.chance(50).then(|| draw.tensor((batch, q_heads, seq_len), 1.0)),
        d_sliding: (sliding_window.is_some() && draw.chance(70)).then(|| draw.tensor(rows, 1.0)),
    };
    Inputs::new(InputParts {
        block_size,
        include_block_causal,
        sliding_window,
        dtype,
        q: draw.tensor((batch, q_heads, seq_len, dim), logits),
        k: draw.tensor((batch, kv_heads, seq_len, dim), logits),
        v: draw.tensor((batch, kv_heads, seq_len, value_dim), 1.0),
        indices,
        mask,
        sel_scale: draw.chance(60).then(|| draw.tensor(slots, 1.0)),
        cotangents,
    })
    .expect("the sizes agree")
}

/// The largest difference of two tensors over the largest finite magnitude of `right`, or over 1 where that is less: a
/// gradient that cancels to 0 is 0 only up to the rounding of its terms, which are of order 1 here. Infinite where one
/// has a non-finite value and the other another one.
pub(crate) fn distance(left: &ArrayD<f64>, right: &ArrayD<f64>) -> f64 {
    assert_eq!(left.shape(), right.shape());
    let largest = right.iter().filter(|value| value.is_finite()).fold(1.0f64, |max, value| max.max(value.abs()));
    let differences = left.iter().zip(right).map(|(left, right)| match left == right {
        true => 0.0,
        false => (left - right).abs(),
    });
    let worst = differences.fold(0.0, |max, difference| if difference <= max { max } else { difference });
    match worst {
        worst if worst.is_finite() => worst / largest,
        _ => f64::INFINITY,
    }
}

/// Holds `found` to `expected`: the same fields, exactly those that `inputs` ask for, each within `relative` of its
/// tensor's largest magnitude.
pub(crate) fn assert_close(inputs: &Inputs, found: &Outputs, expected: &Outputs, relative: f64, what: &str) {
    for field in Field::ALL {
        let (found, expected) = (found.get(field), expected.get(field));
        assert_eq!(found.is_some(), field.asked_by(inputs), "{what}: {field}");
        if let (Some(found), Some(expected)) = (found, expected) {
            let error = distance(found, expected);
            assert!(error <= relative, "{what}: {field} differs by {error:e} of its largest magnitude");
        }
    }
}
