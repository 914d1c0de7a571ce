//! The one error type of this crate: a gradient that cannot be checked, and why.

use std::fmt;

/// Why a gradient cannot be checked. [`Error::kind`] says which of the reasons it is, to match on; the text is for people
/// and may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A claimed gradient has another shape than its tensor, or a tensor has another number of axes than names.
    Shape,
    /// No cotangent is given, so there is no loss to differentiate.
    NoCotangent,
    /// A gradient that the cotangents ask for is not claimed.
    NoClaim,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    /// Which kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
