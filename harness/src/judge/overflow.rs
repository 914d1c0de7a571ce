//! Whether a correct program may overflow between finite inputs and finite outputs, from the largest magnitudes alone.
//!
//! A budget is infinite where the declared arithmetic promises nothing. That alone does not make NaN right: a correct program
//! answers NaN or infinity there only if a number on the way leaves the range of its format (docs/numerics.md).

use nsa_corpus::{Arithmetic, Dtype, Field, Inputs};

/// Roundings on the way may enlarge a number, never by this factor.
const SLACK: f64 = 2.0;

/// Where a correct program may overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Every number fits.
    #[default]
    Nowhere,
    /// Only where the field is rounded to its stored format: infinity, not NaN.
    WhenStored,
    /// A number that others follow from: infinity, or NaN, as `inf - inf` and `0 * inf` are.
    OnTheWay,
}

/// Where a correct program of `arithmetic` may overflow, for every field. Everywhere, where the inputs are not finite themselves.
#[derive(Debug)]
pub(crate) struct Overflows {
    on_the_way: bool,
    sizes: Magnitudes,
}

impl Overflows {
    pub(crate) fn of(inputs: &Inputs, arithmetic: &Arithmetic) -> Self {
        let sums = accumulator(arithmetic.unit);
        let sizes = Magnitudes::of(inputs, sums.unit_roundoff());
        let casts = if arithmetic.probability_roundoff() > 0.0 { arithmetic.probability.max() } else { sums.max() };
        let products = arithmetic.value_gradient_products.map_or(sums.max(), Dtype::max);
        let fits = Field::ALL.into_iter().all(|field| within(sizes.of_field(field), sums.max()))
            && within(sizes.score(), sums.max())
            && within(sizes.row * sizes.v, sums.max())
            && within(sizes.score_gradient().max(sizes.weight), casts)
            && within(sizes.groups * sizes.weight * sizes.d_out, products);
        Overflows { on_the_way: !fits, sizes }
    }

    pub(crate) fn of_field(&self, field: Field, stored: Dtype) -> Overflow {
        if self.on_the_way {
            Overflow::OnTheWay
        } else if within(self.sizes.of_field(field), stored.max()) {
            Overflow::Nowhere
        } else {
            Overflow::WhenStored
        }
    }
}

/// NaN fits nowhere.
fn within(size: f64, limit: f64) -> bool {
    SLACK * size <= limit
}

/// The format whose sums have about this unit roundoff.
fn accumulator(unit: f64) -> Dtype {
    if unit >= Dtype::F16.unit_roundoff() / 2.0 {
        Dtype::F16
    } else if unit < Dtype::F32.unit_roundoff() / 2.0 {
        Dtype::F64
    } else {
        Dtype::F32
    }
}

/// The largest magnitudes of a problem's tensors, NaN where one holds NaN, and how many terms its sums have at most.
#[derive(Debug)]
struct Magnitudes {
    q: f64,
    k: f64,
    v: f64,
    factor: f64,
    d_out: f64,
    d_lse: f64,
    dim: f64,
    value_dim: f64,
    groups: f64,
    scale: f64,
    /// The largest P: 1, and what the scores that a backward computes anew may be off by from those that `lse` was computed from.
    weight: f64,
    /// Keys that a row attends to.
    row: f64,
    /// Rows that attend to a key, with multiplicity.
    column: f64,
}

impl Magnitudes {
    fn of(inputs: &Inputs, unit: f64) -> Self {
        let (shape, cotangents) = (inputs.shape(), inputs.cotangents());
        let largest = |tensor: Option<ndarray::ArrayViewD<'_, f64>>| {
            tensor.map_or(0.0, |tensor| tensor.iter().fold(0.0, |most: f64, value| worst(most, value.abs())))
        };
        let all = |tensor: &ndarray::Array4<f64>| largest(Some(tensor.view().into_dyn()));
        let some = |tensor: Option<&ndarray::Array4<f64>>| tensor.map_or(0.0, all);
        let row = (shape.num_sel() + 1) * shape.block_size() + inputs.sliding_window().map_or(0, |window| window + 1);
        let column = shape.groups() * shape.seq_len() * (shape.num_sel() + 2);
        let mut sizes = Magnitudes {
            q: all(inputs.q()),
            k: all(inputs.k()),
            v: all(inputs.v()),
            factor: worst(1.0, some(inputs.sel_scale())),
            d_out: worst(some(cotangents.d_out.as_ref()), some(cotangents.d_sliding.as_ref())),
            d_lse: largest(cotangents.d_lse.as_ref().map(|tensor| tensor.view().into_dyn())),
            dim: shape.dim() as f64,
            value_dim: shape.value_dim() as f64,
            groups: shape.groups() as f64,
            row: row as f64,
            scale: shape.scale(),
            weight: 1.0,
            column: column as f64,
        };
        sizes.weight = (2.0 * sizes.dim * unit * sizes.scale * sizes.score()).exp();
        sizes
    }

    /// The largest `<q, k>`, with its factor; `log2 e` of it is what a base-2 exponential takes.
    fn score(&self) -> f64 {
        1.5 * self.dim * self.q * self.k * self.factor
    }

    /// The largest dS with its factor; `out` is a mean of values.
    fn score_gradient(&self) -> f64 {
        self.weight * self.factor * (2.0 * self.value_dim * self.d_out * self.v + self.d_lse)
    }

    /// The largest element of `field`, or sum on the way to it.
    fn of_field(&self, field: Field) -> f64 {
        match field {
            Field::Out | Field::SlidingOut => self.v,
            Field::Lse | Field::SlidingLse => self.scale * self.score() + self.row.ln(),
            Field::Dq => self.row * self.score_gradient() * self.k,
            Field::Dk => self.column * self.score_gradient() * self.q,
            Field::Dv => self.column * self.weight * self.d_out,
            Field::DselScale => self.row * self.groups * self.score_gradient() * self.score(),
        }
    }
}

