//! The constants of an error budget, read off a declared [`Arithmetic`].

use nsa_corpus::{Arithmetic, Dot, Dtype, RunningSum, Shape, gamma};

/// The two tiers of a budget, in the order in which arrays hold them.
pub(super) const TIERS: usize = 2;
/// Rigorous for the declared arithmetic: above it something is wrong.
pub(super) const RIGOROUS: usize = 0;
/// What rounding errors that do not conspire stay below.
pub(super) const LIKELY: usize = 1;
/// Standard deviations that the likely tier allows a sum of independent roundings (Hoeffding's inequality).
pub(super) const DEVIATIONS: f64 = 6.0;

/// `exp` of anything below is 0, in f64 too.
const LEAST_EXPONENT: f64 = -746.0;

/// Holds the likely tier to the rigorous one: over a few terms, six standard deviations are more than the worst case.
pub(super) fn cap(likely: &mut [f64], rigorous: &[f64]) {
    likely.iter_mut().zip(rigorous).for_each(|(likely, rigorous)| *likely = likely.min(*rigorous));
}

/// The constants that every row of a problem shares.
pub(super) struct Model {
    pub(super) arithmetic: Arithmetic,
    /// Unit roundoff `u`.
    pub(super) u: f64,
    /// Relative error of the exponential.
    pub(super) exponential: f64,
    /// Unit roundoff of the cast of P and dS, 0 without a cast.
    pub(super) cast: f64,
    /// Absolute error that casting P or dS can add by underflow.
    pub(super) cast_least: f64,
    /// Largest value that the cast can hold.
    pub(super) cast_max: f64,
    /// What an f32 operation can lose by flushing a subnormal result to zero.
    pub(super) flush: f64,
    /// `dim^(-1/2)`.
    pub(super) scale: f64,
    /// Accumulation constant of `<q, k>`.
    pub(super) score_dot: f64,
    /// Accumulation constant of `<d_out, v>`.
    pub(super) value_dot: f64,
    /// What `<d_out, v>` can lose to underflow.
    pub(super) value_underflow: f64,
    /// What `dv` errs by, relative to the sum of its magnitudes, where a narrow format adds a group's heads.
    pub(super) value_gradient_heads: f64,
    /// What those products can lose to underflow, as if every row attended to the key.
    pub(super) value_gradient_underflow: f64,
    /// Compute, instead of the rigorous tier, what the order of additions can make of one answer before it is stored.
    pub(super) order_only: bool,
    dim: f64,
}

impl Model {
    pub(super) fn new(arithmetic: &Arithmetic, shape: &Shape) -> Self {
        let flush =
            if arithmetic.unit < Dtype::F32.unit_roundoff() { f64::MIN_POSITIVE } else { Dtype::F32.min_positive() };
        let probability = arithmetic.probability;
        let heads = shape.groups() as f64;
        let narrow = arithmetic.value_gradient_products;
        Model {
            u: arithmetic.unit,
            exponential: arithmetic.exponential,
            cast: arithmetic.probability_roundoff(),
            cast_least: flush.max(probability.unit_roundoff() * probability.min_positive()),
            cast_max: probability.max(),
            flush,
            scale: shape.scale(),
            score_dot: arithmetic.scores.constant(shape.dim()),
            value_dot: arithmetic.scores.constant(shape.value_dim()),
            value_gradient_heads: narrow.map_or(0.0, |format| gamma(heads, format.unit_roundoff())),
            value_gradient_underflow: narrow
                .map_or(0.0, |format| shape.seq_len() as f64 * heads * format.unit_roundoff() * format.min_positive()),
            dim: shape.dim() as f64,
            value_underflow: shape.value_dim() as f64 * flush,
            order_only: false,
            arithmetic: arithmetic.clone(),
        }
    }

