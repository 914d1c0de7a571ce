//! Tensor files (safetensors), read as if an enemy had written them: every length is held against the file's size before
//! anything is allocated, and what is wrong comes back as one line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use safetensors::tensor::{Metadata, TensorView};
use safetensors::{Dtype, SafeTensors};

use crate::{Element, Error};

/// The longest header that is read. A file of a case has a few dozen tensors.
const HEADER_BYTES_MAX: u64 = 16 << 20;
/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 8 << 30;

/// A checked tensor file in memory. Tensors are converted as they are asked for.
#[derive(Clone, Debug)]
pub struct TensorFile {
    bytes: Vec<u8>,
    header: Metadata,
    /// Where the data begins.
    data: usize,
}

impl TensorFile {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// One line that names the file: it cannot be read, is no regular file, is longer than 8 GiB, or [`TensorFile::parse`]
    /// refuses it. A header's claim is held against the file's size before it is believed.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        read_checked(path).and_then(Self::parse).map_err(|error| error.in_file(path))
    }

    /// Checks a file's contents.
    ///
    /// # Errors
    /// A header that is too long, truncated, no JSON or nested too deeply; tensors that overlap, leave gaps, overflow or
    /// disagree with the length of the data.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        check_header(&bytes, bytes.len() as u64)?;
        let (length, header) = SafeTensors::read_metadata(&bytes).map_err(unreadable)?;
        Ok(TensorFile { bytes, header, data: 8 + length })
    }

    /// A value of the header's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// All of the header's metadata, sorted by key.
    pub fn metadata_all(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut pairs: Vec<_> =
            self.header.metadata().iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        pairs.sort_unstable();
        pairs.into_iter()
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.header.offset_keys();
        names.sort_unstable();
        names
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>, Error> {
        self.view(name).map(|view| view.shape().to_vec())
    }

    /// The format of a floating-point tensor; `None` for a tensor of whole numbers or truth values.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn element(&self, name: &str) -> Result<Option<Element>, Error> {
        self.view(name).map(|view| element(view.dtype()))
    }

    /// A floating-point tensor (F64, F32, F16 or BF16), widened.
    ///
    /// # Errors
    /// There is no such tensor, or it is of another type.
    pub fn get_f64(&self, name: &str) -> Result<ArrayD<f64>, Error> {
        let view = self.view(name)?;
        let values = match view.dtype() {
            Dtype::F64 => numbers(&view, f64::from_le_bytes),
            Dtype::F32 => numbers(&view, |bytes| f64::from(f32::from_le_bytes(bytes))),
            Dtype::F16 => numbers(&view, |bytes| f16::from_le_bytes(bytes).to_f64()),
            Dtype::BF16 => numbers(&view, |bytes| bf16::from_le_bytes(bytes).to_f64()),
            other => return Err(wrong_type(name, other, "F64, F32, F16 or BF16")),
        };
        shaped(name, &view, values)
    }

    /// A tensor of whole numbers (I64 or I32).
    ///
    /// # Errors
    /// There is no such tensor, or it is of another type.
    pub fn get_i64(&self, name: &str) -> Result<ArrayD<i64>, Error> {
        let view = self.view(name)?;
        let values = match view.dtype() {
            Dtype::I64 => numbers(&view, i64::from_le_bytes),
            Dtype::I32 => numbers(&view, |bytes| i64::from(i32::from_le_bytes(bytes))),
            other => return Err(wrong_type(name, other, "I64 or I32")),
        };
        shaped(name, &view, values)
    }

    /// A tensor of truth values (BOOL or U8, 0 or 1).
    ///
    /// # Errors
    /// There is no such tensor, it is of another type, or a value is neither 0 nor 1.
    pub fn get_bool(&self, name: &str) -> Result<ArrayD<bool>, Error> {
        let view = self.view(name)?;
        if !matches!(view.dtype(), Dtype::BOOL | Dtype::U8) {
            return Err(wrong_type(name, view.dtype(), "BOOL or U8"));
        }
        if let Some((place, value)) = view.data().iter().enumerate().find(|(_, value)| **value > 1) {
            return Err(Error::invalid(format!("tensor `{name}`: value number {place} is {value}, neither 0 nor 1")));
        }
        shaped(name, &view, view.data().iter().map(|value| *value == 1).collect())
    }

    /// A tensor of any type that the others read, as numbers; `true` is 1.
    ///
    /// # Errors
    /// As theirs; a whole number beyond 2^53, which would not survive.
    pub(crate) fn get_number(&self, name: &str) -> Result<ArrayD<f64>, Error> {
        match self.view(name)?.dtype() {
            Dtype::BOOL | Dtype::U8 => Ok(self.get_bool(name)?.mapv(|value| f64::from(u8::from(value)))),
            Dtype::I64 | Dtype::I32 => {
                let numbers = self.get_i64(name)?;
                match numbers.iter().find(|number| number.unsigned_abs() > 1 << 53) {
                    Some(number) => Err(Error::invalid(format!("tensor `{name}`: {number} is beyond 2^53"))),
                    None => Ok(numbers.mapv(|number| number as f64)),
                }
            }
            _ => self.get_f64(name),
        }
    }

    fn view(&self, name: &str) -> Result<TensorView<'_>, Error> {
        let info = self.header.info(name).ok_or_else(|| Error::invalid(format!("has no tensor `{name}`")))?;
        let (start, end) = info.data_offsets;
        TensorView::new(info.dtype, info.shape.clone(), &self.bytes[self.data + start..self.data + end])
            .map_err(unreadable)
    }
}

