//! What an implementation declares of its arithmetic. The error budget of every element follows from it.

use serde::{Deserialize, Serialize};

use crate::{Dtype, Field};

/// How an implementation accumulates a dot product.
///
/// The declared bound is `|fl(sum ab) - sum ab| <= constant(K) * sum |ab|` over `K` products, in any order.
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Dot {
    /// One rounding of unit `u` for each multiply-add.
    Fma {
        /// Unit roundoff of the accumulator.
        unit: f64,
    },
    /// A tensor core: products are added `block` at a time to an f32 accumulator, aligned to the largest and truncated
    /// with `extra_bits` bits beyond its 24.
    Blocks {
        /// Products added at once.
        block: usize,
        /// Bits kept beyond the accumulator's own.
        extra_bits: i32,
    },
    /// As [`Dot::Blocks`], with f32 operands truncated or rounded to tf32 on the way in.
    Tf32 {
        /// Bits kept beyond the accumulator's own.
        extra_bits: i32,
    },
}

impl Dot {
    /// The constant of the bound for `terms` products.
    ///
    /// `Fma`: `K u / (1 - K u)`. `Blocks`: `ceil(K / b) * ((b + 1) * 2^(1 - X) + 2) * 2^-24` (Fasi, Higham, Mikaitis,
    /// Pranesh, PeerJ CS 7:e330). `Tf32`: the same with `b = 8`, and `2 * 2^-11 + 2^-22` for its rounded operands.
    pub fn constant(self, terms: usize) -> f64 {
        let blocks = |block: usize, extra_bits: i32| {
            let each = (block as f64 + 1.0) * 2f64.powi(1 - extra_bits) + 2.0;
            terms.div_ceil(block) as f64 * each * 2f64.powi(-24)
        };
        match self {
            Dot::Fma { unit } => gamma(terms as f64, unit),
            Dot::Blocks { block, extra_bits } => blocks(block, extra_bits),
            Dot::Tf32 { extra_bits } => blocks(8, extra_bits) + 2.0 * 2f64.powi(-11) + 2f64.powi(-22),
        }
    }
}

/// Where a backward takes `delta_i = sum_t P_t dP_t` from. The two agree but for rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delta {
    /// `<out_i, d_out_i>` with the stored `out`, as flash attention computes it.
    Output,
    /// `sum_t P_t dP_t`, as automatic differentiation of a softmax computes it.
    Probabilities,
}

/// How a forward keeps the sum of its weights while it goes over the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunningSum {
    /// As it is, relative to the running maximum.
    #[default]
    Plain,
    /// As its logarithm, a running log-sum-exp: each rescaling rounds it relative to the size of the logarithm.
    Logarithm,
}

/// Which `out` and `lse` a backward starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackwardReads {
    /// Those that the forward stored, as the harness reads them.
    #[default]
    Stored,
    /// Its own, which were rounded to the stored format for the harness alone.
    Own,
}

/// `K u / (1 - K u)`: the relative error that `K` roundings of unit `u` add up to. Infinite from `K u = 1` on.
pub fn gamma(count: f64, unit: f64) -> f64 {
    let product = count * unit;
    if product < 1.0 { product / (1.0 - product) } else { f64::INFINITY }
}

/// The arithmetic that a candidate declares for one element type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arithmetic {
    /// Unit roundoff `u` of scores, exponentials, sums and the running rescaling: `2^-24` for f32, `2^-53` for f64.
    pub unit: f64,
    /// Relative error of the exponential function: `2^-22` for `ex2.approx`.
    pub exponential: f64,
    /// `<q, k>` and `<d_out, v>`.
    pub scores: Dot,
    /// The products with P and dS: `P v`, `dS k`, and within one tile `dS^T q`, `P^T d_out`.
    pub products: Dot,
    /// The format that P and dS are cast to before those products; the format of `unit` means no cast.
    pub probability: Dtype,
    /// Keys between two rescalings of the running sum at least; `None`: a whole block.
    pub rescale_every: Option<usize>,
    /// How the sum of the weights is kept meanwhile.
    #[serde(default)]
    pub running_sum: RunningSum,
    /// Where the backward takes `delta_i`, the mean of dP under P, from.
    pub delta: Delta,
    /// Which `out` and `lse` the backward starts from.
    #[serde(default)]
    pub backward_reads: BackwardReads,
    /// The format in which `dv` multiplies P by `d_out` and adds the query heads of a group, before sums in `unit` take over;
    /// `None`: as the other products.
    #[serde(default)]
    pub value_gradient_products: Option<Dtype>,
    /// The format that `out` and `sliding_out` are stored in.
    pub output: Dtype,
    /// The format that `lse` and `sliding_lse` are stored in.
    pub lse: Dtype,
    /// The format that `dq`, `dk` and `dv` are stored in.
    pub gradient: Dtype,
    /// The format that `dsel_scale` is stored in.
    pub sel_scale_gradient: Dtype,
}

impl Arithmetic {
    /// Everything in f64, as the oracle computes.
    pub fn f64() -> Self {
        Self::plain(Dtype::F64, 2f64.powi(-51))
    }

