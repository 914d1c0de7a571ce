//! Writing tensor files: the same tensors give the same bytes, and a file is there whole or not at all.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use ndarray::{Array, Dimension};
use serde_json::json;

use crate::files::write_atomically;
use crate::{Dtype, Error};

struct Stored {
    dtype: &'static str,
    bytes_each: usize,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A tensor file in the making.
#[derive(Default)]
pub struct TensorFileBuilder {
    tensors: BTreeMap<String, Stored>,
    metadata: BTreeMap<String, String>,
}

impl TensorFileBuilder {
    /// A file without tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line of metadata.
    pub fn metadata(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a floating-point tensor, stored in `dtype`: exact if its values are exact in that format.
    pub fn float<D: Dimension>(&mut self, name: &str, dtype: Dtype, tensor: &Array<f64, D>) -> &mut Self {
        let (stored, encode): (_, fn(f64, &mut Vec<u8>)) = match dtype {
            Dtype::F64 => ("F64", |value, bytes| bytes.extend(value.to_le_bytes())),
            Dtype::F32 => ("F32", |value, bytes| bytes.extend((value as f32).to_le_bytes())),
            Dtype::F16 => {
                ("F16", |value, bytes| bytes.extend(f16::from_f32(Dtype::F16.round(value) as f32).to_le_bytes()))
            }
            Dtype::Bf16 => {
                ("BF16", |value, bytes| bytes.extend(bf16::from_f32(Dtype::Bf16.round(value) as f32).to_le_bytes()))
            }
        };
        self.add(name, stored, dtype.bytes(), tensor, |value, bytes| encode(*value, bytes))
    }

    /// Adds a tensor of whole numbers, stored as I64.
    pub fn whole<D: Dimension>(&mut self, name: &str, tensor: &Array<i64, D>) -> &mut Self {
        self.add(name, "I64", 8, tensor, |value, bytes| bytes.extend(value.to_le_bytes()))
    }

    /// Adds a tensor of truth values, stored as BOOL.
    pub fn truth<D: Dimension>(&mut self, name: &str, tensor: &Array<bool, D>) -> &mut Self {
        self.add(name, "BOOL", 1, tensor, |value, bytes| bytes.push(u8::from(*value)))
    }

    fn add<A, D: Dimension>(
        &mut self,
        name: &str,
        dtype: &'static str,
        bytes_each: usize,
        tensor: &Array<A, D>,
        encode: impl Fn(&A, &mut Vec<u8>),
    ) -> &mut Self {
        let mut bytes = Vec::with_capacity(tensor.len() * bytes_each);
        tensor.iter().for_each(|value| encode(value, &mut bytes));
        self.tensors.insert(name.to_owned(), Stored { dtype, bytes_each, shape: tensor.shape().to_vec(), bytes });
        self
    }

    /// The file's bytes: metadata sorted by key; tensors by size of element, largest first (so that each is aligned),
    /// then by name.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut order: Vec<_> = self.tensors.iter().collect();
        order.sort_by_key(|(_, stored)| std::cmp::Reverse(stored.bytes_each));
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut lines = Vec::new();
        if !self.metadata.is_empty() {
            lines.push(format!("\"__metadata__\":{}", serde_json::to_string(&self.metadata).expect("text to text")));
        }
        let mut offset = 0;
        for (name, stored) in &order {
            let end = offset + stored.bytes.len();
            lines.push(format!(
                "{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{offset},{end}]}}",
                quoted(name),
                stored.dtype,
                json!(stored.shape)
            ));
            offset = end;
        }
        let mut header = format!("{{{}}}", lines.join(","));
        header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
        let mut bytes = Vec::with_capacity(8 + header.len() + offset);
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header.as_bytes());
        order.iter().for_each(|(_, stored)| bytes.extend(&stored.bytes));
        bytes
    }

    /// Writes the file, atomically: a reader sees the old file or the whole new one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        write_atomically(path, &self.to_bytes())
    }
}
