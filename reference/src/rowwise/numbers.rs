//! The numbers of the plain implementation: its inputs, its formats, its dot products, and what a fault changes in them.

use nsa_corpus::{Arithmetic, Dtype, Inputs, Shape};

use super::mutation::{Gradient, Mutation, Numbers, Pass};
use super::terms::{Lister, Row};
use crate::real::Real;

/// The formats that results are cast to.
#[derive(Clone, Copy)]
pub(super) struct Formats {
    pub probability: Dtype,
    pub output: Dtype,
    pub lse: Dtype,
    pub gradient: Dtype,
    pub sel_scale_gradient: Dtype,
}

impl Formats {
    pub(super) fn of(arithmetic: &Arithmetic) -> Self {
        Formats {
            probability: arithmetic.probability,
            output: arithmetic.output,
            lse: arithmetic.lse,
            gradient: arithmetic.gradient,
            sel_scale_gradient: arithmetic.sel_scale_gradient,
        }
    }

    /// No cast at all.
    pub(super) fn exact() -> Self {
        Self::of(&Arithmetic::f64())
    }
}

/// The inputs as the accumulator's numbers, the formats, and the fault.
pub(super) struct Machine<'a, R> {
    pub inputs: &'a Inputs,
    pub shape: Shape,
    pub mutation: Option<&'a Mutation>,
    pub formats: Formats,
    pub scale: R,
    q: Vec<R>,
    k: Vec<R>,
    v: Vec<R>,
    pub d_out: Option<Vec<R>>,
    pub d_lse: Option<Vec<R>>,
    pub d_sliding: Option<Vec<R>>,
    zeros: Vec<R>,
}

impl<'a, R: Real> Machine<'a, R> {
    pub(super) fn new(inputs: &'a Inputs, mutation: Option<&'a Mutation>, formats: Formats) -> Self {
        let shape = *inputs.shape();
        let cotangents = inputs.cotangents();
        let tf32 = mutation == Some(&Mutation::Numbers { change: Numbers::Tf32 });
        let read = |value: &f64| if tf32 { R::narrow(tf32_of(*value)) } else { R::narrow(*value) };
        let scale = match mutation {
            Some(Mutation::Numbers { change: Numbers::ScaleMissing }) => 1.0,
            Some(Mutation::Numbers { change: Numbers::ScaleOfValueDim }) => 1.0 / (shape.value_dim() as f64).sqrt(),
            Some(Mutation::Numbers { change: Numbers::ScaleSquared }) => 1.0 / shape.dim() as f64,
            _ => shape.scale(),
        };
        Machine {
            inputs,
            shape,
            mutation,
            formats,
            scale: R::narrow(scale),
            q: inputs.q().iter().map(read).collect(),
            k: inputs.k().iter().map(read).collect(),
            v: inputs.v().iter().map(read).collect(),
            d_out: cotangents.d_out.as_ref().map(|tensor| tensor.iter().map(read).collect()),
            d_lse: cotangents.d_lse.as_ref().map(|tensor| tensor.iter().map(|value| R::narrow(*value)).collect()),
            d_sliding: cotangents.d_sliding.as_ref().map(|tensor| tensor.iter().map(read).collect()),
            zeros: vec![R::default(); shape.dim().max(shape.value_dim())],
        }
    }

    pub(super) fn lister(&self, pass: Pass) -> Lister<'a> {
        Lister { inputs: self.inputs, mutation: self.mutation, pass }
    }

    /// The fault in how numbers are computed.
    pub(super) fn numbers(&self) -> Option<Numbers> {
        match self.mutation {
            Some(Mutation::Numbers { change }) => Some(*change),
            _ => None,
        }
    }

    /// The fault in the backward's formulas.
    pub(super) fn gradient(&self) -> Option<Gradient> {
        match self.mutation {
            Some(Mutation::Gradient { change }) => Some(*change),
            _ => None,
        }
    }

    /// Rows, in order.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row> + use<R> {
        let shape = self.shape;
        let rows = shape.batch() * shape.q_heads() * shape.seq_len();
        (0..rows).map(move |row| {
            let (head, i) = (row / shape.seq_len(), row % shape.seq_len());
            Row { b: head / shape.q_heads(), q_head: head % shape.q_heads(), i }
        })
    }

    /// Position of a row among all.
    pub(super) fn position(&self, row: Row) -> usize {
        (row.b * self.shape.q_heads() + row.q_head) * self.shape.seq_len() + row.i
    }

    pub(super) fn query(&self, row: Row) -> &[R] {
        let dim = self.shape.dim();
        &self.q[self.position(row) * dim..][..dim]
    }

    pub(super) fn key(&self, row: Option<usize>) -> &[R] {
        let dim = self.shape.dim();
        row.map_or(&self.zeros[..dim], |row| &self.k[row * dim..][..dim])
    }

    pub(super) fn value(&self, row: Option<usize>) -> &[R] {
        let width = self.shape.value_dim();
        row.map_or(&self.zeros[..width], |row| &self.v[row * width..][..width])
    }

    /// `<left, right>`, in the accumulator's precision.
    pub(super) fn dot(&self, left: &[R], right: &[R]) -> R {
        let products = left.iter().zip(right).map(|(left, right)| *left * *right);
        match self.numbers() {
            Some(Numbers::AccumulatedIn(dtype)) => {
                products.fold(R::default(), |sum, product| (sum + product).cast(dtype))
            }
            _ => products.fold(R::default(), |sum, product| sum + product),
        }
    }

    /// A result on its way to `format`.
    pub(super) fn stored(&self, value: R, format: Dtype) -> R {
        match self.numbers() {
            Some(Numbers::StoredThrough(dtype)) => value.cast(dtype).cast(format),
            Some(Numbers::Truncated) => R::narrow(toward_zero(value.widen(), format)),
            _ => value.cast(format),
        }
    }
}

/// Rounded to the 11 significant bits of tf32.
fn tf32_of(value: f64) -> f64 {
    if !value.is_finite() {
        return value;
    }
    let bits = (value as f32).to_bits();
    f64::from(f32::from_bits((bits.wrapping_add(0x1000)) & !0x1fff))
}

/// The nearest number of `format` that is no larger in magnitude.
fn toward_zero(value: f64, format: Dtype) -> f64 {
    let nearest = format.round(value);
    if nearest.abs() <= value.abs() || !nearest.is_finite() {
        return nearest;
    }
    // One step of the format down: between a half and one and a half of the gap below rounds there.
    format.round(nearest - nearest * format.unit_roundoff() * 1.01)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_goes_to_the_neighbour_toward_zero() {
        for (value, expected) in [(1.0 + 0.9 / 128.0, 1.0), (-1.0 - 1.9 / 128.0, -1.0 - 1.0 / 128.0), (1.5, 1.5)] {
            assert_eq!(toward_zero(value, Dtype::Bf16), expected);
        }
        // From just below a power of two the step down is half as wide.
        assert_eq!(toward_zero(2.0 - 1e-9, Dtype::Bf16), 2.0 - 1.0 / 128.0);
    }

    #[test]
    fn tf32_keeps_eleven_bits() {
        assert_eq!(tf32_of(1.0 + 2f64.powi(-10)), 1.0 + 2f64.powi(-10));
        assert_eq!(tf32_of(1.0 + 2f64.powi(-12)), 1.0);
        assert_eq!(tf32_of(-3.0), -3.0);
    }
}