fn read_checked(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |error: std::io::Error| Error::invalid(format!("cannot be read: {error}"));
    // A pipe or a device would be waited for, or never end.
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() {
        return Err(Error::invalid("is no regular file"));
    }
    if found.len() > FILE_BYTES_MAX {
        return Err(Error::invalid(format!("has {} bytes, more than {FILE_BYTES_MAX}", found.len())));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    (&mut file).take(8).read_to_end(&mut bytes).map_err(unreadable)?;
    check_header(&bytes, found.len())?;
    bytes.reserve_exact(found.len() as usize - bytes.len());
    file.take(found.len()).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn check_header(start: &[u8], file_bytes: u64) -> Result<(), Error> {
    let Some(length) = start.first_chunk::<8>() else {
        return Err(Error::invalid(format!("{file_bytes} bytes are too few for a tensor file")));
    };
    let length = u64::from_le_bytes(*length);
    if length > file_bytes - 8 {
        return Err(Error::invalid(format!("the header claims {length} bytes, the file has {file_bytes}")));
    }
    if length > HEADER_BYTES_MAX {
        return Err(Error::invalid(format!("the header has {length} bytes, more than {HEADER_BYTES_MAX}")));
    }
    Ok(())
}

fn unreadable(error: safetensors::SafeTensorError) -> Error {
    Error::invalid(format!("no readable tensor file: {error}"))
}

fn wrong_type(name: &str, found: Dtype, expected: &str) -> Error {
    Error::invalid(format!("tensor `{name}` is {found:?}, expected {expected}"))
}

fn element(dtype: Dtype) -> Option<Element> {
    match dtype {
        Dtype::F64 => Some(Element::F64),
        Dtype::F32 => Some(Element::F32),
        Dtype::F16 => Some(Element::F16),
        Dtype::BF16 => Some(Element::Bf16),
        _ => None,
    }
}

fn numbers<T, const BYTES: usize>(view: &TensorView<'_>, convert: impl Fn([u8; BYTES]) -> T) -> Vec<T> {
    view.data().as_chunks::<BYTES>().0.iter().map(|chunk| convert(*chunk)).collect()
}

fn shaped<T>(name: &str, view: &TensorView<'_>, values: Vec<T>) -> Result<ArrayD<T>, Error> {
    let shape = view.shape();
    ArrayD::from_shape_vec(IxDyn(shape), values)
        .map_err(|error| Error::invalid(format!("tensor `{name}` of {} axes: {error}", shape.len())))
}
