//! Tensors as the bytes that the device holds, and back.

use half::{bf16, f16};
use ndarray::{Array, Array4, ArrayD, Dimension};
use nsa_corpus::Dtype;

/// The values of a tensor in row-major order, as bytes of `element`.
pub(super) fn encode<D: Dimension>(tensor: &Array<f64, D>, dtype: Dtype) -> Vec<u8> {
    bytes(tensor, dtype.bytes(), |value, bytes| match dtype {
        Dtype::F64 => bytes.extend(value.to_le_bytes()),
        Dtype::F32 => bytes.extend((*value as f32).to_le_bytes()),
        Dtype::F16 => bytes.extend(f16::from_f64(*value).to_le_bytes()),
        Dtype::Bf16 => bytes.extend(bf16::from_f64(*value).to_le_bytes()),
    })
}

/// Block numbers in row-major order.
pub(super) fn encode_indices(tensor: &Array4<u32>) -> Vec<u8> {
    bytes(tensor, 4, |value, bytes| bytes.extend(value.to_le_bytes()))
}

/// One byte for each slot in row-major order.
pub(super) fn encode_mask(tensor: &Array4<bool>) -> Vec<u8> {
    bytes(tensor, 1, |value, bytes| bytes.push(u8::from(*value)))
}

fn bytes<T, D: Dimension>(tensor: &Array<T, D>, size: usize, write: impl Fn(&T, &mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tensor.len() * size);
    tensor.iter().for_each(|value| write(value, &mut bytes));
    bytes
}

/// The inverse of [`encode`]: a tensor of `shape`.
pub(super) fn decode(bytes: &[u8], dtype: Dtype, shape: &[usize]) -> ArrayD<f64> {
    let values: Vec<f64> = match dtype {
        Dtype::F64 => bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f64()).collect(),
        Dtype::Bf16 => bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f64()).collect(),
    };
    ArrayD::from_shape_vec(shape, values).expect("the buffer was allocated with the tensor's size")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::memory::POISON;

    #[test]
    fn tensors_come_back_in_every_dtype() {
        let tensor = Array4::from_shape_fn((2, 3, 4, 5), |(b, h, i, d)| (b * 60 + h * 20 + i * 5 + d) as f64 - 50.0);
        for dtype in Dtype::ALL {
            let bytes = encode(&tensor, dtype);
            assert_eq!(bytes.len(), tensor.len() * dtype.bytes());
            assert_eq!(decode(&bytes, dtype, &[2, 3, 4, 5]), tensor.clone().into_dyn());
        }
    }

    #[test]
    fn poison_is_nan_in_every_dtype() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            assert!(decode(&[POISON; 4][..dtype.bytes()], dtype, &[1, 1, 1])[[0, 0, 0]].is_nan());
        }
    }
}