    /// Everything in f32 with f32 multiply-adds: no tensor core, no cast.
    pub fn f32() -> Self {
        Self::plain(Dtype::F32, 2f64.powi(-22))
    }

    fn plain(dtype: Dtype, exponential: f64) -> Self {
        let unit = dtype.unit_roundoff();
        Arithmetic {
            unit,
            exponential,
            scores: Dot::Fma { unit },
            products: Dot::Fma { unit },
            probability: dtype,
            rescale_every: None,
            running_sum: RunningSum::Plain,
            delta: Delta::Output,
            backward_reads: BackwardReads::Stored,
            value_gradient_products: None,
            output: dtype,
            lse: dtype,
            gradient: dtype,
            sel_scale_gradient: dtype,
        }
    }

    /// 16-bit tensor cores with f32 accumulation: P and dS are cast to `dtype` (f16 or bf16), outputs and gradients
    /// are stored in it, `lse` and `dsel_scale` in f32.
    pub fn tensor_core(dtype: Dtype) -> Self {
        let dot = Dot::Blocks { block: 16, extra_bits: 0 };
        Arithmetic { scores: dot, products: dot, probability: dtype, output: dtype, gradient: dtype, ..Self::f32() }
    }

    /// The format that `field` is stored in.
    pub fn stored(&self, field: Field) -> Dtype {
        match field {
            Field::Out | Field::SlidingOut => self.output,
            Field::Lse | Field::SlidingLse => self.lse,
            Field::Dq | Field::Dk | Field::Dv => self.gradient,
            Field::DselScale => self.sel_scale_gradient,
        }
    }

    /// Unit roundoff of the cast of P and dS, 0 where they are not cast.
    pub fn probability_roundoff(&self) -> f64 {
        let roundoff = self.probability.unit_roundoff();
        if roundoff <= self.unit { 0.0 } else { roundoff }
    }

    /// `K u / (1 - K u)` with this arithmetic's `u`.
    pub fn gamma(&self, count: usize) -> f64 {
        gamma(count as f64, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_of_64_products_is_the_published_one() {
        let u = 2f64.powi(-24);
        assert_eq!(Dot::Blocks { block: 16, extra_bits: 0 }.constant(64), 144.0 * u);
        assert_eq!(Dot::Blocks { block: 16, extra_bits: 2 }.constant(64), 42.0 * u);
        assert!(Dot::Fma { unit: u }.constant(64) > 64.0 * u);
        assert_eq!(Dot::Fma { unit: 2f64.powi(-11) }.constant(4096), f64::INFINITY);
    }

    #[test]
    fn what_is_declared_covers_tiles_that_spans_fill_in_part() {
        let u = 2f64.powi(-24);
        let declared = Dot::Blocks { block: 16, extra_bits: 0 };
        // A step over k products that are not zero, as measured: (k + 1) / 2 + 2 units.
        let step = |products: usize| ((products + 1) as f64 / 2.0 + 2.0) * u;
        for length in 1..=256 {
            for spans in 1..=64 {
                let whole = (length / 16) as f64 * step(16);
                let rest = if length % 16 > 0 { step(length % 16) } else { 0.0 };
                let rescalings = spans as f64 * u;
                let measured = spans as f64 * (whole + rest);
                assert!(measured <= declared.constant(length * spans) + rescalings, "{spans} spans of {length}");
            }
        }
    }

    #[test]
    fn the_named_arithmetics_are_these_numbers() {
        let (double, single) = (Arithmetic::f64(), Arithmetic::f32());
        assert_eq!([double.unit, double.exponential], [2f64.powi(-53), 2f64.powi(-51)]);
        assert_eq!([single.unit, single.exponential], [2f64.powi(-24), 2f64.powi(-22)]);
        for (plain, dtype) in [(double, Dtype::F64), (single, Dtype::F32)] {
            let fma = Dot::Fma { unit: plain.unit };
            assert_eq!((plain.scores, plain.products, plain.probability), (fma, fma, dtype));
            assert!(Field::ALL.into_iter().all(|field| plain.stored(field) == dtype));
        }
        let core = Arithmetic::tensor_core(Dtype::F16);
        let dot = Dot::Blocks { block: 16, extra_bits: 0 };
        assert_eq!((core.scores, core.products, core.probability), (dot, dot, Dtype::F16));
        assert_eq!([core.unit, core.exponential], [2f64.powi(-24), 2f64.powi(-22)]);
        let narrow = |field| !matches!(field, Field::Lse | Field::SlidingLse | Field::DselScale);
        let stored = |field| if narrow(field) { Dtype::F16 } else { Dtype::F32 };
        assert!(Field::ALL.into_iter().all(|field| core.stored(field) == stored(field)));
    }

    #[test]
    fn only_a_narrower_format_counts_as_a_cast() {
        assert_eq!(Arithmetic::f32().probability_roundoff(), 0.0);
        assert_eq!(Arithmetic::f64().probability_roundoff(), 0.0);
        assert_eq!(Arithmetic::tensor_core(Dtype::Bf16).probability_roundoff(), 2f64.powi(-8));
    }
}
