//! Tensor files (safetensors), read as if an enemy had written them: the header first, every length held against the file's
//! size and a stated limit before anything is allocated, a tensor only when it is asked for. What is wrong comes back as one
//! line.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use safetensors::Dtype as StoredType;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::IgnoredAny;

use crate::foreign;
use crate::unique::Unique;
use crate::{Dtype, Error, Limit};

/// The longest header that is read. A file of a case has a few dozen tensors.
const HEADER_BYTES_MAX: u64 = 16 << 20;
/// How much of a tensor is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// A tensor file whose header was checked. Tensors are read and converted as they are asked for.
#[derive(Clone, Debug)]
pub struct TensorFile {
    source: Source,
    header: Arc<Metadata>,
    /// Where the data begins.
    data: u64,
}

#[derive(Clone, Debug)]
enum Source {
    Memory(Arc<Vec<u8>>),
    File(Arc<Mutex<File>>),
}

impl TensorFile {
    /// Opens `path` and checks its header; tensors stay in the file.
    ///
    /// # Errors
    /// One line that names the file: it cannot be read, is no regular file, or [`TensorFile::parse`] would refuse it.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let open = || {
            // A pipe would be waited for: nothing but a regular file is opened.
            if !std::fs::metadata(path).map_err(cannot_be_read)?.is_file() {
                return Err(Error::invalid("is no regular file"));
            }
            Self::from_open(File::open(path).map_err(cannot_be_read)?)
        };
        open().map_err(|error| error.in_file(path))
    }

    /// As [`TensorFile::read`], of a file that is open already.
    ///
    /// # Errors
    /// As [`TensorFile::read`], without the file's name.
    pub fn from_open(mut file: File) -> Result<Self, Error> {
        let found = file.metadata().map_err(cannot_be_read)?;
        if !found.is_file() {
            return Err(Error::invalid("is no regular file"));
        }
        let mut start = Vec::new();
        (&mut file).take(8).read_to_end(&mut start).map_err(cannot_be_read)?;
        let length = header_length(&start, found.len())?;
        let mut header = Vec::new();
        (&mut file).take(length).read_to_end(&mut header).map_err(cannot_be_read)?;
        Self::checked(&header, found.len() - 8 - length, Source::File(Arc::new(Mutex::new(file))))
    }

    /// Checks a file's contents.
    ///
    /// # Errors
    /// A header that is too long, truncated, no JSON, nested too deeply or says something twice; tensors that overlap, leave
    /// gaps, overflow, disagree with the length of the data, or hold more numbers than [`Limit::FILE`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        let length = header_length(&bytes, bytes.len() as u64)?;
        let end = 8 + length as usize;
        let data = (bytes.len() - end) as u64;
        let bytes = Arc::new(bytes);
        Self::checked(&bytes[8..end], data, Source::Memory(Arc::clone(&bytes)))
    }

    /// The file of a header with `data` bytes behind it.
    fn checked(header: &[u8], data: u64, source: Source) -> Result<Self, Error> {
        let text = std::str::from_utf8(header).map_err(unreadable)?;
        let metadata: Metadata = serde_json::from_str(text).map_err(unreadable)?;
        // Of what stands twice, the last would be believed.
        serde_json::from_str::<Unique<Unique<IgnoredAny>>>(text).map_err(unreadable)?;
        if metadata.data_len() as u64 != data {
            return Err(unreadable(format!("its tensors take {} bytes, it has {data}", metadata.data_len())));
        }
        let numbers = metadata.tensors().values().map(|info| elements(info)).sum();
        Limit::FILE.check_count("its tensors", numbers)?;
        Ok(TensorFile { source, header: Arc::new(metadata), data: 8 + header.len() as u64 })
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

    /// Refuses the file where it has a tensor that nobody would read: leaving it out could change what the file means.
    pub(crate) fn only_tensors(&self, known: &BTreeSet<String>) -> Result<(), Error> {
        match self.names().into_iter().find(|name| !known.contains(name)) {
            Some(name) => Err(Error::invalid(format!("tensor {} has no meaning in this file", foreign::quoted(&name)))),
            None => Ok(()),
        }
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize], Error> {
        self.info(name).map(|info| info.shape.as_slice())
    }

    /// How many numbers a tensor holds.
    ///
    /// # Errors
    /// There is no such tensor.
    pub(crate) fn count(&self, name: &str) -> Result<u128, Error> {
        self.info(name).map(elements)
    }

    /// The format of a floating-point tensor; `None` for a tensor of whole numbers or truth values.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn dtype(&self, name: &str) -> Result<Option<Dtype>, Error> {
        self.info(name).map(|info| dtype_of(info.dtype))
    }

    /// A floating-point tensor (F64, F32, F16 or BF16), widened.
    ///
    /// # Errors
    /// There is no such tensor, it is of another type, or the file changed since it was opened.
    pub fn get_f64(&self, name: &str) -> Result<ArrayD<f64>, Error> {
        let info = self.info(name)?;
        let values = match info.dtype {
            StoredType::F64 => self.numbers(info, f64::from_le_bytes),
            StoredType::F32 => self.numbers(info, |bytes| f64::from(f32::from_le_bytes(bytes))),
            StoredType::F16 => self.numbers(info, |bytes| f16::from_le_bytes(bytes).to_f64()),
            StoredType::BF16 => self.numbers(info, |bytes| bf16::from_le_bytes(bytes).to_f64()),
            other => return Err(wrong_type(name, other, "F64, F32, F16 or BF16")),
        };
        shaped(name, info, values?)
    }

    /// A tensor of whole numbers (I64 or I32).
    ///
    /// # Errors
    /// As [`TensorFile::get_f64`].
    pub fn get_i64(&self, name: &str) -> Result<ArrayD<i64>, Error> {
        let info = self.info(name)?;
        let values = match info.dtype {
            StoredType::I64 => self.numbers(info, i64::from_le_bytes),
            StoredType::I32 => self.numbers(info, |bytes| i64::from(i32::from_le_bytes(bytes))),
            other => return Err(wrong_type(name, other, "I64 or I32")),
        };
        shaped(name, info, values?)
    }

    /// A tensor of truth values (BOOL or U8, 0 or 1).
    ///
    /// # Errors
    /// As [`TensorFile::get_f64`]; a value is neither 0 nor 1.
    pub fn get_bool(&self, name: &str) -> Result<ArrayD<bool>, Error> {
        let info = self.info(name)?;
        if !matches!(info.dtype, StoredType::BOOL | StoredType::U8) {
            return Err(wrong_type(name, info.dtype, "BOOL or U8"));
        }
        let values = self.numbers(info, |[byte]: [u8; 1]| byte)?;
        if let Some((position, value)) = values.iter().enumerate().find(|(_, value)| **value > 1) {
            let name = foreign::quoted(name);
            return Err(Error::invalid(format!("tensor {name}: value number {position} is {value}, neither 0 nor 1")));
        }
        shaped(name, info, values.into_iter().map(|value| value == 1).collect())
    }

    /// A tensor of any type that the others read, as numbers; `true` is 1.
    ///
    /// # Errors
    /// As theirs; a whole number beyond 2^53, which would not survive.
    pub(crate) fn get_number(&self, name: &str) -> Result<ArrayD<f64>, Error> {
        match self.info(name)?.dtype {
            StoredType::BOOL | StoredType::U8 => Ok(self.get_bool(name)?.mapv(|value| f64::from(u8::from(value)))),
            StoredType::I64 | StoredType::I32 => {
                let numbers = self.get_i64(name)?;
                match numbers.iter().find(|number| number.unsigned_abs() > 1 << 53) {
                    Some(number) => {
                        Err(Error::invalid(format!("tensor {}: {number} is beyond 2^53", foreign::quoted(name))))
                    }
                    None => Ok(numbers.mapv(|number| number as f64)),
                }
            }
            _ => self.get_f64(name),
        }
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, Error> {
        self.header.info(name).ok_or_else(|| Error::invalid(format!("has no tensor {}", foreign::quoted(name))))
    }

    /// The tensor's numbers. As many as the file's size allows: the header was held against it.
    fn numbers<T, const BYTES: usize>(
        &self,
        info: &TensorInfo,
        convert: impl Fn([u8; BYTES]) -> T,
    ) -> Result<Vec<T>, Error> {
        let (start, end) = info.data_offsets;
        let mut numbers = Vec::with_capacity((end - start) / BYTES);
        let mut add = |piece: &[u8]| numbers.extend(piece.as_chunks::<BYTES>().0.iter().map(|number| convert(*number)));
        match &self.source {
            Source::Memory(bytes) => add(&bytes[self.data as usize..][start..end]),
            Source::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(self.data + start as u64)).map_err(cannot_be_read)?;
                let mut piece = vec![0; PIECE_BYTES.min(end - start)];
                for first in (start..end).step_by(PIECE_BYTES) {
                    let piece = &mut piece[..PIECE_BYTES.min(end - first)];
                    file.read_exact(piece).map_err(cannot_be_read)?;
                    add(piece);
                }
            }
        }
        Ok(numbers)
    }
}

