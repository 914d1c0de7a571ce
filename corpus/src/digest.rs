//! SHA-256 of tensors: what a case's inputs are, in one line.

use std::fmt::Write;

use ndarray::{Array, ArrayD, Dimension};
use sha2::{Digest, Sha256};

use crate::{Inputs, Outputs};

/// Hexadecimal digits of the SHA-256 of `bytes`.
pub fn bytes(bytes: &[u8]) -> String {
    hexadecimal(Sha256::digest(bytes).as_slice())
}

/// SHA-256 of a tensor: its rank, its sizes and its values in row-major order, all as little-endian 64 bits. Every NaN
/// counts as the same one.
pub fn tensor(tensor: &ArrayD<f64>) -> String {
    let mut hash = Sha256::new();
    add(&mut hash, "", tensor, |value| *value);
    hexadecimal(hash.finalize().as_slice())
}

/// SHA-256 of all of a problem's tensors and options; of the values, not of the format they are rounded to.
pub fn inputs(inputs: &Inputs) -> String {
    let mut hash = Sha256::new();
    let window = inputs.sliding_window().map_or(-1, |window| window as i64);
    for option in [inputs.shape().block_size() as i64, i64::from(inputs.include_block_causal()), window] {
        hash.update(option.to_le_bytes());
    }
    for (name, tensor) in [("q", inputs.q()), ("k", inputs.k()), ("v", inputs.v())] {
        add(&mut hash, name, tensor, |value| *value);
    }
    add(&mut hash, "indices", inputs.indices(), |index| f64::from(*index));
    add(&mut hash, "mask", inputs.mask(), |live| f64::from(u8::from(*live)));
    let cotangents = inputs.cotangents();
    for (name, tensor) in [
        ("sel_scale", inputs.sel_scale()),
        ("d_out", cotangents.d_out.as_ref()),
        ("d_sliding", cotangents.d_sliding.as_ref()),
    ] {
        tensor.into_iter().for_each(|tensor| add(&mut hash, name, tensor, |value| *value));
    }
    cotangents.d_lse.iter().for_each(|tensor| add(&mut hash, "d_lse", tensor, |value| *value));
    hexadecimal(hash.finalize().as_slice())
}

/// SHA-256 of all of an answer's tensors, by name.
pub fn outputs(outputs: &Outputs) -> String {
    let mut hash = Sha256::new();
    outputs.iter().for_each(|(field, tensor)| add(&mut hash, field.name(), tensor, |value| *value));
    hexadecimal(hash.finalize().as_slice())
}

fn add<A, D: Dimension>(hash: &mut Sha256, name: &str, tensor: &Array<A, D>, number: impl Fn(&A) -> f64) {
    hash.update(name);
    hash.update((tensor.ndim() as u64).to_le_bytes());
    tensor.shape().iter().for_each(|size| hash.update((*size as u64).to_le_bytes()));
    for value in tensor {
        let value = number(value);
        hash.update(if value.is_nan() { f64::NAN } else { value }.to_bits().to_le_bytes());
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
