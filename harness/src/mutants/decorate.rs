//! Mutants planted round any candidate: its inputs are changed on the way in, or its answer on the way out.

use ndarray::{Array4, ArrayD, Axis, Dimension, Slice};
use nsa_corpus::{Dtype, Error, Field, InputParts, Inputs, Outputs};
use serde::{Deserialize, Serialize};

/// A change of what a candidate is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputChange {
    /// Which tensor.
    pub tensor: InputTensor,
    /// How it is misread.
    pub act: Misread,
}

/// A tensor that a candidate is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputTensor {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Cotangent of `out`.
    DOut,
    /// Cotangent of `sliding_out`.
    DSliding,
}

/// How a tensor is misread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Misread {
    /// Memory laid out `[b, h, n, d]` is read as `[b, n, h, d]`: strides are not honoured.
    Interleaved,
    /// Rounded to this format first.
    Narrowed(Dtype),
    /// Read as zeros.
    Zeros,
    /// The last feature is never read.
    LastFeatureMissing,
    /// Features from this one on are never read.
    FeaturesMissingFrom(usize),
    /// Subnormal numbers of the format are read as zero.
    Flushed,
}

impl InputChange {
    /// The inputs as they are misread.
    pub(crate) fn apply(&self, inputs: &Inputs) -> Result<Inputs, Error> {
        let mut parts = inputs.clone().into_parts();
        let dtype = parts.dtype;
        if let Some(tensor) = self.tensor.of(&mut parts) {
            self.act.apply(tensor, dtype);
        }
        Inputs::new(parts)
    }
}

impl InputTensor {
    fn of(self, parts: &mut InputParts) -> Option<&mut Array4<f64>> {
        match self {
            InputTensor::Q => Some(&mut parts.q),
            InputTensor::K => Some(&mut parts.k),
            InputTensor::V => Some(&mut parts.v),
            InputTensor::DOut => parts.cotangents.d_out.as_mut(),
            InputTensor::DSliding => parts.cotangents.d_sliding.as_mut(),
        }
    }
}

impl Misread {
    fn apply(self, tensor: &mut Array4<f64>, dtype: Dtype) {
        match self {
            Misread::Interleaved => {
                let (b, h, n, d) = tensor.dim();
                let memory: Vec<f64> = tensor.iter().copied().collect();
                *tensor = Array4::from_shape_fn((b, h, n, d), |(b, head, i, d_at)| {
                    memory[((b * n + i) * h + head) * d + d_at]
                });
            }
            Misread::Narrowed(narrow) => tensor.mapv_inplace(|value| narrow.round(value)),
            Misread::Zeros => tensor.fill(0.0),
            Misread::LastFeatureMissing => {
                let last = tensor.dim().3 - 1;
                tensor.index_axis_mut(Axis(3), last).fill(0.0);
            }
            Misread::FeaturesMissingFrom(first) => {
                let first = first.min(tensor.dim().3);
                tensor.slice_axis_mut(Axis(3), Slice::from(first..)).fill(0.0);
            }
            Misread::Flushed => tensor.mapv_inplace(|v| if v.abs() < dtype.min_positive() { 0.0 } else { v }),
        }
    }
}

/// A change of what a candidate answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputChange {
    /// Which field.
    pub field: Field,
    /// Which of its rows (the axes before the last; for `lse`, elements).
    #[serde(default)]
    pub rows: Rows,
    /// What they hold instead.
    pub act: Miswritten,
}

/// Which rows of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// All.
    #[default]
    All,
    /// Of the last token.
    LastToken,
    /// Of the last token of the last batch entry.
    VeryLast,
    /// Beyond the last multiple of 16 tokens.
    BeyondTiles,
    /// Of token 0, in heads other than the first.
    FirstOfLaterHeads,
    /// Of heads other than the first.
    LaterHeads,
    /// Of batch entries other than the first.
    LaterBatch,
    /// One row in the middle.
    One,
    /// Of rows that attend to no key.
    WithoutKeys,
}

/// What rows hold instead.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Miswritten {
    /// Zeros.
    Zeros,
    /// NaN: what a buffer was filled with before.
    Unwritten,
    /// The opposite sign.
    Negated,
    /// A multiple.
    Gain(f64),
    /// What the row before them in memory holds.
    RowBefore,
    /// What the row after them in memory holds.
    RowAfter,
    /// What the same row of head 0, batch entry 0 holds: stale.
    Stale,
    /// The number of a narrower format.
    Narrowed(Dtype),
    /// Zero where smaller in magnitude than this.
    Flushed(f64),
    /// A little more in every second run: twice this relative amount between runs.
    Wavering(f64),
    /// Added twice in every second run.
    DoubledAtTimes,
    /// One infinity.
    Infinite,
    /// What stands this many elements before, from there on: an offset that is cut to too few bits.
    Wrapped(usize),
}

