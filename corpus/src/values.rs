//! What a tensor's values are drawn from.

use std::sync::Arc;

use ndarray::{Array, ArrayD, Dimension, IxDyn};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::rng::Stream;

/// A distribution, or a tensor of a file. Each element of a distribution is a function of the case's seed, the tensor and
/// its own coordinates.
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
    /// Every feature of a row has one value, drawn for the row.
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
    /// One feature of each row is `value`, the others 0; which one is `token % width`.
    OneHot {
        /// The value of that feature.
        value: f64,
    },
    /// A tensor of a file.
    Given(Given),
}

/// Reads tensor `.1` of file `.0`.
pub(crate) type Reader<'a> = dyn FnMut(&str, &str) -> Result<ArrayD<f64>, Error> + 'a;

/// A tensor of a file, by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// The file, below the corpus; `self` is the file that the entry itself stands in.
    pub file: String,
    /// The tensor's name there.
    pub tensor: String,
    #[serde(skip)]
    data: Option<Arc<ArrayD<f64>>>,
}

impl Given {
    /// A tensor that is at hand, said to be `tensor` of `file`.
    pub fn new(file: &str, tensor: &str, data: ArrayD<f64>) -> Self {
        Given { file: file.to_owned(), tensor: tensor.to_owned(), data: Some(Arc::new(data)) }
    }

    /// Reads the tensor where it is not at hand yet.
    pub(crate) fn resolve(&mut self, read: &mut Reader<'_>) -> Result<(), Error> {
        if self.data.is_none() {
            self.data = Some(Arc::new(read(&self.file, &self.tensor)?));
        }
        Ok(())
    }

    /// The tensor, cut down to `dim` where it is larger.
    pub(crate) fn cut(&self, dim: &[usize]) -> Result<ArrayD<f64>, Error> {
        let name = || format!("tensor `{}` of {}", self.tensor, self.file);
        let data = self.data.as_ref().ok_or_else(|| Error::invalid(format!("{} was not read", name())))?;
        let fits = data.ndim() == dim.len() && data.shape().iter().zip(dim).all(|(found, wanted)| found >= wanted);
        if !fits {
            return Err(Error::invalid(format!("{} has shape {:?}, the case needs {dim:?}", name(), data.shape())));
        }
        Ok(data.slice_each_axis(|axis| (0..dim[axis.axis.index()]).into()).to_owned())
    }

    /// The tensor's values, where they are at hand.
    pub fn data(&self) -> Option<&ArrayD<f64>> {
        self.data.as_deref()
    }
}

impl PartialEq for Given {
    /// NaN equals itself here: two cases are the same if their bits are.
    fn eq(&self, other: &Self) -> bool {
        let bits = |given: &Given| {
            given.data.as_ref().map(|data| data.iter().map(|value| value.to_bits()).collect::<Vec<_>>())
        };
        self.file == other.file && self.tensor == other.tensor && bits(self) == bits(other)
    }
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

    /// The values of tensor number `tag`, of shape `dim` with two to four axes, the last one drawn along rows.
    pub(crate) fn fill<D: Dimension>(&self, seed: u64, tag: u64, dim: D) -> Result<Array<f64, D>, Error> {
        let shape = dim.slice().to_vec();
        if let Values::Given(given) = self {
            let cut = given.cut(&shape)?;
            return Ok(cut.into_dimensionality().expect("cut to this shape"));
        }
        // A tensor of one number for each token is drawn as rows of width 1.
        let width = if shape.len() == 4 { shape[3] } else { 1 };
        let [heads, tokens] = [shape[1], shape[2]];
        let mut values = vec![0.0; shape.iter().product()];
        values.par_chunks_mut(width.max(1)).with_min_len(64).enumerate().for_each(|(row, values)| {
            let position = [row / tokens / heads, row / tokens % heads, row % tokens];
            let stream = Stream::new(seed, tag, position);
            for (d, value) in values.iter_mut().enumerate() {
                *value = self.element(stream, position[2], d, width);
            }
        });
        Ok(ArrayD::from_shape_vec(IxDyn(&shape), values)
            .expect("as many as the shape")
            .into_dimensionality()
            .expect("same"))
    }

    fn element(&self, stream: Stream, token: usize, d: usize, width: usize) -> f64 {
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

    /// Checks the parameters.
    pub(crate) fn check(&self, name: &str) -> Result<(), Error> {
        match *self {
            Values::PowerGrid { lowest, highest, .. } | Values::WideExponents { lowest, highest }
                if lowest > highest || lowest < -1000 || highest > 1000 =>
            {
                Err(Error::invalid(format!("{name}: exponents {lowest}..={highest} are empty or beyond 1000")))
            }
            Values::PowerGrid { eighths, .. } if eighths > 8 => {
                Err(Error::invalid(format!("{name}: eighths is {eighths}, at most 8 make a whole")))
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

/// `2^exponent` by repeated doubling or halving, for exponents within the normal range.
fn exact_power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}
