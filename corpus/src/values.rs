//! What a tensor's values are drawn from.

use ndarray::{Array, ArrayD, Dimension, IxDyn};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::rng::Stream;
use crate::{Error, Given};

/// A distribution, or a tensor of a file. Each element of a distribution is a function of the case's seed, the tensor and
/// its own coordinates `b, h, i, d` alone, so it keeps its value when a size shrinks. Single elements (a planted NaN, say)
/// are replaced by [`Override`](crate::Override)s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Values {
    /// All zero: overrides put single elements on it.
    Zeros {},
    /// All the same.
    Constant {
        /// The value.
        value: f64,
    },
    /// Bell-shaped, mean 0, standard deviation `scale`, bounded by 4.9 times that.
    Normal {
        /// Standard deviation; 8 and 30 make large logits, 1e-8 tiny cotangents.
        #[serde(default = "one")]
        scale: f64,
    },
    /// Uniform in `[-scale, scale)`.
    Uniform {
        /// The bound.
        #[serde(default = "one")]
        scale: f64,
    },
    /// Integers of `-limit..=limit`: sums of products are exact in every format.
    Integers {
        /// The largest magnitude.
        limit: u32,
    },
    /// Mostly zero; a share of elements is `± 2^e` with `lowest <= e <= highest`.
    PowerGrid {
        /// Share of non-zero elements, in eighths.
        eighths: u32,
        /// Least exponent.
        lowest: i32,
        /// Greatest exponent.
        highest: i32,
    },
    /// Every feature of a row has one value, drawn bell-shaped for the row.
    ConstantRows {
        /// Standard deviation.
        #[serde(default = "one")]
        scale: f64,
    },
    /// Bell-shaped, and every `every`-th feature `factor` times as large: what trained models' keys look like.
    OutlierChannels {
        /// Distance between outlier features.
        every: usize,
        /// How much larger they are.
        factor: f64,
    },
    /// Close to one large value: `center + spread * uniform`. Sums cancel badly.
    Offset {
        /// The common value.
        center: f64,
        /// The bound of the difference from it.
        spread: f64,
    },
    /// `+size` and `-size` by turns along the features, the phase drawn for each row.
    Alternating {
        /// The magnitude.
        size: f64,
    },
    /// `± 2^e` times a number of `[1, 2)`, `e` uniform in `lowest..=highest`.
    WideExponents {
        /// Least exponent.
        lowest: i32,
        /// Greatest exponent.
        highest: i32,
    },
    /// Feature `i % width` of row `i` is `value`, the others 0.
    OneHot {
        /// The value of that feature.
        value: f64,
    },
    /// A tensor of a file.
    Given(Given),
}

fn one() -> f64 {
    1.0
}

impl Values {
    /// Bell-shaped with standard deviation 1.
    pub fn normal() -> Self {
        Values::Normal { scale: 1.0 }
    }

    /// All ones.
    pub fn ones() -> Self {
        Values::Constant { value: 1.0 }
    }

    /// All zero.
    pub fn zeros() -> Self {
        Values::Zeros {}
    }

    /// The values of tensor number `tag` of shape `dim`, `[b, h, i]` or `[b, h, i, d]`.
    ///
    /// # Errors
    /// A given tensor that cannot be read, or is smaller than `dim`.
    pub(crate) fn fill<D: Dimension>(&self, seed: u64, tag: u64, dim: D) -> Result<Array<f64, D>, Error> {
        let shape = dim.slice().to_vec();
        let filled = match self {
            Values::Given(given) => given.cut(&shape)?,
            _ => self.draw(seed, tag, &shape),
        };
        Ok(filled.into_dimensionality().expect("filled to this shape"))
    }

    fn draw(&self, seed: u64, tag: u64, shape: &[usize]) -> ArrayD<f64> {
        // A tensor of one number for each token is drawn as rows of width 1.
        let width = shape.get(3).copied().unwrap_or(1);
        let (heads, tokens) = (shape[1], shape[2]);
        let mut values = vec![0.0; shape.iter().product()];
        values.par_chunks_mut(width.max(1)).with_min_len(64).enumerate().for_each(|(row, values)| {
            let token = row % tokens;
            let stream = Stream::new(seed, tag, [row / tokens / heads, row / tokens % heads, token]);
            for (d, value) in values.iter_mut().enumerate() {
                *value = self.value_at(stream, token, d, width);
            }
        });
        ArrayD::from_shape_vec(IxDyn(shape), values).expect("as many as the shape says")
    }

    fn value_at(&self, stream: Stream, token: usize, d: usize, width: usize) -> f64 {
        match *self {
            Values::Zeros {} => 0.0,
            Values::Constant { value } => value,
            Values::Normal { scale } => scale * stream.bell(d, 0),
            Values::Uniform { scale } => scale * stream.signed(d, 0),
            Values::Integers { limit } => stream.below(d, 0, 2 * limit as usize + 1) as f64 - f64::from(limit),
            Values::PowerGrid { eighths, lowest, highest } => {
                if stream.below(d, 0, 8) < eighths as usize {
                    power(stream, d, lowest, highest)
                } else {
                    0.0
                }
            }
            Values::ConstantRows { scale } => scale * stream.bell(0, 0),
            Values::OutlierChannels { every, factor } => {
                stream.bell(d, 0) * if d.is_multiple_of(every) { factor } else { 1.0 }
            }
            Values::Offset { center, spread } => center + spread * stream.signed(d, 0),
            Values::Alternating { size } => {
                if (d + stream.below(0, 0, 2)).is_multiple_of(2) {
                    size
                } else {
                    -size
                }
            }
            Values::WideExponents { lowest, highest } => power(stream, d, lowest, highest) * (1.0 + stream.unit(d, 3)),
            Values::OneHot { value } => {
                if d == token % width {
                    value
                } else {
                    0.0
                }
            }
            Values::Given(_) => unreachable!("a given tensor is cut, not drawn"),
        }
    }

    /// Checks the parameters of the values of the tensor `name`.
    pub(crate) fn check(&self, name: &str) -> Result<(), Error> {
        match *self {
            Values::PowerGrid { lowest, highest, .. } | Values::WideExponents { lowest, highest }
                if lowest > highest || lowest < -1000 || highest > 1000 =>
            {
                Err(Error::invalid(format!("{name}: exponents {lowest}..={highest} are empty or beyond 1000")))
            }
            Values::PowerGrid { eighths, .. } if eighths > 8 => {
                Err(Error::invalid(format!("{name}: eighths is {eighths}, but 8 make a whole")))
            }
            Values::OutlierChannels { every: 0, .. } => Err(Error::invalid(format!("{name}: every is 0"))),
            _ => Ok(()),
        }
    }
}

/// `± 2^e`, `e` uniform in `lowest..=highest`.
fn power(stream: Stream, d: usize, lowest: i32, highest: i32) -> f64 {
    let exponent = lowest + stream.below(d, 1, (highest - lowest + 1) as usize) as i32;
    let sign = if stream.below(d, 2, 2) == 0 { 1.0 } else { -1.0 };
    sign * exact_power(exponent)
}

/// `2^exponent` from its bits, for exponents of the normal range: `powi` promises no particular rounding.
fn exact_power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}
