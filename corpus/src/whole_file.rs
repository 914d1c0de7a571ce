//! Reading whole files that somebody else wrote, of stated length.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{Error, ErrorKind};

/// The bytes of the regular file `path`, of which there are at most `bytes_max`.
///
/// # Errors
/// The file cannot be read, is no regular file, or is longer.
pub fn read_bytes(path: impl AsRef<Path>, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let path = path.as_ref();
    read(path, bytes_max).map_err(|error| error.in_file(path))
}

/// The text of the regular file `path`, of at most `bytes_max` bytes.
///
/// # Errors
/// As [`read_bytes`]; the file is not UTF-8.
pub fn read_text(path: impl AsRef<Path>, bytes_max: u64) -> Result<String, Error> {
    let path = path.as_ref();
    let bytes = read_bytes(path, bytes_max)?;
    String::from_utf8(bytes).map_err(|_| failed("is not UTF-8").in_file(path))
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let cannot_be_read = |error: std::io::Error| failed(format!("cannot be read: {error}"));
    // A pipe would be waited for, and a device may never end.
    if !std::fs::metadata(path).map_err(cannot_be_read)?.is_file() {
        return Err(failed("is no regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot_be_read)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(cannot_be_read)?;
    if bytes.len() as u64 > bytes_max {
        return Err(failed(format!("has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn failed(message: impl AsRef<str>) -> Error {
    Error::new(ErrorKind::File, message)
}