/// The larger of two, NaN where one is.
fn worst(left: f64, right: f64) -> f64 {
    if left.is_nan() || right.is_nan() { f64::NAN } else { left.max(right) }
}

#[cfg(test)]
mod tests {
    use nsa_corpus::{Case, Override, Sizes, Tensor, Values};

    use super::*;

    fn case() -> Case {
        let sizes = Sizes {
            batch: 1,
            q_heads: 2,
            kv_heads: 1,
            sel_heads: 1,
            num_sel: 2,
            seq_len: 32,
            dim: 16,
            value_dim: 16,
            block_size: 8,
        };
        Case { sel_scale: Some(Values::normal()), ..Case::ordinary(sizes, 1) }
    }

    fn with(tensor: Tensor, value: f64) -> Inputs {
        let overrides = vec![Override::new(tensor, &[0, 0, 5, 1], value)];
        Case { overrides, ..case() }.materialize(Dtype::F32).unwrap()
    }

    fn on_the_way(inputs: &Inputs, arithmetic: &Arithmetic) -> bool {
        Overflows::of(inputs, arithmetic).of_field(Field::Out, Dtype::F64) == Overflow::OnTheWay
    }

    #[test]
    fn ordinary_numbers_overflow_nowhere() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let inputs = case().materialize(dtype).unwrap();
            let overflows = Overflows::of(&inputs, &Arithmetic::tensor_core(dtype));
            assert_eq!(overflows.of_field(Field::Out, dtype), Overflow::Nowhere, "{dtype}");
            assert_eq!(overflows.of_field(Field::Lse, Dtype::F32), Overflow::Nowhere, "{dtype}");
        }
        assert!(!on_the_way(&with(Tensor::Q, 0.0), &Arithmetic::f32()));
    }

    #[test]
    fn a_number_that_may_leave_its_format_is_seen_in_each_of_them() {
        // Scores of 10^38 leave f32; 10^6 in dS leaves f16, and nothing of f32.
        assert!(on_the_way(&with(Tensor::Q, 1e38), &Arithmetic::f32()));
        assert!(on_the_way(&with(Tensor::V, 6e4), &Arithmetic::tensor_core(Dtype::F16)));
        assert!(!on_the_way(&with(Tensor::V, 6e4), &Arithmetic::f32()));
        let half = Arithmetic { value_gradient_products: Some(Dtype::F16), ..Arithmetic::f32() };
        assert!(on_the_way(&with(Tensor::DOut, 6e4), &half));
        for value in [f64::NAN, f64::INFINITY] {
            assert!(on_the_way(&with(Tensor::K, value), &Arithmetic::f64()));
        }
        // A sum of thousands fits f32, not f16.
        let sums = Overflows::of(&with(Tensor::DOut, 6e3), &Arithmetic::f32());
        let of = |stored| sums.of_field(Field::Dv, stored);
        assert_eq!([of(Dtype::F16), of(Dtype::F32)], [Overflow::WhenStored, Overflow::Nowhere]);
    }

    #[test]
    fn scores_too_large_to_be_computed_twice_alike_make_weights_overflow() {
        // Scores of 10^8 are off by more than 88: exp of that leaves f32.
        let inputs = with(Tensor::K, 1e9);
        assert!(on_the_way(&inputs, &Arithmetic::f32()) && !on_the_way(&inputs, &Arithmetic::f64()));
    }
}
