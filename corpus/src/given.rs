//! A tensor that a case takes from a file instead of drawing it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ndarray::{ArrayD, IxDyn, Slice};
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, TensorFile, digest, embedded, foreign};

/// A tensor of a file, by name. It may be larger than the case needs: its leading part is used, which is how a given
/// tensor shrinks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    file: String,
    tensor: String,
    /// Of the values widened to `f64`; checked where the tensor is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Where relative paths start; `None`: embedded files only.
    #[serde(skip)]
    folder: Option<PathBuf>,
    /// The file in which the case itself is stored.
    #[serde(skip)]
    own: Option<TensorFile>,
    #[serde(skip)]
    data: OnceLock<Arc<ArrayD<f64>>>,
}

/// The name that stands for the file in which the entry itself is stored.
pub(crate) const SELF: &str = "self";

impl Given {
    /// A tensor at hand, to be stored as `tensor` of the file in which the case itself is stored.
    pub fn in_memory(tensor: &str, data: ArrayD<f64>) -> Self {
        let sha256 = Some(digest::tensor(&data));
        Given {
            file: SELF.to_owned(),
            tensor: tensor.to_owned(),
            sha256,
            folder: None,
            own: None,
            data: Arc::new(data).into(),
        }
    }

    /// Checks the reference and says where relative paths start. `own` is the file in which the case is stored.
    pub(crate) fn bind(&mut self, folder: Option<&Path>, own: Option<&TensorFile>) -> Result<(), Error> {
        if self.file == SELF {
            let none = || Error::invalid("file = \"self\" stands only in an entry that a tensor file holds");
            self.own = Some(own.ok_or_else(none)?.clone());
            return Ok(());
        }
        check_relative(&self.file)?;
        self.folder = folder.map(Path::to_owned);
        Ok(())
    }

    /// Whether it is a tensor of the file in which the case itself is stored.
    pub(crate) fn is_own(&self) -> bool {
        self.file == SELF
    }

    /// How many numbers the tensor holds; all of it is read, however much of it is used.
    pub(crate) fn count(&self) -> Result<u128, Error> {
        match self.data.get() {
            Some(data) => Ok(data.len() as u128),
            None => self.open()?.count(&self.tensor).map_err(|error| error.in_file(&self.file)),
        }
    }

    fn verify(&self, data: &ArrayD<f64>) -> Result<(), Error> {
        match &self.sha256 {
            Some(expected) if *expected != digest::tensor(data) => Err(Error::invalid(format!(
                "tensor {} has SHA-256 {}, the entry says {}",
                foreign::quoted(&self.tensor),
                digest::tensor(data),
                foreign::quoted(expected)
            ))),
            _ => Ok(()),
        }
    }

    fn data(&self) -> Result<&Arc<ArrayD<f64>>, Error> {
        if self.data.get().is_none() {
            let file = self.open()?;
            let read = || {
                let data = file.get_number(&self.tensor)?;
                self.verify(&data)?;
                Ok(data)
            };
            let data = read().map_err(|error: Error| error.in_file(&self.file))?;
            return Ok(self.data.get_or_init(|| Arc::new(data)));
        }
        Ok(self.data.get().expect("just checked"))
    }

    fn open(&self) -> Result<TensorFile, Error> {
        if let Some(own) = &self.own {
            return Ok(own.clone());
        }
        if let Some(bytes) = embedded::file(&self.file) {
            return TensorFile::parse(bytes.to_vec()).map_err(|error| error.in_file(&self.file));
        }
        let Some(folder) = &self.folder else {
            return Err(Error::new(ErrorKind::File, "no such embedded file").in_file(&self.file));
        };
        check_relative(&self.file)?;
        let mut path = folder.clone();
        for part in Path::new(&self.file) {
            path.push(part);
            if path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
                return Err(
                    Error::new(ErrorKind::File, "is a symbolic link, which a case may not follow").in_file(path)
                );
            }
        }
        TensorFile::read(&path)
    }

    /// The tensor's leading part of shape `dim`.
    pub(crate) fn cut(&self, dim: &[usize]) -> Result<ArrayD<f64>, Error> {
        let data = self.data()?;
        let fits = data.ndim() == dim.len() && data.shape().iter().zip(dim).all(|(found, wanted)| found >= wanted);
        if !fits {
            return Err(Error::invalid(format!(
                "tensor {} of {} has shape {:?}, the case needs {dim:?}",
                foreign::quoted(&self.tensor),
                foreign::quoted(&self.file),
                data.shape()
            )));
        }
        let part = data.slice_each_axis(|axis| Slice::from(0..dim[axis.axis.index()]));
        Ok(ArrayD::from_shape_vec(IxDyn(dim), part.iter().copied().collect()).expect("as many as were sliced"))
    }

    /// The tensor with every value passed through `change`; the same reference where none changed.
    pub(crate) fn map(&self, change: impl Fn(f64) -> f64) -> Result<Given, Error> {
        let data = self.data()?;
        if data.iter().all(|&value| change(value).to_bits() == value.to_bits()) {
            return Ok(self.clone());
        }
        Ok(Given::in_memory(&self.tensor, data.mapv(change)))
    }
}

impl PartialEq for Given {
    /// By reference and digest: the values of one file's tensor are the same wherever they were read.
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && self.tensor == other.tensor && self.sha256 == other.sha256
    }
}

/// Refuses a path that could leave the folder it starts in.
fn check_relative(file: &str) -> Result<(), Error> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '\0']);
    if file.split('/').all(plain) {
        return Ok(());
    }
    let file = foreign::short(file, 80);
    let message = format!("file = \"{file}\": must be a relative path with no `..`, below the folder of the entry");
    Err(Error::new(ErrorKind::File, message))
}
