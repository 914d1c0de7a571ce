//! A tensor with the gradient that is claimed for it.

use std::ops::Range;

use ndarray::{Array, ArrayD, Dimension};

use crate::{Error, ErrorKind};

/// One tensor that the loss reads, and the gradient claimed for it.
#[derive(Clone, Debug)]
pub struct Variable {
    pub(super) name: String,
    pub(super) axes: Vec<String>,
    pub(super) block: Option<(usize, usize)>,
    pub(super) value: ArrayD<f64>,
    pub(super) gradient: ArrayD<f64>,
}

impl Variable {
    /// `gradient` is the claim for the tensor `value`.
    ///
    /// # Errors
    /// Their shapes differ (both are named).
    pub fn new<D: Dimension>(
        name: impl Into<String>,
        value: Array<f64, D>,
        gradient: Array<f64, D>,
    ) -> Result<Self, Error> {
        let name = name.into();
        if value.shape() != gradient.shape() {
            let message = format!("{name} has shape {:?} and its gradient {:?}", value.shape(), gradient.shape());
            return Err(Error::new(ErrorKind::Shape, message));
        }
        let axes = (0..value.ndim()).map(|axis| format!("axis {axis}")).collect();
        Ok(Variable { name, axes, block: None, value: value.into_dyn(), gradient: gradient.into_dyn() })
    }

    /// Names the axes, outermost first: directions are drawn within one index of each ("one token", "one head").
    ///
    /// # Errors
    /// Not as many names as axes.
    pub fn with_axes(mut self, axes: &[&str]) -> Result<Self, Error> {
        if axes.len() != self.value.ndim() {
            let message = format!("{} has {} axes, and {} names are given", self.name, self.value.ndim(), axes.len());
            return Err(Error::new(ErrorKind::Shape, message));
        }
        self.axes = axes.iter().map(|&axis| axis.to_owned()).collect();
        Ok(self)
    }

    /// Directions are also drawn within one aligned run of `size` indices of the axis called `axis` ("one block"). Without
    /// such an axis nothing changes.
    #[must_use]
    pub fn with_block(mut self, axis: &str, size: usize) -> Self {
        self.block = self.axes.iter().position(|name| name == axis).map(|axis| (axis, size.max(1)));
        self
    }

    /// A row of numbers called `x`, for tests.
    #[cfg(test)]
    pub(super) fn row(value: &[f64], gradient: &[f64]) -> Self {
        let [value, gradient] = [value, gradient].map(|numbers| ndarray::Array1::from(numbers.to_vec()));
        Variable::new("x", value, gradient).expect("as many claims as values")
    }

    /// What it is called in reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the gradient is checked.
    pub fn value(&self) -> &ArrayD<f64> {
        &self.value
    }

    /// The claim.
    pub fn gradient(&self) -> &ArrayD<f64> {
        &self.gradient
    }

    /// The region that is the whole tensor.
    pub(super) fn everywhere(&self) -> Vec<Range<usize>> {
        self.value.shape().iter().map(|&len| 0..len).collect()
    }
}
