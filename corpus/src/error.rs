//! The one error type of this crate: what was wrong, naming both values or the offending position, and the file it
//! was found in. Text of a file or another program stands in a message only through
//! [`foreign`](crate::foreign).

use std::path::{Path, PathBuf};

use crate::foreign;

/// Why a shape, a case, an entry or a file was refused. [`Error::kind`] says which of these it is, to match on; the text
/// is for people and may change: one line of bounded length without control characters, whatever a file holds.
///
/// # Examples
/// ```
/// use nsa_corpus::{ErrorKind, Shape, Sizes};
/// let error = Shape::new(Sizes { q_heads: 5, kv_heads: 2, ..Sizes::default() }).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Sizes);
/// assert_eq!(error.to_string(), "q_heads 5 is not a multiple of kv_heads 2");
/// assert_eq!(error.path(), None); // the sizes came from no file
/// ```
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Kind>);

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Sizes that no problem has: [`Shape::new`](crate::Shape::new) refuses them.
    Sizes,
    /// A value outside its range, or two values, shapes or options that must agree and do not.
    Invalid,
    /// A word that is none of the words that may stand there.
    UnknownWord,
    /// Text that is no file of entries: bad TOML, an unknown field, a name that stands twice.
    Entry,
    /// A file that cannot be read or written, or may not be.
    File,
}

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("{message}")]
    Plain { kind: ErrorKind, message: String },
    #[error("{}: {source}", foreign::path(path))]
    In { path: PathBuf, source: Error },
}

impl Error {
    /// An error of this kind, with a message that names the values at fault. They may stem from a file that an enemy wrote:
    /// the message is one line of limited length ([`foreign::line()`]), whatever they hold.
    pub fn new(kind: ErrorKind, message: impl AsRef<str>) -> Self {
        Error(Box::new(Kind::Plain { kind, message: foreign::line(message.as_ref()) }))
    }

    /// An error of kind [`ErrorKind::Invalid`].
    pub fn invalid(message: impl AsRef<str>) -> Self {
        Error::new(ErrorKind::Invalid, message)
    }

    /// The same error, said to stand in `path`.
    #[must_use]
    pub fn in_file(self, path: impl AsRef<Path>) -> Self {
        Error(Box::new(Kind::In { path: path.as_ref().to_owned(), source: self }))
    }

    /// What kind of error it is, whatever file it stands in.
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Kind::Plain { kind, .. } => *kind,
            Kind::In { source, .. } => source.kind(),
        }
    }

    /// The file that was read when the error was found; the outer one, where that names another.
    pub fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Kind::Plain { .. } => None,
            Kind::In { path, .. } => Some(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_a_file_keeps_its_kind_and_names_the_outer_file() {
        let error = Error::new(ErrorKind::Entry, "line 3: no name").in_file("inner.toml").in_file("outer.toml");
        assert_eq!(error.kind(), ErrorKind::Entry);
        assert_eq!(error.path(), Some(Path::new("outer.toml")));
        assert_eq!(error.to_string(), "outer.toml: inner.toml: line 3: no name");
    }
}
