//! The one error type of this crate: what was wrong, naming both values or the offending position, and the file it
//! was found in.

use std::path::{Path, PathBuf};

use crate::foreign;

/// Why a shape, a case, an entry or a file was refused.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Kind>);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("{0}")]
    Invalid(String),
    #[error("{}: {source}", foreign::path(path))]
    In { path: PathBuf, source: Error },
}

impl Error {
    /// An error with a message that names the values at fault. They may stem from a file that an enemy wrote: the message is
    /// one line of limited length ([`foreign::line()`]), whatever they hold.
    pub fn invalid(message: impl AsRef<str>) -> Self {
        Error(Box::new(Kind::Invalid(foreign::line(message.as_ref()))))
    }

    /// The same error, said to stand in `path`.
    #[must_use]
    pub fn in_file(self, path: impl AsRef<Path>) -> Self {
        Error(Box::new(Kind::In { path: path.as_ref().to_owned(), source: self }))
    }
}