/// How long the header of a file that begins with `start` is.
fn header_length(start: &[u8], file_bytes: u64) -> Result<u64, Error> {
    let (Some(length), Some(rest)) = (start.first_chunk::<8>(), file_bytes.checked_sub(8)) else {
        return Err(Error::invalid(format!("{file_bytes} bytes are too few for a tensor file")));
    };
    let length = u64::from_le_bytes(*length);
    if length > rest {
        return Err(Error::invalid(format!("the header claims {length} bytes, the file has {file_bytes}")));
    }
    if length > HEADER_BYTES_MAX {
        return Err(Error::invalid(format!("the header has {length} bytes, more than {HEADER_BYTES_MAX}")));
    }
    Ok(length)
}

fn elements(info: &TensorInfo) -> u128 {
    info.shape.iter().fold(1, |product: u128, &size| product.saturating_mul(size as u128))
}

fn cannot_be_read(error: std::io::Error) -> Error {
    Error::invalid(format!("cannot be read: {error}"))
}

fn unreadable(why: impl Display) -> Error {
    Error::invalid(format!("no readable tensor file: {}", foreign::short(&why.to_string(), 200)))
}

fn wrong_type(name: &str, found: StoredType, expected: &str) -> Error {
    Error::invalid(format!("tensor {} is {found:?}, expected {expected}", foreign::quoted(name)))
}

fn dtype_of(stored: StoredType) -> Option<Dtype> {
    match stored {
        StoredType::F64 => Some(Dtype::F64),
        StoredType::F32 => Some(Dtype::F32),
        StoredType::F16 => Some(Dtype::F16),
        StoredType::BF16 => Some(Dtype::Bf16),
        _ => None,
    }
}

fn shaped<T>(name: &str, info: &TensorInfo, values: Vec<T>) -> Result<ArrayD<T>, Error> {
    let axes = info.shape.len();
    ArrayD::from_shape_vec(IxDyn(&info.shape), values)
        .map_err(|error| Error::invalid(format!("tensor {} of {axes} axes: {error}", foreign::quoted(name))))
}
