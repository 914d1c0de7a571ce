//! The number that a CPU candidate computes with, and the casts that it makes.

use std::ops::{Add, AddAssign, Mul, MulAssign, Sub};

use half::{bf16, f16};
use nsa_corpus::Dtype;

/// `f32` or `f64`: the accumulator.
pub(crate) trait Real:
    Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + AddAssign
    + MulAssign
{
    const ONE: Self;
    const NEG_INFINITY: Self;

    fn narrow(value: f64) -> Self;
    fn widen(self) -> f64;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    /// Rounded to nearest in `dtype`, where that is narrower.
    fn cast(self, dtype: Dtype) -> Self;
}

impl Real for f32 {
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    fn narrow(value: f64) -> Self {
        value as f32
    }

    fn widen(self) -> f64 {
        f64::from(self)
    }

    fn exp(self) -> Self {
        libm::expf(self)
    }

    fn ln(self) -> Self {
        libm::logf(self)
    }

    fn cast(self, dtype: Dtype) -> Self {
        match dtype {
            Dtype::F64 | Dtype::F32 => self,
            Dtype::F16 => f16::from_f32(self).to_f32(),
            Dtype::Bf16 => bf16::from_f32(self).to_f32(),
        }
    }
}

impl Real for f64 {
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;

    fn narrow(value: f64) -> Self {
        value
    }

    fn widen(self) -> f64 {
        self
    }

    fn exp(self) -> Self {
        libm::exp(self)
    }

    fn ln(self) -> Self {
        libm::log(self)
    }

    fn cast(self, dtype: Dtype) -> Self {
        dtype.round(self)
    }
}

/// `sum += factor * row`, elementwise: independent sums, so it vectorises without reordering any of them.
pub(crate) fn add_scaled<R: Real>(sum: &mut [R], factor: R, row: &[R]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += factor * *value;
    }
}
