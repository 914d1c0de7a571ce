//! What a field of an answer is compared with.

use ndarray::{ArrayD, IxDyn};
use nsa_corpus::{Dtype, Field};

use super::element::Held;
use super::overflow::Overflow;

/// What a field is compared with.
pub struct Expected<'a> {
    /// The oracle's values.
    pub values: &'a ArrayD<f64>,
    /// Tier B, absolute.
    pub rigorous: &'a ArrayD<f64>,
    /// Tier H, absolute.
    pub likely: &'a ArrayD<f64>,
    /// The format that the implementation stores this field in.
    pub stored: Dtype,
    /// Where a correct program may overflow.
    pub overflow: Overflow,
    /// The elements that `0 * NaN` can reach; `None`: none, or the implementation says that it prevents that.
    pub reached: Option<&'a ArrayD<bool>>,
}

impl Expected<'_> {
    /// What the element at `index` is held to.
    pub fn held(&self, field: Field, index: &IxDyn) -> Held {
        Held {
            field,
            expected: self.values[index],
            rigorous: self.rigorous[index],
            likely: self.likely[index],
            stored: self.stored,
            overflow: self.overflow,
            reached: self.reached.is_some_and(|reached| reached[index]),
        }
    }
}