impl OutputChange {
    /// Whether runs differ.
    pub(crate) fn depends_on_the_run(&self) -> bool {
        matches!(self.act, Miswritten::Wavering(_) | Miswritten::DoubledAtTimes)
    }

    /// Changes the answer of run number `run`.
    pub(crate) fn apply(&self, inputs: &Inputs, outputs: &mut Outputs, run: usize) {
        let Some(tensor) = outputs.get_mut(self.field) else { return };
        let original = tensor.clone();
        let positions: Vec<_> = original.indexed_iter().map(|(index, _)| index.as_array_view().to_vec()).collect();
        for index in positions.iter().filter(|index| self.rows.hold(inputs, &original, index)) {
            tensor[index.as_slice()] = self.act.instead(&original, index, run);
        }
    }
}

impl Rows {
    fn hold(self, inputs: &Inputs, tensor: &ArrayD<f64>, index: &[usize]) -> bool {
        let n = inputs.shape().seq_len();
        let (b, head, token) = (index[0], index[1], index[2]);
        match self {
            Rows::All => true,
            Rows::LastToken => token == n - 1,
            Rows::VeryLast => token == n - 1 && b == tensor.shape()[0] - 1 && head == tensor.shape()[1] - 1,
            Rows::BeyondTiles => token >= n / 16 * 16,
            Rows::FirstOfLaterHeads => token == 0 && (b, head) != (0, 0),
            Rows::LaterHeads => head > 0,
            Rows::LaterBatch => b > 0,
            Rows::WithoutKeys => {
                let sel_head = if tensor.shape()[1] == inputs.shape().q_heads() {
                    head / inputs.shape().sel_groups()
                } else {
                    head.min(inputs.shape().sel_heads() - 1)
                };
                let live = (0..inputs.shape().num_sel()).any(|slot| inputs.mask()[[b, sel_head, token, slot]]);
                !inputs.include_block_causal() && !live
            }
            Rows::One => b == 0 && head == tensor.shape()[1] / 2 && token == n / 2,
        }
    }
}

impl Miswritten {
    fn instead(self, tensor: &ArrayD<f64>, index: &[usize], run: usize) -> f64 {
        let value = tensor[index];
        match self {
            Miswritten::Zeros => 0.0,
            Miswritten::Unwritten => f64::NAN,
            Miswritten::Negated => -value,
            Miswritten::Gain(gain) => gain * value,
            Miswritten::RowBefore => neighbour(tensor, index, -1).unwrap_or(value),
            Miswritten::RowAfter => neighbour(tensor, index, 1).unwrap_or(value),
            Miswritten::Stale => {
                let mut position = index.to_vec();
                position[..2].fill(0);
                tensor[position.as_slice()]
            }
            Miswritten::Narrowed(dtype) => dtype.round(value),
            Miswritten::Flushed(least) => {
                if value.abs() < least {
                    0.0
                } else {
                    value
                }
            }
            Miswritten::Wavering(amount) if run % 2 == 1 => value * (1.0 + amount),
            Miswritten::DoubledAtTimes if run % 2 == 1 => 2.0 * value,
            Miswritten::Wavering(_) | Miswritten::DoubledAtTimes => value,
            Miswritten::Infinite => f64::INFINITY,
            Miswritten::Wrapped(elements) => {
                let at = flat(tensor, index);
                let values = tensor.as_slice().unwrap_or_default();
                at.checked_sub(elements).and_then(|at| values.get(at).copied()).unwrap_or(value)
            }
        }
    }
}

/// The same element of the row that stands `by` rows on in memory.
fn neighbour(tensor: &ArrayD<f64>, index: &[usize], by: isize) -> Option<f64> {
    let shape = tensor.shape();
    let width = if shape.len() == 4 { shape[3] } else { 1 };
    let flat = flat(tensor, index).checked_add_signed(by * width as isize).filter(|flat| *flat < tensor.len())?;
    tensor.as_slice().map(|values| values[flat])
}

/// The element's position in memory.
fn flat(tensor: &ArrayD<f64>, index: &[usize]) -> usize {
    index.iter().zip(tensor.shape()).fold(0, |flat, (at, size)| flat * size + at)
}