    /// The model of [`Model::order_only`].
    pub(super) fn order_only(arithmetic: &Arithmetic, shape: &Shape) -> Self {
        Model { order_only: true, ..Self::new(arithmetic, shape) }
    }

    /// The absolute error of `x = <q, k>` in both tiers. `magnitude = sum |q k|`, `square = sum (q k)^2`.
    #[inline(always)]
    pub(super) fn dot_errors(&self, x: f64, magnitude: f64, square: f64) -> [f64; TIERS] {
        let likely = 0.5 * x.abs() + DEVIATIONS / self.dim.sqrt() * (square.sqrt() + x.abs());
        [magnitude, likely.min(magnitude)].map(|size| self.score_dot * size + self.dim * self.flush)
    }

    /// `E_t` of both tiers: the absolute error of the scaled score `scale * factor * x`.
    #[inline(always)]
    pub(super) fn score_errors(&self, x: f64, magnitude: f64, square: f64, factor: f64) -> [f64; TIERS] {
        let dots = self.dot_errors(x, magnitude, square);
        dots.map(|dot| self.scale * factor.abs() * (dot + 4.0 * self.u * x.abs()) + self.flush)
    }

    /// `expm1(error)`: what a weight `exp(exponent)` errs by, relatively, where its exponent errs by `error`. A weight that stays 0
    /// whatever the error does not err; its score may be so large that an infinite factor would meet that 0.
    #[inline(always)]
    pub(super) fn relative(exponent: f64, error: f64) -> f64 {
        if exponent + error < LEAST_EXPONENT { 0.0 } else { libm::expm1(error) }
    }

    /// Constant of a sum of `terms` products with P or dS, in any order and in any tiles.
    pub(super) fn product_constant(&self, terms: usize) -> f64 {
        let products = self.arithmetic.products;
        match products {
            Dot::Fma { .. } => products.constant(terms),
            Dot::Blocks { block, .. } => products.constant(terms) + self.arithmetic.gamma(terms.div_ceil(block)),
            Dot::Tf32 { .. } => products.constant(terms) + self.arithmetic.gamma(terms.div_ceil(8)),
        }
    }

    /// What a running log-sum-exp adds to the relative error of the sum of weights: each of the row's rescalings, and the
    /// last use of it, rounds a logarithm. `center = m`, `offset = ln l`.
    pub(super) fn logarithms(&self, rescalings: usize, center: f64, offset: f64) -> f64 {
        // A row without keys has no sum.
        if self.arithmetic.running_sum == RunningSum::Plain || rescalings == 0 {
            return 0.0;
        }
        let sizes = (center + offset).abs() + center.abs() + 2.0 * offset.abs() + 4.0;
        (rescalings + 1) as f64 * (self.u * sizes + self.exponential * (2.0 + offset.abs()))
    }

    /// `6 u_P`: what the likely tier multiplies the root of the sum of squares by.
    pub(super) fn cast_deviation(&self) -> f64 {
        DEVIATIONS * self.cast
    }

    /// Adds the rounding to the stored format: `error + u_o (|value| + error) + underflow`.
    pub(super) fn stored(&self, dtype: Dtype, value: f64, error: f64) -> f64 {
        let bound = error + self.storing(dtype, value, error);
        if bound.is_nan() { f64::INFINITY } else { bound }
    }

    /// The rounding to the stored format alone, of a number within `error` of `value`.
    pub(super) fn storing(&self, dtype: Dtype, value: f64, error: f64) -> f64 {
        let underflow = dtype.unit_roundoff() * dtype.min_positive() + self.flush;
        dtype.unit_roundoff() * (value.abs() + error) + underflow
    }

    /// Rescalings of the running sum over the spans of a row.
    pub(super) fn rescalings(&self, lengths: impl Iterator<Item = usize>, block_size: usize) -> usize {
        let tile = self.arithmetic.rescale_every.unwrap_or(block_size).max(1);
        lengths.map(|length| length.div_ceil(tile)).sum()
    }
}
